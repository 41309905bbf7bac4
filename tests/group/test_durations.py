"""Durations: which bucket of which class a request is counted in."""

from __future__ import annotations

from hybridworker.group.durations import BOUNDS, CLASSES, SIZE, WIDTH, Durations


def test_a_request_is_counted_once_in_its_class_and_bucket() -> None:
    """On a bound it belongs to the bucket below, as Prometheus has it."""
    durations = Durations()
    durations.add(200, 0.001)
    durations.add(299, 0.0011)
    durations.add(404, 100.0)
    counts = durations.take()
    assert len(counts) == SIZE
    assert counts[:3] == [1, 1, 0]
    assert counts[WIDTH - 1] == 2100
    third = 2 * WIDTH
    assert counts[third + len(BOUNDS)] == 1  # without a bound
    assert counts[third + WIDTH - 1] == 100_000_000
    assert sum(counts) == 3 + 2100 + 100_000_000


def test_a_status_beyond_the_classes_is_the_last_one() -> None:
    """An application may send up to 999."""
    durations = Durations()
    durations.add(999, 0.0)
    assert durations.take()[WIDTH * (len(CLASSES) - 1)] == 1


def test_taking_begins_anew() -> None:
    """What was taken is not counted again."""
    durations = Durations()
    durations.add(200, 1.0)
    durations.take()
    assert durations.take() == [0] * SIZE
