"""The ASGI application of the rows: each path is something that users do. Runs in the server's process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

kept: list[bytearray] = []  #: what ``/grow`` does not give back
pools: list[ProcessPoolExecutor] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI 3 application."""
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    if scope["type"] == "websocket":
        return await echo_socket(receive, send)
    path, query = scope["path"], scope["query_string"].decode()
    if handler := HANDLERS.get(path):
        return await handler(scope, receive, send, query)
    await answer(send, b"hello")


async def answer(send: Send, body: bytes, status: int = 200, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """A whole response."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*fields, length]})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Receive) -> bytes:
    """The body of the request."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "state" in scope:
        scope["state"]["from"] = "startup"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def echo_socket(receive: Receive, send: Send) -> None:
    """Each text comes back; ``pid`` is answered with the pid."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text") or ""
        await send({"type": "websocket.send", "text": str(os.getpid()) if text == "pid" else text})


# -- paths


async def pid(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    await answer(send, b"%d" % os.getpid())


async def size(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """How many bytes the request had."""
    await answer(send, b"%d" % len(await read(receive)))


async def refuse(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Answer without a look at the body."""
    await answer(send, b"too much", 403)


async def slow(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Take so many seconds."""
    await asyncio.sleep(float(query))
    await answer(send, b"slow")


async def hang(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    await asyncio.Event().wait()


async def block_the_loop(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Hold the event loop for so many seconds, in a function with a name that is looked for."""
    time.sleep(float(query))  # noqa: ASYNC251 (that is what the row is about)
    await answer(send, b"blocked")


async def client(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """The address of the client, and the scheme."""
    address = scope.get("client") or ("none",)
    await answer(send, f"{address[0]} {scope['scheme']}".encode())


async def state(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    await answer(send, str(scope.get("state", {}).get("from")).encode())


async def stream(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Server-sent events until the client is gone, as frameworks send them."""
    fields = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    leaving = asyncio.ensure_future(left())
    try:
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True})
            await asyncio.wait([leaving], timeout=0.2)
        with contextlib.suppress(OSError):
            await send({"type": "http.response.body", "body": b""})
    finally:
        leaving.cancel()


async def trailers(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """A response with a trailer, where the server announces the extension."""
    if "http.response.trailers" not in scope.get("extensions", {}):
        return await answer(send, b"not announced")
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": b"with trailers"})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


async def hints(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """A 103 before the response: by ASGI's extension, or by the message that gunicorn's worker has (``own``)."""
    link = b"</style.css>; rel=preload; as=style"
    if query == "own":
        await send({"type": "http.response.informational", "status": 103, "headers": [(b"link", link)]})
    elif "http.response.early_hint" in scope.get("extensions", {}):
        await send({"type": "http.response.early_hint", "links": [link]})
    await answer(send, b"after hints")


async def path(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """A file by its name, where the server announces the extension."""
    if "http.response.pathsend" not in scope.get("extensions", {}):
        return await answer(send, b"not announced")
    file = os.path.realpath(__file__)  # noqa: ASYNC240
    length = (b"content-length", b"%d" % os.stat(file).st_size)
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.pathsend", "path": file})


async def pool(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Use a process pool that the application keeps."""
    if not pools:
        pools.append(ProcessPoolExecutor(2))
    number = await asyncio.get_running_loop().run_in_executor(pools[0], os.getpid)
    await answer(send, b"%d" % number)


async def grow(scope: Scope, receive: Receive, send: Send, query: str) -> None:
    """Keep so many MiB for ever."""
    kept.append(bytearray(os.urandom(1 << 20) * int(query)))
    await answer(send, b"%d" % os.getpid())


HANDLERS: dict[str, Callable[[Scope, Receive, Send, str], Awaitable[None]]] = {
    "/pid": pid,
    "/size": size,
    "/refuse": refuse,
    "/slow": slow,
    "/hang": hang,
    "/block": block_the_loop,
    "/client": client,
    "/state": state,
    "/stream": stream,
    "/trailers": trailers,
    "/hints": hints,
    "/path": path,
    "/pool": pool,
    "/grow": grow,
}
