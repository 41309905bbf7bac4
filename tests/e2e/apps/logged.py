"""
One application twice, for the access log: ``wsgi`` and ``asgi`` answer alike.

The first part of a path says what: ``/ok``, ``/reason``, ``/created``, ``/missing``, ``/raises``,
``/stream``, ``/raises-late``. Everything else is a 200 as well.
"""

from http import HTTPStatus

import gate

FIELDS = [("Content-Type", "text/plain"), ("X-Out", 'with "quotes" and \xe9'), ("X-Twice", "one"), ("X-Twice", "two")]
STATUSES = {"missing": 404, "created": 201, "empty": 204, "unchanged": 304}
PARTS = [b"first ", b"second ", b"third"]


def _answer(name):
    """Status, and the parts of the body; more than one part has no Content-Length."""
    status = STATUSES.get(name, 200)
    if name in ("stream", "raises-late"):
        return status, PARTS
    return status, [b"" if status in (204, 304) else name.encode("latin-1")]


def _name(path):
    return path.strip("/").partition("/")[0]


def wsgi(environ, start_response):
    name = _name(environ["PATH_INFO"])
    if name == "raises":
        raise ValueError("raised before the head")
    if name == "errors":
        environ["wsgi.errors"].write("written to wsgi.errors\n")
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    status, parts = _answer(name)
    phrase = "Very Well" if name == "reason" else HTTPStatus(status).phrase
    fields = list(FIELDS)
    if len(parts) == 1 and status != 204 and status != 304:
        fields.append(("Content-Length", str(len(parts[0]))))
    start_response(f"{status} {phrase}", fields)
    return parts if name != "raises-late" else _fails(parts)


def _fails(parts):
    yield from parts
    raise ValueError("raised after the head")


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await _websocket(scope, receive, send)
        return
    name = _name(scope["path"])
    if name == "raises":
        raise ValueError("raised before the head")
    while (await receive()).get("more_body"):
        pass
    status, parts = _answer(name)
    fields = [(key.lower().encode(), value.encode("latin-1")) for key, value in FIELDS]
    if len(parts) == 1 and status != 204 and status != 304:
        fields.append((b"content-length", str(len(parts[0])).encode()))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": len(parts) > 1})
    if name == "raises-late":
        raise ValueError("raised after the head")
    if len(parts) > 1:
        await send({"type": "http.response.body"})


async def _websocket(scope, receive, send):
    """``/accepts`` says a word and waits for the end; ``/gate``, for a gate; ``/refuses``, ``/raises``, ``/denies``."""
    name = _name(scope["path"])
    assert (await receive())["type"] == "websocket.connect"
    if name == "raises":
        raise ValueError("raised before the handshake")
    if name == "refuses":
        await send({"type": "websocket.close"})
    elif name == "denies":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-out", b"denied")]})
        await send({"type": "websocket.http.response.body", "body": b"not you"})
    else:
        await send({"type": "websocket.accept", "headers": [(b"x-out", b"accepted")]})
        await send({"type": "websocket.send", "text": "hello"})
        if name == "gate":
            await gate.wait("websocket")
        else:
            await receive()
