"""
The rules of RFC 9113 on frames that a server must keep, as tables: for the reader alone, and for whole connections.
"""

from __future__ import annotations

from hybridworker.http2 import wire
from hybridworker.http2.wire import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    LARGEST,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    window_update,
)
from tests.http2.framing import REQUEST, block, data, priority, request, reset
from tests.http2.framing import settings as settings_frame

#: What is announced where it is not the default, what comes first, the frames that break the rule, and the error code.
Rule = tuple[dict[str, int], bytes, bytes, int]

TRAILERS = [(b"grpc-status", b"0")]

#: Requests on stream 1: one whose body is to come, and one that is complete.
OPEN, HALF_CLOSED = request(1, ended=False), request(1)


def announced(length: bytes) -> bytes:
    """A request on stream 1 whose body is to come, and to have this length."""
    return request(1, False, [*REQUEST, (b"content-length", length)])


#: What ends the connection (RFC 9113 5.4.1), by section.
CONNECTION_ERRORS: dict[str, Rule] = {
    "4.2 DATA beyond the largest frame": ({}, OPEN, frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "4.2 HEADERS beyond the largest frame": ({}, b"", frame(HEADERS, 4, 1, bytes(16385)), FRAME_SIZE_ERROR),
    "4.2 unknown beyond the largest frame": ({}, b"", frame(99, 0, 0, bytes(16385)), FRAME_SIZE_ERROR),
    "4.2 only the head has come": ({}, b"", frame(DATA, 0, 1, bytes(16385))[:9], FRAME_SIZE_ERROR),
    "4.3 a section that is no HPACK": ({}, b"", frame(HEADERS, 5, 1, b"\x80"), COMPRESSION_ERROR),
    "4.3 trailers that are no HPACK": ({}, OPEN, frame(HEADERS, 5, 1, b"\xff\xff\xff"), COMPRESSION_ERROR),
    "4.3 a refused section that is no HPACK": (
        {"max_streams": 1},
        OPEN,
        frame(HEADERS, 5, 3, b"\x80"),
        COMPRESSION_ERROR,
    ),
    "5.1 idle: DATA": ({}, b"", data(1, b"x"), PROTOCOL_ERROR),
    "5.1 idle: RST_STREAM": ({}, b"", reset(1), PROTOCOL_ERROR),
    "5.1 idle: WINDOW_UPDATE": ({}, b"", window_update(1, 1), PROTOCOL_ERROR),
    "5.1 idle: CONTINUATION": ({}, b"", frame(CONTINUATION, END_HEADERS, 1, block()), PROTOCOL_ERROR),
    "5.1.1 an even stream": ({}, b"", request(2), PROTOCOL_ERROR),
    "5.1.1 a stream of the server": ({}, OPEN, data(2, b"x"), PROTOCOL_ERROR),
    "5.1.1 a smaller stream than the last": (
        {},
        request(5),
        request(3),
        STREAM_CLOSED,
    ),
    "5.5 an unknown frame amid a section": (
        {},
        b"",
        frame(HEADERS, END_STREAM, 1, block()) + frame(99, 0, 0),
        PROTOCOL_ERROR,
    ),
    "6.1 DATA on stream 0": ({}, b"", data(0, b"x"), PROTOCOL_ERROR),
    "6.1 more padding than frame": ({}, OPEN, frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL_ERROR),
    "6.1 padding without its length": ({}, OPEN, frame(DATA, PADDED, 1), FRAME_SIZE_ERROR),
    "6.2 HEADERS on stream 0": ({}, b"", request(0), PROTOCOL_ERROR),
    "6.2 more padding than frame": (
        {},
        b"",
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x30" + block()),
        PROTOCOL_ERROR,
    ),
    "6.2 padding without its length": ({}, b"", frame(HEADERS, END_HEADERS | PADDED, 1), FRAME_SIZE_ERROR),
    "6.2 no room for the priority": (
        {},
        b"",
        frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, bytes(4)),
        FRAME_SIZE_ERROR,
    ),
    "6.2 another stream amid a section": (
        {},
        b"",
        frame(HEADERS, END_STREAM, 1, block()) + request(3),
        PROTOCOL_ERROR,
    ),
    "6.2 DATA amid a section": ({}, b"", frame(HEADERS, 0, 1, block()) + data(1, b"x"), PROTOCOL_ERROR),
    "6.3 PRIORITY on stream 0": ({}, b"", priority(0), PROTOCOL_ERROR),
    "6.3 PRIORITY of 4 bytes, idle": ({}, b"", frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "6.4 RST_STREAM on stream 0": ({}, b"", reset(0), PROTOCOL_ERROR),
    "6.4 RST_STREAM of 3 bytes": ({}, OPEN, frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "6.4 RST_STREAM of 5 bytes": ({}, OPEN, frame(RST_STREAM, 0, 1, bytes(5)), FRAME_SIZE_ERROR),
    "6.5 SETTINGS on a stream": ({}, b"", frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "6.5 an ACK with a payload": ({}, b"", frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "6.5 SETTINGS of 5 bytes": ({}, b"", frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "6.5.2 ENABLE_PUSH 2": ({}, b"", settings_frame((2, 2)), PROTOCOL_ERROR),
    "6.5.2 a window of 2^31": ({}, b"", settings_frame((4, 2**31)), FLOW_CONTROL_ERROR),
    "6.5.2 a frame below 16384": ({}, b"", settings_frame((5, 16383)), PROTOCOL_ERROR),
    "6.5.2 a frame above 2^24-1": ({}, b"", settings_frame((5, 2**24)), PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE": ({}, OPEN, frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + block()), PROTOCOL_ERROR),
    "6.7 PING on a stream": ({}, OPEN, frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.7 PING of 7 bytes": ({}, b"", frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "6.7 PING of 9 bytes": ({}, b"", frame(PING, ACK, 0, bytes(9)), FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": ({}, OPEN, frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "6.8 GOAWAY of 7 bytes": ({}, b"", frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 3 bytes": ({}, b"", frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 5 bytes on a stream": ({}, OPEN, frame(WINDOW_UPDATE, 0, 1, bytes(5)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 0": ({}, b"", window_update(0, 0), PROTOCOL_ERROR),
    "6.9.1 the window of the connection beyond 2^31-1": (
        {},
        b"",
        window_update(0, LARGEST),
        FLOW_CONTROL_ERROR,
    ),
    "6.9.1 DATA beyond the window of the connection": (
        {"window": 16384, "max_frame": 2**20},
        OPEN,
        data(1, bytes(65536)),
        FLOW_CONTROL_ERROR,
    ),
    "6.9.2 a stream beyond 2^31-1 by SETTINGS": (
        {},
        OPEN + window_update(1, LARGEST - 65535),
        settings_frame((4, 65536)),
        FLOW_CONTROL_ERROR,
    ),
    "6.10 CONTINUATION of nothing": ({}, OPEN, frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR),
    "6.10 CONTINUATION behind END_HEADERS": (
        {},
        b"",
        request(1, ended=False) + frame(CONTINUATION, END_HEADERS, 1),
        PROTOCOL_ERROR,
    ),
    "6.10 CONTINUATION on another stream": (
        {},
        b"",
        frame(HEADERS, END_STREAM, 1, block()) + frame(CONTINUATION, END_HEADERS, 3),
        PROTOCOL_ERROR,
    ),
    "6.10 CONTINUATION on stream 0": (
        {},
        b"",
        frame(HEADERS, END_STREAM, 1, block()) + frame(CONTINUATION, END_HEADERS, 0),
        PROTOCOL_ERROR,
    ),
}

#: What resets stream 1, and only that (RFC 9113 5.4.2), by section.
STREAM_ERRORS: dict[str, Rule] = {
    "5.1 half-closed: DATA": ({}, HALF_CLOSED, data(1, b"x"), STREAM_CLOSED),
    "5.1 half-closed: HEADERS": (
        {},
        HALF_CLOSED,
        wire.section(1, block(TRAILERS), END_STREAM, 16384),
        STREAM_CLOSED,
    ),
    "5.1 closed by RST_STREAM: DATA": ({}, OPEN + reset(1), data(1, b"x"), STREAM_CLOSED),
    "5.1 closed by RST_STREAM: HEADERS": (
        {},
        OPEN + reset(1),
        wire.section(1, block(TRAILERS), END_STREAM, 16384),
        STREAM_CLOSED,
    ),
    "6.3 PRIORITY of 4 bytes": ({}, OPEN, frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE of 0": ({}, OPEN, window_update(1, 0), PROTOCOL_ERROR),
    "6.9.1 a window beyond 2^31-1": ({}, OPEN, window_update(1, LARGEST), FLOW_CONTROL_ERROR),
    "6.9.1 DATA beyond the window": (
        {"window": 100},
        OPEN + frame(SETTINGS, ACK, 0),
        data(1, bytes(101)),
        FLOW_CONTROL_ERROR,
    ),
    "8.1 trailers without END_STREAM": ({}, OPEN, wire.section(1, block(TRAILERS), 0, 16384), PROTOCOL_ERROR),
    "8.1 a pseudo field in trailers": ({}, OPEN, request(1), PROTOCOL_ERROR),
    "8.1.1 more body than Content-Length": ({}, announced(b"3"), data(1, b"abcd"), PROTOCOL_ERROR),
    "8.1.1 less body than Content-Length": ({}, announced(b"3"), data(1, b"ab", True), PROTOCOL_ERROR),
    "8.1.1 less body, and trailers": (
        {},
        announced(b"3"),
        data(1, b"ab") + wire.section(1, block(TRAILERS), END_STREAM, 16384),
        PROTOCOL_ERROR,
    ),
    "8.1.1 a body where there is none": ({}, announced(b"0"), data(1, b"x"), PROTOCOL_ERROR),
    "8.2.1 an upper-case name in trailers": (
        {},
        OPEN,
        wire.section(1, block([(b"A", b"")]), END_STREAM, 16384),
        PROTOCOL_ERROR,
    ),
    "8.2.2 a field of a connection in trailers": (
        {},
        OPEN,
        wire.section(1, block([(b"transfer-encoding", b"chunked")]), END_STREAM, 16384),
        PROTOCOL_ERROR,
    ),
    "10.5.1 trailers beyond the list": (
        {"max_list": 200},
        OPEN,
        wire.section(1, block([(b"a", bytes(300))]), END_STREAM, 16384),
        PROTOCOL_ERROR,
    ),
}
