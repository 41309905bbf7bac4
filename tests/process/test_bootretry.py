"""Boot retry: how long a worker waits that could not boot, what it says, and what ends the wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hybridworker.errors import BootFailed
from hybridworker.process import bootretry


@pytest.fixture
def term() -> Iterator[None]:
    """The handler of TERM is as before afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_wait_doubles_up_to_ten_seconds() -> None:
    """From one second on."""
    assert [bootretry.delay(failures) for failures in (1, 2, 3, 4, 5, 6, 1000)] == [1, 2, 4, 8, 10, 10, 10]


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (BootFailed("the file is missing\nand more", 3), "the file is missing"),
        (SystemExit(1), "sys.exit(1)"),
        (ImportError("No module named 'x'"), "ImportError: No module named 'x'"),
        (LookupError("one\ntwo"), "LookupError: one"),
    ],
)
def test_the_reason_is_one_line(exc: BaseException, line: str) -> None:
    """Whatever has failed."""
    assert bootretry.reason(exc) == line


def test_a_wait_beats_until_its_end(term: None) -> None:
    """The master does not take the worker for dead."""
    beats: list[int] = []
    told: list[int] = []
    assert not bootretry.wait(0.15, lambda: beats.append(1), lambda: told.append(1), os.getppid())
    assert len(beats) >= 2
    assert told == []


def test_term_ends_the_wait(term: None) -> None:
    """The master wants nobody any more."""
    told: list[int] = []
    beat = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    assert bootretry.wait(60.0, beat, lambda: told.append(1), os.getppid())
    assert told == [1]


def test_the_end_of_the_master_ends_the_wait(term: None) -> None:
    """There is nobody to try again."""
    assert bootretry.wait(60.0, lambda: None, lambda: None, os.getpid())
