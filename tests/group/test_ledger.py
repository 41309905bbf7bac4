"""Ledger: the counts of parts by name, which outlive the workers of a slot."""

from __future__ import annotations

from hybridworker.group.ledger import ENTRY_CELLS, LEDGER_CELLS, NAMES_MAX, OTHER, QUEUED, SERVED, Ledger
from hybridworker.group.scoreboard import Scoreboard


def test_a_name_has_one_entry_for_good() -> None:
    """Also for the next worker of the slot, whose parts stand in another order, or are others."""
    ledger = Ledger([0] * LEDGER_CELLS)
    first = {name: ledger.enter(name) for name in ("default", "/a", "/ü b")}
    for name, at in first.items():
        ledger.add(at, SERVED, [0, len(name)])
    after = Ledger(ledger.cells)
    assert [after.enter(name) for name in ("/ü b", "/new", "default")] == [
        first["/ü b"],
        3 * ENTRY_CELLS,
        first["default"],
    ]
    assert list(after.names()) == ["default", "/a", "/ü b", "/new"]
    assert [after.cells[at + SERVED + 1] for at in after.names().values()] == [7, 2, 4, 0]


def test_what_is_too_much_is_counted_together() -> None:
    """There are sixteen names; all others share the last entry."""
    ledger = Ledger([0] * LEDGER_CELLS)
    entries = [ledger.enter(f"/{number}") for number in range(NAMES_MAX + 3)]
    assert len(set(entries)) == NAMES_MAX + 1
    assert set(entries[NAMES_MAX:]) == {NAMES_MAX * ENTRY_CELLS}
    assert list(ledger.names())[-1] == OTHER


def test_long_names_are_cut_and_still_told_apart() -> None:
    """Two that begin alike are two."""
    ledger = Ledger([0] * LEDGER_CELLS)
    one, two = ledger.enter("/" + "ä" * 90 + "one"), ledger.enter("/" + "ä" * 90 + "two")
    assert one != two == ledger.enter("/" + "ä" * 90 + "two")
    assert all(name.startswith("/ää") and len(name.encode()) <= 88 for name in ledger.names())


def test_a_new_worker_has_no_queue() -> None:
    """A gauge is not inherited, counters are."""
    ledger = Ledger([0] * LEDGER_CELLS)
    at = ledger.enter("/a")
    ledger.cells[at + QUEUED] = 4
    ledger.add(at, SERVED, [1])
    ledger.forget_queue()
    assert (ledger.cells[at + QUEUED], ledger.cells[at + SERVED]) == (0, 1)


def test_each_slot_of_a_scoreboard_has_its_own() -> None:
    """They overlap neither with each other nor with the rows."""
    board = Scoreboard(3)
    for number, slot in enumerate(board.slots):
        ledger = board.ledger(slot)
        assert ledger is not None
        ledger.cells[0] = ledger.cells[LEDGER_CELLS - 1] = number + 1
    assert [(slot[0], slot[len(slot) - 1]) for slot in board.slots] == [(0, 0)] * 3
    assert board.youngest[0] == 0
    assert board.ledger([0]) is None
