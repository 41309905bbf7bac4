"""
WorkerContext: what all connections of a worker share.

The application, the settings, the clock, the lifespan state, and the sets of
connections and of requests in flight. Made once by :mod:`.worker`, in the
worker's process; event loop side only. The rule one could break by accident: a
request of ASGI runs in a copy of :attr:`WorkerContext.base`, the context captured after
lifespan startup, never in the context of the callback that parsed it, or
variables would leak from one request into the next.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from .asgi import ASGIApp, Receive, Scope, Send
from .fleet import CELLS, Slot
from .response import default_fields
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log(Protocol):
    """The part of gunicorn's logger that the worker calls."""

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None: ...
    def info(self, msg: str, *args: Any, **kwargs: Any) -> None: ...
    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None: ...
    def error(self, msg: str, *args: Any, **kwargs: Any) -> None: ...
    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None: ...


class Connection(Protocol):
    """What the server needs of a connection, whichever protocol it speaks."""

    def tick(self, now: float) -> None:
        """Look at every timeout of the connection; called once a second with the loop time."""

    def drain(self, deadline: float) -> None:
        """
        The worker is leaving: close, when no request is complete until ``deadline`` (loop time).

        That is the time of a first request; one that has had its answer may have less.
        """

    def abort(self) -> None:
        """Drop the connection at once."""


class Cycle(Protocol):
    """What the server needs of a call of the application."""

    task: asyncio.Task[None] | None

    def cancel(self) -> None:
        """End the call. Its task is cancelled once, however often this is called."""

    @property
    def streaming(self) -> bool:
        """Whether a response has begun whose end is not known."""

    def abort(self) -> None:
        """Drop the connection at once."""


class Hooks(Protocol):
    """gunicorn's ``pre_request`` and ``post_request``; what ``before`` returns is given back to ``after``."""

    def before(self, scope: Scope) -> Any: ...
    def after(self, view: Any, environ: dict[str, Any] | None, response: Any) -> None: ...


class Call(Protocol):
    """A WSGI call that was begun without a task: :class:`~.wsgi.WSGIResponder`."""

    start: Any  #: the head, as a message, of a response that is whole
    gone: bool  #: nobody takes anything any more

    def whole(self) -> bytes | None:
        """The body of a response that is complete; None where the call has to be awaited."""

    def cancel(self) -> bool:
        """Nobody wants the response any more. Returns whether the call was still queued, and so never runs."""

    def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> Awaitable[None]: ...


Begin = Callable[[Scope, bytes, Callable[[], None]], Call]


class WorkerContext:
    """
    Shared by every connection of one worker.

    ``server_cert`` is the PEM of the TLS certificate. ``max_requests`` is the number of
    requests after which ``recycle`` is called, once; ``access`` writes a line for a finished
    request, and ``hooks`` are called around it; each is None when nobody wants it.
    """

    __slots__ = (
        "access",
        "app",
        "base",
        "begin",
        "calls",
        "closed",
        "connections",
        "cycles",
        "draining",
        "endpoints",
        "fields",
        "hooks",
        "idle_time",
        "is_wsgi",
        "keep_alive",
        "log",
        "loop",
        "max_lines",
        "max_requests",
        "names",
        "now",
        "recycle",
        "responses",
        "served",
        "short_head",
        "server_cert",
        "settings",
        "slot",
        "small_head",
        "state",
        "warned",
    )

    def __init__(
        self,
        *,
        app: ASGIApp,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        log: Log | None = None,
        is_wsgi: bool = False,
        server_cert: str | None = None,
        access: Callable[[Any], None] | None = None,
        hooks: Hooks | None = None,
        max_requests: int = sys.maxsize,
        recycle: Callable[[], None] = lambda: None,
        slot: Slot | None = None,
    ) -> None:
        self.app = app
        self.begin: Begin | None = getattr(app, "begin", None) if is_wsgi else None  #: a WSGI call without a task
        #: how many WSGI calls there are, also of clients that have gone
        self.calls: Callable[[], int] = getattr(app, "calls", int) if is_wsgi else int
        self.settings = settings
        self.loop = loop
        self.log: Log = log if log is not None else logging.getLogger("hybridworker")
        self.is_wsgi = is_wsgi
        self.server_cert = server_cert
        self.access = access
        self.hooks = hooks
        self.max_requests = max_requests
        self.recycle = recycle
        #: lifespan state, copied shallowly into each scope
        self.state: dict[str, Any] = {}
        #: the context that each request starts from; that of a WSGI call is its thread's
        self.base = contextvars.Context() if is_wsgi else contextvars.copy_context()
        self.connections: set[Connection] = set()
        #: requests in flight, in order of arrival
        self.cycles: dict[Cycle, None] = {}
        #: a head of at most this many bytes and lines, in one piece, exceeds no limit
        self.small_head = min(settings.limit_request_line, settings.limit_request_field_size, settings.max_head_size)
        self.max_lines = settings.limit_request_fields + 2
        #: a head of at most this many bytes cannot have more lines: the shortest is `a:` and CRLF
        self.short_head = 4 * settings.limit_request_fields
        #: field name as received -> its lower-case form and what it means to :mod:`.http11`
        self.names: dict[bytes, tuple[bytes, int]] = {}
        self.idle_time = settings.keepalive  #: how long an idle connection is kept, in seconds
        self.keep_alive = settings.keepalive > 0  #: connections may outlive a response
        self.draining = False
        self.served = 0
        #: how many responses there were of each status class, 0 for those that nobody waited for
        self.responses = [0] * 10
        self.slot: Slot = [0] * CELLS if slot is None else slot  #: what the siblings see of this worker
        self.endpoints: dict[str, ASGIApp] = {}  #: paths that are answered before the application
        self.warned: set[str] = set()
        self.closed: Callable[[], None] = lambda: None  #: called whenever a connection is gone
        self.fields = b""
        self.now = loop.time()
        self.tick(self.now)

    def tick(self, now: float) -> None:
        """Once a second: the clock, in loop time, and the Server and Date lines."""
        self.now = now
        self.fields = default_fields(self.settings.server, time.time())

    def count_request(self) -> None:
        """One more request begins; at ``max_requests`` the worker is asked to recycle."""
        self.served += 1
        if self.served == self.max_requests:
            self.recycle()

    def leave(self) -> None:
        """The worker is leaving: every response from now on ends its connection."""
        self.draining = True
        self.keep_alive = False
        self.idle_time = self.settings.drain_window

    def warn_once(self, message: str) -> None:
        """Log a warning the first time."""
        if message not in self.warned:
            self.warned.add(message)
            self.log.warning(message)

    def tasks(self) -> Iterator[asyncio.Task[None]]:
        """The tasks of the requests in flight."""
        return (cycle.task for cycle in list(self.cycles) if cycle.task is not None)
