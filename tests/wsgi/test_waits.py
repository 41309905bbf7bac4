"""Waits: how long calls have waited for a thread, counted in buckets."""

from __future__ import annotations

import pytest

from hybridworker.wsgi.waits import WAIT_BOUNDS, WAITS, Waits, WaitsOfThreads


@pytest.mark.parametrize(("wait", "bucket"), [(0.0, 0), (0.001, 0), (0.002, 1), (5.0, 10), (5.1, len(WAIT_BOUNDS))])
def test_a_wait_is_counted_in_its_bucket_and_in_the_sum(wait: float, bucket: int) -> None:
    """A bound belongs to the bucket below it. The sum is in microseconds."""
    waits = Waits(2)
    waits.add(wait, 1)
    assert waits.cells[:WAITS] == [0] * WAITS
    counts = waits.cells[WAITS:]
    assert counts.pop() == int(wait * 1e6)
    assert counts == [int(place == bucket) for place in range(len(WAIT_BOUNDS) + 1)]


def test_what_threads_have_counted_is_taken_once() -> None:
    """A thread that is over has counted all the same."""
    waits = WaitsOfThreads(1)
    first, second = waits.of_thread(), waits.of_thread()
    first.add(0.0)
    second.add(0.002)
    assert waits.take()[0][:3] == [1, 1, 0]
    second.add(0.0)
    waits.end(second)
    assert waits.take()[0][:3] == [1, 0, 0]
    assert waits.take() == [[0] * WAITS]


def test_lanes_are_taken_by_themselves() -> None:
    """One list for each."""
    waits = WaitsOfThreads(3)
    waits.of_thread().add(0.0, 2)
    assert [sum(lane) for lane in waits.take()] == [0, 0, 1]
