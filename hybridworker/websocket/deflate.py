"""
permessage-deflate: compressed WebSocket messages (RFC 7692).

:func:`negotiate` answers a client's offers, :class:`Deflate` is what was agreed for one connection;
:mod:`.frames` has one where the client wants compression. The ``websockets`` package reads the
offers. Pure: no transport, no loop. Invariant: nothing is inflated beyond the limit of the
message, however few bytes it came in.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable

from websockets.exceptions import InvalidHandshake, NegotiationError
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from ..errors import FrameError, ProtocolError

#: With windows of 12 bits, compressing takes 32 KiB a connection and decompressing 4 KiB, instead of 256 and 32 KiB.
WINDOW_BITS = 12
MEM_LEVEL = 5

#: On chat messages level 1 makes 6 % more bytes than zlib's default, and takes 30 to 40 % less time.
LEVEL = 1

#: Final blocks that a frame may hold: each takes a new inflater, and costs its sender two bytes.
FINAL_MAX = 16

_FLUSHED = b"\x00\x00\xff\xff"  # every flush ends with these, and no message carries them (RFC 7692 7.2.1)


def negotiate(offers: Iterable[bytes]) -> tuple[bytes, Deflate | None]:
    """
    Accept the first offer of permessage-deflate that can be served.

    ``offers`` are the values of Sec-WebSocket-Extensions. Returns the value of the response field and what
    was agreed, or ``b""`` and None. Raises :class:`~.errors.ProtocolError`.
    """
    ours = ServerPerMessageDeflateFactory(server_max_window_bits=WINDOW_BITS, client_max_window_bits=WINDOW_BITS)
    try:
        parsed = [extension for offer in offers for extension in parse_extension(offer.decode("latin-1"))]
    except InvalidHandshake as exc:
        raise ProtocolError(f"Sec-WebSocket-Extensions is malformed (RFC 6455 9.1): {exc}") from exc
    for name, wanted in parsed:
        if name == ours.name:
            try:
                answer, agreed = ours.process_request_params(wanted, [])
            except (NegotiationError, ValueError):  # ValueError: zlib has no window of 8 bits (websockets before 17)
                continue
            return build_extension([(name, answer)]).encode("ascii"), Deflate(agreed)
    return b"", None


class Deflate:
    """
    What was agreed for one connection, and its zlib objects.

    Each is made by the first message that needs it: an idle connection has none.
    """

    __slots__ = ("deflate_afresh", "deflate_bits", "deflater", "inflate_afresh", "inflate_bits", "inflater")

    def __init__(self, agreed: PerMessageDeflate) -> None:
        self.inflate_bits = agreed.remote_max_window_bits
        self.deflate_bits = agreed.local_max_window_bits
        self.inflate_afresh = agreed.remote_no_context_takeover
        self.deflate_afresh = agreed.local_no_context_takeover
        self.inflater: zlib._Decompress | None = None
        self.deflater: zlib._Compress | None = None

    def inflate(self, data: bytes, message: io.BytesIO, limit: int, last: bool) -> bytes:
        """
        The bytes that ``data`` stands for (RFC 7692 7.2.2).

        ``message`` holds what came before, and ``last`` is True for the end of it. Raises
        :class:`~.errors.FrameError`, also where the whole message has more than ``limit`` bytes.
        """
        room = limit - message.tell() + 1  # with one byte more than allowed, zlib keeps none back for the next message
        inflater = self.inflater
        if inflater is None:
            self.inflater = inflater = zlib.decompressobj(-self.inflate_bits)
        try:
            data = inflater.decompress(data + _FLUSHED if last else data, room)
            if inflater.eof:
                window = bytes(message.getbuffer()[-1 << self.inflate_bits :])
                data = self._beyond(inflater, window, data, room, last)
        except zlib.error as exc:
            raise FrameError(1002, "the compressed data is malformed") from exc
        if len(data) >= room:
            raise FrameError(1009, "message too big")
        if last and self.inflate_afresh:
            self.inflater = None
        return data

    def _beyond(self, inflater: zlib._Decompress, window: bytes, data: bytes, room: int, last: bool) -> bytes:
        """
        Go on behind a final block, which ends zlib's stream but not the message (RFC 7692 7.2.1, 7.2.3.4).

        ``data`` is what the last bytes have given so far, behind ``window``. A new inflater takes over the window
        of this message only: a sender that ends its stream has emptied its own.
        """
        for _ in range(FINAL_MAX):
            rest = inflater.unused_data
            zdict = (window + data)[-1 << self.inflate_bits :]
            self.inflater = inflater = zlib.decompressobj(-self.inflate_bits, zdict)
            if len(data) == room or (last and rest == _FLUSHED):  # the octet is missing that these would complete
                return data
            data += inflater.decompress(rest, room - len(data))
            if not inflater.eof:
                return data
        raise FrameError(1002, "the compressed data has too many final blocks")

    def deflate(self, data: bytes) -> bytes:
        """The compressed payload of a message (RFC 7692 7.2.1)."""
        deflater = self.deflater
        if deflater is None:
            deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -self.deflate_bits, MEM_LEVEL)
            self.deflater = None if self.deflate_afresh else deflater
        return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def release(self) -> None:
        """Free the windows: no further message is read or sent."""
        self.inflater = self.deflater = None
