"""Program: the table of its states walked completely, what the siblings see of it, and its counts."""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import os
import random
from collections.abc import Callable, Iterator
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.connection.context import WorkerContext
from hybridworker.group.scoreboard import REASONS, RECYCLED, STATE, Group, Scoreboard, WorkerState, set_state
from hybridworker.group.succession import Succession
from hybridworker.process import program as module
from hybridworker.process.program import STAYING, Program, counted
from hybridworker.process.server import Server
from hybridworker.states import PROGRAM, ProgramState, ServerState
from tests.fakes import FakeLog
from tests.harness import HELLO, application, make_settings
from tests.waiting import DEADLINE, until

STARTING, SERVING, WISHING = ProgramState.STARTING, ProgramState.SERVING, ProgramState.WISHING
HANDING_OVER, DRAINING, EXITING = ProgramState.HANDING_OVER, ProgramState.DRAINING, ProgramState.EXITING

#: The events of the table that come from outside, and how. The others are steps of a program that runs.
CALLS: dict[str, tuple[Callable[[Program], None], ...]] = {
    "leave": (lambda program: program.leave(), lambda program: program.leave("hook")),
    "recycle": (lambda program: program.recycle("max_requests"),),
}


class Watchdog:
    """It sees nothing."""

    def watch(self, context: WorkerContext, pool: Any) -> None: ...


class Signals:
    """There are none."""

    def keep_term(self) -> None: ...


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop; and what a program keeps from the garbage collector is given back to it."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()
    gc.unfreeze()


def new_program(loop: asyncio.AbstractEventLoop, siblings: bool = False, **settings: Any) -> Program:
    """A program without sockets; with siblings it has to wait for its turn."""
    options = {"graceful_timeout": 0.1, "asgi_lifespan": "off", **settings}
    context = WorkerContext(application=application(HELLO), settings=make_settings(**options), loop=loop, log=FakeLog())
    succession = None
    if siblings:
        board = Scoreboard(4)
        for age in (1, 2):
            context.slot = board.claim(age) or []
            context.slot[0] = os.getpid()
            set_state(context.slot, WorkerState.READY)
        succession = Succession(Group(board, context.slot), context.settings)
    worker: Any = SimpleNamespace(ppid=os.getppid(), timeout=0, notify=lambda: None)
    doubles: Any = Signals(), Watchdog()
    return Program(worker, Server(context, [], None, None), None, succession, *doubles)


def run(program: Program) -> None:
    """To its end. It is the only task: the program cancels those of the application."""
    loop = program.context.loop
    guard = loop.call_later(DEADLINE, loop.stop)
    loop.run_until_complete(program.run())
    guard.cancel()


@pytest.mark.parametrize("siblings", [False, True])
@pytest.mark.parametrize("event", CALLS)
@pytest.mark.parametrize("state", ProgramState)
def test_program(loop: asyncio.AbstractEventLoop, state: ProgramState, event: str, siblings: bool) -> None:
    """Each call leads where the table says, and changes nothing where the table has no pair."""
    for call in CALLS[event]:
        program = new_program(loop, siblings)
        program.state, program.reason = state, "max_rss"
        call(program)
        assert program.state in PROGRAM.get((state, event), {state})
        assert program.leaving.is_set() == (state in STAYING and program.state not in STAYING)


def test_the_table_has_no_more_than_can_happen(loop: asyncio.AbstractEventLoop) -> None:
    """Every outcome that it names is reached, by a call or by a step of :func:`test_a_run`."""
    reached = {
        (STARTING, "serve"): {SERVING},
        (HANDING_OVER, "hand over"): {DRAINING, SERVING, WISHING},
        (DRAINING, "drain"): {EXITING},
    }
    for state, siblings, event in product(ProgramState, (False, True), CALLS):
        for call in CALLS[event]:
            program = new_program(loop, siblings)
            program.state = state
            call(program)
            if (state, event) in PROGRAM:
                reached.setdefault((state, event), set()).add(program.state)
    assert reached == {pair: set(outcomes) for pair, outcomes in PROGRAM.items()}


@pytest.mark.parametrize(
    ("reason", "steps"),
    [
        (
            "term",
            [(HANDING_OVER, WorkerState.RETIRING), (DRAINING, WorkerState.DRAINING), (EXITING, WorkerState.DRAINING)],
        ),
        ("hook", [(DRAINING, WorkerState.RECYCLING), (EXITING, WorkerState.RECYCLING)]),
    ],
)
def test_a_run(
    monkeypatch: pytest.MonkeyPatch,
    loop: asyncio.AbstractEventLoop,
    reason: str,
    steps: list[tuple[ProgramState, WorkerState]],
) -> None:
    """The states follow each other as in the table, the siblings see them, and the reason is counted once."""
    seen: list[tuple[ProgramState, int]] = []
    enter = Program._enter

    def record(program: Program, state: ProgramState) -> None:
        enter(program, state)
        seen.append((state, program.context.slot[STATE]))
        if state is SERVING:
            loop.call_soon(program.leave, reason)
            loop.call_soon(program.leave, reason)

    monkeypatch.setattr(Program, "_enter", record)
    program = new_program(loop, siblings=True)
    run(program)
    assert seen == [(SERVING, WorkerState.READY), *steps]
    assert program.context.slot[RECYCLED + REASONS.index(reason)] == 1


def test_a_program_that_was_told_to_go_before_it_ran_never_serves(loop: asyncio.AbstractEventLoop) -> None:
    """It accepts nothing and hands nothing over."""
    program = new_program(loop)
    program.leave()
    assert program.state is DRAINING
    run(program)
    assert program.state is EXITING
    assert program.server.state is ServerState.STOPPED and not program.server.accepting


@pytest.mark.parametrize("wish", [False, True])
def test_a_worker_whose_successors_fail_goes_on(loop: asyncio.AbstractEventLoop, wish: bool) -> None:
    """It was told to go, and is as before, its deadlines included; told again, with nobody to come, it leaves."""
    program = new_program(loop, siblings=True)
    succession = program.succession
    assert succession is not None
    board = succession.group.scoreboard
    failed = board.claim(3)
    assert failed is not None
    failed[0] = os.getpid()

    running = loop.create_task(program.run())

    async def main() -> None:
        await until(lambda: program.state is SERVING)
        set_state(failed, WorkerState.BOOTING)
        board.rank(None, 0)
        program.leave()
        if wish:
            program.recycle("max_requests")
        await until(lambda: succession.told)
        assert program.context.slot[STATE] == WorkerState.RETIRING
        set_state(failed, WorkerState.FAILED)
        board.rank(None, 0)
        await until(lambda: program.state is not HANDING_OVER)
        assert program.state is (WISHING if wish else SERVING)
        assert program.server.deadline == math.inf and not program.grace.told
        assert program.context.slot[RECYCLED] == 0
        set_state(failed, WorkerState.DRAINING)
        program.leave()

    loop.run_until_complete(main())
    loop.run_until_complete(running)
    assert program.context.slot[RECYCLED] == 1
    log: Any = program.context.log
    assert len([line for line in log.at("warning") if line.startswith("This worker goes on")]) == 1


def test_a_worker_that_is_too_old_is_replaced(monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> None:
    """At its age and up to a tenth later, counted from its first accept."""
    for factor, jitter in ((1.0, 1000.0), (1.1, 1100.0)):
        monkeypatch.setattr(random, "uniform", lambda low, high, factor=factor: min(high, max(low, factor)))
        program = new_program(loop, max_age=1000.0)
        seen: list[str] = []
        monkeypatch.setattr(program, "recycle", lambda reason, seen=seen: seen.append(reason))
        program.state = SERVING
        program._serves()
        for seconds, count in ((jitter - 1, 0), (jitter + 1, 1)):
            program._tick(program.served_since + seconds, 0.0)
            assert len(seen) == count
        assert seen == ["max_age"]


def test_with_reload_a_worker_hands_nothing_over(loop: asyncio.AbstractEventLoop) -> None:
    """The developer waits."""
    program = new_program(loop, reload=True)
    program.state = SERVING
    program.leave()
    assert program.state is DRAINING


def test_an_orphan_leaves(loop: asyncio.AbstractEventLoop) -> None:
    """A worker whose arbiter has gone serves nobody."""
    program = new_program(loop)
    program.worker.ppid = os.getpid()
    run(program)
    log: Any = program.context.log
    assert log.at("info")[0].startswith("Parent changed, shutting down: ")


def test_a_slow_heartbeat_warns_once(monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop) -> None:
    """And names the remedy."""
    program = new_program(loop)
    clock = itertools.count(step=0.06)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    beats: list[int] = []
    log: Any = program.context.log
    program.worker.notify = lambda: beats.append(1)  # type: ignore[method-assign]
    program._notify()
    assert log.lines == []
    program.worker.notify = lambda: beats.append(next(clock) > 0)  # type: ignore[method-assign]
    for _ in range(2):
        program._notify()
    assert len(beats) == 3
    (warning,) = log.at("warning")
    assert warning.startswith("A heartbeat took more than 100 ms")
    assert "--worker-tmp-dir /dev/shm" in warning


def test_one_request_is_in_the_singular() -> None:
    """And nothing else of the line changes."""
    lines = ("%d requests were not finished", "Served %d requests: %d cut")
    assert [counted(lines[0], n) for n in (0, 1)] == ["0 requests were not finished", "1 request was not finished"]
    assert [counted(lines[1], n, 2) for n in (1, 2)] == ["Served 1 request: 2 cut", "Served 2 requests: 2 cut"]
