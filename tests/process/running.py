"""Stand-ins for a worker that serves: a context on a loop, requests in flight, calls in threads."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

from hybridworker.connection.context import WorkerContext
from hybridworker.wsgi.callrecords import RunningCall
from tests.fakes import FakeCall, FakeLog
from tests.harness import application, make_settings
from tests.waiting import DEADLINE


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
        self.application = SimpleNamespace(threaded=False)
        self.call = object() if task is None else None


def requests(*cycles: Any) -> dict[Any, None]:
    """Requests in flight."""
    return dict.fromkeys(cycles)


def pool_of(*calls: RunningCall) -> Any:
    """A pool that says what is to be seen in it."""
    return SimpleNamespace(snapshot=lambda: list(calls))


class Held(FakeCall):
    """A call for the pool that waits to be let go."""

    lane = 0
    lasting = False

    def __init__(self, label: str) -> None:
        self.label, self.queued_at = label, 0.0
        self.began, self.release, self.woken = threading.Event(), threading.Event(), False

    def run(self, variables: contextvars.Context) -> None:
        self.began.set()
        assert self.release.wait(DEADLINE)

    def wake(self) -> None:
        self.woken = True
