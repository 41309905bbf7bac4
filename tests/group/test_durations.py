"""Durations: which bucket of which class a request is counted in."""

from __future__ import annotations

from hybridworker.group.durations import BOUNDS, CLASSES, LAST, SIZE, WEBSOCKETS, WIDTH, Durations


def test_a_request_is_counted_once_in_its_class_and_bucket() -> None:
    """On a bound it belongs to the bucket below, as Prometheus has it."""
    durations = Durations()
    durations.first_bytes[2].append(0.001)
    durations.first_bytes[2].append(0.0011)
    durations.first_bytes[4].append(100.0)
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
    durations.first_bytes[9].append(0.0)
    assert durations.take()[WIDTH * (len(CLASSES) - 1)] == 1


def test_taking_begins_anew() -> None:
    """What was taken is not counted again."""
    durations = Durations()
    durations.first_bytes[2].append(1.0)
    durations.take()
    assert durations.take() == [0] * SIZE


def test_a_whole_response_is_counted_for_both_of_its_bytes() -> None:
    """One that is not is counted for the last when that leaves; WebSockets are apart."""
    durations = Durations()
    durations.whole[2].append(1.0)
    durations.first_bytes[2].append(0.5)
    durations.last_bytes[2].append(2.0)
    durations.answered.append(0.25)
    durations.closed.append(7200.0)
    counts = durations.take()
    sums = [(sum(counts[at : at + WIDTH - 1]), counts[at + WIDTH - 1]) for at in range(0, SIZE, WIDTH)]
    assert sums[0] == (2, 1_500_000)
    assert sums[LAST // WIDTH] == (2, 3_000_000)
    assert sums[WEBSOCKETS // WIDTH] == (1, 250_000)
    assert sums[(LAST + WEBSOCKETS) // WIDTH] == (1, 7_200_000_000)
    assert sum(count for count, _ in sums) == 6
