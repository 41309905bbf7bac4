"""Methods that llhttp does not know, and what gunicorn's settings permit, on the wire and cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker.errors import ProtocolError
from hybridworker.http11.rewriting import rewrite, true_method
from tests.harness import Recorder, make_settings, wire
from tests.processor import at_most

HOST = b"Host: x\r\n"


def ask(request: bytes, **settings: Any) -> tuple[bytes, list[Any], list[Any]]:
    """What is written for ``request``, and the scopes and events; the same however the bytes are cut."""
    outcomes = []
    for segments in (
        [request],
        [request[at : at + 1] for at in range(len(request))],
        [request[:7], request[7:]],
    ):
        app = Recorder()
        with wire(app, **settings) as w:
            outcomes.append((w.feed(*segments), app.scopes, app.events))
    first = outcomes[0]
    for sent, scopes, events in outcomes[1:]:
        assert sent == first[0]
        assert [scope["method"] for scope in scopes] == [scope["method"] for scope in first[1]]
        assert [scope["headers"] for scope in scopes] == [scope["headers"] for scope in first[1]]
        assert b"".join(e["body"] for event in events for e in event if "body" in e) == b"".join(
            e["body"] for event in first[2] for e in event if "body" in e
        )
    return first


@pytest.mark.parametrize(
    "method",
    [
        b"DESCRIBE",
        b"PLAY",
        b"GET_PARAMETER",
        b"FLUSH",
        b"FOO",
        b"FOOBAR",
        b"-BLARGH",
        b"A.B",
        b"X-1!$%&'*+^_`|~",
        b"1GET",
        b"A" * 20,
    ],
)
def test_a_method_that_llhttp_does_not_know(method: bytes) -> None:
    """A token of 3 to 20 capitals, digits and symbols; the connection goes on, bodies too."""
    request = method + b" /p?q HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
    chunked = method + b" /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n"
    sent, scopes, events = ask(request + chunked + b"GET / HTTP/1.1\r\n" + HOST + b"\r\n" + request)
    assert [scope["method"] for scope in scopes] == [method.decode(), method.decode(), "GET", method.decode()]
    assert [scope["path"] for scope in scopes] == ["/p", "/c", "/", "/p"]
    assert scopes[0]["query_string"] == b"q"
    assert sent.count(b"HTTP/1.1 204 No Content\r\n") == 4
    assert b"".join(event["body"] for events_ in events for event in events_) == b"abcdeabc"


@pytest.mark.parametrize(
    "method", [b"AB", b"A" * 21, b"foo", b"Foo", b"FO#", b"F(O", b"get", b'"AB"', b"A\x80B", b"BAD\r\n"]
)
def test_what_is_no_method_is_refused(method: bytes) -> None:
    """As by gunicorn."""
    sent, scopes, _ = ask(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n")
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert not scopes


@pytest.mark.parametrize(
    ("method", "casefold", "seen"),
    [
        (b"-blargh", True, "-BLARGH"),
        (b"-blargh", False, "-blargh"),
        (b"a", False, "a"),
        (b"get", True, "GET"),
        (b"get", False, "get"),
        (b"#x", False, "#x"),
        (b"x" * 30, False, "x" * 30),
    ],
)
def test_unconventional_methods(method: bytes, casefold: bool, seen: str) -> None:
    """Any token, if it is permitted; in capitals, if that is set."""
    settings = {"permit_unconventional_http_method": True, "casefold_http_method": casefold}
    request = method + b" /foo HTTP/1.1\r\n" + HOST + b"\r\n"
    sent, scopes, _ = ask(request + b"POST / HTTP/1.1\r\n" + HOST + b"\r\n", **settings)
    assert [scope["method"] for scope in scopes] == [seen, "POST"]
    assert sent.count(b"HTTP/1.1 204 ") == 2


def test_a_method_that_is_no_token_is_never_permitted() -> None:
    """RFC 9110 9.1."""
    for method in b"a(b", b"a\x80", b"":
        sent, scopes, _ = ask(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n", permit_unconventional_http_method=True)
        assert sent.startswith(b"HTTP/1.1 400 ")
        assert not scopes


@pytest.mark.parametrize(
    ("version", "ends"), [(b"0.9", True), (b"1.2", False), (b"2.0", False), (b"9.9", False), (b"0.0", True)]
)
def test_unconventional_versions(version: bytes, ends: bool) -> None:
    """The application sees it; before HTTP/1.1 the connection ends with the response. Off by default."""
    request = b"GET / HTTP/" + version + b"\r\n" + HOST + b"\r\n"
    sent, scopes, _ = ask(request, permit_unconventional_http_version=True)
    assert [scope["http_version"] for scope in scopes] == [version.decode()]
    assert (b"Connection: close" in sent) is ends
    refused, scopes, _ = ask(request)
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert not scopes


@pytest.mark.parametrize("version", [b"HTTP/1", b"HTTP/11.1", b"http/1.1", b"RTSP/1.0", b"HTTP/1.1 "])
def test_what_is_no_version_is_never_permitted(version: bytes) -> None:
    """RFC 9112 2.3."""
    sent, scopes, _ = ask(b"GET / " + version + b"\r\n" + HOST + b"\r\n", permit_unconventional_http_version=True)
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert not scopes


def test_spaces_before_a_colon() -> None:
    """They are stripped, if that is set, and framing goes by what remains."""
    request = (
        b"POST / HTTP/1.1\r\nHost \t: x\r\nContent-Length : 3\r\nA: b : c\r\n\r\nabcGET / HTTP/1.1\r\n" + HOST + b"\r\n"
    )
    _, scopes, events = ask(request, strip_header_spaces=True)
    assert scopes[0]["headers"] == [(b"host", b"x"), (b"content-length", b"3"), (b"a", b"b : c")]
    assert len(scopes) == 2
    assert events[0][-1]["body"] == b"abc"
    assert ask(request)[0].startswith(b"HTTP/1.1 400 ")


def test_folded_lines() -> None:
    """They are joined by one space, if that is permitted."""
    request = (
        b"GET / HTTP/1.1\r\nLong: one \r\n\t two\r\n   \r\n three\r\n"
        + HOST
        + b"\r\nGET / HTTP/1.1\r\n"
        + HOST
        + b"\r\n"
    )
    _, scopes, _ = ask(request, permit_obsolete_folding=True)
    assert scopes[0]["headers"] == [(b"long", b"one two  three"), (b"host", b"x")]
    assert len(scopes) == 2
    assert ask(request)[0].startswith(b"HTTP/1.1 400 ")


def test_the_lines_of_a_folded_field_are_no_fields() -> None:
    """A certificate that a proxy passes on has a hundred of them."""
    certificate = b"Cert: begin" + b"\r\n line" * 150 + b"\r\n"
    fields = b"".join(b"A: %d\r\n" % number for number in range(98))
    request = b"GET / HTTP/1.1\r\n" + HOST + fields + certificate + b"\r\n"
    _, scopes, _ = ask(request, permit_obsolete_folding=True)
    assert scopes[0]["headers"][-1] == (b"cert", b"begin" + b" line" * 150)
    one_more = request.replace(certificate, certificate + b"B: c\r\n")
    assert ask(one_more, permit_obsolete_folding=True)[0].startswith(b"HTTP/1.1 431 ")


def test_a_field_of_many_lines_takes_no_time() -> None:
    """Its lines are joined once: each by itself would copy all before it."""
    head = b"GET / HTTP/1.1\r\nA: b" + b"\r\n c" * 200_000 + b"\r\n"
    settings = make_settings(permit_obsolete_folding=True, limit_request_field_size=1 << 20)
    with at_most(2.0):
        copied, _ = rewrite(head, settings)
    assert copied == head.replace(b"\r\n c", b" c")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n  : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\x00\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n 1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 1\r\n \r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip,\r\n chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length : 1\r\n\r\n", 400),
        (b"POST / HTTP/0.9\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 4000 + (b"\r\n " + b"c" * 3000) * 2 + b"\r\n\r\n", 431),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
)
def test_framing_stays_strict(head: bytes, status: int) -> None:
    """With everything permitted that there is, and the limits hold."""
    sent, _, _ = ask(
        head,
        permit_unconventional_http_method=True,
        permit_unconventional_http_version=True,
        strip_header_spaces=True,
        permit_obsolete_folding=True,
    )
    assert sent.startswith(b"HTTP/1.1 %d " % status)


def test_trailers_stay_strict() -> None:
    """They are read by the parser as they come."""
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    for trailer in b"A : b\r\n\r\n", b"A: b\r\n c\r\n\r\n":
        with wire(Recorder(), strip_header_spaces=True, permit_obsolete_folding=True) as w:
            assert w.feed(head + trailer).startswith(b"HTTP/1.1 400 ")


def test_nothing_is_rewritten_that_is_not_permitted() -> None:
    """Each setting by itself."""
    head = b"GET / HTTP/1.2\r\nA : b\r\n c\r\n\r\n"
    assert rewrite(head, make_settings()) == (head, "")
    version = make_settings(permit_unconventional_http_version=True)
    assert rewrite(head, version) == (head.replace(b"1.2", b"1.1"), "1.2")
    assert rewrite(head, make_settings(strip_header_spaces=True))[0] == head.replace(b"A :", b"A:")
    assert rewrite(head, make_settings(permit_obsolete_folding=True))[0] == head.replace(b"\r\n c", b" c")


def test_a_method_is_judged_by_the_settings() -> None:
    """Casefolding permits nothing by itself."""
    assert true_method(b"FOO / HTTP/1.1\r\n", make_settings(casefold_http_method=True)) == (b"FOO", b"FOO")
    with pytest.raises(ProtocolError):
        true_method(b"foo / HTTP/1.1\r\n", make_settings(casefold_http_method=True))
