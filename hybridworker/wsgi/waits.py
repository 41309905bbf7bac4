"""
Waits: how long calls have waited for a thread, counted in buckets.

Threads note what the loop counts, once a second. Also for the threads that are lent to ASGI applications.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Seconds: the upper bounds of the buckets in which waiting times are counted; there is one more without a bound.
WAIT_BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
WAITS = len(WAIT_BOUNDS) + 2  #: these buckets, and the sum


class Waits:
    """
    The seconds that calls have waited since they were last taken, for each of the ``lanes`` by itself.

    Any thread appends to these lists, which needs no lock; the loop takes.
    """

    __slots__ = ("lanes",)

    def __init__(self, lanes: int = 1) -> None:
        self.lanes: list[list[float]] = [[] for _ in range(lanes)]

    def take(self) -> list[list[int]]:
        """What was noted since last asked, a list of :data:`WAITS` numbers for each lane."""
        return [in_buckets(_taken(noted), WAIT_BOUNDS) for noted in self.lanes]


def _taken(noted: list[float]) -> list[float]:
    """What is in a list, which is removed from there; what a thread appends meanwhile stays."""
    taken = noted[:]
    del noted[: len(taken)]
    return taken


def in_buckets(seconds: list[float], bounds: Sequence[float]) -> list[int]:
    """How many of ``seconds`` are in which bucket, and microseconds in all. A bound belongs to the bucket below it."""
    counts, rest = [], seconds
    for bound in bounds:
        longer = [each for each in rest if each > bound]  # few are: to sort them took longer
        counts.append(len(rest) - len(longer))
        rest = longer
    return [*counts, len(rest), round(sum(seconds) * 1e6)]
