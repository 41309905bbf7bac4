"""WorkerContext: what all connections of a worker share."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

from hybridworker.application.directory import Part
from hybridworker.application.parts import Parts
from hybridworker.connection.context import WorkerContext
from hybridworker.group.scoreboard import IN_FLIGHT, THREADED
from tests.fakes import FakeLog
from tests.harness import HELLO, application, make_settings

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class Call:
    """A request in flight, as far as the context knows."""

    def __init__(self, task: asyncio.Task[None] | None, application: Any = None) -> None:
        self.task = task
        self.application = application


def run(check: Callable[[WorkerContext], Any], **options: Any) -> None:
    """Call ``check`` with a context on a running loop."""
    arguments = {name: options.pop(name) for name in ("log",) if name in options}

    async def main() -> None:
        context = WorkerContext(
            application=application(HELLO),
            settings=make_settings(**options),
            loop=asyncio.get_running_loop(),
            **arguments,
        )
        result = check(context)
        if result is not None:
            await result

    asyncio.run(main())


def test_a_context_is_complete_when_it_is_made() -> None:
    """Server and Date are there before the first tick, nothing is in flight, nobody drains."""

    def check(context: WorkerContext) -> None:
        assert context.clock.fields.startswith(b"Server: gunicorn\r\nDate: ")
        assert context.clock.fields.endswith(b" GMT\r\n")
        assert context.clock.now > 0
        assert (context.connections, context.cycles, context.router.default.state) == (set(), {}, {})
        assert not context.persistence.draining
        context.connections.changed()  # nobody listens yet
        assert isinstance(context.log, logging.Logger)

    run(check)


def test_a_warning_is_logged_once() -> None:
    """Each of them."""
    log = FakeLog()

    def check(context: WorkerContext) -> None:
        for message in ("a", "b", "a", "b"):
            context.warn_once(message)

    run(check, log=log)
    assert log.lines == [("warning", "a"), ("warning", "b")]


def test_tasks_are_those_of_the_requests_in_flight() -> None:
    """In order; a call whose task was not made yet has none. The list may change while it is walked."""

    async def check(context: WorkerContext) -> None:
        tasks = [context.loop.create_task(asyncio.sleep(0)) for _ in range(2)]
        calls: list[Any] = [Call(tasks[0]), Call(None), Call(tasks[1])]
        context.cycles.update(dict.fromkeys(calls))
        found = []
        for task in context.tasks():
            found.append(task)
            context.cycles.clear()
        assert found == tasks
        await asyncio.gather(*tasks)

    run(check)


def test_calls_in_threads_are_counted_apart_beside_others() -> None:
    """Siblings see them: an open stream is in flight, and occupies no thread."""

    async def main() -> None:
        settings, loop = make_settings(), asyncio.get_running_loop()
        made = [application(HELLO, is_wsgi=is_wsgi) for is_wsgi in (True, False)]
        made[0].part, made[1].part = Part("default", "default", HELLO), Part("websocket", "websocket", HELLO)
        parts = Parts.of(made, settings)
        context = WorkerContext(application=parts.default, parts=parts, settings=settings, loop=loop)
        calls = [Call(None, app) for app in (made[0], made[1], made[1])]
        for call in calls:
            context.enter(call)  # type: ignore[arg-type]  # stands for a cycle
        assert (context.slot[IN_FLIGHT], context.slot[THREADED]) == (3, 1)
        for call in calls:
            context.exit(call)  # type: ignore[arg-type]
        assert (context.slot[IN_FLIGHT], context.slot[THREADED]) == (0, 0)

    asyncio.run(main())
