"""Streams: when those of a worker that leaves are asked to end, closed, or cut."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.process.streams import LAST, RELOAD_LAST, Streams
from hybridworker.states import ResponseState
from tests.harness import GET, Wire, body, start, wire

ENDING = ResponseState.ENDING


async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
    """A stream that never looks."""
    await send(start(200, (b"content-type", scope["query_string"] or b"text/plain")))
    await send(body(b"x", more=True))
    await scope["loop"].create_future()


def begin(w: Wire, request: bytes = GET) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await deaf({**scope, "loop": w.loop}, receive, send)

    w.context.router.default.app = app
    w.feed(request)
    (cycle,) = w.context.cycles
    return cycle


@pytest.mark.parametrize("reload", [False, True])
def test_a_stream_is_asked_and_then_closed(reload: bool) -> None:
    """At the time that is configured, and a moment later; with ``--reload`` the moment is short."""
    with wire(deaf, stream_drain=5.0, reload=reload) as w:
        cycle = begin(w)
        streams = Streams(w.context, 100.0, math.inf)
        streams.tick(104.9)
        assert cycle.state is ResponseState.BODY
        streams.tick(105.0)
        assert cycle.state is ENDING
        last = RELOAD_LAST if reload else LAST
        streams.tick(105.0 + last - 0.1)
        assert cycle.state is ENDING
        streams.tick(105.0 + last + 0.1)
        w.run()
        assert w.context.cycles == {} and w.transport.aborted
        streams.report()
        assert w.log.at("info") == ["Streams asked to end: 1, of which 1 were cut"]
        assert w.log.at("exception") == w.log.at("error") == []


def test_events_are_not_cut() -> None:
    """They are closed."""
    with wire(deaf, stream_drain=0.0) as w:
        begin(w, b"GET /?text/event-stream HTTP/1.1\r\nHost: x\r\n\r\n")
        streams = Streams(w.context, 100.0, math.inf)
        assert [streams.tick(now) for now in (100.0, 102.0)] == [0, 0]
        w.run()
        assert w.sent.endswith(b"0\r\n\r\n")
        streams.report()
        assert w.log.at("info") == ["Streams asked to end: 1, of which 0 were cut"]


def test_what_is_done_behind_the_end_of_a_stream_is_not_cut() -> None:
    """A background task of Starlette's, say, after a response that the application has ended in its moment."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass
        await send(body(b"bye"))
        await done
        after.append("done")

    after: list[str] = []
    with wire(app, stream_drain=0.0) as w:
        done = w.loop.create_future()
        w.feed(GET)
        w.run()
        streams = Streams(w.context, 100.0, math.inf)
        streams.tick(100.0)
        w.run()
        assert w.sent.endswith(b"bye\r\n0\r\n\r\n")
        streams.tick(102.0)
        w.run()
        done.set_result(None)
        w.run()
        assert after == ["done"]


def test_a_stream_that_begins_late_has_its_moment_too() -> None:
    """It is asked at once, and closed a moment later."""
    with wire(deaf, stream_drain=0.0) as w:
        streams = Streams(w.context, 100.0, math.inf)
        streams.tick(100.0)
        cycle = begin(w)
        streams.tick(110.0)
        assert cycle.state is ENDING
        streams.tick(110.5)
        assert cycle.state is ENDING


def test_without_a_value_streams_go_on_to_their_limit() -> None:
    """Which is there only for a worker that leaves by itself."""
    with wire(deaf, stream_drain=math.inf) as w:
        cycle = begin(w)
        for limit, cut in ((math.inf, 0), (30.0, 1)):
            streams = Streams(w.context, 100.0, limit)
            assert streams.tick(100.0) == 0
            assert cycle.state is ResponseState.BODY
            assert streams.tick(131.0) == cut
        w.run()
        assert w.transport.aborted
        streams.report()
        assert w.log.at("info") == []
