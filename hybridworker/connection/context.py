"""
WorkerContext: what all connections of a worker share.

The applications, the settings, the clock, and the sets of connections and of requests in
flight. Made once by :mod:`.worker`, in the worker's process. Event loop side only.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..application.application import Application
from ..application.lentthreads import Lender
from ..application.parts import Parts
from ..asgi import Headers, Scope
from ..config.settings import Settings
from ..group.durations import Durations
from ..group.scoreboard import CELLS, IN_FLIGHT, THREADED, Slot
from ..wsgi.threads import LostCall
from .admission import Admission, limited
from .flow import FlowControl
from .pace import Pace
from .requestids import RequestIds
from .response import default_fields

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

    flow: FlowControl

    @property
    def idle_until(self) -> float | None:
        """Loop time at which the connection ends for being idle; None where it is not."""

    @property
    def closing(self) -> bool:
        """Whether nothing more is read, and the client has not closed its side yet."""

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

    application: Application
    task: asyncio.Task[None] | None
    started_at: float  #: ``time.monotonic()``
    since: float  #: the same, less the time for which its body was awaited
    scope: Scope

    @property
    def due(self) -> bool:
        """Whether the first byte of its response is awaited."""

    @property
    def incoming(self) -> bool:
        """Whether the client has not sent all of the request yet, and is not held back."""

    def expire(self) -> LostCall | None:
        """Its time is up: the client gets a 504, and the call ends. Returns the call whose thread is lost by that."""

    def cancel(self) -> None:
        """End the call. Its task is cancelled once, however often this is called."""

    @property
    def streaming(self) -> bool:
        """Whether a response has begun whose end is not known."""

    def abort(self) -> None:
        """Drop the connection at once."""


def small_head(settings: Settings) -> int:
    """Bytes of the longest head that needs no scanner; 0 where each is scanned, and parsed when it is whole."""
    if settings.rewrites_heads:
        return 0
    return min(settings.limit_request_line, settings.limit_request_field_size, settings.max_head_size)


class WorkerContext:
    """
    Shared by every connection of one worker. ``application`` answers what no endpoint does; where
    that is a Hybrid, one of its ``parts`` does, or ``application`` what none of them claims.

    ``server_cert`` is the PEM of the TLS certificate. ``max_requests`` is the number of
    requests after which ``recycle`` is called, once; ``access`` writes a line for a finished
    request, or is None when nobody wants it. ``lender`` has the threads that ASGI applications borrow, if any.
    """

    __slots__ = (
        "access",
        "admission",
        "application",
        "closed",
        "connections",
        "cycles",
        "draining",
        "durations",
        "endpoints",
        "exact",
        "fields",
        "find",
        "idle_time",
        "ids",
        "keep_alive",
        "lender",
        "log",
        "loop",
        "max_lines",
        "max_requests",
        "names",
        "now",
        "pace",
        "parts",
        "recycle",
        "responses",
        "section_fields",
        "section_names",
        "served",
        "short_head",
        "server_cert",
        "settings",
        "single",
        "slot",
        "small_head",
        "threaded",
        "warned",
    )

    def __init__(
        self,
        *,
        application: Application,
        parts: Parts | None = None,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        log: Log | None = None,
        server_cert: str | None = None,
        access: Callable[[Any], None] | None = None,
        max_requests: int = sys.maxsize,
        recycle: Callable[[], None] = lambda: None,
        slot: Slot | None = None,
        lender: Lender | None = None,
    ) -> None:
        self.application = application
        self.parts = parts
        #: what answers every request; None where :attr:`find` has to look
        self.single: Application | None = application if parts is None else None
        #: (scope, is it a WebSocket handshake, fields that only a forwarder may send) -> what answers. Bound for speed
        self.find: Callable[[Scope, bool, Headers | None], Application] = self._find if parts is None else parts.find
        self.settings = settings
        self.loop = loop
        self.log: Log = log if log is not None else logging.getLogger("hybridworker")
        self.server_cert = server_cert
        self.access = access
        self.max_requests = max_requests
        self.recycle = recycle
        self.lender = lender
        self.connections: set[Connection] = set()
        self.cycles: dict[Cycle, None] = {}  #: requests in flight, in order of arrival
        #: a head of at most this many bytes and lines, in one piece, exceeds no limit
        self.small_head = small_head(settings)
        self.max_lines = settings.limit_request_fields + 2
        self.short_head = 4 * settings.limit_request_fields  #: bytes that cannot be more lines: `a:` and CRLF are one
        #: field name as received -> its lower-case form and what it means to :mod:`.http11.protocol`
        self.names: dict[bytes, tuple[bytes, int]] = {}
        self.section_fields: dict[tuple[bytes, bytes], int] = {}  #: field of HTTP/2, found valid -> what it means
        self.section_names: dict[bytes, int] = {}  #: field name of HTTP/2 -> what it means to :mod:`.http2.head`
        self.ids = RequestIds(settings.request_id) if settings.request_id else None  #: of requests; None without ids
        self.idle_time = settings.keepalive  #: how long an idle connection is kept, in seconds
        self.keep_alive = settings.keepalive > 0  #: connections may outlive a response
        self.draining = False
        self.served = 0
        #: the responses that are of no part, by status class: all of them, or what no part claims and refusals
        self.responses = application.responses if parts is None else parts.unclaimed.responses
        #: how long requests took to the first byte of their responses; None where nobody asks for metrics
        self.durations = Durations() if settings.metrics_path else None
        self.slot: Slot = [0] * CELLS if slot is None else slot  #: what the siblings see of this worker
        #: whether a request may begin; None where nothing is limited
        self.admission = Admission(settings, loop, self.log, self.cycles, self.slot) if limited(settings) else None
        self.exact = (access, self.durations, self.admission) != (None, None, None)  #: times are asked for
        self.threaded: int | None = None if parts is None else 0  #: cycles that are calls in threads, in a Hybrid
        self.endpoints: dict[str, Application] = {}  #: paths that are answered before the application
        self.pace = Pace()
        self.warned: set[str] = set()
        self.closed: Callable[[], None] = lambda: None  #: called whenever a connection is gone
        self.fields = b""
        self.now = loop.time()
        self.tick(self.now)

    def tick(self, now: float) -> None:
        """Once a second: the clock, in loop time, and the Server and Date lines."""
        self.now = now
        self.fields = default_fields(self.settings.server, time.time())

    @property
    def applications(self) -> tuple[Application, ...]:
        """Everything that is served, in the order named, without endpoints."""
        return (self.application,) if self.parts is None else self.parts.applications

    def answer_first(self, endpoints: dict[str, Application]) -> None:
        """Have GET and HEAD of some paths answered before the application."""
        self.endpoints = endpoints
        if endpoints:
            self.single, self.find = None, self._find

    def _find(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        """An endpoint or an application. An endpoint answers no WebSocket handshake that an application takes."""
        endpoint = self.endpoints.get(scope["path"])
        if endpoint is not None and scope["method"] in ("GET", "HEAD"):
            if not websocket or not self._beside_endpoints(dict(scope), websocket, forwarded).takes_websockets:
                return endpoint
        return self._beside_endpoints(scope, websocket, forwarded)

    def _beside_endpoints(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        return self.application if self.parts is None else self.parts.find(scope, websocket, forwarded)

    def enter(self, cycle: Cycle) -> None:
        """A call of the application begins."""
        self.cycles[cycle] = None
        self.slot[IN_FLIGHT] = len(self.cycles)
        if self.threaded is not None and cycle.application.threaded:
            self.slot[THREADED] = self.threaded = self.threaded + 1

    def exit(self, cycle: Cycle) -> None:
        """A call of the application is over."""
        del self.cycles[cycle]
        self.slot[IN_FLIGHT] = len(self.cycles)
        if self.threaded is not None and cycle.application.threaded:
            self.slot[THREADED] = self.threaded = self.threaded - 1

    def running(self) -> int:
        """How many calls are going on beside those that are requests in flight. All parts share one pool."""
        return max(application.running() for application in self.applications)

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
