"""
The id of a request, as applications know it; ``wsgi`` and ``asgi`` alike.

``/show`` answers with the id that the code knows, that of a thread it asks, and the field of the request, and logs a
line; ``/raises`` fails, ``/gate`` holds its thread or the loop until the gate ``held`` is open, ``/sets`` sets the
field itself. A WebSocket at ``/denied`` is answered with a 403; any other is accepted, told the id, and closed.
"""

import asyncio
import json
import logging

import gate

from hybridworker import request_id

log = logging.getLogger("app")


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raises":
        raise ValueError("raised on purpose")
    if path == "/gate":
        gate.block("held")
    log.info("in the view")
    fields = [("Content-Type", "application/json")]
    if path == "/sets":
        fields.append(("X-REQUEST-ID", "of the application"))
    start_response("200 OK", fields)
    known = request_id()
    return [json.dumps([known, known, environ.get("HTTP_X_REQUEST_ID")]).encode()]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await _websocket(scope, receive, send)
        return
    path = scope["path"]
    if path == "/raises":
        raise ValueError("raised on purpose")
    if path == "/gate":
        gate.block("held")
    log.info("in the view")
    fields = [(b"content-type", b"application/json")]
    if path == "/sets":
        fields.append((b"X-REQUEST-ID", b"of the application"))
    received = ",".join(value.decode() for name, value in scope["headers"] if name == b"x-request-id")
    known = [request_id(), await asyncio.to_thread(request_id), received or None]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": json.dumps(known).encode()})


async def _websocket(scope, receive, send):
    await receive()
    if scope["path"] != "/denied":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": request_id()})
    await send({"type": "websocket.close"})
