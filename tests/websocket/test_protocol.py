"""``websocket.py``: one connection after the upgrade, on a real loop with a fake transport."""

from __future__ import annotations

import asyncio
import contextvars
import importlib.util
import itertools
import math
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the extra is not installed")

import uvloop

import hybridworker
from hybridworker.asgi import ASGIApp, Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.flow import LINGER, FlowControl
from hybridworker.errors import ClientDisconnected, InvalidMessage, UnexpectedMessage, WorkerExit
from hybridworker.log.views import ResponseView
from hybridworker.states import WEBSOCKET, WebSocketState, expected
from hybridworker.websocket import protocol as websocket
from hybridworker.websocket.frames import DEFLATE_MIN, HIGH_WATER, OVERHEAD
from hybridworker.websocket.handshake import Upgrade
from hybridworker.websocket.protocol import CLOSE_TIMEOUT, EARLY_MAX, JOIN_MAX, SPREAD, WebSocketProtocol
from tests.fakes import FakeLog, FakeTransport
from tests.harness import application, make_settings, settle
from tests.websocket.test_frames import BINARY, CLOSE, CONT, OFFER, PING, PONG, TEXT, Markup, frame, parse

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = [(b"host", b"x"), (b"sec-websocket-version", b"13"), (b"sec-websocket-key", KEY)]
ACCEPT: Message = {"type": "websocket.accept"}

Act = Callable[[Receive, Send], Awaitable[None]]


class Peer:
    """
    A client of one :class:`WebSocketProtocol`, and the application behind it.

    ``feed`` sends bytes and lets the application run; ``head`` and ``frames`` are what came back.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: ASGIApp, **options: Any) -> None:
        self.loop = loop
        self.log = FakeLog()
        headers = options.pop("headers", HEADERS)
        method = options.pop("method", b"GET")
        rest = options.pop("rest", b"")
        client = options.pop("client", ("127.0.0.1", 40000))
        hooks = options.pop("hooks", None)
        context_options = {name: options.pop(name) for name in ("access", "max_requests") if name in options}
        recycle = options.pop("recycle", None)
        tls = options.pop("tls", False)
        self.context = WorkerContext(
            application=application(app, hooks=hooks),
            settings=make_settings(**options),
            loop=loop,
            log=self.log,
            **context_options,
        )
        self.context.clock.fields = b"Server: s\r\nDate: d\r\n"
        if recycle is not None:
            self.context.quota.used_up = recycle
        self.gone = 0
        self.context.connections.changed = self._closed
        self.transport = FakeTransport(ssl_object=object()) if tls else FakeTransport()
        self.flow = FlowControl(self.transport)
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "http_version": "1.1",
            "path": "/path",
            "raw_path": b"/path",
            "query_string": b"",
            "root_path": "",
            "scheme": "ws",
            "headers": list(headers),
            "client": client,
            "server": ("127.0.0.1", 8000),
            "hybridworker.target": b"/path",
        }
        opening = Upgrade(self.context, self.transport, self.scope, method)
        self.protocol = WebSocketProtocol(self.context, self.context.router.default, self.flow, self.scope, opening)
        self.context.connections.add(self.protocol)
        self.protocol.start(rest)
        self.run()

    def _closed(self) -> None:
        self.gone += 1

    def run(self) -> None:
        self.loop.run_until_complete(settle())

    def feed(self, *segments: bytes) -> None:
        async def receive(segment: bytes) -> None:
            self.protocol.data_received(segment)
            await settle()

        for segment in segments:
            self.loop.run_until_complete(receive(segment))

    def tick(self, seconds: float) -> None:
        self.protocol.tick(self.loop.time() + seconds)
        self.run()

    def catch_up(self) -> None:
        """Let the loop turn until everything that has come was looked at."""
        turns = 0
        while self.protocol.inbox.behind:
            self.run()
            turns += 1
            assert turns < 1000

    def wait_for_frames(self) -> None:
        """Let time pass until the peer gets something."""
        deadline = self.loop.time() + 10
        while not self.frames:
            assert self.loop.time() < deadline
            self.loop.run_until_complete(asyncio.sleep(0.001))
        self.run()

    def lose(self) -> None:
        self.transport.closing = True
        self.protocol.connection_lost(None)
        self.run()

    def state(self) -> WebSocketState:
        return self.protocol.state

    @property
    def head(self) -> bytes:
        """The response to the handshake."""
        return self.transport.sent.partition(b"\r\n\r\n")[0]

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """The frames that came, as opcode and payload."""
        return [(first & 15, payload) for first, payload in parse(self.transport.sent.partition(b"\r\n\r\n")[2])]

    @property
    def close_code(self) -> int:
        """The code of the one close frame that came."""
        [payload] = [payload for opcode, payload in self.frames if opcode == CLOSE]
        return int.from_bytes(payload[:2], "big")

    def end(self) -> None:
        if self.protocol in self.context.connections:
            self.lose()
        for task in list(self.context.tasks()):
            task.cancel()
        self.run()
        assert not self.context.cycles


@contextmanager
def peer(app: ASGIApp, **options: Any) -> Iterator[Peer]:
    """A :class:`Peer` on a loop of its own."""
    loop = uvloop.new_event_loop()
    made = Peer(loop, app, **options)
    try:
        yield made
        made.end()
    finally:
        loop.close()


class App:
    """
    An application that does what it is told, when it is told.

    It accepts at once if ``accept``, and then collects events if ``listen``.
    """

    def __init__(self, accept: bool = True, listen: bool = True) -> None:
        self.accept = accept
        self.listen = listen
        self.events: list[Message] = []
        self.scope: Scope = {}
        self.leave = asyncio.Event()
        self.error: BaseException | None = None
        self.receive: Any = None
        self.send: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        if self.accept:
            await send(ACCEPT)
        while self.listen:
            self.events.append(await receive())
            if self.events[-1]["type"] == "websocket.disconnect":
                self.listen = False
        await self.leave.wait()
        if self.error is not None:
            raise self.error

    def got(self) -> list[Any]:
        """The payloads of the messages so far."""
        messages = [event for event in self.events if event["type"] == "websocket.receive"]
        return [message.get("text", message.get("bytes")) for message in messages]


def tell(there: Peer, message: Message) -> Exception | None:
    """Have the application send ``message``; returns what it raised. It must not wait."""
    outcome: list[Exception | None] = []

    async def send() -> None:
        try:
            await there.context.router.default.app.send(message)  # type: ignore[attr-defined]  # an App
            outcome.append(None)
        except Exception as exc:
            outcome.append(exc)

    task = there.loop.create_task(send())
    there.run()
    assert task.done(), "send() waits"
    return outcome[0]


def ask(there: Peer) -> Message:
    """The next event, which must be there."""
    task = there.loop.create_task(there.context.router.default.app.receive())  # type: ignore[attr-defined]  # an App
    there.run()
    assert task.done(), "receive() waits"
    message: Message = task.result()
    return message


DISCONNECT_1006 = {"type": "websocket.disconnect", "code": 1006, "reason": ""}


# -- the handshake


def test_w4_connect_comes_first_and_the_handshake_waits() -> None:
    """Nothing is written before the application has answered."""
    app = App(accept=False)
    with peer(app) as there:
        assert app.events == [{"type": "websocket.connect"}]
        assert there.transport.writes == []
        assert there.state() is WebSocketState.CONNECTING
        assert tell(there, ACCEPT) is None
        assert there.head.startswith(b"HTTP/1.1 101 ")
        assert there.state() is WebSocketState.OPEN


def test_w5_accept_with_everything() -> None:
    """In one write: the server's fields, the proof, the subprotocol, the extension, the application's fields."""
    app = App(accept=False)
    with peer(app, headers=[*HEADERS, (b"sec-websocket-extensions", OFFER)]) as there:
        fields = [(b"x-a", b"1"), (b"set-cookie", b"a=b")]
        tell(there, {"type": "websocket.accept", "subprotocol": "chat", "headers": fields})
        assert there.transport.writes == [
            b"HTTP/1.1 101 Switching Protocols\r\nServer: s\r\nDate: d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n"
            b"x-a: 1\r\nset-cookie: a=b\r\n\r\n"
        ]
        assert there.protocol.headers == fields
        assert there.protocol.status == 101


def test_w6_a_refused_accept_leaves_the_handshake_open() -> None:
    """Nothing was written: the application may try again, and if it does not it is a 500."""
    app = App(accept=False)
    with peer(app) as there:
        wrong = {"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"x")]}
        assert isinstance(tell(there, wrong), InvalidMessage)
        assert there.transport.writes == []
        assert tell(there, ACCEPT) is None


def test_compression_can_be_switched_off() -> None:
    """``HYBRIDWORKER_WS_COMPRESSION=off``: it is not negotiated, and a malformed offer harms nobody."""
    for offer in (OFFER, b";;"):
        app = App()
        with peer(app, headers=[*HEADERS, (b"sec-websocket-extensions", offer)], ws_compression=False) as there:
            assert b"Sec-WebSocket-Extensions" not in there.head
            tell(there, {"type": "websocket.send", "text": "x" * DEFLATE_MIN})
            assert there.frames == [(TEXT, b"x" * DEFLATE_MIN)]


def test_w7_close_before_accept_is_403() -> None:
    """And the application is told that it is over; nothing more can be sent."""
    app = App(accept=False)
    with peer(app) as there:
        assert tell(there, {"type": "websocket.close", "code": 4000}) is None
        assert there.head.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert b"Connection: close" in there.head
        assert there.transport.eof
        assert there.state() is WebSocketState.CLOSED
        assert app.events[1:] == [DISCONNECT_1006]
        assert isinstance(tell(there, ACCEPT), ClientDisconnected)
        assert there.protocol.status == 403


def test_w8_an_exception_before_accept_is_500() -> None:
    """Logged once."""
    with peer(_raise(RuntimeError("boom"))) as there:
        assert there.head.startswith(b"HTTP/1.1 500 ")
        assert there.log.at("exception") == ["Error handling WebSocket /path"]
        assert there.transport.eof


def test_w9_a_return_before_accept_is_500() -> None:
    """Logged, with what was expected; nothing hangs."""
    with peer(_do()) as there:
        assert there.head.startswith(b"HTTP/1.1 500 ")
        [line] = there.log.at("error")
        assert "state CONNECTING, expected websocket.accept" in line
        assert there.state() is WebSocketState.CLOSED


def _raise(exc: BaseException, *messages: Message) -> ASGIApp:
    """Send messages, then raise."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        raise exc

    return app


def _do(*messages: Message) -> ASGIApp:
    """Send messages and return."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"method": b"POST"}, 405, b"Allow: GET"),
        ({"headers": [HEADERS[0], HEADERS[2]]}, 426, b"Sec-WebSocket-Version: 13"),
        ({"headers": HEADERS[:2]}, 400, b"Connection: close"),
        ({"headers": [*HEADERS, (b"sec-websocket-extensions", b";;")]}, 400, b"Connection: close"),
    ],
)
def test_w26_bad_handshakes_are_refused(change: dict[str, Any], status: int, field: bytes) -> None:
    """The application is not called; the log says why; the connection ends."""
    app = App()
    lines: list[Any] = []
    with peer(app, access=lines.append, **change) as there:
        assert there.head.startswith(b"HTTP/1.1 %d " % status)
        assert field in there.head
        assert app.scope == {}
        [line] = there.log.at("warning")
        assert line.startswith("Invalid request from ip=127.0.0.1: ")
        assert there.transport.eof
        assert (there.state(), there.context.quota.served) == (WebSocketState.CLOSED, 1)
        there.tick(LINGER - 0.5)
        assert not there.transport.aborted
        there.tick(LINGER)
        assert there.transport.aborted
        there.lose()
        assert [line.status for line in lines] == [status]


@pytest.mark.parametrize(("method", "content"), [(b"HEAD", False), (b"POST", True)])
def test_w26_a_refusal_of_head_has_no_content(method: bytes, content: bool) -> None:
    """RFC 9110 9.3.2."""
    with peer(App(), method=method) as there:
        assert there.head.startswith(b"HTTP/1.1 405 ")
        assert bool(there.transport.sent.partition(b"\r\n\r\n")[2]) == content


def test_w26_a_refusal_on_a_unix_socket() -> None:
    """There is no address to show."""
    with peer(App(), method=b"POST", client=None) as there:
        [line] = there.log.at("warning")
        assert line.startswith("Invalid request from ip=unix socket: ")


def test_under_tls_there_is_no_half_close() -> None:
    """The client has seen the answer and is to close; it is told so again a little later, and cut in the end."""
    with peer(App(), method=b"POST", tls=True) as there:
        assert (there.transport.eof, there.transport.closing) == (False, False)
        there.tick(LINGER - 0.5)
        assert not there.transport.closing
        there.tick(LINGER)
        assert (there.transport.closing, there.transport.aborted) == (True, False)
        there.tick(LINGER + 1)
        assert there.transport.aborted


def test_frames_before_accept_are_held_back() -> None:
    """Else a ping would be answered before the handshake is; with a bound, above which reading pauses."""
    app = App(accept=False)
    with peer(app, rest=frame(PING, b"1")) as there:
        there.feed(frame(TEXT, b"early"))
        assert there.transport.writes == []
        assert app.events == [{"type": "websocket.connect"}]
        there.feed(frame(BINARY, bytes(EARLY_MAX)))
        assert not there.transport.reading
        there.protocol.pause_writing()
        there.protocol.resume_writing()
        assert not there.transport.reading
        tell(there, ACCEPT)
        assert there.head.startswith(b"HTTP/1.1 101 ")
        assert there.frames == [(PONG, b"1")]
        assert app.got() == ["early", bytes(EARLY_MAX)]
        assert there.transport.reading


def test_frames_before_accept_are_held_back_however_early_they_come() -> None:
    """Also from an application that has not yet asked for its first event."""
    app = App(accept=False, listen=False)
    with peer(app) as there:
        there.feed(frame(BINARY, bytes(EARLY_MAX)))
        assert not there.transport.reading
        assert ask(there) == {"type": "websocket.connect"}
        assert not there.transport.reading


# -- messages


def test_w10_messages_arrive() -> None:
    """Text as str, binary as bytes, exactly one of the two keys."""
    app = App()
    with peer(app) as there:
        there.feed(frame(TEXT, "grüße".encode()), frame(BINARY, b"\x00"), frame(TEXT), frame(BINARY))
        assert app.events[1:] == [
            {"type": "websocket.receive", "text": "grüße"},
            {"type": "websocket.receive", "bytes": b"\x00"},
            {"type": "websocket.receive", "text": ""},
            {"type": "websocket.receive", "bytes": b""},
        ]


def test_w11_w12_fragments_and_pings() -> None:
    """Joined, and answered amid them."""
    app = App()
    with peer(app) as there:
        there.feed(frame(TEXT, b"a", 0), frame(PING, b"p"), frame(CONT, b"b"), frame(PONG))
        assert app.got() == ["ab"]
        assert there.frames == [(PONG, b"p")]


def test_w14_messages_are_sent() -> None:
    """Each in one write, unless it is so large that copying would cost more."""
    app = App()
    with peer(app) as there:
        large = bytes(JOIN_MAX + 1)
        before = len(there.transport.writes)
        values = (("text", "grüße"), ("bytes", b"x"), ("text", Markup()), ("bytes", bytearray(b"y")))
        for key, value in values:
            assert tell(there, {"type": "websocket.send", key: value}) is None
        assert tell(there, {"type": "websocket.send", "text": None, "bytes": large}) is None
        assert there.frames == [(TEXT, "grüße".encode()), (BINARY, b"x"), (TEXT, b""), (BINARY, b"y"), (BINARY, large)]
        assert len(there.transport.writes) == before + 5
        assert there.protocol.sent == len(there.transport.sent.partition(b"\r\n\r\n")[2])


def test_w14_neither_and_both_raise() -> None:
    """And harm nothing."""
    app = App()
    with peer(app) as there:
        for message in ({}, {"text": None}, {"text": "a", "bytes": b"b"}, {"text": b"a"}, {"bytes": "b"}):
            assert isinstance(tell(there, {"type": "websocket.send", **message}), InvalidMessage)
        assert there.frames == []
        assert tell(there, {"type": "websocket.send", "text": "ok"}) is None


def test_c15_several_tasks_may_receive_and_be_cancelled() -> None:
    """No message is lost, none comes twice, and nobody waits for ever."""
    app = App(listen=False)
    with peer(app) as there:
        assert ask(there) == {"type": "websocket.connect"}
        tasks = [there.loop.create_task(app.receive()) for _ in range(4)]
        there.run()
        tasks[1].cancel()
        there.run()
        assert len(there.protocol.inbox.waiters) == 3
        there.protocol.data_received(frame(TEXT, b"1"))
        tasks[0].cancel()  # woken, and cancelled before it ran
        there.run()
        there.feed(frame(TEXT, b"2"))
        done = [task.result()["text"] for task in tasks if task.done() and not task.cancelled()]
        assert sorted(done) == ["1", "2"]
        assert [task.cancelled() for task in tasks] == [True, True, False, False]
        assert there.protocol.inbox.waiters == []


def test_a_cancelled_receive_leaves_nothing_behind() -> None:
    """An application may poll with a timeout for hours; what comes in that very moment is for the next call."""
    app = App(listen=False)
    with peer(app) as there:
        ask(there)
        for _ in range(5):
            task = there.loop.create_task(app.receive())
            there.run()
            task.cancel()
            there.run()
        assert there.protocol.inbox.waiters == []
        task = there.loop.create_task(app.receive())
        there.run()
        task.cancel()
        there.protocol.data_received(frame(TEXT, b"x"))
        there.run()
        assert task.cancelled()
        assert ask(there)["text"] == "x"


# -- flow


def test_w24_reading_pauses_and_resumes() -> None:
    """While the application does not receive, at most ``HIGH_WATER`` bytes of messages are held."""
    app = App(listen=False)
    with peer(app) as there:
        payload = bytes(10_000)
        for _ in range(20):
            if not there.transport.reading:
                break
            there.feed(frame(BINARY, payload) * 2)
        assert not there.transport.reading
        assert len(there.protocol.reader.messages) <= HIGH_WATER // len(payload) + 2
        there.feed(frame(TEXT, b"last"))  # a transport may have one segment in hand
        received = [ask(there)]
        while received[-1].get("text") != "last":
            received.append(ask(there))
        assert [event["bytes"] for event in received[1:-1]] == [payload] * 8
        assert there.transport.reading


def test_a_flood_of_pings_pauses_reading_while_nobody_takes_the_pongs() -> None:
    """Else a peer that never reads would fill our memory with answers."""
    app = App()
    with peer(app) as there:
        there.protocol.pause_writing()
        there.feed(frame(PING, b"x"))
        assert not there.transport.reading
        there.protocol.resume_writing()
        assert there.transport.reading
        there.protocol.resume_writing()  # nothing to resume


def test_a_flood_of_frames_without_messages_gives_others_their_turn() -> None:
    """After a thousand of them the loop goes on, and then the rest is read."""
    app = App()
    with peer(app) as there:
        there.protocol.data_received(frame(PING) * 3_000 + frame(TEXT, b"at last"))
        assert not there.transport.reading
        assert len(there.frames) < 1_100
        there.run()
        assert len(there.frames) == 3_000
        assert app.got() == ["at last"]
        assert there.transport.reading


def test_a_flood_of_messages_gives_others_their_turn() -> None:
    """An application that waits for nothing but messages never suspends while there are any."""
    count = 43_000
    turns: list[int] = []
    got = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal got
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] == "websocket.receive":
            got += 1

    async def other() -> None:
        while got < count:
            turns.append(got)
            await asyncio.sleep(0)

    with peer(app) as there:
        there.protocol.data_received(frame(TEXT) * count)
        assert not there.transport.reading
        there.loop.run_until_complete(asyncio.wait_for(other(), 60))
        assert len(set(turns)) > 40
        assert max(after - before for before, after in itertools.pairwise([*turns, got])) <= HIGH_WATER // OVERHEAD + 1
        there.catch_up()
        assert there.transport.reading


def test_reading_goes_on_only_when_both_reasons_are_gone() -> None:
    """The queue is empty, and the peer takes our answers."""
    app = App(listen=False)
    with peer(app) as there:
        ask(there)
        there.feed(frame(BINARY, bytes(HIGH_WATER)) + frame(PING, b"x"))
        assert not there.transport.reading
        there.protocol.pause_writing()
        ask(there)
        assert there.frames == [(PONG, b"x")]
        assert not there.transport.reading
        there.protocol.resume_writing()
        assert there.transport.reading
        there.feed(frame(BINARY, bytes(HIGH_WATER)))
        there.protocol.pause_writing()
        there.protocol.resume_writing()
        assert not there.transport.reading


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send back what comes; "close" is taken as an order, and a digit as a size."""
    await receive()
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        if message["text"] == "close":
            await send({"type": "websocket.close"})
        elif message["text"].isdigit():
            await send({"type": "websocket.send", "bytes": bytes(int(message["text"]))})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


def test_each_answer_is_out_when_send_returns() -> None:
    """Also where the messages came together: the application may block after any of its answers."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            before = len(there.transport.sent)
            await send({"type": "websocket.send", "text": message["text"]})
            seen.append(len(there.transport.sent) - before)

    with peer(app) as there:
        there.feed(b"".join(frame(TEXT, b"%da" % number) for number in range(16)))
        assert there.frames == [(TEXT, b"%da" % number) for number in range(16)]
        assert seen == [2 + len(b"%da" % number) for number in range(16)]


def test_answers_keep_their_order() -> None:
    """Whatever is written beside them: a large message, pongs, a close frame of ours or of the peer's."""
    large = JOIN_MAX + 1
    with peer(echo) as there:
        there.feed(b"".join(frame(TEXT, data) for data in (b"a", b"b", b"%d" % large, b"c", b"d")), frame(PING, b"p"))
        assert there.frames == [(TEXT, b"a"), (TEXT, b"b"), (BINARY, bytes(large)), (TEXT, b"c"), (TEXT, b"d"),
                                (PONG, b"p")]  # fmt: skip
    with peer(echo) as there:
        there.feed(b"".join(frame(TEXT, data) for data in (b"a", b"b", b"close", b"c")))
        assert there.frames == [(TEXT, b"a"), (TEXT, b"b"), (CLOSE, b"\x03\xe8")]
        there.feed(frame(CLOSE, b"\x03\xe8"))
        assert there.transport.closing
    app = App(listen=False)
    with peer(app) as there:
        there.feed(frame(TEXT, b"unread") + frame(PING, b"1") + frame(PING, b"2"), frame(PING, b"3") + frame(CLOSE))
        assert there.frames == [(PONG, b"1"), (PONG, b"2"), (PONG, b"3"), (CLOSE, b"")]


def test_w25_send_waits_while_the_client_does_not_read() -> None:
    """And goes on when it does."""
    app = App()
    with peer(app) as there:
        there.protocol.pause_writing()
        task = there.loop.create_task(app.send({"type": "websocket.send", "text": "x"}))
        there.run()
        assert not task.done()
        there.protocol.resume_writing()
        there.run()
        assert task.result() is None


def test_w25_a_blocked_send_ends_with_the_connection() -> None:
    """With an OSError."""
    app = App()
    with peer(app) as there:
        there.protocol.pause_writing()
        task = there.loop.create_task(app.send({"type": "websocket.send", "text": "x"}))
        there.run()
        there.lose()
        assert isinstance(task.exception(), OSError)


def test_a_peer_that_takes_no_bytes_is_dropped() -> None:
    """After ``HYBRIDWORKER_WRITE_TIMEOUT``, whatever else it says."""
    app = App()
    with peer(app, write_timeout=60.0, ws_ping_interval=math.inf) as there:
        there.tick(0)
        there.transport.unsent = 1000
        there.tick(1)
        for second in range(2, 59, 2):
            there.feed(frame(TEXT, b"alive"))
            there.tick(second)
        assert not there.transport.aborted
        there.tick(62)
        assert there.transport.aborted


# -- the end, from the other side


def test_w16_w17_w19_the_clients_close() -> None:
    """Echoed; the application gets what came before, then code and reason; the server closes the connection."""
    app = App(listen=False)
    with peer(app) as there:
        there.feed(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(CLOSE, b"\x0b\xb8" + "grüße".encode()))
        assert there.frames == [(CLOSE, b"\x0b\xb8" + "grüße".encode())]
        assert there.transport.closing
        assert there.state() is WebSocketState.REMOTE_CLOSING
        events = [ask(there) for _ in range(4)]
        assert [event.get("text") for event in events[1:3]] == ["1", "2"]
        assert events[3] == {"type": "websocket.disconnect", "code": 3000, "reason": "grüße"}
        there.feed(frame(TEXT, b"late"))
        there.lose()
        assert there.state() is WebSocketState.CLOSED
        assert ask(there) == events[3]


def test_w16_a_close_without_code_is_1005() -> None:
    """It is answered with as little."""
    app = App()
    with peer(app) as there:
        there.feed(frame(CLOSE))
        assert there.frames == [(CLOSE, b"")]
        assert app.events[-1] == {"type": "websocket.disconnect", "code": 1005, "reason": ""}


@pytest.mark.parametrize("eof", [False, True])
@pytest.mark.parametrize("accept", [False, True])
def test_w16_a_lost_connection_is_1006(accept: bool, eof: bool) -> None:
    """Before accept, too; an end of input without a close frame is no better."""
    app = App(accept=accept)
    with peer(app) as there:
        if eof:
            there.protocol.eof_received()
            there.run()
            assert app.events[-1] == DISCONNECT_1006
            there.transport.unsent = 1
            there.tick(0)
            there.tick(CLOSE_TIMEOUT)
            assert there.transport.aborted
        there.lose()
        assert app.events[-1] == DISCONNECT_1006
        assert isinstance(tell(there, ACCEPT), ClientDisconnected)


def test_w18_one_disconnect_and_then_the_same_again() -> None:
    """Each a message of its own, since an application may change what it gets."""
    app = App()
    with peer(app) as there:
        there.feed(frame(CLOSE, b"\x03\xe8"))
        assert app.events[-1]["code"] == 1000
        for _ in range(3):
            message = ask(there)
            assert message == {"type": "websocket.disconnect", "code": 1000, "reason": ""}
            message.clear()


def test_w19_messages_behind_a_pause_are_delivered_after_the_loss() -> None:
    """They had come, and were held back by us."""
    app = App(listen=False)
    with peer(app) as there:
        there.feed(frame(BINARY) * 3_000 + frame(PING, b"unanswered") + frame(TEXT, b"\xff"))
        there.lose()
        ask(there)
        for _ in range(3_000):
            assert ask(there) == {"type": "websocket.receive", "bytes": b""}
        assert ask(there) == DISCONNECT_1006
        assert there.frames == []


@pytest.mark.parametrize("lost", ["at once", "later"])
def test_w19_messages_behind_other_frames_are_delivered_after_the_loss(lost: str) -> None:
    """Whether the application asks before or after: a wave of pings stands between the messages."""
    app = App(listen=False)
    with peer(app) as there:
        ask(there)
        waiting = there.loop.create_task(app.receive())
        there.run()
        there.protocol.data_received(frame(PING) * 3_000 + frame(TEXT, b"1") + frame(PING) * 3_000 + frame(TEXT, b"2"))
        if lost == "later":
            there.run()
        there.lose()
        there.run()
        assert waiting.result()["text"] == "1"
        last = there.loop.create_task(app.receive())
        there.catch_up()
        there.run()
        assert last.result()["text"] == "2"
        assert ask(there) == DISCONNECT_1006
        assert ask(there) == DISCONNECT_1006


def test_w18_a_loss_behind_nothing_but_other_frames_is_reported() -> None:
    """To an application that waits, as soon as there is no message left that could come before."""
    app = App()
    with peer(app) as there:
        there.protocol.data_received(frame(PING) * 3_000)
        there.lose()
        there.catch_up()
        assert app.events[1:] == [DISCONNECT_1006]


def test_w20_send_after_the_end_raises() -> None:
    """A subclass of OSError, whoever ended it."""
    for ending in (frame(CLOSE, b"\x03\xe8"), frame(3), b""):
        app = App()
        with peer(app) as there:
            if ending:
                there.feed(ending)
            else:
                tell(there, {"type": "websocket.close"})
            for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}):
                assert isinstance(tell(there, message), OSError)


def test_w20_it_is_not_logged() -> None:
    """Nor when a framework wraps it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as exc:
            raise RuntimeError("wrapped") from exc

    with peer(app) as there:
        there.feed(frame(CLOSE, b"\x03\xe8"))
        assert there.log.lines == [("debug", "WebSocket client disconnected: /path")]


@pytest.mark.parametrize(
    ("data", "code"), [(frame(3), 1002), (frame(TEXT, b"\xff"), 1007), (frame(BINARY, bytes(1001)), 1009)]
)
def test_w23_violations_close_the_connection(data: bytes, code: int) -> None:
    """Both sides get the code; our side is closed first, lest a reset overtake it; what follows is dropped."""
    app = App()
    with peer(app, websocket_max_message_size=1000) as there:
        there.feed(frame(TEXT, b"before") + data + frame(TEXT, b"after"))
        assert there.close_code == code
        assert app.got() == ["before"]
        assert (app.events[-1]["type"], app.events[-1]["code"]) == ("websocket.disconnect", code)
        assert app.events[-1]["reason"]
        assert (there.transport.eof, there.transport.closing) == (True, False)
        assert there.transport.reading
        there.feed(frame(TEXT, b"x") * 20_000, frame(CLOSE, b"\x03\xe8"))
        assert there.transport.reading
        assert there.log.lines == []
        there.tick(LINGER)
        assert there.transport.aborted


def test_w23_a_violation_amid_our_own_closing() -> None:
    """There is nothing more to be said."""
    app = App()
    with peer(app) as there:
        tell(there, {"type": "websocket.close", "code": 3000})
        there.feed(frame(3))
        assert there.close_code == 3000
        assert there.transport.eof
        assert app.events[-1]["code"] == 3000


# -- the end, from this side


def test_w15_close_with_code_and_reason() -> None:
    """1000 without; None as a reason counts as none."""
    for message, payload in (
        ({}, b"\x03\xe8"),
        ({"code": 3500, "reason": "grüße"}, b"\x0d\xac" + "grüße".encode()),
        ({"reason": None}, b"\x03\xe8"),
    ):
        app = App()
        with peer(app) as there:
            assert tell(there, {"type": "websocket.close", **message}) is None
            assert there.frames == [(CLOSE, payload)]
            assert there.state() is WebSocketState.LOCAL_CLOSING
            code = message.get("code", 1000)
            assert app.events[-1] == {
                "type": "websocket.disconnect",
                "code": code,
                "reason": message.get("reason") or "",
            }


@pytest.mark.parametrize(
    "message", [{"code": 1005}, {"code": 99}, {"code": "1000"}, {"code": None}, {"code": True}, {"reason": b"x"}]
)
def test_w15_a_close_that_cannot_be_sent_raises(message: Message) -> None:
    """And the connection stays open."""
    app = App()
    with peer(app) as there:
        assert isinstance(tell(there, {"type": "websocket.close", **message}), InvalidMessage)
        assert there.state() is WebSocketState.OPEN
        assert there.frames == []


def test_the_closing_handshake_ends_with_the_clients_frame() -> None:
    """Messages that come before it are dropped, however many; then the server closes the connection."""
    app = App(listen=False)
    with peer(app) as there:
        there.feed(frame(BINARY, bytes(HIGH_WATER)) + frame(TEXT, b"held back"))
        assert not there.transport.reading
        tell(there, {"type": "websocket.close"})
        assert there.transport.reading
        there.feed(frame(TEXT, b"late") * 20_000)
        there.catch_up()
        assert there.transport.reading
        assert not there.transport.closing
        there.feed(frame(CLOSE, b"\x03\xe8"))
        assert there.transport.closing
        assert [ask(there)["type"] for _ in range(3)] == [
            "websocket.connect",
            "websocket.receive",
            "websocket.disconnect",
        ]
        assert there.frames == [(CLOSE, b"\x03\xe8")]


def test_a_client_that_floods_a_closing_connection_holds_up_nobody() -> None:
    """What comes is looked at in portions, and not answered; the application is told of the end meanwhile."""
    app = App(listen=False)
    with peer(app) as there:
        ask(there)
        there.feed(frame(TEXT, b"unread"))
        tell(there, {"type": "websocket.close", "code": 3000})
        there.protocol.data_received((frame(PING) + frame(PONG) + frame(BINARY, b"x") + frame(TEXT, b"\xff")) * 10_000)
        assert not there.transport.reading
        assert there.protocol.inbox.behind
        assert ask(there)["text"] == "unread"
        assert ask(there) == {"type": "websocket.disconnect", "code": 3000, "reason": ""}
        assert there.protocol.inbox.behind
        there.catch_up()
        assert there.transport.reading
        assert there.frames == [(CLOSE, b"\x0b\xb8")]
        there.feed(frame(CLOSE, b"\x0b\xb8"))
        assert there.transport.closing


def test_the_closing_handshake_is_bounded() -> None:
    """A client that does not answer is cut; the time begins when it has taken everything."""
    app = App()
    with peer(app) as there:
        there.tick(0)
        there.transport.unsent = 1000
        tell(there, {"type": "websocket.close"})
        for second in range(1, 20):  # slowly, but it does take bytes
            there.transport.unsent -= 10
            there.tick(second)
        assert not there.transport.aborted
        there.transport.unsent = 0
        there.tick(19 + CLOSE_TIMEOUT - 1)
        assert not there.transport.aborted
        there.tick(19 + CLOSE_TIMEOUT + 1)
        assert there.transport.aborted


def test_a_client_that_takes_nothing_of_the_last_bytes_is_cut() -> None:
    """It does not get the patience of an open connection."""
    app = App()
    with peer(app, write_timeout=1000.0) as there:
        there.tick(0)
        there.transport.unsent = 1000
        tell(there, {"type": "websocket.close"})
        there.tick(CLOSE_TIMEOUT - 1)
        assert not there.transport.aborted
        there.tick(CLOSE_TIMEOUT + 1)
        assert there.transport.aborted


def test_w21_an_exception_after_accept_is_1011() -> None:
    """Logged once."""
    with peer(_raise(RuntimeError("boom"), ACCEPT)) as there:
        assert there.close_code == 1011
        assert there.log.lines == [("exception", "Error handling WebSocket /path")]


class Unusual(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    "exc",
    [
        Unusual(),
        BaseExceptionGroup("", [Unusual(), ValueError()]),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("", [asyncio.CancelledError()]),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_w21_so_is_an_exception_of_any_kind(exc: BaseException) -> None:
    """Logged once, and by nobody else; before accept it is a 500."""
    with peer(_raise(exc, ACCEPT)) as there:
        assert there.close_code == 1011
        assert there.log.lines == [("exception", "Error handling WebSocket /path")]
        assert there.protocol.task is not None
        assert there.protocol.task.exception() is None
    with peer(_raise(exc)) as there:
        assert there.head.startswith(b"HTTP/1.1 500 ")
        assert len(there.log.lines) == 1


def test_the_exit_of_the_process_passes_through() -> None:
    """It is no fault of the application that it was interrupted."""
    app = App(listen=False)
    with peer(app) as there:
        app.error = BaseExceptionGroup("", [WorkerExit(0)])
        app.leave.set()
        there.run()
        assert there.protocol.task is not None
        assert there.protocol.task.exception() is app.error
        assert there.log.lines == []


def test_a_coroutine_that_is_thrown_away_is_not_logged() -> None:
    """The interpreter closes those whose loop has ended before them."""
    app = App(accept=False)
    with peer(app) as there:
        thrown = there.protocol.run()
        thrown.send(None)
        thrown.close()
        assert there.log.lines == []
        there.context.cycles[there.protocol] = None  # there still is the other


def test_w22_a_return_after_accept_is_1000() -> None:
    """And no fault."""
    with peer(_do(ACCEPT, {"type": "websocket.send", "text": "x"})) as there:
        assert there.close_code == 1000
        assert there.log.lines == []


def test_an_exception_after_the_end_is_logged() -> None:
    """The application may still fail; there is nobody to be told."""
    app = App()
    with peer(app) as there:
        there.feed(frame(CLOSE, b"\x03\xe8"))
        app.error = RuntimeError("boom")
        app.leave.set()
        there.run()
        assert there.log.at("exception") == ["Error handling WebSocket /path"]
        assert there.frames == [(CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize(("draining", "code"), [(False, 1011), (True, 1012)])
def test_a_cancelled_application_is_no_error(draining: bool, code: int) -> None:
    """The worker cancels what is not finished when its time is up."""
    app = App()
    with peer(app) as there:
        there.context.persistence.draining = draining
        there.protocol.cancel()
        there.run()
        assert there.close_code == code
        assert there.log.lines == [("debug", "WebSocket cancelled: /path")]


@pytest.mark.parametrize("draining", [False, True])
def test_an_application_that_cancels_its_own_task_is_one(draining: bool) -> None:
    """The task counts a cancellation, but it is not this worker's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await leave.wait()

    leave = asyncio.Event()
    with peer(app) as there:
        there.context.persistence.draining = draining
        there.run()
        assert there.close_code == 1011
        assert there.log.lines == [("exception", "Error handling WebSocket /path")]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, ("debug", "WebSocket cancelled: /path")),
        (BaseExceptionGroup("", [asyncio.CancelledError()]), ("debug", "WebSocket cancelled: /path")),
        (RuntimeError("boom"), ("exception", "Error handling WebSocket /path")),
    ],
)
def test_what_becomes_of_a_cancellation(error: BaseException | None, line: tuple[str, str]) -> None:
    """What only passes it on, or swallows it, is no error; what fails while it cleans up is one."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if error is not None:
                raise error from None

    with peer(app) as there:
        there.protocol.cancel()
        there.run()
        assert there.head.startswith(b"HTTP/1.1 500 ")
        assert there.log.lines == [line]


# -- signs of life


def test_w13_a_dead_peer_is_closed() -> None:
    """Pinged, given up with 1011, and cut when it does not react; the application sees a loss."""
    app = App()
    with peer(app, ws_ping_interval=20.0) as there:
        for second in range(40):
            there.tick(second)
        assert there.frames == [(PING, b"")]
        there.tick(40)
        there.tick(41)
        assert [opcode for opcode, _ in there.frames] == [PING, CLOSE]
        assert there.close_code == 1011
        assert app.events[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": "no answer to a ping"}
        there.tick(41 + CLOSE_TIMEOUT)
        assert there.transport.aborted


def test_w13_a_peer_that_answers_lives() -> None:
    """A pong is a sign of life, as any other frame."""
    app = App()
    with peer(app, ws_ping_interval=20.0) as there:
        for second in range(200):
            there.tick(second)
            if second % 15 == 0:
                there.feed(frame(PONG))
        assert {opcode for opcode, _ in there.frames} == {PING}
        assert there.state() is WebSocketState.OPEN


def test_nobody_is_pinged_before_the_handshake_is_answered() -> None:
    """However long the application takes."""
    app = App(accept=False)
    with peer(app, ws_ping_interval=20.0) as there:
        for second in range(100):
            there.tick(second)
        assert there.transport.writes == []
        assert not there.transport.closing


# -- the worker leaves


def test_w27_drain_closes_with_1012() -> None:
    """The application sees the same; a second call changes nothing."""
    app = App()
    with peer(app) as there:
        there.context.persistence.end()
        there.protocol.drain(there.loop.time() + 2)
        there.protocol.drain(there.loop.time() + 2)
        assert there.frames == []
        there.wait_for_frames()
        assert there.close_code == 1012
        assert app.events[-1] == {"type": "websocket.disconnect", "code": 1012, "reason": ""}
        there.feed(frame(CLOSE, b"\x03\xf4"))
        assert there.transport.closing


def test_w27_the_connections_are_spread() -> None:
    """By their keys, within ``SPREAD`` and the deadline."""
    delays = []
    for index in range(40):
        headers = [*HEADERS[:2], (b"sec-websocket-key", b"%022d==" % index)]
        with peer(App(), headers=headers) as there:
            now = there.loop.time()
            there.protocol.drain(now + 2)
            assert there.protocol.leaving is not None
            delays.append(there.protocol.leaving.when() - now)
    assert min(delays) >= 0
    assert max(delays) <= SPREAD + 0.01
    assert len({int(delay * 10) for delay in delays}) >= 4
    with peer(App()) as there:
        there.protocol.drain(there.loop.time() - 1)
        there.run()
        there.wait_for_frames()


def test_w27_a_handshake_that_ends_after_the_worker_began_to_leave() -> None:
    """It is closed as soon as it is accepted."""
    app = App(accept=False)
    with peer(app) as there:
        there.context.persistence.end()
        there.protocol.drain(there.loop.time() + 2)
        assert there.protocol.leaving is None
        tell(there, ACCEPT)
        there.wait_for_frames()
        assert there.close_code == 1012


def test_a_connection_that_ends_before_its_moment_has_come() -> None:
    """The timer is cancelled with the connection, and harmless while it is closing."""
    app = App()
    with peer(app) as there:
        there.protocol.drain(there.loop.time() + 2)
        tell(there, {"type": "websocket.close"})
        there.protocol._leave()
        assert there.close_code == 1000
        timer = there.protocol.leaving
        assert timer is not None
        there.lose()
        assert timer.cancelled()


def test_abort_drops_the_connection() -> None:
    """At once."""
    with peer(App()) as there:
        there.protocol.abort()
        assert there.transport.aborted


# -- denials


def denial(status: int = 403, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "websocket.http.response.start", "status": status, "headers": list(headers)}


def part(data: Any, more: bool = False) -> Message:
    return {"type": "websocket.http.response.body", "body": data, "more_body": more}


def test_x1_a_denial_response() -> None:
    """Exactly that; the connection is closed; WebSocket events raise."""
    app = App(accept=False)
    lines: list[Any] = []
    with peer(app, access=lines.append) as there:
        assert tell(there, denial(401, (b"x-a", b"1"))) is None
        assert there.transport.writes == []
        for message in (ACCEPT, {"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}, denial()):
            assert isinstance(tell(there, message), UnexpectedMessage)
        assert tell(there, part(b"nope")) is None
        assert there.transport.writes == [
            b"HTTP/1.1 401 Unauthorized\r\nServer: s\r\nDate: d\r\nConnection: close\r\nx-a: 1\r\nContent-Length: 4\r\n"
            b"\r\nnope"
        ]
        assert there.transport.eof
        assert app.events[-1] == DISCONNECT_1006
        for message in (ACCEPT, {"type": "websocket.send", "text": "x"}, part(b"more")):
            assert isinstance(tell(there, message), ClientDisconnected)
        there.lose()
        [line] = lines
        assert (line.status, line.headers, line.sent, line.reason) == (401, [(b"x-a", b"1")], 4, None)


def test_x2_a_denial_in_parts() -> None:
    """The head goes with the first; each part waits for the client."""
    app = App(accept=False)
    with peer(app) as there:
        tell(there, denial())
        assert tell(there, part(bytearray(b"one"), more=True)) is None
        assert there.transport.sent.endswith(b"\r\n\r\none")
        there.protocol.pause_writing()
        task = there.loop.create_task(app.send(part(b"two", more=True)))
        there.run()
        assert not task.done()
        there.protocol.resume_writing()
        there.run()
        assert task.done()
        there.protocol.pause_writing()
        assert tell(there, part(b"")) is None  # the last one need not wait
        assert there.transport.sent.endswith(b"\r\n\r\nonetwo")
        assert there.transport.eof


def test_x2_a_denial_that_is_not_completed_is_cut() -> None:
    """So that the client sees it; logged."""
    with peer(_do(denial(403, (b"content-length", b"6")), part(b"one", more=True))) as there:
        assert there.transport.aborted
        [line] = there.log.at("error")
        assert "state REJECTING, expected websocket.http.response.body" in line
    with peer(_raise(RuntimeError("boom"), denial(), part(b"one", more=True))) as there:
        assert there.transport.aborted
        assert len(there.log.lines) == 1


@pytest.mark.parametrize(
    ("app", "level"),
    [
        (_do(denial(401, (b"x-a", b"1"))), "error"),
        (_raise(RuntimeError("boom"), denial(401, (b"x-a", b"1"))), "exception"),
    ],
    ids=["return", "exception"],
)
def test_x2_a_denial_that_has_not_begun_is_500(app: ASGIApp, level: str) -> None:
    """As for HTTP, where the head is held back, too; the access log says what was sent."""
    lines: list[Any] = []
    with peer(app, access=lines.append) as there:
        assert there.head.startswith(b"HTTP/1.1 500 ")
        assert b"x-a" not in there.head
        assert there.transport.eof
        assert not there.transport.aborted
        assert len(there.log.at(level)) == len(there.log.lines) == 1
        there.lose()
        assert [(line.status, line.headers) for line in lines] == [(500, [])]


def test_a_client_that_leaves_before_a_denial_has_begun_is_499_in_the_access_log() -> None:
    """Nothing of it was sent."""
    lines: list[Any] = []
    app = App(accept=False)
    with peer(app, access=lines.append) as there:
        tell(there, denial(401, (b"x-a", b"1")))
        there.lose()
        assert [(line.status, line.headers) for line in lines] == [(499, [])]


def test_x2_a_client_that_does_not_take_a_denial_is_dropped() -> None:
    """As one that takes no messages."""
    app = App(accept=False)
    with peer(app, write_timeout=60.0) as there:
        tell(there, denial())
        tell(there, part(b"x", more=True))
        there.tick(0)
        there.transport.unsent = 100
        there.tick(1)
        there.tick(59)
        assert not there.transport.aborted
        there.tick(61)
        assert there.transport.aborted


def test_a_denial_without_content_sends_none() -> None:
    """RFC 9110 6.4.1."""
    app = App(accept=False)
    with peer(app) as there:
        tell(there, denial(304))
        tell(there, part(b"ignored"))
        assert there.transport.sent.endswith(b"\r\n\r\n")
        assert there.protocol.sent == 0


def test_x3_a_denial_after_accept_raises() -> None:
    """And harms nothing."""
    app = App()
    with peer(app) as there:
        assert isinstance(tell(there, denial()), UnexpectedMessage)
        assert isinstance(tell(there, part(b"x")), UnexpectedMessage)
        assert there.frames == []


# -- states


def reach(state: WebSocketState, there: Peer) -> None:
    """Come into ``state`` by legal means."""
    if state is WebSocketState.CONNECTING:
        return
    if state is WebSocketState.REJECTING:
        tell(there, denial())
        return
    tell(there, ACCEPT)
    if state is WebSocketState.LOCAL_CLOSING:
        tell(there, {"type": "websocket.close"})
    elif state is WebSocketState.REMOTE_CLOSING:
        there.feed(frame(CLOSE, b"\x03\xe8"))
    elif state is WebSocketState.CLOSED:
        there.lose()


KINDS = sorted({kind for _, kind in WEBSOCKET} | {"unknown", "http.response.start", "websocket.receive"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", WebSocketState, ids=lambda state: state.name)
def test_ladder_and_table_agree(state: WebSocketState, kind: str) -> None:
    """``WebSocketProtocol.send`` against ``WEBSOCKET``, for every pair; C6, C9."""
    after = set()
    for more in (False, True):
        app = App(accept=False)
        with peer(app) as there:
            reach(state, there)
            assert there.state() is state
            written = list(there.transport.writes)
            message = {"type": kind, "status": 403, "text": "x", "more_body": more, "unknown": 1}
            error = tell(there, message)
            after.add(there.state())
            if (state, kind) in WEBSOCKET:
                assert error is None
                continue
            assert there.transport.writes == written
            if state in (WebSocketState.REMOTE_CLOSING, WebSocketState.LOCAL_CLOSING, WebSocketState.CLOSED):
                assert isinstance(error, ClientDisconnected)  # whatever it is: nobody is there to take it
            else:
                assert isinstance(error, UnexpectedMessage)
                assert repr(kind) in str(error)
                assert expected(WEBSOCKET, state) in str(error)
    assert after == WEBSOCKET.get((state, kind), {state})


# -- the worker around it


def test_it_counts_as_one_request() -> None:
    """For max_requests, when it begins."""
    recycled: list[bool] = []
    with peer(App(), max_requests=1, recycle=lambda: recycled.append(True)) as there:
        assert recycled == [True]
        assert there.context.quota.served == 1
        assert list(there.context.cycles) == [there.protocol]
        assert list(there.context.tasks()) == [there.protocol.task]


def test_the_access_log_gets_one_exchange_at_the_end() -> None:
    """With 101 and what was sent; the connection is forgotten and the server told."""
    lines: list[Any] = []
    app = App()
    with peer(app, access=lines.append) as there:
        tell(there, {"type": "websocket.send", "text": "x"})
        there.feed(frame(CLOSE, b"\x03\xe8"))
        assert (lines, there.gone) == ([], 0)
        there.lose()
        assert lines == [there.protocol]
        assert there.gone == 1
        assert there.protocol not in there.context.connections
        assert (there.protocol.status, there.protocol.sent, there.protocol.scope) == (101, 3 + 4, there.scope)


def test_a_client_that_leaves_before_the_answer_is_499_in_the_access_log() -> None:
    """As nginx has it."""
    lines: list[Any] = []
    with peer(App(accept=False), access=lines.append) as there:
        there.lose()
        assert [line.status for line in lines] == [499]


def test_an_application_that_does_not_notice_is_cancelled() -> None:
    """``asgi_disconnect_grace_period`` after the client has gone; once, so that it can clean up."""
    cancelled: list[str] = []
    clean = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("once")
            try:
                await clean.wait()
            except asyncio.CancelledError:
                cancelled.append("twice")
            raise

    with peer(app, asgi_disconnect_grace_period=0.0) as there:
        task = there.protocol.task
        assert task is not None
        there.lose()
        while not cancelled:
            there.run()
        there.protocol._give_up()
        there.run()
        assert not task.done()
        clean.set()
        there.run()
        assert task.done()
        assert cancelled == ["once"]
        assert there.log.lines == [("debug", "WebSocket cancelled: /path")]


def test_one_that_has_cancelled_itself_before_is_cancelled_all_the_same() -> None:
    """The task counts its own."""
    cancelled: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(ACCEPT)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        for count in ("by itself", "by the worker"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(count)

    with peer(app, asgi_disconnect_grace_period=0.0) as there:
        task = there.protocol.task
        assert task is not None
        there.lose()
        there.loop.run_until_complete(asyncio.wait([task], timeout=10))
        assert cancelled == ["by itself", "by the worker"]
        assert there.log.lines == []


def test_one_that_is_cancelled_while_it_cleans_up_is_shown() -> None:
    """It has noticed, and was not quick enough: something may be left undone."""
    app = App()
    with peer(app, asgi_disconnect_grace_period=0.0) as there:
        task = there.protocol.task
        assert task is not None
        there.lose()
        there.loop.run_until_complete(asyncio.wait([task], timeout=10))
        assert app.events[-1] == DISCONNECT_1006
        assert there.log.lines == [
            ("warning", "WebSocket cancelled while it cleans up behind its client: /path"),
            ("debug", "WebSocket cancelled: /path"),
        ]


def test_one_that_has_cleaned_up_in_time_is_not() -> None:
    """The timer finds it gone."""
    app = App()
    app.leave.set()
    with peer(app) as there:
        task = there.protocol.task
        assert task is not None
        there.lose()
        assert app.events[-1] == DISCONNECT_1006
        there.protocol._give_up()
        there.run()
        assert there.log.lines == []


@pytest.mark.parametrize(
    ("messages", "dismissed"),
    [
        ([ACCEPT, {"type": "websocket.close"}], True),
        ([{"type": "websocket.close"}], True),
        ([denial(), part(b"no")], True),
        ([denial(), part(b"no", more=True)], False),
        ([denial()], False),
        ([ACCEPT, {"type": "websocket.send", "text": "x"}], False),
        ([], False),
    ],
)
def test_an_application_that_has_ended_the_connection_may_go_on_without_it(
    messages: list[Message], dismissed: bool
) -> None:
    """It has not lost its client: it has sent it away. The same as for HTTP, behind a complete response."""
    app = App(accept=False, listen=False)
    with peer(app, asgi_disconnect_grace_period=0.0) as there:
        task = there.protocol.task
        assert task is not None
        for message in messages:
            assert tell(there, message) is None
        there.lose()
        # A timer that ends after the other: only then is it known that this was not set.
        there.loop.run_until_complete(asyncio.sleep(0.002))
        there.run()
        assert task.done() != dismissed
        app.leave.set()
        there.run()
        assert task.done()
        assert bool(there.log.at("debug")) != dismissed


@pytest.mark.parametrize("ending", ["close frame", "violation", "ping", "drain"])
def test_one_whose_connection_was_ended_by_others_may_not(ending: str) -> None:
    """Even if it then says that it wants the end as well."""
    app = App(listen=False)
    with peer(app, asgi_disconnect_grace_period=0.0) as there:
        ask(there)
        task = there.protocol.task
        assert task is not None
        if ending == "close frame":
            there.feed(frame(CLOSE, b"\x03\xe8"))
        elif ending == "violation":
            there.feed(frame(3))
        elif ending == "ping":
            there.protocol._close(1011, "no answer to a ping", told=1006)
        else:
            there.protocol._leave()
        assert isinstance(tell(there, {"type": "websocket.close"}), ClientDisconnected)
        there.lose()
        there.loop.run_until_complete(asyncio.wait([task], timeout=10))
        assert task.done()


class Hooks:
    """Records what gunicorn's hooks would get."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[Any] = []
        self.fails = fails

    def before(self, scope: Scope) -> Any:
        self.calls.append(("before", scope["path"]))
        if self.fails:
            raise RuntimeError("hook")
        return "view"

    def after(self, view: Any, environ: dict[str, Any] | None, answer: Any) -> None:
        self.calls.append(("after", view, ResponseView(answer).status))


def test_the_request_hooks_run_around_the_application() -> None:
    """As for any request; one that raises is an exception of the application."""
    hooks = Hooks()
    with peer(_do(ACCEPT), hooks=hooks):
        assert hooks.calls == [("before", "/path"), ("after", "view", "101 Switching Protocols")]
    hooks = Hooks(fails=True)
    with peer(_do(ACCEPT), hooks=hooks) as there:
        assert there.head.startswith(b"HTTP/1.1 500 ")
        assert [call[0] for call in hooks.calls] == ["before"]  # there is no view to give to the other


def test_the_application_runs_in_a_copy_of_the_base_context() -> None:
    """Variables of one connection are not seen by the next."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set("changed")

    for _ in range(2):
        with peer(app):
            pass
    assert seen == ["unset", "unset"]


def test_what_is_logged_of_a_connection_sees_the_variables_of_its_task() -> None:
    """In a copy of its context: the line of the access log comes from outside, and leaves nothing in there."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("mine")
        await send(ACCEPT)
        await receive()
        await receive()
        seen.append(variable.get())

    def access(exchange: Any) -> None:
        seen.append(variable.get())
        variable.set("of the log")

    with peer(app, access=access) as there:
        there.lose()
    assert seen == ["mine", "mine"]


def test_without_the_extra_the_module_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """``available()`` says that it is missing."""
    assert websocket.available()
    monkeypatch.setitem(sys.modules, "hybridworker.websocket.frames", None)
    monkeypatch.delattr(hybridworker.websocket, "frames")
    spec = importlib.util.spec_from_file_location("hybridworker.websocket.without", websocket.__file__)
    assert spec is not None
    assert spec.loader is not None
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    assert not without.available()


def test_frames_cannot_be_imported_without_the_package() -> None:
    """In a process of its own, as it would be."""
    program = (
        "import sys; sys.modules['websockets'] = None\n"
        "from hybridworker.websocket import protocol as websocket\n"
        "assert not websocket.available()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60)
