"""A WSGI and an ASGI application on one port, as this project's users write it."""

from hybridworker import Hybrid

from . import asgi, wsgi

app = Hybrid(wsgi.app, websocket=asgi.app, routes={"/state": asgi.app})
