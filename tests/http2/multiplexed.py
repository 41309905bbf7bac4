"""One connection of HTTP/2 without a network, and a client of raw frames."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hpack
import uvloop

from hybridworker.asgi import ASGIApp, Headers, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.peer import Peer
from hybridworker.http2 import wire
from hybridworker.http2.protocol import HTTP2Protocol
from hybridworker.states import HTTP2State
from tests.fakes import FakeLog, FakeTransport
from tests.harness import application, body, make_settings, settle, start
from tests.http2.framing import START, farewells, parse, resets


@dataclasses.dataclass
class Answer:
    """What has come on one stream."""

    sections: list[Headers] = dataclasses.field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    code: int | None = None  #: of RST_STREAM

    @property
    def status(self) -> int:
        """Of the first section."""
        return int(dict(self.sections[0])[b":status"])


class H2Wire:
    """
    A connection with a client that has sent its preface.

    ``feed`` gives it bytes and lets the application run; ``answers`` are those of the streams so far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: ASGIApp, **options: Any) -> None:
        peername = options.pop("peername", ("127.0.0.1", 40000))
        is_wsgi = options.pop("is_wsgi", False)
        ssl_object = options.pop("ssl_object", None)
        settings = make_settings(**options)
        self.loop = loop
        self.log = FakeLog()
        self.errors: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self.context = WorkerContext(
            application=application(app, settings, is_wsgi=is_wsgi), settings=settings, loop=loop, log=self.log
        )
        self.transport = FakeTransport(peername=peername, ssl_object=ssl_object)
        self.protocol = HTTP2Protocol(self.context, self.transport, Peer(self.transport, self.context))
        self.decoder = hpack.Decoder()
        self.answers: dict[int, Answer] = {}
        self.read = 0
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.feed(START)

    def feed(self, *segments: bytes) -> list[tuple[int, int, int, bytes]]:
        """Give the segments to the protocol one by one; returns the frames sent since."""

        async def feed(segment: bytes) -> None:
            self.protocol.data_received(segment)
            await settle()

        for segment in segments:
            if not self.transport.closing and not self.transport.eof:
                self.loop.run_until_complete(feed(segment))
        return self.take()

    def run(self) -> list[tuple[int, int, int, bytes]]:
        """Let the tasks run; returns the frames sent since."""
        self.loop.run_until_complete(settle())
        return self.take()

    def tick(self, seconds: float) -> list[tuple[int, int, int, bytes]]:
        """Look at the timeouts as if ``seconds`` had passed."""
        self.protocol.tick(self.loop.time() + seconds)
        return self.run()

    def take(self) -> list[tuple[int, int, int, bytes]]:
        """The frames sent since the last time, which go into ``answers`` too."""
        sent = self.transport.sent
        new, self.read = list(parse(sent[self.read :])), len(sent)
        for kind, flags, stream_id, payload in new:
            answer = self.answers.setdefault(stream_id, Answer()) if stream_id else Answer()
            assert not answer.ended or kind in (wire.RST_STREAM, wire.WINDOW_UPDATE), "a frame behind the end"
            if kind == wire.HEADERS:
                assert flags & wire.END_HEADERS, "this client reads no CONTINUATION"
                fields = self.decoder.decode(payload, raw=True)
                answer.sections.append([(bytes(name), bytes(value)) for name, value in fields])
            elif kind == wire.DATA:
                answer.body += payload
            elif kind == wire.RST_STREAM:
                answer.code = wire.NUMBER.unpack(payload)[0]
            answer.ended |= kind in (wire.HEADERS, wire.DATA) and bool(flags & wire.END_STREAM)
        self.frames += new
        return new

    @property
    def sent(self) -> bytes:
        return self.transport.sent

    @property
    def farewells(self) -> list[tuple[int, int, str]]:
        """The last stream, the code and the reason of each GOAWAY."""
        return farewells(self.sent)

    @property
    def resets(self) -> list[tuple[int, int]]:
        """The stream and the code of each RST_STREAM."""
        return resets(self.sent)

    @property
    def open(self) -> bool:
        """Whether the connection goes on."""
        return self.protocol.state not in (HTTP2State.CLOSING, HTTP2State.CLOSED)

    def cancel(self) -> None:
        """End every task that is left."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(settle())

    def end(self) -> None:
        """The connection is lost, and nothing of it is left."""
        if self.protocol.state is not HTTP2State.CLOSED:
            self.transport.closing = True
            self.protocol.connection_lost(None)
        self.run()
        self.cancel()
        assert not self.errors
        assert not self.context.connections
        assert not self.context.cycles
        assert not self.protocol.reader.streams
        assert self.protocol.lingering == 0


@contextmanager
def multiplexed(app: ASGIApp, **options: Any) -> Iterator[H2Wire]:
    """An :class:`H2Wire` on a loop of its own."""
    loop = uvloop.new_event_loop()
    connection = H2Wire(loop, app, **options)
    try:
        yield connection
        connection.end()
    finally:
        connection.cancel()
        loop.close()


class Site:
    """
    An application with a few pages; ``/hello`` answers, ``/echo`` reads all and sends it back, ``/wait`` waits.

    ``calls`` are the paths called, ``left`` those that saw their client leave.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.left: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.calls.append(path)
        data = b""
        if path in ("/echo", "/wait", "/"):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    self.left.append(path)
                    return
                data += message["body"]
                if not message["more_body"] and path == "/echo":
                    break
        if path == "/big":
            await send(start(200))
            for _ in range(8):
                await send(body(bytes(40_000), more=True))
            await send(body(b""))
            return
        data = data if path == "/echo" else b"hello"
        await send(start(200, (b"content-length", b"%d" % len(data))))
        await send(body(data))
