"""Overload: what the log says of requests that take too long, and when a worker asks to be replaced."""

from __future__ import annotations

import asyncio
import threading
import time

from hybridworker.application.lentthreads import Lender, Loan
from hybridworker.asgi import Receive, Scope, Send
from hybridworker.process.slowrequests import INTERVAL, REMEMBERED, SlowRequests, Sparing
from hybridworker.wsgi.threads import ThreadPool
from tests.harness import GET, HELLO, Wire, wire
from tests.waiting import passes, until
from tests.wsgi.test_threads import Gate


def test_one_report_of_a_kind_in_a_minute() -> None:
    """The next one says how many were left out."""
    sparing = Sparing()
    assert sparing.left_out((1, "/"), 0.0) == 0
    assert sparing.left_out((1, "/"), 1.0) is None
    assert sparing.left_out((1, "/"), INTERVAL - 1) is None
    assert sparing.left_out((2, "/"), 2.0) == 0
    assert sparing.left_out((1, "/"), INTERVAL) == 2
    assert sparing.left_out((1, "/"), 2 * INTERVAL) == 0


def test_so_many_kinds_are_remembered() -> None:
    """More are counted, until the time of the oldest is over."""
    sparing = Sparing()
    for number in range(REMEMBERED):
        assert sparing.left_out((1, f"/{number}"), 0.0) == 0
    assert sparing.left_out((1, "/0"), 1.0) is None
    assert sparing.left_out((1, "/more"), 2.0) is None
    assert len(sparing.kinds) == REMEMBERED
    assert sparing.left_out((1, "/more"), INTERVAL) == 2
    assert len(sparing.kinds) == REMEMBERED


def test_a_slow_request_is_named_with_its_stack() -> None:
    """Its target is escaped; what is alike is left out."""

    async def view(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    with wire(view, slow_request=5) as w:
        overload = SlowRequests(w.context, None, lambda reason: None)
        w.feed(GET)
        for cycle in w.context.cycles:
            cycle.since -= 6
            cycle.scope["hybridworker.target"] = b"/a\n"

        async def tick() -> None:
            overload.tick()

        w.loop.run_until_complete(tick())
        (line,) = w.log.at("warning")
        assert line.startswith("GET /a\\x0a has not begun to answer after 6.0 s\n  File ")
        assert ", in view\n" in line


def test_a_slow_request_in_a_lent_thread_is_shown_there() -> None:
    """What its task waits for says nothing."""

    async def view(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    async def main(w: Wire) -> None:
        w.context.lender = lender = Lender(0, w.loop, print)
        opened = threading.Event()

        def held_here() -> None:
            passes(opened)

        (cycle,) = w.context.cycles
        loan = Loan(lender, cycle.scope)
        loan.submit(held_here)
        await until(lender.snapshot)
        cycle.since -= 6
        SlowRequests(w.context, None, lambda reason: None).tick()
        (line,) = w.log.at("warning")
        assert line.startswith("GET / has not begun to answer after 6.")
        assert ", in held_here\n" in line
        opened.set()
        await until(lambda: not lender.snapshot())
        loan.end()
        lender.close()
        await until(lambda: lender.threads == set())

    with wire(view, slow_request=5) as w:
        w.feed(GET)
        w.loop.run_until_complete(main(w))


def test_as_many_lost_threads_as_there_are_replace_the_worker() -> None:
    """With the reason; not one fewer."""
    reasons: list[str] = []

    async def main(w: Wire) -> None:
        pool = ThreadPool(2)
        overload = SlowRequests(w.context, pool, reasons.append)
        gates = [Gate("GET /0"), Gate("GET /1")]
        for number, gate in enumerate(gates):
            pool.submit(gate)
            await until(gate.running.is_set)
            gate.abandoned = True
            worker = next(worker for worker in pool._workers if worker.call is gate)
            worker.started -= 31
            overload.tick()
            assert reasons == ["lost_threads"] * number
            assert f"GET /{number} has been in thread {worker.name} for 31." in w.log.at("warning")[number]
        assert "2 of its threads are lost" in w.log.at("warning")[-1]
        for gate in gates:
            gate.open.set()
        await until(lambda: pool.lost == 0)
        overload.tick()
        assert len(reasons) == 1
        pool.close()

    with wire(HELLO, request_timeout=30) as w:
        w.loop.run_until_complete(main(w))


def test_a_line_says_how_many_were_turned_away() -> None:
    """Once a minute, of those since the last line."""
    with wire(HELLO, requests_max=0) as w:
        overload = SlowRequests(w.context, None, lambda reason: None)
        overload.tick()
        w.feed(GET, GET)
        overload.tick()
        w.feed(GET)
        overload.tick()
        line = "Overload: {} requests were answered 503 by HYBRIDWORKER_QUEUE_TIMEOUT, {} by HYBRIDWORKER_REQUESTS_MAX"
        assert w.log.at("warning") == [line.format(0, 2)]
        overload.said_at = time.monotonic() - INTERVAL
        overload.tick()
        assert w.log.at("warning")[1:] == [line.format(0, 1)]
