"""
What has come of a preface, frames and field sections whose end has not.

Pure but for the clock. For :mod:`.framereader`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import HTTP2Error
from .wire import DEFAULT_FRAME, ENHANCE_YOUR_CALM, PREFACE, PROTOCOL_ERROR, SETTINGS

#: Type and flags of the first frame of a client: SETTINGS, and no ACK.
_FIRST = bytes((SETTINGS, 0))

#: CONTINUATION frames of one field section, where ``max_list`` does not need more (CVE-2024-27316).
CONTINUATIONS = 16


def section_limit(max_list: int) -> int:
    """How many bytes of a field section are held: one that is somewhat too large is still answered on its stream."""
    return 2 * max(max_list, DEFAULT_FRAME)


def check_section(size: int, frames: int, max_list: int) -> None:
    """Raise :class:`~.errors.HTTP2Error` for a field section of so many bytes in so many CONTINUATION frames."""
    limit = section_limit(max_list)
    if size > limit or frames > max(CONTINUATIONS, limit // DEFAULT_FRAME):
        raise HTTP2Error(ENHANCE_YOUR_CALM, "a field section of several times the limit")


class PartialSection:
    """
    A field section that goes on in CONTINUATION frames (RFC 9113 6.10).

    ``ended`` is END_STREAM, which HEADERS alone carries; ``itself``: its stream depends on itself.
    """

    __slots__ = ("ended", "frames", "itself", "max_list", "pieces", "size", "stream_id")

    def __init__(self, stream_id: int, ended: int, itself: bool, max_list: int) -> None:
        self.stream_id = stream_id
        self.ended = ended
        self.itself = itself
        self.max_list = max_list
        self.pieces: list[bytes] = []
        self.size = 0
        self.frames = -1  #: of CONTINUATION, behind one of HEADERS

    def add(self, piece: bytes) -> None:
        """The payload of one more frame. Raises :class:`~.errors.HTTP2Error`."""
        self.pieces.append(piece)
        self.size += len(piece)
        self.frames += 1
        check_section(self.size, self.frames, self.max_list)


class PartialData:
    """A DATA frame that is delivered as it comes: a frame may be as large as the window."""

    __slots__ = ("ended", "missing", "stream")

    def __init__(self, stream: Any | None, missing: int, ended: int) -> None:
        self.stream = stream  #: None when it is dropped
        self.missing = missing
        self.ended = ended


class Partial:
    """
    What one connection waits for.

    ``pieces`` are the first bytes of a frame, or of the preface. ``since`` is the time at which the incomplete frame or
    field section began. It is None when nothing is incomplete, and for a DATA frame, which is delivered piece by piece.
    """

    __slots__ = ("clock", "data", "missing", "pieces", "ready", "section", "since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.ready = False  #: the preface has come
        self.pieces: list[bytes] = []
        self.missing = 0  #: bytes without which it is not worth looking
        self.section: PartialSection | None = None
        self.data: PartialData | None = None
        self.since: float | None = clock()

    def preface(self, data: bytes) -> bool:
        """
        Whether the preface has come, which a SETTINGS frame follows (RFC 9113 3.4).

        Keeps ``data`` if not. Raises :class:`~.errors.HTTP2Error`.
        """
        if not PREFACE.startswith(data[:24]) or not _FIRST.startswith(data[27:29]):
            raise HTTP2Error(PROTOCOL_ERROR, "not the preface of HTTP/2 (RFC 9113 3.4)")
        if len(data) < 29:
            self.keep(data, 0, False)  # each further byte may show that it is none
            return False
        self.ready = True
        self.since = None
        return True

    def keep(self, piece: bytes, need: int, fresh: bool) -> None:
        """Hold ``piece`` until there are ``need`` bytes. ``fresh``: a frame has ended meanwhile."""
        self.pieces.append(piece)
        self.missing = need - len(piece)
        if self.since is None or (fresh and self.section is None):
            self.since = self.clock()

    def join(self, data: bytes) -> bytes:
        """All that has come, or none of it while too much is missing."""
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return b""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data

    def rest(self) -> None:
        """Everything was read; perhaps something is not complete nevertheless."""
        if self.section is None and not self.pieces:
            self.since = None
