"""Memory: how large the process is, and the warning of a worker that is too large before it serves."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.connection.context import WorkerContext
from hybridworker.process import memory as module
from hybridworker.process.memory import resident, warn_of_size
from tests.process.running import run


def test_the_resident_memory_is_the_kernels_number() -> None:
    """Between one and many MiB; a large allocation shows."""
    before = resident()
    block = b"x" * (64 * 2**20)
    assert resident() >= before + 60 > 60
    assert block


@pytest.mark.parametrize("platform, unit", [("darwin", 2**20), ("freebsd14", 2**10)])
def test_without_proc_the_resident_memory_is_the_peak(
    monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    """``ru_maxrss`` has its own unit on macOS."""
    import resource

    def no_proc(*args: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_proc)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=300 * unit))
    assert resident() == 300


@pytest.mark.parametrize(("limit", "warnings"), [(0, 0), (27, 1), (28, 0)])
def test_a_worker_that_is_too_large_before_it_serves_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, limit: int, warnings: int
) -> None:
    """It will be replaced by one that is as large."""
    monkeypatch.setattr(module, "resident", lambda: 28)

    async def main(context: WorkerContext) -> None:
        warn_of_size(context)

    lines = run(main, max_rss=limit).at("warning")
    assert len(lines) == warnings
    assert all("HYBRIDWORKER_MAX_RSS=27 is less than the 28 MiB of a worker that has served " in line for line in lines)
