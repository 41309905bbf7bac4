"""The bytes of a response head: status lines, validation of names and values, framing, the server's own pages."""

from __future__ import annotations

import http
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from hybridworker import cache
from hybridworker.connection import response
from hybridworker.connection.errorpages import error_response
from hybridworker.connection.response import (
    CLOSE,
    CONNECTION,
    DATE,
    LENGTH,
    SERVER,
    TRANSFER,
    as_bytes,
    bodiless,
    default_fields,
    encode_fields,
    encode_trailers,
    field_list,
    server_fields,
    status_line,
)
from hybridworker.errors import InvalidMessage
from tests.harness import GET, HELLO, body, responder, start, wire

CONTROLS = [bytes([byte]) for byte in [*range(9), *range(10, 32), 127]]
NO_TOKEN = [bytes([byte]) for byte in range(256) if not (chr(byte).isascii() and chr(byte).isalnum())]
NO_TOKEN = [byte for byte in NO_TOKEN if byte not in b"!#$%&'*+-.^_`|~"]


@pytest.fixture(autouse=True)
def no_line_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with an empty cache of lines."""
    monkeypatch.setattr(response.LINES, "known", {})
    monkeypatch.setattr(response.LINES, "repeated", {})


# -- status lines


@pytest.mark.parametrize("status", list(http.HTTPStatus))
def test_a_registered_status_has_its_phrase(status: http.HTTPStatus) -> None:
    """The phrase is that of the registry."""
    assert status_line(status) == f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii")


def test_an_unregistered_status_has_an_empty_phrase() -> None:
    """RFC 9112 4: the space behind the code is sent even when the phrase is absent."""
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize("reason", [b"", b"Very Well", b"caf\xe9", b"a\tb"])
def test_s20_a_reason_is_sent_as_given(reason: bytes) -> None:
    """PEP 3333 leaves the phrase to the application."""
    assert status_line(200, reason) == b"HTTP/1.1 200 %b\r\n" % reason


@pytest.mark.parametrize("control", CONTROLS)
def test_a_reason_holds_no_control_character(control: bytes) -> None:
    """A line end in it would be a second header."""
    with pytest.raises(InvalidMessage, match="reason phrase"):
        status_line(200, b"a" + control + b"b")


# -- the server's own fields


def test_h49_server_and_date_are_two_lines() -> None:
    """The date is an IMF-fixdate (RFC 9110 5.6.7)."""
    assert default_fields(b"gunicorn", 784111777.9) == b"Server: gunicorn\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        (0, b"Server: s\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        (DATE, b"Server: s\r\n"),
        (SERVER, b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"),
        (DATE | SERVER, b""),
    ],
)
def test_h49_the_applications_own_fields_win(seen: int, kept: bytes) -> None:
    """There are never two."""
    assert server_fields(default_fields(b"s", 0), seen) == kept


# -- fields


def test_h36_fields_are_encoded_in_order() -> None:
    """Names keep their case, repeats are never folded."""
    fields = [(b"B", b"1"), (b"set-cookie", b"a"), (b"Set-Cookie", b"b"), (b"a", b"")]
    assert encode_fields(fields) == (b"B: 1\r\nset-cookie: a\r\nSet-Cookie: b\r\na: \r\n", None, 0)


@pytest.mark.parametrize("again", [False, True], ids=["new", "remembered"])
@pytest.mark.parametrize(
    ("field", "line", "length", "seen"),
    [
        ((b"Content-Length", b"07"), b"Content-Length: 07\r\n", 7, LENGTH),
        ((b"Transfer-Encoding", b"chunked"), b"", None, TRANSFER),
        ((b"Keep-Alive", b"timeout=5"), b"", None, TRANSFER),
        ((b"Connection", b"keep-alive"), b"", None, CONNECTION),
        ((b"connection", b"foo, Close"), b"", None, CONNECTION | CLOSE),
        ((b"DATE", b"now"), b"DATE: now\r\n", None, DATE),
        ((b"server", b"mine"), b"server: mine\r\n", None, SERVER),
        ((b"a", b"\t caf\xc3\xa9 \xff"), b"a: \t caf\xc3\xa9 \xff\r\n", None, 0),
    ],
)
def test_h34_what_a_field_means(
    field: tuple[bytes, bytes], line: bytes, length: int | None, seen: int, again: bool
) -> None:
    """The server writes framing and Connection itself, and notices the rest; the second time from memory."""
    for _ in range(1 + again):
        assert encode_fields([field]) == (line, length, seen)
    assert field in response.LINES.known


def test_lists_are_pairs_as_well() -> None:
    """Anything of two parts is a field, also a list, which cannot be looked up."""
    assert encode_fields([[b"a", b"b"], [b"content-length", b"3"]]) == (  # type: ignore[list-item]
        b"a: b\r\ncontent-length: 3\r\n",
        3,
        LENGTH,
    )


def test_h37_any_iterable_will_do() -> None:
    """Also one that can be read once only."""
    assert encode_fields((name, b"1") for name in (b"a", b"b")) == (b"a: 1\r\nb: 1\r\n", None, 0)


@pytest.mark.parametrize("control", CONTROLS)
def test_s19_no_value_holds_a_control_character(control: bytes) -> None:
    """CR or LF would split the response, NUL is cut by some readers; a tab is legal."""
    for value in (control, b"a" + control, control + b"b", b"\r\n" + control):
        with pytest.raises(InvalidMessage, match="CR, LF, NUL"):
            encode_fields([(b"a", value)])
    assert response.LINES.known == {}


@pytest.mark.parametrize("byte", NO_TOKEN)
def test_c8_a_name_is_a_token(byte: bytes) -> None:
    """RFC 9110 5.6.2; a colon or a line end in a name would be another field."""
    for name in (byte, b"a" + byte, byte + b"b"):
        with pytest.raises(InvalidMessage, match="header name"):
            encode_fields([(name, b"v")])


def test_every_token_is_a_name() -> None:
    """No legal name is refused."""
    name = bytes(byte for byte in range(33, 127) if bytes([byte]) not in NO_TOKEN)
    assert encode_fields([(name, b"v")])[0] == name + b": v\r\n"


def _no_pairs() -> Iterator[Any]:
    yield b"ab"
    yield (b"a",)
    yield (b"a", b"b", b"c")
    yield ("a", b"b")
    yield (b"a", "b")
    yield (b"a", 1)
    yield (b"a", None)
    yield (b"a", bytearray(b"b"))
    yield (bytearray(b"a"), b"b")
    yield [bytearray(b"a"), b"b"]
    yield b""
    yield None
    yield 1


@pytest.mark.parametrize("field", list(_no_pairs()), ids=repr)
def test_c8_fields_are_pairs_of_bytes(field: Any) -> None:
    """Whatever else an application sends as a field is its mistake, and named so."""
    with pytest.raises(InvalidMessage):
        encode_fields([field])


@pytest.mark.parametrize("headers", [None, 1, "ab"])
def test_c8_headers_are_an_iterable_of_pairs(headers: Any) -> None:
    """A missing list is the caller's affair."""
    with pytest.raises(InvalidMessage, match="iterable"):
        encode_fields(headers)


def test_h37_the_headers_of_a_message_become_a_list() -> None:
    """Absent, empty, or any iterable; each field a pair."""
    assert field_list({"type": "http.response.start"}) == []
    assert field_list({"type": "http.response.start", "headers": ()}) == []
    assert field_list({"type": "http.response.start", "headers": iter([[b"a", b"b"]])}) == [(b"a", b"b")]


@pytest.mark.parametrize("headers", [1, [b"abc"], [(b"a",)], [None]])
def test_c8_headers_that_are_no_pairs_have_no_list(headers: Any) -> None:
    """The mistake is named."""
    with pytest.raises(InvalidMessage, match="pairs"):
        field_list({"type": "http.response.start", "headers": headers})


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"0x1", b"1 ", b"1, 1", b"1_0", b"\xb2"])
def test_a_content_length_is_digits(value: bytes) -> None:
    """RFC 9110 8.6."""
    with pytest.raises(InvalidMessage, match="Content-Length"):
        encode_fields([(b"content-length", value)])


def test_a_repeated_content_length_is_sent_once() -> None:
    """RFC 9110 8.6: two that agree are one."""
    fields = [(b"content-length", b"5"), (b"Content-Length", b"05"), (b"a", b"b")]
    assert encode_fields(fields) == (b"content-length: 5\r\na: b\r\n", 5, LENGTH)


def test_two_content_lengths_that_disagree_are_an_error() -> None:
    """Two opinions on framing are a smuggling primitive."""
    with pytest.raises(InvalidMessage, match="disagree"):
        encode_fields([(b"content-length", b"5"), (b"content-length", b"6")])


def test_the_memory_for_lines_is_bounded() -> None:
    """Neither many lines nor long ones fill the process: the cache is emptied, and a long line is not kept."""
    limit = cache.LIMIT
    for number in range(limit + 1):
        encode_fields([(b"a", b"%d" % number)])
    assert list(response.LINES.known) == [(b"a", b"%d" % limit)]
    long = (b"a", b"x" * response.FIELD_MAX)
    assert encode_fields([long])[0].endswith(b"x\r\n")
    assert long not in response.LINES.known


def test_fields_of_which_each_is_known_are_remembered_together() -> None:
    """From the second time on, as one; with the first of its kind among them they may be the only ones."""
    for number, fields in enumerate([[(b"a", b"1")], [(b"a", b"1"), (b"content-length", b"2")]] * 3):
        assert encode_fields(fields)[1] == (2 if len(fields) == 2 else None)
        assert (tuple(fields) in response.LINES.repeated) == (number > 1)
    assert encode_fields(iter(fields)) == (b"a: 1\r\ncontent-length: 2\r\n", 2, LENGTH)


def test_many_known_fields_are_not_remembered_together() -> None:
    """The memory for them is bounded as well, by their bytes and by the limit of every cache."""
    fields = [(b"a", b"x" * 100)] * 6
    assert encode_fields(fields) == encode_fields(fields)
    assert response.LINES.repeated == {}
    for number in range(cache.LIMIT + 1):
        for _ in range(2):
            encode_fields([(b"a", b"%d" % number)])
    assert list(response.LINES.repeated) == [((b"a", b"%d" % cache.LIMIT),)]


def test_a_fault_is_found_each_time() -> None:
    """Known fields that do not go together are refused whenever they come."""
    fields = [(b"content-length", b"5"), (b"content-length", b"6")]
    for _ in range(3):
        with pytest.raises(InvalidMessage):
            encode_fields(fields)
    assert response.LINES.repeated == {}


# -- trailers


def test_x17_trailers_are_lines() -> None:
    """The same rules as for fields."""
    assert encode_trailers([(b"a", b"b"), (b"a", b"c")]) == b"a: b\r\na: c\r\n"
    with pytest.raises(InvalidMessage):
        encode_trailers([(b"a", b"b\nc")])


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding"])
def test_trailers_do_not_frame(name: bytes) -> None:
    """RFC 9110 6.5.1."""
    with pytest.raises(InvalidMessage, match="trailers"):
        encode_trailers([(name, b"1")])


# -- bodies


@pytest.mark.parametrize("data", [b"ab", bytearray(b"ab"), memoryview(b"ab")])
def test_h50_bytes_like_bodies_become_bytes(data: Any) -> None:
    """Whatever has bytes will do."""
    assert as_bytes(data) == b"ab"
    assert type(as_bytes(data)) is bytes


@pytest.mark.parametrize("data", ["ab", None, 2, [97], {}])
def test_c8_nothing_else_is_a_body(data: Any) -> None:
    """``bytes(2)`` would be two NULs."""
    with pytest.raises(InvalidMessage, match="body must be bytes"):
        as_bytes(data)


@pytest.mark.parametrize(
    ("method", "status", "expected"),
    [
        ("GET", 200, False),
        ("GET", 204, True),
        ("GET", 304, True),
        ("POST", 205, False),
        ("HEAD", 200, True),
        ("HEAD", 500, True),
        ("GET", 404, False),
    ],
)
def test_h41_which_answers_have_no_body(method: str, status: int, expected: bool) -> None:
    """RFC 9110 6.4.1."""
    assert bodiless(method, status) is expected


# -- on the wire


@pytest.mark.parametrize(
    "field",
    [
        (b"a", b"b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (b"a\r\nb", b"c"),
        (b"a: b\nc", b"d"),
        (b"a", b"\nb"),
        (b"a", b"b\r"),
        (b"a", b"b\0c"),
        (b"", b"a"),
        (b"caf\xe9", b"a"),
    ],
)
def test_nothing_of_a_split_response_is_written(field: tuple[bytes, bytes]) -> None:
    """The violation is a clean 500, logged once, and nothing of the field leaves the server."""
    with wire(responder(start(200, (b"x-before", b"1"), field), body(b"ok"))) as w:
        sent = w.feed(GET)
        assert sent == error_response(500, b"")
        assert len(w.log.at("exception")) == 1


@pytest.mark.parametrize(
    "headers",
    [
        [(b"transfer-encoding", b"chunked")],
        [(b"Transfer-Encoding", b"gzip, chunked"), (b"connection", b"keep-alive")],
        [(b"connection", b"transfer-encoding"), (b"keep-alive", b"timeout=9")],
        [(b"connection", b"upgrade"), (b"upgrade", b"foo")],
    ],
)
@pytest.mark.parametrize("length", [True, False])
def test_h34_hop_by_hop_fields_do_not_break_framing(headers: list[tuple[bytes, bytes]], length: bool) -> None:
    """With a length the body is as it is, without one it is in chunks, and the connection goes on."""
    framing = [(b"content-length", b"2")] if length else []
    with wire(responder(start(200, *headers, *framing), body(b"ok"))) as w:
        sent = w.feed(GET)
        head, _, rest = sent.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        assert rest == (b"ok" if length else b"2\r\nok\r\n0\r\n\r\n")
        assert lines.count(b"content-length: 2") == length
        assert lines.count(b"transfer-encoding: chunked") == (not length)
        assert not any(line.startswith((b"connection:", b"keep-alive:")) for line in lines)
        assert w.feed(GET) == sent * 2


@pytest.mark.parametrize("parts", [[b"123456"], [b"123", b"456"], [b"12345", b"6"], [b"12345", b"", b"x"]])
def test_h42_what_exceeds_the_length_never_leaves(parts: list[bytes]) -> None:
    """Bytes beyond Content-Length would be the next response; the connection ends instead."""
    messages = [body(part, more=index + 1 < len(parts)) for index, part in enumerate(parts)]
    with wire(responder(start(200, (b"content-length", b"5")), *messages)) as w:
        sent = w.feed(GET)
        if len(parts) == 1:
            assert sent == error_response(500, b"")
        else:
            assert b"12345".startswith(sent.partition(b"\r\n\r\n")[2])
        assert w.transport.aborted or w.transport.eof


def test_trailers_without_headers_are_waited_for() -> None:
    """A start message may have no headers and promise trailers all the same (ASGI, "Response Start")."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n"
    trailers = {"type": "http.response.trailers", "headers": [(b"a", b"b")]}
    app = responder({"type": "http.response.start", "status": 200, "trailers": True}, body(b"ok"), trailers)
    with wire(app) as w:
        assert w.feed(request).endswith(b"\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n")


def test_a_reason_without_headers_reaches_the_wire() -> None:
    """Also where the start message has nothing else."""
    app = responder({"type": "http.response.start", "status": 200, "hybridworker.reason": b"Well"}, body())
    with wire(app) as w:
        assert w.feed(GET).startswith(b"HTTP/1.1 200 Well\r\n")


@pytest.mark.parametrize("name", [b"content-length", b"Transfer-Encoding"])
def test_an_informational_response_does_not_frame(name: bytes) -> None:
    """RFC 9110 8.6 and RFC 9112 6.1: a 1xx has neither, or the next head would be read as its body."""
    hint = {"type": "http.response.informational", "status": 103, "headers": [(name, b"9")]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        with suppress(InvalidMessage):
            await send(hint)
        await HELLO(scope, receive, send)

    with wire(app) as w:
        before, _, after = w.feed(GET).partition(b"HTTP/1.1 200 OK\r\n")
        assert b": 9" not in before
        assert after.endswith(b"hello")
