"""
FlowControl: pausing and resuming one transport, in both directions.

The protocol forwards the transport's ``pause_writing`` and ``resume_writing``
here, and everyone who writes awaits :meth:`FlowControl.drain`. A reader that receives
more than it can hand on calls :meth:`FlowControl.pause_reading`. Event loop side only.

Invariant: after :meth:`FlowControl.lose` no task is left waiting; it would hang for ever.

Nothing that ``send()`` was given is held back, not even until the end of the loop's turn.
The application may compute or block as soon as ``send()`` returns, and nothing else could
then write for it.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios

from .errors import ClientDisconnected

#: Seconds that a peer has to see our half-close and to close as well, before the connection is dropped.
LINGER = 1.0


class FlowControl:
    """Read and write pauses of one transport (asyncio "Flow control callbacks")."""

    __slots__ = (
        "lost",
        "progress",
        "read_paused",
        "taken",
        "transport",
        "waiters",
        "write_paused",
    )

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.read_paused = False
        self.write_paused = False
        self.lost = False
        self.waiters: list[asyncio.Future[None]] = []
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
