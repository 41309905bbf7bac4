"""The watchdog: the table of requests, the reports from signal handlers, the loop that is held."""

from __future__ import annotations

import asyncio
import contextvars
import io
import itertools
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import uvloop

from hybridworker.connection.context import WorkerContext
from hybridworker.process import watchdog as module
from hybridworker.process.lifespan import Lifespan
from hybridworker.process.watchdog import (
    Watchdog,
    beat,
    descriptors,
    format_stack,
    format_task,
    in_flight,
    last_words,
    report,
    resident,
    warn_of_size,
    warn_of_slow_calls,
)
from hybridworker.wsgi.threads import RunningCall, ThreadPool
from tests.fakes import FakeLog
from tests.harness import application, make_settings
from tests.waiting import DEADLINE, until, until_seen

each_loop = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uv"])


async def no_app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody calls it")


def run(main: Callable[[WorkerContext], Coroutine[Any, Any, None]], new_loop: Any = None, **options: Any) -> FakeLog:
    """Run ``main`` with a context; returns the log."""
    log = FakeLog()
    is_wsgi = options.pop("is_wsgi", False)

    async def start() -> None:
        loop = asyncio.get_running_loop()
        settings = make_settings(**options)
        shown = application(no_app, is_wsgi=is_wsgi)
        await main(WorkerContext(application=shown, settings=settings, loop=loop, log=log))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(start())
    return log


class Running:
    """What stands in ``context.cycles``. Without a task or a call it has begun at once."""

    def __init__(self, path: str, started_at: float = 0.0, task: Any = None, **scope: Any) -> None:
        self.scope = {"method": "GET", **scope, "hybridworker.target": path.encode()}
        self.started_at = started_at
        self.task = task
        self.call = object() if task is None else None


def requests(*cycles: Any) -> dict[Any, None]:
    """Requests in flight."""
    return dict.fromkeys(cycles)


def pool_of(*calls: RunningCall) -> Any:
    """A pool that says what is to be seen in it."""
    return SimpleNamespace(snapshot=lambda: list(calls))


class Held:
    """A call for the pool that waits to be let go."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.began, self.release, self.woken = threading.Event(), threading.Event(), False

    def run(self, variables: contextvars.Context) -> None:
        self.began.set()
        assert self.release.wait(DEADLINE)

    def wake(self) -> None:
        self.woken = True


@contextmanager
def running(log: Any) -> Iterator[Watchdog]:
    """A watchdog with its thread."""
    watchdog = Watchdog(log)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()


# -- the table


def test_a_line_says_what_how_long_and_where() -> None:
    """Requests that wait, the one that runs, one without a task, and WebSockets, which have no method."""

    async def main(context: WorkerContext) -> None:
        waiting = Running("/waits", 90.0)
        mine = Running("/runs", 98.5, asyncio.current_task(), method="POST")
        websocket = Running("/ws", 40.0)
        del websocket.scope["method"]
        context.cycles = requests(waiting, mine, websocket)
        assert in_flight(context, None, 100.0) == [
            "GET /waits, 10.0 s, in the loop",
            "POST /runs, 1.5 s, in the loop, running",
            "WebSocket /ws, 60.0 s, in the loop",
        ]
        # While no task runs, as in a callback, a request without a task is not taken for the one that runs.
        lines: list[str] = []
        context.loop.call_soon(lambda: lines.extend(in_flight(context, None, 100.0)))
        await until(lambda: lines)
        assert not any("running" in line for line in lines)

    run(main)


def test_a_call_in_a_thread_is_named_and_the_oldest_comes_first() -> None:
    """Of requests that are alike the oldest have the threads; a call whose request is gone is listed as well."""

    async def main(context: WorkerContext) -> None:
        context.cycles = requests(Running("/a", 90.0), Running("/a", 91.0), Running("/a", 92.0))
        me = threading.get_ident()
        calls = (RunningCall(0, "GET /a", 91.5), RunningCall(me, "GET /a", 90.5), RunningCall(me, "GET /left", 80.0))
        assert in_flight(context, pool_of(*calls), 100.0) == [
            "GET /a, 10.0 s, in thread MainThread",
            "GET /a, 9.0 s, in thread None",
            "GET /a, 8.0 s, in the loop",
            "GET /left, 20.0 s, in thread MainThread, without its client",
        ]

    run(main)


def test_a_target_cannot_forge_a_line_of_the_log() -> None:
    """It is shown as received, escaped."""

    async def main(context: WorkerContext) -> None:
        context.cycles = requests(Running("/ü"), Running("/a%0a\n[1] [INFO] b?c"))
        assert in_flight(context, None, 0.0) == [
            "GET /\\xc3\\xbc, 0.0 s, in the loop",
            "GET /a%0a\\x0a[1] [INFO] b?c, 0.0 s, in the loop",
        ]

    run(main)


# -- stacks


def outer_function(calls: int, frame: Callable[[], FrameType]) -> FrameType:
    return outer_function(calls - 1, frame) if calls else frame()


def test_a_stack_shows_its_innermost_calls() -> None:
    """At most so many as wanted, the innermost last; and nothing for no frame."""
    frame = outer_function(3, lambda: sys._getframe())
    stack = format_stack(frame, 2)
    assert stack.count('  File "') == 2
    assert stack.splitlines()[-1].strip() == "frame = outer_function(3, lambda: sys._getframe())"
    assert "outer_function(calls - 1, frame)" in stack
    assert format_stack(None) == ""


def test_a_stack_begins_inside_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What leads to the loop is the same in every stack, and those who do nothing have none."""
    monkeypatch.setattr(module, "ROOTS", frozenset({(__name__, "outer_function")}))
    frame = outer_function(1, lambda: sys._getframe())
    assert format_stack(frame).count('  File "') == 1
    assert format_stack(frame.f_back) == ""


def test_the_roots_exist() -> None:
    """They are names, which a renamed method would leave behind."""
    from hybridworker.worker import Worker

    assert Worker.run.__code__.co_qualname == "Worker.run"
    assert ThreadPool._work.__code__.co_qualname == "ThreadPool._work"
    assert module.ROOTS == {(Worker.__module__, "Worker.run"), (ThreadPool.__module__, "ThreadPool._work")}


def test_the_stack_of_a_task_ends_where_it_waits() -> None:
    """Through coroutines and generators, which ``Task.get_stack`` does not follow."""

    class Wrapped:
        def __init__(self, future: asyncio.Future[None]) -> None:
            self.future = future

        def __await__(self) -> Generator[Any, None, None]:
            yield from self.future.__await__()

    async def waits(future: asyncio.Future[None]) -> None:
        await Wrapped(future)

    async def main(context: WorkerContext) -> None:
        future: asyncio.Future[None] = context.loop.create_future()
        task = context.loop.create_task(waits(future))
        await asyncio.sleep(0)
        lines = [line.strip() for line in format_task(task).splitlines()]
        assert lines[1::2] == ["await Wrapped(future)", "yield from self.future.__await__()"]
        future.set_result(None)
        await task
        assert format_task(task) == ""

    run(main)


# -- the report


def test_the_report_of_calls_in_threads() -> None:
    """The table, the interrupted stack, and the threads with what they serve; not this one, nor the idle ones."""

    async def main(context: WorkerContext) -> None:
        pool = ThreadPool(2)
        calls = [Held("GET /slow"), Held("GET /idle\n")]
        for call in calls:
            pool.submit(call)
            await until(call.began.is_set)
        calls[1].release.set()
        await until(lambda: calls[1].woken and pool.busy == 1)
        context.cycles = requests(Running("/slow", task=asyncio.current_task()))
        text = await asyncio.to_thread(report, sys._getframe(), context, pool, tasks=True)
        lines = text.splitlines()
        assert lines[0] == "Requests in flight: 1"
        assert lines[1].startswith("  GET /slow, ") and lines[1].endswith(" s, in thread hybridworker-wsgi-0")
        assert lines[2].startswith("Main thread")
        assert "asyncio.to_thread(report" in text
        assert "\nThread hybridworker-wsgi-0: GET /slow\n" in text
        assert "assert self.release.wait(DEADLINE)" in text
        assert "hybridworker-wsgi-1" not in text
        assert "Task of" not in text  # of WSGI calls they are all alike
        calls[0].release.set()
        await until(lambda: calls[0].woken)
        pool.close()

    run(main, is_wsgi=True)


def test_the_report_of_tasks() -> None:
    """The request that holds the loop is named, and, when asked for, where the others wait."""

    async def waits() -> None:
        await asyncio.Event().wait()

    async def main(context: WorkerContext) -> None:
        task = context.loop.create_task(waits())
        await asyncio.sleep(0)
        context.cycles = requests(
            Running("/waits", task=task), Running("/runs", task=asyncio.current_task()), Running("/begins")
        )
        with_tasks = report(sys._getframe(), context, None, tasks=True)
        assert "\nMain thread: GET /runs\n" in with_tasks
        assert "\nTask of GET /waits\n" in with_tasks
        assert "await asyncio.Event().wait()" in with_tasks
        assert with_tasks.count("\nTask of") == 1  # one runs, and one has no task yet
        assert "\nTask of" not in report(sys._getframe(), context, None, tasks=False)
        # In a callback the loop runs no request's task.
        texts: list[str] = []
        context.loop.call_soon(lambda: texts.append(report(sys._getframe(), context, None, tasks=False)))
        await until(lambda: texts)
        assert "\nMain thread\n" in texts[0]
        # Where the running task belongs to no request, none is named.
        context.cycles = {}
        assert "\nMain thread\n" in report(sys._getframe(), context, None, tasks=False)
        task.cancel()

    run(main)


def test_a_request_that_has_begun_at_once_is_the_one_that_runs() -> None:
    """It has no task before it waits for something."""

    async def main(context: WorkerContext) -> None:
        begun = Running("/begun")
        begun.call = None
        context.cycles = requests(Running("/other"), begun)
        lines = report(sys._getframe(), context, None, tasks=True).splitlines()
        assert lines[1].startswith("  GET /other, ") and lines[1].endswith(" s, in the loop")
        assert lines[2].startswith("  GET /begun, ") and lines[2].endswith(" s, in the loop, running")
        assert lines[3] == "Main thread: GET /begun"

    run(main)


def test_the_report_of_a_worker_that_is_starting_or_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """No context yet; what the main thread does now, and that it does nothing."""
    text = report(None, None, None, tasks=True)
    assert text.startswith("Requests in flight: 0\nMain thread\n")
    assert "text = report(None, None, None, tasks=True)" in text
    monkeypatch.setattr(module, "format_stack", lambda frame: "")
    text = report(None, None, None, tasks=True)
    assert text.startswith("Requests in flight: 0\nMain thread: idle in the event loop")


def test_the_report_of_the_applications_own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """When asked for; neither those of the worker itself, nor more than can be read."""
    monkeypatch.setattr(module, "MOST_TASKS", 2)

    async def polls() -> None:
        await asyncio.Event().wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def main(context: WorkerContext) -> None:
        context.application = application(app)
        tasks = [context.loop.create_task(polls(), name=f"Poller-{number}") for number in range(3)]
        tasks.append(context.loop.create_task(Lifespan(context, context.application)._run(), name="ours"))
        await asyncio.sleep(0)
        assert not tasks[-1].done()
        text = await asyncio.to_thread(report, None, context, None, tasks=True)
        for number in range(2):
            assert f"\nTask Poller-{number}\n" in text
        assert text.count("await asyncio.Event().wait()") == 2
        assert re.search("\nand [12] more tasks$", text)  # the test itself is one, and waits or still runs
        assert "\nTask ours" not in text
        assert "\nTask " not in await asyncio.to_thread(report, None, context, None, tasks=False)
        for task in tasks:
            task.cancel()

    run(main)


def test_a_report_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand WebSockets do not flood the log."""
    monkeypatch.setattr(module, "MOST_REQUESTS", 2)

    async def main(context: WorkerContext) -> None:
        context.cycles = requests(*[Running(f"/{number}") for number in range(5)])
        text = report(None, context, None, tasks=False)
        assert text.startswith("Requests in flight: 5\n  GET /0, ")
        assert "GET /2" not in text
        assert "\n  and 3 younger ones\nMain thread\n" in text

    run(main)


# -- the descriptors


def test_the_descriptors_of_a_logger(tmp_path: Path) -> None:
    """Those of its handlers and of its parents'; stderr's where there is none."""
    parent, logger = logging.Logger("parent"), logging.Logger("child")
    logger.parent = parent
    files = [open(tmp_path / name, "w") for name in "ab"]
    closed = open(tmp_path / "c", "w")
    closed.close()
    for stream in (files[0], closed, io.StringIO()):
        logger.addHandler(logging.StreamHandler(stream))
    logger.addHandler(logging.NullHandler())
    parent.addHandler(logging.StreamHandler(files[1]))
    assert descriptors(logger) == [files[0].fileno(), files[1].fileno()]
    logger.propagate = False
    assert descriptors(logger) == [files[0].fileno()]
    for file in files:
        file.close()
    assert descriptors(logger) == [2]
    assert descriptors(None) == [2]


def test_last_words_go_as_far_as_nothing_blocks() -> None:
    """A pipe that nobody reads takes what fits, a broken one nothing, and the next one is written all the same."""
    full, full_in = os.pipe()
    broken, broken_in = os.pipe()
    os.close(broken)
    with open(os.devnull, "wb") as devnull:
        last_words("x" * 1_000_000, [broken_in, full_in, devnull.fileno()])
    os.close(full_in)
    os.close(broken_in)
    with open(full, "rb") as file:
        assert set(file.read()) == {ord("x")}


def test_last_words_are_the_bare_stacks_where_there_is_no_report() -> None:
    """And those are not begun where the descriptor takes nothing."""
    end, write_end = os.pipe()
    last_words("", [write_end])
    assert b"test_last_words_are_the_bare_stacks" in os.read(end, 65536)
    os.set_blocking(write_end, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    last_words("", [write_end])
    os.close(write_end)
    with open(end, "rb") as file:
        assert b"test_last_words" not in file.read()


# -- from signal handlers


@each_loop
def test_status_while_the_loop_is_held(new_loop: Any) -> None:
    """A plain handler reports amid the blocking code, which goes on."""

    async def main(context: WorkerContext) -> None:
        log = context.log
        assert isinstance(log, FakeLog)
        context.cycles = requests(Running("/held", task=asyncio.current_task()))
        before = signal.signal(signal.SIGUSR2, lambda number, frame: watchdog.status())
        try:
            with running(log) as watchdog:
                watchdog.watch(context, None)
                os.kill(os.getpid(), signal.SIGUSR2)
                until_seen(lambda: log.lines)
        finally:
            signal.signal(signal.SIGUSR2, before)

    ((level, text),) = run(main, new_loop, slow_loop=0.0).lines
    assert level == "warning"
    assert text.startswith("Requests in flight: 1\n  GET /held, ")
    assert " s, in the loop, running\nMain thread: GET /held\n" in text
    assert ", in main\n    until_seen(lambda: log.lines)\n" in text
    assert "\nTask of" not in text  # the stack of the task that runs is the main thread's


def abort_from(
    monkeypatch: pytest.MonkeyPatch,
    held: Callable[[], None],
    log: Any,
    logger: logging.Logger | None = None,
    patience: float = DEADLINE,
) -> None:
    """Let SIGABRT interrupt ``held``, with a handler that reports and then leaves as the worker does."""
    monkeypatch.setattr(module, "PATIENCE", patience)

    def handler(number: int, frame: FrameType | None) -> None:
        watchdog.abort(frame, logger)
        sys.exit(1)

    before = signal.signal(signal.SIGABRT, handler)
    try:
        with running(log) as watchdog, pytest.raises(SystemExit):
            held()
    finally:
        signal.signal(signal.SIGABRT, before)


def blocked() -> None:
    os.kill(os.getpid(), signal.SIGABRT)
    until_seen(lambda: False)


def test_abort_writes_the_stack_of_the_blocked_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the worker leaves afterwards, as gunicorn wants."""
    log = FakeLog()
    abort_from(monkeypatch, blocked, log)
    (text,) = log.at("error")
    assert text.startswith(f"Worker aborted (pid: {os.getpid()}). Requests in flight: 0\nMain thread\n")
    assert "in blocked\n" in text


def test_abort_of_a_frame_that_holds_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The report goes past the logger, and the worker leaves."""
    logger = logging.Logger("held")
    path = tmp_path / "log"
    handler = logging.FileHandler(path)
    logger.addHandler(handler)

    def writing() -> None:
        with handler.lock or threading.RLock():
            try:
                blocked()
            finally:
                content.append(path.read_text())

    content: list[str] = []
    abort_from(monkeypatch, writing, logger, logger, patience=2)
    handler.close()
    assert content[0].startswith("Requests in flight: 0\nMain thread\n")
    assert "in blocked\n" in content[0]


def test_abort_with_a_log_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the full pipe nor the lock of the thread that waits there holds the worker."""
    end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write_end, b"x")
    os.set_blocking(write_end, True)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    logger = logging.Logger("full")
    stream = open(write_end, "w")
    logger.addHandler(logging.StreamHandler(stream))
    watchdog = Watchdog(logger)
    watchdog.start()
    try:
        watchdog.abort(sys._getframe(), logger)
        watchdog.stop()  # does not wait for a thread that is stuck
    finally:
        reader = os.fdopen(end, "rb")
        drain = threading.Thread(target=reader.read)
        drain.start()
        until_seen(lambda: not watchdog._thread.is_alive())
        stream.close()
        drain.join()
        reader.close()


def test_abort_without_a_thread_and_without_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails, ``abort`` returns: the thread never ran, the logger raises, the last words raise."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    said: list[str] = []
    monkeypatch.setattr(module, "last_words", lambda text, fds: said.append(text))
    Watchdog(FakeLog()).abort(None, None)
    assert said == [""]

    def fail(text: str, fds: Any) -> None:
        said.append(text)
        raise RecursionError

    monkeypatch.setattr(module, "last_words", fail)
    Watchdog(FakeLog()).abort(None, None)
    assert said == ["", ""]


def test_a_report_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the stack of the interrupted frame all the same."""

    def fail(*args: Any, **options: Any) -> str:
        raise LookupError("the report is broken")

    monkeypatch.setattr(module, "report", fail)
    log = FakeLog()
    abort_from(monkeypatch, blocked, log)
    (text,) = log.at("error")
    assert "No report could be made\n" in text
    assert "in blocked\n" in text
    assert text.endswith("LookupError: the report is broken")


# -- the slow loop


@each_loop
def test_a_held_loop_is_reported_once_while_it_is_held(monkeypatch: pytest.MonkeyPatch, new_loop: Any) -> None:
    """With the stack that holds it and the request; then one line when it is over; and the next time again."""
    monkeypatch.setattr(module, "PERIOD", 0.02)

    async def main(context: WorkerContext) -> None:
        log = context.log
        assert isinstance(log, FakeLog)
        context.cycles = requests(Running("/held", task=asyncio.current_task()))

        def reports() -> list[int]:
            """A busy machine may give reason for others."""
            return [number for number, text in enumerate(log.at("warning")) if "in hold_the_loop\n" in text]

        def hold_the_loop(count: int) -> None:
            until_seen(lambda: len(reports()) == count)
            for _ in range(2):
                looked = watchdog._looked
                until_seen(lambda looked=looked: watchdog._looked > looked)  # type: ignore[misc]
            assert len(reports()) == count

        with running(log) as watchdog:
            watchdog.watch(context, None)
            for count in (1, 2):
                hold_the_loop(count)
                (*_, last) = reports()
                assert " by GET /held\n" in log.at("warning")[last]
                await until(lambda last=last: len(log.lines) > last + 1)  # type: ignore[misc]
                assert log.at("warning")[last + 1].startswith("The event loop turns again; it was held for ")

    run(main, new_loop, slow_loop=0.05)


class Looks:
    """A watchdog without a thread, on a clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, limit: float = 1.0) -> None:
        self.now, self.used = 100.0, 7.0
        clock = SimpleNamespace(monotonic=lambda: self.now, process_time=lambda: self.used)
        monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(module, "_holder", lambda context: "")
        self.log = FakeLog()
        self.pings: list[Callable[[], None]] = []
        loop = SimpleNamespace(call_soon_threadsafe=self.pings.append)
        context: Any = SimpleNamespace(settings=make_settings(slow_loop=limit), loop=loop)
        self.watchdog = Watchdog(self.log)
        self.watchdog.watch(context, None)

    @property
    def lines(self) -> list[str]:
        """The first line of each report."""
        return [line.splitlines()[0] for line in self.log.at("warning")]

    def answer(self) -> None:
        """The loop turns."""
        self.pings.pop()()

    def rest(self, seconds: float, processor: float = 0.0) -> None:
        """Time goes by, in which the process uses so many seconds of the processor."""
        self.now += seconds
        self.used += processor

    def look(self, seconds: float = 0.25, processor: float = 0.0) -> None:
        """The watchdog looks after ``seconds``."""
        self.rest(seconds, processor)
        self.watchdog._look()


def test_every_hold_that_is_longer_than_the_limit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a period: it may have begun that long before the ping that it does not answer. A shorter one is no news."""
    dog = Looks(monkeypatch)
    for _ in range(4):
        dog.look()
    assert dog.lines == []
    dog.look()
    assert dog.lines == ["The event loop is held for more than 1.00 s"]
    assert len(dog.pings) == 1
    dog.answer()
    dog.look()
    assert dog.lines[1:] == ["The event loop turns again; it was held for 1.00 s"]
    dog.look()
    dog.answer()
    dog.look()
    assert len(dog.lines) == 2
    assert len(dog.pings) == 1


def test_a_process_that_stood_still_is_no_held_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before the ping was answered nor after: SIGSTOP takes the processor from all threads."""
    dog = Looks(monkeypatch)
    dog.look()
    dog.look(60)
    dog.look()
    dog.rest(60)
    dog.answer()
    dog.look(0.01)
    assert dog.lines == []


def test_a_thread_that_kept_the_gil_is_reported_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could look meanwhile, but the processor was used; standing still later does not shorten the hold."""
    dog = Looks(monkeypatch)
    dog.look()
    dog.look(60, 60)
    assert dog.lines == ["The event loop is held for more than 60.00 s"]
    dog.look(60)
    dog.answer()
    dog.look()
    assert dog.lines[1:] == ["The event loop turns again; it was held for 120.00 s"]


def test_a_hold_that_was_over_before_anybody_looked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no stack to show any more."""
    dog = Looks(monkeypatch)
    dog.look()
    dog.rest(5, 5)
    dog.answer()
    dog.look()
    assert dog.lines == ["The event loop turns again; it was held for 5.00 s"]
    assert dog.log.lines[0][1].count("\n") == 0


def test_a_watchdog_that_has_nothing_to_look_at_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it knows a loop, with HYBRIDWORKER_SLOW_LOOP=0, and when the loop is closed."""
    dog = Looks(monkeypatch, 0.0)
    assert dog.watchdog.period is None
    dog.look()
    assert (dog.lines, dog.pings) == ([], [])

    async def main(context: WorkerContext) -> None:
        closed.watch(context, None)

    closed = Watchdog(FakeLog())
    closed._look()
    run(main)
    assert closed.period == module.PERIOD
    closed._look()
    assert closed.period is None


def test_a_limit_below_the_period_and_far_above(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few wake-ups a second at most, fewer where less precision is asked for."""
    assert Looks(monkeypatch, 0.01).watchdog.period == module.PERIOD
    assert Looks(monkeypatch, 8.0).watchdog.period == 2.0


# -- loop side


def test_a_slow_heartbeat_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And names the remedy."""
    log = FakeLog()
    clock = itertools.count(step=0.06)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    beats: list[int] = []

    async def main(context: WorkerContext) -> None:
        beat(lambda: beats.append(1), context)
        assert log.lines == []
        for _ in range(2):
            beat(lambda: beats.append(next(clock) > 0), context)

    async def with_log(context: WorkerContext) -> None:
        context.log = log
        await main(context)

    run(with_log)
    assert len(beats) == 3
    (warning,) = log.at("warning")
    assert warning.startswith("A heartbeat took more than 100 ms")
    assert "--worker-tmp-dir /dev/shm" in warning


def test_the_resident_memory_is_the_kernels_number() -> None:
    """Between one and many MiB; a large allocation shows."""
    before = resident()
    block = b"x" * (64 * 2**20)
    assert resident() >= before + 60 > 60
    assert block


@pytest.mark.parametrize("platform, unit", [("darwin", 2**20), ("freebsd14", 2**10)])
def test_without_proc_the_resident_memory_is_the_peak(
    monkeypatch: pytest.MonkeyPatch, platform: str, unit: int
) -> None:
    """``ru_maxrss`` has its own unit on macOS."""
    import resource

    def no_proc(*args: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_proc)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=300 * unit))
    assert resident() == 300


@pytest.mark.parametrize(("limit", "warnings"), [(0, 0), (27, 1), (28, 0)])
def test_a_worker_that_is_too_large_before_it_serves_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, limit: int, warnings: int
) -> None:
    """It will be replaced by one that is as large."""
    monkeypatch.setattr(module, "resident", lambda: 28)

    async def main(context: WorkerContext) -> None:
        warn_of_size(context)

    lines = run(main, max_rss=limit).at("warning")
    assert len(lines) == warnings
    assert all("HYBRIDWORKER_MAX_RSS=27 is less than the 28 MiB of a worker that has served " in line for line in lines)


def test_a_call_that_takes_longer_than_the_timeout_is_a_warning() -> None:
    """With its stack, once; without threads there is nothing to say."""

    async def main(context: WorkerContext) -> None:
        pool, call = ThreadPool(1), Held("GET /slow")
        pool.submit(call)
        await until(call.began.is_set)
        assert isinstance(context.log, FakeLog)
        warn_of_slow_calls(context, None)
        assert context.log.lines == []
        for _ in range(2):
            warn_of_slow_calls(context, pool)
        (line,) = context.log.at("warning")
        assert line.startswith("GET /slow has been in its thread for 0 s\n")
        assert "assert self.release.wait(DEADLINE)" in line
        call.release.set()
        await until(lambda: call.woken)
        pool.close()

    run(main, is_wsgi=True, timeout=1e-9)
