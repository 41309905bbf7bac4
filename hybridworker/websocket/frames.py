"""
MessageReader: the frames of a WebSocket client as ASGI messages, and the frames that are sent to it.

It reads and checks all of RFC 6455 section 5 and the close frames of section 7. :mod:`.deflate` compresses; the
``websockets`` package lends its unmasking in C. Pure: no transport, no loop; :mod:`.protocol` carries the bytes.
Invariant: every frame is read to its last byte, also one that is dropped, since only that tells where the next one
begins; after a violation nothing is read.
"""

from __future__ import annotations

import codecs
import io
import sys
from collections import deque
from collections.abc import Iterable

from ..asgi import Message
from ..connection.response import as_bytes
from ..errors import FrameError, InvalidMessage
from ..states import ReaderState
from .deflate import Deflate, negotiate

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover  # no C extension for this platform
    from websockets.utils import apply_mask

READING, CLOSING = ReaderState.READING, ReaderState.CLOSING
CLOSED, FAILED = ReaderState.CLOSED, ReaderState.FAILED

# RFC 6455 5.2: the first byte of a frame is FIN, three reserved bits and the opcode.
FIN = 0x80
COMPRESSED = 0x40  #: RSV1: the message is compressed (RFC 7692 6)
CONT, CLOSE, PING, PONG = 0, 8, 9, 10
TEXT, BINARY = FIN | 1, FIN | 2  #: the first byte of an unfragmented data frame

#: Bytes of messages held for an application that does not ask for them; above, no further frame is read.
HIGH_WATER = 65536

#: What a frame counts beside its payload: empty messages take memory, and control frames time.
OVERHEAD = 64

#: Messages below this many bytes are sent as they are. Deflating takes 50 ns/byte, several times what all
#: else costs, and saves half: a short message takes a packet of its own in any case.
DEFLATE_MIN = 512

#: Codes below 3000 that a close frame may carry (RFC 6455 7.4.1, IANA); from there to 4999 all are free.
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})

_PING = bytes((FIN | PING, 0))
_NO_FRAMES: frozenset[int] = frozenset()
_UNFRAGMENTED = frozenset({TEXT, BINARY})
_COMPRESSIBLE = _UNFRAGMENTED | {TEXT | COMPRESSED, BINARY | COMPRESSED}
_OPCODES = frozenset({CONT, TEXT & 15, BINARY & 15, CLOSE, PING, PONG})
_UTF8 = codecs.getincrementaldecoder("utf-8")
_HEADS = {first: [bytes((first, size)) for size in range(126)] for first in _COMPRESSIBLE}


def _long_head(first: int, size: int) -> bytes:
    """The head of a frame to the client, which is never masked (RFC 6455 5.1, 5.2)."""
    if size < 65536:
        return bytes((first, 126, size >> 8, size & 255))
    return bytes((first, 127)) + size.to_bytes(8, "big")


class MessageReader:
    """
    One WebSocket connection as frames.

    :meth:`feed` reads until the reader is :attr:`full`, and keeps what it has not read. :meth:`take` gives
    the messages; when the reader is ``idle`` again, :meth:`resume` reads on.
    """

    __slots__ = (
        "deflate", "ending", "limit", "state",  # the connection
        "buffered", "idle", "messages", "rest", "whole",  # what comes
        "key", "left", "opened", "packed", "parts", "utf8",  # the message that comes in parts
        "answers",  # what goes
    )  # fmt: skip

    def __init__(self, max_size: int | None) -> None:
        self.state = READING
        self.ending = (1006, "")  #: the code and the reason that the application is told when the connection ends
        self.limit = sys.maxsize - 1 if max_size is None else max_size  # always one less than can be counted
        self.deflate: Deflate | None = None
        self.messages: deque[Message] = deque()  #: ASGI events
        self.idle = True  #: there are none
        self.buffered = 0  #: their bytes, and OVERHEAD for each frame; 0 when all are taken
        self.rest = b""  #: what was not looked at: the beginning of a frame, or what came when we were full
        self.left = 0  #: bytes of a data frame, or of a dropped frame, that have not come
        self.key = b""  #: unmasks these
        self.whole = _UNFRAGMENTED  #: the first bytes of frames that are a whole message, in this state
        self.opened = 0  #: the first byte of the message that comes in parts, FIN if this is its last frame; or 0
        self.parts = io.BytesIO()  #: its payload so far, inflated
        self.packed = io.BytesIO()  #: the compressed payload of its frame in progress
        self.utf8: codecs.IncrementalDecoder | None = None  #: checks it; None if it is binary
        self.answers = bytearray()  #: frames to be sent: pongs, a close frame

    def negotiate(self, offers: Iterable[bytes]) -> bytes:
        """
        Accept permessage-deflate if it is among ``offers``, the values of Sec-WebSocket-Extensions.

        Returns the value of the response field, or ``b""``. Raises :class:`~.errors.ProtocolError`.
        """
        answer, self.deflate = negotiate(offers)
        if self.deflate is not None:
            self.whole = _COMPRESSIBLE
        return answer

    # -- messages for the application

    @property
    def full(self) -> bool:
        """Whether no frame is read before :meth:`resume`, so that the application, or others, have their turn."""
        return self.buffered > HIGH_WATER

    def take(self) -> Message:
        """The next message. There is one unless :attr:`idle`."""
        message = self.messages.popleft()
        if not self.messages:
            self.idle = True
            self.buffered = 0
        return message

    # -- what comes

    def feed(self, data: bytes) -> bool:
        """Read the frames in ``data``; returns whether there are answers (:meth:`output`), or nothing more is read."""
        answered = False
        try:
            if self.left or self.rest or self.state is not READING:
                data = self._continued(data)
            at, end = 0, len(data)
            while end - at > 1 and self.buffered <= HIGH_WATER:
                # RFC 6455 5.2: first byte, mask bit and length, extended length, masking key, payload.
                first, second = data[at], data[at + 1]
                size = second & 127
                start = at + 6
                if size > 125:
                    start += 2 if size == 126 else 8
                    if start - 4 > end:
                        break
                    size = int.from_bytes(data[at + 2 : start - 4], "big")
                stop = start + size
                if first in self.whole and stop <= end and second > 127 and size <= self.limit:
                    self._deliver(first, apply_mask(data[start:stop], data[start - 4 : start]))
                elif not self._wanted(first, second, size):
                    self.left = max(0, stop - end)
                    self.buffered += OVERHEAD
                elif (stop if first & 15 >= CLOSE else start) > end:
                    break
                else:
                    self._read(first, size, data[start - 4 : start], data[start:stop])
                    self.buffered += OVERHEAD
                    answered = bool(self.answers)
                    if self.state is CLOSED:
                        return True
                at = stop
        except FrameError as exc:
            return self._fail(exc.code, str(exc))
        except UnicodeDecodeError:
            return self._fail(1007, "invalid UTF-8")
        if at < end:
            self.rest = data[at:]
        return answered

    def resume(self) -> bool:
        """
        Read on where :meth:`feed` stopped, in another turn of the loop; returns what :meth:`feed` does.

        While there are messages nothing more is read, unless all that comes is dropped anyway.
        """
        if self.idle or self.state is not READING:
            self.buffered = 0
        return self.feed(b"")

    def _continued(self, data: bytes) -> bytes:
        """Finish the data frame that has begun; returns what is to be read behind it."""
        if self.over:
            return b""
        if self.left:
            piece, data = data[: self.left], data[self.left :]
            if self.state is CLOSING:
                self.left -= len(piece)
            else:
                self._take_piece(apply_mask(piece, self.key))
        if self.rest:
            data, self.rest = self.rest + data, b""
        return data

    def _wanted(self, first: int, second: int, size: int) -> bool:
        """
        Whether the frame with this head is read, or dropped.

        Raises :class:`~.errors.FrameError` if the head is wrong; the payload need not come for that.
        """
        opcode = first & 15
        if second < 128:
            raise FrameError(1002, "a frame is not masked")  # RFC 6455 5.1
        if opcode not in _OPCODES:
            raise FrameError(1002, "unknown opcode")
        if self.state is CLOSING and opcode != CLOSE:
            return False
        if first & (0x30 if self.deflate is not None and 0 < opcode < CLOSE else 0x70):
            raise FrameError(1002, "a reserved bit is set")
        if opcode >= CLOSE:  # RFC 6455 5.5: legal between fragments, and no part of the message
            if size > 125 or first < FIN:
                raise FrameError(1002, "a control frame is too long or fragmented")
        elif (opcode == CONT) is not bool(self.opened):  # RFC 6455 5.4
            raise FrameError(1002, "a message amid another" if self.opened else "a continuation of no message")
        elif size > self.limit - self.parts.tell():
            raise FrameError(1009, "message too big")
        return True

    def _read(self, first: int, size: int, key: bytes, masked: bytes) -> None:
        """Answer a control frame, or begin a data frame, of which ``masked`` may be the first bytes only."""
        opcode = first & 15
        payload = apply_mask(masked, key)
        if opcode == PING:
            self.answers += bytes((FIN | PONG, size)) + payload
        elif opcode == CLOSE:
            self._take_close(payload)
        elif opcode != PONG:
            if not self.opened:
                self.opened = first
                self.whole = _NO_FRAMES
                self.utf8 = _UTF8() if first & 1 else None
            self.opened |= first & FIN
            self.left, self.key = size, key
            self._take_piece(payload)

    def _take_piece(self, payload: bytes) -> None:
        """Take the next bytes of a data frame."""
        self.left -= len(payload)
        turn = len(payload) & 3
        self.key = self.key[turn:] + self.key[:turn]
        last = self.opened >= FIN and not self.left
        if self.opened & COMPRESSED:  # frame by frame, so that the first of two faults is the same however it is cut
            self.packed.write(payload)
            if self.left:
                return
            assert self.deflate is not None
            payload, self.packed = self.packed.getvalue(), io.BytesIO()
            payload = self.deflate.inflate(payload, self.parts, self.limit, last)
        if self.utf8 is not None:  # RFC 6455 8.1 allows to fail at the first bad byte, and so it is done
            self.utf8.decode(payload, last)
        self.parts.write(payload)
        if last:
            payload, self.parts = self.parts.getvalue(), io.BytesIO()  # getvalue() does not copy
            is_text, self.opened = self.opened & 1, 0
            self.whole = _UNFRAGMENTED if self.deflate is None else _COMPRESSIBLE
            self._deliver(is_text, payload)

    def _deliver(self, first: int, payload: bytes) -> None:
        """Queue a whole message. ``first`` tells whether it is text, and whether it is still compressed."""
        if first & COMPRESSED and payload:  # an empty payload would leave the inflater amid a block (RFC 7692 7.2.3.6)
            assert self.deflate is not None
            payload = self.deflate.inflate(payload, self.parts, self.limit, True)
        if first & 1:
            self.messages.append({"type": "websocket.receive", "text": payload.decode()})
        else:
            self.messages.append({"type": "websocket.receive", "bytes": payload})
        self.idle = False
        self.buffered += len(payload) + OVERHEAD

    # -- what goes

    def encode(self, text: object, data: object) -> tuple[bytes, bytes]:
        """
        The head and the payload of the frame that carries a message, of which one is None.

        Raises :class:`~.errors.InvalidMessage`.
        """
        if data is None and (type(text) is str or isinstance(text, str)):
            first = TEXT
            try:
                payload = str.encode(text)  # a subclass may have its own encode()
            except UnicodeEncodeError as exc:
                raise InvalidMessage("text holds surrogates, which UTF-8 cannot encode") from exc
        elif text is None and data is not None:
            first = BINARY
            payload = data if type(data) is bytes else as_bytes(data)
        else:
            raise InvalidMessage("websocket.send needs either text, a str, or bytes")
        size = len(payload)
        if size >= DEFLATE_MIN and self.deflate is not None:
            payload = self.deflate.deflate(payload)
            first |= COMPRESSED
            size = len(payload)
        return _HEADS[first][size] if size < 126 else _long_head(first, size), payload

    def output(self) -> bytes:
        """The frames that answer what was read."""
        answers, self.answers = bytes(self.answers), bytearray()
        return answers

    def ping(self) -> bytes:
        """A ping. Any byte from the client answers it, so it needs no payload to tell it from others."""
        return _PING

    # -- the end

    @property
    def over(self) -> bool:
        """Whether nothing more is read: the client's close frame has come, or none is expected any more."""
        return self.state is CLOSED or self.state is FAILED

    def close(self, code: object, reason: object) -> bytes:
        """
        Our close frame. After it, every frame but the client's close frame is dropped unread.

        Raises :class:`~.errors.InvalidMessage` if no close frame may carry these.
        """
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(reason, str):
            raise InvalidMessage(f"a close needs an int as code and a str as reason, not {code!r}, {reason!r}")
        if not _is_close_code(code):
            raise InvalidMessage(f"{code} is no code for a close frame (RFC 6455 7.4)")
        try:
            payload = code.to_bytes(2, "big") + reason.encode()
        except UnicodeEncodeError as exc:
            raise InvalidMessage(f"the reason {reason!r} for close code {code} holds surrogates") from exc
        if len(payload) > 125:
            raise InvalidMessage(f"the reason {reason!r} for close code {code} has more than 123 bytes (RFC 6455 5.5)")
        self.ending = (int(code), reason)
        self._end(CLOSING)
        return bytes((FIN | CLOSE, len(payload))) + payload

    def _take_close(self, payload: bytes) -> None:
        """Take the client's close frame. It answers ours, or is answered by a copy of itself (RFC 6455 5.5.1)."""
        ending = (1005, "")  # RFC 6455 7.1.5: for a frame without a code
        if payload:
            ending = (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            if not _is_close_code(ending[0]):  # a single byte is too small to be one
                raise FrameError(1002, "a close frame without a valid code")
        if self.state is READING:
            self.answers += bytes((FIN | CLOSE, len(payload))) + payload
        self.ending = ending
        self._end(CLOSED)

    def _fail(self, code: int, reason: str) -> bool:
        """Give the connection up (RFC 6455 7.1.7); returns True, as :meth:`feed` then does."""
        if self.state is READING:  # else our close frame is out already
            self.answers += self.close(code, reason)
        self._end(FAILED)
        return True

    def release(self) -> None:
        """The connection is lost: free what is large, unless messages are left that the application may ask for."""
        if not self.rest and not self.over:
            self._end(FAILED)

    def _end(self, state: ReaderState) -> None:
        """Read no further message."""
        self.state = state
        self.whole = _NO_FRAMES
        self.parts = self.packed = io.BytesIO()
        if self.deflate is not None:
            self.deflate.release()


def _is_close_code(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 7.4)."""
    return code in CLOSE_CODES or 3000 <= code < 5000
