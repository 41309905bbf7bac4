"""``head.py``: the field section of a request (RFC 9113 8), against the rules one by one."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

import h2.config
import h2.connection
import h2.exceptions
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridworker.asgi import Headers, Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.peer import Peer
from hybridworker.errors import ProtocolError
from hybridworker.http2 import wire
from hybridworker.http2.head import RequestHead, check_trailers
from tests.fakes import FakeTransport
from tests.harness import application, make_settings
from tests.http2.framing import block

METHOD, SCHEME = (b":method", b"GET"), (b":scheme", b"http")
AUTHORITY, PATH = (b":authority", b"example.com"), (b":path", b"/a?b=c")
GET: Headers = [METHOD, SCHEME, AUTHORITY, PATH]


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("never called")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def make(
    loop: asyncio.AbstractEventLoop, *, is_wsgi: bool = False, transport: Any = None, **options: Any
) -> RequestHead:
    made = make_settings(**options)
    context = WorkerContext(application=application(nothing, made, is_wsgi=is_wsgi), settings=made, loop=loop)
    return RequestHead(context, Peer(transport or FakeTransport(), context))


@pytest.fixture
def head(loop: asyncio.AbstractEventLoop) -> RequestHead:
    return make(loop)


def status(head: RequestHead, section: Headers, ended: bool = True, oversized: bool = False) -> int:
    """The status with which the section is refused; 0 if it is not."""
    try:
        head.read(section, ended, oversized)
    except ProtocolError as exc:
        assert str(exc)
        return exc.status
    return 0


# -- what becomes of a request


def test_the_scope(head: RequestHead) -> None:
    """As HTTP/1.1 has it, with Host first and the extension of trailers."""
    scope = head.read([*GET, (b"accept", b"*/*"), (b"x", b"1"), (b"x", b"2")], True)
    assert scope["type"] == "http"
    assert scope["http_version"] == "2"
    assert (scope["method"], scope["scheme"], scope["path"]) == ("GET", "http", "/a")
    assert (scope["raw_path"], scope["query_string"]) == (b"/a", b"b=c")
    assert scope["headers"] == [(b"host", b"example.com"), (b"accept", b"*/*"), (b"x", b"1"), (b"x", b"2")]
    assert scope["client"] == ("127.0.0.1", 40000)
    assert scope["extensions"].keys() >= {"http.response.trailers", "http.response.early_hint"}
    assert scope["hybridworker.target"] == b"/a?b=c"
    assert head.application is head.context.router.default
    assert head.length is None
    assert not head.websocket


def test_each_scope_is_its_own(head: RequestHead) -> None:
    """The next request on the connection sees nothing of the one before."""
    one = head.read([*GET, (b"content-length", b"5"), (b"cookie", b"a=b")], False)
    one["extensions"]["x"] = one["state"]["x"] = {}
    other = head.read(GET, True)
    assert other["headers"] == [(b"host", b"example.com")]
    assert "x" not in other["extensions"]
    assert head.length is None
    assert one["headers"] is not other["headers"]


FIELDS: Headers = [(b"cookie", b"a=1"), (b"x-forwarded-for", b"203.0.113.7"), (b"x-forwarded-proto", b"https")]


@pytest.mark.parametrize("fields", [[], FIELDS, [(b"content-length", b"3")], [(b"expect", b"100-continue")]])
@pytest.mark.parametrize("path", [b"/", b"/a%20b", b"/%C3%A9?q=%20", b"/x??y", b"*", b"", b"x", b"/a b", b"/" * 5000])
def test_another_path_changes_nothing_else(loop: asyncio.AbstractEventLoop, fields: Headers, path: bytes) -> None:
    """A head that has read the same fields before says what a new one says."""
    used = make(loop, forwarded_networks=None)
    first = [*GET, *fields]
    for _ in range(3):
        used.read(list(first), False)
    for ended in (False, True):
        for section in ([*GET[:3], (b":path", path), *fields], first):
            fresh = make(loop, forwarded_networks=None)
            answers: list[Any] = []
            for head in (fresh, used):
                try:
                    scope: Any = head.read(list(section), ended)
                except ProtocolError as exc:
                    answers.append((str(exc), exc.status, head.path, head.refused()))
                else:
                    answers.append((scope, head.method, head.path, head.length, head.expects_continue, list(scope)))
            assert answers[0] == answers[1]


def test_a_section_that_was_cut_is_no_repetition(head: RequestHead) -> None:
    """It is refused, although what is left of it says what was said before."""
    for _ in range(3):
        head.read(list(GET), True)
    assert head.known is not None
    assert status(head, list(GET), oversized=True) == 431


def test_a_repeated_request_has_scopes_of_its_own(head: RequestHead) -> None:
    """Equal ones, whatever an application has made of the one before; and another request in between is another."""
    section: Headers = [*GET, (b"accept", b"*/*")]
    first = head.read(section, True)
    expected = copy.deepcopy(first)
    for _ in range(3):
        first.clear()
        first = head.read(section, True)
        assert first == expected
        assert list(first) == list(expected)
        first["extensions"]["http.response.trailers"]["x"] = 1
        for inner in (first["headers"], first["extensions"], first["asgi"]):
            inner.clear()
    assert head.read([METHOD, SCHEME, AUTHORITY, (b":path", b"/else")], True)["path"] == "/else"
    assert status(head, [METHOD]) == 400
    assert head.read(section, True) == expected


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (b"/caf%C3%A9", "/café", b""),
        (b"/%ff", "/\ufffd", b""),
        (b"/a%2Fb?x=%20", "/a/b", b"x=%20"),
        (b"//a/../b", "//a/../b", b""),
        (b"/?", "/", b""),
        (b"/a?b?c", "/a", b"b?c"),
    ],
)
def test_the_path_is_decoded(head: RequestHead, raw: bytes, path: str, query: bytes) -> None:
    """Over HTTP/2 as over HTTP/1.1."""
    scope = head.read([METHOD, SCHEME, AUTHORITY, (b":path", raw)], True)
    assert (scope["path"], scope["query_string"], scope["raw_path"]) == (path, query, raw.partition(b"?")[0])


def test_rfc9113_8_2_3_cookies_are_one_field(head: RequestHead) -> None:
    """At the place of the first, for both interfaces: Django and Starlette read one."""
    scope = head.read([*GET, (b"cookie", b"a=1"), (b"x", b""), (b"cookie", b"b=2"), (b"cookie", b"c=3")], True)
    assert scope["headers"][1:] == [(b"cookie", b"a=1; b=2; c=3"), (b"x", b"")]


@pytest.mark.parametrize(
    ("section", "host"),
    [
        ([METHOD, SCHEME, PATH, (b"x", b""), (b"host", b"a.example")], b"a.example"),
        ([*GET, (b"host", b"example.com")], b"example.com"),
        ([*GET, (b"host", b"EXAMPLE.com:80")], b"example.com"),
        ([METHOD, SCHEME, (b":authority", b"[::1]:8000"), PATH], b"[::1]:8000"),
    ],
    ids=["Host alone", "both", "both, written differently", "an address"],
)
def test_rfc9113_8_3_1_the_authority_is_the_host(head: RequestHead, section: Headers, host: bytes) -> None:
    """Once, and first in the list."""
    headers = head.read(section, True)["headers"]
    assert headers[0] == (b"host", host)
    assert [name for name, _ in headers].count(b"host") == 1


# -- RFC 9113 8: malformed requests

MALFORMED: dict[str, Headers] = {
    "8.2.1 a name in upper case": [*GET, (b"X-A", b"")],
    "8.2.1 an empty name": [*GET, (b"", b"")],
    "8.2.1 a space in a name": [*GET, (b"a b", b"")],
    "8.2.1 a colon in a name": [*GET, (b"a:b", b"")],
    "8.2.1 a name that is not ASCII": [*GET, (b"\xe4", b"")],
    "8.2.1 NUL in a value": [*GET, (b"x", b"a\0b")],
    "8.2.1 LF in a value": [*GET, (b"x", b"a\nb")],
    "8.2.1 CR in a value": [*GET, (b"x", b"a\rb")],
    "8.2.1 CRLF at the end": [*GET, (b"x", b"a\r\n")],
    "8.2.1 a space before a value": [*GET, (b"x", b" a")],
    "8.2.1 a space behind a value": [*GET, (b"x", b"a ")],
    "8.2.1 a tab before a value": [*GET, (b"x", b"\ta")],
    "8.2.1 a tab behind a value": [*GET, (b"x", b"a\t")],
    "8.2.1 a space is all": [*GET, (b"x", b" ")],
    "8.2.1 in a cookie": [*GET, (b"cookie", b"a=1"), (b"cookie", b"b=2\n")],
    "8.2.1 DEL (RFC 9110 5.5)": [*GET, (b"x", b"a\x7f")],
    "8.2.2 connection": [*GET, (b"connection", b"keep-alive")],
    "8.2.2 keep-alive": [*GET, (b"keep-alive", b"5")],
    "8.2.2 proxy-connection": [*GET, (b"proxy-connection", b"x")],
    "8.2.2 transfer-encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "8.2.2 upgrade": [*GET, (b"upgrade", b"websocket")],
    "8.2.2 te: gzip": [*GET, (b"te", b"gzip")],
    "8.2.2 te: trailers and more": [*GET, (b"te", b"trailers, gzip")],
    "8.3 a pseudo field behind a field": [METHOD, SCHEME, AUTHORITY, (b"x", b""), PATH],
    "8.3 a pseudo field behind a cookie": [METHOD, SCHEME, AUTHORITY, (b"cookie", b"a=b"), PATH],
    "8.3 an unknown pseudo field": [*GET, (b":unknown", b"")],
    "8.3 a pseudo field of responses": [*GET, (b":status", b"200")],
    "8.3 :protocol without CONNECT (RFC 8441 4)": [*GET, (b":protocol", b"websocket")],
    "8.3 a colon is all": [*GET, (b":", b"")],
    "8.3 a pseudo field in upper case": [METHOD, SCHEME, AUTHORITY, (b":Path", b"/")],
    "8.3.1 no method": [SCHEME, AUTHORITY, PATH],
    "8.3.1 no scheme": [METHOD, AUTHORITY, PATH],
    "8.3.1 no path": [METHOD, SCHEME, AUTHORITY],
    "8.3.1 no authority and no Host": [METHOD, SCHEME, PATH],
    "8.3.1 nothing at all": [],
    "8.3.1 two paths": [*GET, PATH],
    "8.3.1 two methods": [METHOD, *GET],
    "8.3.1 two schemes": [SCHEME, *GET],
    "8.3.1 two authorities": [AUTHORITY, *GET],
    "8.3.1 an empty method": [(b":method", b""), *GET[1:]],
    "8.3.1 an empty scheme": [METHOD, (b":scheme", b""), AUTHORITY, PATH],
    "8.3.1 a malformed scheme": [METHOD, (b":scheme", b"ht tp"), AUTHORITY, PATH],
    "8.3.1 an empty authority": [METHOD, SCHEME, (b":authority", b""), PATH],
    "8.3.1 an empty Host": [METHOD, SCHEME, PATH, (b"host", b"")],
    "8.3.1 an empty authority beside Host": [METHOD, SCHEME, (b":authority", b""), PATH, (b"host", b"x")],
    "8.3.1 user information": [METHOD, SCHEME, (b":authority", b"user@example.com"), PATH],
    "8.3.1 a space in the authority": [METHOD, SCHEME, (b":authority", b"a b"), PATH],
    "8.3.1 a path in the authority": [METHOD, SCHEME, (b":authority", b"a/b"), PATH],
    "8.3.1 an impossible authority": [METHOD, SCHEME, (b":authority", b"[::g]"), PATH],
    "8.3.1 Host and authority differ": [*GET, (b"host", b"example.org")],
    "8.3.1 they differ in the port": [*GET, (b"host", b"example.com:8080")],
    "8.3.1 they differ in the port of the other scheme": [*GET, (b"host", b"example.com:443")],
    "8.3.1 two Hosts": [METHOD, SCHEME, PATH, (b"host", b"x"), (b"host", b"x")],
    "8.3.1 an empty path": [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
    "8.3.1 a path without slash": [METHOD, SCHEME, AUTHORITY, (b":path", b"a")],
    "8.3.1 the absolute form": [METHOD, SCHEME, AUTHORITY, (b":path", b"http://example.com/")],
    "8.3.1 an asterisk without OPTIONS": [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
    "8.3.1 a query alone": [METHOD, SCHEME, AUTHORITY, (b":path", b"?a")],
    "8.3.1 a space in the path": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a b")],
    "8.3.1 a fragment": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")],
    "8.3.1 a tab in the path": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a\tb")],
    "8.3.1 CRLF in the path": [METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1\r\nX: y")],
    "8.3.1 NUL in the path": [METHOD, SCHEME, AUTHORITY, (b":path", b"/\0")],
    "8.3.1 a path that is not ASCII": [METHOD, SCHEME, AUTHORITY, (b":path", b"/\xe4")],
    "8.3.1 a method in lower case": [(b":method", b"get"), *GET[1:]],
    "8.3.1 a method that is no token": [(b":method", b"GET /"), *GET[1:]],
    "8.3.1 a method with a line break": [(b":method", b"GET\r\n"), *GET[1:]],
    "8.5 CONNECT with a path": [(b":method", b"CONNECT"), AUTHORITY, PATH],
    "8.5 CONNECT with a scheme": [(b":method", b"CONNECT"), SCHEME, AUTHORITY],
    "8.5 CONNECT without authority": [(b":method", b"CONNECT")],
    "RFC 8441 4 an extended CONNECT without path": [
        (b":method", b"CONNECT"),
        (b":protocol", b"websocket"),
        SCHEME,
        AUTHORITY,
    ],
    "RFC 9110 5.3 two content types": [*GET, (b"content-type", b"a/b"), (b"content-type", b"a/b")],
    "8.1.1 two lengths": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "8.1.1 a length, and no body": [*GET, (b"content-length", b"1")],
    "8.1.1 a negative length": [*GET, (b"content-length", b"-1")],
    "8.1.1 a list of lengths": [*GET, (b"content-length", b"0, 0")],
    "8.1.1 an empty length": [*GET, (b"content-length", b"")],
    "8.1.1 a length in other digits": [*GET, (b"content-length", "\u0661".encode())],
    "8.1.1 a length beyond all": [*GET, (b"content-length", b"9" * 5000)],
}


@pytest.mark.parametrize("rule", MALFORMED)
def test_rfc9113_8_1_1_malformed_requests(head: RequestHead, rule: str) -> None:
    """Status 400 means that the stream is reset; the next request is read."""
    assert status(head, MALFORMED[rule]) == 400
    assert status(head, GET) == 0


WELL_FORMED: dict[str, Headers] = {
    "te: trailers": [*GET, (b"te", b"trailers")],
    "te: Trailers": [*GET, (b"te", b"Trailers")],
    "an empty value": [*GET, (b"x", b"")],
    "a tab and bytes beyond ASCII": [*GET, (b"x", b"a\tb \xff\x80")],
    "all characters of a token": [*GET, (b"!#$%&'*+-.^`|~09az", b"")],
    "pseudo fields in another order": [PATH, AUTHORITY, SCHEME, METHOD],
    "OPTIONS *": [(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")],
    "an unknown method": [(b":method", b"FOOBAR"), *GET[1:]],
    "a length of zero": [*GET, (b"content-length", b"0")],
    "zeros before a length": [*GET, (b"content-length", b"000")],
    "another scheme": [METHOD, (b":scheme", b"HTTPS"), AUTHORITY, PATH],
    "a scheme that is none of ours": [METHOD, (b":scheme", b"coap+tcp"), AUTHORITY, PATH],
}


@pytest.mark.parametrize("rule", WELL_FORMED)
def test_what_is_not_refused(head: RequestHead, rule: str) -> None:
    """It is legal, however rare."""
    assert status(head, WELL_FORMED[rule]) == 0


def test_the_length_of_a_body(head: RequestHead) -> None:
    """Where it is given; the reader holds the client to it."""
    head.read([*GET, (b"content-length", b"12")], False)
    assert head.length == 12
    head.read(GET, False)
    assert head.length is None


# -- what is answered


def test_rfc9113_8_5_connect_is_not_served(head: RequestHead) -> None:
    """A proxy would; 501."""
    assert status(head, [(b":method", b"CONNECT"), (b":authority", b"example.com:443")], False) == 501


@pytest.mark.parametrize(
    ("method", "casefold", "seen"),
    [(b"get", False, "get"), (b"get", True, "GET"), (b"fo#", True, "FO#"), (b"x" * 30, False, "x" * 30)],
)
def test_rfc9110_9_1_unconventional_methods(
    loop: asyncio.AbstractEventLoop, method: bytes, casefold: bool, seen: str
) -> None:
    """Any token, if it is permitted; in capitals, if that is set. Also of a request that is refused, in the log."""
    section = [(b":method", method), *GET[1:]]
    permitting = make(loop, permit_unconventional_http_method=True, casefold_http_method=casefold)
    assert permitting.read(section, True)["method"] == seen
    assert permitting.read(section, True)["method"] == seen  # the same section again
    assert status(permitting, [(b":method", method), *GET[1:3], (b":path", b"/" + b"x" * 9000)]) == 414
    refused = permitting.refused()
    assert refused is not None
    assert refused["method"] == seen
    assert status(make(loop, casefold_http_method=True), section) == 400
    assert status(permitting, [(b":method", b"a(b"), *GET[1:]]) == 400


def test_nothing_permits_folded_lines_or_spaces_in_names(loop: asyncio.AbstractEventLoop) -> None:
    """Those settings are about the lines of HTTP/1.1 (RFC 9113 8.2.1)."""
    permitting = make(
        loop, permit_obsolete_folding=True, strip_header_spaces=True, permit_unconventional_http_version=True
    )
    assert status(permitting, [*GET, (b"x", b"a\r\n b")]) == 400
    assert status(permitting, [*GET, (b"x ", b"a")]) == 400
    assert permitting.read(GET, True)["http_version"] == "2"


WEBSOCKET = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]]


def test_rfc8441_4_a_websocket(loop: asyncio.AbstractEventLoop) -> None:
    """For ASGI; a WSGI application, and any other protocol, get a 501."""
    head = make(loop)
    scope = head.read(WEBSOCKET, False)
    assert head.websocket
    assert (scope["type"], scope["method"], scope["path"]) == ("http", "CONNECT", "/a")
    assert status(head, [(b":method", b"CONNECT"), (b":protocol", b"connect-udp"), *GET[1:]], False) == 501
    assert not head.websocket
    assert status(make(loop, is_wsgi=True), WEBSOCKET, False) == 501


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/" + b"a" * 99)], 0),
        ([METHOD, SCHEME, AUTHORITY, (b":path", b"/" + b"a" * 100)], 414),
        ([*GET, *[(b"x", b"")] * 9], 0),
        ([*GET, *[(b"x", b"")] * 10], 431),
        ([*GET, *[(b"cookie", b"a=b")] * 10], 0),
        ([*GET, (b"x", b"v" * 197)], 0),
        ([*GET, (b"x", b"v" * 198)], 431),
        ([*GET, *[(b"cookie", b"v" * 60)] * 4], 431),
    ],
    ids=["path", "414", "fields", "431", "cookies are one", "a field", "a long one", "long cookies"],
)
def test_the_limits(loop: asyncio.AbstractEventLoop, section: Headers, expected: int) -> None:
    """Those of gunicorn's settings, as responses; a request that is refused is known to the access log."""
    head = make(loop, limit_request_line=100, limit_request_fields=10, limit_request_field_size=200)
    assert status(head, section) == expected
    scope = head.refused()
    assert scope is not None
    assert scope["method"] == "GET"


def test_a_list_beyond_the_limit(head: RequestHead) -> None:
    """431, whatever of the section was dropped; malformed fields are worse."""
    assert status(head, GET, True, oversized=True) == 431
    assert head.refused() is not None
    assert status(head, [*GET, (b"X", b"")], True, oversized=True) == 400
    assert status(head, [METHOD], True, oversized=True) == 431
    assert head.refused() is None


@pytest.mark.parametrize(
    ("value", "ended", "expected"),
    [
        (None, False, False),
        (b"100-continue", False, True),
        (b"100-Continue", False, True),
        (b"100-continue", True, False),
    ],
)
def test_rfc9110_10_1_1_expectations(head: RequestHead, value: bytes | None, ended: bool, expected: bool) -> None:
    """Only with a body to come."""
    head.read([*GET, *([] if value is None else [(b"expect", value)])], ended)
    assert head.expects_continue is expected


@pytest.mark.parametrize("value", [b"200-ok", b"", b"100-continue, x"])
def test_rfc9110_10_1_1_an_unknown_expectation(head: RequestHead, value: bytes) -> None:
    """417."""
    assert status(head, [*GET, (b"expect", value)], False) == 417


@pytest.mark.parametrize(
    "section",
    [[], [METHOD], [(b":method", b"get"), *GET[1:]], [METHOD, (b":path", b"/\xe4")], [METHOD, (b":path", b"/a b")]],
)
def test_what_is_not_fit_for_the_access_log(head: RequestHead, section: Headers) -> None:
    """A line needs a method and a path in visible characters."""
    assert status(head, section) == 400
    assert head.refused() is None


# -- trust


@pytest.mark.parametrize(
    ("peer", "fields", "scheme"),
    [
        (("127.0.0.1", 1), [(b":scheme", b"https")], "https"),
        (("127.0.0.1", 1), [(b":scheme", b"HTTPS")], "https"),
        (("127.0.0.1", 1), [(b":scheme", b"ftp")], "http"),
        (("192.0.2.1", 1), [(b":scheme", b"https")], "http"),
        (("127.0.0.1", 1), [(b":scheme", b"https"), (b"x-forwarded-proto", b"http")], "http"),
        (("127.0.0.1", 1), [(b":scheme", b"http"), (b"x-forwarded-proto", b"https")], "https"),
        (("192.0.2.1", 1), [(b":scheme", b"http"), (b"x-forwarded-proto", b"https")], "http"),
    ],
)
def test_the_scheme_is_that_of_the_transport_or_of_a_proxy(
    loop: asyncio.AbstractEventLoop, peer: tuple[str, int], fields: Headers, scheme: str
) -> None:
    """:scheme of a trusted peer, and before it X-Forwarded-Proto."""
    head = make(loop, transport=FakeTransport(peername=peer))
    assert head.read([METHOD, fields[0], AUTHORITY, PATH, *fields[1:]], True)["scheme"] == scheme


def test_the_client_that_a_proxy_names(loop: asyncio.AbstractEventLoop) -> None:
    """As over HTTP/1.1."""
    section = [*GET, (b"x-forwarded-for", b"203.0.113.7")]
    assert make(loop).read(section, True)["client"] == ("203.0.113.7", 0)
    untrusted = make(loop, transport=FakeTransport(peername=("192.0.2.1", 5)))
    assert untrusted.read(section, True)["client"] == ("192.0.2.1", 5)


def test_names_with_underscores(loop: asyncio.AbstractEventLoop) -> None:
    """header_map decides, as over HTTP/1.1."""
    section = [*GET, (b"x_a", b"1"), (b"b", b"2")]
    assert make(loop, header_map="drop").read(section, True)["headers"][1:] == [(b"b", b"2")]
    assert make(loop, header_map="dangerous").read(section, True)["headers"][1:] == section[4:]
    assert status(make(loop, header_map="refuse"), section) == 400


def test_tls_and_proxy_headers_are_in_the_scope(loop: asyncio.AbstractEventLoop) -> None:
    """What the peer is, whichever version it speaks."""
    head = make(loop)
    head.peer.proxied = {"PROXY_PROTOCOL": "TCP4"}
    head.peer.tls = {"tls_version": 772}
    scope = head.read(GET, True)
    assert scope["hybridworker.proxy"] == {"PROXY_PROTOCOL": "TCP4"}
    assert scope["extensions"]["tls"] == {"tls_version": 772}


def test_names_are_remembered_within_bounds(head: RequestHead) -> None:
    """Clients choose them."""
    for number in range(3000):
        head.read([*GET, (b"x-%d" % number, b"")], True)
    assert len(head.context.vocabulary.sections) <= 1024


# -- trailers


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        ([], False),
        ([(b"grpc-status", b"0"), (b"x", b"")], False),
        ([(b":path", b"/")], True),
        ([(b"x", b""), (b":status", b"200")], True),
        ([(b"X", b"")], True),
        ([(b"", b"")], True),
        ([(b"x", b"a\r\nb")], True),
        ([(b"x", b" a")], True),
        ([(b"connection", b"close")], True),
        ([(b"keep-alive", b"1")], True),
        *[([(name, b"1")], True) for name in (b"host", b"content-length", b"te", b"trailer", b"authorization")],
        ([(b"transfer-encoding", b"chunked")], True),
    ],
)
def test_rfc9113_8_1_trailers(section: Headers, wrong: bool) -> None:
    """No pseudo fields, nothing of a connection, and none of the names that gunicorn refuses there."""
    assert (check_trailers(section) is not None) is wrong


# -- against the oracle

VALUE = st.one_of(
    st.binary(max_size=6), st.sampled_from([b"", b"a", b"/", b"http", b"GET", b"x:80", b" a", b"trailers"])
)
NAME = st.one_of(
    st.sampled_from([name for name, _ in GET]),
    st.sampled_from(
        [b"host", b"te", b"connection", b"cookie", b"content-length", b"x", b"X", b":protocol", b":status"]
    ),
    st.binary(min_size=1, max_size=3),
)


@functools.cache
def lone() -> RequestHead:
    """A head without a loop, for a test that hypothesis runs often."""
    return make(SimpleNamespace(time=lambda: 0.0))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=600, derandomize=True, database=None)
@given(
    section=st.one_of(
        st.lists(st.tuples(NAME, VALUE), max_size=7),
        st.lists(st.tuples(NAME, VALUE), max_size=3).map(lambda more: [*GET, *more]),
    )
)
def test_what_h2_refuses_is_refused(section: Headers) -> None:
    """Whatever the h2 package takes for malformed is malformed here; we are stricter, never laxer."""
    head = lone()
    refused = status(head, section)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
    server.initiate_connection()
    server.receive_data(wire.PREFACE + wire.frame(wire.SETTINGS, 0, 0))
    try:
        server.receive_data(wire.section(1, block(section), wire.END_STREAM, 16384))
    except h2.exceptions.ProtocolError:
        assert refused or (b"cookie", b"") in section  # which h2 joins in vain
    if not refused:
        scope: Message = head.read(section, True)
        for name, value in scope["headers"]:
            assert name == name.lower()
            assert not {0, 10, 13} & {*value}
