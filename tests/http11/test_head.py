"""RequestHead: what the fields of a head mean to the server, and what it refuses that the parser lets through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from hybridworker import cache
from hybridworker.connection import fields
from hybridworker.connection import peer as peer_module
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.fields import (
    HOST,
    LENGTH,
    POLICY,
    TE,
    TRANSFER,
    TYPE,
    RequestFields,
    check_host,
    classify,
)
from hybridworker.connection.peer import Peer
from hybridworker.errors import ProtocolError
from hybridworker.http11.head import LINE_MAX, check_transfer_encoding
from tests.fakes import FakeTransport
from tests.harness import HELLO, Recorder, application, make_settings, wire

#: What a request line says, in a scope.
SAID = ("method", "http_version", "path", "raw_path", "query_string", "headers", "hybridworker.target")


@pytest.fixture(autouse=True)
def no_host_remembered() -> None:
    """Each test begins without hosts that were found valid."""
    fields.hosts.clear()


@pytest.fixture
def context() -> Iterator[WorkerContext]:
    """A context on a loop that does not run."""
    loop = asyncio.new_event_loop()
    yield WorkerContext(application=application(HELLO), settings=make_settings(), loop=loop)
    loop.close()


def fields_of(context: WorkerContext, address: str = "127.0.0.1") -> RequestFields:
    """Those of a connection from ``address``."""
    return RequestFields(Peer(FakeTransport(peername=(address, 1)), context), context.vocabulary.names)


def request(*lines: bytes) -> bytes:
    return b"\r\n".join([b"GET / HTTP/1.1", b"Host: x", *lines, b"", b""])


# -- meanings


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        (b"HOST", HOST),
        (b"Content-Length", LENGTH),
        (b"transfer-encoding", TRANSFER),
        (b"Content-Type", TYPE),
        (b"te", TE),
        (b"accept", 0),
        (b"X_Y", POLICY),
        (b"Content_Length", POLICY),
        (b"X-Forwarded-Proto", POLICY),
        (b"X-Forwarded-For", POLICY),
    ],
)
def test_what_a_name_means(name: bytes, meaning: int) -> None:
    """In any case of its letters."""
    assert classify(name, make_settings()) == (name.lower(), meaning)


def test_meanings_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client must not fill memory with names; those beyond the bound take the place of the others."""
    monkeypatch.setattr(cache, "LIMIT", 3)
    recorder = Recorder()
    with wire(recorder) as w:
        fields = [b"X-%d: y" % number for number in range(9)]
        for _ in range(2):
            w.feed(request(*fields, b"Content-Length: 1") + b"a")
        assert 0 < len(w.context.vocabulary.names) <= 3
        assert b"X-8" in w.context.vocabulary.names or b"Content-Length" in w.context.vocabulary.names
    assert [len(scope["headers"]) for scope in recorder.scopes] == [11, 11]
    assert [events[0]["body"] for events in recorder.events] == [b"a", b"a"]


def test_names_are_shared_by_the_connections_of_a_worker(context: WorkerContext) -> None:
    """What one connection has learnt serves the next."""
    first, second = fields_of(context), fields_of(context)
    first.on_header(b"X-New", b"1")
    assert second.names[b"X-New"] == (b"x-new", 0)


def test_a_head_begins_without_its_predecessor(context: WorkerContext) -> None:
    """Nothing that one request said holds for the next."""
    these = fields_of(context)
    these.on_header(b"Content-Length", b"5")
    these.on_header(b"X-Forwarded-Proto", b"https")
    assert (these.length, len(these.special or ())) == (5, 1)
    these.begin()
    assert (these.headers, these.seen, these.special, these.length) == ([], 0, None, 0)


@pytest.mark.parametrize("name", [b"Host", b"Content-Length", b"Content-Type"])
def test_singletons_come_once(context: WorkerContext, name: bytes) -> None:
    """RFC 9110 5.3; in any case of their letters, and also when they agree."""
    these = fields_of(context)
    these.on_header(name, b"1")
    with pytest.raises(ProtocolError, match="repeated"):
        these.on_header(name.upper(), b"1")


def test_a_trailer_is_no_field(context: WorkerContext) -> None:
    """Once the head is complete, fields are trailers."""
    these = fields_of(context)
    these.ended = True
    these.on_header(b"Host", b"x")
    assert these.headers == []


def test_trust_is_decided_once(context: WorkerContext) -> None:
    """By the socket peer, when it is first asked for."""
    these = fields_of(context)
    peer = these.peer
    assert peer.policy is None
    these.on_header(b"X-Forwarded-Proto", b"https")
    policy = peer.policy
    these.begin()
    peer.address = ("203.0.113.9", 1)
    these.on_header(b"X-Forwarded-Proto", b"https")
    assert peer.policy is policy


# -- Host


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        b"x:",
        b"x:80",
        b"a-b_c.d~e!$&'()*+,;=",
        b"%41%ff",
        b"192.0.2.1:8000",
        b"[::]",
        b"[2001:DB8::1]:443",
        b"[::ffff:192.0.2.1]",
        b"[v1.x:y]",
    ],
)
def test_hosts_that_are_valid(value: bytes) -> None:
    """RFC 9112 3.2, RFC 3986 3.2.2; the second time from memory, but for an empty one: HTTP/2 knows none."""
    check_host(value)
    assert list(fields.hosts) == ([value] if value else [])
    check_host(value)


@pytest.mark.parametrize(
    "value",
    [
        b" ",
        b"a b",
        b"a\tb",
        b"a/b",
        b"a@b",
        b"a?b",
        b"a#b",
        b"a\\b",
        b'"a"',
        b"<a>",
        b"a:b",
        b"a:1:2",
        b"a:-1",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[::1]a",
        b"[::1]:a",
        b"[:::]",
        b"[::::]",
        b"[1:2:3]",
        b"[12345::]",
        b"[192.0.2.1]",
        b"[fe80::1%25eth0]",
        b"[v.x]",
        b"[vg.x]",
        b"[v1.]",
        b"[g::1]",
        b"%",
        b"%4",
        b"%4g",
        b"caf\xc3\xa9",
        b"a\x7f",
        b"a\n",
    ],
)
def test_hosts_that_are_not(value: bytes) -> None:
    """A malformed Host is a 400 (RFC 9112 3.2), and never remembered as good."""
    with pytest.raises(ProtocolError, match="Host") as info:
        check_host(value)
    assert info.value.status == 400
    assert not fields.hosts


def test_the_memory_for_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those beyond the bound take the place of the others."""
    monkeypatch.setattr(cache, "LIMIT", 2)
    for value in (b"a", b"b", b"c", b"d"):
        check_host(value)
    assert list(fields.hosts) == [b"c", b"d"]
    with pytest.raises(ProtocolError):
        check_host(b"a b")


# -- Transfer-Encoding


@pytest.mark.parametrize("value", [b"chunked", b"CHUNKED", b"Chunked"])
def test_chunked_is_accepted(value: bytes) -> None:
    """The one coding of this server."""
    check_transfer_encoding(value, http10=False)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"gzip", 501),
        (b"identity", 501),
        (b"xchunked", 501),
        (b"foo, chunked", 501),
        (b"gzip\t,\tchunked", 501),
        (b"", 400),
        (b",", 400),
        (b"chunked,", 400),
        (b",chunked", 400),
        (b"chunked, chunked", 400),
        (b"chunked,CHUNKED", 400),
        (b"chunked, gzip", 400),
        (b"gzip, chunked, chunked", 400),
        (b'"chunked"', 400),
        (b"chunked;q=1", 400),
        (b"chunked foo", 400),
        (b"\xa0chunked", 400),
        (b"chunked\x0b", 400),
    ],
)
def test_no_other_transfer_coding_is(value: bytes, status: int) -> None:
    """501 for what is unknown, 400 for what is malformed or applied twice (RFC 9112 6.1)."""
    with pytest.raises(ProtocolError) as info:
        check_transfer_encoding(value, http10=False)
    assert info.value.status == status


def test_http10_has_no_transfer_encoding() -> None:
    """Not even chunked."""
    with pytest.raises(ProtocolError, match=r"1\.0"):
        check_transfer_encoding(b"chunked", http10=True)


# -- lists


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], False),
        ([b"TE: trailers"], True),
        ([b"TE: gzip;q=1 ,\tTRAILERS "], True),
        ([b"TE: trailers", b"TE: gzip"], True),
        ([b"TE: gzip", b"TE: trailers"], True),
        ([b"TE: trailersx"], False),
        ([b"TE:"], False),
    ],
)
def test_x18_who_takes_trailers(lines: list[bytes], wanted: bool) -> None:
    """RFC 9110 10.1.4: ``trailers`` anywhere in the list, on any line of it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body"})
        await send({"type": "http.response.trailers", "headers": [(b"x-t", b"1")]})

    with wire(app) as w:
        assert (b"x-t: 1\r\n" in w.feed(request(*lines))) is wanted


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Expect: 100-continue"], 204),
        ([b"Expect: 100-CONTINUE", b"Expect: 100-continue"], 204),
        ([b"Expect: foo"], 417),
        ([b"Expect: foo", b"Expect: 100-continue"], 417),
        ([b"Expect: 100-continue", b"Expect: foo"], 417),
        ([b"Expect:"], 417),
    ],
)
def test_expectations(lines: list[bytes], status: int) -> None:
    """RFC 9110 10.1.1: all of them are to be met, on whichever line."""
    recorder = Recorder()
    with wire(recorder) as w:
        assert w.feed(request(*lines)).startswith(b"HTTP/1.1 %d " % status)
    assert len(recorder.scopes) == (status == 204)


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([b"Upgrade: websocket"], True),
        ([b"Upgrade: foo, WebSocket"], True),
        ([b"Upgrade: websocket", b"Upgrade: foo"], True),
        ([b"Upgrade: foo", b"Upgrade: websocket"], True),
        ([b"Upgrade: websocket/13"], False),
        ([b"Upgrade: foo"], False),
    ],
)
def test_who_wants_a_websocket(lines: list[bytes], refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 6455 4.2.1: ``websocket`` anywhere in the list. (Where it is not installed, that is a 501.)"""
    monkeypatch.setattr("hybridworker.websocket.protocol.available", lambda: False)
    with wire(Recorder()) as w:
        sent = w.feed(request(b"Connection: upgrade", *lines))
        assert sent.startswith(b"HTTP/1.1 %d " % (501 if refused else 204))


# -- the request line


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"CONNECT / HTTP/1.1", 501),
        (b"CONNECT x:443 HTTP/1.1", 501),
        (b"CONNECT * HTTP/1.1", 501),
        (b"GET / HTTP/1.1", 204),
        (b"GET / HTTP/1.0", 204),
        (b"GET / HTTP/2.0", 400),
        (b"GET / HTTP/0.9", 400),
        (b"GET / RTSP/1.0", 400),
        (b"GET /", 400),
        (b"GET /\r\nA: HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET /#a HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 204),
        (b"GET http://y/ HTTP/1.1", 204),
        (b"GET http://:80/ HTTP/1.1", 400),
        (b"GET http://y z/ HTTP/1.1", 400),
    ],
)
def test_request_lines(line: bytes, status: int) -> None:
    """What the parser lets through is refused before the application is called."""
    recorder = Recorder()
    with wire(recorder) as w:
        assert w.feed(line + b"\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    assert len(recorder.scopes) == (status == 204)


# -- what the connection says


PROXY = b"PROXY TCP4 192.0.2.1 198.51.100.2 1234 443\r\n"


@pytest.mark.parametrize("cut", range(0, len(PROXY) + 1, 5))
def test_a_proxy_header_is_taken_off_the_first_bytes(cut: int) -> None:
    """Its addresses are in the scope of every request of the connection, each in a dictionary of its own."""
    recorder = Recorder()
    with wire(recorder, proxy_protocol="v1") as w:
        w.feed(PROXY[:cut], PROXY[cut:] + request(), request())
    assert [scope["client"] for scope in recorder.scopes] == [("192.0.2.1", 1234)] * 2
    first, second = (scope["hybridworker.proxy"] for scope in recorder.scopes)
    assert first == second == {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "198.51.100.2", "PROXY_PORT": "443"}
    assert first is not second


def test_a_proxy_header_that_names_nobody_changes_nothing() -> None:
    """The client stays the peer."""
    recorder = Recorder()
    with wire(recorder, proxy_protocol="v1") as w:
        w.feed(b"PROXY UNKNOWN\r\n" + request())
    assert recorder.scopes[0]["client"] == ("127.0.0.1", 40000)
    assert "hybridworker.proxy" not in recorder.scopes[0]


def test_x23_x20_the_tls_extension_is_in_every_scope_of_a_tls_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy for each, and none without TLS; the scheme says the same."""
    monkeypatch.setattr(peer_module, "tls_extension", lambda ssl_object, cert: {"tls_version": 0x0304})
    monkeypatch.setattr(peer_module, "tls_environ", lambda ssl_object, extension: {"HTTPS": "on"})
    recorder = Recorder()
    with wire(recorder, ssl_object=object()) as w:
        w.feed(request(), request())
    with wire(recorder) as w:
        w.feed(request())
    first, second, plain = (scope["extensions"].get("tls") for scope in recorder.scopes)
    assert first == second == {"tls_version": 0x0304}
    assert first is not second
    assert plain is None
    assert [scope["scheme"] for scope in recorder.scopes] == ["https", "https", "http"]


# -- what special fields say


@pytest.mark.parametrize(
    ("options", "line", "kept", "scheme"),
    [
        ({}, b"X-Forwarded-Proto: https", True, "https"),
        ({"peername": ("203.0.113.9", 1)}, b"X-Forwarded-Proto: https", True, "http"),
        ({}, b"X_A: b", False, "http"),
        ({"header_map": "dangerous"}, b"X_A: b", True, "http"),
        ({}, b"SCRIPT_NAME: /a", True, "http"),
    ],
)
def test_special_fields_are_judged_by_the_policy(options: dict[str, Any], line: bytes, kept: bool, scheme: str) -> None:
    """What it drops never was there; what it says of the scheme is in the scope."""
    recorder = Recorder()
    with wire(recorder, **options) as w:
        w.feed(request(line))
    (scope,) = recorder.scopes
    assert (len(scope["headers"]), scope["scheme"]) == (1 + kept, scheme)


def test_all_special_fields_of_a_request_are_judged_together() -> None:
    """Two that contradict each other are refused."""
    recorder = Recorder()
    with wire(recorder) as w:
        w.feed(request(b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: on"))
        sent = w.feed(request(b"X-Forwarded-Proto: https", b"X-Forwarded-Ssl: off"))
        assert sent.count(b"HTTP/1.1 204") == sent.count(b"HTTP/1.1 400") == 1
    assert [scope["scheme"] for scope in recorder.scopes] == ["https"]


def test_content_type_is_no_special_field() -> None:
    """No policy is asked about it: most requests with a body have one."""
    with wire(Recorder()) as w:
        w.feed(request(b"Content-Type: a/b"))
        assert w.protocol.peer.policy is None


# -- targets, versions


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        ([b"Host: x", b"A: b"], [(b"host", b"y:81"), (b"a", b"b")]),
        ([b"A: b", b"Host: x"], [(b"a", b"b"), (b"host", b"y:81")]),
        ([b"A: b"], [(b"a", b"b"), (b"host", b"y:81")]),
    ],
)
def test_h9_the_host_of_the_target_replaces_the_field(lines: list[bytes], headers: list[tuple[bytes, bytes]]) -> None:
    """RFC 9112 3.2.2: in its place, or at the end where HTTP/1.0 has none."""
    recorder = Recorder()
    with wire(recorder) as w:
        w.feed(b"\r\n".join([b"GET http://y:81/p HTTP/1.0", *lines, b"", b""]))
    assert recorder.scopes[0]["headers"] == headers
    assert recorder.scopes[0]["path"] == "/p"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_only_http10_may_do_without_host(version: bytes) -> None:
    """RFC 9112 3.2."""
    with wire(Recorder()) as w:
        status = 204 if version == b"1.0" else 400
        assert w.feed(b"GET / HTTP/" + version + b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("connection", "kept"), [(b"keep-alive", True), (b"keep-alive, close", False), (b"close, keep-alive", False)]
)
def test_close_wins_in_http10(connection: bytes, kept: bool) -> None:
    """The parser sees only keep-alive there."""
    with wire(Recorder()) as w:
        w.feed(b"GET / HTTP/1.0\r\nConnection: " + connection + b"\r\n\r\n")
        assert (not w.transport.closing and not w.transport.eof) is kept


def test_a_chunked_head_frames_the_body() -> None:
    """In any case of its letters, and with whitespace behind it, which the parser leaves."""
    recorder = Recorder()
    with wire(recorder) as w:
        w.feed(request(b"Transfer-Encoding: Chunked") + b"1\r\na\r\n0\r\n\r\n" + request())
    assert [events[-1]["more_body"] for events in recorder.events] == [False, False]
    assert b"".join(event["body"] for event in recorder.events[0]) == b"a"


# -- the access log


@pytest.mark.parametrize(
    ("data", "logged"),
    [
        (b"GET /a?b=c HTTP/1.1\r\n\r\n", [("GET", "/a", b"b=c", "1.1", 400)]),
        (b"HEAD /a HTTP/1.0\r\nHost: a b\r\n\r\n", [("HEAD", "/a", b"", "1.0", 400)]),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", []),
        (b"\x16\x03\x01", []),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_a_refused_request_is_logged_when_its_line_is_known(data: bytes, logged: list[Any], step: int) -> None:
    """Whatever else is wrong with it, and however it came in."""
    exchanges: list[Any] = []
    with wire(Recorder(), access=exchanges.append) as w:
        w.feed(*(data[at : at + step] for at in range(0, len(data), step)))
    seen = [
        (scope["method"], scope["path"], bytes(scope["query_string"]), scope["http_version"], exchange.status)
        for exchange in exchanges
        for scope in [exchange.scope]
    ]
    assert seen == logged


def test_a_refused_request_took_no_time() -> None:
    """When it began is not known, and the last tick of the clock is up to a second ago."""
    exchanges: list[Any] = []
    with wire(Recorder(), access=exchanges.append) as w:
        w.context.clock.now -= 1
        before = time.monotonic()
        w.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert [exchange.started_at >= before for exchange in exchanges] == [True]


@pytest.mark.parametrize(
    ("line", "remembered"),
    [
        (b"GET /a?b HTTP/1.1", True),
        (b"GET /a%20b HTTP/1.0", True),
        (b"GET http://y/a HTTP/1.1", False),  # it replaces Host
        (b"OPTIONS * HTTP/1.1", False),
        (b"GET /" + b"a" * LINE_MAX + b" HTTP/1.1", False),
    ],
)
def test_a_request_line_that_comes_again(line: bytes, remembered: bool) -> None:
    """It says the same as the first time, and only what is short and says all of the target is remembered."""
    app = Recorder()
    with wire(app) as connection:
        for _ in range(2):
            connection.feed(line + b"\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
        assert (line in connection.context.vocabulary.requests) is remembered
    first, again = ({key: scope[key] for key in SAID} for scope in app.scopes)
    assert first == again
    assert first["hybridworker.target"] == line.split(b" ")[1]


def test_request_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client must not fill memory with them."""
    monkeypatch.setattr(cache, "LIMIT", 2)
    sizes = []
    with wire(Recorder()) as connection:
        for number in range(4):
            connection.feed(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            sizes.append(len(connection.context.vocabulary.requests))
    assert sizes == [1, 2, 1, 2]
