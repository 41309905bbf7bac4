"""
Board and Fleet: how the workers of one master know of each other.

The master maps a piece of anonymous shared memory, the :class:`Board`, when it makes its
first worker; every fork inherits it. Each worker has a row of 64-bit cells there, its
:class:`Slot`, which it alone writes; anyone reads. :class:`Fleet` is what one worker
makes of the others: whether it carries more than its share, whether a younger one is
about to take over, and whose turn it is to recycle. Event loop side, except for the claim
of a slot, which happens in the master, before the fork, where nobody else claims.

There is no lock. A cell is written as one aligned machine word, so a reader sees the old
value or the new one. What can be torn is a row: a reader may see a count from before a
change beside one from after it. Nothing here relates two cells so closely that this would
matter: a share is off by one connection for the moment, a sum by one request.

The rule one could break by accident: counters belong to the slot and are never reset, so
that the sums of the group do not fall when a worker is replaced.
"""

from __future__ import annotations

import enum
import mmap
import os
import time
from typing import ClassVar

from .settings import Settings

#: Workers that a board can hold. One more than that serves all the same, without knowing of the others.
SLOTS = 128

#: Milliseconds: upper bounds of the buckets of waiting times; there is one more without.
WAIT_BOUNDS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)

#: Why workers were replaced.
REASONS = ("term", "reload", "max_requests", "max_rss")


class Standing(enum.IntEnum):
    """What a worker is doing, as its siblings see it."""

    FREE = 0  #: nobody's
    BOOTING = 1  #: forked or about to be, not accepting yet
    READY = 2  #: accepting
    WISHING = 3  #: accepting, and would like to be replaced
    RETIRING = 4  #: told to go, and accepting until a younger one does
    DRAINING = 5  #: leaving


#: On whom one can count to take connections.
ACCEPTING = frozenset({Standing.READY, Standing.WISHING})


# The cells of a row, each a number. The first four are the worker's state, written first by the master, which claims
# the slot; then follow what the worker carries, what it uses, and counters.
PID, AGE, STANDING, SINCE = range(4)  #: SINCE: of the standing, ``time.monotonic()`` in microseconds
CONNECTIONS, IN_FLIGHT, BUSY, QUEUED = range(4, 8)
LAG, RSS, STARTED = range(8, 11)  #: microseconds; KiB; seconds since the epoch
SERVED = 11  #: and the four behind it: responses by status class, 1xx to 5xx
RECYCLED = SERVED + 5  #: and those behind it, one for each of REASONS
WAITED = RECYCLED + len(REASONS)  #: and those behind it, one for each bucket, then the sum in microseconds
WAITED_SUM = WAITED + len(WAIT_BOUNDS) + 1
CELLS = WAITED_SUM + 1

#: The cells that are counters.
COUNTERS = range(SERVED, CELLS)

#: The row of one worker. A worker without a board writes to a list that nobody reads.
Slot = memoryview | list[int]


class Board:
    """The shared memory of one master."""

    _of_master: ClassVar[tuple[int, Board | None]] = (0, None)

    def __init__(self, slots: int = SLOTS) -> None:
        """Map the memory. Raises OSError where there is none to be had."""
        cells = memoryview(mmap.mmap(-1, slots * CELLS * 8)).cast("q")
        self.slots = [cells[at : at + CELLS] for at in range(0, len(cells), CELLS)]

    @classmethod
    def of_master(cls) -> Board | None:
        """
        The board of this process, made the first time; None where it cannot be made.

        A master that was re-executed for an upgrade makes a board of its own.
        """
        pid, board = cls._of_master
        if pid != os.getpid():
            try:
                board = cls()
            except (OSError, ValueError):  # no shared memory: its workers serve alone, and say so
                board = None
            Board._of_master = os.getpid(), board
        return board

    def claim(self, age: int) -> Slot | None:
        """Take a slot whose worker is dead, for a worker about to be forked; None when all are taken."""
        for slot in self.slots:
            if slot[STANDING] == Standing.FREE or (slot[PID] and not alive(slot[PID])):
                for cell in range(SERVED):
                    slot[cell] = 0
                slot[AGE] = age
                stand(slot, Standing.BOOTING)
                return slot
        return None

    def living(self) -> list[Slot]:
        """The slots of workers that live, or are about to."""
        return [slot for slot in self.slots if slot[STANDING] != Standing.FREE and (not slot[PID] or alive(slot[PID]))]


class Fleet:
    """
    One worker among its siblings.

    ``is_wsgi`` decides what a load is: the calls in threads and before them, or, for an
    ASGI application, connections and requests in flight.
    """

    __slots__ = ("board", "first", "settings", "siblings", "slot")

    def __init__(self, board: Board, slot: Slot, settings: Settings, is_wsgi: bool) -> None:
        self.board = board
        self.slot = slot
        self.settings = settings
        self.first = IN_FLIGHT if is_wsgi else CONNECTIONS
        self.siblings: list[Slot] = []  #: as of the last tick
        self.tick()

    def tick(self) -> None:
        """Once a second: see who is there."""
        self.siblings = [slot for slot in self.board.living() if slot[AGE] != self.slot[AGE]]

    def crowded(self) -> bool:
        """Whether a sibling that accepts carries less than this worker."""
        own = self._load(self.slot)
        return any(sibling[STANDING] in ACCEPTING and self._load(sibling) < own for sibling in self.siblings)

    def _load(self, slot: Slot) -> int:
        return sum(slot[self.first : IN_FLIGHT + 1])

    # -- taking turns

    def successor(self) -> Standing:
        """
        READY when a younger worker accepts, BOOTING when one is about to, FREE when none is coming.

        For a worker that was told to go: until a younger one is ready it had better stay.
        One that was told to go as well is no successor; it takes a moment to say so.
        """
        self.tick()
        younger = {sibling[STANDING] for sibling in self.siblings if sibling[AGE] > self.slot[AGE]}
        if not younger.isdisjoint(ACCEPTING):
            return Standing.READY
        return Standing.BOOTING if Standing.BOOTING in younger else Standing.FREE

    def may_go(self, now: float) -> bool:
        """
        Whether this worker, which wishes to be replaced, may go; ``now`` is ``time.monotonic()``.

        The wish must be a second old, so that every sibling has seen it and said its own.
        Then the oldest that wishes goes, when all others accept: a turn lasts until the
        replacement is ready. After ``graceful_timeout`` it goes in any case.
        """
        waited = now - self.slot[SINCE] / 1e6
        if not 1.0 < waited < self.settings.graceful_timeout:
            return waited > 1.0
        self.tick()
        standings = [sibling[STANDING] for sibling in self.siblings]
        if sum(standing in ACCEPTING for standing in standings) + 1 < max(self.settings.workers, len(standings) + 1):
            return False
        return not any(
            sibling[STANDING] == Standing.WISHING and sibling[AGE] < self.slot[AGE] for sibling in self.siblings
        )


def stand(slot: Slot, standing: Standing) -> None:
    """Say in ``slot`` what its worker does from now on."""
    slot[SINCE] = time.monotonic_ns() // 1000
    slot[STANDING] = standing


def alive(pid: int) -> bool:
    """Whether there is a process ``pid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it exists
        return True
    return True
