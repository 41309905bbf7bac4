"""RequestTimeouts: whose time is up, and whose clock stands."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.connection.requesttimeouts import CLEANUP, Late, RequestTimeouts
from tests.harness import GET, Wire, body, start, wire


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.Event().wait()


def age(w: Wire, seconds: float) -> None:
    """Let the clocks of the requests in flight show ``seconds`` more."""
    for cycle in w.context.cycles:
        cycle.since -= seconds


def tick(w: Wire, deadlines: RequestTimeouts) -> list[tuple[Late, Any]]:
    async def look() -> list[tuple[Late, Any]]:
        return [(found.late, found.cycle) for found in deadlines.tick()]

    found = w.loop.run_until_complete(look())
    w.run()
    return found


def test_a_request_expires_once_and_is_cancelled() -> None:
    """Not before its time; the client has its 504 before the application hears of it."""
    cancelled: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await hang(scope, receive, send)
        except asyncio.CancelledError:
            cancelled.append(w.sent)
            raise

    with wire(app, request_timeout=30) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(GET)
        age(w, 29)
        assert tick(w, deadlines) == []
        age(w, 2)
        assert [late for late, _ in tick(w, deadlines)] == [Late.EXPIRED]
        assert w.sent.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
        assert b"Connection: close\r\n" in w.sent
        assert cancelled == [w.sent]
        assert not w.context.cycles
        assert tick(w, deadlines) == []
        assert w.log.at("error") == w.log.at("exception") == []


def test_a_thread_is_told_before_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with its 504 may rely on it: what the thread says from then on is too late."""
    with wire(hang, request_timeout=30) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(GET)
        (cycle,) = w.context.cycles
        told: list[bytes] = []
        monkeypatch.setattr(cycle.application, "expire", lambda scope: told.append(w.sent))
        age(w, 31)
        assert tick(w, deadlines) == [(Late.EXPIRED, cycle)]
        assert told == [b""]
        assert w.sent.startswith(b"HTTP/1.1 504 ")


def test_a_call_that_goes_on_is_told_once() -> None:
    """After it had time to clean up; its answer comes too late."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                pass
        await send(start(200))

    with wire(app, request_timeout=30) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(GET)
        age(w, 31)
        assert [late for late, _ in tick(w, deadlines)] == [Late.EXPIRED]
        assert tick(w, deadlines) == []
        (cycle,) = deadlines.ended
        deadlines.ended[cycle] -= CLEANUP
        assert [late for late, _ in tick(w, deadlines)] == [Late.STUBBORN]
        assert tick(w, deadlines) == []
        gate.set()
        w.run()
        assert tick(w, deadlines) == []
        assert deadlines.ended == {}
        assert w.sent.count(b"HTTP/1.1") == 1
        assert [line.startswith("GET / answered 0.") for line in w.log.at("warning")] == [True]


def test_what_has_begun_is_left_alone() -> None:
    """A head that is held back has not begun."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        if scope["path"] == "/":
            await send(body(b"a", True))
        await asyncio.Event().wait()

    for request, found in ((GET, []), (GET.replace(b" / ", b" /x "), [Late.EXPIRED])):
        with wire(app, request_timeout=30) as w:
            w.feed(request)
            age(w, 1000)
            assert [late for late, _ in tick(w, RequestTimeouts(w.context))] == found


def test_the_clock_stands_while_the_body_comes_in() -> None:
    """It runs again where the client waits for a 100, or is held back, or has gone."""
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n"

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass

    with wire(reads, request_timeout=30) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(post + b"\r\n", b"x")
        (cycle,) = w.context.cycles
        before = cycle.since
        cycle.started_at -= 1000
        assert w.context.admission is not None
        w.context.admission.looked -= 100
        assert tick(w, deadlines) == []
        assert 99 < cycle.since - before < 101
        w.context.admission.looked -= 100
        w.feed(b"x" * 199_999)
        assert 199 < cycle.since - before < 201

    for extra, data in ((b"Expect: 100-continue\r\n", b""), (b"", b"x" * 100_000)):
        with wire(hang, request_timeout=30) as w:
            w.feed(post + extra + b"\r\n" + data)
            (cycle,) = w.context.cycles
            assert not cycle.incoming
    with wire(hang, request_timeout=30) as w:
        w.feed(post + b"\r\n", b"x")
        assert next(iter(w.context.cycles)).incoming
        w.eof()
        assert not next(iter(w.context.cycles)).incoming


def test_the_clock_has_stood_until_a_body_is_given_up() -> None:
    """The time-out of the body is seen by the same tick: the application has its time from then on."""
    given_up: list[Any] = []

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] == "http.request":
            pass
        given_up.append(True)
        await asyncio.Event().wait()

    with wire(reads, request_timeout=30) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", b"x")
        age(w, 100)
        assert w.context.admission is not None
        w.context.admission.looked -= 100
        next(iter(w.context.cycles)).started_at -= 1000
        w.tick(w.context.settings.body_timeout + 1)
        assert given_up == [True]
        assert tick(w, deadlines) == []
        age(w, 31)
        assert [late for late, _ in tick(w, deadlines)] == [Late.EXPIRED]


def test_a_call_whose_client_has_gone_is_ended_without_an_answer() -> None:
    """Nobody is there to be told."""
    with wire(hang, request_timeout=30) as w:
        w.feed(GET)
        w.lose()
        age(w, 31)
        assert [late for late, _ in tick(w, RequestTimeouts(w.context))] == [Late.EXPIRED]
        assert w.sent == b""
        assert not w.context.cycles


@pytest.mark.parametrize("timeout", [10, math.inf])
def test_a_slow_request_is_told_once(timeout: float) -> None:
    """And ended later, where it has a time-out."""
    with wire(hang, request_timeout=timeout, slow_request=5) as w:
        deadlines = RequestTimeouts(w.context)
        w.feed(GET)
        age(w, 6)
        assert [late for late, _ in tick(w, deadlines)] == [Late.SLOW]
        assert tick(w, deadlines) == []
        age(w, 6)
        assert [late for late, _ in tick(w, deadlines)] == ([Late.EXPIRED] if timeout == 10 else [])


@pytest.mark.parametrize("held", [False, True], ids=["begun", "held back"])
def test_a_client_that_leaves_a_response_that_has_begun_makes_nothing_late(held: bool) -> None:
    """However old the stream: the application has the grace period, as ever. A head that is held back has not begun."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        if not held:
            await send(body(b"a", True))
        await asyncio.Event().wait()

    with wire(app, request_timeout=30, slow_request=5) as w:
        w.feed(GET)
        w.lose()
        age(w, 1000)
        assert [late for late, _ in tick(w, RequestTimeouts(w.context))] == ([Late.EXPIRED] if held else [])
        assert len(w.context.cycles) == (not held)
