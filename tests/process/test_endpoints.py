"""Status: the answers for health and metrics, the latter read by a strict parser of the text format."""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from hybridworker.application.application import Endpoint
from hybridworker.application.lentthreads import Lender, Loan
from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.group.durations import WIDTH, Durations
from hybridworker.group.scoreboard import (
    BUSY,
    CONNECTIONS,
    IN_FLIGHT,
    LAG,
    LAST_RECYCLE,
    LAST_RECYCLED,
    LEFTOVERS,
    LENT,
    LENT_BEYOND,
    LENT_WAITED,
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
    Scoreboard,
    Slot,
    WorkerState,
    set_state,
)
from hybridworker.process.endpoints import STUCK, Status
from hybridworker.wsgi.threads import ThreadPool
from hybridworker.wsgi.waits import WAIT_BOUNDS
from tests.fakes import FakeCall
from tests.harness import HELLO, application, make_settings, wire
from tests.waiting import DEADLINE, until

# -- the text format, version 0.0.4


class Family(NamedTuple):
    """One metric: its type, and the value of each of its samples by name and labels."""

    kind: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float]


NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL})(?:,{LABEL})*)\}})? (-?[0-9.]+(?:e[+-][0-9]+)?|[+-]Inf|NaN)")


def parse(text: str) -> dict[str, Family]:
    """Every family of an exposition; an AssertionError for whatever the format does not allow."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    lines = iter(text.splitlines())
    name = ""
    for line in lines:
        if help_ := re.fullmatch(rf"# HELP ({NAME}) \S.*", line):
            name = help_[1]
            assert name not in families, f"{name} stands in two places"
            kind = re.fullmatch(rf"# TYPE {name} (counter|gauge|histogram)", next(lines))
            assert kind is not None, f"{name} has no type"
            families[name] = Family(kind[1], {})
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, f"{line!r} is no sample"
        endings = ("_bucket", "_sum", "_count") if families[name].kind == "histogram" else ("",)
        assert sample[1] in [name + ending for ending in endings], f"{line!r} stands under {name}"
        labels = tuple((label[1], label[2]) for label in re.finditer(LABEL, sample[2] or ""))
        assert (sample[1], labels) not in families[name].samples, f"{line!r} is there twice"
        families[name].samples[sample[1], labels] = float(sample[7])
    for name, family in families.items():
        if family.kind == "counter":
            assert name.endswith("_total")
        if family.kind == "histogram":
            _check_histogram(name, family)
    return families


def _check_histogram(name: str, family: Family) -> None:
    """Buckets rise with their bounds up to ``+Inf``, which is the count."""
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for (sample, labels), value in family.samples.items():
        if sample == f"{name}_bucket":
            (bound,) = (float(text) for label, text in labels if label == "le")
            series.setdefault(tuple(pair for pair in labels if pair[0] != "le"), []).append((bound, value))
    for labels, buckets in series.items():
        assert buckets == sorted(buckets)
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1] == (float("inf"), family.samples[f"{name}_count", labels])
        assert (f"{name}_sum", labels) in family.samples


@pytest.mark.parametrize(
    "text",
    [
        "# HELP a_total A.\n# TYPE a_total counter\na_total 1",
        "# HELP a A.\na 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a A.\n# TYPE a gauge\nb 1\n",
        "# HELP a A.\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a A.\n# TYPE a gauge\na{b=c} 1\n",
        '# HELP a A.\n# TYPE a histogram\na_bucket{le="+Inf"} 1\na_sum 1\na_count 2\n',
    ],
)
def test_the_parser_is_strict(text: str) -> None:
    """What it lets through is well-formed."""
    with pytest.raises(AssertionError):
        parse(text)


# -- asking


class Worker:
    """One worker of a group of two, as far as its status goes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: ThreadPool | None = None, **settings: Any) -> None:
        self.scoreboard = Scoreboard(4)
        slot = self.scoreboard.claim(1)
        assert slot is not None
        self.slot, self.other = slot, self.scoreboard.slots[1]
        self.slot[PID] = os.getpid()
        set_state(self.slot, WorkerState.READY)
        self.context = WorkerContext(
            application=application(HELLO), settings=make_settings(**settings), loop=loop, slot=self.slot
        )
        self.group = Group(self.scoreboard, self.slot)
        self.full = False
        self.status = Status(self.context, self.group, pool, lambda: self.full)

    def join(self, state: WorkerState) -> None:
        """The other worker comes."""
        slot = self.scoreboard.claim(2)
        assert slot is not None
        assert slot is self.other
        slot[PID] = os.getpid()
        set_state(slot, state)
        self.group.look()

    async def health(self) -> tuple[int, str]:
        return await ask(self.status.health)

    async def metrics(self) -> dict[str, Family]:
        status, text = await ask(self.status.metrics)
        assert status == 200
        return parse(text)


async def ask(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> tuple[int, str]:
    """Status and body; the fields are what they must be."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError("it waits for nothing")

    await app({"type": "http"}, receive, send)
    first, last = messages
    fields = dict(first["headers"])
    assert fields[b"content-type"].startswith(b"text/plain; ")
    assert fields[b"content-length"] == b"%d" % len(last["body"])
    assert fields[b"cache-control"] == b"no-store"
    return first["status"], last["body"].decode()


def run(check: Callable[[Worker], Awaitable[None]], **settings: Any) -> None:
    """Call ``check`` with an ASGI worker."""

    async def main() -> None:
        await check(Worker(asyncio.get_running_loop(), **settings))

    asyncio.run(main())


class Call(FakeCall):
    """A WSGI call that ends when it is let."""

    queued_at = 0.0
    label = "GET /"
    lane = 0
    lasting = False

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def run(self, variables: contextvars.Context) -> None:
        self.begun.set()
        self.open.wait(DEADLINE)

    def wake(self) -> None:
        pass


@asynccontextmanager
async def wsgi_worker(*calls: Call) -> AsyncIterator[Worker]:
    """A worker with one thread, the first of ``calls`` in it, and the others behind it."""
    loop = asyncio.get_running_loop()
    pool = ThreadPool(1, timed=True)
    for call in calls:
        pool.submit(call)
    if calls:
        assert await loop.run_in_executor(None, calls[0].begun.wait, DEADLINE)
    try:
        yield Worker(loop, pool)
    finally:
        for call in calls:
            call.open.set()
        pool.close()


# -- which paths there are


@pytest.mark.parametrize(
    ("health", "metrics", "paths"),
    [("", "", []), ("/up", "", ["/up"]), ("", "/m", ["/m"]), ("/up", "/m", ["/up", "/m"])],
)
def test_only_what_is_switched_on_is_answered(health: str, metrics: str, paths: list[str]) -> None:
    """Off is the default, and costs nothing."""

    async def check(worker: Worker) -> None:
        assert list(worker.status.endpoints()) == paths

    run(check, health_path=health, metrics_path=metrics)


@pytest.mark.parametrize("is_wsgi", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_answer_comes_before_the_application(is_wsgi: bool, method: str) -> None:
    """It is neither counted for ``max_requests`` nor in the access log, and no hook sees it."""
    lines: list[Any] = []
    calls: list[Any] = []

    class Hooks:
        before = after = staticmethod(lambda *args: calls.append(args))

    with wire(HELLO, is_wsgi=is_wsgi, access=lines.append, hooks=Hooks(), max_requests=1) as connection:
        status = Status(connection.context, None, None, lambda: False)
        connection.context.router.answer_first({"/up": Endpoint(status.health, connection.context.settings)})
        sent = connection.feed(f"{method} /up?x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert sent.endswith(b"ok\n" if method == "GET" else b"\r\n\r\n")
        assert (lines, calls, connection.context.quota.served) == ([], [], 0)


@pytest.mark.parametrize("head", ["POST /up HTTP/1.1", "GET /up/ HTTP/1.1", "GET /UP HTTP/1.1"])
def test_other_methods_and_paths_are_the_application_s(head: str) -> None:
    """Nothing but GET and HEAD of the very path."""
    with wire(HELLO) as connection:
        status = Status(connection.context, None, None, lambda: False)
        connection.context.router.answer_first({"/up": Endpoint(status.health, connection.context.settings)})
        assert connection.feed(f"{head}\r\nHost: x\r\n\r\n".encode()).endswith(b"hello")
        assert connection.context.quota.served == 1


# -- health


def test_a_worker_that_serves_is_healthy() -> None:
    """Also one that would like to be replaced, and one that leaves when a younger one is ready."""

    async def check(worker: Worker) -> None:
        for state in (WorkerState.READY, WorkerState.WISHING, WorkerState.RETIRING, WorkerState.RECYCLING):
            set_state(worker.slot, state)
            assert await worker.health() == (200, "ok\n")

    run(check)


@pytest.mark.parametrize(
    ("sibling", "status"),
    [
        (None, 503),
        (WorkerState.READY, 200),
        (WorkerState.WISHING, 200),
        (WorkerState.BOOTING, 503),
        (WorkerState.DRAINING, 503),
    ],
)
def test_a_worker_that_leaves_is_unhealthy_unless_a_sibling_is_ready(sibling: WorkerState | None, status: int) -> None:
    """The connections of one that is relieved go to the other, and no balancer need notice."""

    async def check(worker: Worker) -> None:
        set_state(worker.slot, WorkerState.DRAINING)
        if sibling is not None:
            worker.join(sibling)
        assert await worker.health() == (status, "draining\n" if status == 503 else "ok\n")

    run(check)


def test_a_worker_that_is_full_is_unhealthy() -> None:
    """``worker_connections`` is reached: what comes next waits."""

    async def check(worker: Worker) -> None:
        worker.full = True
        assert await worker.health() == (503, "worker_connections is reached\n")
        worker.full = False
        assert await worker.health() == (200, "ok\n")

    run(check)


def test_a_queue_that_does_not_move_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call has been the next for more than a second; known without a probe before."""
    clock = [1000.0]

    async def main() -> None:
        first, second, third = Call(), Call(), Call()
        async with wsgi_worker(first, second, third) as worker:
            monkeypatch.setattr("hybridworker.process.endpoints.time.monotonic", lambda: clock[0])
            worker.status.publish(0.0, 0)
            clock[0] += STUCK
            assert await worker.health() == (200, "ok\n")
            clock[0] += 0.1
            assert await worker.health() == (503, "the queue of WSGI calls does not move\n")
            monkeypatch.undo()
            first.open.set()
            await asyncio.get_running_loop().run_in_executor(None, second.begun.wait, DEADLINE)
            assert await worker.health() == (200, "ok\n")

    asyncio.run(main())


def test_a_draining_worker_without_a_board_is_unhealthy() -> None:
    """It knows of nobody who could take over."""

    async def main() -> None:
        context = WorkerContext(
            application=application(HELLO), settings=make_settings(), loop=asyncio.get_running_loop()
        )
        status = Status(context, None, None, lambda: False)
        assert await ask(status.health) == (200, "ok\n")
        set_state(context.slot, WorkerState.DRAINING)
        assert await ask(status.health) == (503, "draining\n")

    asyncio.run(main())


# -- publishing


def test_the_tick_copies_what_was_counted_once() -> None:
    """Responses by class, the lag in microseconds, memory in KiB."""

    async def check(worker: Worker) -> None:
        worker.context.router.responses[:] = [9, 1, 2, 3, 4, 5, 9, 9, 9, 9]
        for _ in range(2):
            worker.status.publish(0.25, 40)
        assert list(worker.slot[SERVED : SERVED + 5]) == [1, 2, 3, 4, 5]
        assert (worker.slot[LAG], worker.slot[RSS]) == (250_000, 40 * 1024)
        assert worker.context.router.responses[:6] == [9, 0, 0, 0, 0, 0]

    run(check)


def test_the_tick_looks_for_siblings() -> None:
    """Whoever came is known from then on."""

    async def check(worker: Worker) -> None:
        slot = worker.scoreboard.claim(2)
        assert worker.group.siblings == []
        worker.status.publish(0.0, 0)
        assert worker.group.siblings == [slot]

    run(check)


def test_the_tick_copies_the_threads_and_the_waits_of_their_calls() -> None:
    """Each call is counted once, in its bucket."""

    async def main() -> None:
        first, second = Call(), Call()
        async with wsgi_worker(first, second) as worker:
            worker.status.publish(0.0, 0)
            assert (worker.slot[BUSY], worker.slot[QUEUED]) == (1, 1)
            first.open.set()
            await asyncio.get_running_loop().run_in_executor(None, second.begun.wait, DEADLINE)
            assert worker.status.pool is not None
            second.open.set()
            await until(lambda: worker.status.pool is not None and worker.status.pool.busy == 0)
            for _ in range(2):
                worker.status.publish(0.0, 0)
            assert (worker.slot[BUSY], worker.slot[QUEUED]) == (0, 0)
            assert sum(worker.slot[WAITED : WAITED + len(WAIT_BOUNDS) + 1]) == 2

    asyncio.run(main())


def test_a_worker_without_a_board_publishes_to_itself() -> None:
    """Its metrics are its own."""

    async def main() -> None:
        context = WorkerContext(
            application=application(HELLO), settings=make_settings(), loop=asyncio.get_running_loop()
        )
        context.slot[STARTED] = 1_700_000_000
        set_state(context.slot, WorkerState.READY)
        context.router.responses[2] = 3
        status = Status(context, None, None, lambda: False)
        status.publish(0.0, 1)
        families = parse((await ask(status.metrics))[1])
        requests = families["hybridworker_requests_total"].samples
        assert requests["hybridworker_requests_total", (("status", "2xx"),)] == 3
        assert value(families, "hybridworker_workers") == 1

    asyncio.run(main())


# -- metrics


def value(families: dict[str, Family], name: str, **labels: str) -> float:
    """One sample of a counter or gauge."""
    return families[name].samples[name, tuple(labels.items())]


def test_gauges_are_of_the_living_each_and_in_sum() -> None:
    """In the units that Prometheus wants: seconds and bytes."""

    async def check(worker: Worker) -> None:
        worker.join(WorkerState.BOOTING)
        for number, slot in enumerate((worker.slot, worker.other), 1):
            slot[CONNECTIONS], slot[IN_FLIGHT], slot[BUSY], slot[QUEUED] = 10 * number, 4 * number, 2, 1
            slot[LAG], slot[RSS], slot[STARTED] = 1500, 2048 * number, 1_700_000_000
        families = await worker.metrics()
        assert value(families, "hybridworker_workers") == 2
        pid = str(os.getpid())
        assert value(families, "hybridworker_worker_info", slot="0", pid=pid, state="ready") == 1
        assert value(families, "hybridworker_worker_info", slot="1", pid=pid, state="booting") == 1
        assert value(families, "hybridworker_worker_connections", slot="1") == 20
        assert value(families, "hybridworker_connections") == 30
        assert value(families, "hybridworker_requests_in_flight") == 8, "the one that asks is not counted"
        assert value(families, "hybridworker_threads_busy") == 4
        assert value(families, "hybridworker_calls_queued") == 2
        assert value(families, "hybridworker_worker_threads") == 0
        assert value(families, "hybridworker_worker_loop_lag_seconds", slot="0") == 0.0015
        assert value(families, "hybridworker_worker_resident_memory_bytes", slot="1") == 4 * 1024 * 1024
        assert value(families, "hybridworker_resident_memory_bytes") == 6 * 1024 * 1024
        assert value(families, "hybridworker_worker_start_time_seconds", slot="0") == 1_700_000_000
        assert "hybridworker_loop_lag_seconds" not in families

    run(check)


def test_counters_are_of_the_dead_as_well() -> None:
    """No sum falls when a worker is replaced, also while its successor boots."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    async def check(worker: Worker) -> None:
        worker.join(WorkerState.DRAINING)
        worker.slot[SERVED + 1] = 5
        worker.other[SERVED + 1], worker.other[SERVED + 4], worker.other[RECYCLED + 2] = 6, 1, 1
        worker.slot[LEFTOVERS], worker.other[LEFTOVERS], worker.other[LEFTOVERS + 3] = 1, 2, 4
        worker.other[PID] = gone.pid
        for _ in range(2):
            families = await worker.metrics()
            assert value(families, "hybridworker_requests_total", status="2xx") == 11
            assert value(families, "hybridworker_worker_requests_total", slot="1", status="2xx") == 6
            assert value(families, "hybridworker_requests_total", status="5xx") == 1
            assert value(families, "hybridworker_recycles_total", reason="max_requests") == 1
            assert value(families, "hybridworker_worker_recycles_total", slot="0", reason="max_requests") == 0
            assert value(families, "hybridworker_leftovers_total", kind="task", outcome="finished") == 3
            assert value(families, "hybridworker_leftovers_total", kind="task", outcome="cut") == 0
            assert value(families, "hybridworker_leftovers_total", kind="job", outcome="cut") == 4
            assert worker.scoreboard.claim(3) is worker.other

    run(check)


def test_a_dead_worker_has_no_gauges() -> None:
    """Its last connections are nobody's."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    async def check(worker: Worker) -> None:
        worker.join(WorkerState.READY)
        worker.slot[CONNECTIONS], worker.other[CONNECTIONS] = 2, 100
        worker.other[PID] = gone.pid
        families = await worker.metrics()
        assert value(families, "hybridworker_connections") == 2
        assert value(families, "hybridworker_workers") == 1
        worker.other[STATE] = WorkerState.FREE
        assert value(await worker.metrics(), "hybridworker_workers") == 1

    run(check)


def test_the_time_in_the_queue_is_a_histogram() -> None:
    """Of all workers, and of each."""

    async def main() -> None:
        async with wsgi_worker() as worker:
            worker.join(WorkerState.READY)
            slots: list[Slot] = [worker.slot, worker.other]
            for slot in slots:
                slot[WAITED] = 7  # up to 1 ms
                slot[WAITED + 3] = 2  # up to 25 ms
                slot[WAITED + len(WAIT_BOUNDS)] = 1  # more than 5 s
                slot[WAITED + len(WAIT_BOUNDS) + 1] = 6_250_000
            families = await worker.metrics()
            samples = families["hybridworker_queue_seconds"].samples
            assert samples["hybridworker_queue_seconds_bucket", (("le", "0.001"),)] == 14
            assert samples["hybridworker_queue_seconds_bucket", (("le", "0.01"),)] == 14
            assert samples["hybridworker_queue_seconds_bucket", (("le", "0.025"),)] == 18
            assert samples["hybridworker_queue_seconds_bucket", (("le", "5"),)] == 18
            assert samples["hybridworker_queue_seconds_count", ()] == 20
            assert samples["hybridworker_queue_seconds_sum", ()] == 12.5
            one = families["hybridworker_worker_queue_seconds"].samples
            assert one["hybridworker_worker_queue_seconds_count", (("slot", "1"),)] == 10
            assert value(families, "hybridworker_worker_threads") == 1

    asyncio.run(main())


def test_lent_threads_are_shown_where_there_are_any() -> None:
    """How many are out, who waits, how long that took, and how many were beyond the bound: of all workers."""

    async def check(worker: Worker) -> None:
        assert not [name for name in await worker.metrics() if "lent" in name]
        worker.join(WorkerState.READY)
        assert isinstance(worker.other, memoryview)
        worker.other[LENT], worker.other[LENT_WAITED + 3], worker.other[LENT_BEYOND] = 3, 2, 1
        worker.context.lender = lender = Lender(1, worker.context.loop, print, timed=True)
        gate = threading.Event()
        loans = [Loan(lender, {"method": "GET", "hybridworker.target": b"/"}) for _ in range(2)]
        for loan in loans:
            loan.submit(gate.wait, DEADLINE)
        for _ in range(2):  # what was counted is not counted twice
            worker.status.publish(0.0, 1)
        families = await worker.metrics()
        assert value(families, "hybridworker_threads_lent") == 4
        assert value(families, "hybridworker_worker_threads_lent", slot="0") == 1
        assert value(families, "hybridworker_lent_calls_queued") == 1
        assert value(families, "hybridworker_lent_beyond_total") == 1
        samples = families["hybridworker_lent_queue_seconds"].samples
        assert samples["hybridworker_lent_queue_seconds_bucket", (("le", "0.001"),)] == 1
        assert samples["hybridworker_lent_queue_seconds_count", ()] == 3
        gate.set()
        for loan in loans:
            if (ended := loan.end()) is not None:
                await ended
        worker.status.publish(0.0, 1)
        families = await worker.metrics()
        assert value(families, "hybridworker_threads_lent") == 3
        assert families["hybridworker_lent_queue_seconds"].samples["hybridworker_lent_queue_seconds_count", ()] == 4
        lender.close()
        await until(lambda: lender.threads == set())

    run(check)


def test_large_numbers_are_exact() -> None:
    """A counter goes on for years."""

    async def check(worker: Worker) -> None:
        worker.slot[SERVED + 1] = 12_345_678_901_234
        families = await worker.metrics()
        assert value(families, "hybridworker_requests_total", status="2xx") == 12_345_678_901_234

    run(check)


def test_durations_are_a_histogram_for_each_status_class() -> None:
    """Of each worker, and of all, the dead included; the tick copies what was counted once."""

    async def check(worker: Worker) -> None:
        durations = worker.context.durations
        assert isinstance(durations, Durations)
        worker.slot[STARTED] = 1
        durations.first_bytes[2].append(0.004)
        durations.first_bytes[5].append(99.0)
        worker.other[STARTED], worker.other[TIMED + 2], worker.other[TIMED + WIDTH - 1] = 1, 5, 20_000
        for _ in range(2):
            worker.status.publish(0.0, 0)
        families = await worker.metrics()
        samples = families["hybridworker_request_seconds"].samples
        name = "hybridworker_request_seconds"
        assert samples[f"{name}_bucket", (("status", "2xx"), ("le", "0.0025"))] == 0
        assert samples[f"{name}_bucket", (("status", "2xx"), ("le", "0.005"))] == 6
        assert samples[f"{name}_sum", (("status", "2xx"),)] == 0.024
        assert samples[f"{name}_bucket", (("status", "5xx"), ("le", "30"))] == 0
        assert samples[f"{name}_count", (("status", "5xx"),)] == 1
        own = families["hybridworker_worker_request_seconds"].samples
        assert own["hybridworker_worker_request_seconds_count", (("slot", "0"), ("status", "2xx"))] == 1
        assert own["hybridworker_worker_request_seconds_count", (("slot", "1"), ("status", "2xx"))] == 5

    run(check, metrics_path="/metrics")


def test_without_metrics_nothing_is_timed() -> None:
    """A request then costs nothing for it."""

    async def check(worker: Worker) -> None:
        assert worker.context.durations is None
        assert not worker.context.clock.exact

    run(check)


def test_the_age_of_the_queue_and_the_last_recycle() -> None:
    """The age is that of the living, the reason is there as long as the slot is."""

    async def check(worker: Worker) -> None:
        worker.slot[STARTED], worker.slot[QUEUE_AGE] = 1, 2_500_000
        worker.slot[LAST_RECYCLE], worker.slot[LAST_RECYCLED] = 1 + REASONS.index("max_rss"), 1_700_000_000
        families = await worker.metrics()
        ages = families["hybridworker_worker_queue_age_seconds"].samples
        assert ages == {("hybridworker_worker_queue_age_seconds", (("slot", "0"),)): 2.5}
        name = "hybridworker_worker_last_recycle_timestamp_seconds"
        assert families[name].samples == {(name, (("slot", "0"), ("reason", "max_rss"))): 1_700_000_000}

    run(check)
