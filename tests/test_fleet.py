"""Board and Fleet: slots, shares, and turns, without any process but this one and one that has ended."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from hybridworker import fleet as module
from hybridworker.fleet import (
    AGE,
    CELLS,
    CONNECTIONS,
    IN_FLIGHT,
    LEAD,
    PID,
    RECYCLED,
    SERVED,
    SINCE,
    STANDING,
    STARTED,
    TAKEN,
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
    return Fleet(board, slots[0], make_settings(workers=len(slots), **settings)), slots


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
    assert Board.of_master(pytest.fail, 1000) is board


def test_the_board_has_room_for_many_times_the_workers_that_are_configured(fresh: None) -> None:
    """TTIN may make more of them, and a reload doubles them for a while."""
    board = Board.of_master(pytest.fail, 100)
    assert board is not None
    assert len(board.slots) == 400


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
    warnings: list[str] = []
    assert board.claim(3, warnings.append) is None
    assert board.claim(4, warnings.append) is None
    assert [warning[:32] for warning in warnings] == ["There are too many workers: the "]
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


class Recorder:
    """A row that keeps what the board looks like, to whoever reads it, after each of the writes to it."""

    def __init__(self, board: Board, slot: Slot, seen: Callable[[], Any]) -> None:
        self.board, self.slot, self.seen = board, slot, seen
        self.states: list[Any] = []

    def __getitem__(self, at: Any) -> Any:
        return self.slot[at]

    def __setitem__(self, at: Any, value: Any) -> None:
        self.slot[at] = value
        self.states.append(self.seen())


def test_a_claim_is_seen_in_no_state_that_misleads(dead: int) -> None:
    """Whoever reads in the middle of it finds a group that is short of a worker, and every counter that was used."""
    board = Board(3)
    slots = [take(board, age) for age in (1, 2, 3)]
    for slot, standing in zip(slots, (Standing.DRAINING, Standing.RECYCLING), strict=False):
        stand(slot, standing)
        slot[PID] = dead
    fleet = Fleet(board, slots[2], make_settings())
    now = wished(slots[2])

    def seen() -> tuple[bool, bool, list[int]]:
        accepting = [slot[AGE] for slot in board.living() if slot[STANDING] == Standing.READY]
        return fleet.may_go(now), all(slot[STARTED] for slot in slots), accepting

    rows = [Recorder(board, slot, seen) for slot in slots]
    board.slots[:] = rows  # type: ignore[list-item]
    assert board.claim(4) is rows[0]
    states = [state for row in rows for state in row.states]
    assert len(states) >= 6
    assert set(map(str, states)) == {"(False, True, [])"}


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
        (LEAD - 1, [0], False),
        (LEAD, [0], True),
        (LEAD, [1], False),
        (5, [9, 5], False),
        (5, [9, 5 - LEAD], True),
        (5, [], False),
    ],
)
def test_a_worker_is_crowded_when_it_leads_by_two(own: int, siblings: list[int], crowded: bool) -> None:
    """So that the largest share is the smallest and two at most."""
    fleet, slots = group(*[Standing.READY] * (1 + len(siblings)))
    for slot, load in zip(slots, [own, *siblings], strict=True):
        slot[CONNECTIONS] = load
    assert fleet.crowded() is crowded


def test_the_load_is_connections_and_requests_in_flight() -> None:
    """An idle connection may ask at any time, one that asks costs something now."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 4
    slots[1][CONNECTIONS], slots[1][IN_FLIGHT] = 1, 1
    assert fleet.crowded()
    slots[1][IN_FLIGHT] = 2
    assert not fleet.crowded()


def test_connections_count_by_themselves_while_their_requests_have_not_come() -> None:
    """Each would look half as heavy as one that is served."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5 + LEAD
    slots[1][CONNECTIONS] = slots[1][IN_FLIGHT] = 5
    assert not fleet.crowded()
    assert fleet.crowded(fresh=True)
    fleet.leave()
    assert fleet.left == []
    fleet.leave(fresh=True)
    assert fleet.left == [(slots[1], 0)]
    fleet.threads = 4  # all of its own seem free, and none of the sibling's
    assert fleet.crowded(fresh=True)
    slots[1][CONNECTIONS] += 1
    assert not fleet.crowded(fresh=True)


@pytest.mark.parametrize(
    ("threads", "own", "other", "crowded"),
    [(4, 0, 4, True), (4, 0, 5, False), (4, 3, 5, False), (4, 4, 5, True), (4, 0, 0, True), (None, 0, 5, True)],
)
def test_a_connection_is_not_left_to_calls_that_wait_for_a_thread(
    threads: int | None, own: int, other: int, crowded: bool
) -> None:
    """While this worker has a thread to spare: idle connections are no load for it."""
    fleet, slots = group(Standing.READY, Standing.READY)
    fleet.threads = threads
    slots[0][CONNECTIONS], slots[0][IN_FLIGHT], slots[1][IN_FLIGHT] = 20, own, other
    assert fleet.crowded() is crowded


@pytest.mark.parametrize("standing", Standing)
def test_only_a_sibling_that_accepts_is_given_way_to(standing: Standing) -> None:
    """Whoever boots or leaves takes no connections, or not for long."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = LEAD
    slots[1][STANDING] = standing
    assert fleet.crowded() is (standing in (Standing.READY, Standing.WISHING))
    assert fleet.has_room() is (standing in (Standing.READY, Standing.WISHING))


def test_a_sibling_that_is_full_is_not_given_way_to() -> None:
    """``worker_connections`` is the same for all."""
    fleet, slots = group(Standing.READY, Standing.READY, worker_connections=2)
    slots[0][CONNECTIONS] = 9
    slots[1][CONNECTIONS] = 1
    assert fleet.crowded()
    assert fleet.has_room()
    slots[1][CONNECTIONS] = 2
    assert not fleet.crowded()
    assert not fleet.has_room()


def test_a_worker_that_the_board_has_no_room_for_sees_the_others(fresh: None) -> None:
    """Its own row is behind theirs; that of one that has a slot is where it is."""
    fleet, slots = group(Standing.READY, Standing.READY)
    assert fleet.rows() == fleet.board.slots
    own = [0] * CELLS
    own[AGE], own[CONNECTIONS] = 3, 5
    outsider = Fleet(fleet.board, own, fleet.settings)
    assert outsider.siblings == slots
    assert outsider.crowded()
    assert outsider.rows() == [*fleet.board.slots, own]


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


def leave(fleet: Fleet, seconds: float, in_vain: bool = True, takes: Slot | None = None) -> None:
    """A connection is left to the siblings for a while; one of them may take it."""
    fleet.leave()
    if takes is not None:
        takes[TAKEN] += 1
    fleet.left_for(seconds, in_vain)


def blocked(*standings: Standing) -> tuple[Fleet, list[Slot]]:
    """A group whose first worker carries more than the others, which have taken nothing for long enough."""
    fleet, slots = group(Standing.READY, *standings)
    slots[0][CONNECTIONS] = 5
    assert fleet.crowded()
    leave(fleet, VAIN_MAX)
    return fleet, slots


def test_a_sibling_that_takes_nothing_soon_counts_no_more() -> None:
    """It is blocked: when connections were left to it in vain for a few milliseconds, they cost nobody any more."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(4):
        assert fleet.crowded()
        leave(fleet, VAIN_MAX / 4)
    assert not fleet.crowded()


def test_nothing_is_in_vain_where_nothing_waits() -> None:
    """Somebody took what was left, or its client has gone."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    leave(fleet, VAIN_MAX, in_vain=False)
    assert fleet.crowded()


def test_a_sibling_whose_load_moves_without_its_taking_anything_is_blocked_as_well() -> None:
    """It answers, and connections end, but those that wait go on waiting."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 9
    for load in (3, 2, 1, 0):
        slots[1][CONNECTIONS] = load
        leave(fleet, VAIN_MAX / 4)
    assert not fleet.crowded()


def test_a_blocked_sibling_that_takes_something_counts_again_on_probation() -> None:
    """At once; when it takes nothing then, it takes the others no longer than one look to know."""
    fleet, slots = blocked(Standing.READY)
    assert not fleet.crowded()
    slots[1][TAKEN] += 1
    assert fleet.crowded()
    leave(fleet, VAIN_MAX / 8)
    assert not fleet.crowded()


def test_a_sibling_that_takes_what_is_left_to_it_is_forgiven() -> None:
    """A moment without a processor does not count for ever."""
    fleet, slots = group(Standing.READY, Standing.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(20):
        leave(fleet, VAIN_MAX * 0.4)
        leave(fleet, VAIN_MAX * 0.1, takes=slots[1])
        assert fleet.crowded()


def test_a_blocked_sibling_gets_another_chance_at_the_next_tick() -> None:
    """A short one; and one that was slow now and then a new beginning."""
    fleet, slots = blocked(Standing.READY, Standing.READY)
    slots[2][TAKEN] += 1  # it was in vain for once
    leave(fleet, VAIN_MAX / 10, takes=slots[2])
    slots[2][CONNECTIONS] = 5
    assert not fleet.crowded()
    fleet.tick()
    assert fleet.crowded()
    leave(fleet, VAIN_MAX / 8)
    assert not fleet.crowded()
    assert slots[2][AGE] not in fleet.vain


def test_only_siblings_that_carry_less_are_blamed() -> None:
    """Nothing was left to the others. Those to whom it was are blamed, whatever this worker carries by then."""
    fleet, slots = group(Standing.READY, Standing.READY, Standing.READY)
    slots[0][CONNECTIONS], slots[1][CONNECTIONS] = 5, 6
    fleet.leave()
    slots[0][CONNECTIONS] = 0
    fleet.left_for(0.001, True)
    assert list(fleet.vain) == [3]


# -- handing over


@pytest.mark.parametrize(
    ("younger", "expected"),
    [
        ([], Standing.FREE),
        ([Standing.BOOTING], Standing.BOOTING),
        ([Standing.BOOTING, Standing.READY], Standing.BOOTING),
        ([Standing.READY], Standing.FREE),
        ([Standing.WISHING], Standing.FREE),
        ([Standing.RETIRING, Standing.BOOTING], Standing.BOOTING),
        ([Standing.RETIRING, Standing.DRAINING, Standing.RECYCLING], Standing.FREE),
    ],
)
def test_a_successor_is_awaited_while_one_boots(younger: list[Standing], expected: Standing) -> None:
    """One that accepts already may have been told to go as well, and be too busy to say so."""
    fleet, _ = group(Standing.RETIRING, *younger)
    fleet.told_to_go()
    assert fleet.successor() is expected


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (Standing.READY, Standing.READY),
        (Standing.WISHING, Standing.READY),
        (Standing.DRAINING, Standing.FREE),
    ],
)
def test_a_successor_is_one_that_booted_when_this_one_was_told_to_go(later: Standing, expected: Standing) -> None:
    """Or that came later, in the place of one whose boot failed; not the blocked one, which has been told the same."""
    fleet, slots = group(Standing.RETIRING, Standing.READY, Standing.BOOTING)
    fleet.told_to_go()
    take(fleet.board, 4, Standing.BOOTING)
    assert fleet.successor() is Standing.BOOTING
    for slot in slots[2], fleet.board.slots[3]:
        stand(slot, Standing.DRAINING)
    assert fleet.successor() is Standing.FREE
    stand(fleet.board.slots[3], later)
    assert fleet.successor() is expected
    stand(fleet.board.slots[3], Standing.DRAINING)
    stand(slots[2], later)
    assert fleet.successor() is expected


def test_an_older_worker_is_no_successor() -> None:
    """It will be told to go before this one is."""
    board = Board(4)
    take(board, 1)
    fleet = Fleet(board, take(board, 2, Standing.RETIRING), make_settings())
    stand(board.slots[0], Standing.BOOTING)
    fleet.told_to_go()
    assert fleet.successor() is Standing.FREE


def test_a_successor_that_died_is_none(dead: int) -> None:
    """Nobody waits for a boot that failed."""
    fleet, slots = group(Standing.RETIRING, Standing.BOOTING)
    fleet.told_to_go()
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
    second = Fleet(fleet.board, slots[1], fleet.settings)
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
    """A turn lasts until the replacement is ready, but no longer than a worker may take to leave, or to come."""
    fleet, slots = group(Standing.READY, Standing.READY, graceful_timeout=30.0, timeout=20.0)
    stand(slots[1], standing)
    now = wished(slots[0])
    patience = 50 if standing is Standing.RECYCLING else 30
    assert not fleet.may_go(now)
    assert not fleet.may_go(now + patience - 2)
    assert fleet.may_go(now + patience)
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


@pytest.mark.parametrize("standing", [Standing.READY, Standing.WISHING, Standing.BOOTING], ids=lambda s: s.name)
def test_one_that_crashed_is_waited_for_as_long_as_any(standing: Standing, dead: int) -> None:
    """Its slot says what it did last until the master claims one for the replacement, if ever it does."""
    fleet, slots = group(Standing.READY, Standing.READY, graceful_timeout=30.0)
    stand(slots[1], standing)
    slots[1][SINCE] -= 3_600_000_000
    slots[1][PID] = dead
    fleet.tick()
    assert not fleet.single()
    now = wished(slots[0])
    assert not fleet.may_go(now)
    assert not fleet.may_go(now + 28)
    assert fleet.may_go(now + 30)


def test_a_worker_is_single_when_nobody_is_there_or_to_come(dead: int) -> None:
    """Then it need not wait for its turn: after TTOU, or where there was one from the beginning."""
    fleet, _ = group(Standing.READY)
    assert fleet.single()
    slot = take(fleet.board, 2)
    assert not fleet.single()
    stand(slot, Standing.RETIRING)
    assert not fleet.single()
    slot[PID] = dead
    fleet.tick()
    assert fleet.single()


def test_an_older_one_that_never_goes_does_not_hold_the_others_up_for_ever() -> None:
    """It is blocked; every turn takes ``graceful_timeout`` and ``timeout`` at most."""
    board = Board(4)
    older, slot = take(board, 1), take(board, 2)
    fleet = Fleet(board, slot, make_settings(graceful_timeout=20.0, timeout=10.0))
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
