"""
The interfaces that :mod:`.framereader` needs of its connection and of its streams.

Protocols only: :mod:`.protocol` and :mod:`.stream` keep to them.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..asgi import Headers
from ..states import StreamState


class FramedStream(Protocol):
    """
    What the reader keeps on a stream. :meth:`~.framereader.FrameReader.begin` sets all but ``id`` and ``expected``.

    ``expected`` is the owner's to set before :meth:`FrameOwner.on_request` returns: the bytes of body that
    Content-Length announced, or None. The reader counts them down, and holds the client to them (RFC 9113 8.1.1).
    """

    id: int
    state: StreamState
    expected: int | None
    window: int  #: bytes that the client may still send
    owed: int  #: bytes that were read and that the client has not been given back
    send_window: int  #: bytes that may be sent; perhaps below 0 after a SETTINGS (RFC 9113 6.9.2)


class FrameOwner(Protocol):
    """
    Whom the reader tells. The calls but for ``write`` come out of :meth:`~.framereader.FrameReader.feed` only.

    Each of them may send, reset and end streams, and set :attr:`~.framereader.FrameReader.over`.
    """

    def write(self, data: bytes, /) -> None:
        """Frames are to be sent. Those of one ``feed`` may be joined."""

    def on_request(self, stream_id: int, fields: Headers, ended: bool, oversized: bool, /) -> None:
        """
        A request has come. The owner begins or resets its stream through the reader.

        ``fields`` are unchecked, and hold the pseudo fields. ``oversized``: those beyond ``max_list`` were left out.
        ``ended``: there is no body.
        """

    def on_data(self, stream: Any, data: bytes, ended: bool, /) -> None:
        """
        A part of a body has come, perhaps an empty one. Its length is as announced.

        The owner calls :meth:`~.framereader.FrameReader.credit` when the application has read it, or nobody will.
        """

    def on_window(self, stream: Any | None, /) -> None:
        """More may be sent on a stream, or on all."""

    def on_reset(self, stream: Any, code: int, /) -> None:
        """The client has reset a stream, which is no longer among ``streams``."""

    def on_violation(self, stream_id: int, stream: Any | None, code: int, reason: str, /) -> None:
        """The reader has reset a stream because the client broke a rule; it is no longer among ``streams``."""

    def on_ping_ack(self, payload: bytes, /) -> None:
        """The client has answered a PING."""

    def on_goaway(self, code: int, /) -> None:
        """The client opens no more streams."""
