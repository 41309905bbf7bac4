"""WorkerContext: what all connections of a worker share."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import pytest

from hybridworker.application.application import Endpoint
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
    arguments = {name: options.pop(name) for name in ("log", "max_requests", "recycle") if name in options}

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
        assert context.fields.startswith(b"Server: gunicorn\r\nDate: ")
        assert context.fields.endswith(b" GMT\r\n")
        assert context.now > 0
        assert (context.connections, context.cycles, context.application.state) == (set(), {}, {})
        assert not context.draining
        context.closed()  # nobody listens yet
        assert isinstance(context.log, logging.Logger)

    run(check)


def test_a_tick_moves_the_clock_and_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second is enough for both."""

    def check(context: WorkerContext) -> None:
        monkeypatch.setattr("time.time", lambda: 784111777.0)
        context.tick(12.5)
        assert context.now == 12.5
        assert context.fields == b"Server: mine\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

    run(check, server=b"mine")


def test_a_small_head_is_below_every_limit() -> None:
    """The least of the three limits in bytes, and a request line and an empty line more than fields."""

    def check(context: WorkerContext) -> None:
        assert context.small_head == 300
        assert context.max_lines == 7

    for sizes in ((300, 400, 500), (500, 300, 400), (400, 500, 300)):
        names = ("limit_request_line", "limit_request_field_size", "max_head_size")
        run(check, limit_request_fields=5, **dict(zip(names, sizes, strict=True)))


def test_the_worker_recycles_once() -> None:
    """At ``max_requests``, and not again for requests that were under way."""
    calls: list[int] = []

    def check(context: WorkerContext) -> None:
        for _ in range(5):
            context.count_request()
            if context.served < 3:
                assert calls == []
        assert calls == [1]

    run(check, max_requests=3, recycle=lambda: calls.append(1))


@pytest.mark.parametrize(("keepalive", "kept"), [(5.0, True), (0.0, False)])
def test_leaving_ends_keep_alive(keepalive: float, kept: bool) -> None:
    """From then on every response ends its connection, and an idle one has the drain window."""

    def check(context: WorkerContext) -> None:
        assert context.keep_alive is kept
        assert context.idle_time == keepalive
        context.leave()
        assert context.draining
        assert not context.keep_alive
        assert context.idle_time == 1.5

    run(check, keepalive=keepalive, drain_window=1.5)


def test_a_warning_is_logged_once() -> None:
    """Each of them."""
    log = FakeLog()

    def check(context: WorkerContext) -> None:
        for message in ("a", "b", "a", "b"):
            context.warn_once(message)

    run(check, log=log)
    assert log.lines == [("warning", "a"), ("warning", "b")]


@pytest.mark.parametrize(("is_wsgi", "seen"), [(False, "import"), (True, "unset")])
def test_what_was_set_at_import_is_for_asgi(is_wsgi: bool, seen: str) -> None:
    """A WSGI call has the context of its thread, and nothing that the loop does for it has another one's."""

    async def main() -> None:
        variable.set("import")
        loop, settings = asyncio.get_running_loop(), make_settings()
        context = WorkerContext(application=application(HELLO, is_wsgi=is_wsgi), settings=settings, loop=loop)
        assert context.application.context.run(variable.get) == seen

    asyncio.run(main())


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


def test_an_endpoint_comes_before_the_parts_but_takes_no_websocket() -> None:
    """One that an application takes; of its path as of any other."""

    async def main() -> None:
        settings, loop = make_settings(), asyncio.get_running_loop()
        made = [application(HELLO, is_wsgi=is_wsgi) for is_wsgi in (True, False)]
        made[0].part, made[1].part = Part("default", "default", HELLO), Part("routes['/r']", "/r", HELLO, "/r")
        parts = Parts.of(made, settings)
        context = WorkerContext(application=parts.default, parts=parts, settings=settings, loop=loop)
        endpoint = Endpoint(HELLO, settings)
        context.answer_first({"/up": endpoint, "/r/up": endpoint})
        for method, path, websocket, found in (
            ("GET", "/up", False, endpoint), ("POST", "/up", False, made[0]), ("GET", "/", False, made[0]),
            ("GET", "/up", True, endpoint), ("GET", "/r/up", True, made[1]), ("GET", "/r", False, made[1]),
        ):  # fmt: skip
            scope = {"method": method, "path": path, "headers": []}
            assert context.find(scope, websocket, None) is found
            assert ("hybridworker.part" in scope) is (found is not endpoint)

    asyncio.run(main())
