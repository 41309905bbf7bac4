"""The values of PEP 3333: what is taken from an application, what is refused, and with which words."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker.errors import WSGIError
from hybridworker.wsgi.validation import encode_fields, encode_status, iterate, length_field


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("200 OK", 200, None),
        ("404 Not Found", 404, None),
        ("200 Fine", 200, b"Fine"),
        ("299 Custom Reason", 299, b"Custom Reason"),
        ("299", 299, b""),
        ("200", 200, b""),
        ("200 ", 200, b""),
        ("200 caf\xe9\tand", 200, b"caf\xe9\tand"),
    ],
)
def test_s20_status_with_any_phrase_and_without(status: str, code: int, reason: bytes | None) -> None:
    """Any three digits are taken; the phrase is passed on where it is not the registered one."""
    for _ in range(2):  # once parsed, once from the cache
        assert encode_status(status) == (code, reason)


@pytest.mark.parametrize(
    "status", ["", "OK", "20 OK", "2000 X", "200OK", "200 a\r\nb", "200 \u20ac", b"200 OK", 200, None, []]
)
def test_status_that_is_none(status: Any) -> None:
    """What is not three digits and a phrase is refused, with the rule that it breaks."""
    with pytest.raises(WSGIError, match=r"is not a status like '200 OK' \(PEP 3333"):
        encode_status(status)


@pytest.mark.parametrize("status", ["101 Switching Protocols", "100 Continue", "103", "199 X", "099 X", "000"])
def test_status_that_ends_nothing(status: str) -> None:
    """An interim response is refused where it was asked for, each time, and not by the loop later."""
    for _ in range(2):
        with pytest.raises(WSGIError, match=r"is not the status of a final response, 200 or more \(RFC 9110 15\.2\)"):
            encode_status(status)


def test_s19_fields_are_latin1() -> None:
    """Values may hold every character of latin-1 that is no control; names keep their case."""
    fields, length = encode_fields([("X-Name", "caf\xe9\xa0\xad\tx"), ("x-name", "")])
    assert fields == [(b"X-Name", b"caf\xe9\xa0\xad\tx"), (b"x-name", b"")]
    assert length is None


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\rb", "\0", "\x7f", "\x85", "\u20ac", "\U0001f600", b"x", 1, None]
)
def test_s19_bad_value_is_refused_without_being_shown(value: Any) -> None:
    """Control characters, characters beyond latin-1 and other types are refused; the message has the name only."""
    if value == "\x85":  # obs-text, which RFC 9110 5.5 allows
        assert encode_fields([("X-Name", value)])[0] == [(b"X-Name", b"\x85")]
        return
    with pytest.raises(WSGIError, match=r"^the value of X-Name (is|has)[^€]*\(PEP 3333"):
        encode_fields([("X-Name", value)])


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\xe4", b"x", 1, None])
def test_s19_bad_name(name: Any) -> None:
    """A name is a token of RFC 9110."""
    for _ in range(2):
        with pytest.raises(WSGIError, match="is not a header name"):
            encode_fields([(name, "x")])


def test_s18_hop_by_hop_fields_are_dropped() -> None:
    """The server's business is left to the server; Connection goes on, because its "close" is obeyed."""
    dropped = "Keep-Alive Proxy-Authenticate Proxy-Authorization TE Trailers Transfer-Encoding UPGRADE Server date"
    for _ in range(2):
        fields, _length = encode_fields([*((name, "x") for name in dropped.split()), ("Connection", "close")])
        assert fields == [(b"Connection", b"close")]


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_content_length_is_read(name: str) -> None:
    """The announced length is recognised in any case, and optional whitespace around it is cut."""
    assert encode_fields([(name, " 12\t"), ("A", "b")]) == ([(b"Content-Length", b"12"), (b"A", b"b")], 12)


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "0x1", "\xb2", "1 2"])
def test_content_length_that_is_no_number(value: str) -> None:
    """A length that the peers would understand differently is refused."""
    with pytest.raises(WSGIError, match="the value of Content-Length is not a number"):
        encode_fields([("Content-Length", value)])


def test_content_lengths_that_disagree() -> None:
    """Nobody could know where the body ends; one that merely repeats itself is sent once (RFC 9110 8.6)."""
    with pytest.raises(WSGIError, match=r"two content-length fields disagree \(RFC 9110 8\.6\)"):
        encode_fields([("Content-Length", "1"), ("A", "b"), ("content-length", "2")])
    fields, length = encode_fields([("Content-Length", "10"), ("A", "b"), ("content-length", " 010")])
    assert (fields, length) == ([(b"Content-Length", b"10"), (b"A", b"b")], 10)


def test_length_field() -> None:
    """The field that the server adds looks like one of an application's."""
    assert encode_fields([("content-length", "7")]) == ([length_field(7)], 7)


@pytest.mark.parametrize("returned", [None, 5, object()])
def test_what_is_not_iterable(returned: Any) -> None:
    """An application must return an iterable."""
    with pytest.raises(WSGIError, match=f"returned {type(returned).__name__}, not an iterable of bytes"):
        iterate(returned)


def test_what_is_iterable() -> None:
    """Sequences and iterators will do, as anywhere."""
    assert list(iterate((b"a",))) == list(iterate(iter([b"a"]))) == [b"a"]
