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

from .config.settings import Settings
from .wsgi.threads import WAITS

#: Workers that a board can hold: so many, or so many times the workers that are configured (TTIN makes more).
#: One too many serves all the same, without the others knowing of it.
SLOTS, SLOTS_EACH = 128, 4

#: Seconds that a wish to be replaced is on the board before it may come true: every sibling has said its own by then.
WISH = 1.0

#: How much more than a sibling a worker carries when it leaves connections to it. With one less, every second
#: connection of clients that make one for each request would be left to others, and come to a rest meanwhile.
LEAD = 2

#: Seconds for which connections were left to a sibling in vain before it counts as blocked, and how much of that is
#: forgiven at every tick.
VAIN_MAX, PROBE = 0.008, 0.0005

#: Why workers were replaced.
REASONS = ("term", "reload", "max_requests", "max_rss", "hook")


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

#: Leaving, and not by themselves.
_TOLD = frozenset({Standing.RETIRING, Standing.DRAINING})


# The cells of a row, each a number. The first four are the worker's state, written first by the master, which claims
# the slot; then follow what the worker carries, what it uses, and counters.
PID, AGE, STANDING, SINCE = range(4)  #: SINCE: of the standing, ``time.monotonic()`` in microseconds
CONNECTIONS, IN_FLIGHT, BUSY, QUEUED = range(4, 8)
TAKEN = 8  #: how many connections the worker has accepted
LAG, RSS, STARTED = range(9, 12)  #: microseconds; KiB; seconds since the epoch
SERVED = 12  #: and the four behind it: responses by status class, 1xx to 5xx
RECYCLED = SERVED + 5  #: and those behind it, one for each of REASONS
WAITED = RECYCLED + len(REASONS)  #: and those behind it, one for each bucket, then the sum in microseconds
CELLS = WAITED + WAITS

_NOTHING = memoryview(bytes(8 * (STARTED - CONNECTIONS))).cast("q")

#: The row of one worker. A worker without a board writes to a list that nobody reads.
Slot = memoryview | list[int]


class Board:
    """The shared memory of one master."""

    _of_master: ClassVar[tuple[int, Board | None]] = (0, None)

    def __init__(self, slots: int = SLOTS) -> None:
        """Map the memory. Raises OSError where there is none to be had."""
        cells = memoryview(mmap.mmap(-1, (slots * CELLS + 1) * 8)).cast("q")
        self.slots = [cells[at : at + CELLS] for at in range(0, slots * CELLS, CELLS)]
        self.exceeded = False  #: there were more workers than slots
        self.youngest = cells[-1:]  #: one cell more: the age of the last worker that claimed a slot

    @classmethod
    def of_master(cls, warn: Callable[..., object], workers: int = 1) -> Board | None:
        """
        The board of this process, made the first time; None, and one warning, where it cannot be made.

        It has room for several times the number of ``workers`` that are configured.

        A master that was re-executed for an upgrade makes a board of its own.
        """
        pid, board = cls._of_master
        if pid != os.getpid():
            try:
                board = cls(max(SLOTS, SLOTS_EACH * workers))
            except OSError as exc:
                board = None
                warn("There is no shared memory (%s): workers serve without knowing of each other", exc)
            Board._of_master = os.getpid(), board
        return board

    def claim(self, age: int, warn: Callable[..., object] = lambda message: None) -> Slot | None:
        """
        Take a slot whose worker is dead, for a worker about to be forked; None, and one warning, when all are taken.

        For the master, which writes the pid of a worker when it has forked it. So a slot
        that has none now belongs to a worker that never came to be.
        """
        free = [slot for slot in self.slots if not (slot[PID] and alive(slot[PID]))]
        if not free:
            if not self.exceeded:
                self.exceeded = True
                warn("There are too many workers: the others do not know of the last ones, and share less fairly")
            return None
        slot = free[0]
        # The order of the writes: at no time is the group complete, or the slot that of a worker that accepts, and
        # it never looks unused.
        stand(slot, Standing.BOOTING)
        slot[AGE], slot[STARTED] = age, int(time.time())
        slot[CONNECTIONS:STARTED] = _NOTHING
        slot[PID] = 0
        self.youngest[0] = age
        for other in free[1:]:
            other[STANDING] = Standing.FREE
        return slot

    def living(self) -> list[Slot]:
        """The slots of workers that live, or are about to."""
        return [slot for slot in self.slots if slot[STANDING] != Standing.FREE and present(slot)]


class Fleet:
    """
    One worker among its siblings.

    The load of a worker is its connections and its requests in flight. ``threads`` is how
    many calls a WSGI worker runs at once, None for an ASGI application.
    """

    __slots__ = ("board", "coming", "left", "newest", "settings", "siblings", "slot", "threads", "vain", "youngest")

    def __init__(self, board: Board, slot: Slot, settings: Settings, threads: int | None = None) -> None:
        self.board = board
        self.slot = slot
        self.settings = settings
        self.threads = threads
        self.siblings: list[Slot] = []  #: as of the last look
        #: to whom the connection at hand was left, and how many each had taken by then
        self.left: list[tuple[Slot, int]] = []
        #: age of a sibling -> how many connections it had taken when one was left to it in vain, and for how long
        #: there were such connections
        self.vain: dict[int, tuple[int, float]] = {}
        self.coming: set[int] | None = None  #: ages of the workers that booted when this one was told to go
        self.newest = 0  #: the youngest of all then
        self.tick()

    def tick(self) -> None:
        """Once a second: see who is there, and give the blocked another chance, a short one."""
        self._look()
        self.vain = {
            age: (taken, spent - PROBE) for age, (taken, spent) in self.vain.items() if spent > VAIN_MAX - 2 * PROBE
        }

    def _look(self) -> None:
        self.youngest = self.board.youngest[0]
        self.siblings = [slot for slot in self.board.living() if slot[AGE] != self.slot[AGE]]

    def rows(self) -> list[Slot]:
        """The slots of all workers; behind them our own, if the board had no room for it."""
        slots: list[Slot] = [*self.board.slots]
        return slots if any(slot[AGE] == self.slot[AGE] for slot in slots) else [*slots, self.slot]

    # -- a fair share

    def alone(self) -> bool:
        """Whether there are no siblings. One that comes is seen at once, one that has died at the next tick."""
        if self.youngest != self.board.youngest[0]:
            self._look()
        return not self.siblings

    def crowded(self, fresh: bool = False) -> bool:
        """
        Whether a sibling carries less than this worker, and could take a connection.

        With ``fresh`` this worker has just taken some whose requests may not have come in
        yet: beside those of a sibling they would look light, so the connections alone
        count as well.
        """
        if self._load(self.slot) < LEAD:
            return False  # the commonest case
        for sibling in self.siblings:
            if self._lighter(sibling, fresh) and self._takes(sibling, fresh):
                return True
        return False

    def leave(self, fresh: bool = False) -> None:
        """A connection is left to the siblings that carry less: keep who they are."""
        self.left = [
            (sibling, sibling[TAKEN])
            for sibling in self.siblings
            if self._lighter(sibling, fresh) and self._takes(sibling, fresh)
        ]

    def left_for(self, seconds: float, in_vain: bool) -> None:
        """
        So long a connection was left to others, and ``in_vain`` if there is still one.

        One that took none meanwhile is blocked, or as good as. When there were connections
        for it for :data:`VAIN_MAX` it is left out of account, until it takes one by itself,
        or until the tick: the others would go on losing a few milliseconds with every
        connection. One that took some is forgiven as much time.
        """
        for sibling, taken in self.left:
            spent = self.vain.get(sibling[AGE], (0, 0.0))[1]
            if sibling[TAKEN] != taken:
                self.vain[sibling[AGE]] = sibling[TAKEN], spent / 2
            elif in_vain:
                self.vain[sibling[AGE]] = taken, min(VAIN_MAX, spent + seconds)
        self.left = []

    def has_room(self) -> bool:
        """Whether a sibling accepts, and has not as many connections as ``worker_connections`` allows."""
        return any(self._accepts(sibling) for sibling in self.siblings)

    def _load(self, slot: Slot) -> int:
        return slot[CONNECTIONS] + slot[IN_FLIGHT]

    def _lighter(self, sibling: Slot, fresh: bool) -> bool:
        slot = self.slot
        lead = slot[CONNECTIONS] - sibling[CONNECTIONS]
        return lead + slot[IN_FLIGHT] - sibling[IN_FLIGHT] >= LEAD or (fresh and lead >= LEAD)

    def _accepts(self, sibling: Slot) -> bool:
        return sibling[STANDING] in ACCEPTING and sibling[CONNECTIONS] < self.settings.worker_connections

    def _takes(self, sibling: Slot, fresh: bool) -> bool:
        """Whether ``sibling`` would serve a connection as soon as this worker."""
        if self.vain.get(sibling[AGE]) == (sibling[TAKEN], VAIN_MAX) or not self._accepts(sibling):
            return False
        # Idle connections cost no thread: one with few of them may have calls waiting all the same. But the threads
        # that are free here may be for requests that have not come in yet.
        return self.threads is None or fresh or not self.slot[IN_FLIGHT] < self.threads < sibling[IN_FLIGHT]

    # -- taking turns

    def told_to_go(self) -> None:
        """
        From now on: see :meth:`successor`.

        Those that boot now come in the place of this worker and of others. One that accepts
        already may have been told to go as well, and be too busy to say so.
        """
        self._look()
        self.coming = {slot[AGE] for slot in self._younger() if slot[STANDING] == Standing.BOOTING}
        self.newest = self.youngest

    def successor(self) -> Standing:
        """
        READY when a younger worker has come to accept, BOOTING when one is about to, FREE when none is coming.

        For a worker that was told to go: until a younger one is ready it had better stay.
        """
        if self.coming is None:
            self.told_to_go()
        coming = self.coming or ()
        self._look()
        new = {slot[STANDING] for slot in self._younger() if slot[AGE] in coming or slot[AGE] > self.newest}
        if not new.isdisjoint(ACCEPTING):
            return Standing.READY
        return Standing.BOOTING if Standing.BOOTING in new else Standing.FREE

    def _younger(self) -> list[Slot]:
        return [sibling for sibling in self.siblings if sibling[AGE] > self.slot[AGE]]

    def single(self) -> bool:
        """Whether there is nobody to take turns with: no sibling, and none that has died and is to be replaced."""
        return self.alone() and all(slot[STANDING] in _TOLD for slot in self._others())

    def may_go(self, now: float) -> bool:
        """
        Whether this worker, which wishes to be replaced, may go; ``now`` is ``time.monotonic()``.

        One goes at a time, the oldest that wishes first. The others wait until its
        replacement is ready, or for as long as it may take to leave and that may take to
        come, whatever has become of either.
        """
        waited = now - self.slot[SINCE] / 1e6
        if waited <= WISH:
            return False
        self._look()
        if waited > self._turn * (1 + len(self.siblings)):
            return True  # an older one wishes and never goes: it is blocked
        older = (slot for slot in self.siblings if slot[AGE] < self.slot[AGE])
        return not any(slot[STANDING] == Standing.WISHING for slot in older) and not any(
            self._away(slot, now) for slot in self._others()
        )

    def _others(self) -> list[Slot]:
        return [slot for slot in self.board.slots if slot[STANDING] != Standing.FREE and slot[AGE] != self.slot[AGE]]

    def _away(self, slot: Slot, now: float) -> bool:
        """Whether the group is short of a worker because of ``slot``."""
        standing, there = slot[STANDING], present(slot)
        if standing in _TOLD and not there:
            return False  # nobody comes in its place
        if there and standing in ACCEPTING:
            return False
        # The slot of one that is dead stays as it is until the master claims one for the replacement. When it died is
        # not known, so what counts is how long this worker has waited.
        since = slot[SINCE] if there or standing == Standing.RECYCLING else self.slot[SINCE]
        patience = self._turn if standing == Standing.RECYCLING else self.settings.graceful_timeout
        return now - since / 1e6 <= patience

    @property
    def _turn(self) -> float:
        """Seconds for which a worker that leaves by itself may finish its requests, where there is an end to that."""
        return self.settings.graceful_timeout + self.settings.timeout


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
