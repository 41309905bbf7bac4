"""Board and Fleet: slots, shares, and turns, without any process but this one and one that has ended."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from hybridworker import fleet as module
from hybridworker.fleet import (
    AGE,
    CELLS,
    CONNECTIONS,
    IN_FLIGHT,
    PID,
    RECYCLED,
    SERVED,
    SINCE,
    STANDING,
    STARTED,
    VAIN_MAX,
    WAITED,
    Board,
    Fleet,
    Slot,
    Standing,
    alive,
    stand,
)
from tests.harness import make_settings

#: Of this process: a worker with it lives.
OWN = os.getpid()


@pytest.fixture(scope="module")
def dead() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a master that has no board yet."""
    monkeypatch.setattr(Board, "_of_master", (0, None))


def take(board: Board, age: int, standing: Standing = Standing.READY, pid: int = OWN) -> Slot:
    """A slot as a worker in that state leaves it."""
    slot = board.claim(age)
    assert slot is not None
    slot[PID] = pid
    stand(slot, standing)
    return slot


def group(*standings: Standing, **settings: Any) -> tuple[Fleet, list[Slot]]:
    """The first worker of a group in these states, and the slots of all of them, from age 1 on."""
    board = Board(8)
    slots = [take(board, age, standing) for age, standing in enumerate(standings, 1)]
    return Fleet(board, slots[0], make_settings(workers=len(slots), **settings), False), slots


def wished(slot: Slot, seconds: float = 1.5) -> float:
    """Have ``slot`` wish to be replaced since ``seconds``; returns the time."""
    stand(slot, Standing.WISHING)
    return slot[SINCE] / 1e6 + seconds


# -- the board


def test_rows_do_not_overlap_and_hold_negative_and_large_numbers() -> None:
    """One row for each worker, in cells of 64 bits."""
    board = Board(3)
    for number, slot in enumerate(board.slots):
        for cell in range(CELLS):
            slot[cell] = number * CELLS + cell - 2**62
    assert [slot[cell] + 2**62 for slot in board.slots for cell in range(CELLS)] == list(range(3 * CELLS))


def test_a_forked_child_and_its_parent_see_each_other_s_cells() -> None:
    """The memory is shared, not copied."""
    program = (
        "import os\n"
        "from hybridworker.fleet import CONNECTIONS, IN_FLIGHT, Board\n"
        "slot = Board(1).slots[0]\n"
        "slot[IN_FLIGHT] = 7\n"
        "if not (pid := os.fork()):\n"
        "    slot[CONNECTIONS] = slot[IN_FLIGHT] + 1\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "assert slot[CONNECTIONS] == 8\n"
    )
    # In a process of its own: this one may have threads, with which nobody should fork.
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)


def test_a_master_makes_one_board(fresh: None) -> None:
    """The first worker object makes it, the others find it."""
    board = Board.of_master(pytest.fail)
    assert board is not None
    assert len(board.slots) == module.SLOTS
    assert Board.of_master(pytest.fail) is board


def test_another_master_makes_a_board_of_its_own(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to another pid is another master's."""
    board = Board.of_master(pytest.fail)
    monkeypatch.setattr(os, "getpid", lambda: OWN + 1)
    assert Board.of_master(pytest.fail) is not board


def test_without_shared_memory_there_is_one_warning_and_no_board(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers ask for it."""

    def refuse(*args: Any) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    warnings: list[str] = []
    for _ in range(3):
        assert Board.of_master(lambda message, *args: warnings.append(message % args)) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("There is no shared memory ([Errno 12] Cannot allocate memory): workers serve")


# -- claiming a slot


def test_a_claimed_slot_boots_and_belongs_to_an_age() -> None:
    """The child adds nothing but its pid."""
    board = Board(2)
    before = time.time()
    slot = board.claim(5)
    assert slot is not None
    assert (slot[AGE], slot[PID], slot[STANDING]) == (5, 0, Standing.BOOTING)
    assert int(before) <= slot[STARTED] <= time.time()
    assert abs(slot[SINCE] - time.monotonic() * 1e6) < 60e6
    assert [s[AGE] for s in board.living()] == [5]


def test_counters_outlive_the_worker_and_its_state_does_not(dead: int) -> None:
    """The slot of a dead worker goes to the next one, which counts on."""
    board = Board(1)
    slot = take(board, 1, pid=dead)
    slot[CONNECTIONS] = slot[IN_FLIGHT] = 3
    for cell in (SERVED + 1, RECYCLED, WAITED, CELLS - 1):
        slot[cell] = 4
    again = board.claim(2)
    assert again is slot
    assert (slot[AGE], slot[PID], slot[CONNECTIONS], slot[IN_FLIGHT]) == (2, 0, 0, 0)
    assert [slot[cell] for cell in (SERVED + 1, RECYCLED, WAITED, CELLS - 1)] == [4] * 4


def test_there_is_no_slot_while_all_workers_live() -> None:
    """One worker more than there are slots gets none, and disturbs nobody."""
    board = Board(2)
    slots = [take(board, 1), take(board, 2)]
    assert board.claim(3) is None
    assert [slot[AGE] for slot in slots] == [1, 2]
    assert all(slot[STANDING] == Standing.READY for slot in slots)


def test_a_slot_whose_worker_was_never_forked_is_free_for_the_next_claim() -> None:
    """The master writes the pid of what it forked before it claims again."""
    board = Board(1)
    assert board.claim(1) is not None
    slot = board.claim(2)
    assert slot is not None
    assert slot[AGE] == 2


def test_a_claim_clears_the_slots_of_all_the_dead(dead: int) -> None:
    """The turn of one that recycled ends when the master makes another worker."""
    board = Board(3)
    slots = [take(board, age) for age in (1, 2, 3)]
    for slot in slots[:2]:
        stand(slot, Standing.RECYCLING)
        slot[PID] = dead
    assert board.claim(4) is slots[0]
    assert [slot[STANDING] for slot in slots] == [Standing.BOOTING, Standing.FREE, Standing.READY]


def test_only_workers_that_live_or_are_about_to_are_living(dead: int) -> None:
    """A slot without a pid is that of a worker being forked."""
    board = Board(4)
    for age, pid in enumerate((OWN, dead, 0), 1):
        slot = board.slots[age]
        slot[AGE], slot[PID] = age, pid
        stand(slot, Standing.READY)
    assert [slot[AGE] for slot in board.living()] == [1, 3]


def test_a_process_of_somebody_else_is_alive(monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    """It cannot be signalled, so it exists."""
    assert alive(OWN)
    assert not alive(dead)

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert alive(1)


# -- a fair share


@pytest.mark.parametrize(
    ("own", "siblings", "crowded"),
    [
        (0, [0], False),
        (1, [0], True),
        (1, [1], False),
        (5, [9, 5], False),
        (5, [9, 4], True),
        (5, [], False),
    ],
)
def test_a_worker_is_crowded_when_a_sibling_carries_less(own: int, siblings: list[int], crowded: bool) -> None:
    """Less than the least loaded of the others is enough to accept."""
    fleet, slots = group(*[Standing.READY] * (1 + len(siblings)))
    for slot, load in zip(slots, [own, *siblings], strict=True):
        slot[CONNECTIONS] = load
    assert fleet.crowded() is crowded


def test_the_load_is_connections_and_requests_for_asgi_and_calls_for_wsgi() -> None:
    """An idle connection costs a WSGI worker nothing, an ASGI worker may be asked on it at any time."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 3
    slots[1][CONNECTIONS], slots[1][IN_FLIGHT] = 1, 1
    assert fleet.crowded()
    slots[1][IN_FLIGHT] = 2
    assert not fleet.crowded()
    wsgi = Fleet(fleet.board, slots[0], fleet.settings, True)
    assert not wsgi.crowded()
    slots[0][IN_FLIGHT] = 3
    assert wsgi.crowded()


@pytest.mark.parametrize("standing", Standing)
def test_only_a_sibling_that_accepts_is_given_way_to(standing: Standing) -> None:
    """Whoever boots or leaves takes no connections, or not for long."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 1
    slots[1][STANDING] = standing
    assert fleet.crowded() is (standing in (Standing.READY, Standing.WISHING))


def test_a_sibling_that_is_full_is_not_given_way_to() -> None:
    """``worker_connections`` is the same for all."""
    board = Board(2)
    own, other = take(board, 1), take(board, 2)
    fleet = Fleet(board, own, make_settings(worker_connections=2), True)
    own[IN_FLIGHT] = 1
    other[CONNECTIONS] = 1
    assert fleet.crowded()
    other[CONNECTIONS] = 2
    assert not fleet.crowded()


def test_siblings_are_looked_for_at_every_tick(dead: int) -> None:
    """Those that came are counted then, those that died no longer."""
    fleet, slots = group(Standing.READY, Standing.READY)
    third = take(fleet.board, 3)
    slots[1][PID] = dead
    assert fleet.siblings == [slots[1]]
    fleet.tick()
    assert fleet.siblings == [third]


def test_a_sibling_that_comes_is_seen_at_once(dead: int) -> None:
    """The first connection after its boot may already be its share; one that has died is a matter of the tick."""
    fleet, _ = group(Standing.READY)
    assert fleet.alone()
    sibling = fleet.board.claim(2)
    assert sibling is not None
    assert not fleet.alone()
    assert fleet.siblings == [sibling]
    sibling[PID] = dead
    assert not fleet.alone()
    fleet.tick()
    assert fleet.alone()


def test_a_sibling_that_takes_nothing_soon_counts_no_more() -> None:
    """It is blocked: after a few connections were left to it in vain, the others cost nobody anything."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(VAIN_MAX):
        assert fleet.crowded()
        fleet.left_in_vain()
    assert not fleet.crowded()
    fleet.left_in_vain()
    assert not fleet.crowded()


def test_a_blocked_sibling_that_moves_counts_again() -> None:
    """At once, and from the beginning."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(VAIN_MAX):
        fleet.left_in_vain()
    slots[1][CONNECTIONS] = 1
    assert fleet.crowded()
    fleet.left_in_vain()
    assert fleet.crowded()


def test_a_blocked_sibling_gets_another_chance_at_the_next_tick() -> None:
    """It may have nothing to move for any more."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(VAIN_MAX):
        fleet.left_in_vain()
    fleet.tick()
    assert fleet.crowded()


def test_only_siblings_that_carry_less_are_blamed() -> None:
    """Nothing was left to the others."""
    fleet, slots = group(Standing.READY, Standing.READY, Standing.READY)
    slots[0][CONNECTIONS], slots[1][CONNECTIONS] = 5, 6
    fleet.left_in_vain()
    assert list(fleet.vain) == [3]


# -- handing over


@pytest.mark.parametrize(
    ("younger", "expected"),
    [
        ([], Standing.FREE),
        ([Standing.BOOTING], Standing.BOOTING),
        ([Standing.BOOTING, Standing.READY], Standing.READY),
        ([Standing.WISHING], Standing.READY),
        ([Standing.RETIRING, Standing.BOOTING], Standing.BOOTING),
        ([Standing.RETIRING, Standing.DRAINING, Standing.RECYCLING], Standing.FREE),
    ],
)
def test_the_successor_is_a_younger_worker_that_stays(younger: list[Standing], expected: Standing) -> None:
    """One that was told to go as well is none."""
    fleet, _ = group(Standing.RETIRING, *younger)
    assert fleet.successor() is expected


def test_an_older_worker_is_no_successor() -> None:
    """It will be told to go before this one is."""
    board = Board(4)
    take(board, 1)
    fleet = Fleet(board, take(board, 2, Standing.RETIRING), make_settings(), False)
    assert fleet.successor() is Standing.FREE


def test_a_successor_that_died_is_none(dead: int) -> None:
    """Nobody waits for a boot that failed."""
    fleet, slots = group(Standing.RETIRING, Standing.BOOTING)
    slots[1][PID] = dead
    assert fleet.successor() is Standing.FREE


# -- taking turns


def test_a_wish_must_be_a_second_old() -> None:
    """By then every sibling has said its own."""
    fleet, slots = group(Standing.READY, Standing.READY)
    assert not fleet.may_go(wished(slots[0], 0.9))
    assert fleet.may_go(wished(slots[0], 1.1))


def test_the_oldest_that_wishes_goes_first() -> None:
    """Its age decides, not when it wished."""
    fleet, slots = group(Standing.READY, Standing.READY, Standing.READY)
    second = Fleet(fleet.board, slots[1], fleet.settings, False)
    wished(slots[1])
    now = wished(slots[0])
    assert fleet.may_go(now)
    assert not second.may_go(now)
    stand(slots[0], Standing.READY)
    assert second.may_go(now)


@pytest.mark.parametrize(
    "standing", [Standing.BOOTING, Standing.RETIRING, Standing.DRAINING, Standing.RECYCLING], ids=lambda s: s.name
)
def test_nobody_goes_while_another_is_away(standing: Standing) -> None:
    """A turn lasts until the replacement is ready, but no longer than ``graceful_timeout``."""
    fleet, slots = group(Standing.READY, Standing.READY, graceful_timeout=30.0)
    stand(slots[1], standing)
    now = wished(slots[0])
    assert not fleet.may_go(now)
    assert not fleet.may_go(now + 28)
    assert fleet.may_go(now + 30)
    stand(slots[1], Standing.READY)
    assert fleet.may_go(now)


def test_a_turn_lasts_until_the_replacement_is_there(dead: int) -> None:
    """Between the death of one that recycled and the claim of the next there is no process at all."""
    fleet, slots = group(Standing.READY, Standing.READY)
    stand(slots[1], Standing.RECYCLING)
    slots[1][PID] = dead
    now = wished(slots[0])
    assert not fleet.may_go(now)
    replacement = fleet.board.claim(3)
    assert replacement is not None
    assert not fleet.may_go(now)
    stand(replacement, Standing.READY)
    assert fleet.may_go(now)


def test_one_that_was_told_to_go_and_is_dead_is_not_waited_for(dead: int) -> None:
    """After TTOU nobody comes in its place."""
    fleet, slots = group(Standing.READY, Standing.READY)
    stand(slots[1], Standing.DRAINING)
    slots[1][PID] = dead
    assert fleet.may_go(wished(slots[0]))


def test_one_that_crashed_is_not_waited_for(dead: int) -> None:
    """Its slot says what it did last, for ever if need be."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[1][PID] = dead
    assert fleet.may_go(wished(slots[0]))


def test_an_older_one_that_never_goes_does_not_hold_the_others_up_for_ever() -> None:
    """It is blocked; every turn takes ``graceful_timeout`` at most."""
    board = Board(4)
    older, slot = take(board, 1), take(board, 2)
    fleet = Fleet(board, slot, make_settings(graceful_timeout=30.0), False)
    wished(older)
    now = wished(slot)
    assert not fleet.may_go(now + 58)
    assert fleet.may_go(now + 60)


def test_every_standing_has_its_word() -> None:
    """A transition tells siblings what, and since when."""
    slot = [0] * CELLS
    for standing in Standing:
        stand(slot, standing)
        assert slot[STANDING] is standing
        assert slot[SINCE] > 0
