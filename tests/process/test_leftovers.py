"""Leftovers: which tasks and threads are waited for, and how those are named that are cut."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import multiprocessing
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from hybridworker.process import leftovers
from hybridworker.process.leftovers import MOST, describe, end_tasks, own_tasks, sentence, wait_for_jobs
from tests.waiting import DEADLINE, passes, run

FACTORIES = pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
Factory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who run the tests have threads too."""
    before, threads = set(threading.enumerate()), leftovers._threads
    monkeypatch.setattr(leftovers, "_threads", lambda: [thread for thread in threads() if thread not in before])


async def ended(seconds: float = DEADLINE) -> list[str]:
    """What :func:`wait_for_jobs` returns when it is given ``seconds``."""
    loop = asyncio.get_running_loop()
    return await asyncio.wait_for(wait_for_jobs(loop, loop.time() + seconds), 2 * DEADLINE)


@contextmanager
def executor(**options: Any) -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(1, "pool", **options) as made:
        yield made


class Job:
    """Work that takes until it is let go."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        passes(self.open)

    def named(self) -> None:
        self()

    async def waited_for(self, words: str) -> None:
        """It is under way: see that it is named, and waited for to its end."""
        passes(self.begun)
        (line,) = await ended(0)
        assert line.startswith(words)
        waiting = asyncio.create_task(ended())
        await asyncio.sleep(0)
        assert not waiting.done()
        self.open.set()
        assert await waiting == []


# -- threads


def test_a_thread_is_waited_for() -> None:
    """It is named with the innermost function that it is in."""

    async def main() -> None:
        job = Job()
        thread = threading.Thread(target=job, name="sends\nmail")
        thread.start()
        await job.waited_for(r"thread sends\nmail in passes (waiting.py:")

    asyncio.run(main())


def test_a_daemon_is_not() -> None:
    """As Python itself does not, and the application has said so."""

    async def main() -> None:
        job = Job()
        threading.Thread(target=job, daemon=True).start()
        passes(job.begun)
        assert await ended(0) == []
        job.open.set()

    asyncio.run(main())


def test_a_call_in_an_executor_is_waited_for() -> None:
    """The line says which function it is."""

    async def main() -> None:
        job = Job()
        with executor() as pool:
            pool.submit(job.named)
            await job.waited_for("thread pool_0 (Job.named) in passes (waiting.py:")

    asyncio.run(main())


def test_a_partial_function_has_the_name_of_the_whole() -> None:
    """That is what asyncio and asgiref give to executors."""

    async def main() -> None:
        job = Job()
        with executor() as pool:
            pool.submit(functools.partial(job.named))
            await job.waited_for("thread pool_0 (Job.named) in ")

    asyncio.run(main())


def test_an_executor_is_waited_for_while_it_has_calls_to_come() -> None:
    """All that were submitted are made."""

    async def main() -> None:
        first, second, done = Job(), Job(), threading.Event()
        with executor() as pool:
            pool.submit(first)
            pool.submit(second)
            pool.submit(done.set)
            waiting = asyncio.create_task(ended())
            await asyncio.sleep(0)
            first.open.set()
            await asyncio.to_thread(passes, second.begun)
            assert not waiting.done()
            second.open.set()
            assert await waiting == []
            assert done.is_set()

    asyncio.run(main())


def test_an_initializer_is_work() -> None:
    """The call that it is for comes afterwards."""

    async def main() -> None:
        job = Job()
        with executor(initializer=job) as pool:
            pool.submit(int)
            await job.waited_for("thread pool_0 in ")

    asyncio.run(main())


def test_an_executor_without_work_is_not_waited_for() -> None:
    """Before its first call and after it."""

    async def main() -> None:
        with executor() as pool:
            assert await ended() == []
            pool.submit(int).result()
            assert await ended() == []
            await asyncio.to_thread(int)
            assert await ended() == []

    asyncio.run(main())


class Consumer(threading.Thread):
    """A thread that takes its work from a queue of its own, as those of anyio do."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: queue.Queue[Callable[[], None] | None] = queue.Queue()

    def run(self) -> None:
        while (job := self.queue.get()) is not None:
            job()


def consume(jobs: queue.Queue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()


@pytest.mark.parametrize("own", [True, False], ids=["run", "target"])
@pytest.mark.parametrize("patched", [False, True])
def test_a_thread_that_waits_for_work_has_none(own: bool, patched: bool) -> None:
    """Also where a tool has put a function around ``run``; while it works it is waited for."""

    async def main() -> None:
        jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        thread: threading.Thread
        if own:
            thread = consumer = Consumer()
            jobs = consumer.queue
        else:
            thread = threading.Thread(target=consume, args=(jobs,))
        if patched:
            original = thread.run
            thread.run = lambda: original()  # type: ignore[method-assign]
        thread.start()
        assert await ended() == []
        job = Job()
        jobs.put(job)
        await job.waited_for(f"thread {thread.name.partition(' ')[0]}")
        jobs.put(None)
        thread.join(DEADLINE)

    asyncio.run(main())


def test_a_thread_that_waits_for_a_result_has_work() -> None:
    """It waits for a queue as well, but amid something."""

    async def main() -> None:
        results: queue.Queue[int] = queue.Queue()

        def deep() -> int:
            return results.get()

        def work() -> None:
            deep()

        thread = threading.Thread(target=work)
        thread.start()
        lines: list[str] = []
        while not any(".deep (test_leftovers.py" in line for line in lines):
            await asyncio.sleep(0.001)
            lines = await ended(0)
        results.put(1)
        assert await ended() == []

    asyncio.run(main())


def test_the_worker_s_own_threads_are_not_waited_for() -> None:
    """Their calls are requests, which were waited for before."""

    async def main() -> None:
        job = Job()
        threading.Thread(target=job, name=f"{leftovers.OWN}wsgi-0").start()
        passes(job.begun)
        assert await ended(0) == []
        job.open.set()

    asyncio.run(main())


def test_a_process_pool_is_waited_for_while_it_has_calls() -> None:
    """And not when it has none."""

    async def main() -> None:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(int).result()
            assert await ended() == []
            call = pool.submit(time.sleep, 0.2)
            assert await ended(0) == ["a process pool with 1 call"]
            assert await ended() == []
            assert call.done()

    asyncio.run(main())


# -- tasks


@FACTORIES
def test_tasks_are_cancelled_and_awaited(factory: Factory) -> None:
    """Whatever they do then is done; asynchronous generators are closed behind them."""
    seen: list[str] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            seen.append("task")

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            seen.append("generator")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = generator()
        await anext(begun)
        kept = asyncio.create_task(task())
        await asyncio.sleep(0)
        assert own_tasks(loop) == [kept]
        assert await end_tasks(loop, loop.time() + DEADLINE) == []
        assert kept.cancelled()
        assert seen == ["task", "generator"]

    run(main(), factory)


def test_a_task_that_raises_when_it_is_cancelled_is_reported() -> None:
    """By the loop's exception handler, which gets the task."""
    reports: list[dict[str, Any]] = []

    async def task() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise LookupError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        kept = asyncio.create_task(task())
        await asyncio.sleep(0)
        assert await end_tasks(loop, loop.time() + DEADLINE) == []
        assert [(type(report["exception"]), report["task"]) for report in reports] == [(LookupError, kept)]

    asyncio.run(main())


def test_a_task_that_goes_on_is_named() -> None:
    """It has until the deadline, and the line says where it waits."""
    go = asyncio.Event()

    async def task() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        loop = asyncio.get_running_loop()
        kept = asyncio.create_task(task(), name="goes on")
        await asyncio.sleep(0)
        (line,) = await end_tasks(loop, loop.time())
        assert line.startswith("task goes on in test_a_task_that_goes_on_is_named.<locals>.task (test_leftovers.py:")
        go.set()
        await kept

    asyncio.run(main())


@FACTORIES
def test_an_asynchronous_generator_that_hangs_is_left(factory: Factory) -> None:
    """The deadline holds for it as well."""
    go = asyncio.Event()

    async def generator() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await go.wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun = generator()
        await anext(begun)
        async with asyncio.timeout(DEADLINE):
            await end_tasks(loop, loop.time())
        go.set()

    run(main(), factory)


def test_a_task_is_described_with_or_without_its_frame() -> None:
    """One that has ended by the line at which it begins."""

    async def task() -> None:
        pass

    async def main() -> None:
        made = asyncio.create_task(task(), name="a\nb")
        place = f"(test_leftovers.py:{task.__code__.co_firstlineno})"
        words = rf"task a\nb in test_a_task_is_described_with_or_without_its_frame.<locals>.task {place}"
        assert describe(made) == words
        await made
        assert describe(made) == words

    asyncio.run(main())


# -- words


def test_a_sentence_has_an_end() -> None:
    """However much there is."""
    assert sentence(["a"]) == "a"
    assert sentence(["a", "b"]) == "a, b"
    assert sentence(["a"] * (MOST + 3)) == ", ".join(["a"] * MOST) + " and 3 more"
