"""
Tunnel: a stream of HTTP/2 as a transport, for a WebSocket (RFC 8441).

:class:`~.websocket.protocol.WebSocketProtocol` is the same as over HTTP/1.1. Its bytes are the DATA of a stream whose
request was an extended CONNECT, and :class:`Connect` is its handshake: a 200 instead of the 101, no key, no Upgrade.
Event loop side only.

Invariant: a WebSocket that ends leaves its connection and the other streams alone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, Protocol

from ..application.application import Application
from ..asgi import Headers, Message, Scope
from ..connection.context import WorkerContext
from ..connection.errorpages import error_page
from ..connection.flow import FlowControl
from ..errors import ProtocolError
from ..states import StreamState
from ..websocket import protocol as websocket
from ..websocket.handshake import Denial, accept_fields, subprotocol, values
from .framereader import FrameReader
from .outbox import Outbox
from .response import default_block, encode_fields, error_block, status_field
from .stream import Stream
from .wire import CANCEL

#: Bytes that may wait to be sent before the WebSocket is told to pause, as in asyncio's transports.
HIGH_WATER = 65536

available = websocket.available

_numbers = itertools.count()


class TunnelConnection(Protocol):
    """What a tunnel needs of its connection, an :class:`~.protocol.HTTP2Protocol`."""

    context: WorkerContext
    outbox: Outbox
    reader: FrameReader
    transport: asyncio.Transport

    def body_wanted(self, stream: Stream) -> None:
        """Bytes of the client are awaited."""

    def cut(self, stream: Stream, code: int) -> None:
        """Reset the stream."""


class Tunnel(asyncio.Transport):
    """The bytes of one stream, as asyncio sees a connection."""

    def __init__(self, connection: TunnelConnection, stream: Stream) -> None:
        super().__init__()
        self.connection = connection
        self.stream = stream
        self.protocol: websocket.WebSocketProtocol | None = None
        self.closing = False  #: our side has ended
        self.paused = False  #: the WebSocket is told to write no more
        self.reading = True
        self.unread: list[bytes] = []  #: what has come while it reads nothing
        self.ended = False  #: the client's side has ended

    # -- the stream's side

    def receive(self, data: bytes, ended: bool) -> None:
        """Bytes of the client have come; ``ended``: they are the last."""
        self.ended = self.ended or ended
        if data:
            self.unread.append(data)
        if self.reading:
            self._deliver()

    def lose(self) -> None:
        """The stream is gone."""
        self.closing = True
        self.unread.clear()
        protocol, self.protocol, self.stream.tunnel = self.protocol, None, None
        if protocol is not None:
            protocol.connection_lost(None)

    def drained(self) -> None:
        """Everything was sent."""
        if self.paused and self.protocol is not None:
            self.paused = False
            self.protocol.resume_writing()

    def tick(self, now: float) -> None:
        """Look at the timeouts of the WebSocket."""
        if self.protocol is not None:
            self.protocol.tick(now)

    def drain(self, deadline: float) -> None:
        """The worker is leaving."""
        if self.protocol is not None:
            self.protocol.drain(deadline)

    def end(self) -> None:
        """Our side has ended with a response."""
        self.closing = True

    def _deliver(self) -> None:
        protocol = self.protocol
        while self.unread and self.reading and protocol is not None:
            data = b"".join(self.unread)
            self.unread.clear()
            self.connection.reader.credit(self.stream, len(data))
            protocol.data_received(data)
            protocol = self.protocol
        if self.ended and not self.unread and protocol is not None:
            if self.closing:
                self.connection.context.loop.call_soon(self._over)
            else:
                protocol.eof_received()
                self.close()

    def _over(self) -> None:
        """Both sides have ended, or ours has: the WebSocket is gone."""
        stream = self.stream
        if stream.state is StreamState.HALF_CLOSED_LOCAL:
            self.connection.cut(stream, CANCEL)
        self.lose()

    # -- a transport

    def write(self, data: Any) -> None:
        if not self.closing:
            self.connection.outbox.send(self.stream, b"", bytes(data), False)
            if self.stream.size > HIGH_WATER and not self.paused and self.protocol is not None:
                self.paused = True
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if self.protocol is not None and not self.protocol.status:
            self.connection.cut(self.stream, CANCEL)  # without HEADERS there can be no DATA
        elif not self.closing:
            self.closing = True
            self.connection.outbox.send(self.stream, b"", b"", True)
            if self.ended:
                self.connection.context.loop.call_soon(self._over)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """End our side, and the stream with it, when everything was sent and the client has ended its own."""
        self.write_eof()
        if not self.ended:
            return  # the client ends its side, or its time is over: see `abort`
        self.connection.context.loop.call_soon(self._over)

    def abort(self) -> None:
        self.connection.cut(self.stream, CANCEL)
        if self.protocol is not None:
            self.connection.context.loop.call_soon(self.lose)

    def get_write_buffer_size(self) -> int:
        return self.stream.size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == "socket" else self.connection.transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self._deliver()

    def is_reading(self) -> bool:
        return self.reading


class Connect:
    """The handshake of HTTP/2 (RFC 8441 5): see :class:`~.websocket.handshake.Opening`."""

    __slots__ = ("context", "denial", "early", "extensions", "head", "key", "outbox", "scope", "stream")

    accepted = 200

    def __init__(self, connection: TunnelConnection, stream: Stream, scope: Scope) -> None:
        self.context = connection.context
        self.outbox = connection.outbox
        self.stream = stream
        self.scope = scope
        self.key = b"%d" % next(_numbers)
        self.denial: Denial | None = None
        self.head = self.extensions = self.early = b""

    def check(self) -> None:
        if values(self.scope, b"sec-websocket-version") != [b"13"]:
            raise ProtocolError("Sec-WebSocket-Version is not 13 (RFC 6455 4.4)", 400)

    def accept(self, message: Message) -> Headers:
        headers, block, seen = accept_fields(message, encode_fields)
        own: Headers = []
        if name := subprotocol(message):
            own.append((b"sec-websocket-protocol", name))
        if self.extensions:
            own.append((b"sec-websocket-extensions", self.extensions))
        head = status_field(200) + default_block(self.context.clock.fields, seen)
        self.outbox.section(self.stream, head + encode_fields(own)[0] + block)
        return headers

    def refuse(self, status: int, headers: Headers) -> None:
        page = error_page(status)
        self._end(error_block(status, self.context.clock.fields, len(page), headers), page)

    def begin_denial(self, message: Message) -> None:
        self.denial = denial = Denial(message, encode_fields)
        self.head = status_field(denial.status) + default_block(self.context.clock.fields, denial.seen) + denial.block

    def deny(self, body: object, more: bool) -> Denial:
        denial = self.denial
        assert denial is not None
        data = denial.part(body, more)
        head, self.head = self.head, b""
        if more:
            self.outbox.send(self.stream, head, data, False)
        else:
            self._end(head, data)
        return denial

    def _end(self, head: bytes, body: bytes) -> None:
        assert self.stream.tunnel is not None
        self.outbox.send(self.stream, head, body, True)
        self.stream.tunnel.end()


def open_websocket(connection: TunnelConnection, application: Application, stream: Stream, scope: Scope) -> None:
    """Begin the WebSocket of an extended CONNECT, whose ``scope`` is that of a WebSocket."""
    stream.tunnel = tunnel = Tunnel(connection, stream)
    flow = FlowControl(tunnel)
    opening = Connect(connection, stream, scope)
    tunnel.protocol = websocket.WebSocketProtocol(connection.context, application, flow, scope, opening)
    connection.body_wanted(stream)
    ended = stream.state is StreamState.HALF_CLOSED_REMOTE
    tunnel.protocol.start(b"")
    if ended:
        tunnel.receive(b"", True)
