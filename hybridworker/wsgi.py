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

# What applications say again and again, encoded. Bounded, because they may also invent it at run time.
_CACHE_MAX = 1024
_statuses: dict[str, tuple[int, bytes | None]] = {}
_names: dict[str, bytes] = {}  # b"" is a field that is dropped

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
        """Serve ``scope``; raises what the application raised."""
        if scope["type"] != "http":
            raise ValueError(f"a WSGI application serves http, not {scope['type']}")
        self.scope: Scope = scope
        self.body: io.BytesIO | io.BufferedReader = await self._open_body(receive)
        self.context = contextvars.copy_context()
        pool = self.middleware.pool
        self.future = pool.loop.create_future()
        pool.submit(self)
        try:
            await self.future
            if self.ended and self.error is None and self.file is None and not self.hints and len(self.outbox) < 2:
                # The whole response at once, as most are. What follows is the same, for all others.
                body = self.outbox[0] if self.outbox else b""
                await send(self.start)
                await send({"type": "http.response.body", "body": body, "more_body": False})
            else:
                await self._relay(receive, send)
        except BaseException:
            pool.cancel(self)
            raise
        finally:
            self.gone = True
            self.future = None
            self._refuse()
