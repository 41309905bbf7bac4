"""
Grace: how long a worker that leaves may take.

A worker that was told to go (TERM, reload) has ``graceful_timeout`` for everything, less a
margin, because the master kills a worker that is late. A worker that leaves for a reason of its
own need not hurry: its requests in flight have ``graceful_timeout`` and ``timeout`` together,
and as long as they want where ``timeout`` is off.

All times are loop time. Event loop side only, and nothing here waits. Invariant: deadlines may
come nearer, because a worker that leaves by itself may then be told to go. So each deadline is
asked for when it is needed, and not kept.
"""

from __future__ import annotations

import math

#: The reasons of a worker that was told to go. Every other reason is its own.
TOLD = frozenset({"term", "reload"})

#: Of the graceful timeout, what is kept for the application's shutdown: a part, and seconds at most.
SHUTDOWN_SHARE, SHUTDOWN_MAX = 0.2, 5.0
#: The same for the end of the process: the arbiter began to count before this worker did.
EXIT_SHARE, EXIT_MAX = 0.1, 0.5
#: Seconds by which background work may delay the restart of a worker under ``--reload``.
RELOAD_MAX = 1.0


class Grace:
    """The deadlines of one worker, from the first reason to leave on."""

    __slots__ = ("begun", "graceful", "kept", "reload", "timeout", "told_at")

    def __init__(self, graceful: float, timeout: float, reload: bool = False) -> None:
        """``graceful`` and ``timeout`` are gunicorn's settings, in seconds; ``timeout`` is 0 where it is off."""
        self.graceful = graceful
        self.timeout = timeout or math.inf
        self.reload = reload
        self.begun = math.inf  #: when the first reason came
        self.told_at = math.inf  #: when the worker was told to go
        self.kept = 0.0  #: seconds that are kept for lifespan shutdown

    def begin(self, now: float, reason: str) -> None:
        """There is a reason to leave. May be called again: the first reason of each kind counts."""
        self.begun = min(self.begun, now)
        if reason in TOLD:
            self.told_at = min(self.told_at, now)

    def restart(self, now: float) -> None:
        """What went before was waiting for a younger worker, without hurry: the time to leave begins now."""
        self.begun = self.told_at = now

    def keep_for_shutdown(self) -> None:
        """The application has a lifespan shutdown."""
        self.kept = min(SHUTDOWN_MAX, self.graceful * SHUTDOWN_SHARE)

    @property
    def told(self) -> bool:
        """Whether the worker was told to go."""
        return self.told_at < math.inf

    @property
    def requests(self) -> float:
        """When requests that are still in flight are cut."""
        return min(self._told_end() - self.kept, self.begun + self.graceful + self.timeout)

    @property
    def stream(self) -> float:
        """Seconds for which a response without a known end goes on."""
        return math.inf if self.told else self.graceful

    def end(self, now: float) -> float:
        """When the application must have shut down; ``now`` is the end of the last request."""
        return min(self._told_end(), now + self.graceful - self._margin())

    def background(self, now: float) -> float:
        """When background work that is not done is cut; ``now`` is the end of the last request."""
        return min(self.end(now), now + RELOAD_MAX) if self.reload else self.end(now)

    def _told_end(self) -> float:
        return self.told_at + self.graceful - self._margin()

    def _margin(self) -> float:
        return min(EXIT_MAX, self.graceful * EXIT_SHARE)
