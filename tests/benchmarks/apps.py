"""ASGI applications of the scenarios, without a framework; an AssertionError is their answer to lifespan."""

from __future__ import annotations

import asyncio
from typing import Any

HELLO = b"Hello, world!"
BODY_10K = b"x" * 10_240
BODY_1M = b"x" * 1_048_576
CHUNK = b"x" * 100

Scope = dict[str, Any]


def _start(length: int) -> dict[str, Any]:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % length)]
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _respond(send: Any, body: bytes) -> None:
    await send(_start(len(body)))
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await _respond(send, HELLO)


async def get_10k(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await _respond(send, BODY_10K)


async def download_1m(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await _respond(send, BODY_1M)


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    chunks = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    await _respond(send, b"".join(chunks))


async def upload(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    size = 0
    more = True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await _respond(send, b"%d" % size)


async def stream(scope: Scope, receive: Any, send: Any) -> None:
    """100 chunks of 100 bytes, without a length: chunked on the wire."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(99):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": CHUNK})


async def sleep(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await asyncio.sleep(0.01)
    await _respond(send, HELLO)


async def websocket_echo(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":  # the check before the load asks by plain HTTP
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


_room: dict[int, Any] = {}


async def websocket_broadcast(scope: Scope, receive: Any, send: Any) -> None:
    """What one client says goes to all clients."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    _room[id(send)] = send
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for client in list(_room.values()):
                await client({"type": "websocket.send", "bytes": message["bytes"]})
    finally:
        del _room[id(send)]
