"""Admission: which requests may begin, and what the others get."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hybridworker.application.application import Endpoint
from hybridworker.asgi import Receive, Scope, Send
from hybridworker.connection.admission import limited
from hybridworker.group.scoreboard import SHED, SHEDS, UPGRADED
from hybridworker.http11.protocol import HTTPProtocol
from tests.fakes import FakeTransport
from tests.harness import GET, HELLO, Wire, body, echo, make_settings, settle, start, wire


def shed(w: Wire) -> dict[str, int]:
    """How many were turned away, by reason."""
    return {reason: w.context.slot[SHED + at] for at, reason in enumerate(SHEDS) if w.context.slot[SHED + at]}


async def hang(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/hang":
        await asyncio.Event().wait()
    await HELLO(scope, receive, send)


HANG = GET.replace(b" / ", b" /hang ")


@pytest.mark.parametrize(
    "name", ["request_timeout", "queue_timeout", "requests_max", "limit_request_body", "slow_request"]
)
def test_there_is_one_where_a_limit_is_set(name: str) -> None:
    """And none otherwise: what is off costs nothing."""
    assert not limited(make_settings())
    assert limited(make_settings(**{name: 5}))
    with wire(HELLO) as w:
        assert w.context.admission is None
        assert not w.context.clock.exact


def test_a_full_worker_turns_away_and_keeps_the_connection() -> None:
    """503 with Retry-After, before the application; no recursion for a long row of requests."""
    calls = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await hang(scope, receive, send)

    with wire(app, requests_max=0) as w:
        sent = w.feed(GET)
        assert sent.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: 1\r\n" in sent
        assert b"Connection: close" not in sent
        w.feed(GET * 2000)
        w.run()
        assert calls == []
        assert shed(w)["requests"] == w.context.router.responses[5] > 1


def test_the_limit_is_the_number_of_requests_in_flight() -> None:
    """WebSockets are in flight too, and do not count; what has ended makes room."""
    with wire(hang, requests_max=2) as w:
        assert w.context.admission is not None
        assert w.feed(GET).count(b" 200 OK") == 1
        w.feed(HANG)
        cycle = next(iter(w.context.cycles))
        assert not w.context.admission.full
        w.context.cycles[object()] = None  # type: ignore[index]
        assert w.context.admission.full
        w.context.slot[UPGRADED] += 1
        assert not w.context.admission.full
        assert w.context.admission.admits(cycle)
        w.context.cycles.popitem()


def test_endpoints_are_answered_in_a_full_worker() -> None:
    """They are needed most then."""
    with wire(hang, requests_max=0) as w:
        w.context.router.answer_first({"/health": Endpoint(HELLO, w.context.settings)})
        assert w.feed(GET.replace(b" / ", b" /health ")).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("room", [False, True])
def test_the_connection_ends_where_a_sibling_has_room(room: bool) -> None:
    """The client comes back to it."""
    with wire(HELLO, requests_max=0) as w:
        assert w.context.admission is not None
        w.context.admission.elsewhere = lambda: room
        assert (b"Connection: close" in w.feed(GET)) is room
        assert w.transport.closing is False or room


def post(size: int, extra: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (extra, size)


@pytest.mark.parametrize("extra", [b"", b"Expect: 100-continue\r\n"], ids=["plain", "expect"])
def test_an_announced_length_is_looked_at_before_the_application(extra: bytes) -> None:
    """One byte more than allowed is a 413, and the exact length is not."""
    with wire(echo, limit_request_body=10) as w:
        assert b" 200 OK" in w.feed(post(10) + b"x" * 10)
        sent = w.feed(post(11, extra))[len(w.sent) :] or w.sent
        assert sent.endswith(b"</html>\n")
        assert b"HTTP/1.1 413 " in sent
        assert b" 100 " not in sent
        assert shed(w) == {"body": 1}


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_body_is_counted() -> None:
    """A 413 where nothing was sent, and the connection ends; what follows is dropped."""
    with wire(echo, limit_request_body=10) as w:
        w.feed(CHUNKED, b"5\r\nhello\r\n")
        sent = w.feed(b"6\r\nhello!\r\n", b"0\r\n\r\n", GET)
        assert sent.count(b"HTTP/1.1 ") == 1
        assert sent.startswith(b"HTTP/1.1 413 ")
        assert shed(w) == {"body": 1}
        assert w.log.at("warning") == [
            "Invalid request POST /: the body is longer than HYBRIDWORKER_LIMIT_REQUEST_BODY"
        ]


def test_a_chunked_body_behind_its_response() -> None:
    """The connection is cut, and ``receive()`` says that it is."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"a", True))
        while not seen or seen[-1]["type"] == "http.request":
            seen.append(await receive())

    with wire(app, limit_request_body=10) as w:
        w.feed(CHUNKED, b"5\r\nhello\r\n")
        w.feed(b"6\r\nhello!\r\n")
        assert w.transport.aborted
        assert seen[-1]["type"] == "http.disconnect"


@pytest.mark.parametrize("name", ["x-request-id", "traceparent"])
def test_an_answer_of_a_full_worker_has_the_id_of_its_request(name: str) -> None:
    """As every error page has; a trace is only read."""
    with wire(HELLO, requests_max=0, request_id=name.encode(), forwarded_networks=None) as w:
        sent = w.feed(GET.replace(b"\r\n\r\n", b"\r\nX-Request-Id: abc\r\n\r\n"))
        assert sent.startswith(b"HTTP/1.1 503 ")
        assert sent.lower().count(b"x-request-id: abc\r\n") == (name == "x-request-id")


def test_requests_that_come_in_one_turn_count_at_once() -> None:
    """Where a task begins only with the next turn, the ones before it are in flight all the same."""
    with wire(hang, requests_max=2) as w:
        others = [FakeTransport() for _ in range(4)]

        async def burst() -> None:
            for transport in others:
                protocol = HTTPProtocol(w.context)
                protocol.connection_made(transport)
                protocol.data_received(HANG + GET)  # with more behind it, no task begins at once
            await settle()

        w.loop.run_until_complete(burst())
        assert [transport.sent[:12] for transport in others] == [b"", b"", b"HTTP/1.1 503", b"HTTP/1.1 503"]
        for transport in others:
            transport.abort()
        assert len(w.context.cycles) == 2
