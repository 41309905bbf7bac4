"""
Outbox: the frames of one HTTP/2 connection on their way to its transport, and whose turn it is.

What is sent goes out at once, with two exceptions. A message that the windows do not let through
waits in its stream; blocked streams take turns, a frame each. And messages may be joined:

* frames of this worker's own, and responses of WSGI calls that are over, until the end of the read or turn
* the last message of a response while the requests of the same read are begun: its ``send()`` returns in the
  next turn of the loop, when the outbox is written, so no code of that request runs on meanwhile; and only
  while :class:`~.connection.pace.Pace` says that applications return quickly, because it waits behind theirs

One write instead of 16 takes a third of the time of a short response off.

Invariant: whoever sets ``holding`` calls :meth:`Outbox.flush` before the loop goes on, or has the loop do so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..connection.context import WorkerContext
from ..connection.flow import FlowControl
from .framereader import FrameReader
from .stream import Stream
from .wire import DATA, DEFAULT_FRAME, END_HEADERS, END_STREAM, HEAD, HEADERS, frame

#: Bytes that are given to the transport in one go.
BATCH = 256 * 1024

#: Bytes of the largest body that is copied, so that it can be written in one piece with others.
COPIED = 4096


class Outbox:
    """
    ``sent`` counts the bytes given to the transport. ``ended(stream)`` is called when END_STREAM was sent.

    ``holding`` says that :meth:`flush` is certain to come, and ``joining`` that a last message may wait for it.
    """

    __slots__ = ("blocked", "bulky", "context", "ended", "flow", "held", "holding", "joining", "reader", "sent")

    def __init__(
        self, context: WorkerContext, flow: FlowControl, reader: FrameReader, ended: Callable[[Stream], None]
    ) -> None:
        self.context = context
        self.flow = flow
        self.reader = reader
        self.ended = ended
        self.blocked: deque[Stream] = deque()  #: those that have something to send, in the order of their turns
        self.held: list[bytes] = []
        self.bulky = False  #: some of ``held`` is not to be copied; under TLS all is, or each piece would be a record
        self.holding = False
        self.joining = False
        self.sent = 0

    def write(self, data: bytes) -> None:
        """Send frames of this worker's own."""
        if self.holding:
            self.held.append(data)
        else:
            self._put(data)

    def flush(self) -> None:
        """Send what is held."""
        self.holding = self.joining = False
        if self.held:
            self._release()

    def defer(self) -> None:
        """Hold what may be joined until the loop has run everything that is ready now."""
        if not self.holding:
            self.holding = True
            self.context.loop.call_soon(self.flush)

    def send(self, stream: Stream, head: bytes, body: bytes, final: bool, join: bool = False) -> None:
        """
        Send ``head``, a block, and ``body``, as far as they go; either may be empty.

        ``final``: the response ends with it. ``join``: it may wait for the rest of this read, or turn.
        """
        reader = self.reader
        size, length = len(body), len(head)
        if (
            size > stream.send_window
            or size > reader.send_window
            or size + length > DEFAULT_FRAME
            or stream.write_paused
            or reader.prefix
        ):
            self._queue(stream, head, body, final)
            return
        held = self.held
        if size:
            stream.send_window -= size
            reader.send_window -= size
            data = HEAD.pack(size << 8 | DATA, final, stream.id)
            if length:
                held += HEAD.pack(length << 8 | HEADERS, END_HEADERS, stream.id), head, data, body
            else:
                held += data, body
            if size > COPIED:
                self.bulky = not self.flow.encrypted
        elif length:
            held += HEAD.pack(length << 8 | HEADERS, END_HEADERS | final, stream.id), head
        elif final:
            held.append(frame(DATA, END_STREAM, stream.id))
        else:
            return
        if join and self.holding:
            stream.write_paused = True
        else:
            self._release()
        reader.budget.delivered += 1
        if final:
            reader.end(stream)
            self.ended(stream)

    def section(self, stream: Stream, block: bytes, final: bool = False) -> None:
        """Send a field section: an interim response, or, ``final``, trailers."""
        if final and stream.size:
            stream.trailing = block  # behind what waits
            return
        self._put(self.reader.section(stream.id, block, END_STREAM if final else 0))
        if final:
            self._end(stream)

    def pump(self) -> None:
        """Send what waits for credit or for the transport, a frame of each stream in turn."""
        reader, blocked, now = self.reader, self.blocked, self.context.clock.now
        step = reader.peer_frame
        buffers: list[bytes | memoryview] = []
        empty: list[Stream] = []  # those that have nothing more to send than is in `buffers`
        total = stuck = 0
        while stuck < len(blocked) and reader.send_window > 0 and not self.flow.write_paused:
            stream = blocked.popleft()
            if not stream.size:
                continue  # it was lost
            room = min(step, reader.send_window, stream.send_window)
            if room <= 0:
                blocked.append(stream)
                stuck += 1
                continue
            stuck = 0
            part = self._cut(stream, room)
            size = len(part)
            last = not stream.size and stream.final
            stream.progress = now
            buffers.append(HEAD.pack(size << 8 | DATA, last, stream.id))
            buffers.append(part)
            total += size + 9
            if stream.size:
                blocked.append(stream)
            else:
                if stream.trailing:
                    buffers.append(reader.section(stream.id, stream.trailing, END_STREAM))
                reader.budget.delivered += 1
                empty.append(stream)
            if total >= BATCH:
                self._put_all(buffers, total, empty)
                buffers, total, empty = [], 0, []
        if buffers:
            self._put_all(buffers, total, empty)

    # -- the pieces of it

    def _queue(self, stream: Stream, head: bytes, body: bytes, final: bool) -> None:
        """As :meth:`send`, for what is too large, or has to wait."""
        if head:
            self._put(self.reader.section(stream.id, head, END_STREAM if final and not body else 0))
        if body:
            if not stream.size:
                self.blocked.append(stream)
            stream.wait(body, self.context.clock.now)
            stream.final = final
            self.pump()
        elif final:
            if stream.size:
                stream.final = True
                return
            if not head:
                self._put(frame(DATA, END_STREAM, stream.id))
            self._end(stream)

    def _cut(self, stream: Stream, room: int) -> memoryview:
        """Take the next ``room`` bytes of what a stream has to send, or fewer."""
        parts = stream.parts
        part = parts[0]
        if len(part) > room:
            parts[0] = part[room:]
            part = part[:room]
        else:
            parts.popleft()
        size = len(part)
        stream.size -= size
        stream.send_window -= size
        self.reader.send_window -= size
        return part

    def _end(self, stream: Stream) -> None:
        """END_STREAM was sent."""
        self.reader.end(stream)
        self.ended(stream)

    def _put(self, data: bytes) -> None:
        """Write ``data`` behind what is held."""
        self.held.append(data)
        self._release()

    def _release(self) -> None:
        """Write what is held."""
        if self.bulky:
            self.bulky, held, self.held = False, self.held, []
            self._put_all(_gathered(held), sum(map(len, held)), [])
            return
        data = b"".join(self.held)
        self.held.clear()
        self.sent += len(data)
        if not self.flow.lost:
            self.flow.transport.write(data)

    def _put_all(self, buffers: list[bytes | memoryview], total: int, empty: list[Stream]) -> None:
        """
        Write ``buffers``, and only then tell the streams that are ``empty``.

        One that ends may close the connection, and the WebSocket of one may have more to write at once.
        """
        if self.held:
            self._release()
        self.sent += total
        if not self.flow.lost:
            self.flow.transport.writelines(buffers)
        for stream in empty:
            ended = stream.final or stream.trailing
            stream.wake()
            if ended and not stream.lost:
                self._end(stream)


def _gathered(pieces: list[bytes]) -> list[bytes | memoryview]:
    """The same bytes in fewer pieces: the small ones between two large ones are one."""
    buffers: list[bytes | memoryview] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) <= COPIED:
            small.append(piece)
        else:
            buffers += b"".join(small), piece
            small.clear()
    if small:
        buffers.append(b"".join(small))
    return buffers
