"""
Whole connections of random and mutated frames: no exception but the one that ends them, no state left, bounds kept.

The profile is derandomised, so that a build never fails by chance. ``FUZZ_EXAMPLES=5000`` in
the environment asks for so many random examples instead.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from hybridworker.errors import HTTP2Error
from hybridworker.http2 import history, wire
from hybridworker.http2.hpack import OVERHEAD
from hybridworker.http2.wire import END_HEADERS, END_STREAM, LARGEST, NUMBER, frame
from hybridworker.states import HTTP2State, StreamState
from tests.http2.framing import REQUEST, START, FakeOwner, block, connected, parse
from tests.http2.framing import settings as settings_frame
from tests.http2.multiplexed import H2Wire, Site, multiplexed

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def fuzzing(examples: int) -> settings:
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


# -- frames


class Read(bytes):
    """What comes at once; it shows the heads of its frames, where it begins with one."""

    def __repr__(self) -> str:
        shown, rest = [], bytes(self)
        while len(rest) > 8:
            high, low, kind, flags, stream_id = wire.HEAD.unpack_from(rest)
            size = high << 8 | low
            shown.append(f"{kind}/{flags}/{stream_id}: {rest[9 : 9 + min(size, 60)].hex()} of {size}")
            rest = rest[9 + size :]
        return f"Read({', '.join(shown)}, {rest.hex()})"


STREAMS = st.one_of(st.sampled_from([1, 3, 5, 7]), st.sampled_from([0, 2, 9, 99, LARGEST]))
FLAGS = st.one_of(st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 37, 45]), st.integers(0, 255))
PATHS = st.sampled_from([b"/hello", b"/echo", b"/wait", b"/big", b"/fail", b"/%ff", b"*", b""])
FIELD = st.one_of(
    st.sampled_from(
        [
            (b"content-length", b"5"),
            (b"content-length", b"x"),
            (b"expect", b"100-continue"),
            (b"te", b"trailers"),
            (b"connection", b"close"),
            (b"cookie", b"a=b"),
            (b":path", b"/"),
            (b"X", b""),
            (b"host", b"other"),
            (b"x-forwarded-proto", b"https"),
        ]
    ),
    st.tuples(st.binary(max_size=4), st.binary(max_size=10)),
)


@st.composite
def sections(draw: Any) -> bytes:
    """A field section: mostly a request, perhaps one that is not right."""
    fields = [
        (b":method", draw(st.sampled_from([b"GET", b"GET", b"POST", b"HEAD", b"CONNECT", b"get"]))),
        *REQUEST[1:3],
        (b":path", draw(PATHS)),
        *draw(st.lists(FIELD, max_size=3)),
    ]
    update: bytes = draw(st.sampled_from([b"", b"", b"", b"\x20", b"\x3f\xe1\x1f"]))
    return update + block(fields)


def wild_frame(draw: Any, stream_id: int) -> bytes:
    """A frame that is mostly wrong."""
    payload = draw(st.one_of(st.binary(max_size=30), sections()))
    made: bytes = draw(
        st.sampled_from(
            [
                frame(draw(st.integers(0, 12)), draw(FLAGS), stream_id, payload),
                wire.window_update(stream_id, draw(st.sampled_from([0, LARGEST]))),
                wire.section(draw(STREAMS), draw(sections()), END_STREAM, 16384),
                settings_frame((draw(st.integers(0, 9)), draw(st.sampled_from([0, 2, LARGEST, 2**31])))),
            ]
        )
    )
    return made


def sane_frame(draw: Any, stream_id: int) -> bytes:
    """A frame that is mostly right on a stream that is open."""
    kind = draw(
        st.sampled_from(["data", "data", "data", "reset", "update", "settings", "ping", "trailers", "priority"])
    )
    ended = draw(st.sampled_from([0, END_STREAM]))
    if kind == "data":
        size = draw(st.sampled_from([0, 1, 5, 100, 16384]))
        padded = wire.PADDED if size and draw(st.booleans()) else 0
        return frame(wire.DATA, ended | padded, stream_id, bytes(size))
    if kind == "reset":
        return frame(wire.RST_STREAM, 0, stream_id, NUMBER.pack(draw(st.integers(0, 20))))
    if kind == "update":
        return wire.window_update(draw(st.sampled_from([0, stream_id])), draw(st.sampled_from([1, 1000, 100_000])))
    if kind == "settings":
        return settings_frame(
            draw(st.sampled_from([(1, 0), (1, 100), (3, 1), (4, 0), (4, 100), (4, 100_000), (5, 20_000), (99, 1)]))
        )
    if kind == "ping":
        return frame(wire.PING, draw(st.sampled_from([0, 1])), 0, b"goodbye!")
    if kind == "priority":
        return frame(wire.PRIORITY, 0, stream_id, NUMBER.pack(0) + b"\x0f")
    return wire.section(stream_id, block([(b"x", b"y")]), END_STREAM, 16384)


@st.composite
def connections(draw: Any) -> list[bytes]:
    """What a client sends, in reads. In some, frames are wild, or bytes are others than they were."""
    parts, last = [], -1
    wild = draw(st.sampled_from([0, 0, 0, 1, 4]))
    for _ in range(draw(st.integers(1, 25))):
        choice = draw(st.integers(0, 11))
        if choice < wild:
            parts.append(wild_frame(draw, max(1, last - 2 * draw(st.integers(0, 2)))))
        elif choice < 8 and last > 0:
            parts.append(sane_frame(draw, max(1, last - draw(st.sampled_from([0, 0, 0, 2])))))
        else:
            last += 2
            parts.append(wire.section(last, draw(sections()), draw(st.sampled_from([0, 0, END_STREAM])), 16384))
    whole = bytearray(b"".join(parts))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    return [Read(whole[a:b]) for a, b in itertools.pairwise([0, *cuts, len(whole)])]


# -- the reader


def check_books(owner: FakeOwner) -> None:
    """What must hold whatever has come."""
    reader = owner.reader
    assert 0 <= reader.window <= reader.local.connection_window
    assert reader.send_window <= LARGEST
    assert len(reader.streams) <= reader.local.max_streams
    assert len(reader.history.recent) <= history.REMEMBERED
    assert reader.decoder.held == sum(size for _, size in reader.decoder.table) <= 4096
    assert all(size == len(name) + len(value) + OVERHEAD for (name, value), size in reader.decoder.table)
    for stream_id, stream in reader.streams.items():
        assert stream_id == stream.id <= reader.history.last
        assert stream.state in (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL, StreamState.HALF_CLOSED_REMOTE)
        assert stream.window >= 0
        assert stream.send_window <= LARGEST
    held = sum(map(len, reader.partial.pieces))
    assert held <= 16384 + 9
    if reader.partial.section is not None:
        assert reader.partial.section.size <= 2 * 65536


def outcome(owner: FakeOwner, segments: list[bytes]) -> tuple[Any, ...]:
    """What the owner was told and what was sent, and how it ended."""
    ended = None
    try:
        for segment in segments:
            owner.reader.feed(segment)
            check_books(owner)
    except HTTP2Error as exc:
        ended = exc.code, str(exc)
    events: list[tuple[Any, ...]] = []
    for told in owner.events:
        if told[0] == "data" and events and events[-1][:2] == told[:2]:
            told = ("data", told[1], events.pop()[2] + told[2], told[3])
        events.append(told)
    answers = [each for each in parse(owner.sent) if each[0] != wire.WINDOW_UPDATE]
    return events, answers, ended, owner.reader.history.last


@fuzzing(300)
@given(segments=connections(), answered=st.booleans())
def test_the_reader_takes_whatever_comes(segments: list[bytes], answered: bool) -> None:
    """The books are right behind each read, and the result is the same in one piece."""
    pieces, whole = connected(max_streams=3), connected(max_streams=3)
    pieces.answering = whole.answering = answered
    first = outcome(pieces, segments)
    event("ended" if first[2] else "open")
    if first[2] is None or "window" not in first[2][1]:  # credit is given at the end of each read
        assert outcome(whole, [b"".join(segments)]) == first
    goaway = list(parse(pieces.reader.goaway(1, "reason")))
    assert goaway[0][0] == wire.GOAWAY
    before = len(pieces.events)
    if first[2] is not None:
        pieces.reader.feed(wire.section(4001, block(), END_STREAM, 16384))
        assert len(pieces.events) == before


@fuzzing(200)
@given(noise=st.binary(max_size=100), cut=st.integers(0, 100), greeted=st.booleans())
def test_noise(noise: bytes, cut: int, greeted: bool) -> None:
    """Bytes that nobody chose."""
    one, other = FakeOwner(), FakeOwner()
    start = START if greeted else b""
    assert outcome(one, [start + noise[:cut], noise[cut:]]) == outcome(other, [start + noise])


# -- the whole protocol


def check_order(connection: H2Wire) -> None:
    """A connection that goes on answers a request for which there is room."""
    reader, last = connection.protocol.reader, connection.protocol.reader.history.last
    amid = reader.partial.pieces or reader.partial.section is not None or reader.partial.data is not None
    if amid or connection.protocol.state is not HTTP2State.OPEN or last > LARGEST - 2:
        return
    stream_id = last + 2 if last else 1
    connection.feed(b"".join(frame(wire.RST_STREAM, 0, on, bytes(4)) for on in list(reader.streams)))
    hello = block([*REQUEST[:3], (b":path", b"/hello")])
    connection.feed(frame(wire.HEADERS, END_HEADERS | END_STREAM, stream_id, hello))
    assert connection.answers[stream_id].status == 200


@fuzzing(200)
@given(segments=connections(), goodbye=st.sampled_from(["lost", "eof", "drain", "tick"]))
def test_a_connection_survives_or_ends_in_order(segments: list[bytes], goodbye: str) -> None:
    """
    No exception reaches the transport or the loop, and no error the log.

    What is sent are whole frames, none behind the end of a stream, within the windows; and when the connection is gone,
    nothing of it is left: no task, no stream, no call.
    """
    with multiplexed(Site(), http2_max_concurrent_streams=3) as connection:
        for segment in segments:
            connection.feed(segment)
            assert len(connection.protocol.reader.streams) <= 3
            assert len(connection.context.cycles) <= 3
        if connection.open:
            check_order(connection)
            event("open")
        else:
            assert connection.farewells
            event("ended")
        if goodbye == "drain":
            connection.protocol.drain(connection.loop.time())
        elif goodbye == "tick":
            connection.tick(100_000)
        elif goodbye == "eof":
            connection.protocol.eof_received()
        connection.run()
        connection.end()
        assert not [line for level, line in connection.log.lines if level not in ("debug", "warning")]
