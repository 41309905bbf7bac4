"""
Applications that fail, or take their time, for paths that want to forge lines of the log.

``/raises``, ``/late`` (after the head), ``/returns`` (ASGI: without a response), ``/held`` (blocks at the gate
``held``) and ``/abandoned`` (WSGI: raises behind that gate), with anything behind it.
"""

import gate


def _kind(path):
    return path.strip("/").split("/")[0]


def wsgi(environ, start_response):
    kind = _kind(environ["PATH_INFO"])
    if kind in ("held", "abandoned"):
        gate.block("held")
    if kind in ("raises", "abandoned"):
        raise ValueError("raised before the head")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return _items(kind)


def _items(kind):
    yield b"first"
    if kind == "late":
        raise ValueError("raised after the head")


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    kind = _kind(scope["path"])
    if kind == "returns":
        return
    if kind == "held":
        gate.block("held")
    if kind == "raises":
        raise ValueError("raised before the head")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("raised behind the handshake")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"first", "more_body": kind == "late"})
    if kind == "late":
        raise ValueError("raised after the head")
