"""
RequestTimeouts: which requests have passed HYBRIDWORKER_REQUEST_TIMEOUT or HYBRIDWORKER_SLOW_REQUEST.

The tick asks once a second. There is no timer for each request, so a time-out may be a second late, and is
never early. The clock of a request runs from the moment at which all of it has come; while its body
is coming in, it stands: a client that stalls has time-outs of its own. Event loop side only.

Invariant: a request whose response has begun is left alone, so streams and WebSockets need no exception.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..wsgi.callrecords import LostCall
from .context import Cycle, WorkerContext

#: Seconds for which a call that was cancelled may clean up before it is reported.
CLEANUP = 1.0


class Late(enum.Enum):
    """What is the matter with a request."""

    SLOW = enum.auto()  #: HYBRIDWORKER_SLOW_REQUEST has passed
    EXPIRED = enum.auto()  #: HYBRIDWORKER_REQUEST_TIMEOUT has passed, and it was ended
    STUBBORN = enum.auto()  #: it goes on although it was ended


class Latecomer(NamedTuple):
    """A request that has taken too long. It is reported at most once for each kind of :class:`Late`."""

    late: Late
    cycle: Cycle
    age: float  #: seconds by its clock
    lost: LostCall | None = None  #: its call, where that goes on in a thread


class RequestTimeouts:
    """The clocks of the requests of ``context``."""

    __slots__ = ("context", "ended", "slow")

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.slow: set[Cycle] = set()  #: those that were told to be slow
        self.ended: dict[Cycle, float] = {}  #: those that expired -> when; inf for those told to be stubborn

    def tick(self) -> Iterator[Latecomer]:
        """Look at every request; what has expired is ended before it is told."""
        context, now = self.context, time.monotonic()
        admission = context.admission
        if admission is None:
            return
        looked, admission.looked = admission.looked, now
        timeout, slow = context.settings.request_timeout, context.settings.slow_request
        self.slow.intersection_update(context.cycles)
        yield from self._stubborn(now)
        for cycle in list(context.cycles):
            if not cycle.due or cycle in self.ended:
                continue
            if cycle.incoming:
                cycle.since += now - max(looked, cycle.started_at)
            age = now - cycle.since
            if age >= timeout:
                lost = cycle.expire()
                if cycle in context.cycles:
                    self.ended[cycle] = now
                yield Latecomer(Late.EXPIRED, cycle, age, lost)
            elif age >= slow and cycle not in self.slow:
                self.slow.add(cycle)
                yield Latecomer(Late.SLOW, cycle, age)

    def _stubborn(self, now: float) -> Iterator[Latecomer]:
        """The calls that go on although they were cancelled."""
        for cycle, ended in list(self.ended.items()):
            if cycle not in self.context.cycles:
                del self.ended[cycle]
            elif now - ended >= CLEANUP:
                self.ended[cycle] = float("inf")
                yield Latecomer(Late.STUBBORN, cycle, now - cycle.since)
