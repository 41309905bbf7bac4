"""Lending: whether, and how a call comes to its thread. asgiref is the real one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import ModuleType
from typing import Any

import pytest
from asgiref import sync
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, async_to_sync, sync_to_async

from hybridworker.application import lending
from hybridworker.application.lending import find_hook, lend, make_lender
from hybridworker.application.lentthreads import Lender, LentThread
from hybridworker.asgi import Message, Receive, Scope, Send
from tests.fakes import FakeLog
from tests.harness import body, make_settings, start
from tests.waiting import DEADLINE, run, until

current = sync_to_async(threading.current_thread)
executors: Any = SyncToAsync.context_to_thread_executor


class Calls:
    """An application that borrows, called as this worker does it: each call in a task of its own."""

    def __init__(self, app: Callable[[Send], Coroutine[Any, Any, None]], size: int = 0) -> None:
        self.lender = Lender(size, asyncio.get_running_loop(), print)
        self.sent: list[Message] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            await app(send)

        self.app = lend(application, self.lender)

    def begin(self, kind: str = "http") -> asyncio.Task[Any]:
        scope = {"type": kind, "method": "GET", "path": "/", "hybridworker.target": b"/"}
        return asyncio.create_task(self.app(scope, self._receive, self._send))  # type: ignore[arg-type]

    async def _receive(self) -> Message:
        raise AssertionError("nobody asks")

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    async def close(self) -> None:
        self.lender.close()
        await until(lambda: self.lender.threads == set())


def calls(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test on a loop; asgiref keeps nothing of it."""

    def wrapper() -> None:
        before = len(executors)
        run(test())
        assert len(executors) == before

    wrapper.__doc__ = test.__doc__
    return wrapper


# -- whether


def django(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, lending.HANDLER, ModuleType("handler"))


@pytest.mark.parametrize(
    ("mode", "with_django", "lends"),
    [
        ("auto", False, False), ("auto", True, True), ("on", False, True), ("off", True, False),
    ],
)  # fmt: skip
def test_the_modes(monkeypatch: pytest.MonkeyPatch, mode: str, with_django: bool, lends: bool) -> None:
    """Auto is on where Django's handler is loaded. One line says that threads are lent."""
    monkeypatch.delitem(sys.modules, lending.HANDLER, raising=False)
    if with_django:
        django(monkeypatch)

    async def main() -> None:
        log = FakeLog()
        lender = make_lender(make_settings(lend_threads=mode), asyncio.get_running_loop(), log)
        assert (lender is not None) is lends
        assert len(log.lines) == lends

    run(main())


@pytest.mark.parametrize(
    ("threads", "bounded", "size", "words"),
    [
        (1, True, 0, "as many as are needed"),
        (4, True, 4, "at most 4 at once"),
        (4, False, 0, "as many as are needed"),
    ],
)
def test_the_bound(threads: int, bounded: bool, size: int, words: str) -> None:
    """``--threads`` where that is more than 1, and none where it means the threads of WSGI calls."""

    async def main() -> None:
        log = FakeLog()
        settings = make_settings(lend_threads="on", threads=threads, metrics_path="/metrics")
        lender = make_lender(settings, asyncio.get_running_loop(), log, bounded=bounded)
        assert lender is not None and lender.size == size and lender.timed
        assert log.lines == [("info", f"Threads are lent to synchronous code of the ASGI application, {words}")]

    run(main())


@pytest.mark.parametrize(
    "missing", ["ThreadSensitiveContext", "thread_sensitive_context", "context_to_thread_executor"]
)
def test_an_asgiref_without_the_hook(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """There is one line of information, and the application is as it was."""
    monkeypatch.setattr(sync if missing == "ThreadSensitiveContext" else SyncToAsync, missing, None)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody calls it")

    async def main() -> None:
        log = FakeLog()
        loop = asyncio.get_running_loop()
        assert find_hook() is None
        assert make_lender(make_settings(lend_threads="on"), loop, log) is None
        assert log.lines == [("info", "This version of asgiref lends no threads: each call has one of its own")]
        assert lend(app, Lender(0, loop, print)) is app

    run(main())


def test_an_application_that_borrows_nothing_is_as_it_was() -> None:
    """No wrapper, so no cost."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("nobody calls it")

    assert lend(app, None) is app


# -- how


@calls
async def test_a_call_borrows_one_thread() -> None:
    """Also in the context that Django enters, in code that is called from synchronous code, and in its tasks."""
    seen: list[Any] = []

    async def app(send: Send) -> None:
        async with ThreadSensitiveContext():
            seen.append(await current())
            seen.extend(await asyncio.gather(current(), asyncio.create_task(current())))
            seen.append(await sync_to_async(lambda: async_to_sync(current)())())
        seen.append(await current())

    made = Calls(app)
    for _ in range(3):
        await made.begin()
    assert len(seen) == 15 and len(set(seen)) == 1
    assert isinstance(seen[0], LentThread) and made.lender.lent == 0
    await made.close()


@calls
async def test_what_is_no_http_call_borrows_nothing() -> None:
    """A WebSocket and a lifespan have what asgiref gives them."""
    seen: list[object] = []

    async def app(send: Send) -> None:
        seen.append(SyncToAsync.thread_sensitive_context.get(None))

    made = Calls(app)
    await made.begin("websocket")
    await made.begin("lifespan")
    assert seen == [None, None]


@calls
async def test_a_context_of_the_application_goes_first() -> None:
    """Lifespan startup may have entered one, in whose context every call begins."""
    seen: list[threading.Thread] = []

    async def app(send: Send) -> None:
        seen.append(await current())

    made = Calls(app)
    async with ThreadSensitiveContext():
        await made.begin()
        seen.append(await current())
    assert seen[0] is seen[1] and made.lender.threads == set()


@pytest.mark.skipif("executor" not in str(ThreadSensitiveContext.__init__.__annotations__), reason="asgiref 3.13")
def test_a_context_with_an_executor_inside_of_a_call() -> None:
    """It is the application's word for its block; afterwards the lent thread serves again."""
    from concurrent.futures import ThreadPoolExecutor

    seen: list[threading.Thread] = []

    async def app(send: Send) -> None:
        seen.append(await current())
        with ThreadPoolExecutor(1) as executor:
            async with ThreadSensitiveContext(executor=executor):
                seen.append(await current())
        seen.append(await current())

    async def main() -> None:
        made = Calls(app)
        await made.begin()
        assert seen[0] is seen[2] is not seen[1]
        await made.close()

    run(main())


STREAMS = [
    (start(200), body(b"part", more=True)),
    (start(200), {"type": "http.response.zerocopysend", "file": 0}),
    ({"type": "http.response.pathsend", "path": "/x"},),
]


@pytest.mark.parametrize("messages", STREAMS, ids=["body", "zerocopysend", "pathsend"])
def test_a_stream_gives_its_thread_back(messages: tuple[Message, ...]) -> None:
    """Before its first part is sent, which may take as long as the client likes; it may borrow again."""

    async def main() -> None:
        lent: list[int] = []

        async def app(send: Send) -> None:
            await current()
            for message in messages:
                await send(message)
                lent.append(made.lender.lent)
            assert isinstance(await current(), LentThread)
            await send(body(b"part", more=True))
            lent.append(made.lender.lent)

        made = Calls(app)
        await made.begin()
        assert lent[-2:] == [0, 0] and made.sent == [*messages, body(b"part", more=True)]
        await made.close()

    run(main())


@calls
async def test_a_whole_response_keeps_its_thread_to_the_end() -> None:
    """What comes after it, like Django's ``request_finished``, runs in the same one."""
    lent: list[int] = []

    async def app(send: Send) -> None:
        await current()
        await send(start(200))
        await send(body(b"whole"))
        lent.append(made.lender.lent)

    made = Calls(app)
    await made.begin()
    assert lent == [1] and made.lender.lent == 0
    await made.close()


@calls
async def test_a_task_that_outlives_its_call() -> None:
    """Its synchronous code has a thread of asgiref's own, one for all of it, as without lending."""
    gate = asyncio.Event()
    seen: list[threading.Thread] = []
    tasks: list[asyncio.Task[None]] = []

    async def late() -> None:
        await gate.wait()
        seen.extend([await current(), await current()])

    async def app(send: Send) -> None:
        seen.append(await current())
        tasks.append(asyncio.create_task(late()))

    made = Calls(app)
    await made.begin()
    gate.set()
    await tasks.pop()
    assert seen[1] is seen[2] and not isinstance(seen[1], LentThread)
    await made.close()


@pytest.mark.parametrize("error", [LookupError("no"), BaseException("no")])
def test_an_exception_goes_through(error: BaseException) -> None:
    """And the thread comes back."""

    async def app(send: Send) -> None:
        await current()
        raise error

    async def main() -> None:
        made = Calls(app)
        with pytest.raises(type(error)) as raised:
            await made.app({"type": "http", "method": "GET"}, made._receive, made._send)
        assert raised.value is error and made.lender.lent == 0
        await made.close()

    run(main())


@calls
async def test_a_call_that_is_cancelled_ends_at_once() -> None:
    """Its thread comes back when the synchronous code is done."""
    gate = threading.Event()

    async def app(send: Send) -> None:
        await sync_to_async(gate.wait)(DEADLINE)

    made = Calls(app, 1)
    task = made.begin()
    await until(lambda: made.lender.snapshot())
    task.cancel()
    with suppress(asyncio.CancelledError):
        async with asyncio.timeout(DEADLINE):
            await task
    assert task.cancelled() and made.lender.lent == 1
    gate.set()
    await until(lambda: made.lender.lent == 0)
    await made.close()


@calls
async def test_a_call_that_leaves_synchronous_code_behind_waits_for_it() -> None:
    """As asgiref's own context does at its end."""
    gate = threading.Event()
    tasks: list[asyncio.Task[bool]] = []

    async def app(send: Send) -> None:
        tasks.append(asyncio.create_task(sync_to_async(gate.wait)(DEADLINE)))
        await asyncio.sleep(0)

    made = Calls(app)
    task = made.begin()
    await until(lambda: made.lender.snapshot())
    assert not task.done()
    gate.set()
    async with asyncio.timeout(DEADLINE):
        await task
    assert await tasks.pop()
    await made.close()


def test_the_names_of_asgiref() -> None:
    """The hook is that of the installed version."""
    hook = find_hook()
    assert hook is not None
    assert hook.current is SyncToAsync.thread_sensitive_context and hook.executors is executors
