"""
History: the streams of one HTTP/2 connection that are no longer open, or not yet.

Frames still come for them (RFC 9113 5.1). Pure.
"""

from __future__ import annotations

from ..states import StreamState
from .wire import DEFAULT_WINDOW, LARGEST

IDLE, CLOSED, RESET_SENT = StreamState.IDLE, StreamState.CLOSED, StreamState.RESET_SENT

#: How many streams that were reset are known as such when late frames come, where no more may be open at a time.
REMEMBERED = 128


class History:
    """Streams that there were: all up to ``last``, and how the latest that were reset have ended."""

    __slots__ = ("final", "granted", "last", "recent", "remembered")

    def __init__(self, max_streams: int) -> None:
        self.remembered = max(REMEMBERED, max_streams)  #: all that are open may be reset in one moment
        self.last = 0  #: the highest that the client has opened
        self.final = LARGEST  #: what the client opens beyond it is dropped: the last GOAWAY says so (RFC 9113 6.8)
        self.granted = DEFAULT_WINDOW  #: bytes of DATA that the client has ever allowed
        self.recent: dict[int, StreamState] = {}

    def add(self, stream_id: int, state: StreamState) -> None:
        """A stream was reset."""
        recent = self.recent
        if len(recent) >= self.remembered:
            del recent[next(iter(recent))]
        recent[stream_id] = state

    def state_of(self, stream_id: int) -> StreamState:
        """The state of a stream that is not open (RFC 9113 5.1.1)."""
        if stream_id > self.last or not stream_id & 1:
            return IDLE
        return RESET_SENT if stream_id > self.final else self.recent.get(stream_id, CLOSED)
