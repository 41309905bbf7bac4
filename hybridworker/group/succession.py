"""
Succession: when a worker goes, so that the group is never short of two.

There are two reasons to go. A worker that was told to (HUP, TERM) goes on accepting while a
younger one boots: it asks :meth:`Succession.successor`. A worker that wants to be replaced
(``max_requests``, ``HYBRIDWORKER_MAX_RSS``) waits for its turn: it asks
:meth:`Succession.may_go`. What the others do is read from the scoreboard. Event loop side only.

Invariant: no wait here is without an end, because a sibling may be blocked or dead.
"""

from __future__ import annotations

from ..config.settings import Settings
from .scoreboard import ACCEPTING, AGE, SINCE, STATE, Group, Slot, WorkerState, present

BOOTING, READY, WISHING = WorkerState.BOOTING, WorkerState.READY, WorkerState.WISHING
RETIRING, DRAINING, RECYCLING = WorkerState.RETIRING, WorkerState.DRAINING, WorkerState.RECYCLING

#: Seconds from a wish to be replaced to the earliest turn. By then every sibling has shown its own wish.
WISH = 1.0

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
}


class Succession:
    """The place of one worker in the succession of its group."""

    __slots__ = ("coming", "group", "newest", "settings")

    def __init__(self, group: Group, settings: Settings) -> None:
        self.group = group
        self.settings = settings
        self.coming: set[int] | None = None  #: ages of the workers that booted when this one was told to go
        self.newest = 0  #: age of the youngest worker at that time

    # -- told to go

    def told_to_go(self) -> None:
        """
        Note who boots now: those workers replace this one and others. See :meth:`successor`.

        A sibling that accepts already is no successor: it may have been told to go as well,
        and be too busy to show it.
        """
        self.group.look()
        self.coming = {slot[AGE] for slot in self._younger() if slot[STATE] == BOOTING}
        self.newest = self.group.youngest

    def successor(self) -> WorkerState:
        """
        READY when a younger worker has come to accept, BOOTING when one is about to, FREE when none is coming.

        A worker that was told to go had better stay while this is BOOTING.
        """
        if self.coming is None:
            self.told_to_go()
        coming = self.coming or ()
        self.group.look()
        states = {slot[STATE] for slot in self._younger() if slot[AGE] in coming or slot[AGE] > self.newest}
        if not states.isdisjoint(ACCEPTING):
            return READY
        return BOOTING if BOOTING in states else WorkerState.FREE

    def _younger(self) -> list[Slot]:
        return [sibling for sibling in self.group.siblings if sibling[AGE] > self.group.slot[AGE]]

    # -- wishing to be replaced

    def single(self) -> bool:
        """Whether there is no sibling to take turns with, and none that has died and will be replaced."""
        others = self.group.others()
        return self.group.alone() and all(ABSENCE[WorkerState(slot[STATE])][1] == HERE for slot in others)

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
