"""Lifespans: those of all parts, in order, with one failure or a part that takes too long among them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hybridworker import Hybrid
from hybridworker.application.application import Application
from hybridworker.application.parts import Parts
from hybridworker.connection.context import WorkerContext
from hybridworker.errors import LifespanFailed
from hybridworker.process.lifespans import Lifespans
from tests.fakes import FakeLog
from tests.harness import make_settings


class Part:
    """An ASGI application that writes down its lifespan; ``fails`` and ``hangs`` name an event."""

    def __init__(self, name: str, events: list[str], fails: str = "", hangs: str = "") -> None:
        self.name, self.events, self.fails, self.hangs = name, events, fails, hangs

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        for event in ("startup", "shutdown"):
            await receive()
            self.events.append(f"{self.name} {event}")
            if self.hangs == event:
                await asyncio.Event().wait()
            outcome = "failed" if self.fails == event else "complete"
            scope["state"][self.name] = True
            await send({"type": f"lifespan.{event}.{outcome}", "message": "no luck"})
            if self.fails == event:
                return


def run(hybrid: Hybrid, test: Callable[[Lifespans, WorkerContext], Awaitable[None]]) -> FakeLog:
    """Run ``test`` with the lifespans of all parts; returns the log."""
    log = FakeLog()

    async def main() -> None:
        settings = make_settings()
        made = []
        for part in hybrid.parts:
            made.append(Application(part.app, settings))
            made[-1].part = part
        parts = Parts.of(made, settings)
        loop = asyncio.get_running_loop()
        context = WorkerContext(application=parts.default, parts=parts, settings=settings, loop=loop, log=log)
        await test(Lifespans(context), context)

    asyncio.run(main())
    return log


def test_one_for_each_object_in_order_and_reverse() -> None:
    """Parts of one object share its state and its context."""
    events: list[str] = []
    a, b = Part("a", events), Part("b", events)

    async def test(lifespans: Lifespans, context: WorkerContext) -> None:
        assert not lifespans
        await lifespans.start(asyncio.Event(), 1)
        assert lifespans
        first, second, third = context.router.applications
        assert first.state is third.state
        assert (first.state, second.state) == ({"a": True}, {"b": True})
        await lifespans.shutdown(5)

    run(Hybrid(a, routes={"/b": b, "/a": a}), test)
    assert events == ["a startup", "b startup", "b shutdown", "a shutdown"]


def test_a_failure_names_the_part_and_stops_those_before_it() -> None:
    """Those behind it never start."""
    events: list[str] = []

    async def test(lifespans: Lifespans, context: WorkerContext) -> None:
        with pytest.raises(LifespanFailed, match=r"^routes\['/b'\]: no luck"):
            await lifespans.start(asyncio.Event(), 5)
        assert not lifespans

    run(Hybrid(Part("a", events), routes={"/b": Part("b", events, "startup"), "/c": Part("c", events)}), test)
    assert events == ["a startup", "b startup", "a shutdown"]


def test_one_that_hangs_in_shutdown_leaves_time_for_the_others() -> None:
    """All of them together have the time that there is, and the log names the part."""
    events: list[str] = []

    async def test(lifespans: Lifespans, context: WorkerContext) -> None:
        await lifespans.start(asyncio.Event(), 1)
        await lifespans.shutdown(0.4)

    log = run(Hybrid(Part("a", events), routes={"/b": Part("b", events, hangs="shutdown")}), test)
    assert events == ["a startup", "b startup", "b shutdown", "a shutdown"]
    (line,) = log.at("error")
    assert line.startswith("routes['/b']: Application shutdown was not complete after 0.")


def test_told_to_go_amid_a_startup() -> None:
    """What is behind it does not start, what has started is stopped."""
    events: list[str] = []
    hanging = Part("b", events, hangs="startup")

    async def test(lifespans: Lifespans, context: WorkerContext) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        await lifespans.start(stop, 1)
        await lifespans.shutdown(1)

    run(Hybrid(Part("a", events), routes={"/b": hanging, "/c": Part("c", events)}), test)
    assert events == ["a startup", "b startup", "a shutdown"]
