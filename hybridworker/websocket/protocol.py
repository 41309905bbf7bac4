"""
WebSocketProtocol: one connection after the upgrade, between its transport and the application.

:class:`~.http11.connection.RequestConnection` hands over a connection whose request is a handshake,
:mod:`.http2.tunnel` a stream, which poses as a transport.

    data_received -> MessageReader.feed -> Inbox -> receive()
    send()        -> MessageReader.encode                       -> transport.write

:mod:`.handshake` knows the HTTP before the first frame, :mod:`.frames` the frames; here are
the states (``states.WEBSOCKET``; :meth:`WebSocketProtocol.send` is that table as a ladder), the
flow, and the end: pings, timeouts, closing, the worker leaving. Event loop side only.

Invariant: every end of a connection goes through :meth:`~.inbox.Inbox.tell`.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

from ..application.application import Application
from ..asgi import Headers, Message, Scope, id_mark, logged_target
from ..connection import kernel
from ..connection.context import WorkerContext
from ..connection.flow import DEAF, LINGER, FlowControl
from ..connection.requestids import identified, variables
from ..connection.response import CLIENT_LEFT
from ..connection.scope import address_name
from ..errors import (
    ClientDisconnected,
    ProtocolError,
    UnexpectedMessage,
    caused_by_cancellation,
    caused_by_disconnect,
    passes_through,
)  # fmt: skip
from ..group.scoreboard import UPGRADED
from ..states import WEBSOCKET, ReaderState, WebSocketState, expected
from .handshake import Opening, values
from .inbox import Inbox
from .liveness import Liveness, Verdict

try:
    from . import frames
except ImportError:  # the extra is not installed: RequestConnection answers 501
    frames = None  # type: ignore[assignment]

CONNECTING, OPEN, REJECTING = WebSocketState.CONNECTING, WebSocketState.OPEN, WebSocketState.REJECTING
REMOTE_CLOSING, LOCAL_CLOSING = WebSocketState.REMOTE_CLOSING, WebSocketState.LOCAL_CLOSING
CLOSED = WebSocketState.CLOSED

#: Above this size head and payload are written as two buffers: copying costs more than the second buffer.
JOIN_MAX = 65536
#: Bytes that may come before the application accepts; above, reading pauses.
EARLY_MAX = 65536
#: Seconds for the peer's close frame, or for our last bytes to reach it, before the connection is cut.
CLOSE_TIMEOUT = 5.0
#: Seconds over which the connections of a leaving worker are closed, lest their clients return all in one instant.
SPREAD = 0.5


def available() -> bool:
    """Whether the ``websockets`` package, the extra of the same name, is installed."""
    return frames is not None


class WebSocketProtocol(asyncio.Protocol):
    """
    One WebSocket, or the refusal of one. Counts as one request.

    ``scope``, ``status``, ``reason``, ``headers``, ``sent`` (bytes written after the head)
    and ``started_at`` are what the access log shows when the connection is gone.
    """

    __slots__ = (
        "close_by", "context", "flow", "leaving", "liveness", "state",  # the connection
        "opening", "scope", "since", "started_at",  # the request
        "headers", "sent", "status",  # the response
        "inbox", "reader",  # what comes
        "application", "cancelled", "dismissed", "task", "variables",  # the application
    )  # fmt: skip

    def __init__(
        self, context: WorkerContext, application: Application, flow: FlowControl, scope: Scope, opening: Opening
    ) -> None:
        self.context, self.flow = context, flow
        self.application, self.state = application, CONNECTING
        self.close_by = 0.0  #: loop time at which a connection that is being closed is cut
        self.leaving: asyncio.TimerHandle | None = None
        self.scope, self.opening = scope, opening
        self.started_at = self.since = time.monotonic()
        self.status = self.sent = 0
        self.headers: Headers = []
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False  #: this worker has cancelled the task
        self.variables = application.context.copy() if context.ids is None else variables(application.context, scope)
        self.reader = frames.MessageReader(context.settings.websocket_max_message_size)
        self.inbox = Inbox(context.loop, self.reader)
        self.dismissed = False  #: the application itself has ended the connection, and may go on without it
        self.liveness = Liveness(context.settings.ws_ping_interval, context.loop.time())

    def start(self, rest: bytes) -> None:
        """Check the handshake and call the application; ``rest`` came behind the request."""
        context, scope = self.context, self.scope
        context.quota.count()
        self.opening.early = rest
        try:
            self.opening.check()
            if context.settings.ws_compression:
                self.opening.extensions = self.reader.negotiate(values(scope, b"sec-websocket-extensions"))
        except ProtocolError as exc:
            peer = address_name(scope["client"])
            text = "Invalid request from ip=%s: %s%s"
            self.variables.copy().run(context.log.warning, text, peer, exc, id_mark(scope))
            self._refuse(exc.status)
            return
        self.task = context.loop.create_task(self.run(), context=self.variables)

    # -- called by the transport

    def data_received(self, data: bytes) -> None:
        self.liveness.heard = True
        state = self.state
        if state is OPEN or state is LOCAL_CLOSING:
            reader = self.reader
            if reader.feed(data):
                self._answer()
            if reader.full:
                self.flow.pause_reading()
                if reader.idle or state is LOCAL_CLOSING:  # frames without a message
                    self._read_later()
            if not reader.idle:
                self.inbox.waiters.wake()
        elif state is CONNECTING:
            # Held back: a ping would be answered before the handshake is.
            self.opening.early += data
            if len(self.opening.early) > EARLY_MAX:
                self.flow.pause_reading()

    def eof_received(self) -> None:
        """The peer sends nothing more, without a close frame or after it: the transport closes itself."""
        self.inbox.tell(1006)
        self.state = CLOSED
        self.close_by = self.context.loop.time() + self._patience()
        self.flow.ending()

    def connection_lost(self, exc: Exception | None) -> None:
        self.flow.lose()
        self.inbox.tell(1006)
        self.state = CLOSED
        self.reader.release()
        if self.leaving is not None:
            self.leaving.cancel()
        if self.task is not None and not self.task.done() and not self.dismissed:
            self.context.loop.call_later(self.context.settings.asgi_disconnect_grace_period, self._give_up)
        self.status = self.status or CLIENT_LEFT
        self.application.responses[self.status // 100] += 1
        if self.context.durations is not None:
            self.context.durations.closed.append(time.monotonic() - self.started_at)
        if self.context.access is not None:
            self.variables.copy().run(self.context.access, self)
        if self in self.context.connections:  # on a stream it is a part of one
            self.context.connections.lost(self)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if self.flow.read_paused and self.state is not CONNECTING and not self.reader.full:
            self._read_on()

    # -- called by the server

    idle_until = None  # it is never idle
    closing = False

    def tick(self, now: float) -> None:
        state = self.state
        ending = state is not OPEN and state is not CONNECTING and state is not REJECTING
        patience = self._patience() if ending else self.context.settings.write_timeout
        if self.flow.stalled(now, patience, self.sent):
            self.context.log.debug("WebSocket peer takes no bytes, connection dropped")
            self.abort()
        elif self.flow.read_paused and kernel.hung_up(self.flow.fileno()):
            self.abort()  # the transport does not see it while reading is paused
        elif state is OPEN:
            verdict = self.liveness.tick(now, self.flow.read_paused)
            if verdict is Verdict.PING:
                self._write(self.reader.ping())
            elif verdict is Verdict.DEAD:
                self._close(1011, "no answer to a ping", told=1006)
        elif ending:
            if self.flow.unsent():
                self.close_by = now + patience  # the time begins when the peer has everything
            elif now >= self.close_by and self.flow.settled():
                self.abort()

    def drain(self, deadline: float) -> None:
        self.flow.progress = None  # a client that takes no bytes has its time from now on
        self.close_by = min(self.close_by, self.context.loop.time() + DEAF)
        if self.state is OPEN and self.leaving is None:
            loop = self.context.loop
            # The key is random, so the connections are spread evenly without knowing of each other.
            spread = min(SPREAD, max(0.0, deadline - loop.time()))
            self.leaving = loop.call_later(spread * zlib.crc32(self.opening.key) / 2**32, self._leave)

    def abort(self) -> None:
        self.flow.abort()

    def cancel(self) -> None:
        """End the application, which is told so once: see :meth:`~.cycle.RequestResponseCycle.cancel`."""
        if self.task is not None and not self.cancelled:
            self.cancelled = True
            self.task.cancel()

    @property
    def due(self) -> bool:
        """Whether the handshake waits for its answer."""
        return self.state is CONNECTING or (self.state is REJECTING and not self.status)

    incoming = False  # a handshake has no body
    reason = None  # of a status that is not its own

    def expire(self) -> None:
        """HYBRIDWORKER_REQUEST_TIMEOUT has passed: deny the handshake, and end the application."""
        if self.context.admission is not None:
            self.context.admission.count("timeout")
        self._refuse(504)
        self.cancel()

    @property
    def streaming(self) -> bool:
        """Whether it was accepted: nobody knows how long the application will go on."""
        return self.state is not CONNECTING and self.state is not CLOSED

    # -- the application's side

    async def run(self) -> None:
        """Call the application once and see to it that the connection ends, well or badly."""
        context = self.context
        hooks, view = self.application.hooks, None
        context.enter(self)
        context.slot[UPGRADED] += 1
        code = 1000
        try:
            if hooks is not None:
                view = hooks.before(self.scope)
            await self.application.app(self.scope, self.receive, self.send)
            if self.state is not CONNECTING and self.state is not REJECTING:
                pass
            elif self.cancelled:  # and the application swallowed it, to end early
                context.log.debug("WebSocket cancelled: %s", logged_target(self.scope))
            else:
                text = "Application returned without answering a WebSocket handshake: %s (state %s, expected %s)"
                context.log.error(text, logged_target(self.scope), self.state.name, expected(WEBSOCKET, self.state))
        except BaseException as exc:  # of any kind: nobody else would tell the client, or log it
            if passes_through(exc):
                raise
            code = 1011
            self._failed(exc)
        finally:
            context.slot[UPGRADED] -= 1
            context.exit(self)
            self._application_ended(1012 if self.cancelled and context.persistence.draining else code)
            if hooks is not None and view is not None:
                hooks.after(view, None, self)

    def _failed(self, exc: BaseException) -> None:
        """Log what the application has raised."""
        context, target = self.context, logged_target(self.scope)
        if self.inbox.end is not None and caused_by_disconnect(exc):
            context.log.debug("WebSocket client disconnected: %s", target)
        elif self.cancelled and caused_by_cancellation(exc):
            context.log.debug("WebSocket cancelled: %s", target)
        else:
            context.log.exception("Error handling WebSocket %s", target, exc_info=exc)

    async def receive(self) -> Message:
        """The next event (ASGI WebSocket 2.5). After the last, ``websocket.disconnect`` for ever."""
        message = await self.inbox.receive()
        if self.flow.read_paused and self.reader.idle:
            self._read_later()
        return message

    async def send(self, message: Message) -> None:
        """
        Take one event (ASGI WebSocket 2.5).

        Raises :class:`~.errors.UnexpectedMessage`, :class:`~.errors.InvalidMessage` or
        :class:`~.errors.ResponseError` for an event that is wrong, and
        :class:`~.errors.ClientDisconnected` after the end. Waits while the client does not read.
        """
        kind = message["type"]
        state = self.state
        if kind == "websocket.send" and state is OPEN:
            self._send(message.get("text"), message.get("bytes"))
        elif kind == "websocket.accept" and state is CONNECTING:
            self._accept(identified(self.context.ids, message, self.scope))
        elif kind == "websocket.close" and state is OPEN:
            self._close(message.get("code", 1000), message.get("reason") or "")
            self.dismissed = True
        elif kind == "websocket.close" and state is CONNECTING:
            self._refuse(403)
            self.dismissed = True
        elif kind == "websocket.http.response.start" and state is CONNECTING:
            self.opening.begin_denial(identified(self.context.ids, message, self.scope))
            self.state = REJECTING
        elif kind == "websocket.http.response.body" and state is REJECTING:
            self._deny(message.get("body", b""), message.get("more_body", False))
        elif state is CONNECTING or state is OPEN or state is REJECTING:
            raise UnexpectedMessage(kind, state, expected(WEBSOCKET, state))
        else:
            raise ClientDisconnected("the WebSocket is closed")
        if self.flow.write_paused and (self.state is OPEN or self.state is REJECTING):
            await self.flow.drain()

    # -- the pieces of it

    def _send(self, text: Any, data: Any) -> None:
        head, payload = self.reader.encode(text, data)
        if len(payload) > JOIN_MAX:
            self.sent += len(head) + len(payload)
            self.flow.transport.writelines([head, payload])
        else:
            self._write(head + payload)

    def _accept(self, message: Message) -> None:
        context = self.context
        self.headers = self.opening.accept(message)
        self._has_answered(self.opening.accepted)
        self.state = OPEN
        early, self.opening.early = self.opening.early, b""
        self.flow.resume_reading()
        self.data_received(early)
        if context.persistence.draining:
            self.drain(context.loop.time())

    def _deny(self, body: Any, more: bool) -> None:
        denial = self.opening.deny(body, more)
        self._has_answered(denial.status)
        self.headers, self.sent = denial.headers, denial.sent
        if not more:
            self._finish()
            self.dismissed = True

    def _refuse(self, status: int) -> None:
        """Answer the handshake with an error page."""
        self._has_answered(status)
        self.headers = [] if self.context.ids is None else self.context.ids.fields(self.scope)
        self.opening.refuse(status, self.headers)
        self._finish()

    def _has_answered(self, status: int) -> None:
        """The handshake has its answer, with ``status``."""
        if self.context.durations is not None and not self.status:
            self.context.durations.answered.append(time.monotonic() - self.started_at)
        self.status = status

    def _application_ended(self, code: int) -> None:
        """The application has returned, or failed, without having ended the connection."""
        if self.state is CONNECTING or (self.state is REJECTING and not self.status):  # nothing is out yet
            self._refuse(500)
        elif self.state is REJECTING:  # cut, so that the client sees that something is missing
            self.state = CLOSED
            self.abort()
        elif self.state is OPEN:
            self._close(code)

    def _give_up(self) -> None:
        """The client has been gone for the grace period, and the application may go on."""
        if self.task is None or self.task.done() or self.cancelled:
            return
        if self.inbox.told:
            text = "WebSocket cancelled while it cleans up behind its client: %s"
            self.variables.copy().run(self.context.log.warning, text, logged_target(self.scope))
        self.cancel()

    # -- reading

    def _read_later(self) -> None:
        """Read on in the next turn of the loop: what came together may be much, and others have theirs before."""
        if not self.inbox.behind and self.state is not CONNECTING:
            self.inbox.behind = True
            self.context.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """What was read is done with: parse what was held back, and read again."""
        self.inbox.behind = False
        reader = self.reader
        if reader.resume():
            self._answer()
        if reader.full:
            if reader.idle or self.state is LOCAL_CLOSING:
                self._read_later()
        elif not self.flow.write_paused:
            self.flow.resume_reading()
        if not reader.idle or self.inbox.end is not None:
            self.inbox.waiters.wake()

    def _answer(self) -> None:
        """Send the reader's answers, and end with it."""
        reader = self.reader
        output = reader.output()
        if output and not self.flow.lost:
            self._write(output)
        if not reader.over:
            if self.flow.write_paused:
                self.flow.pause_reading()  # a peer that pings and does not read
            return
        self.inbox.tell(*reader.ending)
        if self.state is CLOSED:
            return
        if reader.state is ReaderState.FAILED:
            self._finish(LOCAL_CLOSING)
            return
        if self.state is OPEN:
            self.state = REMOTE_CLOSING
        self.close_by = self.context.loop.time() + self._patience()
        self.flow.close()  # RFC 6455 7.1.1: the server closes first

    # -- writing and ending

    def _write(self, data: bytes) -> None:
        self.sent += len(data)
        self.flow.transport.write(data)

    def _close(self, code: Any, reason: Any = "", told: int | None = None) -> None:
        """Begin the closing handshake (RFC 6455 7.1.2). The application is told ``told``, or ``code``."""
        self._write(self.reader.close(code, reason))
        self.state = LOCAL_CLOSING
        self.close_by = self.context.loop.time() + self._patience()
        self.inbox.tell(code if told is None else told, reason)
        if self.flow.read_paused:
            self._read_later()

    def _finish(self, state: WebSocketState = CLOSED) -> None:
        """End a connection whose peer may still be sending, so that it sees our last bytes."""
        self.state = state
        self.inbox.tell(1006)
        self.flow.linger()
        self.close_by = self.context.loop.time() + LINGER

    def _patience(self) -> float:
        """Seconds for the end of the connection. A worker that leaves waits no longer than for anyone else."""
        return DEAF if self.context.persistence.draining else CLOSE_TIMEOUT

    def _leave(self) -> None:
        """The worker is leaving (RFC 6455 7.4.1; IANA: 1012, service restart)."""
        if self.state is OPEN:
            self._close(1012)
