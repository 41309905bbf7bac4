"""
Succession: when a worker may leave, so that no two of the group are missing at once.

There are two reasons to go. A worker that was told to (HUP, TERM) goes on accepting while a
younger one boots, and stays if none of them can: it asks :meth:`Succession.outlook`. A worker
that wants to be replaced (``max_requests``, ``HYBRIDWORKER_MAX_RSS``) waits for its turn: it asks
:meth:`Succession.may_go`. What the others do is read from the scoreboard. Event loop side only.

Invariant: a worker that was told to go waits for others only while the master manages its workers.
A master that stops says TERM as well, and then manages no more: see :meth:`Scoreboard.rank`.
"""

from __future__ import annotations

import enum
import time

from ..config.settings import Settings
from .scoreboard import ACCEPTING, AGE, FAILURES, SINCE, STATE, STAYED, Group, Slot, WorkerState, present

BOOTING, READY, WISHING = WorkerState.BOOTING, WorkerState.READY, WorkerState.WISHING
FAILED, FREE = WorkerState.FAILED, WorkerState.FREE
RETIRING, DRAINING, RECYCLING = WorkerState.RETIRING, WorkerState.DRAINING, WorkerState.RECYCLING

#: Seconds from a wish to be replaced to the earliest turn. By then every sibling has shown its own wish.
WISH = 1.0

#: Seconds after which a master that has not looked at its workers is one that stops. It looks once a second.
SILENCE = 3.0


#: The states of a worker that has not accepted yet.
COMING = frozenset({BOOTING, FAILED})


class Outlook(enum.Enum):
    """What a worker that was told to go had better do."""

    LEAVE = enum.auto()  #: a younger one accepts, or none is coming
    WAIT = enum.auto()  #: a younger one boots, or it is not known yet which of the other two it is
    STAY = enum.auto()  #: those that were to come could not boot


#: Is the group short of a worker because of a sibling? No; since the sibling has its state; or since a time that nobody
#: knows, so what counts is how long this worker has waited.
HERE, AWAY, DIED = range(3)

#: State of a sibling -> the answer while it lives, and when it is dead. The slot of a dead worker keeps its state until
#: the master claims a slot for the replacement. One that was told to go was replaced before, or never will be.
ABSENCE = {
    BOOTING: (AWAY, DIED),
    READY: (HERE, DIED),
    WISHING: (HERE, DIED),
    RETIRING: (AWAY, HERE),
    DRAINING: (AWAY, HERE),
    RECYCLING: (AWAY, AWAY),
    FAILED: (DIED, DIED),
}


class Succession:
    """The place of one worker in the succession of its group."""

    __slots__ = ("coming", "group", "newest", "settings", "told")

    def __init__(self, group: Group, settings: Settings) -> None:
        self.group = group
        self.settings = settings
        self.coming: set[int] | None = None  #: ages of the workers that booted when this one was told to go
        self.newest = 0  #: age of the youngest worker at that time
        self.told = 0  #: when this worker was last told to go, ``time.monotonic()`` in microseconds

    def arrived(self) -> None:
        """This worker accepts: what boots now is sound."""
        self.group.slot[FAILURES] = 0
        self.group.scoreboard.broken[0] = 0

    # -- told to go

    def told_to_go(self) -> None:
        """
        Note who boots now, or has just failed to: those workers replace this one and others. See :meth:`successor`.

        A sibling that accepts already is no successor: it may have been told to go as well,
        and be too busy to show it.
        """
        self.told_again()
        self.group.look()
        self.coming = {slot[AGE] for slot in self.group.siblings if slot[STATE] in COMING and self._is_younger(slot)}
        self.newest = self.group.youngest

    def told_again(self) -> None:
        """The master may repeat itself while there are too many workers, or mean another thing."""
        self.told = time.monotonic_ns() // 1000

    def successor(self) -> WorkerState:
        """
        READY when a younger worker has come to accept, BOOTING when one is about to.

        FAILED when those that were to come could not boot, FREE when none is coming.
        """
        if self.coming is None:
            self.told_to_go()
        coming = self.coming or ()
        self.group.look()
        states = {
            _standing(slot)
            for slot in self.group.others()
            if self._is_younger(slot) and (slot[AGE] in coming or slot[AGE] > self.newest)
        }
        if not states.isdisjoint(ACCEPTING):
            return READY
        return next((state for state in (BOOTING, FAILED) if state in states), FREE)

    def outlook(self) -> Outlook:
        """
        What this worker, which was told to go, had better do now.

        To stay is right only when the master has gone on since it has told: else it may be a real stop.
        """
        state = self.successor()
        if (state is not BOOTING and state is not FAILED) or self._master_is_silent():
            return Outlook.LEAVE
        if state is FAILED and self.group.scoreboard.looked[0] > self.told:
            return Outlook.STAY
        return Outlook.WAIT

    def stay(self) -> None:
        """Those that were to replace this worker could not boot: the master had better send them away."""
        self.coming = None
        self.group.slot[STAYED] = self.group.scoreboard.youngest[0]

    def _master_is_silent(self) -> bool:
        return time.monotonic_ns() / 1000 - self.group.scoreboard.looked[0] > SILENCE * 1e6

    def _is_younger(self, slot: Slot) -> bool:
        return bool(slot[AGE] > self.group.slot[AGE])

    # -- wishing to be replaced

    def single(self) -> bool:
        """Whether there is no sibling to take turns with, and none that has died and will be replaced."""
        others = self.group.others()
        if self.group.scoreboard.broken[0]:
            return False  # nobody may come: see `held_back`
        return self.group.alone() and all(ABSENCE[WorkerState(slot[STATE])][1] == HERE for slot in others)

    def held_back(self) -> bool:
        """Whether nobody would serve if this worker went: the last boot has failed, and no sibling accepts."""
        return bool(self.group.scoreboard.broken[0]) and not any(
            slot[STATE] in ACCEPTING for slot in self.group.siblings
        )

    def may_go(self, now: float) -> bool:
        """
        Whether this worker, which wishes to be replaced, may go; ``now`` is ``time.monotonic()``.

        One worker goes at a time, the oldest that wishes first. The others wait until its
        replacement is ready, or for as long as it may take to leave and that may take to
        come, whatever has become of either.
        """
        waited = now - self.group.slot[SINCE] / 1e6
        if waited <= WISH:
            return False
        self.group.look()
        siblings = self.group.siblings
        if self.held_back() or any(slot[STATE] == FAILED for slot in siblings):
            return False  # however long it takes: one worker less, and its replacement could not boot
        if waited > self._turn * (1 + len(siblings)):
            return True  # an older one wishes and never goes: it is blocked
        older = (slot for slot in siblings if slot[AGE] < self.group.slot[AGE])
        return not any(slot[STATE] == WISHING for slot in older) and not any(
            self._is_away(slot, now) for slot in self.group.others()
        )

    def _is_away(self, slot: Slot, now: float) -> bool:
        """Whether the group is short of a worker because of ``slot``."""
        alive, dead = ABSENCE[WorkerState(slot[STATE])]
        absence = alive if present(slot) else dead
        if absence == HERE:
            return False
        since = slot[SINCE] if absence == AWAY else self.group.slot[SINCE]
        patience = self._turn if slot[STATE] == RECYCLING else self.settings.graceful_timeout
        return now - since / 1e6 <= patience

    @property
    def _turn(self) -> float:
        """Seconds for which a worker that leaves by itself may finish its requests, where there is an end to that."""
        return self.settings.graceful_timeout + self.settings.timeout


def _standing(slot: Slot) -> WorkerState:
    """What can be expected of the worker of ``slot``, dead or alive."""
    state = WorkerState(slot[STATE])
    if slot[STAYED]:
        return FREE  # it was told to go as well, just after its own boot
    if state is FAILED or present(slot):
        return state
    return FAILED if state is BOOTING else FREE  # it crashed, or was killed for the memory it took
