"""Ending: what an application may still send of a stream that is to end, and what its client sees."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.connection.ending import close_stream, end_stream
from hybridworker.errors import ClientDisconnected
from hybridworker.states import ResponseState
from tests.harness import GET, Wire, body, start, wire

EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
LAST = b"0\r\n\r\n"


class Stream:
    """An application that hands out its callables, and returns when the client has gone."""

    def __init__(self, *headers: tuple[bytes, bytes], silent: bool = False, waits: bool = False, **more: Any) -> None:
        self.start = start(200, *headers, **more)
        self.waits = waits  #: does not look whether the client has gone
        self.silent = silent  #: the head is held back, because no body has come
        self.send: Send
        self.receive: Receive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send
        await send(self.start)
        if not self.silent:
            await send(body(b"x", more=True))
        if self.waits:
            await asyncio.Event().wait()
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnected("as frameworks do")


def cycle_of(w: Wire, request: bytes = GET) -> Any:
    w.feed(request)
    (cycle,) = w.context.cycles
    return cycle


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("request_", [GET, HTTP10, POST], ids=["1.1", "1.0", "body"])
def test_events_have_their_last_chunk(request_: bytes, silent: bool) -> None:
    """Also where the application has sent no event yet, and where the client sends a body."""
    with wire(Stream(EVENTS, silent=silent)) as w:
        cycle = cycle_of(w, request_)
        assert end_stream(cycle)
        w.run()
        assert w.sent.endswith(LAST) is (request_ != HTTP10)
        assert w.sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not w.transport.aborted
        assert w.context.cycles == {}
        assert w.log.at("exception") == w.log.at("error") == []


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("request_", [GET, HTTP10], ids=["1.1", "1.0"])
def test_anything_else_is_cut(request_: bytes, silent: bool) -> None:
    """So that nobody takes a part for the whole."""
    with wire(Stream((b"content-type", b"text/plain"), silent=silent)) as w:
        assert end_stream(cycle_of(w, request_))
        w.run()
        assert w.transport.aborted
        assert LAST not in w.sent
        assert w.log.at("exception") == w.log.at("error") == []


def test_a_body_that_the_application_ends_is_whole() -> None:
    """What it sends before that is refused."""
    app = Stream(waits=True)
    with wire(app) as w:
        cycle = cycle_of(w)
        end_stream(cycle)
        with pytest.raises(ClientDisconnected):
            w.loop.run_until_complete(app.send(body(b"more", more=True)))
        w.loop.run_until_complete(app.send(body(b"end")))
        assert w.sent.endswith(b"1\r\nx\r\n3\r\nend\r\n" + LAST)
        assert cycle.state is ResponseState.COMPLETE


def test_trailers_may_follow_the_end_of_the_body() -> None:
    """They were promised, and the body is whole."""
    app = Stream(trailers=True, waits=True)
    with wire(app) as w:
        cycle = cycle_of(w, b"GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        end_stream(cycle)
        w.loop.run_until_complete(app.send(body(b"end")))
        assert cycle.state is ResponseState.TRAILERS
        w.loop.run_until_complete(app.send({"type": "http.response.trailers", "headers": [(b"a", b"b")]}))
        assert w.sent.endswith(b"0\r\na: b\r\n\r\n")


def test_an_application_that_does_not_react() -> None:
    """It is closed from outside, and whatever it sends afterwards is too late, and no error of its own."""
    app = Stream(EVENTS, waits=True)
    with wire(app) as w:
        cycle = cycle_of(w)
        end_stream(cycle)
        close_stream(cycle)
        assert w.sent.endswith(LAST)
        for message in (body(b"x", more=True), body(b"x"), {"type": "http.response.trailers"}):
            with pytest.raises(ClientDisconnected):
                w.loop.run_until_complete(app.send(message))
        assert w.loop.run_until_complete(app.receive())["type"] == "http.disconnect"
        close_stream(cycle)
        assert w.sent.count(LAST) == 1


@pytest.mark.parametrize(
    ("headers", "request_"),
    [([(b"content-length", b"5")], GET), ([], b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")],
    ids=["length", "HEAD"],
)
def test_what_has_an_end_is_left_alone(headers: list[tuple[bytes, bytes]], request_: bytes) -> None:
    """It comes to it by itself."""
    with wire(Stream(*headers, silent=True)) as w:
        cycle = cycle_of(w, request_)
        assert not end_stream(cycle)
        assert cycle.state is ResponseState.STARTED
        close_stream(cycle)
        assert cycle.state is ResponseState.STARTED


def test_a_response_that_has_not_begun_is_left_alone() -> None:
    """It may have an end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    with wire(app) as w:
        assert not end_stream(cycle_of(w))
