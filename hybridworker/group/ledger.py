"""
Ledger: what each part of a Hybrid has served, by name, in the shared memory of one slot.

The counts of a slot stay when its worker is replaced, and the next worker may have other parts: a reload brings other
code. So the names stand beside the counts, and each worker looks its parts up by name. What is counted without a part
stands in the row of the slot: see :mod:`.scoreboard`. Event loop side. Only the worker of the slot writes to a ledger;
every process may read it.

Invariant: a name is never replaced, and no count is taken back, so a counter is never shown under the name of another
part and never falls. A name counts from the moment its length is written, after its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..wsgi.waits import WAITS

#: Parts with a name of their own in one slot; all others are counted together.
NAMES_MAX = 16
OTHER = "other"

#: Bytes of a name, and the cells that hold them.
NAME_BYTES = 88
_NAME_CELLS = NAME_BYTES // 8

# The cells of an entry. LENGTH: bytes of the name, 0 = the entry is free. QUEUED is a gauge, the others are counters.
LENGTH, QUEUED = 0, 1 + _NAME_CELLS
SERVED = QUEUED + 1  #: and the four behind it: responses by status class, 1xx to 5xx
WAITED = SERVED + 5  #: and those behind it, one for each bucket, then the sum in microseconds
ENTRY_CELLS = WAITED + WAITS

#: The last entry is that of the parts without a name of their own.
LEDGER_CELLS = (NAMES_MAX + 1) * ENTRY_CELLS

#: Part of the shared memory, or a list where there is none.
Cells = memoryview | list[int]


class Ledger:
    """The entries of one slot."""

    __slots__ = ("cells",)

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def names(self) -> dict[str, int]:
        """The name of each entry in use -> its first cell."""
        found = {}
        for at in range(0, LEDGER_CELLS, ENTRY_CELLS):
            if length := self.cells[at + LENGTH]:
                found[self._read(at, length)] = at
        return found

    def enter(self, name: str) -> int:
        """The first cell of the entry of ``name``, which is made if need be; that of the rest when all are taken."""
        data = _fitting(name)
        known = self.names()
        if (at := known.get(data.decode("utf-8"))) is not None:
            return at
        last = NAMES_MAX * ENTRY_CELLS
        for at in range(0, last, ENTRY_CELLS):
            if not self.cells[at + LENGTH]:
                self._write(at, data)
                return at
        if not self.cells[last + LENGTH]:
            self._write(last, OTHER.encode())
        return last

    def forget_queue(self) -> None:
        """A new worker has the slot: what waited for the one before it does not wait any more."""
        for at in range(0, LEDGER_CELLS, ENTRY_CELLS):
            if self.cells[at + LENGTH]:
                self.cells[at + QUEUED] = 0

    def add(self, at: int, first: int, counts: Sequence[int]) -> None:
        """Add ``counts`` to the counters of the entry at ``at``, from :data:`SERVED` or :data:`WAITED` on."""
        for cell, count in enumerate(counts, at + first):
            if count:
                self.cells[cell] += count

    def _read(self, at: int, length: int) -> str:
        cells = self.cells[at + 1 : at + 1 + _NAME_CELLS]
        data = b"".join(int(cell).to_bytes(8, "little", signed=True) for cell in cells)
        return data[:length].decode("utf-8", "replace")

    def _write(self, at: int, data: bytes) -> None:
        padded = data.ljust(NAME_BYTES, b"\0")
        for cell in range(_NAME_CELLS):
            self.cells[at + 1 + cell] = int.from_bytes(padded[8 * cell : 8 * cell + 8], "little", signed=True)
        self.cells[at + LENGTH] = len(data)


def _fitting(name: str) -> bytes:
    """The bytes of a name; one that is too long is cut, and ends with a hash that tells it from others."""
    data = name.encode("utf-8", "replace")
    if len(data) <= NAME_BYTES:
        return data
    kept = data[: NAME_BYTES - 9].decode("utf-8", "ignore").encode()
    import hashlib  # for few names

    return kept + b"~" + hashlib.sha256(data).hexdigest()[:8].encode()
