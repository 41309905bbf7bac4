"""
Scoreboard: how the workers of one master know of each other.

The master maps a piece of anonymous shared memory, the :class:`Scoreboard`, when it makes its first worker; every fork
inherits it. Each worker has a row of 64-bit cells there, its :class:`Slot`. Only that worker writes to it; every
process may read it. :class:`Group` is what one worker sees of the others, for :mod:`.share`, :mod:`.succession` and
:mod:`..process.endpoints`. Event loop side, except for :meth:`Scoreboard.claim`, which the master calls before it
forks.

There is no lock. A cell is written as one aligned machine word, so a reader sees the old
value or the new one. A row may be torn: a reader may see one count from before a change
beside another from after it. No two cells here are related so closely that this would
matter: a share is off by one connection for a moment, a sum by one request.

Invariant: counters belong to the slot and are never reset, so that the sums of the group do
not fall when a worker is replaced.
"""

from __future__ import annotations

import enum
import mmap
import os
import time
from collections.abc import Callable
from typing import ClassVar

from ..wsgi.waits import WAITS
from .durations import SIZE
from .ledger import LEDGER_CELLS, Ledger

#: How many workers a scoreboard can hold: at least, and for each worker that is configured (TTIN makes more).
#: A worker without a slot serves all the same, but the others do not know of it.
SLOTS, SLOTS_EACH = 128, 4

#: Why workers were replaced.
REASONS = ("term", "reload", "max_requests", "max_rss", "hook", "max_age", "lost_threads")

#: Why requests were turned away: they had waited too long, there were too many, the answer was late, the body too long.
SHEDS = ("queue", "requests", "timeout", "body")

#: What the application had left behind when its worker went gracefully, and what became of it.
LEFT = (("task", "finished"), ("task", "cut"), ("job", "finished"), ("job", "cut"))


#: Why HTTP/2 streams are reset (RFC 9113 7), each at the place of its error code.
RESET_CODES = (
    "no_error", "protocol_error", "internal_error", "flow_control_error", "settings_timeout", "stream_closed",
    "frame_size_error", "refused_stream", "cancel", "compression_error", "connect_error", "enhance_your_calm",
)  # fmt: skip


class WorkerState(enum.IntEnum):
    """What a worker is doing, as its siblings see it."""

    FREE = 0  #: the slot belongs to no worker
    BOOTING = 1  #: forked or about to be, not accepting yet
    READY = 2  #: accepting
    WISHING = 3  #: accepting, and would like to be replaced
    RETIRING = 4  #: told to go, and accepting until a younger one does
    DRAINING = 5  #: leaving because it was told to
    RECYCLING = 6  #: leaving by itself: the master makes its replacement when it is gone
    FAILED = 7  #: could not boot while others accept; about to leave, so that the master tries again


#: The states in which a worker can be counted on to accept connections.
ACCEPTING = frozenset({WorkerState.READY, WorkerState.WISHING})

#: The states in which a worker serves, be it for the time until a younger one does.
SERVING = ACCEPTING | {WorkerState.RETIRING}


# The cells of a row, each a number. The first four tell whose slot it is, and are written first by the master, which
# claims the slot. Then follow what the worker carries, what it uses, and counters.
PID, AGE, STATE, SINCE = range(4)  #: SINCE: when the state began, ``time.monotonic()`` in microseconds
CONNECTIONS, IN_FLIGHT, BUSY, QUEUED = range(4, 8)
TAKEN = 8  #: how many connections the worker has accepted
STAYED = 9  #: age of the youngest worker when this one was told to go and stayed; 0 = it was not
MULTIPLEXED, STREAMS = 10, 11  #: the connections that speak HTTP/2, and their streams
THREADED = 12  #: of the requests in flight those of WSGI parts; only a worker with a Hybrid counts them apart
LENT, LENT_QUEUED = range(13, 15)  #: threads that are lent to ASGI calls, and calls that wait for one
LAG, RSS, STARTED = range(15, 18)  #: microseconds; KiB; seconds since the epoch
SERVED = 18  #: and the four behind it: responses by status class, 1xx to 5xx
RECYCLED = SERVED + 5  #: and those behind it, one for each of REASONS
WAITED = RECYCLED + len(REASONS)  #: and those behind it, one for each bucket, then the sum in microseconds
FAILURES = WAITED + WAITS  #: boots in this slot that have failed, since the last one that did not
LEFTOVERS = FAILURES + 1  #: and those behind it, one for each of LEFT
QUEUE_AGE = LEFTOVERS + len(LEFT)  #: microseconds that the oldest call has waited for a thread
LAST_RECYCLE = QUEUE_AGE + 1  #: the last reason, counted from 1 in REASONS; 0 before there was one
LAST_RECYCLED = LAST_RECYCLE + 1  #: when that was, in seconds since the epoch
TIMED = LAST_RECYCLED + 1  #: and those behind it: durations, as :class:`~.durations.Durations` has them
LENT_WAITED = TIMED + SIZE  #: as WAITED, of those who borrow a thread
LENT_BEYOND = LENT_WAITED + WAITS  #: threads that were lent beyond the bound
UPGRADED = LENT_BEYOND + 1  #: of what is in flight, the WebSockets
SHED = UPGRADED + 1  #: and those behind it, one for each of SHEDS
RESET = SHED + len(SHEDS)  #: HTTP/2 streams that clients have reset
RESETS = RESET + 1  #: and those behind it: streams that the worker has reset, by error code
CELLS = RESETS + len(RESET_CODES)

#: The cells behind the rows, which are no worker's: see :class:`Scoreboard`.
SHARED = 4

_NOTHING = memoryview(bytes(8 * (STARTED - CONNECTIONS))).cast("q")

#: The row of one worker. A worker without a scoreboard writes to a list that no other process reads.
Slot = memoryview | list[int]


class Scoreboard:
    """
    The shared memory of one master.

    ``workers`` is how many the first boot makes. The cells behind the rows belong to the group:
    ``youngest`` and ``broken`` are written by workers and master, ``looked`` and ``upgrading`` by
    the master alone, in :meth:`rank`.
    """

    _of_master: ClassVar[tuple[int, Scoreboard | None]] = (0, None)

    def __init__(self, slots: int = SLOTS, workers: int = 0) -> None:
        """Map the memory. Raises OSError when there is not enough of it."""
        rows, ledgers = slots * CELLS, slots * LEDGER_CELLS
        cells = memoryview(mmap.mmap(-1, (rows + SHARED + ledgers) * 8)).cast("q")
        self.slots = [cells[at : at + CELLS] for at in range(0, rows, CELLS)]
        #: what the slots have for the parts of a Hybrid; behind all rows, where memory that nobody uses costs nothing
        self._ledgers = [
            cells[at : at + LEDGER_CELLS] for at in range(rows + SHARED, rows + SHARED + ledgers, LEDGER_CELLS)
        ]
        shared = cells[rows : rows + SHARED]
        self.workers = workers
        self.exceeded = False  #: there were more workers than slots
        self.youngest = shared[-1:]  #: the age of the last worker that claimed a slot
        self.broken = shared[-2:-1]  #: 1 if the last boot has failed: a worker that goes may not be replaced
        self.looked = shared[-3:-2]  #: when the master looked at its workers, ``time.monotonic()`` in microseconds
        self.upgrading = shared[-4:-3]  #: 1 while the master that was upgraded to this one lives

    @classmethod
    def of_master(cls, warn: Callable[..., object], workers: int = 1) -> Scoreboard | None:
        """
        Return the scoreboard of this process; the first call makes it. Where that fails: None, and one warning.

        It has room for several times the number of ``workers`` that are configured. A master
        that was re-executed for an upgrade makes a scoreboard of its own.
        """
        pid, scoreboard = cls._of_master
        if pid != os.getpid():
            try:
                scoreboard = cls(max(SLOTS, SLOTS_EACH * workers), workers)
            except OSError as exc:
                scoreboard = None
                warn("There is no shared memory (%s): workers serve without knowing of each other", exc)
            else:
                scoreboard.upgrading[0] = int("GUNICORN_PID" in os.environ)
            Scoreboard._of_master = os.getpid(), scoreboard
        return scoreboard

    def claim(self, age: int, warn: Callable[..., object] = lambda message: None) -> Slot | None:
        """
        Take a slot whose worker is dead, for a worker about to be forked; None, and one warning, when all are taken.

        The master calls this, and writes the pid of a worker as soon as it has forked it. So
        a slot without a pid now belongs to a worker that was never forked.
        """
        free = [slot for slot in self.slots if not (slot[PID] and alive(slot[PID]))]
        if not free:
            if not self.exceeded:
                self.exceeded = True
                warn("There are too many workers: the others do not know of the last ones, and share less fairly")
            return None
        slot = free[0]
        # The order of the writes matters to readers: at no time does the group look complete, or the slot look unused
        # or like that of a worker that accepts.
        set_state(slot, WorkerState.BOOTING)
        slot[AGE], slot[STARTED] = age, int(time.time())
        slot[CONNECTIONS:STARTED] = _NOTHING
        slot[UPGRADED] = 0
        slot[QUEUE_AGE] = 0
        slot[PID] = 0
        self.youngest[0] = age
        for other in free[1:]:
            other[STATE] = WorkerState.FREE
        return slot

    def ledger(self, slot: Slot) -> Ledger | None:
        """The ledger of ``slot``; None where that is no slot of this scoreboard."""
        return next((Ledger(cells) for own, cells in zip(self.slots, self._ledgers, strict=True) if own is slot), None)

    def rank(self, slot: Slot | None, age: int) -> float:
        """
        The age of the worker of ``slot`` for the master, which sends the oldest away; for the master alone.

        A worker that was told to go and stayed, because those that were to replace it could not
        boot, is younger than they are: so they are the ones that are too many, and the master
        waits for nobody. The master asks for ages whenever it manages its workers, at least once
        a second, and never when it is told to stop. So ``looked`` shows the workers which of it is.
        """
        self.looked[0] = time.monotonic_ns() // 1000
        self.upgrading[0] = int("GUNICORN_PID" in os.environ)  # until the other master has gone
        stayed = slot[STAYED] if slot is not None and slot[AGE] == age else 0
        return stayed + 0.5 if stayed else age

    def number(self, slot: Slot | None) -> int | None:
        """Which row ``slot`` is, from 0 on; None where it is none."""
        return next((number for number, other in enumerate(self.slots) if other is slot), None)

    def others_serve(self, age: int) -> bool:
        """Whether any worker but the one of this age accepts connections."""
        return any(slot[STATE] in SERVING and slot[AGE] != age for slot in self.living())

    def living(self) -> list[Slot]:
        """The slots of workers that live or are about to be forked."""
        return [slot for slot in self.slots if slot[STATE] != WorkerState.FREE and present(slot)]


class Group:
    """The workers of one master, as the worker with ``slot`` sees them."""

    __slots__ = ("scoreboard", "siblings", "slot", "youngest")

    def __init__(self, scoreboard: Scoreboard, slot: Slot) -> None:
        self.scoreboard = scoreboard
        self.slot = slot
        self.look()

    def look(self) -> None:
        """See which siblings there are; called once a second, and where a second would be too late."""
        self.youngest = self.scoreboard.youngest[0]  #: age of the last worker that claimed a slot
        self.siblings: list[Slot] = [slot for slot in self.scoreboard.living() if slot[AGE] != self.slot[AGE]]

    def alone(self) -> bool:
        """Whether there are no siblings. A new one is seen at once, a dead one is missed at the next look."""
        if self.youngest != self.scoreboard.youngest[0]:
            self.look()
        return not self.siblings

    def others(self) -> list[Slot]:
        """The slots in use but our own, those of dead workers included."""
        slots = self.scoreboard.slots
        return [slot for slot in slots if slot[STATE] != WorkerState.FREE and slot[AGE] != self.slot[AGE]]

    def rows(self) -> list[Slot]:
        """All slots; our own is the last one if the scoreboard has no room for it."""
        slots: list[Slot] = [*self.scoreboard.slots]
        return slots if any(slot[AGE] == self.slot[AGE] for slot in slots) else [*slots, self.slot]


def set_state(slot: Slot, state: WorkerState) -> None:
    """Show the siblings what the worker of ``slot`` does from now on."""
    slot[SINCE] = time.monotonic_ns() // 1000
    slot[STATE] = state


def present(slot: Slot) -> bool:
    """Whether the worker of a slot that is not free lives or is about to be forked."""
    return not slot[PID] or alive(slot[PID])


def alive(pid: int) -> bool:
    """Whether there is a process ``pid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user, so it exists
        return True
    return True
