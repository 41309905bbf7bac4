"""The report: the table of requests, the stacks of threads and tasks."""

from __future__ import annotations

import asyncio
import contextvars
import re
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest

from hybridworker.application.lentthreads import Lender, LentThread, Loan
from hybridworker.asgi import PART
from hybridworker.connection.context import WorkerContext
from hybridworker.process import report as module
from hybridworker.process.lifespan import Lifespan
from hybridworker.process.report import format_stack, format_task, in_flight, report
from hybridworker.wsgi.callrecords import RunningCall
from hybridworker.wsgi.threads import ThreadPool
from tests.harness import application
from tests.process.running import Held, Running, pool_of, requests, run
from tests.waiting import until

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
    assert LentThread._work.__code__.co_qualname == "LentThread._work"
    assert module.ROOTS == {
        (Worker.__module__, "Worker.run"),
        (ThreadPool.__module__, "ThreadPool._work"),
        (LentThread.__module__, "LentThread._work"),
    }


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


def test_the_report_of_lent_threads() -> None:
    """As of threads for WSGI calls: with what they serve, and none that is idle."""

    async def main(context: WorkerContext) -> None:
        context.lender = lender = Lender(0, context.loop, print)
        # The first one is of a Hybrid.
        loans = [Loan(lender, Running(path).scope) for path in ("/slow", "/idle")]
        loans[0].scope[PART] = "api"
        held = Held("GET /slow")
        loans[0].submit(held.run, contextvars.Context())
        loans[1].submit(abs, -1)
        await until(lambda: held.began.is_set() and len(lender.snapshot()) == 1)
        request = Running("/slow", task=asyncio.current_task())
        request.scope[PART] = "api"
        context.cycles = requests(request)
        text = await asyncio.to_thread(report, sys._getframe(), context, None, tasks=True)
        assert re.match(r"Requests in flight: 1\n  GET /slow, part api, .* s, in thread lent-0\nMain thread", text)
        assert "\nThread lent-0: GET /slow, part api\n" in text and "lent-1" not in text
        assert "assert self.release.wait(DEADLINE)" in text and "in _work" not in text
        held.release.set()
        await until(lambda: not lender.snapshot())
        for loan in loans:
            loan.end()
        lender.close()
        await until(lambda: lender.threads == set())

    run(main)


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
        context.router.default = context.router.single = application(app)
        tasks = [context.loop.create_task(polls(), name=f"Poller-{number}") for number in range(3)]
        tasks.append(context.loop.create_task(Lifespan(context, context.router.default)._run(), name="ours"))
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
