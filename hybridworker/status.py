"""
Status: what the worker answers about itself, before the application is asked.

Two small ASGI applications, :meth:`Status.health` and :meth:`Status.metrics`, that
:mod:`.http11` calls instead of the application for the paths of
``HYBRIDWORKER_HEALTH_PATH`` and ``HYBRIDWORKER_METRICS_PATH``. They are not counted for
``max_requests`` and not in the access log. Any worker answers for the whole group, from the
board of :mod:`.fleet`. Event loop side only. The rule one could break by accident: nothing
here may wait, for it is asked most urgently when everything else is stuck.

Source of the text format: prometheus.io, "Exposition formats", version 0.0.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from .asgi import ASGIApp, Receive, Scope, Send
from .context import WorkerContext
from .fleet import (
    ACCEPTING,
    BUSY,
    CONNECTIONS,
    IN_FLIGHT,
    LAG,
    PID,
    QUEUED,
    REASONS,
    RECYCLED,
    RSS,
    SERVED,
    STANDING,
    STARTED,
    WAIT_BOUNDS,
    WAITED,
    WAITED_SUM,
    Fleet,
    Slot,
    Standing,
)
from .threads import ThreadPool

#: Seconds for which the queue of WSGI calls may stand still.
STUCK = 1.0

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

#: Cell -> the name of a gauge, what its value is divided by, and what it is.
GAUGES = {
    CONNECTIONS: ("connections", 1, "Open connections."),
    IN_FLIGHT: ("requests_in_flight", 1, "Requests that the application is working on."),
    BUSY: ("threads_busy", 1, "Threads that run WSGI calls."),
    QUEUED: ("calls_queued", 1, "WSGI calls that wait for a thread."),
    LAG: ("loop_lag_seconds", 10**6, "How late the event loop was, at most, in the last second."),
    RSS: ("resident_memory_bytes", 1 / 1024, "Resident memory."),
    STARTED: ("start_time_seconds", 1, "When the worker started, since the epoch."),
}


class Status:
    """
    The answers of one worker.

    ``full`` tells whether it takes no more connections.
    """

    def __init__(
        self, context: WorkerContext, fleet: Fleet | None, pool: ThreadPool | None, full: Callable[[], bool]
    ) -> None:
        self.context = context
        self.slot = context.slot
        self.fleet = fleet
        self.pool = pool
        self.full = full

    def endpoints(self) -> dict[str, ASGIApp]:
        """Path -> application, of those that are switched on."""
        settings = self.context.settings
        paths = {settings.health_path: self.health, settings.metrics_path: self.metrics}
        return {path: app for path, app in paths.items() if path}

    # -- health

    async def health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """200, or 503 with the reason, for load balancers and orchestrators."""
        trouble = self._trouble()
        await _answer(send, 503 if trouble else 200, b"text/plain; charset=utf-8", f"{trouble or 'ok'}\n")

    def _trouble(self) -> str:
        if self.slot[STANDING] == Standing.DRAINING and not self._relieved():
            return "draining"
        if self.full():
            return "worker_connections is reached"
        if self.pool is not None and self.pool.queue_age(time.monotonic()) > STUCK:
            return "the queue of WSGI calls does not move"
        return ""

    def _relieved(self) -> bool:
        """Whether a sibling takes the connections that this worker no longer takes."""
        return self.fleet is not None and any(sibling[STANDING] in ACCEPTING for sibling in self.fleet.siblings)

    # -- metrics

    async def metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The counts of all workers, each and in sum."""
        slots = [self.slot] if self.fleet is None else self.fleet.board.slots
        used = [(number, slot) for number, slot in enumerate(slots) if slot[STARTED]]
        living = [self.slot] if self.fleet is None else self.fleet.board.living()
        present = [(number, slot) for number, slot in used if any(slot is other for other in living)]
        text = "".join(f"{line}\n" for line in _exposition(used, present))
        await _answer(send, 200, b"text/plain; version=0.0.4; charset=utf-8", text)


async def _answer(send: Send, status: int, kind: bytes, text: str) -> None:
    body = text.encode("ascii")
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_Numbered = list[tuple[int, Slot]]


def _exposition(used: _Numbered, present: _Numbered) -> Iterator[str]:
    """Counters of every slot that was ``used``, so that no sum falls; gauges of the workers that are ``present``."""
    yield from _family("workers", "gauge", "Workers that are there.", [("", len(present))])
    yield from _family(
        "worker_info", "gauge", "Which worker has a slot.",
        [(f'slot="{n}",pid="{s[PID]}",state="{Standing(s[STANDING]).name.lower()}"', 1) for n, s in present],
    )  # fmt: skip
    for cell, (name, unit, text) in GAUGES.items():
        yield from _family(
            f"worker_{name}", "gauge", text, [(f'slot="{n}"', s[cell] / unit) for n, s in present]
        )  # fmt: skip
        if cell in (CONNECTIONS, IN_FLIGHT, BUSY, QUEUED, RSS):
            yield from _family(name, "gauge", f"{text} All workers.", [("", sum(s[cell] for _, s in present) / unit)])
    yield from _counters("requests_total", "Responses by status class.", "status", CLASSES, SERVED, used)
    yield from _counters("recycles_total", "Workers replaced, by reason.", "reason", REASONS, RECYCLED, used)
    yield from _waits(used)


def _counters(name: str, text: str, label: str, values: Iterable[str], first: int, used: _Numbered) -> Iterator[str]:
    cells = [(value, first + at) for at, value in enumerate(values)]
    yield from _family(
        name, "counter", text, [(f'{label}="{value}"', sum(s[cell] for _, s in used)) for value, cell in cells]
    )  # fmt: skip
    yield from _family(
        f"worker_{name}", "counter", text,
        [(f'slot="{n}",{label}="{value}"', s[cell]) for n, s in used for value, cell in cells],
    )  # fmt: skip


def _waits(used: _Numbered) -> Iterator[str]:
    """The histogram of the time that WSGI calls waited for a thread, cumulative as the format wants it."""
    total, samples = 0, []
    for at in range(len(WAIT_BOUNDS) + 1):
        total += sum(s[WAITED + at] for _, s in used)
        bound = f"{WAIT_BOUNDS[at] / 1000:g}" if at < len(WAIT_BOUNDS) else "+Inf"
        samples.append((f'le="{bound}"', total))
    name = "queue_seconds"
    lines = list(_family(name, "histogram", "Time that WSGI calls waited for a thread.", samples))
    yield from (line.replace(f"{name}{{", f"{name}_bucket{{") for line in lines)
    yield f"hybridworker_{name}_sum {sum(s[WAITED_SUM] for _, s in used) / 10**6:g}"
    yield f"hybridworker_{name}_count {total}"


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP hybridworker_{name} {text}"
    yield f"# TYPE hybridworker_{name} {kind}"
    for labels, value in samples:
        yield f"hybridworker_{name}{{{labels}}} {value:.10g}" if labels else f"hybridworker_{name} {value:.10g}"
