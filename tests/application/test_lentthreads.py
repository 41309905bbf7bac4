"""The threads that are lent: who gets which, when they go back, and what becomes of those who wait."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.application import lentthreads as module
from hybridworker.application.lentthreads import Lender, LentThread, Loan
from hybridworker.wsgi.waits import WAITS
from tests.waiting import DEADLINE, passes, run, until, until_seen

SCOPE = {"type": "http", "method": "GET", "path": "/x", "hybridworker.target": b"/x?y"}


class Desk:
    """A lender, and what it has said."""

    def __init__(self, size: int = 0, *, timed: bool = True) -> None:
        self.warnings: list[str] = []
        self.lender = Lender(size, asyncio.get_running_loop(), self.warnings.append, timed=timed)
        self.gate = threading.Event()

    def loan(self) -> Loan:
        return Loan(self.lender, dict(SCOPE))

    async def held(self) -> Loan:
        """A loan whose job runs until the gate opens."""
        loan = self.loan()
        began = threading.Event()

        def job() -> None:
            began.set()
            passes(self.gate)

        loan.submit(job)
        await until(began.is_set)
        return loan


async def ident(loan: Loan) -> threading.Thread:
    """The thread in which the jobs of a loan run."""
    return await asyncio.wrap_future(loan.submit(threading.current_thread))


def desk(size: int = 0, **options: Any) -> Callable[[Callable[[Desk], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Runs a test with a desk, and sees to it that no thread is left."""

    def decorate(test: Callable[[Desk], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def main() -> None:
            before = set(threading.enumerate())
            opened = Desk(size, **options)
            try:
                await test(opened)
            finally:
                opened.gate.set()
                opened.lender.close()
                await until(lambda: set(threading.enumerate()) <= before)

        def wrapper() -> None:
            run(main())

        wrapper.__doc__ = test.__doc__
        return wrapper

    return decorate


# -- one call


@desk()
async def test_jobs_of_a_call_share_a_thread(desk: Desk) -> None:
    """In the order of their coming, one at a time, and not in that of the loop."""
    order: list[int] = []
    loan = desk.loan()
    futures = [asyncio.wrap_future(loan.submit(order.append, number)) for number in range(50)]
    threads = {await ident(loan) for _ in range(3)}
    await asyncio.gather(*futures)
    assert order == list(range(50))
    assert len(threads) == 1 and threading.main_thread() not in threads
    assert desk.lender.lent == 1
    assert loan.end() is None
    assert desk.lender.lent == 0


@desk()
async def test_a_call_without_synchronous_code_borrows_nothing(desk: Desk) -> None:
    """Nothing is started, nothing is counted."""
    assert desk.loan().end() is None
    assert desk.lender.threads == set()
    assert desk.lender.take_counts() == ([0] * WAITS, 0)


@desk()
async def test_arguments_results_and_exceptions(desk: Desk) -> None:
    """They are the caller's, whatever they are; the thread goes on."""
    loan = desk.loan()
    keep: Any = dict
    assert await asyncio.wrap_future(loan.submit(keep, [(1, 2)], fn=3)) == {1: 2, "fn": 3}
    for wrong in (LookupError("no"), SystemExit(3), KeyboardInterrupt()):

        def job(wrong: BaseException = wrong) -> None:
            raise wrong

        future = loan.submit(job)
        await until(future.done)
        assert future.exception() is wrong
    assert await asyncio.wrap_future(loan.submit(abs, -1)) == 1
    loan.end()


@desk()
async def test_the_thread_has_an_empty_context(desk: Desk) -> None:
    """It inherits nothing of the call that was the first to need it."""
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    variable.set(1)
    loan = desk.loan()
    assert await asyncio.wrap_future(loan.submit(variable.get, None)) is None
    loan.end()


@desk()
async def test_an_idle_thread_keeps_nothing_alive(desk: Desk) -> None:
    """Neither the job, nor its result or exception, nor the call."""

    class Thing:
        def job(self, raises: bool) -> Thing:
            if raises:
                raise LookupError(self)
            return self

    references: list[weakref.ref[Any]] = []
    for raises in (False, True):
        thing, loan = Thing(), desk.loan()
        future = loan.submit(thing.job, raises)
        await until(future.done)
        loan.end()
        references += [weakref.ref(thing), weakref.ref(loan)]
        del thing, loan, future
    (thread,) = desk.lender.threads
    await until(lambda: thread.job is None)
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


@desk()
async def test_a_working_thread_is_no_daemon(desk: Desk) -> None:
    """So the end of the worker waits for it, and for what it starts; an idle one is no obstacle."""
    loan = desk.loan()
    inside = asyncio.wrap_future(loan.submit(lambda: (threading.current_thread().daemon, threading.Thread().daemon)))
    assert await inside == (False, False)
    (thread,) = desk.lender.threads
    await until(lambda: thread.daemon)
    assert thread.name == "lent-0"
    loan.end()


# -- who gets which


@desk()
async def test_the_thread_that_came_back_last_is_lent_first(desk: Desk) -> None:
    """The others may sleep."""
    loans = [desk.loan() for _ in range(3)]
    threads = [await ident(loan) for loan in loans]
    assert len(set(threads)) == 3
    for number in (1, 0, 2):
        loans[number].end()
    again = [desk.loan() for _ in range(3)]
    assert [await ident(loan) for loan in again] == [threads[2], threads[0], threads[1]]
    for loan in again:
        loan.end()


@desk()
async def test_a_stream_holds_a_thread_only_while_it_has_jobs(desk: Desk) -> None:
    """It gets back the one that it had, if that is idle, and another one otherwise."""
    stream, one, two = desk.loan(), desk.loan(), desk.loan()
    first = await ident(stream)
    stream.stream()
    assert desk.lender.lent == 0
    assert await ident(one) is first
    second = await ident(stream)
    assert second is not first
    assert desk.lender.idle == [second]
    one.end()
    assert desk.lender.idle == [second, first]
    assert await ident(stream) is second
    assert await ident(two) is second  # it came back last
    assert await ident(stream) is first
    two.end()
    assert stream.end() is None and desk.lender.lent == 0


@desk()
async def test_a_stream_that_begins_amid_a_job_gives_the_thread_back_after_it(desk: Desk) -> None:
    """A task of the call may be in its synchronous code."""
    loan = await desk.held()
    loan.stream()
    assert desk.lender.lent == 1
    desk.gate.set()
    await until(lambda: desk.lender.lent == 0)
    loan.end()


@desk()
async def test_the_end_of_a_call_waits_for_its_last_job(desk: Desk) -> None:
    """The thread is out until then."""
    loan = await desk.held()
    ended = loan.end()
    assert ended is not None and not ended.done() and desk.lender.lent == 1
    desk.gate.set()
    async with asyncio.timeout(DEADLINE):
        await ended
    assert desk.lender.lent == 0


@desk()
async def test_a_job_that_comes_too_late(desk: Desk) -> None:
    """It may come from another thread amid the end of the call: it runs, and the thread goes back after it."""
    loan = desk.loan()
    loan.end()
    assert await asyncio.wrap_future(loan.submit(abs, -1)) == 1
    assert desk.lender.lent == 0


# -- what is open in a thread


class Open:
    """Stands for the connections of a thread."""

    def __init__(self, in_use: bool) -> None:
        self.open, self.closed_in = in_use, ""

    def in_use(self) -> bool:
        return self.open

    def close(self) -> None:
        self.closed_in = threading.current_thread().name


@desk()
async def test_a_thread_with_something_open_is_lent_to_nobody_else(desk: Desk) -> None:
    """A stream keeps it until nothing is open; it ends with its call, and closes what there is, itself."""
    loan = desk.loan()
    thread = await ident(loan)
    assert isinstance(thread, LentThread)
    opened = Open(True)
    thread.connections = opened  # type: ignore[assignment]
    loan.stream()
    assert loan.thread is thread
    assert await ident(loan) is thread
    opened.open = False
    loan.stream()
    assert loan.thread is None and desk.lender.idle == [thread]
    opened.open = True
    assert await ident(loan) is thread
    loan.end()
    assert desk.lender.idle == [] and desk.lender.lent == 0
    await until(lambda: not thread.is_alive())
    assert opened.closed_in == thread.name
    other = desk.loan()
    assert await ident(other) is not thread
    other.end()


# -- the bound


@desk(2)
async def test_calls_beyond_the_bound_wait_in_order(desk: Desk) -> None:
    """They get the threads of those who end, and the metrics show how long it took."""
    held = [await desk.held(), await desk.held()]
    order: list[int] = []
    waiting = [desk.loan() for _ in range(3)]
    futures = [asyncio.wrap_future(loan.submit(order.append, number)) for number, loan in enumerate(waiting)]
    assert (desk.lender.lent, desk.lender.queued) == (2, 3)
    desk.gate.set()
    for loan in held:
        loan.end()
    await futures[0]
    await futures[1]
    for loan in waiting:
        loan.end()
    await futures[2]
    assert sorted(order) == [0, 1, 2] and order[2] == 2
    await until(lambda: desk.lender.lent == 0)
    counts, beyond = desk.lender.take_counts()
    assert sum(counts[:-1]) == 5 and counts[-1] > 0 and beyond == 0
    assert desk.lender.take_counts() == ([0] * WAITS, 0)
    assert len(desk.lender.threads) == 2 and desk.warnings == []


@desk(1)
async def test_who_waits_too_long_gets_a_thread_beyond_the_bound(desk: Desk) -> None:
    """Counted, with one warning; nobody else gets it, and it ends when it comes back."""
    held = await desk.held()
    first, second = desk.loan(), desk.loan()
    threads = [asyncio.create_task(ident(loan)) for loan in (first, second)]
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE):
        one, two = await asyncio.gather(*threads)
    assert one is not two and time.monotonic() - began > module.PATIENCE / 2
    assert desk.lender.lent == 3
    (line,) = desk.warnings
    assert line.startswith("A call has waited 1 s for a lent thread and gets one beyond the 1 of --threads")
    third = desk.loan()
    future = third.submit(threading.current_thread)
    first.end()
    second.end()
    assert desk.lender.lent == 1 and not future.done()  # the bound is reached by the first of all
    await until(lambda: len(desk.lender.threads) == 1)
    desk.gate.set()
    held.end()
    await until(future.done)
    assert len(desk.warnings) == 1 and desk.lender.take_counts()[1] >= 2
    third.end()


@desk(1)
async def test_who_does_not_wait_any_more_gets_no_thread(desk: Desk) -> None:
    """Its job never runs, whether the call has ended or only the job was cancelled."""
    held = await desk.held()
    ended, cancelled, last = desk.loan(), desk.loan(), desk.loan()
    ran: list[str] = []
    futures = [loan.submit(ran.append, name) for loan, name in ((ended, "ended"), (cancelled, "cancelled"))]
    result = last.submit(ran.append, "last")
    assert futures[0].cancel()
    assert ended.end() is None
    assert desk.lender.queued == 2
    assert futures[1].cancel()
    desk.gate.set()
    held.end()
    await until(result.done)
    assert ran == ["last"] and cancelled.pending == 0
    with pytest.raises(CancelledError):
        futures[1].result()
    last.end()
    assert await ident(cancelled) in desk.lender.threads
    cancelled.end()


@desk(1)
async def test_a_call_that_ends_while_it_waits_for_a_thread(desk: Desk) -> None:
    """Where a task of it still wants the result, the job runs."""
    held = await desk.held()
    loan = desk.loan()
    future = loan.submit(abs, -1)
    ended = loan.end()
    assert ended is not None
    desk.gate.set()
    held.end()
    async with asyncio.timeout(DEADLINE):
        await ended
    assert future.result() == 1 and desk.lender.lent == 0


@desk(1)
async def test_a_job_from_another_thread_waits_too(desk: Desk) -> None:
    """The clock of those who wait is the loop's, whoever begins to wait."""
    held = await desk.held()
    loan = desk.loan()
    results: list[int] = []
    threading.Thread(target=lambda: results.append(loan.submit(abs, -1).result(DEADLINE))).start()
    await until(lambda: results == [1])
    assert desk.lender.take_counts()[1] == 1
    desk.gate.set()
    held.end()
    loan.end()


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call gets the error of the system, as of any executor; where a thread is out, the call waits."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        opened = Desk()
        loan, other = opened.loan(), opened.loan()
        with monkeypatch.context() as patched:
            patched.setattr(LentThread, "start", refuse)
            with pytest.raises(RuntimeError, match="start new thread"):
                loan.submit(abs, -1)
        assert (loan.pending, opened.lender.lent, opened.lender.threads) == (0, 0, set())
        await ident(loan)
        with monkeypatch.context() as patched:
            patched.setattr(LentThread, "start", refuse)
            future = other.submit(abs, -1)
            loan.end()
            await until(future.done)
        other.end()
        loan, other = await opened.held(), opened.loan()
        with monkeypatch.context() as patched:
            patched.setattr(LentThread, "start", refuse)
            patched.setattr(module, "PATIENCE", 0.01)
            future = other.submit(abs, -1)
            await asyncio.sleep(0.05)  # it is tried in vain, and again
            assert not future.done()
            patched.setattr(LentThread, "start", threading.Thread.start)
            await until(future.done)
        other.end()
        opened.gate.set()
        loan.end()
        opened.lender.close()
        await until(lambda: opened.lender.threads == set())

    run(main())


# -- idle threads


def test_a_thread_that_nobody_needs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where their number has no bound, all but one; a lent one never."""
    monkeypatch.setattr(module, "IDLE_MAX", 0.01)

    async def main() -> None:
        opened = Desk()
        loans = [opened.loan() for _ in range(4)]
        threads = [await ident(loan) for loan in loans]
        for loan in loans[1:]:
            loan.end()
        await until(lambda: opened.lender.threads == {threads[0]})
        assert await ident(loans[0]) is threads[0]
        loans[0].end()
        await asyncio.sleep(0.05)
        assert opened.lender.idle == [threads[0]]
        opened.lender.close()
        await until(lambda: not any(thread.is_alive() for thread in threads))

    run(main())


@asynccontextmanager
async def many(size: int) -> AsyncIterator[Lender]:
    opened = Desk(size)
    yield opened.lender
    assert opened.lender.lent == 0 and opened.lender.queued == 0
    opened.lender.close()
    await until(lambda: opened.lender.threads == set())


@pytest.mark.parametrize("size", [0, 2, 7])
def test_many_calls_at_once(size: int) -> None:
    """Each has one thread, whatever else goes on; in the end all are back, and no more than there may be."""

    async def call(lender: Lender, number: int) -> None:
        loan = Loan(lender, dict(SCOPE))
        first = await ident(loan)
        for _ in range(5):
            assert await ident(loan) is first
        if number % 3 == 0:
            loan.stream()
            await ident(loan)
        elif number % 3 == 1:
            loan.submit(abs, -1).cancel()
        if (ended := loan.end()) is not None:
            await ended

    async def main() -> None:
        async with many(size) as lender:
            await asyncio.gather(*(call(lender, number) for number in range(200)))
            await until(lambda: lender.lent == 0)
            assert not size or len(lender.threads) <= size

    run(main())


# -- reports


@desk(timed=False)
async def test_what_runs_is_shown(desk: Desk) -> None:
    """The label of the call, its thread and since when; a slow one once, with its stack; nothing is timed."""
    before = time.monotonic()
    loan = await desk.held()
    (call,) = desk.lender.snapshot()
    assert call.label == loan.label == "GET /x?y"
    assert loan.thread is not None and call.thread == loan.thread.ident
    assert call.started >= before
    assert desk.lender.report_slow(time.monotonic(), 0.0) == []
    ((label, age, frame),) = desk.lender.report_slow(time.monotonic() + 5, 1.0)
    assert label == "GET /x?y" and age > 5 and frame is not None
    assert desk.lender.report_slow(time.monotonic() + 5, 1.0) == []
    desk.gate.set()
    await until(lambda: desk.lender.snapshot() == [])
    loan.end()
    assert desk.lender.take_counts() == ([0] * WAITS, 0)


def test_a_closed_loop_is_told_nothing() -> None:
    """The process is leaving, and a thread comes back late."""
    made: list[Desk] = []

    async def main() -> None:
        made.append(Desk(1))
        loan = await made[0].held()
        loan.end()
        made.append(SimpleNamespace(loan=loan))  # type: ignore[arg-type]

    run(main())
    made[0].gate.set()
    until_seen(lambda: made[0].lender.lent == 0)
    made[0].lender.close()
    until_seen(lambda: made[0].lender.threads == set())
