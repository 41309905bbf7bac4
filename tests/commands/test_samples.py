"""Samples: what is read from the text of a metrics page."""

from __future__ import annotations

import math

import pytest

from hybridworker.commands.samples import Rates, between, quantile, read, total, workers
from tests.commands.pages import page, text


def test_samples_of_others_are_skipped() -> None:
    """And what is no sample at all."""
    lines = 'hybridworker_a 1\nhybridworker_b{x="1"} 2.5\nother 3\n# TYPE hybridworker_c gauge\nhybridworker_d x\n'
    assert [(s.name, dict(s.labels), s.value) for s in read(lines)] == [("a", {}, 1.0), ("b", {"x": "1"}, 2.5)]


def test_a_label_may_hold_commas_and_escaped_quotes() -> None:
    """As the format allows it."""
    (sample,) = read('hybridworker_a{part="x,\\"y",slot="1"} 1\n')
    assert sample.labels["slot"] == "1"


def test_a_page_of_something_else_is_none() -> None:
    """Whatever else answers at that address."""
    assert workers(read("<html>hybridworker_a 1</html>"), 0.0) is None


def test_labels_that_are_not_known_are_summed_over() -> None:
    """The parts of a Hybrid have a label more."""
    lines = "".join(
        f'hybridworker_worker_requests_total{{slot="0",part="{part}",status="{status}"}} {count}\n'
        for part, status, count in [("a", "2xx", 3), ("b", "2xx", 4), ("b", "5xx", 2)]
    )
    found = workers(read(lines), 0.0)
    assert found is not None
    assert (found.workers[0].requests, found.workers[0].errors) == (9, 2)


def test_a_worker_has_what_the_page_says() -> None:
    """A slot whose worker is gone keeps its counters, and has no pid."""
    values = {"requests_in_flight": 2, "threads_busy": 3, "calls_queued": 4, "queue_age_seconds": 0.5}
    found = page(0.0, {"slot": 0, "pid": 11, "2xx": 5, "reason": "max_rss", **values}, {"slot": 1, "5xx": 6})
    first, second = found.workers[0], found.workers[1]
    assert (first.pid, first.state, first.reason) == (11, "ready", "max_rss")
    assert (first.in_flight, first.busy, first.queued, first.queue_age) == (2, 3, 4, 0.5)
    assert (second.pid, second.requests, second.errors) == (None, 6, 6)
    assert found.threads == 8


def test_rates_are_per_second_of_the_time_between() -> None:
    """Of each worker, and of all together."""
    before = page(10.0, {"slot": 0, "pid": 1, "2xx": 100, "5xx": 10, "buckets": {"0.1": 5, "+Inf": 6}})
    now = page(12.0, {"slot": 0, "pid": 1, "2xx": 140, "5xx": 20, "buckets": {"0.1": 45, "+Inf": 56}})
    rates = between(before, now)
    assert rates == {0: Rates(25.0, 5.0, {0.1: 40.0, math.inf: 50.0})}
    both = total([rates[0], Rates(1.0, 1.0, {0.1: 1.0, math.inf: 1.0})])
    assert both == Rates(26.0, 6.0, {0.1: 41.0, math.inf: 51.0})


def test_a_worker_that_is_replaced_goes_on_counting() -> None:
    """The counters belong to the slot."""
    before, now = page(0.0, {"slot": 0, "pid": 1, "2xx": 5}), page(1.0, {"slot": 0, "pid": 2, "2xx": 8})
    assert between(before, now)[0].requests == 3.0


def test_another_gunicorn_has_no_rates_yet() -> None:
    """Its counters have begun at zero, so the difference says nothing."""
    before, now = page(0.0, {"slot": 0, "pid": 1, "2xx": 5}), page(1.0, {"slot": 0, "pid": 2, "2xx": 1})
    assert between(before, now) == {}
    assert between(None, now) == {}


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({}, 0.5, None),
        ({0.1: 0.0, math.inf: 0.0}, 0.5, None),
        ({0.1: 10.0, math.inf: 10.0}, 0.5, 0.05),
        ({0.1: 0.0, 0.2: 10.0, math.inf: 10.0}, 0.5, 0.15),
        ({0.1: 90.0, 0.2: 100.0, math.inf: 100.0}, 0.99, 0.19),
        ({0.1: 1.0, math.inf: 100.0}, 0.99, math.inf),
    ],
)
def test_a_quantile(buckets: dict[float, float], share: float, expected: float | None) -> None:
    """As Prometheus computes it, but for what is beyond the last bound."""
    assert quantile(buckets, share) == (expected if expected is None else pytest.approx(expected))


def test_the_pages_are_read_whole() -> None:
    """The helper of these tests writes what the worker writes."""
    assert "worker_queue_age_seconds" in text({"slot": 0})
