"""
Liveness: whether the peer of a long-lived connection is still there.

A ping is sent at every interval, and any byte of the client answers it. Pure: the caller tells
the time once a second, and is told what to do. Event loop side only.

Invariant: the client is not blamed for what this process did not read. Time in which the loop
stalled, or in which reading was paused, does not count against it.
"""

from __future__ import annotations

import enum

#: A tick that comes this many seconds after the one before: the loop stalled, and the peer's bytes may wait for it.
LATE = 2.0


class Verdict(enum.Enum):
    """What to do about the peer."""

    ALIVE = enum.auto()
    PING = enum.auto()  #: ask whether it is
    DEAD = enum.auto()


class Liveness:
    """One peer, asked every ``interval`` seconds (``inf``: never), and given up when it is silent for as long after."""

    __slots__ = ("heard", "interval", "ping_at", "pinged", "silence", "ticked")

    def __init__(self, interval: float, now: float) -> None:
        self.interval = interval
        self.heard = False  #: to be set whenever bytes come
        self.pinged = False  #: nothing was heard since the last ping
        self.silence = 0.0  #: seconds since then that count
        self.ping_at = now + interval
        self.ticked = now

    def tick(self, now: float, paused: bool) -> Verdict:
        """To be called about once a second; ``paused``: the peer's bytes are not being read."""
        elapsed, self.ticked = now - self.ticked, now
        if self.heard or paused:
            self.heard = self.pinged = False
            self.silence = 0.0
        elif self.pinged and elapsed < LATE:
            self.silence += elapsed
            if self.silence >= self.interval:
                return Verdict.DEAD
        if now < self.ping_at:
            return Verdict.ALIVE
        self.ping_at = now + self.interval
        self.pinged = True
        return Verdict.PING
