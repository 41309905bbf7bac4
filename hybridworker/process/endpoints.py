"""
Status: what the worker answers about itself, before the application is asked.

Two small ASGI applications, :meth:`Status.health` and :meth:`Status.metrics`, that
:mod:`.http11.protocol` calls instead of the application for the paths of
``HYBRIDWORKER_HEALTH_PATH`` and ``HYBRIDWORKER_METRICS_PATH``. They are not counted for
``max_requests`` and not in the access log. Any worker answers for the whole group, from the
scoreboard. Event loop side only.

Invariant: nothing here waits. The answers are needed most when everything else is stuck.

Source of the text format: prometheus.io, "Exposition formats", version 0.0.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..application.application import Application, Endpoint
from ..asgi import Receive, Scope, Send
from ..connection.context import WorkerContext
from ..group import durations
from ..group.scoreboard import (
    ACCEPTING,
    BUSY,
    CONNECTIONS,
    IN_FLIGHT,
    LAG,
    LAST_RECYCLE,
    LAST_RECYCLED,
    LEFT,
    LEFTOVERS,
    PID,
    QUEUE_AGE,
    QUEUED,
    REASONS,
    RECYCLED,
    RSS,
    SERVED,
    STARTED,
    STATE,
    TIMED,
    WAITED,
    Group,
    Slot,
    WorkerState,
    present,
)
from ..wsgi.threads import WAIT_BOUNDS, ThreadPool

#: Seconds for which the queue of WSGI calls may stand still.
STUCK = 1.0

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

#: Cell -> the name of a gauge, what its value is divided by, and what it is.
GAUGES = {
    CONNECTIONS: ("connections", 1, "Open connections."),
    IN_FLIGHT: ("requests_in_flight", 1, "Calls of the application that are not over, and this answer."),
    BUSY: ("threads_busy", 1, "Threads that run WSGI calls."),
    QUEUED: ("calls_queued", 1, "WSGI calls that wait for a thread."),
    QUEUE_AGE: ("queue_age_seconds", 10**6, "How long the oldest WSGI call has waited for a thread."),
    LAG: ("loop_lag_seconds", 10**6, "How late the event loop was, at most, in the last second."),
    RSS: ("resident_memory_bytes", 1 / 1024, "Resident memory."),
    STARTED: ("start_time_seconds", 1, "When the worker started, since the epoch."),
}

#: The gauges that make sense as a sum.
SUMMED = frozenset({CONNECTIONS, IN_FLIGHT, BUSY, QUEUED, RSS})


class Status:
    """
    The answers of one worker.

    ``full`` tells whether it takes no more connections.
    """

    def __init__(
        self, context: WorkerContext, group: Group | None, pool: ThreadPool | None, full: Callable[[], bool]
    ) -> None:
        self.context = context
        self.slot = context.slot
        self.group = group
        self.pool = pool
        self.full = full

    def endpoints(self) -> dict[str, Application]:
        """Path -> application, of those that are switched on."""
        settings = self.context.settings
        paths = {settings.health_path: self.health, settings.metrics_path: self.metrics}
        return {path: Endpoint(app, settings) for path, app in paths.items() if path}

    def publish(self, late: float, used: int) -> None:
        """
        Copy into the slot what changes too often to be written there at once; for the tick.

        ``late`` is how late the loop was since the last time, at most, in seconds, and
        ``used`` the resident memory in MiB.
        """
        slot, responses = self.slot, self.context.responses
        for at in range(len(CLASSES)):
            slot[SERVED + at] += responses[at + 1]
            responses[at + 1] = 0
        slot[LAG], slot[RSS] = int(late * 1e6), used * 1024
        if self.pool is not None:
            slot[BUSY], slot[QUEUED] = self.pool.busy, self.pool.queued
            for cell, count in enumerate(self.pool.take_waits(), WAITED):
                slot[cell] += count
            slot[QUEUE_AGE] = int(self.pool.queue_age(time.monotonic()) * 1e6)  # it is known from the second look on
        if self.context.durations is not None:
            for cell, count in enumerate(self.context.durations.take(), TIMED):
                slot[cell] += count
        if self.group is not None:
            self.group.look()

    # -- health

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200, or 503 with the reason, for load balancers and orchestrators."""
        trouble = self._trouble()
        await _answer(send, 503 if trouble else 200, b"text/plain; charset=utf-8", f"{trouble or 'ok'}\n")

    def _trouble(self) -> str:
        if self.slot[STATE] == WorkerState.DRAINING and not self._relieved():
            return "draining"
        if self.full():
            return "worker_connections is reached"
        if self.pool is not None and self.pool.queue_age(time.monotonic()) > STUCK:
            return "the queue of WSGI calls does not move"
        return ""

    def _relieved(self) -> bool:
        """Whether a sibling takes the connections that this worker no longer takes."""
        return self.group is not None and any(sibling[STATE] in ACCEPTING for sibling in self.group.siblings)

    # -- metrics

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The counts of all workers, each and in sum."""
        slots = [self.slot] if self.group is None else self.group.rows()
        used = [(number, slot) for number, slot in enumerate(slots) if slot[STARTED]]
        living = [(number, slot) for number, slot in used if slot[STATE] != WorkerState.FREE and present(slot)]
        threads = 0 if self.pool is None else self.pool.size
        text = "".join(f"{line}\n" for line in _exposition(used, living, threads))
        await _answer(send, 200, b"text/plain; version=0.0.4; charset=utf-8", text)


async def _answer(send: Send, status: int, kind: bytes, text: str) -> None:
    body = text.encode("ascii")
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_Numbered = list[tuple[int, Slot]]


def _exposition(used: _Numbered, living: _Numbered, threads: int) -> Iterator[str]:
    """Counters of every slot that was ``used``, so that no sum falls; gauges of the workers that are ``living``."""
    yield from _family("workers", "gauge", "Workers that are there.", [("", len(living))])
    info = [(f'slot="{n}",pid="{s[PID]}",state="{WorkerState(s[STATE]).name.lower()}"', 1) for n, s in living]
    yield from _family("worker_info", "gauge", "Which worker has a slot.", info)
    yield from _family("worker_threads", "gauge", "Threads for WSGI calls that a worker may have.", [("", threads)])
    for cell, (name, unit, text) in GAUGES.items():
        each = [(n, s[cell] if unit == 1 else s[cell] / unit) for n, s in living]
        yield from _family(f"worker_{name}", "gauge", text, [(f'slot="{n}"', value) for n, value in each])
        if cell in SUMMED:
            yield from _family(name, "gauge", f"{text} All workers.", [("", sum(value for _, value in each))])
    yield from _counters("requests_total", "Responses by status class.", "status", CLASSES, SERVED, used)
    yield from _counters("recycles_total", "Workers replaced, by reason.", "reason", REASONS, RECYCLED, used)
    text = "What the application had left behind when its worker went."
    kinds = [(f'kind="{kind}",outcome="{outcome}"', cell) for cell, (kind, outcome) in enumerate(LEFT, LEFTOVERS)]
    leftovers = [(labels, sum(slot[cell] for _, slot in used)) for labels, cell in kinds]
    yield from _family("leftovers_total", "counter", text, leftovers)
    text = "Time that WSGI calls waited for a thread."
    yield from _histogram("queue_seconds", text, [("", [s for _, s in used])])
    yield from _histogram("worker_queue_seconds", text, [(f'slot="{n}",', [s]) for n, s in used])
    text = "When the last worker of a slot was replaced, and why, since the epoch."
    last = [
        (f'slot="{n}",reason="{REASONS[s[LAST_RECYCLE] - 1]}"', s[LAST_RECYCLED]) for n, s in used if s[LAST_RECYCLE]
    ]
    yield from _family("worker_last_recycle_timestamp_seconds", "gauge", text, last)
    text = "Time from the head of a request to the first byte of its response."
    yield from _durations("request_seconds", text, [("", [s for _, s in used])])
    yield from _durations("worker_request_seconds", text, [(f'slot="{n}",', [s]) for n, s in used])


def _counters(name: str, text: str, label: str, values: Sequence[str], first: int, used: _Numbered) -> Iterator[str]:
    cells = [(f'{label}="{value}"', cell) for cell, value in enumerate(values, first)]
    yield from _family(name, "counter", text, [(tag, sum(s[cell] for _, s in used)) for tag, cell in cells])
    each = [(f'slot="{n}",{tag}', s[cell]) for n, s in used for tag, cell in cells]
    yield from _family(f"worker_{name}", "counter", text, each)


def _histogram(name: str, text: str, groups: Iterable[tuple[str, list[Slot]]]) -> Iterator[str]:
    """Of each group of slots, whose labels stand before it: the buckets, cumulative as the format wants it."""
    yield from _family(name, "histogram", text, [])
    bounds = [*(f"{bound:g}" for bound in WAIT_BOUNDS), "+Inf"]
    for labels, slots in groups:
        total = 0
        for cell, bound in enumerate(bounds, WAITED):
            total += sum(slot[cell] for slot in slots)
            yield _sample(f"{name}_bucket", f'{labels}le="{bound}"', total)
        yield _sample(f"{name}_sum", labels.rstrip(","), sum(slot[WAITED + len(bounds)] for slot in slots) / 10**6)
        yield _sample(f"{name}_count", labels.rstrip(","), total)


def _durations(name: str, text: str, groups: Iterable[tuple[str, list[Slot]]]) -> Iterator[str]:
    """Of each group of slots, whose labels stand before it: a histogram for each status class."""
    yield from _family(name, "histogram", text, [])
    bounds = [*(f"{bound:g}" for bound in durations.BOUNDS), "+Inf"]
    for labels, slots in groups:
        for number, status in enumerate(durations.CLASSES):
            first, total, tag = TIMED + number * durations.WIDTH, 0, f'{labels}status="{status}"'
            for cell, bound in enumerate(bounds, first):
                total += sum(slot[cell] for slot in slots)
                yield _sample(f"{name}_bucket", f'{tag},le="{bound}"', total)
            yield _sample(f"{name}_sum", tag, sum(slot[first + len(bounds)] for slot in slots) / 10**6)
            yield _sample(f"{name}_count", tag, total)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP hybridworker_{name} {text}"
    yield f"# TYPE hybridworker_{name} {kind}"
    yield from (_sample(name, labels, value) for labels, value in samples)


def _sample(name: str, labels: str, value: float) -> str:
    return f"hybridworker_{name}{{{labels}}} {value!r}" if labels else f"hybridworker_{name} {value!r}"
