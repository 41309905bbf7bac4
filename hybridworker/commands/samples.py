"""
Samples: what a metrics page says, read back from its text. :mod:`..process.endpoints` writes it.

:func:`read` makes samples of the text, :func:`workers` what they say of each worker, :func:`between` what has happened
between two of these. Pure. A label that is not known here, such as the part of a Hybrid, is summed over.

Source of the text format: prometheus.io, "Exposition formats", version 0.0.4.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

PREFIX = "hybridworker_"

_SAMPLE = re.compile(rf"{PREFIX}(\w+)(?:\{{(.*)\}})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

#: Upper bound of a bucket in seconds -> how many requests took no longer.
Buckets = dict[float, float]


class Sample(NamedTuple):
    """One line of the page; ``name`` without the prefix of this package."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass
class Worker:
    """What the page says of one worker, or of the slot that it has. None where it says nothing."""

    slot: int
    pid: int | None = None
    state: str = ""
    started: float | None = None  #: since the epoch
    in_flight: float = 0.0
    busy: float = 0.0
    queued: float = 0.0
    queue_age: float = 0.0  #: seconds
    lag: float = 0.0  #: seconds
    memory: float = 0.0  #: bytes
    reason: str = ""  #: why the last worker of this slot was replaced
    recycled: float = 0.0  #: when that was, since the epoch
    requests: float = 0.0  #: a counter, as the following ones
    errors: float = 0.0  #: those of them that were answered with a 5xx
    buckets: Buckets = field(default_factory=dict)


@dataclass
class Page:
    """A metrics page, taken at ``time`` (``time.monotonic()``)."""

    time: float
    threads: int  #: that a worker may have
    workers: dict[int, Worker]  #: by slot; those that live have a pid


#: Gauge of a worker -> the field that holds it.
_GAUGES = {
    "worker_start_time_seconds": "started",
    "worker_requests_in_flight": "in_flight",
    "worker_threads_busy": "busy",
    "worker_calls_queued": "queued",
    "worker_queue_age_seconds": "queue_age",
    "worker_loop_lag_seconds": "lag",
    "worker_resident_memory_bytes": "memory",
}


def read(text: str) -> Iterator[Sample]:
    """The samples of this package in ``text``; what is none is skipped."""
    for line in text.splitlines():
        match = _SAMPLE.fullmatch(line)
        if match is not None:
            try:
                value = float(match[3])
            except ValueError:
                continue
            yield Sample(match[1], dict(_LABEL.findall(match[2] or "")), value)


def workers(samples: Iterable[Sample], time: float) -> Page | None:
    """What the samples say of the workers; None if they are not those of a metrics page of this package."""
    page = Page(time, 0, {})
    found = False
    for name, labels, value in samples:
        found = True
        slot = labels.get("slot", "")
        if name == "worker_threads":
            page.threads = int(value)
        if not slot.isdecimal():
            continue
        worker = page.workers.setdefault(int(slot), Worker(int(slot)))
        if name == "worker_info":
            worker.pid, worker.state = int(labels.get("pid", "0")), labels.get("state", "")
        elif name in _GAUGES:
            setattr(worker, _GAUGES[name], value)
        elif name == "worker_last_recycle_timestamp_seconds":
            worker.reason, worker.recycled = labels.get("reason", ""), value
        elif name == "worker_requests_total":
            worker.requests += value
            if labels.get("status") == "5xx":
                worker.errors += value
        elif name == "worker_request_seconds_bucket" and labels.get("le"):
            bound = float(labels["le"])
            worker.buckets[bound] = worker.buckets.get(bound, 0.0) + value
    return page if found else None


class Rates(NamedTuple):
    """What has happened between two pages: requests and 5xx per second, and how long requests took."""

    requests: float
    errors: float
    buckets: Buckets


def between(before: Page | None, now: Page) -> dict[int, Rates]:
    """
    By slot, what has happened since the page before. Empty where nothing can be said.

    A counter that has fallen belongs to another gunicorn, which has begun at zero since: then nothing can be said
    either.
    """
    seconds = now.time - before.time if before is not None else 0.0
    if before is None or seconds <= 0 or any(fell(before.workers.get(slot), w) for slot, w in now.workers.items()):
        return {}
    rates = {}
    for slot, worker in now.workers.items():
        old = before.workers.get(slot, Worker(slot))
        buckets = {bound: count - old.buckets.get(bound, 0.0) for bound, count in worker.buckets.items()}
        requests, errors = worker.requests - old.requests, worker.errors - old.errors
        rates[slot] = Rates(requests / seconds, errors / seconds, buckets)
    return rates


def fell(before: Worker | None, now: Worker) -> bool:
    """Whether a counter of the slot is less than it was."""
    return before is not None and (now.requests < before.requests or now.errors < before.errors)


def total(rates: Iterable[Rates]) -> Rates:
    """The sum over workers."""
    requests = errors = 0.0
    buckets: defaultdict[float, float] = defaultdict(float)
    for rate in rates:
        requests += rate.requests
        errors += rate.errors
        for bound, count in rate.buckets.items():
            buckets[bound] += count
    return Rates(requests, errors, dict(buckets))


def quantile(buckets: Buckets, share: float) -> float | None:
    """
    The seconds within which that ``share`` of the requests was answered; None where there were none.

    Within a bucket they count as spread evenly, as Prometheus's ``histogram_quantile`` has it. Infinite for what is
    beyond the last bound.
    """
    bounds = sorted(buckets)
    count = buckets[bounds[-1]] if bounds else 0.0
    if count <= 0:
        return None
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= share * count:
            if math.isinf(bound):
                return bound
            return low + (bound - low) * (share * count - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return math.inf
