"""Waits: how long calls have waited for a thread, counted in buckets."""

from __future__ import annotations

import threading

import pytest

from hybridworker.wsgi.waits import WAIT_BOUNDS, WAITS, Waits


@pytest.mark.parametrize(("wait", "bucket"), [(0.0, 0), (0.001, 0), (0.002, 1), (5.0, 10), (5.1, len(WAIT_BOUNDS))])
def test_a_wait_is_counted_in_its_bucket_and_in_the_sum(wait: float, bucket: int) -> None:
    """A bound belongs to the bucket below it. The sum is in microseconds."""
    waits = Waits(2)
    waits.lanes[1].append(wait)
    other, counts = waits.take()
    assert other == [0] * WAITS
    assert counts.pop() == round(wait * 1e6)
    assert counts == [int(place == bucket) for place in range(len(WAIT_BOUNDS) + 1)]


def test_what_was_noted_is_taken_once() -> None:
    """And counted in all buckets that it is in."""
    waits = Waits()
    (noted,) = waits.lanes
    noted.extend((0.0, 0.002))
    assert waits.take()[0][:3] == [1, 1, 0]
    noted.append(0.0)
    assert waits.take()[0][:3] == [1, 0, 0]
    assert waits.take() == [[0] * WAITS]


def test_nothing_is_lost_that_threads_note_amid_the_taking() -> None:
    """They wait for no lock."""
    waits, each = Waits(2), 20_000

    def note(lane: int) -> None:
        for _ in range(each):
            waits.lanes[lane].append(0.0)

    threads = [threading.Thread(target=note, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    counted = [0, 0]
    while any(thread.is_alive() for thread in threads):
        counted = [before + taken[0] for before, taken in zip(counted, waits.take(), strict=True)]
    counted = [before + taken[0] for before, taken in zip(counted, waits.take(), strict=True)]
    assert counted == [2 * each, 2 * each]


def test_lanes_are_taken_by_themselves() -> None:
    """One list for each."""
    waits = Waits(3)
    waits.lanes[2].append(0.0)
    assert [sum(lane) for lane in waits.take()] == [0, 0, 1]
