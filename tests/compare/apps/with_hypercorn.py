"""
What hypercorn's middleware makes: a WSGI and an ASGI application on one port, and one behind a proxy.

The WSGI part is called for the lifespan as well and does not complete it, so that the server would not start; as its
users do, it is answered here.
"""

from __future__ import annotations

from typing import Any

from hypercorn.middleware import AsyncioWSGIMiddleware, DispatcherMiddleware, ProxyFixMiddleware

from . import asgi, wsgi

_wsgi = AsyncioWSGIMiddleware(wsgi.app)


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The WSGI part, with a lifespan."""
    if scope["type"] == "lifespan":
        return await asgi.lifespan(scope, receive, send)
    await _wsgi(scope, receive, send)


natural = DispatcherMiddleware({"/state": asgi.app, "/socket": asgi.app, "": _wsgi})
app = DispatcherMiddleware({"/state": asgi.app, "/socket": asgi.app, "": pages})
behind_a_proxy = ProxyFixMiddleware(asgi.app)
