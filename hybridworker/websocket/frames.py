"""
MessageReader: the bytes of a WebSocket peer as ASGI messages, and the bytes of what is sent to it.

The one module that knows the ``websockets`` package: its sans-I/O core parses, checks and
answers everything that is rare (control frames, fragments, the closing handshake, errors).
The frames that nearly all traffic consists of, complete and unfragmented data frames,
are read here, in front of the core, and so is the limit kept: the core would hold a ping
against it. Pure: no transport, no loop; :mod:`.websocket.protocol` carries the bytes. The rule one
could break by accident: the core gets whole frames, from their first byte to their last
and in order, so that its state is always that of the stream.

Sources: RFC 6455, RFC 7692.
"""

from __future__ import annotations

import codecs
import sys
import zlib
from collections import deque
from collections.abc import Iterable
from typing import cast

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, PayloadTooBig, ProtocolError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from .. import errors
from ..asgi import Message
from ..connection.response import as_bytes

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover  # no C extension for this platform
    from websockets.utils import apply_mask

TEXT, BINARY = 0x81, 0x82  #: the first byte of an unfragmented data frame (RFC 6455 5.2)
COMPRESSED = 0x40  #: RSV1: the message is compressed (RFC 7692 6)
CLOSE = 0x88

#: Bytes of messages held for an application that does not ask for them; above, no further frame is read.
HIGH_WATER = 65536

#: What a message counts beside its payload: empty ones take memory, and control frames time.
OVERHEAD = 64

#: Messages below this many bytes are sent as they are. Deflating takes 50 ns/byte, several times what all
#: else costs, and saves half: what remains of a short message still takes its packet of its own.
DEFLATE_MIN = 512

#: 32 KiB for each connection that compresses and 4 KiB for one that decompresses, instead of 256 and 32 KiB.
WINDOW_BITS = 12
MEM_LEVEL = 5

#: On chat messages level 1 makes 6 % more bytes than zlib's default, and takes 30 to 40 % less time.
LEVEL = 1

#: Final blocks that a frame may hold: each costs a new inflater, and can be had for two bytes.
FINAL_MAX = 16

_FLUSHED = b"\x00\x00\xff\xff"  # what every flush ends with, and no message carries (RFC 7692 7.2.1)
_LAST_FRAGMENT = b"\x80\x80\x00\x00\x00\x00"  # final, empty, masked with zeros
_UNFRAGMENTED = frozenset({TEXT, BINARY})
_COMPRESSIBLE = _UNFRAGMENTED | {TEXT | COMPRESSED, BINARY | COMPRESSED}
_IGNORED = frozenset({Opcode.CONT, Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})
_HEADS = {first: [bytes((first, size)) for size in range(126)] for first in _COMPRESSIBLE}


def _long_head(first: int, size: int) -> bytes:
    """The head of a frame to the client, which is never masked (RFC 6455 5.1, 5.2)."""
    if size < 65536:
        return bytes((first, 126, size >> 8, size & 255))
    return bytes((first, 127)) + size.to_bytes(8, "big")


class Deflate(Extension):
    """
    permessage-deflate as negotiated for one connection (RFC 7692).

    The core's own class makes its zlib objects at once; here an idle connection has none.
    """

    name = PerMessageDeflate.name

    def __init__(self, agreed: PerMessageDeflate, limit: int) -> None:
        self.limit = limit
        self.inflate_bits = agreed.remote_max_window_bits
        self.deflate_bits = agreed.local_max_window_bits
        self.inflate_afresh = agreed.remote_no_context_takeover
        self.deflate_afresh = agreed.local_no_context_takeover
        self.inflater: zlib._Decompress | None = None
        self.deflater: zlib._Compress | None = None
        #: bytes so far of a fragmented message that is compressed; None while there is none
        self.inflated: int | None = None

    def inflate(self, data: bytes, last: bool = True) -> bytes:
        """
        The bytes that ``data`` stands for (RFC 7692 7.2.2), no more than the limit leaves to the message.

        ``last`` is False for all fragments of a message but the last. Raises the core's
        ``PayloadTooBig``, when there is one byte too many, and ``ProtocolError``.
        """
        # With room for one byte more than allowed, zlib never keeps any back for the next message.
        room = self.limit - (self.inflated or 0) + 1
        inflater = self.inflater
        if inflater is None:
            self.inflater = inflater = zlib.decompressobj(-self.inflate_bits)
        try:
            data = inflater.decompress(data + _FLUSHED if last else data, room)
            if inflater.eof:
                data = self._beyond(inflater, data, room, last)
        except zlib.error as exc:
            raise ProtocolError("the compressed data is malformed") from exc
        if len(data) >= room:
            raise PayloadTooBig(None, self.limit)
        if last and self.inflate_afresh:
            self.inflater = None
        return data

    def _beyond(self, inflater: zlib._Decompress, data: bytes, room: int, last: bool) -> bytes:
        """
        Go on behind a final block, which ends zlib's stream and not the message (RFC 7692 7.2.1, 7.2.3.4).

        ``data`` is what the frame has given so far. A new inflater takes over the window as far
        as that reaches: who ends a stream has emptied its own.
        """
        for _ in range(FINAL_MAX):
            rest = inflater.unused_data
            self.inflater = inflater = zlib.decompressobj(-self.inflate_bits, data[-1 << self.inflate_bits :])
            if len(data) == room or (last and rest == _FLUSHED):  # without the octet that these were to complete
                return data
            data += inflater.decompress(rest, room - len(data))
            if not inflater.eof:
                return data
        raise ProtocolError("the compressed data has too many final blocks")

    def deflate(self, data: bytes) -> bytes:
        """The compressed payload of a message (RFC 7692 7.2.1)."""
        deflater = self.deflater
        if deflater is None:
            deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -self.deflate_bits, MEM_LEVEL)
            self.deflater = None if self.deflate_afresh else deflater
        return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    # -- called by the core: fragments, and frames that came in pieces

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate one frame. A reserved bit that is left standing is refused by the core."""
        if frame.opcode >= Opcode.CLOSE:
            return frame
        if frame.opcode != Opcode.CONT:
            if not frame.rsv1:
                return frame
        elif self.inflated is None or frame.rsv1:
            return frame
        # An empty payload is taken for the empty message: it would leave the inflater amid a block (RFC 7692 7.2.3.6).
        data = self.inflate(bytes(frame.data), frame.fin) if frame.data or frame.opcode == Opcode.CONT else b""
        self.inflated = None if frame.fin else (self.inflated or 0) + len(data)
        return Frame(frame.opcode, data, frame.fin, False, frame.rsv2, frame.rsv3)

    def encode(self, frame: Frame) -> Frame:
        """The core sends control frames only, and these are never compressed (RFC 7692 6.1)."""
        return frame


class MessageReader:
    """
    The state of one WebSocket stream.

    ``messages`` are ASGI events. :meth:`feed` appends to them until ``buffered`` exceeds
    ``high_water`` and keeps what it has not read; whoever empties the queue sets ``buffered`` to 0 and
    feeds it again, if only with ``b""``.
    """

    __slots__ = (
        "core", "data_frames", "deflate", "limit",  # the stream
        "buffered", "closed", "high_water", "ignoring", "messages", "owed", "rest", "skipping",  # what was read of it
        "fragmented", "is_text", "parts", "utf8",  # the fragmented message in progress
    )  # fmt: skip

    def __init__(self, max_size: int | None) -> None:
        self.core = ServerProtocol(state=State.OPEN, max_size=None)
        self.deflate: Deflate | None = None
        self.limit = sys.maxsize - 1 if max_size is None else max_size  # always one less than can be counted
        self.messages: deque[Message] = deque()
        self.buffered = 0
        self.high_water = HIGH_WATER
        self.rest = b""  #: bytes that were not looked at: the beginning of a frame's head, or whatever is too much
        self.owed = 0  #: bytes of a frame, begun and not read here, that have not come
        self.skipping = False  #: these are nobody's; else the core's
        self.ignoring = False  #: nothing but the close frame is of interest
        self.closed = False  #: the close frame has come, or the stream has failed: nothing more is read
        self.data_frames = _UNFRAGMENTED  #: the first bytes of the frames that need no core
        self.fragmented = False
        self.parts = bytearray()
        self.is_text = False
        self.utf8 = codecs.getincrementaldecoder("utf-8")()

    def negotiate(self, offers: Iterable[bytes]) -> bytes:
        """
        Accept permessage-deflate if it is among ``offers``, the values of Sec-WebSocket-Extensions.

        Returns the value of the response field, or ``b""``. Raises :class:`~.errors.ProtocolError`.
        """
        headers = Headers([("Sec-WebSocket-Extensions", offer.decode("latin-1")) for offer in offers])
        self.core.available_extensions = [
            ServerPerMessageDeflateFactory(server_max_window_bits=WINDOW_BITS, client_max_window_bits=WINDOW_BITS)
        ]
        try:
            answer, extensions = self.core.process_extensions(headers)
        except InvalidHandshake as exc:
            raise errors.ProtocolError(f"Sec-WebSocket-Extensions is malformed (RFC 6455 9.1): {str(exc)!a}") from exc
        except ValueError:  # zlib has no window of 8 bits; websockets 17 and later decline the offer themselves
            return b""
        if answer is None:
            return b""
        self.deflate = Deflate(cast(PerMessageDeflate, extensions[0]), self.limit)
        self.core.extensions = [self.deflate]
        self.data_frames = _COMPRESSIBLE
        return answer.encode("ascii")

    # -- what comes

    def feed(self, data: bytes) -> bool:
        """Read the frames in ``data``; returns whether there may be something to :meth:`output`, or it is over."""
        if self.closed:
            return False
        if self.rest:
            data, self.rest = self.rest + data, b""
        answered = False
        at, end = 0, len(data)
        while at < end:
            if self.buffered > self.high_water:
                self.rest = data[at:]
                break
            if self.owed:
                size = min(self.owed, end - at)
                self.owed -= size
                if not self.skipping:
                    self._feed_core(data[at : at + size])
                    answered = True
                    if self.closed:
                        break
                at += size
                continue
            # RFC 6455 5.2: first byte, mask bit and length, extended length, masking key, payload.
            start = at + 6
            if start > end and end - at < 2:
                self.rest = data[at:]
                break
            first, second = data[at], data[at + 1]
            size = second & 127
            if size > 125:
                start += 2 if size == 126 else 8
                if start - 4 > end:
                    self.rest = data[at:]
                    break
                size = int.from_bytes(data[at + 2 : start - 4], "big")
            stop = start + size
            if first in self.data_frames and stop <= end and second > 127 and size <= self.limit:
                if not self._message(first, apply_mask(data[start:stop], data[start - 4 : start])):
                    return True
                at = stop
            else:
                self.owed = stop - at
                if not self._begin(first, second, size):
                    return True
        return answered

    def _begin(self, first: int, second: int, size: int) -> bool:
        """See who takes the frame that begins with these; returns whether anybody does."""
        opcode = first & 15
        self.skipping = self.ignoring and second > 127 and opcode in _IGNORED
        if self.skipping:
            self.buffered += OVERHEAD
        elif opcode >= Opcode.CLOSE:  # RFC 6455 5.5
            if size > 125:
                return self.fail(CloseCode.PROTOCOL_ERROR, "control frame too long")
            if first == CLOSE and self.fragmented:
                self._drop_fragments()
        elif opcode <= Opcode.BINARY and second > 127 and size > self.limit - len(self.parts):
            return self.fail(CloseCode.MESSAGE_TOO_BIG, "message too big")
        return True

    def _message(self, first: int, payload: bytes) -> bool:
        """Take one whole message; returns whether it is a good one."""
        self.buffered += OVERHEAD
        try:
            if first & COMPRESSED and payload:
                payload = cast(Deflate, self.deflate).inflate(payload)
            if first & 1:
                self.messages.append({"type": "websocket.receive", "text": payload.decode()})
            else:
                self.messages.append({"type": "websocket.receive", "bytes": payload})
        except UnicodeDecodeError:
            return self.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
        except PayloadTooBig:
            return self.fail(CloseCode.MESSAGE_TOO_BIG, "message too big")
        except ProtocolError as exc:
            return self.fail(CloseCode.PROTOCOL_ERROR, str(exc))
        self.buffered += len(payload)
        return True

    def _feed_core(self, piece: bytes) -> None:
        """Give bytes to the core, and see what it made of them."""
        core = self.core
        core.receive_data(piece)
        for frame in core.events_received():
            self.buffered += OVERHEAD
            opcode = cast(Frame, frame).opcode
            if opcode > Opcode.BINARY:
                self.closed = self.closed or opcode == Opcode.CLOSE
            elif self.ignoring:
                self.fragmented = not cast(Frame, frame).fin
            else:
                self._fragment(cast(Frame, frame))
        self.closed = self.closed or core.parser_exc is not None

    def _fragment(self, frame: Frame) -> None:
        """Take one data frame from the core, which has checked that its turn is right."""
        payload = bytes(frame.data)
        if frame.opcode != Opcode.CONT:
            if frame.fin:
                self._message(TEXT if frame.opcode == Opcode.TEXT else BINARY, payload)
                return
            self.is_text = frame.opcode == Opcode.TEXT
            self.utf8.reset()
            self.fragmented = True
            self.data_frames = frozenset()
        if self.is_text:  # RFC 6455 8.1 allows to fail at the first bad byte, and so it is done
            try:
                self.utf8.decode(payload, frame.fin)
            except UnicodeDecodeError:
                self.fail(CloseCode.INVALID_DATA, "invalid UTF-8")
                return
        self.parts += payload
        if frame.fin:
            payload = bytes(self.parts)
            self._end_fragments()
            self._message(TEXT if self.is_text else BINARY, payload)

    def _end_fragments(self) -> None:
        self.fragmented = False
        self.parts = bytearray()
        self.data_frames = _UNFRAGMENTED
        if self.deflate is not None:
            self.deflate.inflated = None
            self.data_frames = _COMPRESSIBLE

    def _drop_fragments(self) -> None:
        """
        End a fragmented message that its sender will not end: a close frame comes amid it.

        RFC 6455 5.4 allows that. The core takes it for an error, so it is told that the message is complete.
        """
        self._end_fragments()
        self.core.receive_data(_LAST_FRAGMENT)
        self.core.events_received()

    # -- what goes

    def encode(self, text: object, data: object) -> tuple[bytes, bytes]:
        """
        The head and the payload of the frame that carries a message, of which one is None.

        Raises :class:`~.errors.InvalidMessage`.
        """
        if data is None and (type(text) is str or isinstance(text, str)):
            first = TEXT
            try:
                payload = str.encode(text)  # of a subclass, too, whatever it makes of that
            except UnicodeEncodeError as exc:
                raise errors.InvalidMessage("text holds surrogates, which UTF-8 cannot encode") from exc
        elif text is None and data is not None:
            first = BINARY
            payload = data if type(data) is bytes else as_bytes(data)
        else:
            raise errors.InvalidMessage("websocket.send needs either text, a str, or bytes")
        size = len(payload)
        if size >= DEFLATE_MIN and self.deflate is not None:
            payload = self.deflate.deflate(payload)
            first |= COMPRESSED
            size = len(payload)
        return _HEADS[first][size] if size < 126 else _long_head(first, size), payload

    def ping(self) -> bytes:
        """The bytes of a ping. Any sign of life answers it, so it needs no payload to tell it from others."""
        self.core.send_ping(b"")
        return self.output()

    def close(self, code: object, reason: object) -> bytes:
        """The bytes of our close frame. Raises :class:`~.errors.InvalidMessage` if it cannot be sent."""
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(reason, str):
            raise errors.InvalidMessage(f"a close needs an int as code and a str as reason, not {code!r}, {reason!r}")
        try:
            self.core.send_close(code, reason)
        except (ProtocolError, UnicodeEncodeError) as exc:
            raise errors.InvalidMessage(f"close code {code} with reason {reason!r}: {exc}") from exc
        return self.output()

    def fail(self, code: int, reason: str) -> bool:
        """Give the stream up (RFC 6455 7.1.7); returns False, as whoever finds a fault in it does."""
        self.core.fail(code, reason)
        self.closed = True
        return False

    def ignore(self) -> None:
        """
        Read on until the close frame comes, and only for that: no other frame is unmasked or inflated.

        One that the core has begun is the exception, since it needs every byte of it.
        """
        self.ignoring = True
        self.messages = deque()
        self.data_frames = frozenset()
        self.parts = bytearray()

    def release(self) -> None:
        """
        The connection is gone: let go of what is large.

        The core is part of a reference cycle, which only the collector frees.
        """
        if self.rest:
            return  # messages that the application has not asked for yet
        self.closed = True
        self.parts = bytearray()
        self.core.fail(CloseCode.ABNORMAL_CLOSURE)  # drops its buffer
        if self.deflate is not None:
            self.deflate.inflater = self.deflate.deflater = None

    def output(self) -> bytes:
        """What the core wants to be sent."""
        return b"".join(self.core.data_to_send())

    @property
    def failed(self) -> bool:
        """Whether it is over without the peer's close frame: the peer broke the protocol or a limit."""
        return self.core.close_rcvd is None

    @property
    def ending(self) -> tuple[int, str]:
        """The code and the reason that the application is told once ``closed``."""
        close = self.core.close_rcvd or self.core.close_sent
        return (1006, "") if close is None else (int(close.code), close.reason)
