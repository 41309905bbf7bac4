"""``http2/stream.py`` and ``http2/outbox.py``: both windows, turns, and nobody left waiting."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("hpack", reason="the extra is not installed")

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.errors import ClientDisconnected
from hybridworker.http2 import wire
from tests.harness import body, start
from tests.http2.framing import data, request, reset, settings
from tests.http2.multiplexed import multiplexed

WINDOW = 65535


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200))
    await send(body(b"a" * 100_000, more=True))
    await send(body(b"b" * 10))


def credit(stream: int, size: int) -> bytes:
    return wire.window_update(stream, size)


def test_a_response_waits_for_its_window() -> None:
    """RFC 9113 5.2: exactly as many bytes as the client allows, in frames of its size."""
    with multiplexed(large) as there:
        there.feed(credit(0, 1_000_000) + request(1))
        assert len(there.answers[1].body) == WINDOW
        assert max(len(payload) for kind, _, _, payload in there.frames if kind == wire.DATA) == 16384
        there.feed(credit(1, 10))
        assert len(there.answers[1].body) == WINDOW + 10
        there.feed(credit(1, 1_000_000))
        assert there.answers[1].body == b"a" * 100_000 + b"b" * 10
        assert there.answers[1].ended


def test_blocked_streams_take_turns() -> None:
    """A frame each, when the connection has credit again."""
    with multiplexed(large) as there:
        there.feed(settings((wire.INITIAL_WINDOW_SIZE, 1_000_000)) + request(1) + request(3))
        there.take()
        seen = len(there.frames)
        there.feed(credit(0, 65536))
        turns = [stream for kind, _, stream, _ in there.frames[seen:] if kind == wire.DATA]
        assert sorted(turns) == [1, 1, 3, 3]
        assert turns[0] != turns[1]
        there.feed(credit(0, 1_000_000))
        assert len(there.answers[1].body) == len(there.answers[3].body) == 100_010


def test_the_connection_window_holds_everybody() -> None:
    """However much a stream may send."""
    with multiplexed(large) as there:
        there.feed(settings((wire.INITIAL_WINDOW_SIZE, 1_000_000)) + request(1) + request(3))
        assert len(there.answers[1].body) + len(there.answers.get(3, there.answers[1]).body) >= WINDOW
        assert sum(len(payload) for kind, _, _, payload in there.frames if kind == wire.DATA) == WINDOW
        there.feed(credit(0, 1_000_000))
        assert there.answers[3].ended


def test_send_raises_when_the_stream_is_reset() -> None:
    """ASGI HTTP 2.4: also out of a send() that waits."""
    raised: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await large(scope, receive, send)
        except OSError as exc:
            raised.append(exc)
            raise

    with multiplexed(app) as there:
        there.feed(request(1))
        there.feed(reset(1))
    assert [type(exc) for exc in raised] == [ClientDisconnected]


def test_a_cancelled_send_leaves_the_stream_usable() -> None:
    """Its waiter is gone; what it gave is still sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await send(body(b"a" * 100_000, more=True))
        await send(body(b"b"))

    with multiplexed(app) as there:
        there.feed(request(1))
        there.feed(credit(0, 1_000_000) + credit(1, 1_000_000))
        assert there.answers[1].body == b"a" * 100_000 + b"b"


def test_credit_is_given_as_the_application_reads() -> None:
    """A stream whose application does not read gets none; the connection gets it at once."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        while (await receive())["more_body"]:
            pass
        await send(start(200))
        await send(body(b"read"))

    with multiplexed(app) as there:
        there.feed(request(1, False) + b"".join(data(1, bytes(16000)) for _ in range(4)))
        updates = [stream for kind, _, stream, _ in there.frames if kind == wire.WINDOW_UPDATE]
        assert set(updates) == {0}
        gate.set()
        there.run()
        assert 1 in [stream for kind, _, stream, _ in there.frames if kind == wire.WINDOW_UPDATE]
        there.feed(data(1, b"", True))
        assert there.answers[1].body == b"read"


@pytest.mark.parametrize("late", [False, True])
def test_a_window_of_0_is_opened_when_the_body_is_wanted(late: bool) -> None:
    """``http2_initial_window_size`` may be 0, and a client may not have seen that yet when its request comes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        await send(start(200))
        await send(body(message["body"]))

    with multiplexed(app, http2_initial_window_size=0) as there:
        acknowledged = wire.frame(wire.SETTINGS, wire.ACK, 0)
        there.feed(*([request(1, False), acknowledged] if late else [acknowledged, request(1, False)]))
        assert there.protocol.reader.streams[1].window == WINDOW
        assert 1 in [stream for kind, _, stream, _ in there.frames if kind == wire.WINDOW_UPDATE]
        there.feed(data(1, b"hi", True))
        assert there.answers[1].body == b"hi"


def test_a_long_field_section_is_continued() -> None:
    """HEADERS and CONTINUATION (RFC 9113 6.10), and the size update of a peer without a table comes first."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200, *((b"x-%d" % number, b"\xff" * 900) for number in range(40))))
        await send(body(b"x"))

    with multiplexed(app) as there:
        with pytest.raises(AssertionError, match="CONTINUATION"):
            there.feed(request(1))
        there.read = len(there.sent)
        assert b"x-39" in there.sent or there.sent.count(b"\xff" * 900) == 40
