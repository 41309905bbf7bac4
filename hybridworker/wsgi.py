"""
WSGI on ASGI: asgiref's ``WsgiToAsgi``, until it keeps PEP 3333.

:class:`WSGIMiddleware` is the ASGI application of a worker that serves WSGI. For each
request it makes a :class:`WSGIResponder`, which has its application called by a thread of
:class:`~.threads.ThreadPool` and carries body and response across the border:

    loop side      __call__: submit -> wait for wake() -> send(start), send(body); receive() when asked
    thread side    run: environ -> application -> write -> outbox, final, ended -> post

Neither side takes a lock: each field has one writer, what the thread produces is appended
to ``outbox``, and what it needs it asks for and finds in ``inbox``. The rule one could
break by accident: the thread fills ``outbox`` before it sets ``final``, and that before
``ended``; the loop reads them in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol

from asgiref.wsgi import WsgiToAsgi, WsgiToAsgiInstance

from .asgi import Headers, Message, Receive, Scope, Send, WSGIApp
from .environ import request_environ
from .errors import ClientDisconnected, ConfigurationError, WSGIError, caused_by_disconnect
from .settings import Settings
from .threads import ThreadPool

#: Bytes of response that may wait for the client before the thread waits too: a slow reader of less holds no thread.
AHEAD_MAX = 1024 * 1024

#: Bytes of response that are joined to one message.
JOIN_MAX = 65536

#: A request body of at most this many bytes is complete before the application is called.
WHOLE_BODY_MAX = 65536

#: What a thread asks the loop for: the next message of the request; that the outbox be emptied.
READ, ROOM = "read", "room"

#: Three digits, then perhaps a space and a reason phrase (RFC 9112 4, PEP 3333).
STATUS = re.compile(r"([0-9]{3})(?: ([ \t\x21-\x7e\x80-\xff]*))?")

#: RFC 9110 5.6.2 and 5.5.
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

#: Not the application's business (PEP 3333, "Other HTTP Features"): dropped, as gunicorn does, and Date and Server
#: with them. Connection is not here, because its "close" is obeyed; the server writes the field itself.
HOP_BY_HOP = frozenset(
    "keep-alive proxy-authenticate proxy-authorization te trailers transfer-encoding upgrade server date".split()
)

HEADERS = 'PEP 3333, "The start_response() Callable"'

_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# What applications say again and again, encoded. Bounded, because they may also invent it at run time.
_CACHE_MAX = 1024
_statuses: dict[str, tuple[int, bytes | None]] = {}
_names: dict[str, bytes] = {}  # b"" is a field that is dropped

BODY_FIELDS = frozenset({b"content-length", b"transfer-encoding"})

_YES: Message = {}

#: Takes the place of a scope that is no longer needed.
_NO_SCOPE: Scope = {"method": "-", "path": "-"}

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ErrorStream(Protocol):
    """What ``wsgi.errors`` must offer (PEP 3333, "Input and Error Streams")."""

    def write(self, text: str, /) -> Any: ...
    def writelines(self, lines: Any, /) -> Any: ...
    def flush(self) -> Any: ...


class RequestHooks(Protocol):
    """gunicorn's ``pre_request`` and ``post_request``; called in the thread, in the context of the call."""

    def before(self, scope: Scope) -> Any:
        """Before anything is made of ``scope``. An exception is a 500; :meth:`after` is not called then."""

    def after(self, view: Any, environ: dict[str, Any] | None, response: Any) -> None:
        """
        After the response, or its failure.

        ``view`` is what :meth:`before` returned, ``environ`` is None where it could not be
        made, ``response`` has ``status``, ``headers`` and ``sent``.
        """


class FileWrapper:
    """``wsgi.file_wrapper`` (PEP 3333, "Optional Platform-Specific File Handling"): a file as an iterable."""

    def __init__(self, filelike: Any, blksize: int = JOIN_MAX) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


class RequestBody(io.RawIOBase):
    """A request body that is still coming; ``wsgi.input`` is an :class:`io.BufferedReader` of it. Thread side."""

    def __init__(self, responder: WSGIResponder, first: Message | None) -> None:
        self.responder = responder
        self.message = first
        self.data = memoryview(b"")
        self.more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self.data:
            self.data = memoryview(self._receive())
        size = min(len(buffer), len(self.data))
        buffer[:size] = self.data[:size]
        self.data = self.data[size:]
        return size

    def readall(self) -> bytes:
        rest, self.data = self.data, memoryview(b"")
        return b"".join([rest, *iter(self._receive, b"")])

    def _receive(self) -> bytes:
        """Wait for the next bytes; none at the end. Raises ClientDisconnected where the body is cut."""
        while self.more:
            message, self.message = self.message, None
            if message is None:
                message = self.responder.ask(READ)
            if message["type"] != "http.request":
                raise ClientDisconnected("the client disconnected before its request was complete")
            self.more = message.get("more_body", False)
            body: bytes = message.get("body", b"")
            if body:
                return body
        return b""


class WSGIMiddleware(WsgiToAsgi):
    """
    The ASGI 3 application that serves a WSGI application.

    Of ``WsgiToAsgi`` the shape is left: made of a WSGI application, it makes one
    :class:`WSGIResponder` per request. Replaced are its one global thread (by ``pool``),
    its limit of equal header names (the server has limits of its own) and the constant
    part of the environ, which is made here, once.

    ``errors`` is read at each call and may be replaced at any time.
    """

    def __init__(
        self,
        wsgi_application: WSGIApp,
        settings: Settings,
        pool: ThreadPool,
        *,
        errors: ErrorStream,
        server_software: str,
        hooks: RequestHooks | None = None,
    ) -> None:
        super().__init__(wsgi_application)
        self.pool = pool
        self.errors = errors
        self.hooks = hooks
        self.script_name = settings.script_name
        #: Not under TLS: there the bytes have to be encrypted on their way.
        self.sendfile = settings.sendfile and not settings.is_ssl
        self.environ: dict[str, Any] = {
            "SERVER_SOFTWARE": server_software,
            "wsgi.version": (1, 0),
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": settings.workers > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await WSGIResponder(self)(scope, receive, send)


class WSGIResponder(WsgiToAsgiInstance):
    """
    One WSGI call and its response.

    Of the original's methods the names are left, because of what they do there:

    * ``__call__`` collects the whole body, on disk above 64 KiB, before the application
      starts, and takes a client that leaves for an error;
    * ``build_environ`` loses what is not UTF-8 in the path, RAW_URI, REMOTE_PORT,
      ``wsgi.input_terminated`` and most of what else gunicorn gives;
    * ``start_response`` returns no ``write()``, refuses latin-1 values and a status without
      a reason phrase, loses any other phrase, and lets hop-by-hop fields through;
    * ``run_wsgi_app`` (here :meth:`run`) never calls ``close()``, sends the head with an
      empty item, looks at no type, and crosses to the loop and back for every item.

    ``gunicorn.socket`` is not in the environ: the loop reads and writes the connection, and
    a thread that did so as well would corrupt it.
    """

    __slots__ = (
        # made by the loop before the call
        "middleware",
        "scope",
        "context",
        "body",
        # written by the thread
        "bodiless",
        "ended",
        "error",
        "file",
        "final",
        "hints",
        "length",
        "outbox",
        "sent",
        "start",
        "started",
        "status",
        # written by the loop
        "future",
        "gone",
        "missed",
        "taken",
        # questions and answers: set by one side, cleared by the other
        "asked",
        "inbox",
        "posted",
    )

    def __init__(self, middleware: WSGIMiddleware) -> None:
        self.middleware = middleware
        self.bodiless = False  #: nothing follows the head: HEAD, 204, 304
        self.ended = False  #: the call is over
        self.error: BaseException | None = None
        self.file: Message | None = None  #: the message for a file that ends the body
        self.final = False  #: the outbox, and the file, hold the rest of the response
        self.hints: list[Message] = []
        self.length: int | None = None  #: announced Content-Length
        self.outbox: list[bytes] = []
        self.sent = 0  #: bytes of body that went into the outbox
        self.start: Message | None = None
        self.started = False  #: the head can no longer be changed
        self.status: str | None = None
        self.future: asyncio.Future[None] | None = None
        self.gone = False  #: nobody takes anything any more
        self.missed = False  #: wake() came while nobody waited for it
        self.taken = 0  #: bytes of ``sent`` that the connection has taken
        self.asked: str | None = None
        self.inbox: SimpleQueue[Message | None] | None = None
        self.posted = False

    @property
    def label(self) -> str:
        """Method and path, for reports."""
        return f"{self.scope['method']} {self.scope['path']}"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response fields, for the hooks."""
        fields = self.start["headers"] if self.start is not None else []
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]

    # -- loop side

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve ``scope``. Raises what the application raised, and what ``send`` and ``receive`` raise."""
        if scope["type"] != "http":
            raise ValueError(f"a WSGI application serves http, not {scope['type']}")
        self.scope: Scope = scope
        self.body: io.BytesIO | io.BufferedReader
        for name, _ in scope["headers"]:
            if name in BODY_FIELDS:
                self.body = await self._open_body(receive)
                break
        else:
            self.body = io.BytesIO()
        self.context = contextvars.copy_context()
        pool = self.middleware.pool
        self.future = pool.loop.create_future()
        pool.submit(self)
        try:
            await self.future
            if self.ended and self.error is None and not self.hints and self.sent <= JOIN_MAX and self.file is None:
                # All of the response at once, as it mostly is. _relay would do the same, more slowly.
                await send(self.start)  # type: ignore[arg-type]  # there is one, since the call ended well
                await send({"type": "http.response.body", "body": b"".join(self.outbox), "more_body": False})
            else:
                await self._relay(receive, send)
        except BaseException:
            pool.cancel(self)
            self.gone = True
            self._dismiss()
            raise
        finally:
            self.gone = True

    def wake(self) -> None:
        """The thread has posted something, or the call is over."""
        self.posted = False
        future = self.future
        if self.gone:
            self._dismiss()
        elif future is None or future.done():
            self.missed = True
        else:
            future.set_result(None)

    async def _relay(self, receive: Receive, send: Send) -> None:
        """Pass on what the thread produces, and answer what it asks, until the call is over."""
        head_sent = complete = False
        while True:
            self.missed = False
            ended, final = self.ended, self.final
            while self.hints:
                await send(self.hints.pop(0))
            while self.outbox or (final and not complete):
                if not head_sent:
                    head_sent = True
                    await send(self.start)  # type: ignore[arg-type]  # set before the outbox is filled
                body = self._take()
                complete = final and not self.outbox
                if self.file is None or not complete:
                    await send({"type": "http.response.body", "body": body, "more_body": not complete})
                else:
                    await self._send_file(body, send)
                self.taken += len(body)
                if self.asked is ROOM and self.sent - self.taken <= AHEAD_MAX // 2:
                    self._answer(_YES)
            if ended:
                break
            if self.asked is READ:
                self._answer(await receive())
            elif self.asked is ROOM:
                self._answer(_YES)
            if not self.missed:
                self.future = self.middleware.pool.loop.create_future()
                await self.future
        error, self.error = self.error, None
        if error is not None:
            try:
                if isinstance(error, Exception):
                    raise error
                # SystemExit would end the worker, and CancelledError say that the server gave up the request.
                raise WSGIError(f"the application raised {type(error).__name__}") from error
            finally:
                del error

    async def _open_body(self, receive: Receive) -> io.BytesIO | io.BufferedReader:
        """``wsgi.input``: all of the body if it is short and need not be asked for, else as it comes."""
        fields = dict(self.scope["headers"])
        if b"transfer-encoding" in fields or b"expect" in fields or int(fields[b"content-length"]) > WHOLE_BODY_MAX:
            message = None
        else:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                return io.BytesIO(message.get("body", b""))
        return io.BufferedReader(RequestBody(self, message), JOIN_MAX)

    async def _send_file(self, body: bytes, send: Send) -> None:
        message, self.file = self.file, None
        assert message is not None
        with message["file"]:
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send(message)

    def _take(self) -> bytes:
        """The next bytes of the outbox: one item, or several that are short. The thread may be adding to it."""
        outbox = self.outbox
        if len(outbox) == 1:
            return outbox.pop(0)
        size = count = 0
        for item in outbox:
            size += len(item)
            if count and size > JOIN_MAX:
                break
            count += 1
        body = b"".join(outbox[:count])
        del outbox[:count]
        return body

    def _answer(self, answer: Message | None) -> None:
        self.asked = None
        if self.inbox is not None:
            self.inbox.put(answer)

    def _dismiss(self) -> None:
        """The response has ended before the call: whatever the thread asks now, nobody is there."""
        if self.asked is not None:
            self._answer(None)
        if not self.ended:
            return
        if self.file is not None:
            self.file["file"].close()
        error, self.error = self.error, None
        if error is not None and not caused_by_disconnect(error):
            self.middleware.pool.loop.call_exception_handler(
                {"message": f"Error handling request {self.label}, whose client has gone", "exception": error}
            )
        self.scope = _NO_SCOPE

    # -- thread side

    def run(self) -> None:
        """Call the application and hand over what it produces. Raises nothing."""
        middleware = self.middleware
        hooks = middleware.hooks
        del self.context  # what the application left in it may refer to this call
        try:
            if hooks is None:
                self._serve(self.build_environ(self.scope, self.body))
            else:
                self._serve_hooked(hooks)
            self.scope = _NO_SCOPE
        except BaseException as exc:
            self.error = exc
        self.ended = True

    def _serve_hooked(self, hooks: RequestHooks) -> None:
        view = hooks.before(self.scope)
        environ = None
        try:
            environ = self.build_environ(self.scope, self.body)
            self._serve(environ)
        finally:
            if self.final:
                self._post()
            hooks.after(view, environ, self)

    def build_environ(self, scope: Scope, body: Any) -> dict[str, Any]:
        """The environ of ``scope``; also put into it, for the access log."""
        middleware = self.middleware
        environ = request_environ(scope, middleware.script_name)
        if "SCRIPT_NAME" not in environ:
            raise ConfigurationError(
                f"the path {scope['raw_path']!r} does not begin with SCRIPT_NAME"
                f" {environ.get('HTTP_SCRIPT_NAME', middleware.script_name)!r}"
            )
        environ.update(middleware.environ)
        environ["wsgi.url_scheme"] = scope["scheme"]
        environ["wsgi.input"] = body
        environ["wsgi.errors"] = middleware.errors
        environ["wsgi.early_hints"] = self.early_hints
        scope["hybridworker.environ"] = environ
        return environ

    def _serve(self, environ: dict[str, Any]) -> None:
        """Call the application, take what it returns, close it."""
        iterable = self.middleware.wsgi_application(environ, self.start_response)
        if type(iterable) is list or type(iterable) is tuple:
            # All of it is here: nothing comes late, and nothing has to be closed.
            whole = not self.started
            for item in iterable:
                self._push(item)
            self._finish(self.sent if whole else None)
            return
        try:
            if not isinstance(iterable, FileWrapper) or not self._hand_over(iterable.filelike):
                for item in _iterate(iterable):
                    if self.final and item:
                        break  # nothing more fits
                    self.write(item)
            self._finish(None if self.started else 0)
            self._post()
        finally:
            # PEP 3333: however the request ends, close() is called, in the thread that iterates.
            close = getattr(iterable, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333, "The start_response() Callable"."""
        if exc_info:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks the reference cycle with this frame
        elif self.status is not None:
            raise WSGIError("start_response() was called again without exc_info (" + HEADERS + ")")
        known = _statuses.get(status)
        if known is None:
            known = _status(status)
        code, reason = known
        fields, self.length = _encode(headers)
        start: Message = {"type": "http.response.start", "status": code, "headers": fields}
        if reason is not None:
            start["hybridworker.reason"] = reason
        self.bodiless = code == 204 or code == 304 or self.scope["method"] == "HEAD"
        self.status = status
        self.start = start
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333, "The write() Callable". Raises :class:`~.errors.ClientDisconnected`, an OSError."""
        self._push(data)
        if data:
            self._post()
            if self.sent - self.taken > AHEAD_MAX:
                self.ask(ROOM)

    def early_hints(self, headers: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """``wsgi.early_hints``: send a 103 (RFC 8297). Does nothing for HTTP/1.0, and after the head."""
        if self.started or self.scope["http_version"] == "1.0":
            return
        pairs = [tuple(v.decode("latin-1") if isinstance(v, bytes) else v for v in pair) for pair in headers]
        fields, _ = _encode(pairs)
        self.hints.append({"type": "http.response.informational", "status": 103, "headers": fields})
        self._post()

    def ask(self, what: str) -> Message:
        """Wait until the loop has done ``what``. Raises :class:`~.errors.ClientDisconnected`."""
        if self.inbox is None:
            self.inbox = SimpleQueue()
        self.asked = what
        self._post()
        answer = self.inbox.get()
        if answer is None:
            raise ClientDisconnected("the client disconnected")
        return answer

    def _post(self) -> None:
        if not self.posted:
            self.posted = True
            self.middleware.pool.post(self)

    def _push(self, data: bytes) -> None:
        """Put ``data`` into the outbox, or as much of it as the announced length allows."""
        if type(data) is not bytes and not isinstance(data, bytes):
            raise WSGIError(f'the application produced {type(data).__name__}, not bytes (PEP 3333, "Unicode Issues")')
        if not data:
            return
        if self.start is None:
            raise WSGIError("output before start_response() was called (" + HEADERS + ")")
        if self.gone:
            raise ClientDisconnected("the client disconnected")
        self.started = True
        if self.final or self.bodiless:
            self.final = True
            return
        if self.length is not None:
            data = data[: self.length - self.sent]
        self.outbox.append(data)
        self.sent += len(data)
        if self.sent == self.length:
            self.final = True

    def _finish(self, total: int | None) -> None:
        """The body is complete; ``total`` is its size if that was known before the head went out."""
        if self.start is None:
            raise WSGIError("start_response() was not called (" + HEADERS + ")")
        if total is not None and self.length is None and not self.bodiless:
            self.start["headers"].append((b"Content-Length", b"%d" % total))
        self.started = True
        self.final = True

    def _hand_over(self, filelike: Any) -> bool:
        """Have the rest of a real file sent by the loop; False where it has to be read."""
        if not self.middleware.sendfile or self.start is None or self.bodiless or self.final:
            return False
        if isinstance(filelike, io.IOBase) and not isinstance(getattr(filelike, "raw", filelike), io.FileIO):
            return False  # it has a descriptor, but reads something else from it: gzip, text
        try:
            descriptor = filelike.fileno()
            offset = filelike.tell()
            status = os.fstat(descriptor)
        except (AttributeError, OSError):
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        count = max(0, status.st_size - offset)
        if self.length is not None:
            count = min(count, self.length - self.sent)
        elif not self.started:
            self._announce(count)
        if count:
            # A duplicate: the application's file is closed when this call ends, long before a slow client has it all.
            file = io.FileIO(os.dup(descriptor))
            self.file = {"type": "http.response.zerocopysend", "file": file, "offset": offset, "count": count}
            self.sent += count
        self.started = True
        return True

    def _announce(self, length: int) -> None:
        """Give the response a Content-Length that the application has left out."""
        self.length = length
        self.start["headers"].append((b"Content-Length", b"%d" % length))


def _iterate(iterable: Any) -> Iterator[Any]:
    try:
        return iter(iterable)
    except TypeError as exc:
        name = type(iterable).__name__
        raise WSGIError(
            f'the application returned {name}, not an iterable of bytes (PEP 3333, "The Application/Framework Side")'
        ) from exc


def _encode(headers: Iterable[tuple[str, str]]) -> tuple[Headers, int | None]:
    """The fields for an ASGI message, without those that are dropped, and the announced Content-Length."""
    fields = []
    length = None
    for name, value in headers:
        encoded = _names.get(name)
        if encoded is None:
            encoded = _name(name)
        if not encoded:
            continue
        # Nearly every value is printable, and that is known sooner than that it matches.
        if not isinstance(value, str) or not (value.isprintable() or VALUE.fullmatch(value)):
            # The name only: the value may be a secret.
            raise WSGIError(f"the value of {name} is not a str, or has control characters ({HEADERS})")
        try:
            field = value.encode("latin-1").strip(b" \t")
        except UnicodeEncodeError:
            raise WSGIError(f"the value of {name} is not latin-1 ({HEADERS})") from None
        if len(encoded) == 14 and encoded.lower() == b"content-length":
            if not field.isdigit():
                raise WSGIError(f"the value of {name} is not a number ({HEADERS})")
            length = int(field)
        fields.append((encoded, field))
    return fields, length


def _name(name: str) -> bytes:
    """The bytes of a field name; none for a field that is dropped."""
    if not isinstance(name, str) or TOKEN.fullmatch(name) is None:
        raise WSGIError(f"{name!r} is not a header name ({HEADERS})")
    encoded = b"" if name.lower() in HOP_BY_HOP else name.encode("ascii")
    if len(_names) < _CACHE_MAX:
        _names[name] = encoded
    return encoded


def _status(status: str) -> tuple[int, bytes | None]:
    """The code of a status, and its reason phrase unless that is the registered one."""
    match = STATUS.fullmatch(status) if isinstance(status, str) else None
    if match is None:
        raise WSGIError(f"{status!r} is not a status like '200 OK' ({HEADERS})")
    code, reason = int(match[1]), match[2]
    phrase = _PHRASES.get(code)
    known = (code, None if reason == phrase else (reason or "").encode("latin-1"))
    if len(_statuses) < _CACHE_MAX:
        _statuses[status] = known
    return known
