"""
Clients that wrk and h2load are not: WebSocket echo and broadcast, held connections, slow senders, a large download.

``python -m tests.benchmarks.clients ROLE PORT CONNECTIONS [SECONDS [PATH]]``, run by ``load.py`` on the core of the
load. The load roles (``echo``, ``echo-plain``, ``broadcast``, ``probe``) print one line of JSON as ``load.lua`` does.
The others print ``ready`` when all are connected, stay until standard input ends, and then print ``{"lost": N}``;
``pages`` adds its ``rate``.

The WebSocket client knows no more of RFC 6455 than the load needs (short unfragmented frames, masked with a constant),
so that it is never the slower side.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import zlib
from array import array
from collections.abc import Callable
from typing import Any

import uvloop

from tests.benchmarks import groups, http2

MESSAGE = b"0123456789abcdef" * 4
MASK = b"\x11\x22\x33\x44"
BATCH = 100  # connections opened at once
TRICKLE_INTERVAL = 0.1
#: The variable that has a load wait for its turn.
TURNS = "BENCHMARK_TURNS"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


class ClientError(Exception):
    """The server did not do what the role needs."""


class Client(asyncio.Protocol):
    """A connection; ``ready`` resolves when the server has answered the first request, ``lost`` when it is gone."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.buffer = b""
        self.lost = False
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.ready.done() and b"\r\n\r\n" in (self.buffer + data):
            self.ready.set_result(None)
        self.buffer += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.ready.done():
            self.ready.set_exception(ClientError("connection lost before the first answer"))


class HTTP2Client(Client):
    """A connection of HTTP/2 whose first request is answered."""

    def __init__(self) -> None:
        super().__init__(http2.OPENING + http2.get("/", 1))
        self.answers = http2.Answers()

    def data_received(self, data: bytes) -> None:
        try:
            self.transport.write(self.answers.feed(data))
        except ConnectionError as exc:
            self.transport.close()
            if not self.ready.done():
                self.ready.set_exception(ClientError(str(exc)))
            return
        if 1 in self.answers.ended and not self.ready.done():
            self.ready.set_result(None)


class WebSocketClient(Client):
    """
    An open WebSocket that sends a constant 64-byte message.

    Where the server accepted permessage-deflate the message goes out deflated, as a browser would send it: deflated
    once, beforehand, without reference to earlier ones, which is right under any negotiated window.
    """

    def __init__(self, on_message: Callable[[WebSocketClient], None], deflate: bool) -> None:
        super().__init__(UPGRADE + (OFFER if deflate else b"") + b"\r\n")
        self.on_message = on_message
        self.opened = False
        self.checked = False
        self.sent_at = 0.0

    def data_received(self, data: bytes) -> None:
        if self.checked and not self.buffer and data[0] & 0x0F == 2 and len(data) == 2 + (data[1] & 0x7F):
            self.on_message(self)  # exactly one message: nearly always, and the client must not be the slower side
            return
        self.buffer += data
        if not self.opened:
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.transport.close()
                return
            self.frame = _frame(MESSAGE, b"permessage-deflate" in head.lower())
            self.opened = True
            self.buffer = rest
            self.ready.set_result(None)
        while len(self.buffer) >= 2 and len(self.buffer) >= (end := 2 + (self.buffer[1] & 0x7F)):
            frame, self.buffer = self.buffer[:end], self.buffer[end:]
            opcode = frame[0] & 0x0F
            if opcode == 2:
                if not self.checked:
                    self._check(frame)
                self.on_message(self)
            elif opcode == 9:
                self.transport.write(bytes((0x8A, 0x80 | len(frame) - 2)) + MASK + _masked(frame[2:]))
            else:
                self.transport.close()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.frame)

    def _check(self, frame: bytes) -> None:
        """Compare the first message; later ones are only counted, for they may refer to it."""
        payload = frame[2:]
        if frame[0] & 0x40:
            payload = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
        self.checked = payload == MESSAGE
        if not self.checked:
            self.transport.close()


def _masked(payload: bytes) -> bytes:
    return bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))


def _frame(message: bytes, deflate: bool) -> bytes:
    """One masked binary frame (RFC 6455, 5.2), deflated by RFC 7692, 7.2.1 if asked for."""
    first = 0x82
    if deflate:
        compressor = zlib.compressobj(wbits=-15)
        message = (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first |= 0x40
    return bytes((first, 0x80 | len(message))) + MASK + _masked(message)


async def connect(port: int, count: int, factory: Callable[[], Any]) -> list[Any]:
    """Open connections in batches that fit any backlog, and wait until each is ready."""
    loop = asyncio.get_running_loop()
    clients: list[Any] = []
    while len(clients) < count:
        batch = range(min(BATCH, count - len(clients)))
        pairs = await asyncio.gather(*(loop.create_connection(factory, "127.0.0.1", port) for _ in batch))
        clients += (client for _, client in pairs)
        await asyncio.gather(*(client.ready for _, client in pairs))
    return clients


# -- load: messages for some seconds


def opened() -> None:
    """All are connected. Where servers take turns, stop until it is this one's: the load begins with the first turn."""
    if os.environ.get(TURNS):
        os.kill(os.getpid(), signal.SIGSTOP)


async def echo(port: int, count: int, seconds: float, deflate: bool) -> dict[str, Any]:
    """Each client sends its next message when the last one came back."""
    latencies = array("d")
    over = False

    def on_message(client: WebSocketClient) -> None:
        latencies.append(time.perf_counter() - client.sent_at)
        if not over:
            client.send()

    clients = await connect(port, count, lambda: WebSocketClient(on_message, deflate))
    opened()
    started_at = time.perf_counter()
    for client in clients:
        client.send()
    await asyncio.sleep(seconds)
    over = True
    return _result(clients, len(latencies), time.perf_counter() - started_at, latencies)


async def broadcast(port: int, count: int, seconds: float) -> dict[str, Any]:
    """The clients speak in turn, the next one when all have heard the last one; what is counted is what was heard."""
    latencies = array("d")
    heard = 0
    speaker: WebSocketClient
    clients: list[WebSocketClient] = []
    over = False

    def on_message(client: WebSocketClient) -> None:
        nonlocal heard, speaker
        heard += 1
        if heard % count == 0:
            latencies.append(time.perf_counter() - speaker.sent_at)
            if not over:
                speaker = clients[heard // count % count]
                speaker.send()

    clients = await connect(port, count, lambda: WebSocketClient(on_message, True))
    opened()
    started_at = time.perf_counter()
    speaker = clients[0]
    speaker.send()
    await asyncio.sleep(seconds)
    over = True
    return _result(clients, heard, time.perf_counter() - started_at, latencies)


def _result(clients: list[Any], requests: int, seconds: float, latencies: array[float]) -> dict[str, Any]:
    ordered = sorted(latencies) or [0.0]
    p50, p99 = (ordered[int(share * (len(ordered) - 1))] * 1e3 for share in (0.5, 0.99))
    errors = {"lost": sum(client.lost for client in clients), "silent": sum(not client.checked for client in clients)}
    seen = {"requests": requests, "seconds": seconds, "bytes": 0, "errors": errors}
    return {**seen, "p50": p50, "p99": p99, "max": ordered[-1] * 1e3}


async def probe(port: int, count: int, seconds: float, path: str) -> dict[str, Any]:
    """What a balancer sees that looks after a server: how long one waits who asks now and then."""
    group = groups.Group(port, path=path)
    tasks = [asyncio.create_task(group.kept()) for _ in range(count)]
    await asyncio.sleep(seconds)
    group.over = True
    await asyncio.gather(*tasks)
    return group.result(seconds)


# -- company: connected until standard input ends


async def until_dismissed() -> None:
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


#: Role -> what makes a connection that has asked once, or has opened a WebSocket, and is then idle.
HELD: dict[str, Callable[[], Client]] = {
    "hold": lambda: Client(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "hold-http2": HTTP2Client,
    "hold-websocket": lambda: WebSocketClient(lambda _: None, True),
}


async def hold(port: int, count: int, factory: Callable[[], Client]) -> dict[str, Any]:
    """Connections that are idle."""
    clients = await connect(port, count, factory)
    await until_dismissed()
    return {"lost": sum(client.lost for client in clients)}


async def trickle(port: int, count: int) -> dict[str, Any]:
    """Clients that send a head byte by byte and never end it; one that is thrown out comes again."""
    loop = asyncio.get_running_loop()

    async def one(delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            transport, client = await loop.create_connection(
                lambda: Client(b"GET / HTTP/1.1\r\nX-Slow: "), "127.0.0.1", port
            )
            while not client.lost:
                transport.write(b"x")
                await asyncio.sleep(TRICKLE_INTERVAL)
            client.ready.exception()

    tasks = [loop.create_task(one(index / count * TRICKLE_INTERVAL)) for index in range(count)]
    await asyncio.sleep(1.0)
    await until_dismissed()
    failed = sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"lost": failed}


class Sink(asyncio.BufferedProtocol):
    """Reads a response of known length into one buffer and forgets it."""

    def __init__(self) -> None:
        self.buffer = bytearray(262_144)
        self.received = 0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        transport.write(b"GET /100m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += nbytes

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def download(port: int, count: int) -> dict[str, Any]:
    """One 100 MB file after the other, as fast as it comes, over each connection."""
    loop = asyncio.get_running_loop()
    short = 0

    async def one() -> None:
        nonlocal short
        while True:
            _, sink = await loop.create_connection(Sink, "127.0.0.1", port)
            await sink.closed
            short += sink.received < 100 * 1_048_576

    tasks = [loop.create_task(one()) for _ in range(count)]
    await until_dismissed()
    short += sum(task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"lost": short}


async def pages(port: int, count: int) -> dict[str, Any]:
    """Pages that keep the processor busy, as many at once as there are connections."""
    group = groups.Group(port, path="/report", pause=0)
    tasks = [asyncio.create_task(group.kept()) for _ in range(count)]
    await asyncio.sleep(1.0)
    begun, before = time.perf_counter(), len(group.waits)
    await until_dismissed()
    rate = (len(group.waits) - before) / (time.perf_counter() - begun)
    group.over = True
    failed = sum(result is not None for result in await asyncio.gather(*tasks, return_exceptions=True))
    return {"lost": group.lost + failed, "rate": rate}


async def main(role: str, port: int, count: int, seconds: float, path: str) -> None:
    match role:
        case "echo" | "echo-plain":
            result = await echo(port, count, seconds, deflate=role == "echo")
        case "broadcast":
            result = await broadcast(port, count, seconds)
        case "probe":
            result = await probe(port, count, seconds, path)
        case "pages":
            result = await pages(port, count)
        case _ if role in HELD:
            result = await hold(port, count, HELD[role])
        case "trickle":
            result = await trickle(port, count)
        case "download":
            result = await download(port, count)
        case _:
            raise ClientError(f"no role {role!r}")
    print(json.dumps(result))


if __name__ == "__main__":
    role, port, count, *rest = sys.argv[1:]
    uvloop.run(main(role, int(port), int(count), float(rest[0] if rest else 0), rest[1] if len(rest) > 1 else "/"))
