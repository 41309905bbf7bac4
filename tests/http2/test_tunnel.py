"""``http2/tunnel.py``: a WebSocket on a stream (RFC 8441)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("hpack", reason="the extra is not installed")
pytest.importorskip("websockets", reason="the extra is not installed")

from hybridworker.asgi import Headers, Message, Receive, Scope, Send
from hybridworker.errors import ClientDisconnected
from hybridworker.http2 import wire
from hybridworker.http2.tunnel import HIGH_WATER
from tests.http2.framing import data, request, reset
from tests.http2.multiplexed import multiplexed
from tests.websocket.test_frames import CLOSE, PING, TEXT, frame

CONNECT: Headers = [
    (b":method", b"CONNECT"),
    (b":protocol", b"websocket"),
    (b":scheme", b"http"),
    (b":authority", b"x"),
    (b":path", b"/chat"),
    (b"sec-websocket-version", b"13"),
]


class App:
    """Accepts with ``accept``, answers what comes, and keeps what it received."""

    def __init__(self, *accept: Message) -> None:
        self.accept = accept or ({"type": "websocket.accept"},)
        self.received: list[Message] = []
        self.scope: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        assert (await receive())["type"] == "websocket.connect"
        for message in self.accept:
            await send(message)
        while (message := await receive())["type"] == "websocket.receive":
            self.received.append(message)
            await send({"type": "websocket.send", "text": message["text"] * 2})
        self.received.append(message)


def opened(fields: Headers = CONNECT) -> bytes:
    return request(1, False, fields)


def test_an_extended_connect_is_answered_with_200() -> None:
    """RFC 8441 5: no key, no Upgrade; the frames are the DATA of the stream."""
    app = App({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"X-A", b"1")]})
    with multiplexed(app) as there:
        there.feed(opened())
        fields = dict(there.answers[1].sections[0])
        assert (fields[b":status"], fields[b"sec-websocket-protocol"], fields[b"x-a"]) == (b"200", b"chat", b"1")
        assert b"sec-websocket-accept" not in fields
        there.feed(data(1, frame(TEXT, b"ab")))
        assert there.answers[1].body == b"\x81\x04abab"
        assert app.scope["type"] == "websocket"
        assert app.scope["http_version"] == "2"
        there.feed(reset(1))


def test_settings_announce_it_for_asgi() -> None:
    """SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3)."""
    with multiplexed(App()) as there:
        assert b"\x00\x08\x00\x00\x00\x01" in there.sent


def test_a_closing_handshake_ends_the_stream_alone() -> None:
    """END_STREAM from both sides, and the connection goes on."""
    app = App()
    with multiplexed(app) as there:
        there.feed(opened())
        there.feed(data(1, frame(CLOSE, b"\x03\xe8"), True))
        there.run()
        assert there.answers[1].ended
        assert there.answers[1].body == b"\x88\x02\x03\xe8"
        assert app.received == [{"type": "websocket.disconnect", "code": 1000, "reason": ""}]
        assert there.open
        assert not there.protocol.reader.streams


@pytest.mark.parametrize("together", [False, True])
def test_a_client_that_ends_its_side_last(together: bool) -> None:
    """The server has begun the closing handshake: END_STREAM behind the close frame is the end of both."""
    app = App({"type": "websocket.accept"}, {"type": "websocket.close", "code": 1000})
    with multiplexed(app) as there:
        there.feed(opened())
        close = frame(CLOSE, b"\x03\xe8")
        there.feed(*([data(1, close, True)] if together else [data(1, close), data(1, b"", True)]))
        there.run()
        assert there.answers[1].ended
        assert there.context.router.responses[2] == 1  # the WebSocket knows, and so do access log and statistics
        there.protocol.drain(there.loop.time())
        assert not there.open  # nothing is waited for


@pytest.mark.parametrize("at_once", [False, True])
def test_a_client_that_ends_its_side_before_the_answer(at_once: bool) -> None:
    """There can be no DATA without HEADERS (RFC 9113 8.1): a client may end the whole connection for it."""
    gate = asyncio.Event()
    received: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await gate.wait()
        received.append(await receive())
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})

    with multiplexed(app) as there:
        there.feed(*([request(1, True, CONNECT)] if at_once else [opened(), data(1, b"", True)]))
        gate.set()
        there.run()
        assert [message["type"] for message in received] == ["websocket.connect", "websocket.disconnect"]
        assert [kind for kind, _, stream, _ in there.frames if stream == 1 and kind != wire.WINDOW_UPDATE] == [
            wire.RST_STREAM
        ]
        assert there.open


def test_a_client_that_ends_its_side_behind_a_denial() -> None:
    """Nothing is left of the WebSocket, and the connection is idle from now on."""
    with multiplexed(App({"type": "websocket.close"})) as there:
        there.feed(opened())
        there.feed(data(1, b"", True))
        there.run()
        assert there.answers[1].status == 403
        assert there.context.router.responses[4] == 1
        idle = there.protocol.idle_until
        assert idle is not None
        assert idle - there.loop.time() <= there.context.settings.keepalive  # which begins now


def test_a_window_of_0_is_opened_for_a_websocket() -> None:
    """``http2_initial_window_size`` may be 0."""
    app = App()
    with multiplexed(app, http2_initial_window_size=0) as there:
        there.feed(wire.frame(wire.SETTINGS, wire.ACK, 0), opened())
        assert there.protocol.reader.streams[1].window > 0
        there.feed(data(1, frame(TEXT, b"ab")))
        assert there.answers[1].body == b"\x81\x04abab"
        there.feed(reset(1))


def test_what_is_answered_when_a_window_opens_comes_last() -> None:
    """A pong to what was not read meanwhile does not come between the pieces of the message that waited."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "bytes": bytes(300_000)})
        await receive()

    with multiplexed(app) as there:
        there.feed(opened(), data(1, frame(PING, b"1")), data(1, frame(PING, b"2")))
        there.feed(wire.window_update(0, 1_000_000) + wire.window_update(1, 1_000_000))
        there.run()
        assert there.answers[1].body[10:] == bytes(300_000) + b"\x8a\x011" + b"\x8a\x012"
        there.feed(reset(1))


def test_a_reset_is_a_1006() -> None:
    """The application is told."""
    app = App()
    with multiplexed(app) as there:
        there.feed(opened())
        there.feed(reset(1))
        assert app.received[-1]["code"] == 1006


def test_a_denial_is_a_response() -> None:
    """The extension ``websocket.http.response``."""
    app = App(
        {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"1")]},
        {"type": "websocket.http.response.body", "body": b"one", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"two"},
    )
    with multiplexed(app) as there:
        there.feed(opened())
        there.run()
        assert (there.answers[1].status, there.answers[1].body, there.answers[1].ended) == (401, b"onetwo", True)
        there.feed(data(1, b"", True))
        there.tick(3.0)
        assert not there.protocol.reader.streams


@pytest.mark.parametrize(
    ("change", "status"),
    [((b":protocol", b"ftp"), 501), ((b"sec-websocket-version", b"12"), 400)],
)
def test_a_bad_handshake_is_refused(change: tuple[bytes, bytes], status: int) -> None:
    """On its stream."""
    fields = [change if name == change[0] else (name, value) for name, value in CONNECT]
    with multiplexed(App()) as there:
        there.feed(opened(fields))
        assert (there.answers[1].status, there.answers[1].ended) == (status, True)
        assert there.open
        there.feed(reset(1))


def test_a_ping_is_answered_and_sent() -> None:
    """By the same protocol as over HTTP/1.1, whose timeouts the connection's tick looks at."""
    with multiplexed(App(), ws_ping_interval=5.0) as there:
        there.feed(opened() + data(1, frame(PING, b"hi")))
        assert there.answers[1].body.startswith(b"\x8a\x02hi")
        there.tick(6.0)
        assert there.answers[1].body[4:5] == b"\x89"
        there.feed(reset(1))


def test_a_client_without_credit_stops_the_sender() -> None:
    """The window is its transport: above the high-water mark send() waits."""
    sent: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        for number in range(100):
            await send({"type": "websocket.send", "bytes": bytes(10_000)})
            sent.append(number)

    with multiplexed(app) as there:
        there.feed(opened())
        assert len(sent) <= (65535 + HIGH_WATER) // 10_000 + 2
        for _ in range(30):
            there.feed(wire.window_update(1, 60_000) + wire.window_update(0, 60_000))
        assert len(sent) == 100
        there.feed(reset(1))


def test_a_leaving_worker_says_1012() -> None:
    """RFC 6455 7.4.1, on the stream."""
    with multiplexed(App()) as there:
        there.feed(opened())
        there.protocol.drain(there.loop.time())
        for _ in range(200):
            there.run()
            if there.answers[1].body:
                break
            there.loop.run_until_complete(asyncio.sleep(0.005))
        assert there.answers[1].body[:4] == b"\x88\x02\x03\xf4"
        there.feed(reset(1))
