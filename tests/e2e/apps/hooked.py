"""``wsgi`` and ``asgi`` answer with what the hooks of ``request_hooks.conf.py`` did to them."""

from contextvars import ContextVar

import gate

#: Set by ``pre_request`` and by the application: each of them sees what the one before has set.
seen = ContextVar("seen", default="nothing")


def _answer(path, fields):
    text = f"{seen.get()} {fields.get('x-added', '-')}"
    seen.set("application")
    if path == "/raises":
        raise ValueError("raised by the application")
    return text.encode()


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/gate":
        gate.block("hooked")
    body = _answer(environ["PATH_INFO"], {"x-added": environ.get("HTTP_X_ADDED", "-")})
    start_response("201 Very Well", [("X-Out", "out"), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-out", b"out")]})
        return
    if scope["path"] == "/gate":
        await gate.wait("hooked")
    body = _answer(scope["path"], {name.decode(): value.decode() for name, value in scope["headers"]})
    fields = [(b"x-out", b"out"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 201, "headers": fields})
    await send({"type": "http.response.body", "body": body})
