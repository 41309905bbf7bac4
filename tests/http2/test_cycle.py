"""``http2/cycle.py``: a response as frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hpack", reason="the extra is not installed")

from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.ending import end_stream
from hybridworker.connection.sendfile import POOL
from hybridworker.errors import InvalidMessage, ResponseError, UnexpectedMessage
from hybridworker.http2 import wire
from hybridworker.http2.cycle import HTTP2Cycle
from tests.harness import body, start
from tests.http2.framing import REQUEST, data, request
from tests.http2.multiplexed import H2Wire, multiplexed


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Those that read files end with each test."""
    yield
    POOL.close()


HEAD = [(b":method", b"HEAD"), *REQUEST[1:]]


def sends(*messages: Message) -> Any:
    """An application that sends these."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def answer(app: Any, fields: Any = REQUEST) -> Any:
    """The answer to one request, and the connection."""
    with multiplexed(app) as there:
        there.feed(request(1, fields=fields))
        return there.answers[1], there


def kinds(there: H2Wire) -> list[tuple[int, int]]:
    """Type and flags of the frames of stream 1."""
    return [(kind, flags) for kind, flags, stream, _ in there.frames if stream == 1]


def test_a_short_response_is_two_frames() -> None:
    """HEADERS and DATA with END_STREAM; fields in lower case, without those of a connection (RFC 9113 8.2)."""
    fields = (
        (b"X-A", b" 1 "),
        (b"Connection", b"x"),
        (b"Keep-Alive", b"1"),
        (b"Upgrade", b"y"),
        (b"Proxy-Connection", b"z"),
    )
    got, there = answer(sends(start(200, *fields), body(b"hi")))
    assert kinds(there) == [(wire.HEADERS, wire.END_HEADERS), (wire.DATA, wire.END_STREAM)]
    names = [name for name, _ in got.sections[0]]
    assert names == [b":status", b"server", b"date", b"x-a"]
    assert dict(got.sections[0])[b"x-a"] == b"1"


def test_server_and_date_of_the_application_win() -> None:
    """There are never two."""
    got, _ = answer(sends(start(200, (b"Server", b"mine"), (b"Date", b"now")), body(b"")))
    assert got.sections[0] == [(b":status", b"200"), (b"server", b"mine"), (b"date", b"now")]


@pytest.mark.parametrize(("status", "fields"), [(200, HEAD), (204, REQUEST), (304, REQUEST)])
def test_a_response_without_content_is_one_frame(status: int, fields: Any) -> None:
    """RFC 9110 6.4.1: HEADERS with END_STREAM; a 204 has no Content-Length."""
    got, there = answer(sends(start(status, (b"content-length", b"5")), body(b"12345")), fields)
    assert kinds(there) == [(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM)]
    assert (b"content-length" in dict(got.sections[0])) == (status != 204)


def test_an_empty_body_ends_with_the_head() -> None:
    """No DATA for nothing."""
    _, there = answer(sends(start(200), body(b"")))
    assert kinds(there) == [(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM)]


def test_parts_are_written_at_once() -> None:
    """And the end is a frame of its own where nothing else is left."""
    got, there = answer(sends(start(200), body(b"one", more=True), body(b"two", more=True), body(b"")))
    assert got.body == b"onetwo"
    assert kinds(there)[-1] == (wire.DATA, wire.END_STREAM)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([start(200, (b"a b", b"c"))], InvalidMessage),
        ([start(200, (b"a", b"b\r\nc: d"))], InvalidMessage),
        ([start(99)], InvalidMessage),
        ([start(200, (b"content-length", b"1")), body(b"ab")], ResponseError),
        ([body(b"x")], UnexpectedMessage),
        ([{"type": "http.response.informational", "status": 101}], InvalidMessage),
    ],
)
def test_what_is_wrong_raises_and_is_a_500(messages: list[Message], error: type[Exception]) -> None:
    """Nothing of it is sent."""
    raised: list[type[BaseException]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            try:
                await send(message)
            except Exception as exc:
                raised.append(type(exc))
                raise

    got, there = answer(app)
    assert raised == [error]
    assert got.status == 500
    assert there.resets == []


def test_an_error_behind_the_head_resets_the_stream() -> None:
    """INTERNAL_ERROR, so that the client sees that something is missing."""
    got, there = answer(sends(start(200), body(b"half", more=True), start(200)))
    assert got.body == b"half"
    assert there.resets == [(1, wire.INTERNAL_ERROR)]


def test_trailers_end_the_stream() -> None:
    """RFC 9113 8.1; several messages are one section."""
    trailers: list[Message] = [
        {"type": "http.response.trailers", "headers": [(b"A", b"1")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"b", b"2")]},
    ]
    got, there = answer(sends({**start(200), "trailers": True}, body(b"x"), *trailers))
    assert got.sections[1] == [(b"a", b"1"), (b"b", b"2")]
    assert kinds(there)[-1] == (wire.HEADERS, wire.END_HEADERS | wire.END_STREAM)


def test_trailers_wait_for_the_body() -> None:
    """Also where the window holds it back."""
    app = sends(
        {**start(200), "trailers": True},
        body(b"x" * 70_000),
        {"type": "http.response.trailers", "headers": [(b"a", b"1")]},
    )
    with multiplexed(app) as there:
        there.feed(request(1))
        assert len(there.answers[1].sections) == 1
        there.feed(wire.window_update(0, 100_000) + wire.window_update(1, 100_000))
        assert (len(there.answers[1].body), there.answers[1].ended) == (70_000, True)
        assert there.answers[1].sections[1] == [(b"a", b"1")]


def test_framing_fields_are_no_trailers() -> None:
    """RFC 9110 6.5.1."""
    trailers = {"type": "http.response.trailers", "headers": [(b"content-length", b"1")]}
    _, there = answer(sends({**start(200), "trailers": True}, body(b"x"), trailers))
    assert there.resets == [(1, wire.INTERNAL_ERROR)]


def test_hints_come_before_the_head_only() -> None:
    """Behind it they are too late (checklist X15)."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    got, _ = answer(sends(hint, start(200), hint, body(b"x", more=True), hint, body(b"")))
    assert [section[0] for section in got.sections] == [
        (b":status", b"103"),
        (b":status", b"103"),
        (b":status", b"200"),
    ]


def test_a_100_comes_when_the_body_is_wanted() -> None:
    """And not before (RFC 9110 10.1.1)."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send(start(200))
        await send(body(message["body"]))

    with multiplexed(app) as there:
        there.feed(request(1, False, [*REQUEST, (b"expect", b"100-continue")]))
        assert there.answers[1].sections == [[(b":status", b"100")]]
        there.feed(data(1, b"x", True))
        assert there.answers[1].body == b"x"


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_file_goes_in_portions(size: int, tmp_path: Path) -> None:
    """As the windows allow; a small one in one go."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * size)
    app = sends(start(200), {"type": "http.response.pathsend", "path": str(path)})
    with multiplexed(app) as there:
        there.feed(wire.window_update(0, 1_000_000) + request(1))
        for _ in range(1000):
            there.run()
            if there.answers.get(1) is not None and there.answers[1].ended:
                break
            if there.protocol.reader.streams and there.protocol.reader.streams[1].send_window <= 0:
                there.feed(wire.window_update(1, 100_000))
        assert there.answers[1].body == b"f" * size


def test_a_missing_file_is_a_clean_500(tmp_path: Path) -> None:
    """It shows before anything is sent."""
    app = sends(start(200), {"type": "http.response.pathsend", "path": str(tmp_path / "none")})
    with multiplexed(app) as there:
        there.feed(request(1))
        for _ in range(1000):
            there.run()
            if 1 in there.answers:
                break
        assert there.answers[1].status == 500


def test_close_retires_the_connection() -> None:
    """Of the application: GOAWAY, and the stream is answered."""
    got, there = answer(sends(start(200, (b"connection", b"close")), body(b"bye")))
    assert got.body == b"bye"
    assert there.farewells == [(2**31 - 1, 0, "")]


# -- what it shares with HTTP/1.1


@pytest.mark.parametrize(("kind", "code"), [(b"text/event-stream", None), (b"text/plain", wire.INTERNAL_ERROR)])
def test_a_stream_that_is_to_end(kind: bytes, code: int | None) -> None:
    """Server-sent events get their END_STREAM when the worker leaves; anything else is cut."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, (b"content-type", kind)))
        await send(body(b"x", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    with multiplexed(app) as there:
        there.feed(request(1))
        (cycle,) = there.context.cycles
        assert isinstance(cycle, HTTP2Cycle)
        assert end_stream(cycle)
        there.run()
        got = there.answers[1]
        assert (got.body, got.ended, got.code) == (b"x", code is None, code)


def test_a_body_that_becomes_too_long_is_a_413_and_given_back() -> None:
    """A request whose refusal comes with its head never begins; what the client stalls on behind is reset."""
    called: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        called.append(scope["path"])

    with multiplexed(app, limit_request_body=10) as there:
        there.feed(request(1, ended=False) + data(1, b"x" * 11))
        got = there.answers[1]
        assert (got.status, got.ended, called) == (413, True, [])
        assert there.protocol.reader.streams[1].dropped == 11
        there.tick(1000)
        assert there.resets == [(1, wire.NO_ERROR)]
        there.feed(request(3))
        assert called == ["/"]
