"""
RequestConnection: one connection with one request at a time, their order, and its time limits.

It is the life of such a connection, whatever its bytes are: what is waited for and how long, what becomes of bytes
that come early, how a request is refused, how the connection goes on, is drained, closed, and taken over by a
WebSocket. A subclass cuts the bytes of the peer into requests: :mod:`.protocol` those of HTTP/1.1, and
:mod:`..uwsgi.protocol` packets of uwsgi. Both have a :class:`~.cycle.HTTP11Cycle` answer.

    data_received -> _parse of the subclass -> cycle -> cycle_complete -> _next -> data_received

One request is parsed at a time. What the client pipelines behind it waits, unparsed, in
``pending`` until the response is complete. So responses keep their order, an error behind
a good request is answered in its turn, and a flood of small requests costs no more than
its bytes. Event loop side only. States: ``states.CONNECTION``.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, cast

from ..asgi import Scope
from ..connection import kernel
from ..connection.accepted import Accepted
from ..connection.context import WorkerContext
from ..connection.cycle import BODY_BUFFER, DRAIN_MAX, NOTHING
from ..connection.flow import DEAF, LINGER, FlowControl
from ..connection.peer import Peer
from ..connection.scope import websocket_scope
from ..errors import ProtocolError
from ..states import CallState, ConnectionState, RequestState
from .cycle import Head, HTTP11Cycle
from .refusal import refuse

if TYPE_CHECKING:
    from ..websocket.protocol import WebSocketProtocol
    from .carrier import SocketCarrier

    #: What a connection becomes by the handshake of a WebSocket.
    Successor = WebSocketProtocol | SocketCarrier

NEW, ACTIVE, IDLE = ConnectionState.NEW, ConnectionState.ACTIVE, ConnectionState.IDLE
UPGRADED, CLOSING, CLOSED = ConnectionState.UPGRADED, ConnectionState.CLOSING, ConnectionState.CLOSED
HELD, READY = CallState.HELD, CallState.READY
HEADERS, BODY, DONE = RequestState.HEADERS, RequestState.BODY, RequestState.DONE

#: The deadline of a connection that may take its time.
NEVER = math.inf


class RequestConnection(asyncio.Protocol):
    """One TCP or unix connection, or the inside of a TLS one."""

    __slots__ = (
        "context", "deadline", "eof", "flow", "loop", "peer", "pending", "sock", "state", "transport",
        "cycle", "head", "persistent", "progress",  # the request
    )  # fmt: skip

    head: Head  #: made by the subclass
    deadline: float  #: loop time by which what is waited for has to come: see :meth:`_expire`

    def __init__(self, context: WorkerContext, sock: Accepted | None = None) -> None:
        """``sock`` is the socket of the transport to come; None where only the transport knows it."""
        self.context = context
        self.sock = sock
        self.loop = context.loop
        self.state = NEW
        self.eof = False  #: the peer has sent its last byte
        self.pending = b""  #: bytes behind the current request
        self.cycle: HTTP11Cycle | None = None
        self.persistent = True  #: the client may send further requests
        self.progress = NOTHING  #: of the cycle, when the client was seen to have closed its side behind unread bytes

    def _parse(self, data: bytes) -> None:
        """Cut ``data`` into requests, and begin one at a time."""
        raise NotImplementedError

    def head_begins(self) -> None:
        """The first bytes of a head have come: it has its time from now on."""
        deadline = self.loop.time() + self.context.settings.header_timeout
        # While the worker leaves, a head has no more time than the connection had for a first byte.
        self.deadline = min(self.deadline, deadline) if self.context.persistence.draining else deadline

    @property
    def waits(self) -> bool:
        """Whether the request at hand has not begun, and need not wait for more of it."""
        cycle = self.cycle
        return cycle is not None and (
            cycle.call_state is READY or (cycle.call_state is HELD and self.head.request is DONE)
        )

    def begin(self) -> None:
        """All that has come is parsed: have the request at hand begin, unless it waits for more."""
        cycle = self.cycle
        if cycle is not None and self.waits:
            if cycle.application.begin is None or self.pending:
                self.context.connections.turn.add(self)
            else:
                self.start()  # a thread calls it, later than this turn

    def start(self) -> None:
        """Call the application for the request at hand, unless it has begun, or is gone."""
        cycle = self.cycle
        if cycle is not None and self.waits:
            if self.eof:
                cycle.end_of_input()
            cycle.start()

    def hold(self, data: bytes) -> None:
        """Keep what came behind the request at hand until that is answered."""
        self.pending = data
        if len(data) > BODY_BUFFER:
            self.flow.pause_reading()

    # -- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self.context
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport, self.sock)
        self.peer = Peer(self.transport, context, self.sock)
        self.deadline = self.loop.time() + context.settings.header_timeout
        self._made()
        context.connections.add(self)

    def _made(self) -> None:
        """The connection is there: make what the subclass needs for it, ``head`` at least."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is IDLE or state is NEW:
            self.state = ACTIVE
        elif state is not ACTIVE:
            return  # CLOSING: the rest is dropped, so that no RST overtakes the last answer
        elif self.head.request is DONE:
            self.hold(self.pending + data)
            return
        self._parse(data)

    def eof_received(self) -> bool:
        self.start()  # a request that has come with its client's end, under TLS in one read
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
        if context.persistence.draining and (
            cycle is None or self.state is CLOSING or not cycle.application.works(cycle.scope)
        ):
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
        return self.head.length <= DRAIN_MAX

    # -- from one request to the next

    def _next(self) -> None:
        """The response and the request are complete: wait for the next one, or take it from what has come."""
        head = self.head
        head.request = HEADERS
        head.begin(b"")  # an idle connection keeps nothing of its last request alive
        self.state = IDLE
        if self.flow.read_paused:
            self.flow.resume_reading()
        self.deadline = self.loop.time() + self.context.persistence.idle_time
        data = self.pending
        if data:
            self.pending = b""
            self.data_received(data)
            if self.eof and not self.waits and (self.cycle is None or not self.cycle.begun):
                self.close()  # the rest of it never comes
        elif self.eof:
            self.close()

    def close(self, linger: bool = False) -> None:
        """
        Close after everything written has been sent.

        With ``linger`` the peer's bytes are read and dropped for a while: see :meth:`.flow.FlowControl.linger`.
        """
        if self.state is CLOSED or self.state is CLOSING:
            return
        flow = self.flow
        if linger and not self.eof:
            self._closing()
            flow.linger()
        elif flow.encrypted:
            self._closing()
            flow.close()
        else:  # the transport ends when everything has been sent, whatever the peer does: nothing else is waited for
            self.state = CLOSING
            self.pending = b""
            self.transport.close()

    def _closing(self) -> None:
        """The transport is being closed. A peer that does not close as well is left when everything has been sent."""
        self.state = CLOSING
        self.pending = b""
        self.deadline = self.loop.time() + LINGER
        self.flow.ending()

    def _expire(self, now: float) -> None:
        """``deadline`` has passed. What that means depends on what was waited for."""
        if self.state is CLOSING:
            if self.flow.unsent():  # a slow reader has its time: see `stalled`
                self.deadline = now + LINGER
            elif self.flow.settled():
                self.abort()
        elif self.state is IDLE or self.state is NEW:
            if not self.flow.readable():  # bytes that have arrived are a request that deserves its answer
                self.close(linger=self.state is IDLE and not self.flow.encrypted)  # no response has told it
        elif self.head.request is HEADERS:
            if not self.context.persistence.draining:
                self.refuse(ProtocolError("the request head took longer than HYBRIDWORKER_HEADER_TIMEOUT", 408))
            elif not self.flow.readable():
                self.refuse(ProtocolError("the request head was not complete when the worker left", 408))
        elif self.cycle is None:
            self.close(linger=not self.flow.encrypted)  # the rest of a body that is dropped
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

    def refuse(self, error: ProtocolError) -> None:
        """Answer a request that cannot be served, log why, and close."""
        cycle, head = self.cycle, self.head
        known = head.refused() if cycle is None else cycle.scope
        page = refuse(self.context, self.peer, error, known, answer=cycle is None, body=not head.bodiless)
        if cycle is None:
            self.transport.write(page)
            self.close(linger=True)
        else:  # the body is at fault
            head.request, self.persistent = DONE, True  # whatever else it sends is read and dropped
            cycle.refuse(error.status)

    # -- a WebSocket

    def successor(self, scope: Scope, method: bytes) -> Successor | None:
        """
        What takes the connection over for the handshake that the request is (RFC 6455 4.2.1).

        None where it is answered as HTTP: any upgrade may be ignored (RFC 9110 7.8). Raises
        :class:`~.errors.ProtocolError` for a handshake that cannot be taken.
        """
        context, head = self.context, self.head
        application = head.application
        if application.takes_websockets:
            if head.request is BODY:
                raise ProtocolError("a WebSocket handshake with a body (RFC 6455 4.1)")
            try:  # the first handshake takes 10 ms for it; applications without WebSockets save a MiB of each worker
                from ..websocket import handshake
                from ..websocket import protocol as websocket
            except OSError as exc:  # no descriptor is left to read it: the next handshake tries again
                raise ProtocolError(f"WebSocket cannot be loaded now: {exc}", 503) from exc
            if not websocket.available():
                context.warn_once(
                    "A WebSocket handshake was refused: install hybridworker[websockets] to serve WebSocket connections"
                )
                raise ProtocolError("WebSocket is not installed", 501, logged=True)
            scope = websocket_scope(scope)
            opening = handshake.Upgrade(context, self.transport, scope, method)
            return websocket.WebSocketProtocol(context, application, self.flow, scope, opening)
        if application.takes_sockets and head.request is DONE and method == b"GET":
            try:  # for few WSGI applications
                from .carrier import SocketCarrier
            except OSError as exc:
                context.log.error("A WebSocket over WSGI was refused: [Errno %s] %s", exc.errno, exc.strerror)
                raise ProtocolError("no descriptor is left", 503, logged=True) from exc
            return SocketCarrier(context, self.flow, head, scope)
        return None

    def hand_over(self, successor: Successor, rest: bytes) -> None:
        """Leave the connection to ``successor``; ``rest`` came behind the request."""
        self.state = UPGRADED
        self.context.connections.discard(self)
        self.context.connections.add(successor)
        self.transport.set_protocol(successor)
        successor.start(rest)
