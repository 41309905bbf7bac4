"""
RequestResponseCycle: ``receive()`` and ``send()`` of one request.

The cycle runs one call of the application. It sees ASGI messages and never the
parser: :class:`~.http11.HTTPProtocol` feeds it the request's body and is told when
the response is complete.

    feed, feed_eof, disconnect  ->  receive()
    send() -> response.encode_fields -> one transport.write of head and first chunk

Event loop side only. The head is held back until the first body message (ASGI HTTP
2.5 allows it), so that an error before it is still a clean 500. The rule one could
break by accident: validate before anything is written, for what was written cannot
be taken back. States: ``states.RESPONSE``; :meth:`RequestResponseCycle.send` is the
same table as a ladder, commonest case first.
"""

from __future__ import annotations

import asyncio
import http
from typing import Protocol

from .accesslog import ResponseView
from .asgi import Message, Scope
from .context import Hooks, WorkerContext
from .environ import request_environ
from .errors import (
    ClientDisconnected,
    InvalidMessage,
    ResponseError,
    UnexpectedMessage,
    caused_by_disconnect,
)
from .filebody import send_file
from .flow import FlowControl
from .response import (
    CLOSE,
    DATE,
    LAST_CHUNK,
    SERVER,
    as_bytes,
    bodiless,
    encode_fields,
    encode_trailers,
    error_response,
    server_fields,
    status_line,
)
from .states import RESPONSE, RequestState, ResponseState, expected

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
TRAILERS, COMPLETE, ABORTED = ResponseState.TRAILERS, ResponseState.COMPLETE, ResponseState.ABORTED

#: Bytes of request body held for an application that does not ask for them; above, reading pauses.
BODY_BUFFER = 65536

#: Above this size head and chunk are written as two buffers: copying costs more than the second buffer.
JOIN_MAX = 65536

#: The status that the access log shows where the client left before there was one. No client ever sees it.
CLIENT_LEFT = 499

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(Protocol):
    """What a cycle needs of the protocol that made it."""

    def cycle_complete(self, cycle: RequestResponseCycle) -> None:
        """The last byte of the response was written."""

    def body_wanted(self) -> None:
        """The application waits for bytes of the body that have not arrived."""

    def drainable(self) -> bool:
        """Whether the unread rest of the request is short enough to be read and dropped."""

    def abort(self) -> None:
        """Cut the connection, so that the peer sees a truncated response."""


class RequestResponseCycle:
    """
    One request and its response.

    ``keep_alive`` is what the request allows; the response may end the connection
    all the same. ``status``, ``headers`` and ``sent`` (bytes of body written) are what
    the access log shows.
    """

    __slots__ = (
        # the connection
        "context",
        "flow",
        "owner",
        "transport",
        # the request
        "access",
        "buffered",
        "chunks",
        "delivered",
        "disconnected",
        "event",
        "expect_continue",
        "http10",
        "method",
        "request",
        "scope",
        "started_at",
        "task",
        "takes_trailers",
        # the response
        "bodiless",
        "chunked",
        "head",
        "headers",
        "keep_alive",
        "reason",
        "remaining",
        "sent",
        "state",
        "status",
        "trailers",
    )

    def __init__(
        self,
        context: WorkerContext,
        owner: Owner,
        flow: FlowControl,
        scope: Scope,
        request: RequestState,
        keep_alive: bool,
        http10: bool = False,
        expect_continue: bool = False,
        takes_trailers: bool = False,
    ) -> None:
        self.context = context
        self.owner = owner
        self.flow = flow
        self.transport = flow.transport
        self.scope = scope
        self.method: str = scope["method"]
        self.http10 = http10
        self.expect_continue = expect_continue
        self.takes_trailers = takes_trailers
        self.request = request
        self.chunks: list[bytes] = []
        self.buffered = 0
        self.delivered = False
        self.disconnected = False
        self.event: asyncio.Event | None = None
        self.access = context.access
        # The clock of the last tick will do for a report; only the access log needs it exact.
        self.started_at = context.now if self.access is None else context.loop.time()
        self.task: asyncio.Task[None] | None = None
        self.state = WAITING
        self.keep_alive = keep_alive
        self.head = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.status = 0
        self.reason: bytes | None = None
        self.sent = 0
        self.chunked = False
        self.bodiless = False
        self.trailers = False
        self.remaining: int | None = None

    # -- fed by the protocol

    def feed(self, data: bytes) -> None:
        """Bytes of the request's body."""
        self.chunks.append(data)
        self.buffered += len(data)
        if self.buffered > BODY_BUFFER:
            self.flow.pause_reading()
        if self.event is not None:
            self.event.set()

    def feed_eof(self) -> None:
        """The request's body is complete."""
        self.request = RequestState.DONE
        if self.event is not None:
            self.event.set()

    def end_of_input(self) -> None:
        """
        The peer will send nothing more, and may still be reading: a closed and a half-closed one look the same.

        Everything goes on, but for ``receive()``, which says ``http.disconnect`` once the body is consumed.
        """
        self.disconnected = True
        if self.event is not None:
            self.event.set()

    def disconnect(self) -> None:
        """The connection is gone: whatever is sent from now on raises."""
        if self.state is not COMPLETE:
            self.state = ABORTED
        self.end_of_input()

    def give_up(self) -> None:
        """The grace period is over: end the application, unless it is answering a half-closed peer."""
        state = self.state
        if state is ABORTED or state is WAITING or state is STARTED:
            self._cancel()

    def refuse(self, status: int) -> None:
        """The body of the request is malformed: the peer gets ``status``, the application loses its client."""
        if self.state is WAITING or self.state is STARTED:
            self.fail(status)
        elif self.state is not COMPLETE:
            self.owner.abort()
        self.state = ABORTED
        self.end_of_input()
        if self not in self.context.cycles:
            self._cancel()  # the application has not begun, and never will

    def _cancel(self) -> None:
        # A second cancellation would interrupt the application while it cleans up after the first.
        if self.task is not None and not self.task.cancelling():
            self.task.cancel()

    # -- the application's side

    def start(self) -> None:
        """Call the application, in a task of its own and a fresh copy of the base context."""
        self.task = self.context.spawn(self.run())

    async def run(self) -> None:
        """Call the application once and see to it that its response ends, well or badly."""
        context = self.context
        context.cycles[self] = None
        try:
            if context.hooks is None or context.is_wsgi:  # WSGIMiddleware calls them itself, in its thread
                await context.app(self.scope, self.receive, self.send)
            else:
                await self._hooked(context.hooks)
            if self.state is not COMPLETE and self.state is not ABORTED:
                context.log.error(
                    "Application returned without completing its response: %s %s (state %s, expected %s)",
                    self.method,
                    self.scope["path"],
                    self.state.name,
                    expected(RESPONSE, self.state),
                )
        except asyncio.CancelledError:
            if self.task is not None and self.task.cancelling():
                # The client left and the grace period is over, or the worker is leaving and its time is up.
                context.log.debug("Request cancelled: %s %s", self.method, self.scope["path"])
            else:
                context.log.exception("Error handling request %s %s", self.method, self.scope["path"])
        except Exception as exc:
            if self.disconnected and caused_by_disconnect(exc):
                context.log.debug("Client disconnected: %s %s", self.method, self.scope["path"])
            else:
                context.log.exception("Error handling request %s %s", self.method, self.scope["path"])
        finally:
            del context.cycles[self]
            if self.state is not COMPLETE:
                self.fail(500)

    async def _hooked(self, hooks: Hooks) -> None:
        """The same between gunicorn's request hooks, on the loop and in the request's context."""
        view = None
        try:
            view = hooks.before(self.scope)
            await self.context.app(self.scope, self.receive, self.send)
        finally:
            hooks.after(view, request_environ(self.scope), ResponseView(self))

    async def receive(self) -> Message:
        """The next event of the request (ASGI HTTP 2.5, "Request" and "Disconnect")."""
        while True:
            done = self.request is RequestState.DONE
            if self.chunks or (done and not self.delivered):
                body = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
                self.chunks.clear()
                self.buffered = 0
                self.delivered = done
                if self.flow.read_paused and not done:
                    self.flow.resume_reading()
                return {"type": "http.request", "body": body, "more_body": not done}
            if self.disconnected or self.state is COMPLETE:
                return {"type": "http.disconnect"}
            if not done:
                if self.expect_continue and self.state is WAITING:
                    self.expect_continue = False
                    self.transport.write(CONTINUE)
                self.owner.body_wanted()
            if self.event is None:
                self.event = asyncio.Event()
            self.event.clear()
            await self.event.wait()

    async def send(self, message: Message) -> None:
        """
        Take one message of the response (ASGI HTTP 2.5, "Response").

        Raises :class:`~.errors.UnexpectedMessage`, :class:`~.errors.InvalidMessage` or
        :class:`~.errors.ResponseError` for a message that is wrong, and
        :class:`~.errors.ClientDisconnected` when nobody is there to read it. Waits while
        the client does not read.
        """
        kind = message["type"]
        state = self.state
        if kind == "http.response.body" and (state is STARTED or state is BODY):
            self.body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start" and state is WAITING:
            self._start(message)
        elif state is ABORTED:
            raise ClientDisconnected("the client disconnected")
        elif (kind == "http.response.zerocopysend" and (state is STARTED or state is BODY)) or (
            kind == "http.response.pathsend" and state is STARTED
        ):
            await send_file(self, message, self.context.settings)
        elif (kind == "http.response.early_hint" or kind == "http.response.informational") and (
            state is WAITING or state is STARTED or state is BODY
        ):
            self._informational(kind, message)
        elif kind == "http.response.trailers" and state is TRAILERS:
            self._trailers(message)
        else:
            raise UnexpectedMessage(kind, state, expected(RESPONSE, state))
        if self.flow.write_paused and self.state is not COMPLETE:
            await self.flow.drain()

    # -- the pieces of a response

    def _start(self, message: Message) -> None:
        status = message.get("status")
        if (type(status) is not int and not isinstance(status, http.HTTPStatus)) or not 200 <= status <= 999:
            raise InvalidMessage(f"status must be an int from 200 to 999, not {status!r}")
        headers = message.get("headers", ())
        if self.access is not None or status == 204:
            headers = [(name, value) for name, value in headers]
            self.headers = headers
            if status == 204:  # RFC 9110 8.6: no Content-Length in a 204
                headers = [field for field in headers if field[0].lower() != b"content-length"]
        block, length, seen = encode_fields(headers)
        if seen & CLOSE or not self.context.keep_alive:
            self.keep_alive = False
        elif self.keep_alive and self.request is not RequestState.DONE:
            # RFC 9110 10.1.1: without the 100 the client may or may not send its body.
            self.keep_alive = not self.expect_continue and self.owner.drainable()
        framing = b""
        if bodiless(self.method, status):
            self.bodiless = True
        elif length is not None:
            self.remaining = length
        elif self.http10:
            self.keep_alive = False
        else:
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        if not self.keep_alive:
            framing = b"Connection: close\r\n" + framing
        elif self.http10:
            framing = b"Connection: keep-alive\r\n" + framing
        fields = self.context.fields
        if seen & (DATE | SERVER):  # the application's own win, and there are never two
            fields = server_fields(fields, seen)
        self.reason = message.get("hybridworker.reason")
        line = status_line(status, self.reason)
        self.head = line + fields + framing + block + b"\r\n"
        self.trailers = bool(message.get("trailers", False))
        self.status = status
        self.state = STARTED

    def body(self, body: bytes, more: bool) -> None:
        """Take a part of the body: check it, frame it, write it."""
        if type(body) is not bytes:
            body = as_bytes(body)
        size = len(body)
        if self.remaining is not None:
            if size > self.remaining or (not more and size < self.remaining):
                raise ResponseError(
                    f"the body has {'more' if size > self.remaining else 'fewer'} bytes than its Content-Length:"
                    f" {size} where {self.remaining} remain"
                )
            self.remaining -= size
            self.sent += size
        elif self.bodiless:
            body = b""
        elif self.chunked:
            self.sent += size
            if size > JOIN_MAX:
                self.transport.writelines([self.head, b"%x\r\n" % size, body])
                self.head, body = b"\r\n", b""
            elif size:
                body = b"%x\r\n%b\r\n" % (size, body)
            if not more and not self.trailers:
                body += LAST_CHUNK
        else:
            self.sent += size
        head = self.head
        if head:
            self.head = b""
            if size <= JOIN_MAX:
                self.transport.write(head + body)
            else:
                self.transport.writelines([head, body])
        elif body:
            self.transport.write(body)
        if more:
            self.state = BODY
        else:
            self.body_sent(False)

    def body_sent(self, more: bool) -> None:
        """A part of the body was written: on to the next state."""
        if more:
            self.state = BODY
        elif self.trailers:
            self.state = TRAILERS
        else:
            self._complete()

    def _informational(self, kind: str, message: Message) -> None:
        """A 103 from the standard extension, or gunicorn's own informational message (RFC 8297)."""
        if kind == "http.response.early_hint":
            status, headers = 103, [(b"link", link) for link in message.get("links", ())]
        else:
            status, headers = message.get("status", 103), message.get("headers", ())
            if not isinstance(status, int) or not 100 <= status < 200 or status == 101:
                raise InvalidMessage(f"an informational status is 100 or from 102 to 199, not {status!r}")
        block, _, _ = encode_fields(headers)
        # Not to HTTP/1.0 (RFC 9110 15.2), and after the head a hint is too late (checklist X15).
        if not self.http10 and self.state is not BODY:
            self.transport.write(b"%b%b\r\n" % (status_line(status), block))

    def _trailers(self, message: Message) -> None:
        block = encode_trailers(message.get("headers", ()))
        if self.chunked and self.takes_trailers:  # RFC 9110 6.5.1: only to a client that asked for them
            self.head += block
        if message.get("more_trailers", False):
            return
        if self.chunked:
            self.transport.write(b"0\r\n%b\r\n" % self.head)
        self.head = b""
        self._complete()

    def _complete(self) -> None:
        self.state = COMPLETE
        if self.event is not None:
            self.event.set()
        if self.access is not None:
            self._log()
        self.owner.cycle_complete(self)

    def fail(self, status: int) -> None:
        """End the response with an error page, or, when its head is out, by cutting the connection."""
        if self.state is WAITING or self.state is STARTED:
            self.status, self.headers, self.reason, self.keep_alive = status, [], None, False
            page = error_response(status, self.context.fields, body=self.method != "HEAD")
            self.transport.write(page)
            self._complete()
        elif self.state is ABORTED:  # nobody is there to be told
            self.status = self.status or CLIENT_LEFT
            self._log()
        else:
            self.state = ABORTED
            self.owner.abort()
            self._log()

    def _log(self) -> None:
        """Write the access line, once."""
        access, self.access = self.access, None
        if access is not None:
            access(self)
