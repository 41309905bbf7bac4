"""Mutants of the corpus: hypothesis strategies for requests that are nearly right, and for places to cut them."""

from __future__ import annotations

import functools

from hypothesis import strategies as st

from tests.corpus import Case, corpus

#: What smugglers use: pieces that are put between other bytes.
PIECES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b"_",
    b";",
    b",",
    b'"',
    b"0",
    b"-1",
    b"+",
    b"0x",
    b"/",
    b"?",
    b"#",
    b"%",
    b"*",
    b"http://y",
    b"CONNECT ",
    b"OPTIONS ",
    b"HEAD ",
    b" HTTP/1.0",
    b" HTTP/2.0",
    b" RTSP/1.0",
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"5;a=b\r\n",
    b"GET / HTTP/1.1\r\nHost: y\r\n\r\n",
]

#: Lines that change what a head means.
LINES = [
    b"Host: y",
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"Content-Length: 10",
    b"content-length : 3",
    b"Content_Length: 3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer_Encoding: chunked",
    b"transfer-encoding:\tchunked",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Connection: content-length",
    b"Upgrade: foo",
    b"Expect: 100-continue",
    b"Expect: foo",
    b"TE: trailers",
    b"Trailer: Host",
    b"Content-Type: a/b",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Ssl: off",
    b"SCRIPT_NAME: /a",
    b" folded",
    b"no colon",
    b"",
    b"0",
    b"3",
]


@functools.cache
def seeds() -> list[Case]:
    """The valid conversations, and those that fail late."""
    return corpus("valid") + [case for case in corpus("invalid") if case.requests or case.may_be_called]


@st.composite
def mutants(draw: st.DrawFn) -> Case:
    """A conversation of the corpus, joined with others and changed in up to six places; its settings stay."""
    case = draw(st.sampled_from(seeds()))
    data = case.data
    for other in draw(st.lists(st.sampled_from(seeds()), max_size=2)):
        data += other.data
    for _ in range(draw(st.integers(1, 6))):
        data = draw(_changes(data))
    return Case("mutant", data, settings=case.settings, peer=case.peer, wsgi=case.wsgi)


def _changes(data: bytes) -> st.SearchStrategy[bytes]:
    """One change to ``data``."""
    size = len(data)
    places = st.integers(0, size)
    spans = st.tuples(places, st.integers(0, 12))
    lines = data.split(b"\r\n")
    line = st.integers(0, len(lines) - 1)

    def with_lines(first: int, last: int, *new: bytes) -> bytes:
        return b"\r\n".join([*lines[:first], *new, *lines[last:]])

    return st.one_of(
        st.builds(lambda span: data[: span[0]] + data[span[0] + span[1] :], spans),
        st.builds(lambda span, at: data[:at] + data[span[0] : span[0] + span[1]] + data[at:], spans, places),
        st.builds(lambda at, piece: data[:at] + piece + data[at:], places, st.sampled_from(PIECES)),
        st.builds(lambda at, byte: data[:at] + byte + data[at + 1 :], places, st.binary(min_size=1, max_size=1)),
        st.builds(lambda at, byte: data[:at] + byte + data[at:], places, st.binary(min_size=1, max_size=3)),
        st.builds(lambda at, new: with_lines(at, at, new), line, st.sampled_from(LINES)),
        st.builds(lambda at, new: with_lines(at, at + 1, new), line, st.sampled_from(LINES)),
        st.builds(lambda at: with_lines(at, at + 1), line),
        st.builds(lambda at: with_lines(at, at, lines[at]), line),
        st.builds(lambda at, other: with_lines(at, at + 1, lines[other]), line, line),
        st.builds(lambda at: data[:at] + data[at:].swapcase(), places),
        st.builds(lambda at: data[:at], places),
    )


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[int]:
    """Places to cut ``size`` bytes at: few, many, or all."""
    if draw(st.booleans()):
        return draw(st.lists(st.integers(0, size), max_size=6))
    step = draw(st.integers(1, 7))
    return list(range(draw(st.integers(0, step)), size, step))
