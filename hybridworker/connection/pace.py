"""
Pace: whether the applications of this worker return quickly, as far as was seen.

What one request was given to send may wait behind code of another for a moment only. A worker
whose applications take longer between two awaits sends each response at once. One per worker.
Event loop side only. States: ``states.PaceState``.
"""

from __future__ import annotations

from ..states import PaceState

BRISK, SLOW = PaceState.BRISK, PaceState.SLOW

#: Seconds that a step of an application may take: from where the loop calls it to where it waits.
STEP_MAX = 0.001

#: Seconds for which nothing waits after a longer one.
PENALTY = 1.0


class Pace:
    """``reason`` says why it is SLOW, for reports."""

    __slots__ = ("reason", "state", "until")

    def __init__(self) -> None:
        self.state = BRISK
        self.until = 0.0  #: loop time at which SLOW ends
        self.reason = ""

    def brisk(self, now: float) -> bool:
        """Whether one response may wait behind the code of another. ``now`` is loop time."""
        if self.state is SLOW and now >= self.until:
            self.state, self.reason = BRISK, ""
        return self.state is BRISK

    def slow(self, now: float, reason: str) -> None:
        """A step took longer than :data:`STEP_MAX`."""
        self.state, self.until, self.reason = SLOW, now + PENALTY, reason
