"""
SocketCarrier: a WebSocket over WSGI, for which the application has a socket.

A WSGI application that is asked for a WebSocket gets ``environ["gunicorn.socket"]``, one end of a
socket pair (:mod:`..wsgi.clientsocket`), and speaks the protocol itself in the thread of the call. The carrier
takes the connection over from RequestConnection and carries the bytes:

    client -> data_received -> ours ~ application          pauses reading while the application does not read
    application ~ ours -> _read -> transport -> client     pauses reading while the client does not read

What is held between the two is one segment, besides what the kernel holds. With the first byte that
the application writes the response is the socket's; until then :class:`~.cycle.HTTP11Cycle` answers
what comes by ``start_response()``. Either way the connection ends. Event loop side only. States:
``states.CarrierState``.

Invariant: before the loop takes a message of the response, or notes that the call has ended, it reads the socket. The
thread may already have written to the socket, and even returned, before the loop ran.
"""

from __future__ import annotations

import asyncio
import re
import socket
from time import monotonic

from ..asgi import Message, Receive, Scope, Send
from ..connection import kernel
from ..connection.context import WorkerContext
from ..connection.flow import DEAF, LINGER, FlowControl
from ..errors import ClientDisconnected, ProtocolError
from ..group.scoreboard import UPGRADED
from ..states import CallState, CarrierState, ResponseState
from ..websocket.handshake import check_handshake
from ..wsgi.clientsocket import SOCKET, socket_pair
from .cycle import Head, HTTP11Cycle

UNDECIDED, CARRYING = CarrierState.UNDECIDED, CarrierState.CARRYING
ANSWERING, CLOSING, CLOSED = CarrierState.ANSWERING, CarrierState.CLOSING, CarrierState.CLOSED

#: Bytes that are taken from the application in one turn of the loop.
BLOCK = 65536

#: Seconds that a call has to see the end of its socket, when the time of the worker is up.
FAREWELL = 0.1

#: The first line of what the application writes, and the most that is waited for it.
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]")
_STATUS_MAX = 64


class SocketCarrier(asyncio.Protocol):
    """One connection whose WSGI call has a socket. Counts as one request."""

    __slots__ = (
        "buffer", "carried", "client", "context", "cycle", "deadline", "eof", "flow", "head", "line", "loop", "ours",
        "persistent", "reading", "state", "transport",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, flow: FlowControl, head: Head, scope: Scope) -> None:
        """
        Check the handshake and make the socket pair.

        Raises :class:`~.errors.ProtocolError`; that there are no descriptors for a pair is logged.
        """
        check_handshake(b"GET", scope)  # or a library would raise amid the call, and be logged with a traceback
        transport = flow.transport
        addresses = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        try:
            self.ours, self.client = socket_pair(*addresses)
        except OSError as exc:
            context.log.error("A WebSocket over WSGI was refused: %s", exc)
            raise ProtocolError("no socket pair", 503, logged=True) from exc
        scope[SOCKET] = self.client
        self.context, self.loop = context, context.loop
        self.flow, self.transport = flow, transport
        self.head = head
        self.persistent = False
        self.state = UNDECIDED
        self.carried = False  #: the response is, or was, the socket's
        self.cycle = HTTP11Cycle(self, head.application, scope)
        self.buffer = b""  #: of the client, what the application's end has no room for
        self.eof = False  #: nothing more comes for the application
        self.line = b""  #: the beginning of what it writes, until its status is known
        self.reading = True  #: what it writes is looked for
        self.deadline = 0.0  #: loop time at which a connection that is being closed is cut

    def start(self, rest: bytes) -> None:
        """Call the application; ``rest`` came behind the request."""
        cycle, limits = self.cycle, self.context.admission
        if cycle.application.counted:
            self.context.quota.count()
        if limits is not None and not limits.admits(cycle):
            self._end_pair()
            return
        cycle.call_state = CallState.RUNNING
        self.context.enter(cycle)
        cycle.variables = cycle.variables.copy()
        cycle.task = self.loop.create_task(cycle.run(self._serve), context=cycle.variables)
        cycle.task.add_done_callback(self._call_over)
        self.loop.add_reader(self.ours.fileno(), self._read)
        if rest:
            self.data_received(rest)

    # -- called by the transport

    def data_received(self, data: bytes) -> None:
        if self.eof or (self.state is not UNDECIDED and self.state is not CARRYING):
            return  # a response is on its way, behind which the connection is closed
        if self.buffer:
            self.buffer += data
            return
        self.buffer = data
        self._flush()
        if self.buffer:
            self.flow.pause_reading()
            self.loop.add_writer(self.ours.fileno(), self._flush)

    def eof_received(self) -> bool:
        self._end_input()
        if self.flow.encrypted or kernel.hung_up(self.flow.fileno()):
            if self.state is not CARRYING:
                self.cycle.disconnect()
            self.flow.ending()
            return False  # the transport closes itself
        self.cycle.end_of_input()
        grace = self.context.settings.asgi_disconnect_grace_period
        self.loop.call_later(grace, self._grace_over, self.cycle.progress)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.flow.lose()
        self._end_input()
        self._shut(socket.SHUT_RD)
        if self.state is UNDECIDED or self.state is ANSWERING:
            self.cycle.disconnect()
            self.loop.call_later(self.context.settings.asgi_disconnect_grace_period, self.cycle.give_up)
        self.state = CLOSED
        if self.carried and self.context.durations is not None:
            self.context.durations.closed.append(monotonic() - self.cycle.started_at)
        if self.ours.fileno() < 0:  # the call is over
            del self.cycle  # it refers to this object, and has a descriptor, which would wait for a collection
        self.context.connections.lost(self)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if not self.reading and self.ours.fileno() >= 0:
            self.reading = True
            self.loop.add_reader(self.ours.fileno(), self._read)

    # -- called by the server

    idle_until = None  # it is never idle
    closing = False

    def tick(self, now: float) -> None:
        context, flow, closing = self.context, self.flow, self.state is CLOSING
        timeout = context.settings.write_timeout
        if context.persistence.draining and closing:
            timeout = min(timeout, DEAF)
        if flow.stalled(now, timeout, self.cycle.sent):
            context.log.debug("WebSocket peer takes no bytes, connection dropped")
            self.abort()
        elif closing and now >= self.deadline:
            if flow.unsent():
                self.deadline = now + LINGER
            elif flow.settled():
                self.abort()
        elif flow.read_paused and kernel.hung_up(flow.fileno()):
            self.abort()  # the transport does not see it while reading is paused
        elif self.cycle.state is ResponseState.ENDING and not self.eof:
            self._end_input()  # HYBRIDWORKER_STREAM_DRAIN: as if the client had gone, but for what is still written

    def drain(self, deadline: float) -> None:
        self.flow.progress = None  # a client that takes no bytes has its time from now on
        if self.context.settings.reload and self.state is CARRYING:
            self._shut(socket.SHUT_RDWR)  # nobody waits for a restart of his own

    def abort(self) -> None:
        """End both sides at once."""
        if self.state is not CARRYING:
            self.cycle.disconnect()
        self._end_input()
        self._shut(socket.SHUT_RD)
        self.flow.abort()

    # -- called by the cycle

    def cycle_complete(self, cycle: HTTP11Cycle) -> None:
        """``start_response()`` has answered."""
        self.close()

    def body_wanted(self) -> None:
        pass

    def drainable(self) -> bool:
        return True

    # -- the call

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application. Raises what is its fault, and ClientDisconnected where its socket had the response."""
        cycle = self.cycle
        try:
            await cycle.application.app(scope, receive, self._send)
        except asyncio.CancelledError:
            # The connection is aborted with it. A thread that sees the end of its socket and returns is not cut.
            await asyncio.sleep(FAREWELL)
            raise
        except Exception as exc:
            self._finish()
            if not isinstance(self.client.excused(exc), ClientDisconnected):
                raise
            if self.state is UNDECIDED:
                cycle.disconnect()
            raise ClientDisconnected("the application has ended its WebSocket") from exc
        else:
            self._finish()
        finally:
            self.context.slot[UPGRADED] -= self.carried

    async def _send(self, message: Message) -> None:
        """Take a message of the response, unless that is the socket's."""
        self._look()
        if self.state is not CARRYING:
            await self.cycle.send(message)
            if self.state is UNDECIDED and self.cycle.state not in (ResponseState.WAITING, ResponseState.STARTED):
                self.state = ANSWERING

    def _call_over(self, task: asyncio.Task[None]) -> None:
        """The thread has returned, or is not waited for any more: both sides end."""
        self.close()
        self._end_pair()
        if self.state is CLOSED:
            del self.cycle  # as in connection_lost

    def _end_pair(self) -> None:
        """Close the loop's end."""
        self.eof, self.buffer = True, b""
        self._shut(socket.SHUT_RDWR)
        fd = self.ours.fileno()
        self.loop.remove_reader(fd)
        self.loop.remove_writer(fd)
        self.ours.close()
        del self.client

    def _finish(self) -> None:
        """The thread has returned: take what it has written until now, and close where that is the response."""
        self._shut(socket.SHUT_RDWR)
        while (self.state is UNDECIDED or self.state is CARRYING) and (data := self._received()):
            self._take(data)
        if self.state is CARRYING:
            self._complete()

    def _complete(self) -> None:
        """The response of the socket is complete."""
        cycle = self.cycle
        cycle.status = cycle.status or 500
        cycle.state = ResponseState.COMPLETE
        cycle._log()
        self.close()

    def close(self) -> None:
        """Close after everything written has been sent, in the way of :meth:`~.connection.RequestConnection.close`."""
        if self.state is CLOSED or self.state is CLOSING:
            return
        self.state = CLOSING
        self.deadline = self.loop.time() + LINGER
        if self.flow.encrypted or self.eof:
            self.flow.close()
        else:
            self.flow.linger()

    def _grace_over(self, before: int) -> None:
        if self.state is not CLOSED and self.cycle.call_state is not CallState.OVER:
            self.cycle.give_up(before)

    # -- from the application to the client

    def _read(self) -> None:
        """The application has written something, or has closed its end."""
        data = self._received()
        if data is None:
            return
        if not data:
            self._closed_by_application()
        else:
            self._take(data)
            if self.flow.write_paused:
                self._pause()

    def _look(self) -> None:
        """See whether it has, before anything else is decided."""
        if self.state is UNDECIDED and (data := self._received()):
            self._take(data)

    def _received(self) -> bytes | None:
        """The next bytes; none at the end, and None where they may still come."""
        try:
            return self.ours.recv(BLOCK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _take(self, data: bytes) -> None:
        cycle = self.cycle
        if self.state is UNDECIDED:
            self.state, self.carried, self.client.used = CARRYING, True, True
            self.context.slot[UPGRADED] += 1  # no request any more, for HYBRIDWORKER_REQUESTS_MAX
            cycle.state = ResponseState.BODY  # without an end that is known
            cycle.disconnected = True  # what the call raises by its end is no fault
            cycle.headers = []
        if self.state is not CARRYING or self.flow.lost:
            return
        if not cycle.status:
            self._read_status(data)
        cycle.sent += len(data)
        self.transport.write(data)

    def _read_status(self, data: bytes) -> None:
        """Take the status for the access log from the first line; there are applications that write none."""
        self.line += data[:_STATUS_MAX]
        cycle = self.cycle
        if match := _STATUS.match(self.line):
            cycle.status = int(match[1])
        elif b"\n" in self.line or len(self.line) >= _STATUS_MAX:
            cycle.status = 500
        if cycle.status and cycle.application.counted:
            cycle.application.responses[cycle.status // 100] += 1
            if self.context.durations is not None:
                self.context.durations.answered.append(monotonic() - cycle.started_at)

    def _closed_by_application(self) -> None:
        """No more comes: by ``close()`` the connection ends, by ``shutdown(SHUT_WR)`` its own side of it."""
        self._pause()
        if self.state is not CARRYING:
            return
        if kernel.hung_up(self.ours.fileno()) or self.eof or self.flow.encrypted:  # TLS knows no half-close
            self._complete()
        elif not self.flow.lost:
            self.transport.write_eof()

    def _pause(self) -> None:
        if self.reading:
            self.reading = False
            self.loop.remove_reader(self.ours.fileno())

    # -- from the client to the application

    def _flush(self) -> None:
        """Give the application what it has room for."""
        try:
            self.buffer = self.buffer[self.ours.send(self.buffer) :]
        except BlockingIOError:
            return
        except OSError:
            self.buffer = b""  # it has closed its end
        if not self.buffer:
            self.loop.remove_writer(self.ours.fileno())
            if self.eof:
                self._shut(socket.SHUT_WR)
            self.flow.resume_reading()

    def _end_input(self) -> None:
        """The client sends nothing more."""
        self.eof = True
        if not self.buffer:
            self._shut(socket.SHUT_WR)

    def _shut(self, how: int) -> None:
        try:
            self.ours.shutdown(how)
        except OSError:
            pass  # it is closed, or the application was faster
