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
from collections.abc import Callable
from typing import ClassVar

from .settings import Settings
from .threads import WAITS

#: Workers that a board can hold. One more than that serves all the same, without knowing of the others.
SLOTS = 128

#: Seconds that a wish to be replaced is on the board before it may come true: every sibling has said its own by then.
WISH = 1.0

#: How often connections are left to a sibling in vain before it counts as blocked.
VAIN_MAX = 4

#: Why workers were replaced.
REASONS = ("term", "reload", "max_requests", "max_rss")


class Standing(enum.IntEnum):
    """What a worker is doing, as its siblings see it."""

    FREE = 0  #: nobody's
    BOOTING = 1  #: forked or about to be, not accepting yet
    READY = 2  #: accepting
    WISHING = 3  #: accepting, and would like to be replaced
    RETIRING = 4  #: told to go, and accepting until a younger one does
    DRAINING = 5  #: leaving because it was told to
    RECYCLING = 6  #: leaving by itself: the master makes its replacement when it is gone


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
CELLS = WAITED + WAITS

#: The row of one worker. A worker without a board writes to a list that nobody reads.
Slot = memoryview | list[int]


class Board:
    """The shared memory of one master."""

    _of_master: ClassVar[tuple[int, Board | None]] = (0, None)

    def __init__(self, slots: int = SLOTS) -> None:
        """Map the memory. Raises OSError where there is none to be had."""
        cells = memoryview(mmap.mmap(-1, (slots * CELLS + 1) * 8)).cast("q")
        self.slots = [cells[at : at + CELLS] for at in range(0, slots * CELLS, CELLS)]
        self.youngest = cells[-1:]  #: one cell more: the age of the last worker that claimed a slot

    @classmethod
    def of_master(cls, warn: Callable[..., object]) -> Board | None:
        """
        The board of this process, made the first time; None, and one warning, where it cannot be made.

        A master that was re-executed for an upgrade makes a board of its own.
        """
        pid, board = cls._of_master
        if pid != os.getpid():
            try:
                board = cls()
            except OSError as exc:
                board = None
                warn("There is no shared memory (%s): workers serve without knowing of each other", exc)
            Board._of_master = os.getpid(), board
        return board

    def claim(self, age: int) -> Slot | None:
        """
        Take a slot whose worker is dead, for a worker about to be forked; None when all are taken.

        For the master, which writes the pid of a worker when it has forked it. So a slot
        that has none now belongs to a worker that never came to be.
        """
        free = [slot for slot in self.slots if not (slot[PID] and alive(slot[PID]))]
        for slot in free:
            slot[STANDING] = Standing.FREE
        if not free:
            return None
        slot = free[0]
        for cell in range(SERVED):
            slot[cell] = 0
        slot[AGE], slot[STARTED] = age, int(time.time())
        stand(slot, Standing.BOOTING)
        self.youngest[0] = age
        return slot

    def living(self) -> list[Slot]:
        """The slots of workers that live, or are about to."""
        return [slot for slot in self.slots if slot[STANDING] != Standing.FREE and present(slot)]


class Fleet:
    """
    One worker among its siblings.

    ``is_wsgi`` decides what a load is: the calls in threads and before them, or, for an
    ASGI application, connections and requests in flight.
    """

    __slots__ = ("board", "first", "settings", "siblings", "slot", "vain", "youngest")

    def __init__(self, board: Board, slot: Slot, settings: Settings, is_wsgi: bool) -> None:
        self.board = board
        self.slot = slot
        self.settings = settings
        self.first = IN_FLIGHT if is_wsgi else CONNECTIONS
        self.siblings: list[Slot] = []  #: as of the last look
        #: age of a sibling -> the load with which it took no connection that was left to it, and how often in a row
        self.vain: dict[int, tuple[int, int]] = {}
        self.tick()

    def tick(self) -> None:
        """Once a second: see who is there, and think the best of everybody."""
        self._look()
        self.vain.clear()

    def _look(self) -> None:
        self.youngest = self.board.youngest[0]
        self.siblings = [slot for slot in self.board.living() if slot[AGE] != self.slot[AGE]]

    # -- a fair share

    def alone(self) -> bool:
        """Whether there are no siblings. One that comes is seen at once, one that has died at the next tick."""
        if self.youngest != self.board.youngest[0]:
            self._look()
        return not self.siblings

    def crowded(self) -> bool:
        """Whether a sibling carries less than this worker, and could take a connection."""
        own = self._load(self.slot)
        return any(self._load(sibling) < own and self._takes(sibling) for sibling in self.siblings)

    def left_in_vain(self) -> None:
        """
        A connection was left to the siblings, and was still there afterwards.

        One whose load does not change meanwhile is blocked. When that has happened a few
        times it is left out of account, until it moves or the next tick: the others
        would go on losing a few milliseconds with every connection.
        """
        own = self._load(self.slot)
        for sibling in self.siblings:
            load = self._load(sibling)
            if load < own:
                seen, times = self.vain.get(sibling[AGE], (load, 0))
                self.vain[sibling[AGE]] = load, min(times + 1, VAIN_MAX) if seen == load else 1

    def _load(self, slot: Slot) -> int:
        return sum(slot[self.first : IN_FLIGHT + 1])

    def _takes(self, sibling: Slot) -> bool:
        return (
            sibling[STANDING] in ACCEPTING
            and sibling[CONNECTIONS] < self.settings.worker_connections
            and self.vain.get(sibling[AGE]) != (self._load(sibling), VAIN_MAX)
        )

    # -- taking turns

    def successor(self) -> Standing:
        """
        READY when a younger worker accepts, BOOTING when one is about to, FREE when none is coming.

        For a worker that was told to go: until a younger one is ready it had better stay.
        One that was told to go as well is no successor; it takes a moment to say so.
        """
        self._look()
        younger = {sibling[STANDING] for sibling in self.siblings if sibling[AGE] > self.slot[AGE]}
        if not younger.isdisjoint(ACCEPTING):
            return Standing.READY
        return Standing.BOOTING if Standing.BOOTING in younger else Standing.FREE

    def may_go(self, now: float) -> bool:
        """
        Whether this worker, which wishes to be replaced, may go; ``now`` is ``time.monotonic()``.

        One goes at a time, the oldest that wishes first. The others wait until its
        replacement is ready, or for ``graceful_timeout``, whatever has become of either.
        """
        waited = now - self.slot[SINCE] / 1e6
        if waited <= WISH:
            return False
        self._look()
        if waited > self.settings.graceful_timeout * (1 + len(self.siblings)):
            return True  # an older one wishes and never goes: it is blocked
        others = [slot for slot in self.board.slots if slot[AGE] != self.slot[AGE]]
        older = (slot for slot in self.siblings if slot[AGE] < self.slot[AGE])
        return not any(slot[STANDING] == Standing.WISHING for slot in older) and not any(
            self._away(slot, now) for slot in others
        )

    def _away(self, slot: Slot, now: float) -> bool:
        """Whether the group is short of a worker because of ``slot``."""
        standing = slot[STANDING]
        if standing in ACCEPTING or now - slot[SINCE] / 1e6 > self.settings.graceful_timeout:
            return False
        # The slot of one that recycled stays as it is until the master claims one for the replacement.
        return standing == Standing.RECYCLING or (standing != Standing.FREE and present(slot))


def stand(slot: Slot, standing: Standing) -> None:
    """Say in ``slot`` what its worker does from now on."""
    slot[SINCE] = time.monotonic_ns() // 1000
    slot[STANDING] = standing


def present(slot: Slot) -> bool:
    """Whether the worker of a slot that is not free lives, or is about to."""
    return not slot[PID] or alive(slot[PID])


def alive(pid: int) -> bool:
    """Whether there is a process ``pid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, so it exists
        return True
    return True
