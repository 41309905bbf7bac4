"""
RequestResponseCycle: ``receive()`` and ``send()`` of one request, in any version of HTTP.

The cycle runs one call of the application. It knows ASGI messages and no bytes: a subclass
says how a response goes out (:class:`~.http11.cycle.HTTP11Cycle`, :class:`~.http2.cycle.HTTP2Cycle`).

    feed, feed_eof, disconnect  ->  receive()
    send()  ->  start_response, body, trailers, file, informational  of the subclass

Event loop side only. States: ``states.RESPONSE``, which :meth:`RequestResponseCycle.send` is as
a ladder, commonest case first, and ``states.CallState``.

Invariant: an application may call ``receive()`` and ``send()`` from several tasks, before, while
and after the client leaves, and none of these calls may hang.
"""

from __future__ import annotations

import asyncio
import math
import sys
from time import monotonic
from typing import Any

from ..application.application import Application, Call
from ..asgi import ASGIApp, Headers, Message, Scope, logged_target
from ..callcontext import variables_of
from ..errors import (
    ClientDisconnected,
    TurnedAway,
    UnexpectedMessage,
    caused_by_cancellation,
    caused_by_disconnect,
    passes_through,
)  # fmt: skip
from ..states import RESPONSE, CallState, RequestState, ResponseState, expected
from ..wsgi.callrecords import LostCall
from .context import WorkerContext
from .ending import close_stream, give_up, send_end
from .files import send_file
from .flow import Flow
from .requestids import variables
from .response import CLIENT_LEFT
from .sendfile import FilePart

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
ENDING, DONE = ResponseState.ENDING, RequestState.DONE
TRAILERS, COMPLETE, ABORTED = ResponseState.TRAILERS, ResponseState.COMPLETE, ResponseState.ABORTED
READY, RUNNING, OVER = CallState.READY, CallState.RUNNING, CallState.OVER

#: Bytes of request body held for an application that does not ask for them; above, reading pauses.
BODY_BUFFER = 65536
#: An unread request body of at most so many bytes is dropped, so that the connection can go on.
DRAIN_MAX = 65536
#: :attr:`RequestResponseCycle.progress` before anything is written.
NOTHING = -1


class RequestResponseCycle:
    """
    One request and its response: the application's ``receive`` and ``send``.

    ``status``, ``reason``, ``headers`` and ``sent`` (bytes of body written) are what the access
    log shows.
    """

    # One is made for each request: without slots, and with attributes of the class, a hello took 4 % longer.
    __slots__ = (
        "application", "context", "flow", "scope",  # what it belongs to
        "call", "call_state", "cancelled", "started_at", "task", "variables",  # the call
        "expired_at", "received", "since",  # its clock, where the context is timed
        "buffered", "chunks", "delivered", "disconnected", "event", "expect_continue", "method", "request",  # of it
        "access", "bodiless", "headers", "reason", "remaining", "sent", "state", "status", "trailers",  # the response
    )  # fmt: skip
    expired_at: float  #: like the next one made when it is needed, which is seldom
    received: int  #: bytes of the body

    def __init__(
        self, context: WorkerContext, application: Application, flow: Flow, scope: Scope, request: RequestState
    ) -> None:
        self.context = context
        self.application = application
        self.flow = flow
        self.scope = scope
        self.call_state = READY
        self.task: asyncio.Task[None] | None = None
        self.call: Call | None = None  #: a WSGI call that runs without a task
        self.cancelled = False  #: this worker has cancelled the task
        #: the context of the task
        self.variables = application.context if context.ids is None else variables(application.context, scope)
        self.method: str = scope["method"]
        self.request = request
        self.chunks: list[bytes] = []  #: the body that has come and that the application has not taken
        self.buffered = 0  #: bytes of ``chunks``
        self.delivered = False  #: the application has the end of the body
        self.disconnected = False  #: the client sends nothing more, or has gone
        self.expect_continue = False  #: the client waits for a 100 that was not sent
        self.event: asyncio.Event | None = None  #: set when ``receive()`` may have something to return
        self.access = context.access if application.counted else None
        # The clock of the last tick will do for a report.
        self.started_at = self.since = monotonic() if context.clock.exact else context.clock.now
        self.state = WAITING
        self.status = 0
        self.reason: bytes | None = None
        self.headers: Headers = []
        self.sent = 0
        self.bodiless = False  #: nothing follows the head: HEAD, 204, 304
        self.remaining: int | None = None  #: bytes that Content-Length announced and that have not been sent
        self.trailers = False  #: the application promised some

    # -- what a version of HTTP has to say

    def start_response(self, message: Message) -> None:
        """Take the head of the response; on to STARTED. Nothing is written before the body begins."""
        raise NotImplementedError

    def body(self, body: Any, more: bool) -> None:
        """Take a part of the body: check it, frame it, write it, and go on to the next state."""
        raise NotImplementedError

    def informational(self, kind: str, message: Message) -> None:
        """Take an interim response."""
        raise NotImplementedError

    def send_trailers(self, message: Message) -> None:
        """Take trailers."""
        raise NotImplementedError

    async def send_part(self, part: FilePart, more: bool) -> None:
        """
        Frame the bytes of an open file, write them, and go on to the next state.

        An error leaves the response in state FILE, from which only its end leads: the client has a piece of a file.
        """
        raise NotImplementedError

    def error(self, status: int) -> None:
        """Answer with an error page that has ``headers``; nothing has been written."""
        raise NotImplementedError

    def body_wanted(self) -> None:
        """The application waits for bytes of the body that have not come."""
        raise NotImplementedError

    def finished(self) -> None:
        """The response is complete."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut the response, so that the client sees that something is missing."""
        raise NotImplementedError

    # -- fed by the protocol

    def feed(self, data: bytes) -> None:
        """Bytes of the request's body; too late when the application was told that the client is gone."""
        if self.disconnected:
            return
        if self.context.admission is not None and self.context.admission.cuts(self, len(data)):
            return
        self.chunks.append(data)
        self.buffered += len(data)
        if self.buffered > BODY_BUFFER:
            self.flow.pause_reading()
        if self.event is not None:
            self.event.set()

    def feed_eof(self) -> None:
        """The request's body is complete."""
        if self.disconnected:
            return
        self.request = DONE
        if self.context.admission is not None:
            self.context.admission.complete(self, self.call_state is RUNNING)
        if self.event is not None:
            self.event.set()

    def end_of_input(self) -> None:
        """
        The peer will send nothing more, and may still be reading: a closed and a half-closed one look the same.

        Everything goes on, but for ``receive()``, which says ``http.disconnect`` once the body is consumed.
        """
        if self.request is RequestState.BODY and self.context.admission is not None:
            self.context.admission.complete(self, self.call_state is RUNNING)  # as far as it goes: its clock runs on
        self.disconnected = True
        if self.event is not None:
            self.event.set()

    def disconnect(self) -> None:
        """The connection is gone: whatever is sent from now on raises, and a WSGI call that is queued never runs."""
        if self.state is not COMPLETE:
            if self.progress is not NOTHING and self.state is not ABORTED:
                self.since = math.inf  # nothing is due any more: its first byte was in time
            self.state = ABORTED
        self.end_of_input()
        if self.call is not None:
            self.cancel()

    @property
    def begun(self) -> bool:
        """Whether the application was called, or never will be."""
        return self.call_state is RUNNING or self.call_state is OVER

    @property
    def progress(self) -> int:
        """How far the response has come: bytes of body that were written, or :data:`NOTHING`."""
        return NOTHING if self.state is WAITING or self.state is STARTED else self.sent

    def give_up(self, before: int = NOTHING) -> None:
        """The grace period is over; ``before`` is the progress that there was when the peer ended its side."""
        give_up(self, before)

    @property
    def streaming(self) -> bool:
        """Whether the response has begun without saying how long it will be. A file has an end."""
        state = self.state
        begun = state is BODY or state is TRAILERS or (state is STARTED and not self.bodiless)
        return begun and self.remaining is None

    @property
    def due(self) -> bool:
        """Whether the first byte of the response is awaited, or a call goes on for nobody."""
        state = self.state
        return state is WAITING or state is STARTED or (state is ABORTED and not self.cancelled)

    @property
    def incoming(self) -> bool:
        """Whether the body is coming in: a client that stalls is given up, so it may take its time."""
        return self.request is RequestState.BODY and not self.disconnected and not self.flow.read_paused

    def expire(self) -> LostCall | None:
        """HYBRIDWORKER_REQUEST_TIMEOUT has passed: answer 504 where there is a client, and end the call."""
        lost = self.application.expire(self.scope)  # first: a client with its 504 may rely on it
        if self.context.admission is not None:
            self.context.admission.expire(self)
        self.cancel()
        return lost

    def refuse(self, status: int) -> None:
        """The body of the request is malformed: the peer gets ``status``, the application loses its client."""
        if self.state is WAITING or self.state is STARTED:
            self.fail(status)
        elif self.state is not COMPLETE:
            self.abort()
        self.state = ABORTED
        self.end_of_input()
        if self.call_state is not RUNNING:
            self.call_state = OVER  # the application has not begun, and never will

    def cancel(self) -> None:
        """
        End the call: nobody waits for its response, or the worker's time is up.

        Invariant: the task is cancelled once. A second cancellation would interrupt the application's cleaning up.
        ``Task.cancelling()`` cannot tell: it counts the application's own, and forgets what was taken back.
        """
        if self.task is not None:
            if not self.cancelled:
                self.cancelled = True
                self.task.cancel()
        elif self.call is not None:
            self.call.cancel()
            self.call = None
            self._over()

    # -- the application's side

    def start(self) -> None:
        """
        Call the application, in a task of its own and a fresh copy of its context.

        The task begins before this returns, where Python can do that (3.12 and later): an application
        that waits for nothing then costs no turn of the loop.

        A WSGI application whose request is complete is called without a task: its thread
        makes most responses whole, and a task would have nothing to wait for.
        """
        context, application, limits = self.context, self.application, self.context.admission
        if limits is not None and len(context.cycles) >= limits.asked_from and not limits.admits(self):
            return
        self.call_state = RUNNING
        context.enter(self)  # at once, though the task may begin later: others ask how many there are
        if application.begin is None or self.request is not DONE:
            self.variables = own = self.variables.copy()
            if sys.version_info >= (3, 12):
                self.task = asyncio.Task(self.run(application.app), loop=context.loop, context=own, eager_start=True)
            else:
                self.task = context.loop.create_task(self.run(application.app), context=own)
            return
        try:
            self.call = application.begin(self.scope, self._take() if self.buffered else b"", self._answered)
        except RuntimeError as exc:  # no thread can be started
            self._failed(exc)
            self._over()

    def _answered(self) -> None:
        """The WSGI call has something to send, or to raise."""
        call, self.call = self.call, None
        if call is None:  # QUIT has interrupted start(), before that knew the call: the process is being left
            return
        body = call.whole()
        if body is None and not isinstance(call.error, TurnedAway):
            self.task = self.context.loop.create_task(self.run(call))
            return
        try:
            if self.state is ABORTED:
                raise ClientDisconnected("the client disconnected")
            if body is None:
                raise call.error  # type: ignore[misc]  # TurnedAway
            ids = self.context.ids
            self.start_response(call.start if ids is None else ids.respond(call.start, self.scope))
            self.body(body, False)
        except Exception as exc:
            self._failed(exc)
        finally:
            call.gone = True
            self._over()

    async def run(self, app: ASGIApp) -> None:
        """Call ``app`` once and see to it that its response ends, well or badly."""
        context, hooks, view = self.context, self.application.hooks, None
        try:
            if hooks is not None:
                view = hooks.before(self.scope)
            await app(self.scope, self.receive, self.send)
            if self.state is COMPLETE or self.state is ABORTED:
                pass
            elif self.disconnected:  # and the application saw it, and had nothing more to say
                context.log.debug("Client disconnected: %s %s", self.method, logged_target(self.scope))
            elif self.cancelled:  # and the application swallowed it, to end early
                context.log.debug("Request cancelled: %s %s", self.method, logged_target(self.scope))
            else:
                text = "Application returned without completing its response: %s %s (state %s, expected %s)"
                target, state = logged_target(self.scope), self.state
                context.log.error(text, self.method, target, state.name, expected(RESPONSE, state))
        except BaseException as exc:  # of any kind: nobody else would log it with its request
            if not passes_through(exc):
                self._failed(exc)
            else:
                self._cut()  # the process is being left, perhaps amid a write of ours: nothing may follow
                if self.task is not None:
                    raise
                # Else the task has begun at once, and asyncio would complain of one that nobody has. The loop stops.
        finally:
            self._over()
            if hooks is not None and view is not None:
                hooks.after(view, None, self)

    def _failed(self, exc: BaseException) -> None:
        """Log what the application has raised."""
        log, scope = self.context.log, self.scope
        if isinstance(exc, TurnedAway) and self.context.admission is not None:
            self.context.admission.turn_away(self, "queue")
        elif self.disconnected and caused_by_disconnect(exc):
            log.debug("Client disconnected: %s %s", self.method, logged_target(scope))
        elif self.cancelled and caused_by_cancellation(exc):
            # The client left and the grace period is over, or the worker is leaving and its time is up.
            log.debug("Request cancelled: %s %s", self.method, logged_target(scope))
        else:
            run = variables_of(scope, self.variables).run
            run(log.exception, "Error handling request %s %s", self.method, logged_target(scope), exc_info=exc)

    def _over(self) -> None:
        """The application is done with the request: the response ends, well or badly."""
        self.call_state = OVER
        self.context.exit(self)
        if self.state is ENDING:
            close_stream(self)
        elif self.state is not COMPLETE:
            # A body that did not come to its end is the client's fault.
            self.fail(400 if self.disconnected and self.request is RequestState.BODY else 500)

    def _take(self) -> bytes:
        """The bytes of the body that have come."""
        body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self.buffered = 0
        self.delivered = self.request is DONE
        if self.flow.read_paused:  # also at the end of the body: paused, the client could not be seen to leave
            self.flow.resume_reading()
        return body

    async def receive(self) -> Message:
        """The next event of the request (ASGI HTTP 2.5, "Request" and "Disconnect")."""
        while True:
            done = self.request is DONE
            if self.chunks or (done and not self.delivered):
                return {"type": "http.request", "body": self._take(), "more_body": not done}
            if self.disconnected or self.state is COMPLETE:
                return {"type": "http.disconnect"}
            if not done:
                self.body_wanted()
            if self.event is None:
                self.event = asyncio.Event()
            self.event.clear()
            await self.event.wait()

    async def send(self, message: Message) -> None:
        """
        Take one message of the response (ASGI HTTP 2.5, "Response").

        Raises :class:`~.errors.UnexpectedMessage`, :class:`~.errors.InvalidMessage` or :class:`~.errors.ResponseError`
        for what is wrong, and :class:`~.errors.ClientDisconnected` when nobody reads. Waits while the client does not.
        """
        kind = message["type"]
        state = self.state
        if kind == "http.response.body" and (state is STARTED or state is BODY):
            self.body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and state is WAITING:
            ids = self.context.ids  # in line: a call would be 0.5 % of a hello
            self.start_response(message if ids is None else ids.respond(message, self.scope))
        elif state is ENDING:
            send_end(self, kind, message)
        elif state is ABORTED:
            if self.context.admission is not None:
                self.context.admission.answers_late(self)
            raise ClientDisconnected("the client disconnected")
        elif (kind == "http.response.zerocopysend" and (state is STARTED or state is BODY)) or (
            kind == "http.response.pathsend" and state is STARTED
        ):
            await send_file(self, message)
        elif (kind == "http.response.early_hint" or kind == "http.response.informational") and (
            state is WAITING or state is STARTED or state is BODY
        ):
            self.informational(kind, message)
        elif kind == "http.response.trailers" and state is TRAILERS:
            self.send_trailers(message)
        else:
            raise UnexpectedMessage(kind, state, expected(RESPONSE, state))
        if self.flow.write_paused:
            await self.settle()

    async def settle(self) -> None:
        """Wait until the client has taken enough, but not of the last message."""
        if self.state is not COMPLETE:
            await self.flow.drain()

    # -- the end

    def body_sent(self, more: bool) -> None:
        """A part of the body was written: on to the next state."""
        if self.state is STARTED and self.context.durations is not None and (more or self.trailers):
            self.first_byte()
        if more:
            self.state = BODY
        elif self.trailers:
            self.state = TRAILERS
        else:
            self.complete()

    def complete(self) -> None:
        """The last byte was written."""
        state, self.state = self.state, COMPLETE
        application = self.application
        if application.counted:
            application.responses[self.status // 100] += 1
            if (durations := self.context.durations) is not None:
                # In line: a call, and counting there, would be 3 % of a hello.
                noted = durations.whole if state is STARTED or state is WAITING else durations.last_bytes
                noted[self.status // 100].append(monotonic() - self.started_at)
        if self.event is not None:
            self.event.set()
        if self.access is not None:
            self._log()
        self.finished()

    def first_byte(self) -> None:
        """The first byte of the response was written. To be called where ``context.durations`` is not None."""
        if self.context.durations is not None and self.application.counted:
            self.context.durations.first_bytes[self.status // 100].append(monotonic() - self.started_at)

    def fail(self, status: int) -> None:
        """End the response with an error page, or, when its head is out, by cutting the connection."""
        if self.state is WAITING or self.state is STARTED:
            ids = self.context.ids
            self.status, self.headers, self.reason = status, [] if ids is None else ids.fields(self.scope), None
            self.error(status)
            self.complete()
        elif self.state is ABORTED:  # nobody is there to be told
            self.status = self.status or CLIENT_LEFT
            self._log()
        else:
            self._cut()

    def _cut(self) -> None:
        """Cut the connection, unless the response is complete, so that the client sees that something is missing."""
        if self.state is not COMPLETE:
            self.status = self.status or 500
            self.state = ABORTED
            self._log()  # before the client can see the end
            self.abort()

    def _log(self) -> None:
        """Write the access line, once, in the variables of the call."""
        access, self.access = self.access, None
        if access is not None:
            variables_of(self.scope, self.variables).run(access, self)
