"""Hybrids whose WSGI part speaks WebSocket itself, by the socket in its environ."""

from hybrids import Show
from wsgisocket import app as flask

from hybridworker import Hybrid

room, everywhere = Show("room"), Show("everywhere")

#: No ``websocket``: what no ASGI part claims is for Flask, wherever it stands.
app = Hybrid(flask, routes={"/room": room, "/room/flask": flask}, mounts={"/flask": flask})

#: Here one comes before every WSGI part.
beside = Hybrid(flask, websocket=everywhere, mounts={"/flask": flask})
