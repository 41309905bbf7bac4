"""Mutants of the corpus: hypothesis strategies for requests that are nearly right, and for places to cut them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

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
    b"A: HTTP/1.1",
    b"GET /",
    b"no colon",
    b"",
    b"0",
    b"3",
]


@functools.cache
def seeds() -> list[Case]:
    """The valid conversations, and those that fail late."""
    return corpus("valid") + [case for case in corpus("invalid") if case.requests or case.may_be_called]


class Change(NamedTuple):
    """One change to whatever bytes there are: ``at`` and ``to`` are places, taken modulo the size."""

    kind: int
    at: int
    to: int
    size: int
    piece: bytes
    line: bytes
    noise: bytes

    def apply(self, data: bytes) -> bytes:
        """``data`` with the change."""
        at, to = self.at % (len(data) + 1), self.to % (len(data) + 1)
        lines = data.split(b"\r\n")
        line, other = self.at % len(lines), self.to % len(lines)
        changes: list[Callable[[], bytes]] = [
            lambda: data[:at] + data[at + self.size :],
            lambda: data[:to] + data[at : at + self.size] + data[to:],
            lambda: data[:at] + self.piece + data[at:],
            lambda: data[:at] + self.noise + data[at + len(self.noise) :],
            lambda: data[:at] + self.noise + data[at:],
            lambda: b"\r\n".join([*lines[:line], self.line, *lines[line:]]),
            lambda: b"\r\n".join([*lines[:line], self.line, *lines[line + 1 :]]),
            lambda: b"\r\n".join([*lines[:line], *lines[line + 1 :]]),
            lambda: b"\r\n".join([*lines[:line], lines[other], *lines[line:]]),
            lambda: b"\r\n".join([*lines[:line], lines[other], *lines[line + 1 :]]),
            lambda: data[:at] + data[at : at + self.size].swapcase() + data[at + self.size :],
            lambda: data[:at],
        ]
        return changes[self.kind % len(changes)]()


PLACES = st.integers(0, 65535)

CHANGES = st.builds(
    Change,
    st.integers(0, 11),
    PLACES,
    PLACES,
    st.integers(1, 12),
    st.sampled_from(PIECES),
    st.sampled_from(LINES),
    st.binary(min_size=1, max_size=2),
)


def mutants() -> st.SearchStrategy[Case]:
    """A conversation of the corpus, joined with others and changed in up to six places; its settings stay."""
    seed = st.sampled_from(seeds())
    return st.builds(mutant, seed, st.lists(seed, max_size=2), st.lists(CHANGES, min_size=1, max_size=6))


def mutant(case: Case, others: list[Case], changes: list[Change]) -> Case:
    """The bytes of all, changed; the settings of the first."""
    data = b"".join(joined.data for joined in (case, *others))
    for change in changes:
        data = change.apply(data)
    return Case("mutant", data, settings=case.settings, peer=case.peer, wsgi=case.wsgi)


#: How to cut bytes: at a few places, or into pieces of one size.
CUTS = st.one_of(st.lists(PLACES, max_size=6), st.integers(1, 7))


def places(cuts: list[int] | int, size: int) -> list[int]:
    """The places at which ``size`` bytes are cut."""
    return list(range(cuts, size, cuts)) if isinstance(cuts, int) else [place % (size + 1) for place in cuts]
