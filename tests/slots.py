"""Scoreboards for tests, whose workers are all this process."""

from __future__ import annotations

import os

from hybridworker.group.scoreboard import PID, Group, Scoreboard, Slot, WorkerState, set_state

#: Of this process: a worker with it lives.
OWN = os.getpid()


def take(scoreboard: Scoreboard, age: int, state: WorkerState = WorkerState.READY, pid: int = OWN) -> Slot:
    """A slot as a worker in that state leaves it."""
    slot = scoreboard.claim(age)
    assert slot is not None
    slot[PID] = pid
    set_state(slot, state)
    return slot


def group(*states: WorkerState) -> tuple[Group, list[Slot]]:
    """A group in these states as its first worker sees it, and the slots of all of them, from age 1 on."""
    scoreboard = Scoreboard(8)
    slots = [take(scoreboard, age, state) for age, state in enumerate(states, 1)]
    return Group(scoreboard, slots[0]), slots
