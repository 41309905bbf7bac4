"""
Pace: whether the applications of this worker return quickly, as far as was seen.

HTTP/2 may hold back a finished response until the code of other requests has run, to write several responses at once
(:mod:`..http2.outbox`). That is good only while this code is quick. When a step of an application, from one await to
the next, has taken longer than :data:`STEP_MAX`, nothing is held back for :data:`PENALTY` seconds. One per worker.
Event loop side only. States: ``states.PaceState``.

On a busy machine most steps that take long are those in which the system lets other processes run. They say
nothing of the application: it has neither computed for long nor waited for anything.
"""

from __future__ import annotations

import resource
import time

from ..states import PaceState

BRISK, SLOW = PaceState.BRISK, PaceState.SLOW

#: Seconds that a step of an application may take: from where the loop calls it to where it waits.
STEP_MAX = 0.001

#: Seconds for which nothing waits after a longer one.
PENALTY = 1.0


#: Of the thread that asks, which is that of the loop; of the process where the system cannot tell.
_WHO = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class Pace:
    """``reason`` says why it is SLOW, for reports."""

    __slots__ = ("began", "computed", "reason", "state", "until", "waits")

    def __init__(self) -> None:
        self.state = BRISK
        self.until = 0.0  #: loop time at which SLOW ends
        self.reason = ""
        self.began = self.computed = 0.0  #: when a row of steps began: ``perf_counter()``, and processor time
        self.waits = 0  #: how often the thread had waited for something until then

    def brisk(self, now: float) -> bool:
        """Whether one response may wait behind the code of another. ``now`` is loop time."""
        if self.state is SLOW and now >= self.until:
            self.state, self.reason = BRISK, ""
        return self.state is BRISK

    def begin(self) -> float:
        """A row of steps begins. Returns the time, of ``perf_counter()``."""
        self.waits = resource.getrusage(_WHO).ru_nvcsw
        self.computed = time.thread_time()
        self.began = time.perf_counter()
        return self.began

    def at_fault(self, before: float) -> bool:
        """Whether the step from ``before`` until now took long by itself. The steps of the row before it did not."""
        waits, earlier = self.waits, max(0.0, before - self.began)
        computed = time.thread_time() - self.computed - earlier
        self.begin()
        return computed > STEP_MAX or self.waits > waits

    def slow(self, now: float, reason: str) -> None:
        """A step took longer than :data:`STEP_MAX`, and is at fault."""
        self.state, self.until, self.reason = SLOW, now + PENALTY, reason
