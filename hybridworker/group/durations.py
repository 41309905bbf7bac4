"""
Durations: how long requests took, counted in buckets.

To the first byte of the response, and to the last; WebSockets apart: to the answer of the handshake, and to the
end of the connection. One :class:`Durations` for each worker, on the event loop. The tick adds what it holds to the
worker's row of the scoreboard (:data:`~.scoreboard.TIMED`), from which :mod:`..process.endpoints` makes histograms.
Event loop side only.
"""

from __future__ import annotations

from bisect import bisect_left

#: Seconds: the upper bounds of the buckets; there is one more without a bound.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: The status classes that are told apart. No response that ends a request is a 1xx.
CLASSES = ("2xx", "3xx", "4xx", "5xx")

#: Numbers of one class: these buckets, and the sum in microseconds.
WIDTH = len(BOUNDS) + 2

#: Where the WebSockets begin, behind all classes; where the times to the last byte do; and how many numbers there are.
WEBSOCKETS = WIDTH * len(CLASSES)
LAST = WEBSOCKETS + WIDTH
SIZE = 2 * LAST

#: Where the class of a status begins, by its first digit. One beyond 599, which an application may send, is a 5xx.
_AT = [WIDTH * (min(max(digit, 2), 5) - 2) for digit in range(10)]


class Durations:
    """
    Requests by status class and duration, since they were last taken.

    Nearly every response is ``whole``: its first byte leaves with its last. It is counted once, for both.
    """

    __slots__ = ("first_bytes", "last_bytes", "whole")

    def __init__(self) -> None:
        self.first_bytes, self.last_bytes, self.whole = ([0] * LAST for _ in range(3))

    def first(self, status: int, seconds: float) -> None:
        """The first byte of a response has left, and more is to come."""
        _count(self.first_bytes, _AT[status // 100], seconds)

    def complete(self, status: int, seconds: float, whole: bool) -> None:
        """The last byte has left; ``whole``: with the first."""
        counts, at = self.whole if whole else self.last_bytes, _AT[status // 100]
        counts[at + bisect_left(BOUNDS, seconds)] += 1
        counts[at + WIDTH - 1] += int(seconds * 1e6)

    def answered(self, seconds: float) -> None:
        """A WebSocket handshake has its answer."""
        _count(self.first_bytes, WEBSOCKETS, seconds)

    def closed(self, seconds: float) -> None:
        """A WebSocket connection is over."""
        _count(self.last_bytes, WEBSOCKETS, seconds)

    def take(self) -> list[int]:
        """The counts to the first byte, class by class, then those to the last. They begin anew."""
        counts = [
            part + whole
            for parts in (self.first_bytes, self.last_bytes)
            for part, whole in zip(parts, self.whole, strict=True)
        ]
        self.first_bytes, self.last_bytes, self.whole = ([0] * LAST for _ in range(3))
        return counts


def _count(counts: list[int], at: int, seconds: float) -> None:
    counts[at + bisect_left(BOUNDS, seconds)] += 1
    counts[at + WIDTH - 1] += int(seconds * 1e6)
