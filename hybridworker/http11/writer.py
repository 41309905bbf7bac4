"""
ResponseWriter: what the application sends, as the bytes of one response.

The half of :class:`~.cycle.RequestResponseCycle` that writes: it checks the messages,
chooses the framing, keeps the head back until the first part of the body comes (ASGI
HTTP 2.5 allows it, and an error before it is still a clean 500), and writes head and
first part in one call. Event loop side only. The rule one could break by accident:
validate before anything is written, for what was written cannot be taken back.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ..application.application import Application
from ..asgi import Headers, Message
from ..connection.context import WorkerContext
from ..connection.flow import FlowControl
from ..connection.response import (
    CLOSE,
    DATE,
    LAST_CHUNK,
    SERVER,
    as_bytes,
    encode_fields,
    encode_trailers,
    field_list,
    final_status,
    server_fields,
    status_line,
    without_length,
)
from ..errors import InvalidMessage, ResponseError
from ..states import RequestState, ResponseState

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
TRAILERS, DONE = ResponseState.TRAILERS, RequestState.DONE

#: The line before a chunk, for the sizes of short ones.
_SIZES = [b"%x\r\n" % size for size in range(1024)]

#: Above this size head and chunk are written as two buffers: copying costs more than the second buffer.
JOIN_MAX = 65536


class Owner(Protocol):
    """What a cycle needs of the protocol that made it."""

    def cycle_complete(self, cycle: Any) -> None:
        """The last byte of the response was written."""

    def body_wanted(self) -> None:
        """The application waits for bytes of the body that have not arrived."""

    def drainable(self) -> bool:
        """Whether the unread rest of the request is short enough to be read and dropped."""

    def abort(self) -> None:
        """Cut the connection, so that the peer sees a truncated response."""


class ResponseWriter:
    """
    One response. Its state machine is ``states.RESPONSE``.

    ``keep_alive`` is what the request allows until the head is known, and then what was
    announced. ``status``, ``reason``, ``headers`` and ``sent`` (bytes of body written) are
    what the access log shows.
    """

    __slots__ = (
        # the connection
        "application",
        "context",
        "flow",
        "owner",
        "transport",
        # the request
        "expect_continue",
        "http10",
        "method",
        "request",
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

    application: Application
    context: WorkerContext
    flow: FlowControl
    owner: Owner
    transport: asyncio.Transport
    expect_continue: bool  #: the client waits for a 100 that was not sent
    http10: bool
    method: str
    request: RequestState
    takes_trailers: bool
    bodiless: bool
    chunked: bool
    head: bytes  #: until it is written; then the trailers
    headers: Headers
    keep_alive: bool
    reason: bytes | None
    remaining: int | None  #: bytes that Content-Length announced and that have not been sent
    sent: int
    state: ResponseState
    status: int
    trailers: bool  #: the application promised some

    def complete(self) -> None:
        """The last byte was written."""
        raise NotImplementedError

    def start_response(self, message: Message) -> None:
        status = message.get("status")
        if type(status) is not int or not 200 <= status <= 999:
            status = final_status(status)
        headers = message.get("headers", ())
        context = self.context
        if context.access is not None or self.application.hooks is not None or status == 204:
            self.headers = headers = field_list(message)
            if status == 204:
                headers = without_length(self.headers)
        block, length, seen = encode_fields(headers)
        if seen & CLOSE or not context.keep_alive:
            self.keep_alive = False
        elif self.keep_alive and self.request is not DONE:
            # RFC 9110 10.1.1: without the 100 the client may or may not send its body.
            self.keep_alive = not self.expect_continue and self.owner.drainable()
        framing = b""
        if self.method == "HEAD" or status == 204 or status == 304:  # what `bodiless` says, without the call
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
        if len(message) > 3 or "headers" not in message:  # not what most applications send: type, status, headers
            self.reason = message.get("hybridworker.reason")
            self.trailers = bool(message.get("trailers", False))
        if seen & (DATE | SERVER):  # the application's own win, and there are never two
            line = status_line(status, self.reason) + server_fields(context.fields, seen)
        else:
            line = status_line(status, self.reason) + context.fields
        self.head = line + framing + block + b"\r\n"
        self.status = status
        self.state = STARTED

    def body(self, body: bytes, more: bool) -> None:
        """Take a part of the body: check it, frame it, write it."""
        if type(body) is not bytes:
            body = as_bytes(body)
        size = len(body)
        whole = size == self.remaining and not more and not self.trailers
        if whole and self.head and size <= JOIN_MAX:
            # A short body in one part, as most are: the same as below, in one step.
            self.remaining, self.sent = 0, size
            self.transport.write(self.head + body)
            self.complete()
            return
        last = b""  #: what frames the end
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
            if size:
                prefix = _SIZES[size] if size < len(_SIZES) else b"%x\r\n" % size
                if size <= JOIN_MAX:
                    body = prefix + body + b"\r\n"
                else:
                    self.head += prefix
                    last = b"\r\n"
            if not more and not self.trailers:
                last += LAST_CHUNK
        else:
            self.sent += size
        self._write(body, last)
        self.body_sent(more)

    def _write(self, body: bytes, last: bytes) -> None:
        """Write a part of the body between the head, where that is still held back, and its framing."""
        head = self.head
        if head:
            self.head = b""
        if len(body) > JOIN_MAX:
            self.transport.writelines([head, body, last])
            return
        data = head + body + last
        if data:
            self.transport.write(data)

    def body_sent(self, more: bool) -> None:
        """A part of the body was written: on to the next state."""
        if more:
            self.state = BODY
        elif self.trailers:
            self.state = TRAILERS
        else:
            self.complete()

    def informational(self, kind: str, message: Message) -> None:
        """A 103 from the standard extension, or gunicorn's own informational message (RFC 8297)."""
        if kind == "http.response.early_hint":
            status, headers = 103, [(b"link", link) for link in message.get("links", ())]
        else:
            status, headers = message.get("status", 103), without_length(field_list(message))
            if not isinstance(status, int) or not 100 <= status < 200 or status == 101:
                raise InvalidMessage(f"an informational status is 100 or from 102 to 199, not {status!r}")
        block, _, _ = encode_fields(headers)
        # Not to HTTP/1.0 (RFC 9110 15.2), and after the head a hint is too late (checklist X15).
        if not self.http10 and self.state is not BODY:
            if status == 100:
                self.expect_continue = False  # the client has been told to go on
            self.transport.write(status_line(status) + block + b"\r\n")

    def send_trailers(self, message: Message) -> None:
        block = encode_trailers(message.get("headers", ()))
        if self.chunked and self.takes_trailers:  # RFC 9110 6.5.1: only to a client that asked for them
            self.head += block
        if message.get("more_trailers", False):
            return
        if self.chunked:
            self.transport.write(b"0\r\n%b\r\n" % self.head)
        self.head = b""
        self.complete()
