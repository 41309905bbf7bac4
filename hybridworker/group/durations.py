"""
Durations: how long requests took, counted in buckets.

For each request there are two durations: to the first byte of its response, and to the last. WebSockets are counted
separately: to the answer to their handshake, and to the end of the connection. One :class:`Durations` for each worker,
on the event loop. The tick adds what it holds to the worker's row of the scoreboard (:data:`~.scoreboard.TIMED`), from
which :mod:`..process.endpoints` makes histograms. Event loop side only.
"""

from __future__ import annotations

import itertools

from ..wsgi.waits import in_buckets

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

#: The first digits that each class has. A status beyond 599, which an application may send, is a 5xx.
_DIGITS = ((0, 1, 2), (3,), (4,), (5, 6, 7, 8, 9))

#: Seconds, as they were noted, under each digit.
Noted = list[list[float]]


class Durations:
    """
    The durations of requests, since they were last taken: seconds, noted under the first digit of their status.

    Whoever ends a response appends to these lists, and the counting is left to :meth:`take`: that costs a
    request less than anything else. Nearly every response is ``whole``: its first byte leaves with its last. It is
    noted once, for both. ``answered`` and ``closed`` are the WebSockets, to the answer and to the end.
    """

    __slots__ = ("answered", "closed", "first_bytes", "last_bytes", "whole")

    def __init__(self) -> None:
        self.first_bytes: Noted = [[] for _ in range(10)]
        self.last_bytes: Noted = [[] for _ in range(10)]
        self.whole: Noted = [[] for _ in range(10)]
        self.answered: list[float] = []
        self.closed: list[float] = []

    def take(self) -> list[int]:
        """The counts to the first byte, class by class, then those to the last. They begin anew."""
        whole, counts = _by_class(self.whole), []
        for part, sockets in ((self.first_bytes, self.answered), (self.last_bytes, self.closed)):
            counts += [count + both for count, both in zip(_by_class(part), whole, strict=True)]
            counts += in_buckets(sockets, BOUNDS)
        for noted in (*self.first_bytes, *self.last_bytes, *self.whole, self.answered, self.closed):
            noted.clear()
        return counts


def _by_class(noted: Noted) -> list[int]:
    """The counts of each class."""
    classes = (itertools.chain.from_iterable(noted[digit] for digit in digits) for digits in _DIGITS)
    return [count for each in classes for count in in_buckets(list(each), BOUNDS)]
