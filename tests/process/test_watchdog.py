"""The watchdog: the reports from signal handlers, the loop that is held."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import uvloop

from hybridworker.application.lentthreads import Lender, Loan
from hybridworker.connection.context import WorkerContext
from hybridworker.process import watchdog as module
from hybridworker.process.watchdog import Watchdog, descriptors, last_words, warn_of_slow_calls
from hybridworker.wsgi.threads import ThreadPool
from tests.fakes import FakeLog
from tests.harness import make_settings
from tests.process.running import Held, Running, requests, run
from tests.waiting import DEADLINE, until, until_seen

each_loop = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uv"])


@contextmanager
def running(log: Any) -> Iterator[Watchdog]:
    """A watchdog with its thread."""
    watchdog = Watchdog(log)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.stop()


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
        monkeypatch.setattr(module, "holder", lambda context: "")
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


class SlowPool:
    """Three slow calls, two of which are at the same place."""

    def report_slow(self, now: float, limit: float) -> list[tuple[str, float, FrameType | None]]:
        return [("GET /a", 31.0, sys._getframe()), ("GET /b", 35.0, None), ("GET /c", 33.0, sys._getframe())]


def test_slow_calls_at_the_same_place_are_one_warning() -> None:
    """That of the oldest, and how many there are."""

    async def main(context: WorkerContext) -> None:
        warn_of_slow_calls(context, SlowPool())  # type: ignore[arg-type]  # stands for a pool
        assert isinstance(context.log, FakeLog)
        one, other = context.log.at("warning")
        assert one.startswith("GET /c has been in its thread for 33 s, and 1 more at the same place\n  File ")
        assert other == "GET /b has been in its thread for 35 s\n"

    run(main, is_wsgi=True)


def test_synchronous_code_that_takes_longer_than_the_timeout_is_a_warning() -> None:
    """In a thread that is lent, as in one for WSGI calls."""

    async def main(context: WorkerContext) -> None:
        context.lender = lender = Lender(0, context.loop, print)
        loan, held = Loan(lender, Running("/slow").scope), Held("")
        loan.submit(held.run, contextvars.Context())
        await until(held.began.is_set)
        for _ in range(2):
            warn_of_slow_calls(context, None)
        assert isinstance(context.log, FakeLog)
        (line,) = context.log.at("warning")
        assert line.startswith("GET /slow has been in its thread for 0 s\n")
        held.release.set()
        await until(lambda: not lender.snapshot())
        loan.end()
        lender.close()
        await until(lambda: lender.threads == set())

    run(main, timeout=1e-9)
