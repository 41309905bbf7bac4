"""
WorkerContext: what all connections of a worker share.

The applications, the settings, the clock, and the sets of connections and of requests in
flight. Made once by :mod:`.worker`, in the worker's process. Event loop side only.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..application.application import Application
from ..asgi import Scope
from ..config.settings import Settings
from ..group.durations import Durations
from ..group.scoreboard import CELLS, IN_FLIGHT, THREADED, Slot
from ..wsgi.callrecords import LostCall
from .admission import Admission, limited
from .clock import Clock
from .flow import FlowControl
from .pace import Pace
from .persistence import Persistence
from .quota import RequestQuota
from .requestids import RequestIds
from .router import Router
from .smallheads import SmallHeads
from .turn import Turn
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..application.lentthreads import Lender
    from ..application.parts import Parts


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


class Connections(set[Connection]):
    """The connections of a worker. ``changed`` is called whenever one is gone."""

    changed: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.turn = Turn(loop)  #: those of them with a request to begin

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self.discard(connection)
        self.changed()


class WorkerContext:
    """
    Shared by every connection of one worker. ``application`` and ``parts`` are those of the :class:`Router`.

    ``server_cert`` is the PEM of the TLS certificate. ``max_requests`` is the limit of the :class:`RequestQuota`;
    ``access`` writes a line for a finished request, or is None when nobody wants it. ``lender`` has the threads that
    ASGI applications borrow, if any.
    """

    __slots__ = (
        "access",
        "admission",
        "clock",
        "connections",
        "cycles",
        "durations",
        "small_heads",
        "ids",
        "lender",
        "log",
        "loop",
        "pace",
        "persistence",
        "quota",
        "router",
        "server_cert",
        "settings",
        "slot",
        "vocabulary",
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
        slot: Slot | None = None,
        lender: Lender | None = None,
    ) -> None:
        self.settings = settings
        self.loop = loop
        self.log: Log = log if log is not None else logging.getLogger("hybridworker")
        self.server_cert = server_cert
        self.access = access
        self.lender = lender
        self.connections = Connections(loop)
        self.cycles: dict[Cycle, None] = {}  #: requests in flight, in order of arrival
        self.slot: Slot = [0] * CELLS if slot is None else slot  #: what the siblings see of this worker
        self.warned: set[str] = set()
        # The answers to one question each.
        self.router = Router(application, parts)
        self.quota = RequestQuota(max_requests)
        self.persistence = Persistence(settings)
        self.pace = Pace()
        self.small_heads = SmallHeads(settings)
        self.vocabulary = Vocabulary()
        self.ids = RequestIds(settings.request_id) if settings.request_id else None  #: of requests; None without ids
        #: how long requests took to the first byte of their responses; None where nobody asks for metrics
        self.durations = Durations() if settings.metrics_path else None
        #: whether a request may begin; None where nothing is limited
        self.admission = Admission(settings, self.log, self.cycles, self.slot, self.ids) if limited(settings) else None
        exact = (access, self.durations, self.admission) != (None, None, None)
        self.clock = Clock(settings.server, loop.time(), exact)

    def enter(self, cycle: Cycle) -> None:
        """A call of the application begins."""
        self.cycles[cycle] = None
        self.slot[IN_FLIGHT] = len(self.cycles)
        if cycle.application.apart:
            self.slot[THREADED] += 1

    def exit(self, cycle: Cycle) -> None:
        """A call of the application is over."""
        del self.cycles[cycle]
        self.slot[IN_FLIGHT] = len(self.cycles)
        if cycle.application.apart:
            self.slot[THREADED] -= 1

    def warn_once(self, message: str) -> None:
        """Log a warning the first time."""
        if message not in self.warned:
            self.warned.add(message)
            self.log.warning(message)

    def tasks(self) -> Iterator[asyncio.Task[None]]:
        """The tasks of the requests in flight."""
        return (cycle.task for cycle in list(self.cycles) if cycle.task is not None)
