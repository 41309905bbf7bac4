"""
HTTP2Cycle: a response as HTTP/2 frames.

The sibling of :class:`~.http11.cycle.HTTP11Cycle`: it checks what the application sends, holds the head back until
the first part of the body comes, and gives both to the outbox of its connection. Files are read here in
portions. Event loop side only.

Invariant: a message is checked before anything of it is sent, because that cannot be taken back.
"""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Generator
from typing import Any, Protocol

from ..application.application import Application
from ..asgi import TRAILERS, Message, Scope, logged_target
from ..connection.context import WorkerContext
from ..connection.cycle import RequestResponseCycle
from ..connection.errorpages import error_page
from ..connection.files import became_shorter
from ..connection.response import (
    CLOSE,
    DATE,
    SERVER,
    as_bytes,
    encode_trailers,
    field_list,
    final_status,
    interim,
    without_length,
    wrong_length,
)
from ..connection.sendfile import FilePart, read_some
from ..errors import ClientDisconnected
from ..states import RequestState, ResponseState
from .framereader import FrameReader
from .outbox import Outbox
from .response import default_block, defaults, encode_fields, error_block, status_field, statuses
from .stream import Stream
from .wire import INTERNAL_ERROR

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
FILE, COMPLETE, DONE = ResponseState.FILE, ResponseState.COMPLETE, RequestState.DONE

#: Bytes of a file that are read at once.
PORTION = 64 * 1024

CONTINUE = status_field(100)

#: The code of the coroutine that a cycle runs as its task.
_RUN = RequestResponseCycle.run.__code__


class HTTP2Connection(Protocol):
    """What a cycle needs of its connection, an :class:`~.http2.protocol.HTTP2Protocol`."""

    begun: list[Stream]  #: requests that wait for the end of other calls
    context: WorkerContext
    outbox: Outbox
    reader: FrameReader

    def answered(self, stream: Stream) -> None:
        """The last byte of the response was given to the outbox."""

    def body_wanted(self, stream: Stream) -> None:
        """The application waits for bytes of the body that have not come."""

    def call_over(self, stream: Stream) -> None:
        """The call of the application has ended."""

    def cut(self, stream: Stream, code: int) -> None:
        """Reset the stream."""

    def retire(self) -> None:
        """Open no further streams: the application, or the worker, wants to be left."""


class HTTP2Cycle(RequestResponseCycle):
    """One request and its response on a stream of HTTP/2."""

    __slots__ = ("connection", "head", "stream")

    def __init__(
        self, connection: HTTP2Connection, application: Application, stream: Stream, scope: Scope, request: RequestState
    ) -> None:
        # Here and below without super(), which looks a method up each time.
        RequestResponseCycle.__init__(self, connection.context, application, stream, scope, request)
        self.connection = connection
        self.stream = stream
        self.head = b""  #: until it is sent; then the trailers

    # -- the response

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
        if seen & CLOSE or not context.persistence.keep_alive:
            self.connection.retire()
        if self.method == "HEAD" or status == 204 or status == 304:
            self.bodiless = True
        elif length is not None:
            self.remaining = length
        else:
            self.headers = headers  # should the worker have to end it
        if len(message) > 3 or "headers" not in message:  # not what most applications send: type, status, headers
            self.reason = message.get("hybridworker.reason")
            self.trailers = bool(message.get("trailers", False))
        default = None if seen & (DATE | SERVER) else defaults.get(context.clock.fields)
        if default is None:
            default = default_block(context.clock.fields, seen)
        self.head = (statuses.get(status) or status_field(status)) + default + block
        self.status = status
        self.state = STARTED

    def body(self, body: Any, more: bool) -> None:
        if type(body) is not bytes:
            body = as_bytes(body)
        size = len(body)
        remaining = self.remaining
        if remaining is not None:
            if size > remaining or (not more and size < remaining):
                raise wrong_length(size, remaining)
            self.remaining = remaining - size
            self.sent += size
        elif self.bodiless:
            body = b""
        else:
            self.sent += size
        head, self.head = self.head, b""
        if not more and self.application.threaded and TRAILERS in self.scope:
            self._end_with_trailers(head, body)
            return
        final = not more and (not self.trailers or self.bodiless)
        outbox = self.connection.outbox
        outbox.send(self.stream, head, body, final, final and outbox.joining and self._joins())
        if more or self.trailers:
            self.body_sent(more)
        else:
            self.complete()  # what `body_sent` does, without the call

    def _end_with_trailers(self, head: bytes, body: bytes) -> None:
        """Send the last part of a body, and the trailers that a WSGI application has left."""
        self.trailers = True
        block = encode_trailers(self.scope[TRAILERS], encode_fields)
        self.connection.outbox.send(self.stream, head, body, self.bodiless)
        self.state = ResponseState.TRAILERS
        self.head = block
        self.send_trailers({})

    def _joins(self) -> bool:
        """
        Whether no code of this request runs until the outbox is written.

        There is none where a WSGI call is over, and :meth:`settle` suspends the task of the request. But a task of
        the application's own may leave the one that has made it running.
        """
        task = asyncio.current_task()
        return task is None or getattr(task.get_coro(), "cr_code", None) is _RUN

    def informational(self, kind: str, message: Message) -> None:
        """A 103 from the standard extension, or gunicorn's own informational message (RFC 8297)."""
        status, headers = interim(kind, message)
        block, _, _ = encode_fields(headers)
        if self.state is not BODY:  # after the head a hint is too late (checklist X15)
            if status == 100:
                self.expect_continue = False  # the client has been told to go on
            self.connection.outbox.section(self.stream, status_field(status) + block)

    def send_trailers(self, message: Message) -> None:
        self.head += encode_trailers(message.get("headers", ()), encode_fields)
        if message.get("more_trailers", False):
            return
        block, self.head = self.head, b""
        if self.bodiless:
            pass  # its end is sent
        elif block:
            self.connection.outbox.section(self.stream, block, final=True)
        else:
            self.connection.outbox.send(self.stream, b"", b"", True)
        self.complete()

    # -- files

    async def send_part(self, part: FilePart, more: bool) -> None:
        """In portions: the frames of other streams go between them."""
        outbox, stream, announced = self.connection.outbox, self.stream, part.count
        trailers = self.trailers or TRAILERS in self.scope
        while part.count:
            data = await read_some(part, PORTION)
            if not data:
                raise became_shorter(part, announced)
            if stream.lost or self.state is not FILE:
                raise ClientDisconnected("the client disconnected")
            head, self.head = self.head, b""
            if head and self.context.durations is not None:
                self.first_byte()
            outbox.send(stream, head, data, not part.count and not more and not trailers)
            self.sent += len(data)
            if stream.write_paused:
                await stream.drain()
        if self.remaining is not None:
            self.remaining -= announced
        if trailers and not self.trailers and not more:
            self._end_with_trailers(b"", b"")
        else:
            self.body_sent(more)

    # -- the request, and the end

    def _take(self) -> bytes:
        size = self.buffered
        if not size:
            self.delivered = self.request is DONE
            return b""
        body = RequestResponseCycle._take(self)
        self.connection.reader.credit(self.stream, size)
        return body

    @property
    def incoming(self) -> bool:
        stream = self.stream
        return super().incoming and not self.expect_continue and stream.deadline < math.inf and stream.window > 0

    def body_wanted(self) -> None:
        if self.expect_continue and self.state is WAITING:
            self.expect_continue = False
            self.connection.outbox.section(self.stream, CONTINUE)
        self.connection.body_wanted(self.stream)

    @types.coroutine
    def settle(self) -> Generator[Any, None, None]:  # `async` would take one coroutine more
        if self.state is not COMPLETE:
            yield from self.stream.drain().__await__()
        elif not self.stream.size:  # its last message waits in the outbox, which is written before the next turn
            yield

    def error(self, status: int) -> None:
        page = error_page(status)
        block = error_block(status, self.context.clock.fields, len(page), self.headers)
        self.connection.outbox.send(self.stream, block, b"" if self.method == "HEAD" else page, True, True)

    def finished(self) -> None:
        if self.buffered:
            self.connection.answered(self.stream)

    def abort(self) -> None:
        self.connection.cut(self.stream, INTERNAL_ERROR)

    def _answered(self) -> None:
        outbox = self.connection.outbox
        outbox.defer()
        outbox.joining = True
        RequestResponseCycle._answered(self)
        outbox.joining = False

    def _over(self) -> None:
        RequestResponseCycle._over(self)
        stream = self.stream
        if stream.lingers or stream.lost or self.connection.begun:
            self.connection.call_over(stream)


def label(cycle: RequestResponseCycle) -> str:
    """Method and target, for a reason in words."""
    return f"{cycle.method} {logged_target(cycle.scope)}"
