"""
HTTP/2 frames as bytes: their types, flags, codes and SETTINGS, and how one is written (RFC 9113).

Pure functions and constants; :mod:`.framereader` reads frames, and has the payloads of some read here.
"""

from __future__ import annotations

import dataclasses
from struct import Struct

from ..errors import HTTP2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  #: RFC 9113 3.4

# RFC 9113 6: the types of frames, and their flags.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32

# RFC 9113 7: error codes.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)

# RFC 9113 6.5.2: the parameters of SETTINGS.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = range(1, 6)
MAX_HEADER_LIST_SIZE, ENABLE_CONNECT_PROTOCOL = 6, 8  # the latter: RFC 8441 3

DEFAULT_WINDOW = 65535  #: RFC 9113 6.9.2
DEFAULT_FRAME = 16384  #: RFC 9113 6.5.2, and the least
LARGEST_FRAME = 2**24 - 1
LARGEST = 2**31 - 1  #: of stream identifiers and of windows

#: The head of a frame (RFC 9113 4.1): the length and, in the last eight bits, the type; flags; stream.
HEAD = Struct(">LBL")
NUMBER = Struct(">L")
SETTING = Struct(">HL")
_GOAWAY = Struct(">LL")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113 4.1)."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def goaway(last: int, code: int, reason: str = "") -> bytes:
    """GOAWAY (RFC 9113 6.8): ``last`` is the highest stream that was or may be worked on."""
    return frame(GOAWAY, 0, 0, _GOAWAY.pack(last, code) + reason.encode())


def window_update(stream_id: int, size: int) -> bytes:
    """WINDOW_UPDATE (RFC 9113 6.9): ``size`` bytes more may be sent."""
    return frame(WINDOW_UPDATE, 0, stream_id, NUMBER.pack(size))


def section(stream_id: int, block: bytes, flags: int, largest: int) -> bytes:
    """A field section as HEADERS, and CONTINUATION where it is longer than ``largest`` (RFC 9113 6.2, 6.10)."""
    if len(block) <= largest:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[at : at + largest] for at in range(0, len(block), largest)]
    middle = [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    first, last = frame(HEADERS, flags, stream_id, parts[0]), frame(CONTINUATION, END_HEADERS, stream_id, parts[-1])
    return b"".join([first, *middle, last])


@dataclasses.dataclass(frozen=True, slots=True)
class LocalSettings:
    """What this worker announces in SETTINGS (RFC 9113 6.5.2), and holds the client to."""

    max_streams: int = 100
    window: int = DEFAULT_WINDOW  #: bytes of request body that may come on a stream before the application reads them
    max_frame: int = DEFAULT_FRAME  #: bytes of payload
    max_list: int = 65536  #: bytes of a decoded field section, and 32 for each field
    websockets: bool = False  #: whether extended CONNECT is served (RFC 8441 3)

    @property
    def connection_window(self) -> int:
        """Bytes that may come on all streams before the connection gives credit back, which it does at once."""
        return max(DEFAULT_WINDOW, self.window)

    def frames(self) -> bytes:
        """What the server sends first: SETTINGS, and WINDOW_UPDATE where the connection takes more than at first."""
        values = {
            MAX_CONCURRENT_STREAMS: self.max_streams,
            INITIAL_WINDOW_SIZE: self.window,
            MAX_FRAME_SIZE: self.max_frame,
            MAX_HEADER_LIST_SIZE: self.max_list,
        }
        if self.websockets:
            values[ENABLE_CONNECT_PROTOCOL] = 1
        data = frame(SETTINGS, 0, 0, b"".join(SETTING.pack(code, value) for code, value in values.items()))
        more = self.connection_window - DEFAULT_WINDOW
        return data + window_update(0, more) if more else data


#: What holds for all frames of a type: name, section of RFC 9113, whether it belongs to a stream, bytes of its payload.
_SHAPES: dict[int, tuple[str, str, bool | None, range]] = {
    DATA: ("DATA", "6.1", True, range(LARGEST)),
    RST_STREAM: ("RST_STREAM", "6.4", None, range(4, 5)),
    PRIORITY: ("PRIORITY", "6.3", True, range(LARGEST)),
    SETTINGS: ("SETTINGS", "6.5", False, range(0, LARGEST, 6)),
    PING: ("PING", "6.7", False, range(8, 9)),
    GOAWAY: ("GOAWAY", "6.8", False, range(8, LARGEST)),
    WINDOW_UPDATE: ("WINDOW_UPDATE", "6.9", None, range(4, 5)),
}


def check_shape(kind: int, flags: int, stream_id: int, size: int) -> None:
    """Raise :class:`~.errors.HTTP2Error` for a frame that no connection survives, whatever it says."""
    if kind == PUSH_PROMISE:
        raise HTTP2Error(PROTOCOL_ERROR, "PUSH_PROMISE from a client (RFC 9113 8.4)")
    shape = _SHAPES.get(kind)
    if shape is None:
        return
    name, section, of_stream, sizes = shape
    if of_stream is not None and of_stream is not bool(stream_id):
        raise HTTP2Error(PROTOCOL_ERROR, f"{name} {'on a stream' if stream_id else 'on stream 0'} (RFC 9113 {section})")
    if size not in sizes or (kind == SETTINGS and flags & ACK and size):
        raise HTTP2Error(FRAME_SIZE_ERROR, f"{name} of a wrong length (RFC 9113 {section})")


def read_settings(payload: bytes) -> dict[int, int]:
    """
    The parameters of a SETTINGS frame, the last value of each (RFC 9113 6.5.2), and unknown ones as well.

    Of SETTINGS_HEADER_TABLE_SIZE it is the smallest, which the other end wants to be answered (RFC 7541 4.2).
    Raises :class:`~.errors.HTTP2Error`.
    """
    values: dict[int, int] = {}
    for code, value in SETTING.iter_unpack(payload):
        values[code] = min(value, values.get(code, value)) if code == HEADER_TABLE_SIZE else value
        if code == ENABLE_PUSH and value > 1:
            raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH is 0 or 1 (RFC 9113 6.5.2)")
        if code == INITIAL_WINDOW_SIZE and value > LARGEST:
            raise HTTP2Error(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE is too large (RFC 9113 6.5.2)")
        if code == MAX_FRAME_SIZE and not DEFAULT_FRAME <= value <= LARGEST_FRAME:
            raise HTTP2Error(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE is out of its range (RFC 9113 6.5.2)")
    return values


def unpadded(payload: bytes) -> bytes:
    """
    The payload of a frame with PADDED, without its padding (RFC 9113 6.1).

    Raises :class:`~.errors.HTTP2Error`.
    """
    if not payload:
        raise HTTP2Error(FRAME_SIZE_ERROR, "no padding in a frame that says so (RFC 9113 6.1)")
    size = len(payload) - payload[0]
    if size < 1:
        raise HTTP2Error(PROTOCOL_ERROR, "more padding than frame (RFC 9113 6.1)")
    return payload[1:size]
