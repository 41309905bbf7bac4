"""What the tests of the project share: nothing may be left behind; a pid that no process has."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A test ends with the threads it began with; those that are ending get a moment for it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} was left behind"


@pytest.fixture(scope="session")
def dead() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
