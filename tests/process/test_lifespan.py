"""Lifespan: startup, state and shutdown."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hybridworker.asgi import ASGIApp, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.errors import InvalidMessage, LifespanFailed, UnexpectedMessage, WorkerExit
from hybridworker.process import lifespan as module
from hybridworker.process.lifespan import Lifespan
from hybridworker.states import LifespanState
from tests.fakes import FakeLog
from tests.harness import application, make_settings


class Unusual(BaseException):
    """No Exception."""


COMPLETE = ("info", "Application startup is complete after 0.0 s")


def live(app: ASGIApp, test: Callable[[Lifespan, WorkerContext, Any], Awaitable[None]], mode: str = "auto") -> FakeLog:
    """Run ``test`` with a lifespan of ``app``; returns the log."""
    log = FakeLog()

    async def main() -> None:
        context = WorkerContext(
            application=application(app), settings=make_settings(), loop=asyncio.get_running_loop(), log=log
        )
        await test(Lifespan(context, context.router.default, mode), context, log)

    asyncio.run(main())
    return log


def obedient(scopes: list[Scope] | None = None, events: list[str] | None = None) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scopes is not None:
            scopes.append(dict(scope))
        for kind in ("startup", "shutdown"):
            message = await receive()
            if events is not None:
                events.append(message["type"])
            if kind == "startup":
                scope["state"]["pool"] = "shared"
            await send({"type": f"lifespan.{kind}.complete"})

    return app


def test_l1_scope_and_events() -> None:
    """The scope says lifespan 2.0 and holds an empty state; startup and shutdown come once each."""
    scopes: list[Scope] = []
    events: list[str] = []

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        states = [lifespan.state]
        assert events == ["lifespan.startup"]
        assert context.router.default.state == {"pool": "shared"}
        await lifespan.shutdown(5)
        assert [*states, lifespan.state] == [LifespanState.STARTED, LifespanState.STOPPED]

    log = live(obedient(scopes, events), test)
    assert events == ["lifespan.startup", "lifespan.shutdown"]
    assert log.at("info") == ["Application startup is complete after 0.0 s"]
    assert scopes[0]["type"] == "lifespan"
    assert scopes[0]["asgi"] == {"version": "3.0", "spec_version": "2.0"}


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("only http")


async def falling(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise ValueError("no database")


async def returning(scope: Scope, receive: Receive, send: Send) -> None:
    return


@pytest.mark.parametrize(("app", "level"), [(refusing, "info"), (falling, "warning"), (returning, "info")])
def test_l5_auto_serves_an_application_without_lifespan(app: ASGIApp, level: str) -> None:
    """It is said how it refused; what had begun and failed is a warning."""

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        assert lifespan.state is LifespanState.UNSUPPORTED
        await lifespan.shutdown(5)

    assert len(live(app, test).at(level)) == 1


@pytest.mark.parametrize("app", [refusing, falling, returning])
def test_on_makes_a_missing_lifespan_a_failure(app: ASGIApp) -> None:
    """``asgi_lifespan = on`` asks for it."""

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        with pytest.raises(LifespanFailed, match="asgi_lifespan"):
            await lifespan.startup()

    live(app, test, mode="on")


@pytest.mark.parametrize(("message", "text"), [({"message": "no database"}, "no database"), ({}, "no reason")])
def test_l6_l7_startup_failed_raises_with_the_applications_message(message: dict[str, str], text: str) -> None:
    """The message is optional."""
    ended: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", **message})
        try:
            await receive()
        finally:
            ended.append(True)

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        with pytest.raises(LifespanFailed, match=text):
            await lifespan.startup()

    live(app, test)
    assert ended == [True]


def test_a_traceback_as_the_message_begins_with_its_last_line() -> None:
    """Starlette sends one; its first line says nothing."""
    traceback = "Traceback (most recent call last):\n  File \"a.py\", line 1, in b\nKeyError: 'database'\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": traceback})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        with pytest.raises(LifespanFailed) as caught:
            await lifespan.startup()
        assert str(caught.value) == f"KeyError: 'database'\n{traceback.rstrip()}"

    live(app, test)


def test_a_message_of_several_lines_stays_as_it_is() -> None:
    """Whoever wrote it put first what comes first."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database\nsee the manual"})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        with pytest.raises(LifespanFailed) as caught:
            await lifespan.startup()
        assert str(caught.value) == "no database\nsee the manual"

    live(app, test)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_startup_is_given_up_when_the_worker_is_to_stop(stopped: bool) -> None:
    """Else it is waited for."""
    ended: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            if stopped:
                await asyncio.Event().wait()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        stop = asyncio.Event()
        if stopped:
            context.loop.call_soon(stop.set)
        await lifespan.start(stop)
        assert ended == (["cancelled"] if stopped else [])
        assert lifespan.state is (LifespanState.STARTING if stopped else LifespanState.STARTED)
        await lifespan.abandon()

    live(app, test)


def test_l10_shutdown_failed_is_logged() -> None:
    """The worker leaves all the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "still busy"})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(5)

    assert live(app, test).at("error") == ["Application shutdown failed: still busy"]


def test_l9_shutdown_is_bounded() -> None:
    """An application that does not answer is cancelled when its time is up."""
    cancelled: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(0.01)

    assert len(live(app, test).at("error")) == 1
    assert cancelled == [True]


def test_l12_no_shutdown_without_startup() -> None:
    """Before startup was asked for there is nothing to shut down."""

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.shutdown(5)
        assert lifespan.state is LifespanState.NEW

    live(obedient(), test)


def test_l13_returning_after_startup_is_fine() -> None:
    """Serving goes on, and stopping does not wait."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(5)

    assert live(app, test).lines == [COMPLETE]


def test_an_exception_while_serving_is_logged() -> None:
    """What the application loses after startup is its own, but never silent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(5)

    assert live(app, test).at("error") == ["Application raised in its lifespan"]


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_l14_variables_set_in_startup_are_in_the_base_context() -> None:
    """Requests start from the context in which startup ended."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        variable.set(3)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        assert context.router.default.context[variable] == 3
        await lifespan.shutdown(5)

    live(app, test)


def test_a_long_startup_is_reported_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no limit of its own; a warning says that it has not ended."""
    monkeypatch.setattr(module, "REMINDER", 0.001)
    release: list[asyncio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        release.append(asyncio.Event())
        await receive()
        await release[0].wait()
        await send({"type": "lifespan.startup.complete"})

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        starting = asyncio.create_task(lifespan.startup())
        async with asyncio.timeout(10):
            while len(log.at("warning")) < 2:  # noqa: ASYNC110  (a log has no event)
                await asyncio.sleep(0.001)
        release[0].set()
        await starting
        await lifespan.shutdown(5)

    live(app, test)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([{"type": "lifespan.shutdown.complete"}], UnexpectedMessage),
        ([{"type": "lifespan.startup.complete"}, {"type": "lifespan.startup.complete"}], UnexpectedMessage),
        ([{"type": "http.response.start"}], UnexpectedMessage),
        ([{"type": "lifespan.startup.failed", "message": b"bytes"}], InvalidMessage),
    ],
)
def test_wrong_messages_raise(messages: list[dict[str, Any]], error: type[Exception]) -> None:
    """One exception, at the ``send()`` that was wrong."""
    raised: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(error):
            await send(messages[-1])
        raised.append(True)

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(5)

    live(app, test)
    assert raised == [True]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (SystemExit(5), LifespanState.FAILED),
        (KeyboardInterrupt(), LifespanState.FAILED),
        (asyncio.CancelledError(), LifespanState.UNSUPPORTED),
        (GeneratorExit(), LifespanState.UNSUPPORTED),
        (Unusual(), LifespanState.UNSUPPORTED),
        (BaseExceptionGroup("", [Unusual()]), LifespanState.UNSUPPORTED),
    ],
)
def test_whatever_is_raised_in_startup_ends_it(error: BaseException, state: LifespanState) -> None:
    """An application that exits means it; one whose own task was cancelled has failed as with any exception."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise error

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        if state is LifespanState.FAILED:
            with pytest.raises(LifespanFailed, match=type(error).__name__):
                await lifespan.startup()
        else:
            await lifespan.startup()
        assert lifespan.state is state

    live(app, test)


def test_a_lifespan_that_cancels_its_own_task_has_failed_as_well() -> None:
    """In startup it is waited for no longer; later it is an error, at the time at which it happens."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if complete:
            await send({"type": "lifespan.startup.complete"})
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.Event().wait()

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        assert lifespan.task is not None
        await asyncio.wait([lifespan.task], timeout=10)
        await lifespan.shutdown(5)

    complete = False
    warning = "Application raised in lifespan startup; serving it all the same"
    assert live(app, test).lines == [("warning", warning)]
    complete = True
    assert live(app, test).lines == [COMPLETE, ("error", "Application raised in its lifespan")]


@pytest.mark.parametrize("fails", [False, True])
def test_what_the_worker_has_ended_is_no_error(fails: bool) -> None:
    """What the application makes of its cancellation is its own matter, unless it fails while it cleans up."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        async with asyncio.TaskGroup() as group:
            group.create_task(end())
            await asyncio.Event().wait()

    async def end() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raise RuntimeError from None if fails else exc

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        await lifespan.startup()
        await lifespan.shutdown(0)

    late = ("error", "Application shutdown was not complete after 0.0 s")
    assert live(app, test).lines == [COMPLETE, late, *[("error", "Application raised in its lifespan")] * fails]


def test_the_exit_of_the_process_passes_through_startup() -> None:
    """QUIT and INT are raised inside of whatever they interrupt."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise WorkerExit(0)

    async def test(lifespan: Lifespan, context: WorkerContext, log: Any) -> None:
        context.loop.set_exception_handler(lambda loop, context: None)  # as the worker does: it is nobody's news
        await lifespan.startup()

    with pytest.raises(WorkerExit):
        live(app, test)
