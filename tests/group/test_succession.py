"""Succession: hand-over and turns, without any process but this one and one that has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hybridworker.group.scoreboard import (
    AGE,
    FAILURES,
    PID,
    SINCE,
    STARTED,
    STATE,
    Group,
    Scoreboard,
    Slot,
    WorkerState,
    set_state,
)
from hybridworker.group.succession import ABSENCE, SILENCE, Outlook, Succession
from tests.harness import make_settings
from tests.slots import group, take


def group_of(*states: WorkerState, **settings: Any) -> tuple[Succession, list[Slot]]:
    """The succession of the first worker of a group in these states, and the slots of all of them."""
    here, slots = group(*states)
    return Succession(here, make_settings(workers=len(slots), **settings)), slots


def wished(slot: Slot, seconds: float = 1.5) -> float:
    """Have ``slot`` wish to be replaced since ``seconds``; returns the time."""
    set_state(slot, WorkerState.WISHING)
    return slot[SINCE] / 1e6 + seconds


# -- handing over


@pytest.mark.parametrize(
    ("younger", "expected"),
    [
        ([], WorkerState.FREE),
        ([WorkerState.BOOTING], WorkerState.BOOTING),
        ([WorkerState.BOOTING, WorkerState.READY], WorkerState.BOOTING),
        ([WorkerState.READY], WorkerState.FREE),
        ([WorkerState.WISHING], WorkerState.FREE),
        ([WorkerState.RETIRING, WorkerState.BOOTING], WorkerState.BOOTING),
        ([WorkerState.RETIRING, WorkerState.DRAINING, WorkerState.RECYCLING], WorkerState.FREE),
    ],
)
def test_a_successor_is_awaited_while_one_boots(younger: list[WorkerState], expected: WorkerState) -> None:
    """One that accepts already may have been told to go as well, and be too busy to say so."""
    succession, _ = group_of(WorkerState.RETIRING, *younger)
    succession.told_to_go()
    assert succession.successor() is expected


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (WorkerState.READY, WorkerState.READY),
        (WorkerState.WISHING, WorkerState.READY),
        (WorkerState.DRAINING, WorkerState.FREE),
    ],
)
def test_a_successor_is_one_that_booted_when_this_one_was_told_to_go(later: WorkerState, expected: WorkerState) -> None:
    """Or that came later, in the place of one whose boot failed; not the blocked one, which has been told the same."""
    succession, slots = group_of(WorkerState.RETIRING, WorkerState.READY, WorkerState.BOOTING)
    succession.told_to_go()
    take(succession.group.scoreboard, 4, WorkerState.BOOTING)
    assert succession.successor() is WorkerState.BOOTING
    for slot in slots[2], succession.group.scoreboard.slots[3]:
        set_state(slot, WorkerState.DRAINING)
    assert succession.successor() is WorkerState.FREE
    set_state(succession.group.scoreboard.slots[3], later)
    assert succession.successor() is expected
    set_state(succession.group.scoreboard.slots[3], WorkerState.DRAINING)
    set_state(slots[2], later)
    assert succession.successor() is expected


def test_an_older_worker_is_no_successor() -> None:
    """It will be told to go before this one is."""
    board = Scoreboard(4)
    take(board, 1)
    succession = Succession(Group(board, take(board, 2, WorkerState.RETIRING)), make_settings())
    set_state(board.slots[0], WorkerState.BOOTING)
    succession.told_to_go()
    assert succession.successor() is WorkerState.FREE


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (WorkerState.BOOTING, WorkerState.FAILED),
        (WorkerState.FAILED, WorkerState.FAILED),
        (WorkerState.READY, WorkerState.FREE),
        (WorkerState.DRAINING, WorkerState.FREE),
    ],
)
def test_a_successor_that_died(dead: int, state: WorkerState, expected: WorkerState) -> None:
    """One that ended in its boot has failed; one that was told to go is not coming."""
    succession, slots = group_of(WorkerState.RETIRING, WorkerState.BOOTING)
    succession.told_to_go()
    slots[1][PID] = dead
    set_state(slots[1], state)
    assert succession.successor() is expected


# -- when nobody can boot


def looks(succession: Succession, seconds: float = 0.0) -> None:
    """The master has looked at its workers, now or so long ago."""
    succession.group.scoreboard.rank(None, 0)
    succession.group.scoreboard.looked[0] -= int(seconds * 1e6)


def test_a_worker_stays_when_those_that_were_to_come_have_failed() -> None:
    """But not before the master has gone on: it says TERM as well when it stops."""
    succession, slots = group_of(WorkerState.RETIRING, WorkerState.BOOTING, WorkerState.BOOTING)
    looks(succession)
    succession.told_to_go()
    assert succession.outlook() is Outlook.WAIT
    set_state(slots[1], WorkerState.FAILED)
    assert succession.outlook() is Outlook.WAIT  # the other one may be better
    set_state(slots[2], WorkerState.FAILED)
    assert succession.outlook() is Outlook.WAIT
    looks(succession)
    assert succession.outlook() is Outlook.STAY
    succession.told_again()
    assert succession.outlook() is Outlook.WAIT


def test_a_boot_that_failed_before_this_worker_was_told_counts() -> None:
    """It takes a few milliseconds to see that a module is missing."""
    succession, _ = group_of(WorkerState.RETIRING, WorkerState.FAILED)
    succession.told_to_go()
    looks(succession)
    assert succession.outlook() is Outlook.STAY


@pytest.mark.parametrize("state", [WorkerState.BOOTING, WorkerState.FAILED])
def test_nobody_waits_while_the_master_is_silent(state: WorkerState) -> None:
    """It stops, or has ended."""
    succession, _ = group_of(WorkerState.RETIRING, state)
    succession.told_to_go()
    looks(succession, seconds=SILENCE + 1)
    assert succession.outlook() is Outlook.LEAVE


def test_a_worker_that_stayed_is_nobodys_successor() -> None:
    """One that was told to go just after its own boot looked like one that was to come."""
    succession, slots = group_of(WorkerState.RETIRING, WorkerState.BOOTING, WorkerState.FAILED)
    succession.told_to_go()
    Succession(Group(succession.group.scoreboard, slots[1]), succession.settings).stay()
    set_state(slots[1], WorkerState.READY)
    looks(succession)
    assert succession.outlook() is Outlook.STAY


def test_a_worker_that_stayed_leaves_when_it_is_told_again() -> None:
    """What has failed before is not waited for a second time, and the master takes it for the oldest no more."""
    succession, slots = group_of(WorkerState.READY, WorkerState.FAILED)
    board = succession.group.scoreboard
    succession.told_to_go()
    succession.stay()
    assert board.rank(slots[0], 1) > board.rank(slots[1], 2) == 2
    set_state(slots[1], WorkerState.DRAINING)
    looks(succession)
    succession.told_to_go()
    assert succession.outlook() is Outlook.LEAVE
    take(board, 3, WorkerState.BOOTING)
    succession.told_to_go()
    assert succession.outlook() is Outlook.WAIT


def test_the_last_one_is_not_replaced_while_nobody_can_boot() -> None:
    """It waits, however long; a good boot ends that."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY)
    board = succession.group.scoreboard
    board.broken[0] = 1
    assert not succession.single()
    assert succession.may_go(wished(slots[0]))  # a sibling accepts
    set_state(slots[1], WorkerState.FAILED)
    assert not succession.may_go(wished(slots[0], 1000.0))
    set_state(slots[1], WorkerState.DRAINING)
    assert succession.held_back()
    assert not succession.may_go(wished(slots[0], 1000.0))
    slots[1][FAILURES] = 2
    Succession(Group(board, slots[1]), succession.settings).arrived()
    assert slots[1][FAILURES] == board.broken[0] == 0
    assert succession.may_go(wished(slots[0], 1000.0))


# -- taking turns


def test_a_wish_must_be_a_second_old() -> None:
    """By then every sibling has said its own."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY)
    assert not succession.may_go(wished(slots[0], 0.9))
    assert succession.may_go(wished(slots[0], 1.1))


def test_the_oldest_that_wishes_goes_first() -> None:
    """Its age decides, not when it wished."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY, WorkerState.READY)
    second = Succession(Group(succession.group.scoreboard, slots[1]), succession.settings)
    wished(slots[1])
    now = wished(slots[0])
    assert succession.may_go(now)
    assert not second.may_go(now)
    set_state(slots[0], WorkerState.READY)
    assert second.may_go(now)


@pytest.mark.parametrize(
    "state",
    [WorkerState.BOOTING, WorkerState.RETIRING, WorkerState.DRAINING, WorkerState.RECYCLING],
    ids=lambda s: s.name,
)
def test_nobody_goes_while_another_is_away(state: WorkerState) -> None:
    """A turn lasts until the replacement is ready, but no longer than a worker may take to leave, or to come."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY, graceful_timeout=30.0, timeout=20.0)
    set_state(slots[1], state)
    now = wished(slots[0])
    patience = 50 if state is WorkerState.RECYCLING else 30
    assert not succession.may_go(now)
    assert not succession.may_go(now + patience - 2)
    assert succession.may_go(now + patience)
    set_state(slots[1], WorkerState.READY)
    assert succession.may_go(now)


def test_a_turn_lasts_until_the_replacement_is_there(dead: int) -> None:
    """Between the death of one that recycled and the claim of the next there is no process at all."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY)
    set_state(slots[1], WorkerState.RECYCLING)
    slots[1][PID] = dead
    now = wished(slots[0])
    assert not succession.may_go(now)
    replacement = succession.group.scoreboard.claim(3)
    assert replacement is not None
    assert not succession.may_go(now)
    set_state(replacement, WorkerState.READY)
    assert succession.may_go(now)


def test_one_that_was_told_to_go_and_is_dead_is_not_waited_for(dead: int) -> None:
    """After TTOU nobody comes in its place."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY)
    set_state(slots[1], WorkerState.DRAINING)
    slots[1][PID] = dead
    assert succession.may_go(wished(slots[0]))


@pytest.mark.parametrize("state", [WorkerState.READY, WorkerState.WISHING, WorkerState.BOOTING], ids=lambda s: s.name)
def test_one_that_crashed_is_waited_for_as_long_as_any(state: WorkerState, dead: int) -> None:
    """Its slot says what it did last until the master claims one for the replacement, if ever it does."""
    succession, slots = group_of(WorkerState.READY, WorkerState.READY, graceful_timeout=30.0)
    set_state(slots[1], state)
    slots[1][SINCE] -= 3_600_000_000
    slots[1][PID] = dead
    succession.group.look()
    assert not succession.single()
    now = wished(slots[0])
    assert not succession.may_go(now)
    assert not succession.may_go(now + 28)
    assert succession.may_go(now + 30)


def test_a_worker_is_single_when_nobody_is_there_or_to_come(dead: int) -> None:
    """Then it need not wait for its turn: after TTOU, or where there was one from the beginning."""
    succession, _ = group_of(WorkerState.READY)
    assert succession.single()
    slot = take(succession.group.scoreboard, 2)
    assert not succession.single()
    set_state(slot, WorkerState.RETIRING)
    assert not succession.single()
    slot[PID] = dead
    succession.group.look()
    assert succession.single()


def test_there_is_an_answer_for_every_state_of_a_sibling() -> None:
    """But for a slot that no worker has."""
    assert set(ABSENCE) == set(WorkerState) - {WorkerState.FREE}


def test_an_older_one_that_never_goes_does_not_hold_the_others_up_for_ever() -> None:
    """It is blocked; every turn takes ``graceful_timeout`` and ``timeout`` at most."""
    board = Scoreboard(4)
    older, slot = take(board, 1), take(board, 2)
    succession = Succession(Group(board, slot), make_settings(graceful_timeout=20.0, timeout=10.0))
    wished(older)
    now = wished(slot)
    assert not succession.may_go(now + 58)
    assert succession.may_go(now + 60)


class Recorder:
    """A row that keeps what a reader sees of the scoreboard after each write to the row."""

    def __init__(self, board: Scoreboard, slot: Slot, seen: Callable[[], Any]) -> None:
        self.board, self.slot, self.seen = board, slot, seen
        self.states: list[Any] = []

    def __getitem__(self, at: Any) -> Any:
        return self.slot[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self.slot[at] = value
        self.states.append(self.seen())


def test_a_claim_is_seen_in_no_state_that_misleads(dead: int) -> None:
    """A reader in the middle of it finds a group that is short of a worker, and every counter that was used."""
    board = Scoreboard(3)
    slots = [take(board, age) for age in (1, 2, 3)]
    for slot, state in zip(slots, (WorkerState.DRAINING, WorkerState.RECYCLING), strict=False):
        set_state(slot, state)
        slot[PID] = dead
    succession = Succession(Group(board, slots[2]), make_settings())
    now = wished(slots[2])

    def seen() -> tuple[bool, bool, list[int]]:
        accepting = [slot[AGE] for slot in board.living() if slot[STATE] == WorkerState.READY]
        return succession.may_go(now), all(slot[STARTED] for slot in slots), accepting

    rows = [Recorder(board, slot, seen) for slot in slots]
    board.slots[:] = rows  # type: ignore[assignment]
    assert board.claim(4) is rows[0]  # type: ignore[comparison-overlap]
    states = [state for row in rows for state in row.states]
    assert len(states) >= 6
    assert set(map(str, states)) == {"(False, True, [])"}
