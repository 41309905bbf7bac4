"""
Waits: how long calls have waited for a thread, counted in buckets.

Each thread counts for itself, so that nothing is lost without a lock; the loop sums up. Also for the threads
that are lent to ASGI applications.
"""

from __future__ import annotations

from bisect import bisect_left

#: Seconds: the upper bounds of the buckets in which waiting times are counted; there is one more without a bound.
WAIT_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
WAITS = len(WAIT_BOUNDS) + 2  #: these buckets, and the sum


class Waits:
    """``cells`` has the counts by :data:`WAIT_BOUNDS` and microseconds in all, lane after lane."""

    __slots__ = ("cells",)

    def __init__(self, lanes: int = 1) -> None:
        self.cells = [0] * (WAITS * lanes)

    def add(self, wait: float, lane: int = 0) -> None:
        """One more call had waited for ``wait`` seconds."""
        first = lane * WAITS
        self.cells[first + bisect_left(WAIT_BOUNDS, wait)] += 1
        self.cells[first + WAITS - 1] += int(wait * 1e6)


class WaitsOfThreads:
    """The sum of what threads have counted, in ``lanes`` that are counted by themselves. Loop side."""

    __slots__ = ("_ended", "_lanes", "_taken", "_threads")

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._threads: list[Waits] = []
        self._ended = Waits(lanes).cells  #: the counts of threads that are over
        self._taken = Waits(lanes).cells

    def of_thread(self) -> Waits:
        """What one more thread counts in."""
        waits = Waits(self._lanes)
        self._threads.append(waits)
        return waits

    def end(self, waits: Waits) -> None:
        """That thread is over."""
        self._threads.remove(waits)
        self._ended = [sum(pair) for pair in zip(self._ended, waits.cells, strict=True)]

    def take(self) -> list[list[int]]:
        """What was counted since last asked, a list of :data:`WAITS` numbers for each lane."""
        cells = (waits.cells for waits in self._threads)
        before, self._taken = self._taken, [sum(column) for column in zip(self._ended, *cells, strict=True)]
        new = [now - then for now, then in zip(self._taken, before, strict=True)]
        return [new[at : at + WAITS] for at in range(0, len(new), WAITS)]
