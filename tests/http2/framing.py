"""The HTTP/2 frames of a client, and a reader of them whose owner keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hybridworker.asgi import Headers
from hybridworker.http2 import wire
from hybridworker.http2.framereader import FrameReader
from hybridworker.http2.hpack import encode_field
from hybridworker.http2.wire import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    NUMBER,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTING,
    SETTINGS,
    LocalSettings,
    frame,
)
from hybridworker.states import StreamState

REQUEST: Headers = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/")]
START = PREFACE + frame(SETTINGS, 0, 0)


def block(fields: Headers = REQUEST) -> bytes:
    """A field section that needs no table."""
    return b"".join(encode_field(name, value) for name, value in fields)


def request(stream_id: int, ended: bool = True, fields: Headers = REQUEST) -> bytes:
    """HEADERS of a request."""
    return frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), stream_id, block(fields))


def data(stream_id: int, payload: bytes = b"", ended: bool = False) -> bytes:
    return frame(DATA, END_STREAM if ended else 0, stream_id, payload)


def settings(*values: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(code, value) for code, value in values))


def reset(stream_id: int, code: int = wire.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream_id, NUMBER.pack(code))


def priority(stream_id: int, depends_on: int = 0) -> bytes:
    return frame(PRIORITY, 0, stream_id, NUMBER.pack(depends_on) + b"\x0f")


def parse(sent: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The frames of a server: type, flags, stream and payload."""
    while sent:
        length, flags, stream_id = wire.HEAD.unpack_from(sent)
        size, kind = length >> 8, length & 255
        assert len(sent) >= 9 + size, "a frame that is not whole"
        yield kind, flags, stream_id, sent[9 : 9 + size]
        sent = sent[9 + size :]


def resets(sent: bytes) -> list[tuple[int, int]]:
    """The stream and the code of each RST_STREAM."""
    return [(stream_id, NUMBER.unpack(payload)[0]) for kind, _, stream_id, payload in parse(sent) if kind == RST_STREAM]


def farewells(sent: bytes) -> list[tuple[int, int, str]]:
    """The last stream, the code and the reason of each GOAWAY."""
    return [
        (NUMBER.unpack_from(payload)[0], NUMBER.unpack_from(payload, 4)[0], payload[8:].decode())
        for kind, _, _, payload in parse(sent)
        if kind == GOAWAY
    ]


class FakeStream:
    """A stream without a request."""

    state: StreamState
    window: int
    owed: int
    send_window: int

    def __init__(self, stream_id: int, expected: int | None = None) -> None:
        self.id = stream_id
        self.expected = expected


class FakeOwner:
    """
    The owner of ``reader``: begins every request, and keeps ``(event, ...)`` in ``events``.

    ``now`` is the clock. ``answering`` makes it answer at once.
    """

    def __init__(self, **local: Any) -> None:
        self.now = 1000.0
        self.answering = False
        self.events: list[tuple[Any, ...]] = []
        self.sent = b""
        self.streams: dict[int, FakeStream] = {}
        self.reader = FrameReader(self, LocalSettings(**local), lambda: self.now)

    def feed(self, *segments: bytes) -> list[tuple[Any, ...]]:
        """Give the segments to the reader; returns the events since the last time."""
        for segment in segments:
            self.reader.feed(segment)
        events, self.events = self.events, []
        return events

    def output(self) -> bytes:
        """What was sent since the last time."""
        sent, self.sent = self.sent, b""
        return sent

    # -- FrameOwner

    def write(self, data: bytes) -> None:
        self.sent += data

    def on_request(self, stream_id: int, fields: Headers, ended: bool, oversized: bool) -> None:
        length = dict(fields).get(b"content-length", b"")
        self.streams[stream_id] = stream = FakeStream(stream_id, int(length) if length.isdigit() else None)
        self.reader.begin(stream, ended)
        self.events.append(("request", stream_id, fields, ended, oversized))
        if self.answering:
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, b"\x88"))
            self.reader.end(stream)

    def on_data(self, stream: FakeStream, data: bytes, ended: bool) -> None:
        self.events.append(("data", stream.id, data, ended))

    def on_window(self, stream: FakeStream | None) -> None:
        self.events.append(("window", stream and stream.id))

    def on_reset(self, stream: FakeStream, code: int) -> None:
        self.events.append(("reset", stream.id, code))

    def on_violation(self, stream_id: int, stream: FakeStream | None, code: int, reason: str) -> None:
        assert stream is None or stream.state is StreamState.RESET_SENT
        self.events.append(("violation", stream_id, code))

    def on_ping_ack(self, payload: bytes) -> None:
        self.events.append(("pong", payload))

    def on_goaway(self, code: int) -> None:
        self.events.append(("goaway", code))


def connected(**local: Any) -> FakeOwner:
    """The owner of a connection whose preface has come."""
    owner = FakeOwner(**local)
    owner.feed(START)
    owner.output()
    return owner
