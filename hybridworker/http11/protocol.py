"""
HTTP/1.1 on one connection: where one request ends and the next begins, and their order.

:class:`HTTPProtocol` cuts the bytes of the peer into messages, has them parsed by httptools, and hands a scope to a
:class:`~.cycle.HTTP11Cycle` when the head of a request is complete. It never sees an ASGI message; the cycle never
sees the parser.

    data_received -> _head -> parser -> on_header, on_headers_complete -> cycle
                  -> _body -> parser -> on_body, on_message_complete --> cycle

One request is parsed at a time. What the client pipelines behind it waits, unparsed, in ``pending`` until the response
is complete. So responses keep their order, an error behind a good request is answered in its turn, and a flood of small
requests costs no more than its bytes. Event loop side only. States: ``states.CONNECTION``.

Invariant: the parser gets exactly one head, or bytes of one body, at a time.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, cast

import httptools

from ..connection import kernel
from ..connection.context import WorkerContext
from ..connection.cycle import BODY_BUFFER, DRAIN_MAX, NOTHING, WHOLE_BODY_MAX
from ..connection.fields import UPGRADE
from ..connection.flow import DEAF, LINGER, FlowControl
from ..connection.peer import Peer
from ..connection.scope import websocket_scope
from ..errors import ProtocolError
from ..states import CallState, ConnectionState, RequestState
from ..websocket import protocol as websocket
from ..websocket.handshake import Upgrade
from .carrier import SocketCarrier
from .cycle import HTTP11Cycle
from .framing import HeadScanner, body_parser, misdirected
from .head import MORE, RequestHead
from .refusal import refuse
from .rewriting import pose, unknown_method

NEW, ACTIVE, IDLE = ConnectionState.NEW, ConnectionState.ACTIVE, ConnectionState.IDLE
UPGRADED, CLOSING, CLOSED = ConnectionState.UPGRADED, ConnectionState.CLOSING, ConnectionState.CLOSED
HELD, READY = CallState.HELD, CallState.READY
HEADERS, BODY, DONE = RequestState.HEADERS, RequestState.BODY, RequestState.DONE

#: The deadline of a connection that may take its time.
NEVER = math.inf


class HTTPProtocol(asyncio.Protocol):
    """One TCP or unix connection, or the inside of a TLS one, that speaks HTTP/1.1."""

    __slots__ = (
        "context", "deadline", "eof", "flow", "foreign", "loop", "parser", "peer", "pending", "state", "transport",
        "cycle", "head", "on_header", "persistent", "progress", "scanner", "upgraded",  # the request
    )  # fmt: skip

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.loop = context.loop
        self.state = NEW
        self.eof = False  #: the peer has sent its last byte
        self.foreign = False  #: the parser knows one body only
        self.pending = b""  #: bytes behind the current request
        self.scanner: HeadScanner | None = None
        self.cycle: HTTP11Cycle | None = None
        self.parser: Any = None
        self.upgraded: Any = None  #: the scope of a WebSocket, or the carrier of one over WSGI
        self.persistent = True  #: the client may send further requests
        self.progress = NOTHING  #: of the cycle, when the client was seen to have closed its side behind unread bytes

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self.context
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        self.peer = Peer(self.transport, context)
        self.head = RequestHead(context, self.peer)
        self.on_header = self.head.fields.on_header  # the parser looks its callbacks up once
        self.parser = httptools.HttpRequestParser(self)
        self.deadline = self.loop.time() + context.settings.header_timeout
        context.connections.add(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is IDLE or state is NEW:
            self.state = ACTIVE
        elif state is not ACTIVE:
            return  # CLOSING: the rest is dropped, so that no RST overtakes the last answer
        elif self.head.request is DONE:
            self.pending += data
            if len(self.pending) > BODY_BUFFER:
                self.flow.pause_reading()
            return
        self._parse(data)

    def eof_received(self) -> bool:
        flow, cycle = self.flow, self.cycle
        if cycle is None or not cycle.begun or self.peer.tls is not None or kernel.hung_up(flow.fileno()):
            if cycle is not None:
                cycle.disconnect()  # the transport takes nothing any more, although it tells so later
            self._closing()
            return False  # the transport closes itself
        # On TCP a half-closed client and one that has gone look the same: what was begun goes on for a while.
        self.eof = True
        self.deadline = NEVER
        cycle.end_of_input()
        grace = self.context.settings.asgi_disconnect_grace_period
        self.loop.call_later(grace, self._grace_over, cycle, cycle.progress)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = CLOSED
        self.parser = None  # breaks the reference cycle between parser and protocol
        self.pending = b""
        self.flow.lose()
        cycle = self.cycle
        if cycle is not None:
            self.cycle = None
            cycle.disconnect()
            self.loop.call_later(self.context.settings.asgi_disconnect_grace_period, cycle.give_up)
        self.context.connections.lost(self)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    # -- called by the server

    @property
    def idle_until(self) -> float | None:
        """Loop time at which the connection ends for being idle; None where it is not."""
        return self.deadline if self.state is IDLE else None

    @property
    def closing(self) -> bool:
        """Whether nothing more is read, and the client has not closed its side yet."""
        return self.state is CLOSING

    def tick(self, now: float) -> None:
        cycle, context = self.cycle, self.context
        timeout = context.settings.write_timeout
        if context.persistence.draining and (cycle is None or self.state is CLOSING or cycle.made):
            timeout = min(timeout, DEAF)  # its response is complete, or waits on disk, and it holds up the worker
        if self.flow.stalled(now, timeout, 0 if cycle is None else cycle.sent):
            context.log.debug("Peer %s takes no bytes, connection dropped", self.peer.address)
            self.abort()
        elif now >= self.deadline:
            self._expire(now)
        elif (self.eof or self.flow.read_paused) and kernel.hung_up(self.flow.fileno()):
            self.abort()  # it had only half gone before, or what it was sent since has shown it
        elif self.flow.read_paused and not self.eof and cycle is not None and cycle.begun:
            self._look_behind(now, cycle)

    def _look_behind(self, now: float, cycle: HTTP11Cycle) -> None:
        """
        See whether the client has closed its side behind bytes that nobody reads, which the transport does not see.

        The same grace period begins, and begins anew when the application takes some of them.
        """
        flow = self.flow
        if not kernel.ended(flow.fileno()):
            return
        if flow.ended_at is None:
            flow.ended_at, self.progress = now, cycle.progress
        elif now - flow.ended_at >= self.context.settings.asgi_disconnect_grace_period:
            flow.ended_at = None
            self._grace_over(cycle, self.progress)

    def drain(self, deadline: float) -> None:
        self.flow.progress = None  # a client that takes no bytes has its time from now on
        state, now = self.state, self.loop.time()
        if state is IDLE:
            deadline = min(deadline, now + self.context.persistence.idle_time)
        elif state is ACTIVE:
            if self.cycle is not None:
                return  # a request in flight
        elif state is not NEW:
            return
        # Also half a head, and the rest of a body that is dropped: a client that is slow must not hold up the worker.
        self.deadline = min(self.deadline, deadline)
        if self.deadline <= now:
            self._expire(now)

    def abort(self) -> None:
        cycle = self.cycle
        if cycle is not None:
            cycle.disconnect()  # the transport takes nothing any more, although it tells so later
        self.flow.abort(reset=cycle is not None and cycle.unframed)

    # -- called by the cycle

    def cycle_complete(self, cycle: HTTP11Cycle) -> None:
        """The last byte of a response was written: on to the next request, or close."""
        if cycle is not self.cycle:
            return  # the connection went on, or is gone
        self.cycle = None
        if not cycle.keep_alive:
            self.close(linger=self.persistent or self.head.request is not DONE or bool(self.pending))
        elif self.head.request is DONE:
            self._next()
        else:  # the rest of the body is dropped as it comes
            self.deadline = self.loop.time() + self.context.settings.body_timeout
            self.flow.resume_reading()

    def body_wanted(self) -> None:
        """The application waits for bytes of the body: from now on the client may be late."""
        if not self.eof:
            self.deadline = self.loop.time() + self.context.settings.body_timeout

    def drainable(self) -> bool:
        """Whether the unread rest of the request is short enough to be read and dropped."""
        return self.head.chunks is None and self.head.length <= DRAIN_MAX

    # -- from one request to the next

    def _next(self) -> None:
        """The response and the request are complete: wait for the next one, or take it from what has come."""
        self.head.request = HEADERS
        self.state = IDLE
        if self.foreign:
            self.foreign = False
            self.parser = httptools.HttpRequestParser(self)
        if self.flow.read_paused:
            self.flow.resume_reading()
        self.deadline = self.loop.time() + self.context.persistence.idle_time
        data = self.pending
        if data:
            self.pending = b""
            self.data_received(data)
            if self.eof and (self.cycle is None or not self.cycle.begun):
                self.close()  # the rest of it never comes
        elif self.eof:
            self.close()
        else:
            self.head.begin(b"")  # an idle connection keeps nothing of its last request alive

    def close(self, linger: bool = False) -> None:
        """
        Close after everything written has been sent.

        With ``linger`` our side is closed first and the peer's bytes are read and dropped for a while: closing a
        socket with unread bytes resets it, and the reset could overtake the last answer (RFC 9112 9.6).
        """
        if self.state is CLOSED or self.state is CLOSING:
            return
        self._closing()
        if linger and self.peer.tls is None and not self.eof:
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.flow.close()

    def _closing(self) -> None:
        """The transport is being closed. A peer that does not close as well is left when everything has been sent."""
        self.state, self.pending = CLOSING, b""
        self.deadline = self.loop.time() + LINGER
        self.flow.ending()

    def _expire(self, now: float) -> None:
        """``deadline`` has passed. What that means depends on what was waited for."""
        if self.state is CLOSING:
            if self.flow.unsent():  # a slow reader has its time: see `stalled`
                self.deadline = now + LINGER
            else:
                self.abort()
        elif self.state is IDLE or self.state is NEW:
            if not self.flow.readable():  # bytes that have arrived are a request that deserves its answer
                self.close(linger=self.state is IDLE)
        elif self.head.request is HEADERS:
            if not self.context.persistence.draining:
                self.refuse(ProtocolError("the request head took longer than HYBRIDWORKER_HEADER_TIMEOUT", 408))
            elif not self.flow.readable():
                self.refuse(ProtocolError("the request head was not complete when the worker left", 408))
        elif self.cycle is None:
            self.close(linger=True)  # the rest of a body that is dropped
        elif not self.cycle.begun:
            self.abort()  # the rest of a body that no application waits for
        elif self.head.request is BODY and not self.flow.read_paused and not self.cycle.expect_continue:
            self.deadline = NEVER
            self.cycle.end_of_input()

    def _grace_over(self, cycle: HTTP11Cycle, before: int) -> None:
        """The grace period has ended; ``cycle`` had come to ``before`` when the input ended."""
        self.pending = b""
        if self.cycle is not None:
            self.cycle.give_up(before if self.cycle is cycle else NOTHING)

    # -- cutting bytes into messages

    def _parse(self, data: bytes) -> None:
        limits = self.context.head_limits
        try:
            if self.peer.proxy is not None:
                data = self.peer.strip_proxy_header(self.peer.proxy, data)
            while data:
                request = self.head.request
                if request is HEADERS:
                    size = data.find(b"\r\n\r\n") + 4
                    if (
                        3 < size <= limits.small
                        and self.scanner is None
                        and data[0] > 13  # an empty line, or a part of one, is for the scanner
                        and (size <= limits.short or data.count(b"\n", 0, size) <= limits.lines)
                    ):
                        self.head.data = data
                        self.head.fields.begin()
                        whole = size == len(data)
                        rest = b"" if whole else data[size:]
                        try:
                            self.parser.feed_data(data if whole else data[:size])
                            data = rest
                        except httptools.HttpParserUpgrade:
                            data = self._upgrade(rest)
                        except httptools.HttpParserError as exc:
                            if not unknown_method(exc):
                                raise
                            self.parser = httptools.HttpRequestParser(self)  # again, by way of the scanner
                            self.scanner = HeadScanner(self.context.settings)
                            self.head.begin(b"")
                    else:
                        data = self._scan_head(data)
                elif request is BODY:
                    data = self._body(data)
                else:
                    self.pending = data
                    if len(data) > BODY_BUFFER:
                        self.flow.pause_reading()
                    break
                if self.state is not ACTIVE:
                    return
        except ProtocolError as exc:
            self.refuse(exc)
        except httptools.HttpParserCallbackError as exc:
            if not isinstance(exc.__context__, ProtocolError):
                raise
            self.refuse(exc.__context__)
        except httptools.HttpParserError as exc:
            self.refuse(ProtocolError(misdirected(self.head.data, self.context.settings) or str(exc)))
        else:
            # The parser has had all there was, so the application may be called, and end its response, in here.
            cycle = self.cycle
            if cycle is not None and (
                cycle.call_state is READY or (cycle.call_state is HELD and self.head.request is DONE)
            ):
                if self.eof:
                    cycle.end_of_input()
                # Not at once where more is pipelined: each request of a long row lets other connections go first.
                cycle.start(not self.pending)

    def _scan_head(self, data: bytes) -> bytes:
        """Parse as much of one head as has come, line by line; returns the bytes behind it."""
        scanner = self.scanner
        begun = scanner is not None and not scanner.blank
        if scanner is None:
            self.scanner = scanner = HeadScanner(self.context.settings)
            self.head.begin(b"")
        lines, rest = scanner.feed(data)
        if scanner.complete:
            self.scanner = None
        elif scanner.blank and scanner.error is None:
            self.state = IDLE  # as before, until the same deadline: an empty line is no request (RFC 9112 2.2)
        elif not begun:
            deadline = self.loop.time() + self.context.settings.header_timeout
            # While the worker leaves, a head has no more time than the connection had for a first byte.
            self.deadline = min(self.deadline, deadline) if self.context.persistence.draining else deadline
        if lines:
            self.head.data += lines
            if self.context.settings.rewrites_heads:
                lines = self.head.rewrite() if scanner.complete else b""
            rest = self._feed(lines, rest)
        if scanner.error is not None:
            raise scanner.error
        return rest

    def _feed(self, lines: bytes, rest: bytes) -> bytes:
        """Parse ``lines`` of a head, whatever its method; returns the bytes behind it."""
        while True:
            try:
                self.parser.feed_data(lines)
                return rest
            except httptools.HttpParserUpgrade:
                return self._upgrade(rest)
            except httptools.HttpParserError as exc:
                if not unknown_method(exc):
                    raise
            self.parser, lines = pose(self, lines, self.context.settings)
            self.foreign = True

    def _body(self, data: bytes) -> bytes:
        """Parse bytes of the body; returns those behind it."""
        chunks = self.head.chunks
        if chunks is None:
            size = self.head.length
            self.head.length = max(0, size - len(data))
            self.parser.feed_data(data if len(data) <= size else data[:size])
            rest = data[size:]
        else:
            piece, rest = chunks.feed(data)
            if piece:
                self.parser.feed_data(piece)
            if self.state is not ACTIVE:
                return b""  # the body was too long
            if chunks.error is not None:
                raise chunks.error
            if chunks.complete and self.head.request is BODY:
                raise ProtocolError("malformed chunked body (RFC 9112 7.1)")
        if self.head.request is BODY:
            self.deadline = self.loop.time() + self.context.settings.body_timeout
        elif self.cycle is None:
            self.pending = rest
            self._next()
            return b""
        return rest

    # -- called by the parser

    def on_headers_complete(self) -> None:
        parser, context, seen = self.parser, self.context, self.head.fields.seen
        handshake = seen & UPGRADE != 0 and parser.should_upgrade() and self.head.fields.lists(b"upgrade", b"websocket")
        scope = self.head.read(parser.get_method(), handshake)
        http10 = self.head.http10
        self.persistent = parser.should_keep_alive() and not (http10 and self.head.says_close())
        self.deadline = NEVER
        expect_continue = takes_trailers = False
        if seen & MORE:
            expect_continue, takes_trailers = self.head.expects_continue(), self.head.takes_trailers(scope)
        if handshake and not http10:
            if self.head.leaves_http(websocket.available()):
                self.state, self.upgraded = UPGRADED, websocket_scope(scope)
                return
            if self.head.takes_socket():
                self.upgraded, self.state = SocketCarrier(context, self.flow, self.head, scope), UPGRADED
                return
        application = self.head.application
        self.cycle = cycle = HTTP11Cycle(self, application, scope)
        if expect_continue or takes_trailers:
            cycle.expect_continue, cycle.takes_trailers = expect_continue, takes_trailers
        if application.counted:
            context.quota.served += 1  # `count()`, whose call would be 2 % of a hello
            if context.quota.served == context.quota.limit:
                context.quota.used_up()
        if application.threaded and self.head.request is BODY and not expect_continue:
            if self.head.chunks is None and self.head.length <= WHOLE_BODY_MAX:
                cycle.call_state = HELD
                self.body_wanted()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        if self.head.request is DONE or self.parser.should_upgrade():
            return
        self.head.request = DONE
        self.deadline = NEVER
        if self.cycle is not None:
            self.cycle.feed_eof()

    # -- what is not a plain request

    def _upgrade(self, rest: bytes) -> bytes:
        """The parser has stopped: hand the connection over, or go on; returns the bytes that are ours to parse."""
        if self.state is not UPGRADED:
            self._keep_framing()
            return rest
        context, protocol = self.context, self.upgraded
        if not isinstance(protocol, SocketCarrier):
            opening = Upgrade(context, self.transport, protocol, self.parser.get_method())
            protocol = websocket.WebSocketProtocol(context, self.head.application, self.flow, protocol, opening)
        context.connections.discard(self)
        context.connections.add(protocol)
        self.parser = None
        self.transport.set_protocol(protocol)
        protocol.start(rest)
        return b""

    def _keep_framing(self) -> None:
        """Go on after an ignored upgrade: the parser takes the message for complete, so another reads its body."""
        self.parser = body_parser(self.on_body, self.on_message_complete, self.head.chunks is None, self.head.length)
        self.foreign = True

    def refuse(self, error: ProtocolError) -> None:
        """Answer a request that cannot be served, log why, and close."""
        cycle = self.cycle
        known = self.head.refused() if cycle is None else cycle.scope
        body = not self.head.data.startswith(b"HEAD ")
        page = refuse(self.context, self.peer, error, known, answer=cycle is None, body=body)
        if cycle is None:
            self.transport.write(page)
            self.close(linger=True)
        else:  # the body is at fault
            self.head.request, self.persistent = DONE, True  # whatever else it sends is read and dropped
            cycle.refuse(error.status)
