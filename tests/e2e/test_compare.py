"""Some rows of the table of features against this worker, so that the program that makes it does not rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compare.peers import OURS
from tests.compare.registry import Sign, chosen, judge
from tests.compare.servers import Subject

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("name", ["half-closed", "lifespan-state", "overload", "websocket-close"])
def test_a_row_holds_here(name: str, tmp_path: Path) -> None:
    """A server is started, asked and ended, with nothing left behind."""
    (row,) = chosen([name])
    assert judge(row, Subject(OURS, tmp_path)).sign is Sign.YES
