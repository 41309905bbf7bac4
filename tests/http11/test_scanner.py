"""HeadScanner and ChunkScanner: lines, limits, and the same outcome for every segmentation."""

from __future__ import annotations

import pytest

from hybridworker.connection.proxyheader import V1_START, V2_START
from hybridworker.http11.scanner import PROXY_V1, PROXY_V2, ChunkScanner, HeadScanner, misdirected
from tests.harness import make_settings

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"


def scan(scanner: HeadScanner | ChunkScanner, *segments: bytes) -> tuple[bytes, bytes, int | None]:
    """What the parser would get, what is left, and the status of the error."""
    lines, rest = b"", b""
    for index, segment in enumerate(segments):
        more, rest = scanner.feed(segment)
        lines += more
        if scanner.error is not None or scanner.complete:
            rest += b"".join(segments[index + 1 :])
            break
    return lines, rest, None if scanner.error is None else scanner.error.status


def segmentations(data: bytes) -> list[list[bytes]]:
    """Whole, byte by byte, and cut once at every position."""
    cuts = [[data[:i], data[i:]] for i in range(1, len(data))]
    return [[data], [bytes([byte]) for byte in data], *cuts]


@pytest.mark.parametrize(
    ("data", "lines", "rest", "status"),
    [
        (HEAD, HEAD, b"", None),
        (HEAD + b"body", HEAD, b"body", None),
        (b"\r\n" + HEAD, HEAD, b"", None),
        (b"\r\n\r\n" + HEAD, b"", b"", 400),
        (b"\n" + HEAD, b"", b"", 400),
        (b"\r\n\n" + HEAD, b"", b"", 400),
        (PROXY_V2 + b"\x21\x11\x00\x00" + HEAD, b"", b"", 400),
        (PROXY_V2[:-1] + HEAD, b"", b"", 400),
        (b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\n\n", b"", None),
        (b"\x16\x03\x01", b"", b"", 400),
        (b"GET /" + b"a" * 20 + b" HTTP/1.1\r\n\r\n", b"", b"", 414),
        (b"GET /" + b"a" * 60, b"", b"", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 30 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n", b"", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 60, b"GET / HTTP/1.1\r\n", b"", 431),
        (
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4,
            b"",
            431,
        ),
        (
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4 + b"\r\n",
            b"",
            None,
        ),
    ],
)
def test_a_head_ends_the_same_way_however_it_is_cut(data: bytes, lines: bytes, rest: bytes, status: int | None) -> None:
    """Lines, rest and error depend on the bytes alone."""
    settings = make_settings(limit_request_line=25, limit_request_field_size=30, limit_request_fields=4)
    for segments in segmentations(data):
        got_lines, got_rest, got_status = scan(HeadScanner(settings), *segments)
        assert (got_lines, got_status) == (lines, status), segments
        if status is None:
            assert got_rest == rest, segments


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\r\n\r\n" + HEAD, "empty lines before the request line"),
        (b"\n", "empty lines before the request line"),
        (PROXY_V2[:-1] + HEAD, "empty lines before the request line"),
        (PROXY_V2 + b"\x21\x11\x00\x00" + HEAD, "a PROXY header, and proxy_protocol is off"),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", "a TLS handshake on a port without certfile"),
        (b"\x17\x03\x01", "the request line does not begin with a method"),
    ],
)
def test_the_reason_for_a_refusal_is_the_same_however_the_bytes_are_cut(data: bytes, reason: str) -> None:
    """A second empty line is waited behind only while it may be the beginning of a PROXY header."""
    for segments in segmentations(data):
        scanner = HeadScanner(make_settings())
        for segment in segments:
            scanner.feed(segment)
            if scanner.error is not None:
                break
        assert str(scanner.error) == reason, segments


def test_a_second_empty_line_is_refused_when_more_or_nothing_more_of_a_proxy_header_has_come() -> None:
    """Until then there is no outcome."""
    scanner = HeadScanner(make_settings())
    for at in range(len(PROXY_V2) - 1):
        assert scanner.feed(PROXY_V2[at : at + 1]) == (b"", b"")
        assert scanner.error is None
    scanner.feed(PROXY_V2[-1:])
    assert str(scanner.error) == "a PROXY header, and proxy_protocol is off"


@pytest.mark.parametrize(
    ("data", "mode", "reason"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "off", "a PROXY header, and proxy_protocol is off"),
        (b"PROXY UNKNOWN\r\n", "v2", "a PROXY header, and proxy_protocol is v2"),
        (PROXY_V2, "v1", "a PROXY header, and proxy_protocol is v1"),
        (PROXY_V2, "v2", "a PROXY header that is not the first thing on its connection"),
        (b"PROXY TCP6 ::1 ::1 1 2\r\n", "auto", "a PROXY header that is not the first thing on its connection"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "off", "HTTP/2 is not served (let the proxy speak HTTP/1.1)"),
        (b"SM\r\n\r\n", "off", "HTTP/2 is not served (let the proxy speak HTTP/1.1)"),
        (b"PROXY / HTTP/1.1\r\n", "off", ""),
        (b"PRI / HTTP/1.1\r\n", "off", ""),
        (b"", "off", ""),
    ],
)
def test_what_a_wrong_configuration_sends_is_named(data: bytes, mode: str, reason: str) -> None:
    """With the setting that it is about."""
    assert misdirected(data, make_settings(proxy_protocol=mode)) == reason


def test_a_handshake_inside_of_tls_is_no_lack_of_a_certificate() -> None:
    """Whatever it is."""
    assert misdirected(b"\x16\x03\x01", make_settings()) != ""
    assert misdirected(b"\x16\x03\x01", make_settings(is_ssl=True)) == ""


def test_proxy_headers_begin_as_those_that_are_read() -> None:
    """By :mod:`.forwarded`, which stands beside."""
    assert PROXY_V2 == V2_START
    assert all(start.startswith(V1_START) for start in PROXY_V1)


def test_limits_are_met_exactly() -> None:
    """A line of just the allowed size passes, one byte more does not."""
    settings = make_settings(limit_request_line=20, limit_request_field_size=20)
    line = b"GET /" + b"a" * 6 + b" HTTP/1.1"
    field = b"A: " + b"b" * 15
    assert (len(line), len(field) + 2) == (20, 20)
    for segments in segmentations(line + b"\r\n" + field + b"\r\n\r\n"):
        assert scan(HeadScanner(settings), *segments)[2] is None, segments
    for segments in segmentations(line + b"a\r\n\r\n"):
        assert scan(HeadScanner(settings), *segments)[2] == 414
    for segments in segmentations(line + b"\r\n" + field + b"b\r\n\r\n"):
        assert scan(HeadScanner(settings), *segments)[2] == 431


def test_the_whole_head_is_limited_as_well() -> None:
    """Where single lines are unlimited, their sum is not."""
    settings = make_settings(limit_request_field_size=1000, max_head_size=60)
    data = b"GET / HTTP/1.1\r\n" + b"A: bcdefghi\r\n" * 6
    for segments in segmentations(data):
        assert scan(HeadScanner(settings), *segments)[2] == 431


@pytest.mark.parametrize(
    ("data", "fed", "rest", "status"),
    [
        (b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"", None),
        (b'3;x="y"\r\nabc\r\n0\r\n\r\nGET', b'3;x="y"\r\nabc\r\n0\r\n\r\n', b"GET", None),
        (b"0\r\nA: b\r\nC: d\r\n\r\nGET", b"0\r\nA: b\r\nC: d\r\n\r\n", b"GET", None),
        (b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\nGET", b"a\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"GET", None),
        (b"1;" + b"x" * 40 + b"\r\n", b"", b"", 400),
        (b"1;" + b"x" * 80, b"", b"", 400),
        (b"0\r\nA: " + b"b" * 40 + b"\r\n\r\n", b"0\r\n", b"", 431),
        (b"0\r\n" + b"A: b\r\n" * 5 + b"\r\n", b"0\r\n" + b"A: b\r\n" * 4, b"", 431),
        (b"0\r\nHost: b\r\n\r\n", b"0\r\n", b"", 400),
        (b"0\r\nAuthorization: b\r\n\r\n", b"0\r\n", b"", 400),
    ],
)
def test_a_chunked_body_ends_the_same_way_however_it_is_cut(
    data: bytes, fed: bytes, rest: bytes, status: int | None
) -> None:
    """What the parser gets, and where the body ends, depend on the bytes alone."""
    settings = make_settings(limit_request_field_size=30, limit_request_fields=4)
    for segments in segmentations(data):
        got, got_rest, got_status = scan(ChunkScanner(settings), *segments)
        assert (got, got_status) == (fed, status), segments
        if status is None:
            assert got_rest == rest, segments


def test_what_is_no_chunk_size_is_left_to_the_parser() -> None:
    """The scanner finds lines; the parser is the one judge of them."""
    scanner = ChunkScanner(make_settings())
    assert scanner.feed(b"xyz\r\n") == (b"xyz\r\n", b"")
    assert scanner.error is None


def test_an_unfinished_chunk_is_handed_on_as_it_comes() -> None:
    """Only lines are held back."""
    scanner = ChunkScanner(make_settings())
    assert scanner.feed(b"5\r\nab") == (b"5\r\nab", b"")
    assert scanner.feed(b"cde") == (b"cde", b"")
    assert scanner.feed(b"\r\n0") == (b"\r\n", b"")
    assert not scanner.complete
    assert scanner.feed(b"\r\n\r\n") == (b"0\r\n\r\n", b"")
    assert scanner.complete


@pytest.mark.parametrize("extension", [b";=a", b";a=", b";", b';a="b', b";a b", b";a=b;"])
def test_a_malformed_chunk_extension_is_an_error(extension: bytes) -> None:
    """RFC 9112 7.1.1: a name, and perhaps a token or a quoted string."""
    scanner = ChunkScanner(make_settings())
    scanner.feed(b"1" + extension + b"\r\n")
    assert scanner.error is not None
