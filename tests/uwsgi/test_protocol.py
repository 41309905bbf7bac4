"""UWSGIProtocol: packets and bodies however they are cut, their order, and the life of a connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hybridworker.asgi import ASGIApp, Receive, Scope, Send
from hybridworker.config.settings import networks
from hybridworker.http11.connection import ACTIVE, CLOSED, CLOSING, IDLE, NEW, UPGRADED
from hybridworker.uwsgi.protocol import UWSGIProtocol
from tests.harness import HELLO, Recorder, Wire, body, echo, responder, start, wire
from tests.uwsgi.packets import framed, get, packet, post, websocket

KEPT = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\ncontent-length: 5\r\n\r\nhello"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello"


@contextmanager
def uwsgi(app: ASGIApp, **options: Any) -> Iterator[Wire]:
    """A connection that speaks uwsgi."""
    with wire(app, speaks=UWSGIProtocol, protocol="uwsgi", **options) as w:
        yield w


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


# -- one request


def test_a_request_is_answered_in_one_write() -> None:
    """As HTTP/1.1, and the connection is kept."""
    with uwsgi(HELLO) as w:
        assert w.protocol.state is NEW
        assert w.feed(get("/")) == KEPT
        assert len(w.transport.writes) == 1
        assert w.protocol.state is IDLE
        assert w.context.quota.served == 1


def test_a_packet_may_come_byte_by_byte() -> None:
    """The same answer, and the same body."""
    data = post(b"0123456789")
    with uwsgi(echo) as w:
        assert w.feed(*(data[at : at + 1] for at in range(len(data)))).endswith(b"\r\n\r\n0123456789")
    for at in [1, 3, 4, 5, *range(6, len(data), 23)]:
        with uwsgi(echo) as w:
            assert w.feed(data[:at], data[at:]).endswith(b"\r\n\r\n0123456789")


def test_a_body_ends_with_its_length() -> None:
    """What follows is the next packet."""
    app = Recorder()
    with uwsgi(app) as w:
        w.feed(post(b"body", "/a") + get("/b"))
        assert [scope["path"] for scope in app.scopes] == ["/a", "/b"]
        assert app.events[0][0]["body"] == b"body"
        assert app.events[1] == [{"type": "http.request", "body": b"", "more_body": False}]


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    """A proxy would take chunks for bytes of it."""
    with uwsgi(responder(start(200), body(b"a", True), body(b"b", True), body(b"c"))) as w:
        assert w.feed(get("/")) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"
        assert w.transport.eof


@pytest.mark.parametrize("code", [204, 304])
def test_a_response_without_a_body_keeps_the_connection(code: int) -> None:
    """Its end is known."""
    with uwsgi(responder(start(code), body())) as w:
        assert b"Connection: keep-alive\r\n" in w.feed(get("/"))
        assert w.protocol.state is IDLE


def test_head_has_no_body() -> None:
    """Neither from the application nor on a page of an error."""
    with uwsgi(HELLO) as w:
        assert w.feed(get("/", REQUEST_METHOD="HEAD")).endswith(b"content-length: 5\r\n\r\n")
    with uwsgi(HELLO) as w:
        sent = w.feed(get("/", REQUEST_METHOD="HEAD", HTTP_A="\0"))
        assert status(sent) == 400
        assert sent.endswith(b"\r\n\r\n")


def test_no_interim_response_is_sent() -> None:
    """A proxy takes it for the response: neither a 103 nor a 100, which the proxy has sent itself."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(hint)
        await HELLO(scope, receive, send)

    with uwsgi(app) as w:
        assert w.feed(post(b"x", HTTP_EXPECT="100-continue")) == KEPT


def test_a_cut_body_is_a_reset() -> None:
    """Its end is that of the connection, so nothing else tells the proxy that something is missing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"part", True))
        raise ValueError("amid the body")

    with uwsgi(app) as w:
        w.feed(get("/"))
        assert w.transport.aborted


# -- one after the other


def test_pipelined_packets_are_answered_in_order() -> None:
    """One at a time."""
    with uwsgi(HELLO) as w:
        assert w.feed(get("/") * 3) == KEPT * 3


def test_close_ends_the_connection() -> None:
    """As the client said to the proxy, which passes it on; and with keepalive 0."""
    with uwsgi(HELLO) as w:
        assert w.feed(get("/", HTTP_CONNECTION="close") + get("/")) == LAST
        assert w.transport.eof
    with uwsgi(HELLO, keepalive=0.0) as w:
        assert w.feed(get("/")) == LAST


def test_junk_behind_a_packet_is_refused_in_its_turn() -> None:
    """The good answer goes first."""
    with uwsgi(HELLO) as w:
        sent = w.feed(get("/") + b"GET / HTTP/1.1\r\n\r\n")
        assert sent.startswith(KEPT + b"HTTP/1.1 400 ")
        assert w.transport.eof
        assert len(w.log.at("warning")) == 1


def test_a_body_that_nobody_reads_is_dropped() -> None:
    """A short one; behind a long one the connection ends."""
    with uwsgi(HELLO) as w:
        data = post(b"x" * 1000)
        sent = w.feed(data[:-500])
        assert sent == KEPT
        assert w.protocol.state is ACTIVE
        assert w.feed(data[-500:] + get("/")) == KEPT * 2
    with uwsgi(HELLO) as w:
        assert w.feed(post(b"x" * 100_000)[:-50_000]) == KEPT
    with uwsgi(HELLO) as w:
        assert w.feed(post(b"x" * 200_000)[:-150_000]) == LAST


def test_pipelined_bytes_are_bounded() -> None:
    """Reading pauses behind a request that takes its time."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    with uwsgi(app) as w:
        w.feed(get("/") + b"\0" * 100_000)
        assert not w.transport.reading


# -- who may speak


@pytest.mark.parametrize(
    ("allowed", "peer", "served"),
    [
        (["127.0.0.1", "::1"], ("127.0.0.1", 4000), True),
        (["127.0.0.1", "::1"], ("::1", 4000, 0, 0), True),
        (["127.0.0.1", "::1"], ("10.0.0.5", 4000), False),
        (["10.0.0.0/8"], ("10.0.0.5", 4000), True),
        (["10.0.0.0/8"], ("::ffff:10.0.0.5", 4000, 0, 0), True),
        (["*"], ("203.0.113.9", 4000), True),
        ([], ("127.0.0.1", 4000), False),
        ([], "", True),  # unix
        (["127.0.0.1"], None, False),  # gone before its address was known
    ],
)
def test_uwsgi_allow_ips(allowed: list[str], peer: Any, served: bool) -> None:
    """All others get a 403, whatever they send, and one line."""
    with uwsgi(HELLO, uwsgi_networks=networks(allowed), peername=peer) as w:
        sent = w.feed(get("/"))
        assert status(sent) == (200 if served else 403)
        assert bool(w.log.at("warning")) is not served
    with uwsgi(HELLO, uwsgi_networks=networks(allowed), peername=peer) as w:
        assert status(w.feed(b"GET / HTTP/1.1\r\n\r\n")) == (400 if served else 403)


def test_a_proxy_header_comes_before_the_packet() -> None:
    """It names the client where the packet does not."""
    app = Recorder()
    header = b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 80\r\n"
    with uwsgi(app, proxy_protocol="v1") as w:
        w.feed(header + get("/", REMOTE_ADDR=None))
        assert app.scopes[0]["client"] == ("192.0.2.7", 5000)
        w.feed(get("/"))
        assert app.scopes[1]["client"] == ("203.0.113.9", 51234)


# -- time


def test_a_packet_that_does_not_end_is_a_408() -> None:
    """Within HYBRIDWORKER_HEADER_TIMEOUT of its first byte."""
    with uwsgi(HELLO, header_timeout=5.0) as w:
        w.feed(get("/")[:-1])
        w.tick(4)
        assert not w.sent
        w.tick(6)
        assert status(w.sent) == 408
        assert w.transport.eof


def test_a_silent_peer_is_left() -> None:
    """One that has never said anything, and one that is idle."""
    with uwsgi(HELLO, header_timeout=5.0, keepalive=2.0) as w:
        w.tick(6)
        assert w.protocol.state is CLOSING
    with uwsgi(HELLO, header_timeout=5.0, keepalive=2.0) as w:
        w.feed(get("/"))
        w.tick(3)
        assert w.protocol.state is CLOSING


def test_a_body_that_stalls_is_given_up() -> None:
    """The application hears of it."""
    app = Recorder()
    with uwsgi(app, body_timeout=5.0) as w:
        w.feed(post(b"0123456789")[:-5])
        w.tick(6)
        assert app.events[0][-1] == {"type": "http.disconnect"}


def test_a_drain_ends_what_is_idle_and_finishes_what_is_not() -> None:
    """An answer that comes then is the last of its connection."""
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await HELLO(scope, receive, send)

    with uwsgi(app) as w:
        w.feed(get("/"))
        w.context.persistence.end()
        w.protocol.drain(-math.inf)
        assert w.protocol.state is ACTIVE
        w.loop.call_soon(gate.set)
        w.run()
        assert w.sent == LAST
    with uwsgi(HELLO) as w:
        w.feed(get("/"))
        w.context.persistence.end()
        w.protocol.drain(-math.inf)
        assert w.protocol.state is CLOSING


def test_a_peer_that_leaves_ends_the_call() -> None:
    """Amid a packet, amid a body, and while the application works."""
    app = Recorder(lambda scope: False)
    for data in (get("/")[:-1], post(b"0123456789")[:-5], get("/")):
        with uwsgi(app) as w:
            w.feed(data)
            w.lose()
            assert w.protocol.state is CLOSED


def test_max_requests_recycles() -> None:
    """Requests by uwsgi are requests."""
    recycled: list[int] = []
    with uwsgi(HELLO, max_requests=2, recycle=lambda: recycled.append(1)) as w:
        w.feed(get("/"), get("/"))
        assert recycled == [1]


# -- bodies


def test_a_wsgi_call_waits_for_a_short_body() -> None:
    """A slow client holds no thread."""
    app = Recorder()
    with uwsgi(app, is_wsgi=True) as w:
        data = post(b"0123456789")
        w.feed(data[:-1])
        assert not app.scopes
        w.feed(data[-1:])
        assert app.events[0][0]["body"] == b"0123456789"


def test_a_body_longer_than_its_limit_is_a_413() -> None:
    """By what CONTENT_LENGTH says."""
    with uwsgi(echo, limit_request_body=10) as w:
        assert status(w.feed(post(b"x" * 11))) == 413


# -- WebSockets


def test_a_websocket_takes_the_connection_over() -> None:
    """With what came behind the packet."""
    pytest.importorskip("websockets", reason="the extra hybridworker[websockets] is not installed")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (scope["type"], scope["path"], scope["client"][0]) == ("websocket", "/ws", "203.0.113.9")
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})

    with uwsgi(app) as w:
        protocol = w.protocol
        sent = w.feed(websocket("/ws") + b"\x81\x82\0\0\0\0hi")
        assert status(sent) == 101
        assert b"\x81\x02hi" in sent
        assert protocol.state is UPGRADED
        assert w.transport.protocol is not protocol
        w.protocol = w.transport.protocol


@pytest.mark.parametrize("changes", [{"CONTENT_LENGTH": "1"}, {"HTTP_SEC_WEBSOCKET_VERSION": "8"}])
def test_a_handshake_that_cannot_be_taken(changes: dict[str, str]) -> None:
    """It is refused as by HTTP/1.1."""
    pytest.importorskip("websockets", reason="the extra hybridworker[websockets] is not installed")
    handshake = {
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_UPGRADE": "websocket",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    with uwsgi(HELLO) as w:
        sent = w.feed(packet(**{**handshake, **changes}))
        assert status(sent) == (400 if "CONTENT_LENGTH" in changes else 426)


# -- what is no packet


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\0", framed(b"", 5), framed(b"")]
)
def test_what_is_refused_is_one_line(data: bytes) -> None:
    """However it is cut, the status and the line are the same."""
    seen = set()
    for cut in (False, True):
        with uwsgi(HELLO) as w:
            w.feed(*(data[at : at + 1] for at in range(len(data)))) if cut else w.feed(data)
            seen.add((status(w.sent), *w.log.at("warning")))
            assert w.transport.eof
    assert len(seen) == 1
