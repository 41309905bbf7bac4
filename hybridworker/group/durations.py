"""
Durations: how long requests took, counted in buckets.

One :class:`Durations` for each worker, on the event loop. The tick adds what it holds to the worker's row of the
scoreboard (:data:`~.scoreboard.TIMED`), from which :mod:`..process.endpoints` makes a histogram. Event loop side only.
"""

from __future__ import annotations

from bisect import bisect_left

#: Seconds: the upper bounds of the buckets; there is one more without a bound.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: The status classes that are told apart. No response that ends a request is a 1xx.
CLASSES = ("2xx", "3xx", "4xx", "5xx")

#: Numbers of one class: these buckets, and the sum in microseconds. All classes together.
WIDTH = len(BOUNDS) + 2
SIZE = WIDTH * len(CLASSES)


class Durations:
    """Requests by status class and duration, since they were last taken."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * SIZE

    def add(self, status: int, seconds: float) -> None:
        """Count a request. A status beyond 599, which an application may send, counts as a 5xx."""
        first = WIDTH * (min(status // 100, 5) - 2)
        self.counts[first + bisect_left(BOUNDS, seconds)] += 1
        self.counts[first + WIDTH - 1] += int(seconds * 1e6)

    def take(self) -> list[int]:
        """The counts of all classes, one behind the other. They begin anew."""
        counts, self.counts = self.counts, [0] * SIZE
        return counts
