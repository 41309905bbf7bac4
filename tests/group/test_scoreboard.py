"""Scoreboard and Group: slots, and who is there, without any process but this one and one that has ended."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from typing import Any

import pytest

from hybridworker.group import scoreboard as module
from hybridworker.group.scoreboard import (
    AGE,
    CELLS,
    CONNECTIONS,
    IN_FLIGHT,
    PID,
    RECYCLED,
    SERVED,
    SINCE,
    STARTED,
    STATE,
    STAYED,
    WAITED,
    Group,
    Scoreboard,
    WorkerState,
    alive,
    set_state,
)
from tests.slots import OWN, group, take


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a master that has no scoreboard yet."""
    monkeypatch.setattr(Scoreboard, "_of_master", (0, None))


# -- the scoreboard


def test_rows_do_not_overlap_and_hold_negative_and_large_numbers() -> None:
    """One row for each worker, in cells of 64 bits."""
    board = Scoreboard(3)
    for number, slot in enumerate(board.slots):
        for cell in range(CELLS):
            slot[cell] = number * CELLS + cell - 2**62
    assert [slot[cell] + 2**62 for slot in board.slots for cell in range(CELLS)] == list(range(3 * CELLS))


def test_a_forked_child_and_its_parent_see_each_other_s_cells() -> None:
    """The memory is shared, not copied."""
    program = (
        "import os\n"
        "from hybridworker.group.scoreboard import CONNECTIONS, IN_FLIGHT, Scoreboard\n"
        "slot = Scoreboard(1).slots[0]\n"
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
    board = Scoreboard.of_master(pytest.fail)
    assert board is not None
    assert len(board.slots) == module.SLOTS
    assert Scoreboard.of_master(pytest.fail, 1000) is board


def test_the_board_has_room_for_many_times_the_workers_that_are_configured(fresh: None) -> None:
    """TTIN may make more of them, and a reload doubles them for a while."""
    board = Scoreboard.of_master(pytest.fail, 100)
    assert board is not None
    assert len(board.slots) == 400


def test_another_master_makes_a_board_of_its_own(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to another pid is another master's."""
    board = Scoreboard.of_master(pytest.fail)
    monkeypatch.setattr(os, "getpid", lambda: OWN + 1)
    assert Scoreboard.of_master(pytest.fail) is not board


def test_without_shared_memory_there_is_one_warning_and_no_board(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many workers ask for it."""

    def refuse(*args: Any) -> mmap.mmap:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    warnings: list[str] = []
    for _ in range(3):
        assert Scoreboard.of_master(lambda message, *args: warnings.append(message % args)) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("There is no shared memory ([Errno 12] Cannot allocate memory): workers serve")


# -- claiming a slot


def test_a_claimed_slot_boots_and_belongs_to_an_age() -> None:
    """The child adds nothing but its pid."""
    board = Scoreboard(2)
    before = time.time()
    slot = board.claim(5)
    assert slot is not None
    assert (slot[AGE], slot[PID], slot[STATE]) == (5, 0, WorkerState.BOOTING)
    assert int(before) <= slot[STARTED] <= time.time()
    assert abs(slot[SINCE] - time.monotonic() * 1e6) < 60e6
    assert [s[AGE] for s in board.living()] == [5]


def test_counters_outlive_the_worker_and_its_state_does_not(dead: int) -> None:
    """The slot of a dead worker goes to the next one, which counts on."""
    board = Scoreboard(1)
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
    board = Scoreboard(2)
    slots = [take(board, 1), take(board, 2)]
    warnings: list[str] = []
    assert board.claim(3, warnings.append) is None
    assert board.claim(4, warnings.append) is None
    assert [warning[:32] for warning in warnings] == ["There are too many workers: the "]
    assert [slot[AGE] for slot in slots] == [1, 2]
    assert all(slot[STATE] == WorkerState.READY for slot in slots)


def test_a_slot_whose_worker_was_never_forked_is_free_for_the_next_claim() -> None:
    """The master writes the pid of what it forked before it claims again."""
    board = Scoreboard(1)
    assert board.claim(1) is not None
    slot = board.claim(2)
    assert slot is not None
    assert slot[AGE] == 2


def test_a_claim_clears_the_slots_of_all_the_dead(dead: int) -> None:
    """The turn of one that recycled ends when the master makes another worker."""
    board = Scoreboard(3)
    slots = [take(board, age) for age in (1, 2, 3)]
    for slot in slots[:2]:
        set_state(slot, WorkerState.RECYCLING)
        slot[PID] = dead
    assert board.claim(4) is slots[0]
    assert [slot[STATE] for slot in slots] == [WorkerState.BOOTING, WorkerState.FREE, WorkerState.READY]


def test_only_workers_that_live_or_are_about_to_are_living(dead: int) -> None:
    """A slot without a pid is that of a worker being forked."""
    board = Scoreboard(4)
    for age, pid in enumerate((OWN, dead, 0), 1):
        slot = board.slots[age]
        slot[AGE], slot[PID] = age, pid
        set_state(slot, WorkerState.READY)
    assert [slot[AGE] for slot in board.living()] == [1, 3]


def test_a_process_of_somebody_else_is_alive(monkeypatch: pytest.MonkeyPatch, dead: int) -> None:
    """It cannot be signalled, so it exists."""
    assert alive(OWN)
    assert not alive(dead)

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert alive(1)


def test_every_state_has_its_beginning() -> None:
    """A transition tells siblings what, and since when."""
    slot = [0] * CELLS
    for state in WorkerState:
        set_state(slot, state)
        assert slot[STATE] is state
        assert slot[SINCE] > 0


# -- the group


def test_the_rows_of_the_group_hold_that_of_a_worker_without_a_slot() -> None:
    """It sees the others; its own row is behind theirs. That of one that has a slot is where it is."""
    known, slots = group(WorkerState.READY, WorkerState.READY)
    assert known.rows() == known.scoreboard.slots
    own = [0] * CELLS
    own[AGE] = 3
    outsider = Group(known.scoreboard, own)
    assert outsider.siblings == slots
    assert outsider.rows() == [*known.scoreboard.slots, own]


def test_a_look_finds_who_came_and_misses_who_died(dead: int) -> None:
    """As at every tick."""
    here, slots = group(WorkerState.READY, WorkerState.READY)
    third = take(here.scoreboard, 3)
    slots[1][PID] = dead
    assert here.siblings == [slots[1]]
    here.look()
    assert here.siblings == [third]
    assert here.others() == [slots[1], third]


def test_a_sibling_that_comes_is_seen_at_once(dead: int) -> None:
    """The first connection after its boot may already be its share; one that has died is a matter of the next look."""
    here, _ = group(WorkerState.READY)
    assert here.alone()
    sibling = here.scoreboard.claim(2)
    assert sibling is not None
    assert not here.alone()
    assert here.siblings == [sibling]
    sibling[PID] = dead
    assert not here.alone()
    here.look()
    assert here.alone()


# -- what the master sees


def test_the_rank_of_a_worker_is_its_age_until_it_has_stayed() -> None:
    """Then it is younger than those that failed. A row that has another worker by now says nothing."""
    board = Scoreboard(4)
    old, _ = take(board, 1), take(board, 2)
    assert board.rank(old, 1) == 1
    assert board.rank(None, 7) == 7
    old[STAYED] = 2
    assert board.rank(old, 1) == 2.5
    assert board.rank(old, 9) == 9
    take(board, 3)
    assert board.slots[0] is old


def test_a_new_worker_has_not_stayed(dead: int) -> None:
    """Whatever the last one of its row did."""
    board = Scoreboard(1)
    slot = take(board, 1, pid=dead)
    slot[STAYED] = 1
    assert take(board, 2)[STAYED] == 0


def test_the_master_leaves_a_trace_when_it_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time, and whether it is the second one of an upgrade."""
    board = Scoreboard(1)
    monkeypatch.setenv("GUNICORN_PID", "1")
    before = time.monotonic_ns() // 1000
    board.rank(None, 1)
    assert before <= board.looked[0] <= time.monotonic_ns() // 1000
    assert board.upgrading[0] == 1
    monkeypatch.delenv("GUNICORN_PID")
    board.rank(None, 1)
    assert board.upgrading[0] == 0


@pytest.mark.parametrize("state", WorkerState, ids=lambda state: state.name)
def test_others_serve_while_they_accept(state: WorkerState) -> None:
    """Also those that were told to go and still do."""
    board = Scoreboard(4)
    take(board, 1, state)
    take(board, 2)
    assert board.others_serve(2) == (state.name in ("READY", "WISHING", "RETIRING"))
