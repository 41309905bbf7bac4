"""
HTTP11Cycle: a response as the bytes of HTTP/1.1.

It checks what the application sends, chooses the framing, keeps the head back until the first
part of the body comes (ASGI HTTP 2.5 allows it, and an error before it is still a clean 500), and
writes head and first part in one call. Files are framed here too; :mod:`.connection.files`
opens them. Event loop side only.

Invariant: a message is checked before anything of it is written, because what was written
cannot be taken back.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any, Protocol

from ..application.application import Application
from ..asgi import Message, Scope
from ..connection.context import WorkerContext
from ..connection.cycle import RequestResponseCycle
from ..connection.errorpages import error_response
from ..connection.files import became_shorter
from ..connection.flow import FlowControl
from ..connection.response import (
    CLOSE,
    FINAL_LINES,
    LAST_CHUNK,
    SERVER_OWN,
    as_bytes,
    encode_fields,
    encode_trailers,
    field_list,
    final_status,
    interim,
    server_fields,
    status_line,
    without_length,
    wrong_length,
)
from ..connection.sendfile import FilePart, send_some, write
from ..errors import ClientDisconnected
from ..states import RequestState, ResponseState

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
DONE = RequestState.DONE

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: The line before a chunk, for the sizes of short ones.
_SIZES = [b"%x\r\n" % size for size in range(1024)]

#: Above this size head and chunk are written as two buffers: copying costs more than the second buffer.
JOIN_MAX = 65536


class Head(Protocol):
    """The head of the request at hand, in whichever form it comes."""

    application: Application  #: what answers the request
    length: int  #: bytes of the body that have not come, where it is known how many there are
    request: RequestState

    @property
    def http10(self) -> bool:
        """Whether the client knows neither chunks nor interim responses."""

    @property
    def bodiless(self) -> bool:
        """Whether no answer to the request has a body, as far as its method is known."""

    def begin(self, data: bytes) -> None:
        """A new head is about to be parsed, of which ``data`` has come."""

    def refused(self) -> Scope | None:
        """What is known of a request that is refused, for the access log."""


class HTTP11Connection(Protocol):
    """What a cycle needs of its connection, a :class:`~.connection.RequestConnection`."""

    context: WorkerContext
    flow: FlowControl
    transport: asyncio.Transport
    persistent: bool  #: the client may send further requests
    deadline: float  #: loop time at which the connection ends, or the body if that is awaited; inf = never

    @property
    def head(self) -> Head:
        """Of the request at hand."""

    def cycle_complete(self, cycle: HTTP11Cycle) -> None:
        """The last byte of the response was written."""

    def body_wanted(self) -> None:
        """The application waits for bytes of the body that have not come."""

    def drainable(self) -> bool:
        """Whether the unread rest of the request is short enough to be read and dropped."""

    def abort(self) -> None:
        """Cut the connection."""


class HTTP11Cycle(RequestResponseCycle):
    """
    One request and its response on a connection of HTTP/1.1.

    ``keep_alive`` is what the request allows until the head is known, and then what was announced.
    """

    __slots__ = (
        "chunked",
        "head",
        "http10",
        "keep_alive",
        "protocol",
        "takes_trailers",
        "transport",
    )

    def __init__(self, protocol: HTTP11Connection, application: Application, scope: Scope) -> None:
        context, head = protocol.context, protocol.head
        super().__init__(context, application, protocol.flow, scope, head.request)
        self.protocol = protocol
        self.transport = protocol.transport
        self.http10 = head.http10
        self.keep_alive = protocol.persistent and context.persistence.keep_alive
        self.takes_trailers = False  #: the client asked for them
        self.chunked = False
        self.head = b""  #: until it is written; then the trailers

    def start_response(self, message: Message) -> None:
        status: Any = message.get("status")
        line = FINAL_LINES.get(status) if type(status) is int else None
        if line is None:
            status = final_status(status)
            line = status_line(status)
        headers = message.get("headers", ())
        context = self.context
        if context.access is not None or self.application.hooks is not None or status == 204:
            self.headers = headers = field_list(message)
            if status == 204:
                headers = without_length(self.headers)
        block, length, seen = encode_fields(headers)
        if seen & CLOSE or not context.persistence.keep_alive:
            self.keep_alive = False
        elif self.keep_alive and self.request is not DONE:
            # RFC 9110 10.1.1: without the 100 the client may or may not send its body.
            self.keep_alive = not self.expect_continue and self.protocol.drainable()
        framing = b""
        if self.method == "HEAD" or status == 204 or status == 304:  # what `bodiless` says, without the call
            self.bodiless = True
        elif length is not None:
            self.remaining = length
        elif self.http10:
            self.headers = headers
            self.keep_alive = False
        else:
            self.headers = headers  # should the worker have to end it
            self.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        if not self.keep_alive:
            framing = b"Connection: close\r\n" + framing
        elif self.http10:
            framing = b"Connection: keep-alive\r\n" + framing
        if len(message) > 3 or "headers" not in message:  # not what most applications send: type, status, headers
            self.reason = message.get("hybridworker.reason")
            self.trailers = bool(message.get("trailers", False))
            if self.reason is not None:
                line = status_line(status, self.reason)
        fields = context.clock.fields
        if seen & SERVER_OWN:  # the application's own win, and there are never two
            fields = server_fields(fields, seen)
        self.head = line + fields + framing + block + b"\r\n"
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
                raise wrong_length(size, self.remaining)
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

    def informational(self, kind: str, message: Message) -> None:
        """A 103 from the standard extension, or gunicorn's own informational message (RFC 8297)."""
        status, headers = interim(kind, message)
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

    # -- files

    async def send_part(self, part: FilePart, more: bool) -> None:
        flow, settings, announced = self.protocol.flow, self.context.settings, part.count
        head, self.head = self.head, b""
        if head and self.context.durations is not None:
            self.first_byte()
        if self.chunked:
            head += b"%x\r\n" % announced
        try:
            write(flow, head)
            while size := await send_some(flow, part, write_timeout=settings.write_timeout, direct=settings.sendfile):
                self.sent += size
            if part.count:
                raise became_shorter(part, announced)
            if self.chunked:
                write(flow, b"\r\n" if more or self.trailers else b"\r\n" + LAST_CHUNK)
        except ClientDisconnected:
            # Found out here: the transport need not notice by itself, or ever.
            flow.abort()
            self.disconnect()
            raise
        if self.remaining is not None:
            self.remaining -= announced
        self.body_sent(more)

    # -- the request, and the end

    @property
    def incoming(self) -> bool:
        return super().incoming and not self.expect_continue and self.protocol.deadline < math.inf

    def body_wanted(self) -> None:
        if self.expect_continue and self.state is WAITING:
            self.expect_continue = False
            self.transport.write(CONTINUE)
        self.protocol.body_wanted()

    def end_of_input(self) -> None:
        super().end_of_input()
        if self.request is RequestState.BODY:
            self.keep_alive = False  # what comes of the body is dropped

    def error(self, status: int) -> None:
        self.keep_alive = False
        extra, _, _ = encode_fields(self.headers)
        self.transport.write(error_response(status, self.context.clock.fields, extra, self.method != "HEAD"))

    def finished(self) -> None:
        self.protocol.cycle_complete(self)

    def abort(self) -> None:
        self.protocol.abort()

    @property
    def unframed(self) -> bool:
        """Whether a body has begun that ends with the connection: only a reset tells the client that it was cut."""
        return self.http10 and self.status > 0 and not self.head and self.remaining is None and not self.bodiless
