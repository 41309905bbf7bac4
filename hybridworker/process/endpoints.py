"""
Status: the health and metrics endpoints, which the worker answers before the application is asked.

Two small ASGI applications, :meth:`Status.health` and :meth:`Status.metrics`. :class:`~.connection.router.Router`
chooses them instead of the application, in any version of HTTP, for GET and HEAD of the paths in
``HYBRIDWORKER_HEALTH_PATH`` and ``HYBRIDWORKER_METRICS_PATH``. To add a metric: a cell in :mod:`..group.scoreboard`,
its value in :meth:`Status.publish`, its line in ``_exposition``. They are not counted for ``max_requests`` and not in
the access log. Any worker answers for the whole group, from the scoreboard. Event loop side only.

Invariant: nothing here waits. The answers are needed most when everything else is stuck.

Source of the text format: prometheus.io, "Exposition formats", version 0.0.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..application.application import Application, Endpoint
from ..asgi import Receive, Scope, Send
from ..connection.context import WorkerContext
from ..group import durations
from ..group.ledger import LEDGER_CELLS, Ledger
from ..group.ledger import QUEUED as PART_QUEUED
from ..group.ledger import SERVED as PART_SERVED
from ..group.ledger import WAITED as PART_WAITED
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
    LENT,
    LENT_BEYOND,
    LENT_QUEUED,
    LENT_WAITED,
    MULTIPLEXED,
    PID,
    QUEUE_AGE,
    QUEUED,
    REASONS,
    RECYCLED,
    RESET,
    RESET_CODES,
    RESETS,
    RSS,
    SERVED,
    SHED,
    SHEDS,
    STARTED,
    STATE,
    STREAMS,
    TIMED,
    WAITED,
    Group,
    Slot,
    WorkerState,
    present,
)
from ..wsgi.waits import WAIT_BOUNDS, WAITS

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool

#: Seconds for which the queue of WSGI calls may stand still.
STUCK = 1.0

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")

#: The label of what is of no part. No part has such a name: see :class:`~.application.directory.Part`.
NOWHERE = "none"

#: Cell -> the name of a gauge, what its value is divided by, and what it is.
GAUGES = {
    CONNECTIONS: ("connections", 1, "Open connections."),
    IN_FLIGHT: ("requests_in_flight", 1, "Calls of the application that are not over."),
    BUSY: ("threads_busy", 1, "Threads that run WSGI calls."),
    QUEUED: ("calls_queued", 1, "WSGI calls that wait for a thread."),
    MULTIPLEXED: ("http2_connections", 1, "Open connections that speak HTTP/2."),
    STREAMS: ("http2_streams", 1, "Requests and WebSockets on them."),
    QUEUE_AGE: ("queue_age_seconds", 10**6, "How long the oldest WSGI call has waited for a thread."),
    LAG: ("loop_lag_seconds", 10**6, "How late the event loop was, at most, in the last second."),
    RSS: ("resident_memory_bytes", 1 / 1024, "Resident memory."),
    STARTED: ("start_time_seconds", 1, "When the worker started, since the epoch."),
}

#: The same, where threads are lent to ASGI calls.
LENT_GAUGES = {
    LENT: ("threads_lent", 1, "Threads that are lent to ASGI calls for their synchronous code."),
    LENT_QUEUED: ("lent_calls_queued", 1, "ASGI calls that wait for a thread to be lent."),
}

#: The gauges that make sense as a sum.
SUMMED = frozenset({CONNECTIONS, IN_FLIGHT, MULTIPLEXED, STREAMS, BUSY, QUEUED, LENT, LENT_QUEUED, RSS})


def streams_of(context: WorkerContext) -> list[int]:
    """How many streams each connection of HTTP/2 has. Where there can be none, nothing of the extra is imported."""
    if not context.settings.http2:
        return []
    from ..http2.protocol import HTTP2Protocol

    return [len(made.reader.streams) for made in context.connections if isinstance(made, HTTP2Protocol)]


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
        self.entries: dict[Application, int] = {}  #: part of a Hybrid -> its entry in the ledger of this worker
        self.ledger = self._open_ledger()

    def _open_ledger(self) -> Ledger | None:
        """Enter the parts of a Hybrid; None where there are none, or nobody asks for metrics."""
        parts = self.context.router.parts
        if not self.context.settings.metrics_path:
            return None
        ledger = None if self.group is None else self.group.scoreboard.ledger(self.slot)
        ledger = ledger or Ledger([0] * LEDGER_CELLS)
        ledger.forget_queue()  # that of the last worker of the slot
        if parts is None:
            return None
        self.entries = {app: ledger.enter(app.part.name) for app in parts.applications if app.part is not None}
        return ledger

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
        slot, responses = self.slot, self.context.router.responses
        for at in range(len(CLASSES)):
            slot[SERVED + at] += responses[at + 1]
            responses[at + 1] = 0
        slot[LAG], slot[RSS] = int(late * 1e6), used * 1024
        streams = streams_of(self.context)
        slot[MULTIPLEXED], slot[STREAMS] = len(streams), sum(streams)
        if self.pool is not None:
            slot[BUSY], slot[QUEUED] = self.pool.busy, self.pool.queued
            if self.ledger is None:
                for cell, count in enumerate(self.pool.waits.take()[0], WAITED):
                    slot[cell] += count
            slot[QUEUE_AGE] = int(self.pool.queue_age(time.monotonic()) * 1e6)  # it is known from the second look on
        if self.ledger is not None:
            self._publish_parts(self.ledger)
        if (lender := self.context.lender) is not None:
            slot[LENT], slot[LENT_QUEUED] = lender.lent, lender.queued
            waits, beyond = lender.take_counts()
            for cell, count in enumerate(waits, LENT_WAITED):
                slot[cell] += count
            slot[LENT_BEYOND] += beyond
        if self.context.durations is not None:
            for cell, count in enumerate(self.context.durations.take(), TIMED):
                if count:
                    slot[cell] += count
        if self.group is not None:
            self.group.look()

    def _publish_parts(self, ledger: Ledger) -> None:
        """The responses and the queue, by part. The calls of a part are counted in the lane of its number."""
        waits = None if self.pool is None else self.pool.waits.take()
        queued = dict.fromkeys(self.entries.values(), 0)
        for lane, (app, entry) in enumerate(self.entries.items()):
            ledger.add(entry, PART_SERVED, app.responses[1 : 1 + len(CLASSES)])
            app.responses[1 : 1 + len(CLASSES)] = [0] * len(CLASSES)
            if self.pool is not None and waits is not None:
                ledger.add(entry, PART_WAITED, waits[lane])
                queued[entry] += self.pool.queued_in(lane)
        for entry, count in queued.items():
            ledger.cells[entry + PART_QUEUED] = count

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
        """The counts of all workers, each and in sum. What asks for them is not in flight itself."""
        self.slot[IN_FLIGHT] = sum(cycle.application.counted for cycle in self.context.cycles)
        slots = [self.slot] if self.group is None else self.group.rows()
        used = [(number, slot) for number, slot in enumerate(slots) if slot[STARTED]]
        living = [(number, slot) for number, slot in used if slot[STATE] != WorkerState.FREE and present(slot)]
        threads = 0 if self.pool is None else self.pool.size
        ledgers = {number: ledger for number, slot in used if (ledger := self._ledger_of(slot)) is not None}
        lines = [*_exposition(used, living, threads, ledgers if any(map(Ledger.names, ledgers.values())) else {})]
        if self.context.lender is not None:
            lines.extend(_lent(used, living))
        text = "".join(f"{line}\n" for line in lines)
        await _answer(send, 200, b"text/plain; version=0.0.4; charset=utf-8", text)

    def _ledger_of(self, slot: Slot) -> Ledger | None:
        if slot is self.slot and self.ledger is not None:
            return self.ledger
        return None if self.group is None else self.group.scoreboard.ledger(slot)


async def _answer(send: Send, status: int, kind: bytes, text: str) -> None:
    body = text.encode("utf-8")
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_Numbered = list[tuple[int, Slot]]
#: By the number of the slot; none where no worker has had a Hybrid.
_Ledgers = Mapping[int, Ledger]


def _exposition(used: _Numbered, living: _Numbered, threads: int, ledgers: _Ledgers) -> Iterator[str]:
    """
    Counters of every slot that was ``used``, so that no sum falls; gauges of the workers that are ``living``.

    Where there is a Hybrid, the responses and the queue of the group have a label more, the part. What
    is counted in a row itself is of none: no part claimed it, or it was refused before that was known.
    """
    whole = {n: _row(s, ledgers.get(n)) for n, s in used}
    parts = _by_part(used, living, ledgers)
    yield from _family("workers", "gauge", "Workers that are there.", [("", len(living))])
    info = [(f'slot="{n}",pid="{s[PID]}",state="{WorkerState(s[STATE]).name.lower()}"', 1) for n, s in living]
    yield from _family("worker_info", "gauge", "Which worker has a slot.", info)
    yield from _family("worker_threads", "gauge", "Threads for WSGI calls that a worker may have.", [("", threads)])
    queued = {part: row.queued for part, row in parts.items()} if ledgers else None
    yield from _gauges(GAUGES, living, queued)
    text = "Responses by status class."
    yield from _counters("requests_total", text, "status", CLASSES, {part: row.served for part, row in parts.items()})
    each_served = {f'slot="{n}"': row.served for n, row in whole.items()}
    yield from _counters("worker_requests_total", text, "status", CLASSES, each_served)
    text, last = "Workers replaced, by reason.", RECYCLED + len(REASONS)
    each_recycled = {f'slot="{n}"': list(s[RECYCLED:last]) for n, s in used}
    summed_recycled = {"": [sum(s[cell] for _, s in used) for cell in range(RECYCLED, last)]}
    yield from _counters("recycles_total", text, "reason", REASONS, summed_recycled)
    yield from _counters("worker_recycles_total", text, "reason", REASONS, each_recycled)
    yield from _resets(used)
    text = "What the application had left behind when its worker went."
    kinds = [(f'kind="{kind}",outcome="{outcome}"', cell) for cell, (kind, outcome) in enumerate(LEFT, LEFTOVERS)]
    leftovers = [(labels, sum(slot[cell] for _, slot in used)) for labels, cell in kinds]
    yield from _family("leftovers_total", "counter", text, leftovers)
    text = "Time that WSGI calls waited for a thread."
    yield from _histogram("queue_seconds", text, {part: row.waited for part, row in parts.items()})
    yield from _histogram("worker_queue_seconds", text, {f'slot="{n}"': row.waited for n, row in whole.items()})
    text = "When the last worker of a slot was replaced, and why, since the epoch."
    recycled = [
        (f'slot="{n}",reason="{REASONS[s[LAST_RECYCLE] - 1]}"', s[LAST_RECYCLED]) for n, s in used if s[LAST_RECYCLE]
    ]
    yield from _family("worker_last_recycle_timestamp_seconds", "gauge", text, recycled)
    text = "Time from the head of a request to the first byte of its response."
    yield from _both("request_seconds", text, durations.CLASSES, 0, used)
    text = "Time from the head of a request to the last byte of its response."
    yield from _both("response_seconds", text, durations.CLASSES, durations.LAST, used)
    text = "Time from a WebSocket handshake to its answer."
    yield from _both("websocket_handshake_seconds", text, ("",), durations.WEBSOCKETS, used)
    text = "Time from a WebSocket handshake to the end of its connection."
    yield from _both("websocket_seconds", text, ("",), durations.LAST + durations.WEBSOCKETS, used)
    text, last = "Requests that were turned away, by reason.", SHED + len(SHEDS)
    each_shed = {f'slot="{n}"': list(s[SHED:last]) for n, s in used}
    summed_shed = {"": [sum(s[cell] for _, s in used) for cell in range(SHED, last)]}
    yield from _counters("shed_total", text, "reason", SHEDS, summed_shed)
    yield from _counters("worker_shed_total", text, "reason", SHEDS, each_shed)


def _resets(used: _Numbered) -> Iterator[str]:
    """The streams of HTTP/2 that were reset."""
    text = "HTTP/2 streams that a client has reset."
    yield from _family("http2_client_resets_total", "counter", text, [("", sum(s[RESET] for _, s in used))])
    text = "HTTP/2 streams that a worker has reset, and connections that it has ended, by error code."
    last = RESETS + len(RESET_CODES)
    summed = {"": [sum(s[cell] for _, s in used) for cell in range(RESETS, last)]}
    yield from _counters("http2_resets_total", text, "reason", RESET_CODES, summed)


def _lent(used: _Numbered, living: _Numbered) -> Iterator[str]:
    """The same of threads that are lent."""
    yield from _gauges(LENT_GAUGES, living)
    text = "Time that ASGI calls waited for a thread to be lent."
    waited = [sum(s[cell] for _, s in used) for cell in range(LENT_WAITED, LENT_WAITED + WAITS)]
    yield from _histogram("lent_queue_seconds", text, {"": waited})
    text = "Threads that were lent beyond the bound, to calls that had waited too long."
    yield from _family("lent_beyond_total", "counter", text, [("", sum(s[LENT_BEYOND] for _, s in used))])


def _gauges(
    gauges: Mapping[int, tuple[str, float, str]], living: _Numbered, queued: Mapping[str, int] | None = None
) -> Iterator[str]:
    """Each worker's, and the sums; with a Hybrid the sum of the calls ``queued`` is given by part."""
    for cell, (name, unit, text) in gauges.items():
        each = [(n, s[cell] if unit == 1 else s[cell] / unit) for n, s in living]
        yield from _family(f"worker_{name}", "gauge", text, [(f'slot="{n}"', value) for n, value in each])
        if cell in SUMMED:
            summed: list[tuple[str, float]] = [("", sum(value for _, value in each))]
            if cell == QUEUED and queued is not None:
                summed = list(queued.items())
            yield from _family(name, "gauge", f"{text} All workers.", summed)


class _Counts:
    """The counts of a part in all slots, or of all parts in one."""

    def __init__(self) -> None:
        self.queued = 0
        self.served = [0] * len(CLASSES)
        self.waited = [0] * WAITS

    def add(self, cells: Slot, served: int, waited: int) -> None:
        """Add what stands in ``cells`` from ``served`` and from ``waited`` on."""
        self.served = [mine + cells[served + at] for at, mine in enumerate(self.served)]
        self.waited = [mine + cells[waited + at] for at, mine in enumerate(self.waited)]


def _row(slot: Slot, ledger: Ledger | None) -> _Counts:
    """The counts of one slot, with and without parts."""
    counts = _Counts()
    counts.add(slot, SERVED, WAITED)
    if ledger is not None:
        for entry in ledger.names().values():
            counts.add(ledger.cells, entry + PART_SERVED, entry + PART_WAITED)
    return counts


def _by_part(used: _Numbered, living: _Numbered, ledgers: _Ledgers) -> dict[str, _Counts]:
    """Label -> the counts of all slots. Without a Hybrid there is one, without a label."""
    nowhere = _Counts()
    for _, slot in used:
        nowhere.add(slot, SERVED, WAITED)
    if not ledgers:
        return {"": nowhere}
    alive = {n for n, _ in living}
    parts: dict[str, _Counts] = {}
    for number, ledger in ledgers.items():
        for name, entry in ledger.names().items():
            counts = parts.setdefault(name, _Counts())
            counts.add(ledger.cells, entry + PART_SERVED, entry + PART_WAITED)
            counts.queued += ledger.cells[entry + PART_QUEUED] if number in alive else 0
    return {f'part="{_escaped(name)}"': counts for name, counts in [*parts.items(), (NOWHERE, nowhere)]}


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _counters(
    name: str, text: str, label: str, values: Sequence[str], groups: Mapping[str, list[int]]
) -> Iterator[str]:
    """Of each group, by its label: a counter for each of the ``values`` of another ``label``."""
    samples = [
        (f'{group}{"," if group else ""}{label}="{value}"', count)
        for group, counts in groups.items()
        for value, count in zip(values, counts, strict=True)
    ]
    yield from _family(name, "counter", text, samples)


def _histogram(name: str, text: str, groups: Mapping[str, list[int]]) -> Iterator[str]:
    """Of each group, by its label: the buckets, cumulative as the format wants it."""
    yield from _family(name, "histogram", text, [])
    bounds = [*(f"{bound:g}" for bound in WAIT_BOUNDS), "+Inf"]
    for group, (*buckets, microseconds) in groups.items():
        labels, total = f"{group}," if group else "", 0
        for count, bound in zip(buckets, bounds, strict=True):
            total += count
            yield _sample(f"{name}_bucket", f'{labels}le="{bound}"', total)
        yield _sample(f"{name}_sum", group, microseconds / 10**6)
        yield _sample(f"{name}_count", group, total)


def _both(name: str, text: str, classes: Sequence[str], first: int, used: _Numbered) -> Iterator[str]:
    """A histogram for each of the ``classes``, of all slots and of each; the first begins ``first`` behind TIMED."""
    yield from _durations(name, text, classes, first, [("", [s for _, s in used])])
    yield from _durations(f"worker_{name}", text, classes, first, [(f'slot="{n}"', [s]) for n, s in used])


def _durations(
    name: str, text: str, classes: Sequence[str], first: int, groups: Iterable[tuple[str, list[Slot]]]
) -> Iterator[str]:
    """Of each group of slots, by its label: a histogram for each status class."""
    yield from _family(name, "histogram", text, [])
    bounds = [*(f"{bound:g}" for bound in durations.BOUNDS), "+Inf"]
    for group, slots in groups:
        for number, status in enumerate(classes):
            tag = ",".join(label for label in (group, status and f'status="{status}"') if label)
            begin, total, labels = TIMED + first + number * durations.WIDTH, 0, f"{tag}," if tag else ""
            for cell, bound in enumerate(bounds, begin):
                total += sum(slot[cell] for slot in slots)
                yield _sample(f"{name}_bucket", f'{labels}le="{bound}"', total)
            yield _sample(f"{name}_sum", tag, sum(slot[begin + len(bounds)] for slot in slots) / 10**6)
            yield _sample(f"{name}_count", tag, total)


def _family(name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP hybridworker_{name} {text}"
    yield f"# TYPE hybridworker_{name} {kind}"
    yield from (_sample(name, labels, value) for labels, value in samples)


def _sample(name: str, labels: str, value: float) -> str:
    return f"hybridworker_{name}{{{labels}}} {value!r}" if labels else f"hybridworker_{name} {value!r}"
