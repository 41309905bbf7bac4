"""
Requests that have an id, for the logs: a variable, and the filter that asks for it (``request_id.conf.py``).

``/list/ID``, ``/iterator/ID`` (which gives the id back in ``close()``), ``/raises/ID``, ``/late/ID`` (raises after
the head) and ``/gate/ID``; ``wsgi`` and ``asgi`` alike. ``/abandoned/ID`` of ``wsgi`` raises behind a gate. A WebSocket
ends at once, or waits for its end at ``/gate/ID``.
"""

import logging
from contextvars import ContextVar

import gate

request_id = ContextVar("request_id", default="-")


class Filter(logging.Filter):
    """Adds the id to each record; that of the access log leaves a trace, which no application may see."""

    def filter(self, record):
        record.request_id = request_id.get()
        if record.name == "gunicorn.access":
            request_id.set("of the filter")
        return True


class Items:
    """A body that gives the id back when it is closed."""

    def __init__(self, kind):
        self.items = iter([b"one ", b"two"])
        self.kind = kind

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        if self.kind == "late" and item == b"two":
            raise ValueError("raised after the head")
        return item

    def close(self):
        request_id.set("given back")


def wsgi(environ, start_response):
    kind, name = environ["PATH_INFO"].strip("/").split("/")
    environ["wsgi.input"].read()
    request_id.set(name)
    if kind in ("gate", "abandoned"):
        gate.block(name)
    if kind in ("raises", "abandoned"):
        raise ValueError("raised before the head")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one two"] if kind in ("list", "gate") else Items(kind)


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    kind, name = scope["path"].strip("/").split("/")
    request_id.set(name)
    if scope["type"] == "websocket":
        await receive()
        if kind == "raises":
            raise ValueError("raised before the handshake")
        await send({"type": "websocket.accept"})
        if kind == "gate":
            await receive()
        return
    while (await receive()).get("more_body"):
        pass
    if kind == "raises":
        raise ValueError("raised before the head")
    if kind == "gate":
        await gate.wait(name)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    if kind == "late":
        raise ValueError("raised after the head")
    await send({"type": "http.response.body", "body": b"two"})
    assert request_id.get() == name
