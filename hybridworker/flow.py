"""
FlowControl: pausing and resuming one transport, in both directions, and joining writes.

The protocol forwards the transport's ``pause_writing`` and ``resume_writing``
here and everyone who writes awaits :meth:`FlowControl.drain`; whoever receives
more than it can hand on calls :meth:`FlowControl.pause_reading`. What is written in
one turn of the loop goes out in as few strokes as possible: see :class:`Turn`. Event loop
side only. The rules one could break by accident: after :meth:`FlowControl.lose` nobody
may be left waiting, or a task would hang for ever; and before anything is written to the
transport itself, :meth:`FlowControl.flush` sends what is held back.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
import time

from .errors import ClientDisconnected

#: Seconds that a peer has to see our half-close and to close as well, before the connection is dropped.
LINGER = 1.0

#: Bytes that are held back for a write of several, and the seconds for which the loop may not have turned;
#: above, they go out at once.
CORK_MAX, CORK_TIME = 65536, 0.001


class Turn:
    """
    The connections of a worker that have written in the present turn of the loop.

    Responses that become complete in one turn go out one behind the other at its end, when
    the last has been computed. Sent one by one, each would wake the peer, which has read it
    and sleeps again before the next comes: with 32 connections that costs a tenth to a fifth
    of all requests per second. The first of a turn goes out at once, so that a lonely one
    never waits, and so do all where a turn takes long.
    """

    __slots__ = ("flows", "since")

    def __init__(self) -> None:
        self.flows: list[FlowControl] = []
        self.since = 0.0  #: when the first of them has written; ``time.monotonic()``

    def join(self, flow: FlowControl) -> None:
        """``flow`` writes for the first time in this turn."""
        if not self.flows:
            self.since = time.monotonic()
            asyncio.get_running_loop().call_soon(self.end)
        self.flows.append(flow)

    def late(self) -> bool:
        """Whether the application computes for so long that nothing may be held back."""
        return time.monotonic() - self.since > CORK_TIME

    def end(self) -> None:
        """Send what is held back."""
        flows, self.flows = self.flows, []
        for flow in flows:
            flow.corked = False
            flow.flush()


class FlowControl:
    """Read and write pauses of one transport (asyncio "Flow control callbacks")."""

    __slots__ = (
        "corked",
        "lost",
        "parts",
        "progress",
        "read_paused",
        "size",
        "taken",
        "transport",
        "turn",
        "waiters",
        "write_paused",
    )

    def __init__(self, transport: asyncio.Transport, turn: Turn | None = None) -> None:
        self.transport = transport
        self.turn = Turn() if turn is None else turn
        self.read_paused = False
        self.write_paused = False
        self.lost = False
        self.waiters: list[asyncio.Future[None]] = []
        self.corked = False  #: something was written in this turn of the loop
        self.parts: list[bytes] = []  #: what is held back until its end
        self.size = 0  #: of ``parts``, bytes
        self.taken = 0  #: bytes that the peer had taken at the last look
        #: loop time when it was last seen to take some, or had nothing to take; None before the first look
        self.progress: float | None = None

    def pause_reading(self) -> None:
        """Stop taking bytes from the kernel; the peer is held back by TCP."""
        if not self.read_paused and not self.lost:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self.read_paused and not self.lost:
            self.read_paused = False
            self.transport.resume_reading()

    def write(self, data: bytes) -> None:
        """
        Write a part of something, and what else is written in this turn of the loop together with it.

        A transport makes a system call of every write. The first one goes out at once;
        those that follow before the loop turns are sent in one, when it does.
        """
        if not self.corked:
            self.corked = True
            self.turn.join(self)
            self.transport.write(data)
        else:
            self.parts.append(data)
            self.size += len(data)
            # An application that computes between its writes, and does not let the loop turn, streams all the same.
            if self.size > CORK_MAX or self.turn.late():
                self.flush()

    def finish(self, data: bytes) -> None:
        """Write the whole, or the end, of a response: at the end of this turn, unless it is the first."""
        turn = self.turn
        if not turn.flows:
            self.corked = True
            turn.join(self)
            self.transport.write(data)
            return
        if not self.corked:
            self.corked = True
            turn.flows.append(self)
        self.parts.append(data)
        self.size += len(data)
        if time.monotonic() - turn.since > CORK_TIME:  # `late`, without the call
            turn.end()
        elif self.size > CORK_MAX:
            self.flush()

    def flush(self) -> None:
        """Give everything to the transport: before anything is written to that, and before it is closed."""
        if self.parts:
            data = b"".join(self.parts)
            self.parts.clear()
            self.size = 0
            if not self.lost:
                self.transport.write(data)

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has been sent."""
        self.write_paused = False
        self._wake()

    def lose(self) -> None:
        """The transport is gone: everyone who waits is told so."""
        self.lost = True
        self.write_paused = False
        self._wake()

    async def drain(self) -> None:
        """
        Wait until the transport takes bytes again.

        Raises :class:`~.errors.ClientDisconnected` when the connection is lost
        meanwhile (ASGI HTTP 2.4: also out of a blocked ``send()``).
        """
        while self.write_paused:
            waiter = asyncio.get_running_loop().create_future()
            self.waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self.waiters:
                    self.waiters.remove(waiter)
                raise
        if self.lost:
            raise ClientDisconnected("the client disconnected")

    def stalled(self, now: float, timeout: float, written: int) -> bool:
        """
        Whether the peer took none of the bytes that wait for it for ``timeout`` seconds.

        To be called once a second, with ``written``, the count of bytes handed to the
        transport, from any origin. A sum that stands still while more is written means
        that the peer took nothing; one that falls is the framing, which is not counted.
        """
        unsent = self.transport.get_write_buffer_size()
        taken = written - unsent
        if not unsent or taken > self.taken or self.progress is None:
            self.progress = now
        self.taken = taken
        return now - self.progress >= timeout

    def readable(self) -> bool:
        """Whether the kernel holds bytes of the peer that the transport has not read yet."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, waiting)
        except (OSError, AttributeError, ValueError):  # gone in this very moment, or not a socket
            return False
        return waiting[0] > 0

    def _wake(self) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
