"""
FrameReader: the frames of an HTTP/2 client, its SETTINGS, windows and streams (RFC 9113).

It keeps what both ends of a connection have agreed on: SETTINGS, windows, which streams there are and in which state
(``states.STREAM``). Its owner is told of the rest by the methods of :class:`~.owner.FrameOwner`. :mod:`.hpack` decodes,
:mod:`.wire` writes, :mod:`.budget` bounds what carries no request. Pure: no transport, no loop.

:meth:`FrameReader.feed` raises :class:`~.errors.HTTP2Error` when the connection cannot go on. The owner sends
:meth:`FrameReader.goaway` and closes. What is wrong with one stream only resets that stream; the others go on.

Invariant: the windows and the table of field sections stay right whatever becomes of a stream, because the client
counts on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..asgi import Headers
from ..errors import HPACKError, HTTP2Error
from ..states import StreamState
from . import wire
from .budget import Budget
from .head import check_trailers
from .history import History
from .hpack import SIZE_UPDATE, TABLE_SIZE, Decoder
from .owner import FrameOwner
from .partial import Partial, PartialData, PartialSection, check_section
from .wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEADERS,
    LARGEST,
    NUMBER,
    PADDED,
    PREFACE,
    check_shape,
    frame,
)

IDLE, OPEN, CLOSED = StreamState.IDLE, StreamState.OPEN, StreamState.CLOSED
HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE = StreamState.HALF_CLOSED_LOCAL, StreamState.HALF_CLOSED_REMOTE
RESET_SENT, RESET_RECEIVED = StreamState.RESET_SENT, StreamState.RESET_RECEIVED


class FrameReader:
    """
    One connection, from the client's preface on.

    ``streams`` are those that are open on either side. The owner lowers ``send_window``, of the connection and of a
    stream, by the DATA that it sends in frames of ``peer_frame`` bytes at most. ``prefix`` holds bytes (an HPACK table
    size update) that must be sent before the next field section. :meth:`section` puts it in front and empties it; while
    it is not empty, every section has to be written through :meth:`section`. The owner counts ``budget.delivered``.
    When ``over`` is set, nothing more is read.
    """

    __slots__ = (
        "owner", "local", "budget", "leaving", "over",  # the connection
        "decoder", "partial",  # what comes
        "streams", "history",  # streams
        "window", "low_water", "initial", "send_window", "peer_initial", "peer_frame", "prefix",  # what was agreed on
    )  # fmt: skip

    def __init__(self, owner: FrameOwner, local: wire.LocalSettings, clock: Callable[[], float]) -> None:
        self.owner = owner
        self.local = local
        self.budget = Budget(clock)
        self.leaving = False  #: the owner has sent a first GOAWAY
        self.over = False
        self.partial = Partial(clock)
        self.decoder = Decoder(local.max_list)
        self.streams: dict[int, Any] = {}
        self.history = History(local.max_streams)
        self.window = local.connection_window  #: bytes of DATA that may come
        self.low_water = self.window // 2  #: of ``window``: the client is given credit again
        self.initial = max(wire.DEFAULT_WINDOW, local.window)  #: of a stream: ours holds from the ACK on
        self.send_window = self.peer_initial = wire.DEFAULT_WINDOW
        self.peer_frame = wire.DEFAULT_FRAME
        self.prefix = b""

    # -- what the owner does

    def begin(self, stream: Any, ended: bool) -> None:
        """Take a request on: ``stream`` is open, and ``ended`` as :meth:`~.owner.FrameOwner.on_request` said."""
        stream.state = HALF_CLOSED_REMOTE if ended else OPEN
        stream.window = self.initial
        stream.owed = 0
        stream.send_window = self.peer_initial
        self.streams[stream.id] = stream

    def end(self, stream: Any) -> None:
        """END_STREAM was sent: the response is complete."""
        if stream.state is HALF_CLOSED_REMOTE:
            stream.state = CLOSED
            del self.streams[stream.id]
        else:
            stream.state = HALF_CLOSED_LOCAL

    def reset(self, stream_id: int, code: int, *, provoked: bool = False) -> None:
        """
        Send RST_STREAM (RFC 9113 6.4): neither end sends anything more on the stream.

        ``provoked``: the client has broken a rule, and too much of that raises
        :class:`~.errors.HTTP2Error` (CVE-2025-8671).
        """
        if provoked:
            self.budget.blame()
        self._forget(stream_id, RESET_SENT)
        self.owner.write(frame(wire.RST_STREAM, 0, stream_id, NUMBER.pack(code)))

    def credit(self, stream: Any, size: int) -> None:
        """
        The application has read ``size`` bytes of body, or they were dropped: the client may send as many.

        It is told when they are half of a window, and not while more is there than that.
        """
        stream.owed = owed = stream.owed + size
        if owed and (stream.state is OPEN or stream.state is HALF_CLOSED_LOCAL):
            if owed * 2 >= self.local.window or stream.window <= 0:
                stream.owed = 0
                stream.window += owed
                self.owner.write(wire.window_update(stream.id, owed))

    def section(self, stream_id: int, block: bytes, flags: int) -> bytes:
        """The frames of a field section that is sent: ``flags`` are END_STREAM or 0."""
        prefix, self.prefix = self.prefix, b""
        return wire.section(stream_id, prefix + block, flags, self.peer_frame)

    def goaway(self, code: int = wire.NO_ERROR, reason: str = "") -> bytes:
        """The last GOAWAY: what the client opens from now on is dropped, and it may repeat it elsewhere."""
        if self.history.final == LARGEST:
            self.history.final = self.history.last
        return wire.goaway(self.history.final, code, reason)

    @property
    def ready(self) -> bool:
        """Whether the preface has come, and the beginning of the client's SETTINGS."""
        return self.partial.ready

    @property
    def waiting_since(self) -> float | None:
        """When the frame or field section began whose end has not come; also the preface. On ``clock``."""
        return self.partial.since

    # -- what comes

    def feed(self, data: bytes) -> None:
        """Read the frames in ``data``. Raises :class:`~.errors.HTTP2Error`, after which nothing more is read."""
        if self.over:
            return
        try:
            self._read(data)
        except HTTP2Error:
            self.over = True
            raise
        if self.window <= self.low_water and not self.over:
            owed = self.local.connection_window - self.window
            self.window += owed
            self.owner.write(wire.window_update(0, owed))

    def _read(self, data: bytes) -> None:
        partial = self.partial
        if partial.data is not None:
            data = self._on_more(partial.data, data)
        if partial.pieces:
            data = partial.join(data)
        at, end = 0, len(data)
        if not partial.ready:
            if not partial.preface(data):
                return
            at = len(PREFACE)
        unpack, largest = HEAD.unpack_from, self.local.max_frame
        while end - at > 8 and not self.over:
            length, flags, stream_id = unpack(data, at)
            size, kind = length >> 8, length & 255
            start = at + 9
            stop = start + size
            stream_id &= LARGEST
            if size > largest:
                raise HTTP2Error(wire.FRAME_SIZE_ERROR, "a frame beyond SETTINGS_MAX_FRAME_SIZE (RFC 9113 4.2)")
            if partial.section is not None and (kind != CONTINUATION or stream_id != partial.section.stream_id):
                raise HTTP2Error(wire.PROTOCOL_ERROR, "a field section is interrupted (RFC 9113 4.3)")
            if stop > end:
                if kind == DATA and not flags & PADDED:
                    at = end
                    self._on_first(stream_id, data[start:], size, flags)
                elif kind == HEADERS or kind == CONTINUATION:
                    check_section(size, 0, self.local.max_list)
                else:
                    check_shape(kind, flags, stream_id, size)
                break
            at = stop
            if kind == HEADERS and flags & _SPECIAL == END_HEADERS:
                self._on_section(stream_id, data[start:stop], flags & END_STREAM)
            elif kind == DATA and not flags & PADDED:
                self._on_data(stream_id, data[start:stop], size, flags & END_STREAM)
            else:
                check_shape(kind, flags, stream_id, size)
                _FRAMES.get(kind, FrameReader._on_unknown)(self, flags, stream_id, data[start:stop])
        if at < end:
            partial.keep(data[at:], stop - at if end - at > 8 else 9, at > 0)
        elif partial.since is not None:
            partial.rest()

    # -- field sections

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """HEADERS with padding, priority or CONTINUATION (RFC 9113 6.2)."""
        itself = False
        if flags & PADDED:
            payload = wire.unpadded(payload)
        if flags & wire.WITH_PRIORITY:
            if len(payload) < 5:
                raise HTTP2Error(wire.FRAME_SIZE_ERROR, "no priority in HEADERS that says so (RFC 9113 6.2)")
            itself = NUMBER.unpack_from(payload)[0] & LARGEST == stream_id
            payload = payload[5:]
        if flags & END_HEADERS:
            self._on_section(stream_id, payload, flags & END_STREAM, itself)
        else:
            self.partial.section = PartialSection(stream_id, flags & END_STREAM, itself, self.local.max_list)
            self.partial.section.add(payload)
            self.partial.since = self.budget.clock()

    def _on_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        section = self.partial.section
        if section is None:
            raise HTTP2Error(wire.PROTOCOL_ERROR, "CONTINUATION of nothing (RFC 9113 6.10)")
        self._spend()
        section.add(payload)
        if flags & END_HEADERS:
            self.partial.section = None
            self._on_section(stream_id, b"".join(section.pieces), section.ended, section.itself)

    def _on_section(self, stream_id: int, block: bytes, ended: int, itself: bool = False) -> None:
        """A whole field section: a request, or trailers. ``itself``: its stream depends on itself."""
        if not stream_id & 1:
            raise HTTP2Error(wire.PROTOCOL_ERROR, "HEADERS on a stream that no client opens (RFC 9113 5.1.1)")
        try:
            fields = self.decoder.decode(block)
        except HPACKError as exc:
            raise HTTP2Error(wire.COMPRESSION_ERROR, str(exc)) from exc
        history = self.history
        if stream_id > history.last:
            history.last = stream_id
            if stream_id > history.final:
                self._spend()
                return
            decoder = self.decoder
            oversized = decoder.size > decoder.limit
            if oversized:
                self.budget.blame(decoder.size // decoder.limit)
            if len(self.streams) >= self.local.max_streams:
                self._violated(stream_id, wire.REFUSED_STREAM, "more streams than SETTINGS allows (RFC 9113 5.1.2)")
            elif itself:
                self._violated(stream_id, wire.PROTOCOL_ERROR, "a stream that depends on itself (RFC 7540 5.3.1)")
            else:
                self.owner.on_request(stream_id, fields, ended > 0, oversized)
        else:
            self._on_trailers(stream_id, fields, ended)

    def _on_trailers(self, stream_id: int, fields: Headers, ended: int) -> None:
        """The second section of a stream, which ends its request and is dropped (RFC 9113 8.1)."""
        stream = self._receiving(stream_id)
        if stream is None:
            return
        problem = check_trailers(fields) if ended else "trailers without END_STREAM (RFC 9113 8.1)"
        if problem is None and self.decoder.oversized:
            problem = "trailers beyond SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113 10.5.1)"
        if problem is None:
            self._deliver(stream, b"", ended)
        else:
            self._violated(stream_id, wire.PROTOCOL_ERROR, problem)

    # -- bodies

    def _on_data(self, stream_id: int, data: bytes, size: int, ended: int) -> None:
        """DATA (RFC 9113 6.1) with ``data`` of its ``size`` bytes; all of them count."""
        stream = self._counted(stream_id, size, bool(data) or bool(ended))
        if stream is not None:
            if size > len(data):
                self.credit(stream, size - len(data))
            self._deliver(stream, data, ended)

    def _on_padded_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._on_data(stream_id, wire.unpadded(payload), len(payload), flags & END_STREAM)

    def _on_first(self, stream_id: int, data: bytes, size: int, flags: int) -> None:
        """The first bytes of a DATA frame without padding."""
        stream = self._counted(stream_id, size, True)
        self.partial.data = PartialData(stream, size - len(data), flags & END_STREAM)
        if stream is not None and data:
            self._deliver(stream, data, 0)

    def _on_more(self, partial: PartialData, data: bytes) -> bytes:
        """The next bytes of a DATA frame; returns what is behind it."""
        piece = data[: partial.missing]
        partial.missing -= len(piece)
        if not partial.missing:
            self.partial.data = None
        stream = partial.stream
        if piece and stream is not None and (stream.state is OPEN or stream.state is HALF_CLOSED_LOCAL):
            self._deliver(stream, piece, 0 if partial.missing else partial.ended)
        return data[len(piece) :]

    def _counted(self, stream_id: int, size: int, carries: bool) -> Any | None:
        """Count a DATA frame in both windows; returns the stream that takes it, if any (RFC 9113 6.9.1)."""
        self.window -= size
        if self.window < 0:
            raise HTTP2Error(wire.FLOW_CONTROL_ERROR, "DATA beyond the window of the connection (RFC 9113 6.9.1)")
        if not carries:
            self._spend()
        stream = self._receiving(stream_id)
        if stream is not None:
            stream.window -= size
            if stream.window < 0:
                self._violated(
                    stream_id, wire.FLOW_CONTROL_ERROR, "DATA beyond the window of its stream (RFC 9113 6.9.1)"
                )
                return None
        return stream

    def _deliver(self, stream: Any, data: bytes, ended: int) -> None:
        expected = stream.expected
        if expected is not None:
            stream.expected = expected = expected - len(data)
            if expected < 0 or (ended and expected):
                self._violated(
                    stream.id, wire.PROTOCOL_ERROR, "a body not as long as Content-Length says (RFC 9113 8.1.1)"
                )
                return
        if ended:
            if stream.state is OPEN:
                stream.state = HALF_CLOSED_REMOTE
            else:
                stream.state = CLOSED
                del self.streams[stream.id]
        self.owner.on_data(stream, data, bool(ended))

    # -- the streams that a frame may name

    def _receiving(self, stream_id: int) -> Any | None:
        """
        The stream that may take HEADERS or DATA (RFC 9113 5.1). None: the frame is dropped.

        Raises :class:`~.errors.HTTP2Error`.
        """
        stream = self.streams.get(stream_id)
        if stream is not None:
            if stream.state is not HALF_CLOSED_REMOTE:
                return stream
            self._violated(stream_id, wire.STREAM_CLOSED, "a frame behind END_STREAM (RFC 9113 5.1)")
            return None
        history = self.history
        state = history.state_of(stream_id)
        if state is IDLE:
            raise HTTP2Error(wire.PROTOCOL_ERROR, "a frame on a stream that is not open (RFC 9113 5.1)")
        if state is CLOSED:
            raise HTTP2Error(wire.STREAM_CLOSED, "a frame on a stream that was closed (RFC 9113 5.1)")
        if state is RESET_RECEIVED:
            self._violated(stream_id, wire.STREAM_CLOSED, "a frame behind RST_STREAM (RFC 9113 5.1)")
        else:
            self._spend()
        return None

    def _violated(self, stream_id: int, code: int, reason: str) -> None:
        """Reset a stream because of what the client did (RFC 9113 5.4.2)."""
        stream = self.streams.get(stream_id)
        self.reset(stream_id, code, provoked=True)
        self.owner.on_violation(stream_id, stream, code, reason)

    def _forget(self, stream_id: int, state: StreamState) -> None:
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            stream.state = state
        self.history.add(stream_id, state)

    def _spend(self, cost: int = 1) -> None:
        """Count a frame that carries nothing."""
        budget = self.budget
        budget.frames -= cost
        if budget.frames < 0:
            budget.refill(self.history.granted - self.send_window)

    # -- all other frames

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        """PRIORITY (RFC 9113 6.3), which means nothing here."""
        self._spend()
        problem = ""
        code = wire.PROTOCOL_ERROR
        if len(payload) != 5:
            problem, code = "PRIORITY of a wrong length (RFC 9113 6.3)", wire.FRAME_SIZE_ERROR
        elif NUMBER.unpack_from(payload)[0] & LARGEST == stream_id:
            problem = "a stream that depends on itself (RFC 7540 5.3.1)"
        if problem and stream_id in self.streams:
            self._violated(stream_id, code, problem)
        elif problem and self.history.state_of(stream_id) is IDLE:  # which no RST_STREAM may name
            raise HTTP2Error(code, problem)

    def _on_rst_stream(self, flags: int, stream_id: int, payload: bytes) -> None:
        """RST_STREAM (RFC 9113 6.4)."""
        stream = self.streams.get(stream_id)
        if stream is None and self.history.state_of(stream_id) is IDLE and (stream_id or not self.leaving):
            raise HTTP2Error(wire.PROTOCOL_ERROR, "RST_STREAM on a stream that is not open (RFC 9113 6.4)")
        # HAProxy resets stream 0 for a request that GOAWAY has overtaken, and its other streams must not suffer for it.
        self.budget.blame()
        if stream is not None:
            self._forget(stream_id, RESET_RECEIVED)
            self.owner.on_reset(stream, NUMBER.unpack(payload)[0])

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        """SETTINGS (RFC 9113 6.5)."""
        self._spend(1 + len(payload) // 60)  # nobody has more than ten parameters
        if flags & wire.ACK:  # RFC 9113 6.5.3: the client obeys ours from now on; until now it may have sent more
            change, self.initial = self.local.window - self.initial, self.local.window
            for stream in self.streams.values():
                stream.window += change
            return
        values = wire.read_settings(payload)
        if values.get(wire.HEADER_TABLE_SIZE, TABLE_SIZE) < TABLE_SIZE:
            self.prefix = SIZE_UPDATE
        self.peer_frame = values.get(wire.MAX_FRAME_SIZE, self.peer_frame)
        self.owner.write(_SETTINGS_ACK)
        window = values.get(wire.INITIAL_WINDOW_SIZE, self.peer_initial)
        if window != self.peer_initial:
            self._resize(window)

    def _resize(self, window: int) -> None:
        """The client's SETTINGS_INITIAL_WINDOW_SIZE is for the streams that there are as well (RFC 9113 6.9.2)."""
        change, self.peer_initial = window - self.peer_initial, window
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > LARGEST:
                raise HTTP2Error(wire.FLOW_CONTROL_ERROR, "a window beyond 2^31-1 (RFC 9113 6.9.2)")
        if change > 0:
            self.owner.on_window(None)

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """PING (RFC 9113 6.7)."""
        self._spend()
        if flags & wire.ACK:
            self.owner.on_ping_ack(payload)
        else:
            self.owner.write(frame(wire.PING, wire.ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        """GOAWAY (RFC 9113 6.8)."""
        self._spend()
        self.owner.on_goaway(NUMBER.unpack_from(payload, 4)[0])

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        """WINDOW_UPDATE (RFC 9113 6.9)."""
        self._spend()
        step = NUMBER.unpack(payload)[0] & LARGEST
        if not stream_id:
            if not step:
                raise HTTP2Error(wire.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (RFC 9113 6.9)")
            self.send_window += step
            self.history.granted += step
            if self.send_window > LARGEST:
                raise HTTP2Error(wire.FLOW_CONTROL_ERROR, "a window beyond 2^31-1 (RFC 9113 6.9.1)")
            self.owner.on_window(None)
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.history.state_of(stream_id) is IDLE:
                raise HTTP2Error(wire.PROTOCOL_ERROR, "WINDOW_UPDATE on a stream that is not open (RFC 9113 5.1)")
        elif not step:
            self._violated(stream_id, wire.PROTOCOL_ERROR, "WINDOW_UPDATE of 0 (RFC 9113 6.9)")
        elif stream.send_window + step > LARGEST:
            self._violated(stream_id, wire.FLOW_CONTROL_ERROR, "a window beyond 2^31-1 (RFC 9113 6.9.1)")
        else:
            stream.send_window += step
            self.owner.on_window(stream)

    def _on_unknown(self, flags: int, stream_id: int, payload: bytes) -> None:
        """A type that is not known is ignored (RFC 9113 5.5)."""
        self._spend()


_SETTINGS_ACK = frame(wire.SETTINGS, wire.ACK, 0)

#: The flags that make HEADERS more than a field section.
_SPECIAL = END_HEADERS | PADDED | wire.WITH_PRIORITY

_FRAMES: dict[int, Callable[[FrameReader, int, int, bytes], None]] = {
    DATA: FrameReader._on_padded_data,
    HEADERS: FrameReader._on_headers,
    wire.PRIORITY: FrameReader._on_priority,
    wire.RST_STREAM: FrameReader._on_rst_stream,
    wire.SETTINGS: FrameReader._on_settings,
    wire.PING: FrameReader._on_ping,
    wire.GOAWAY: FrameReader._on_goaway,
    wire.WINDOW_UPDATE: FrameReader._on_window_update,
    CONTINUATION: FrameReader._on_continuation,
}
