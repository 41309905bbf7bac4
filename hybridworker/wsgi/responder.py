"""
WSGIResponder: one WSGI call, its environ, start_response(), write() and the body that it returns (PEP 3333).

:class:`~.middleware.WSGIMiddleware` makes one for each request, and a thread of :class:`~.threads.ThreadPool`
runs it:

    loop side      __call__: request body -> submit -> deliver
    thread side    run: environ -> application -> items -> close()

How the two sides meet stands in :mod:`.handoff`, what PEP 3333 says of values in
:mod:`.wsgi.validation`.

Invariant: no reference cycle is made per request (environ, scope, context and responder easily
make one). A cycle keeps memory until the garbage collector runs.
"""

from __future__ import annotations

import contextvars
import io
import os
import stat
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Protocol

from asgiref.wsgi import WsgiToAsgiInstance

from ..asgi import MOUNT, TRAILERS, WAITED, Headers, Hooks, Message, Receive, Scope, Send, WSGIApp, request_label
from ..callcontext import VARIABLES
from ..errors import ConfigurationError, WSGIError, caused_by_disconnect
from ..identity import REQUEST_ID, current
from .clientsocket import ENVIRON_KEY, SOCKET
from .commonenviron import CommonEnvirons
from .environ import mount_environ
from .handoff import JOIN_MAX, READ, ROOM, Handoff, Pool
from .spool import AHEAD_MAX, Disk
from .streams import BLOCK, WHOLE_BODY_MAX, FileWrapper, RequestBody
from .validation import START_RESPONSE, encode_fields, encode_status, iterate, length_field, statuses

_BODY_FIELDS = frozenset({b"content-length", b"transfer-encoding"})

#: Takes the place of a scope that nobody needs any more.
_NO_SCOPE: Scope = {"method": "-", "hybridworker.target": b"-"}

#: What a report says of a call that has failed.
_KEPT = ("method", "hybridworker.target", REQUEST_ID)

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Served(Protocol):
    """What is served, and what its calls have in common: a :class:`~.middleware.WSGIMiddleware`."""

    wsgi_application: WSGIApp
    environs: CommonEnvirons
    hooks: Hooks | None
    disk: Disk | None
    script_name: str
    part: str
    lane: int
    sendfile: bool

    @property
    def pool(self) -> Pool:
        """The threads that run the calls."""

    def request_environ(self, scope: Scope, script_name: str, base: dict[str, Any], /) -> dict[str, Any]:
        """A copy of ``base``, completed by what ``scope`` says."""


class WSGIResponder(Handoff, WsgiToAsgiInstance):
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

    ``gunicorn.socket`` is in the environ of a request for a WebSocket only. It is a
    :class:`~.clientsocket.ClientSocket`: the loop alone reads and writes the connection.
    """

    __slots__ = ("body", "middleware", "scope")

    body: io.BytesIO | io.BufferedReader
    scope: Scope

    def __init__(self, middleware: Served) -> None:
        Handoff.__init__(self, middleware.pool)
        self.middleware = middleware

    @property
    def label(self) -> str:
        """Method, target and part, for reports."""
        return request_label(self.scope["method"], self.scope, self.middleware.part)

    @property
    def lane(self) -> int:
        """Under which number the pool counts the call."""
        return self.middleware.lane

    @property
    def disk(self) -> Disk | None:
        return self.middleware.disk

    @property
    def lasting(self) -> bool:
        """Whether it serves a WebSocket, which may take as long as it likes."""
        return SOCKET in self.scope and self.scope[SOCKET].used

    # -- what the hooks are shown

    @property
    def status(self) -> int | None:
        if self.lost:
            return 504
        return None if self.start is None else self.start["status"]

    @property
    def reason(self) -> bytes | None:
        return None if self.start is None else self.start.get("hybridworker.reason")

    @property
    def headers(self) -> Headers:
        return [] if self.start is None else self.start["headers"]

    # -- loop side

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve ``scope``. Raises what the application raised, and what ``send`` and ``receive`` raise."""
        if self.begun:
            return self.deliver(receive, send)
        if scope["type"] != "http":
            raise ValueError(f"a WSGI application serves http, not {scope['type']}")
        self.scope = scope
        for name, _ in scope["headers"]:
            if name in _BODY_FIELDS:
                return self._call_with_body(receive, send)
        if scope["http_version"] == "2":  # a body needs no field there, and one that is complete does not come here
            return self._call_with_body(receive, send)
        self.body = io.BytesIO()
        return self.deliver(receive, send)

    async def _call_with_body(self, receive: Receive, send: Send) -> None:
        """Begin with all of the body if it is short and need not be asked for, else let it be read as it comes."""
        fields = dict(self.scope["headers"])
        message = None
        self.expects = b"expect" in fields
        if b"content-length" in fields and b"transfer-encoding" not in fields and not self.expects:
            if int(fields[b"content-length"]) <= WHOLE_BODY_MAX:
                message = await receive()
        if message is not None and message["type"] == "http.request" and not message.get("more_body", False):
            self.body = io.BytesIO(message.get("body", b""))
        else:
            self.unread = message is None or message.get("more_body", False)
            self.body = io.BufferedReader(RequestBody(self._receive, message), BLOCK)
        await self.deliver(receive, send)

    @property
    def delay(self) -> float:
        """Seconds that the request had waited before it came to this worker."""
        delay: float = self.scope.get(WAITED, 0.0)
        return delay

    def drop(self) -> None:
        """As :meth:`Handoff.drop`, and the call refers to itself no more."""
        super().drop()
        del self.body

    def cancel(self) -> bool:
        """As :meth:`Handoff.cancel`, and a call that never runs refers to itself no more."""
        queued = super().cancel()
        if queued:
            del self.body
        return queued

    # -- thread side

    def run(self, variables: contextvars.Context) -> None:
        """Call the application and hand over what it produces. Raises nothing."""
        scope, body, hooks = self.scope, self.body, self.middleware.hooks
        del self.body  # it refers to this call
        scope[VARIABLES] = variables
        token = current.set(scope[REQUEST_ID]) if REQUEST_ID in scope else None
        try:
            if hooks is None:
                self._serve(self.build_environ(scope, body))
            else:
                self._serve_hooked(hooks, scope, body)
        except BaseException as exc:
            if SOCKET in scope:
                exc = scope[SOCKET].excused(exc)
            if scope[VARIABLES] is variables:
                scope[VARIABLES] = variables.copy()
            self.error, self.variables = exc, scope[VARIABLES]
            self.scope = {name: scope[name] for name in _KEPT if name in scope}
        else:
            self.scope = _NO_SCOPE  # it has the environ, which refers to this call
        if token is not None:
            current.reset(token)
        self.ended = True

    def _serve_hooked(self, hooks: Hooks, scope: Scope, body: Any) -> None:
        view = hooks.before(scope)
        environ = None
        try:
            environ = self.build_environ(scope, body)
            self._serve(environ)
        finally:
            self.unread = False  # the hook does not read on, and comes after the response
            if self.final:
                self.post()
            hooks.after(view, environ, self)

    def build_environ(self, scope: Scope, body: Any) -> dict[str, Any]:
        """The environ of ``scope``, which keeps it for the access log."""
        middleware = self.middleware
        version = scope["http_version"]
        common = middleware.environs[scope["server"], scope["scheme"], version]
        environ = middleware.request_environ(scope, middleware.script_name, common)
        if "SCRIPT_NAME" not in environ:
            script_name = environ.get("HTTP_SCRIPT_NAME", middleware.script_name)
            raise ConfigurationError(f"the path {scope['raw_path']!r} is not below SCRIPT_NAME {script_name!r}")
        if middleware.part and MOUNT in scope:
            mount_environ(environ, scope["raw_path"], scope[MOUNT])
        environ["wsgi.input"] = body
        environ["wsgi.early_hints"] = self.early_hints
        if version == "2":
            environ["gunicorn.http2.send_trailers"] = self.send_trailers
        if SOCKET in scope:
            environ[ENVIRON_KEY] = scope[SOCKET]
        scope["hybridworker.environ"] = environ
        return environ

    def _serve(self, environ: dict[str, Any]) -> None:
        """Call the application, take what it returns, and close that."""
        iterable = self.middleware.wsgi_application(environ, self.start_response)
        if type(iterable) is list or type(iterable) is tuple:
            # All of it is here: nothing comes late, nothing has to be closed, and its size is known.
            if len(iterable) == 1 and self._take_whole(iterable[0]):
                return
            whole = not self.started
            if whole and (len(iterable) > 1 or (iterable and len(iterable[0]) > JOIN_MAX)):
                self._measure(iterable)
            for item in iterable:
                if type(item) is not bytes or self.start is None:
                    self._check(item)
                if item:
                    self.put(item)
            self._finish(self.sent if whole else None)
            return
        # PEP 3333, "The Server/Gateway Side": whether the request was completed or not.
        close = getattr(iterable, "close", None)
        try:
            if not isinstance(iterable, FileWrapper) or not self._hand_over(iterable.filelike):
                for item in iterate(iterable):
                    if self.final and item:
                        break  # nothing more fits
                    self.write(item)
            self._finish(None if self.started else 0)
            self.post()
        except BaseException:
            self._keep_variables()
            if close is not None:
                try:
                    close()
                except BaseException as exc:
                    # An error of its own comes with that of the iteration, but a disconnect would hide that.
                    if not caused_by_disconnect(exc):
                        raise
            raise
        if close is not None:
            close()

    def _take_whole(self, body: Any) -> bool:
        """Hand over all of a short body, as most responses have; False where that needs a closer look."""
        start = self.start
        if type(body) is not bytes or start is None or self.started or self.bodiless or self.gone:
            return False
        size = len(body)
        if not 0 < size <= JOIN_MAX:
            return False
        if self.length is None:
            start["headers"].append(length_field(size))
        elif self.length != size:
            return False
        self.outbox.append(body)
        self.sent = size
        self.scope[VARIABLES] = contextvars.copy_context()  # see _keep_variables
        self.started = self.final = True
        return True

    def _measure(self, items: list[bytes] | tuple[bytes, ...]) -> None:
        """Announce the length of a body that may not fit into memory: its head then goes out before its end is here."""
        start = self.start
        if start is not None and self.length is None and not self.bodiless and set(map(type, items)) == {bytes}:
            self.length = sum(map(len, items))
            start["headers"].append(length_field(self.length))

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """PEP 3333, "The start_response() Callable". Returns :meth:`write`."""
        if self.lost:
            raise self._too_late()
        if exc_info:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # breaks the reference cycle with the traceback
        elif self.start is not None:
            raise WSGIError(f"start_response() was called again without exc_info ({START_RESPONSE})")
        try:
            code, reason = statuses[status]
        except (KeyError, TypeError):
            code, reason = encode_status(status)
        fields, self.length = encode_fields(headers)
        start: Message = {"type": "http.response.start", "status": code, "headers": fields}
        if reason is not None:
            start["hybridworker.reason"] = reason
        self.bodiless = code == 204 or code == 304 or self.scope["method"] == "HEAD"
        self.start = start
        return self.write

    def write(self, data: bytes) -> None:
        """PEP 3333, "The write() Callable". Raises :class:`~.errors.ClientDisconnected`, an OSError."""
        if type(data) is not bytes or self.start is None:
            self._check(data)
        if data:
            self.put(data)
            self.post()
            if self.sent - self.taken > AHEAD_MAX and not self.final and self.spool is None:
                self.ask(ROOM)

    def early_hints(self, headers: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        """``wsgi.early_hints``: send a 103 (RFC 8297). Does nothing for HTTP/1.0, and after the head."""
        if self.started or self.scope.get("http_version", "1.0") == "1.0":  # there is none when the call has ended
            return
        fields, _ = encode_fields((_text(name), _text(value)) for name, value in headers)
        hint: Message = {"type": "http.response.informational", "status": 103, "headers": fields}
        if self.hints is None:
            self.hints = [hint]
        else:
            self.hints.append(hint)
        self.post()

    def send_trailers(self, trailers: Iterable[tuple[str, str]]) -> None:
        """``gunicorn.http2.send_trailers``: send these behind the body. The last call counts; the end is too late."""
        fields, length = encode_fields(trailers)
        if length is not None:
            raise WSGIError("Content-Length cannot be a trailer (RFC 9110 6.5.1)")
        self.scope[TRAILERS] = fields

    def _check(self, item: Any) -> None:
        """Refuse an item that is no bytes, and output that has no head."""
        if not isinstance(item, bytes):
            raise WSGIError(f'the application produced {type(item).__name__}, not bytes (PEP 3333, "Unicode Issues")')
        if item and self.start is None:
            raise WSGIError(f"output came before start_response() was called ({START_RESPONSE})")

    def _finish(self, size: int | None) -> None:
        """The body is complete; ``size`` is the number of its bytes, if that is known before the head is out."""
        start = self.start
        if start is None:
            raise WSGIError(f"start_response() was never called ({START_RESPONSE})")
        if size is not None and self.length is None and not self.bodiless:
            start["headers"].append(length_field(size))
        self._keep_variables()
        self.started = self.final = True

    def _keep_variables(self) -> None:
        """Keep for the log what close(), ``post_request`` and the next call of the thread will change."""
        self.scope[VARIABLES] = contextvars.copy_context()

    def _hand_over(self, filelike: Any) -> bool:
        """Let the loop send the rest of a real file; False where the file has to be read."""
        start = self.start
        if start is None or self.bodiless or self.final or not self.middleware.sendfile:
            return False
        if isinstance(filelike, io.IOBase) and not isinstance(getattr(filelike, "raw", filelike), io.FileIO):
            return False  # what it reads is not what its descriptor reads: gzip, text
        try:
            offset = filelike.tell()
            status = os.fstat(filelike.fileno())
        except (AttributeError, OSError):
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        if status.st_size == 0:
            return False  # those of /proc have content all the same
        count = max(0, status.st_size - offset)
        if self.length is not None:
            count = min(count, self.length - self.sent)
        elif not self.started:
            start["headers"].append(length_field(count))
        self.started = True
        if count:
            # A duplicate, because close() is called long before a slow client has everything.
            file = io.FileIO(os.dup(filelike.fileno()))
            self.file = {"type": "http.response.zerocopysend", "file": file, "offset": offset, "count": count}
            self.sent += count
        return True

    def _receive(self) -> Message:
        return self.ask(READ)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
