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
import os
import socket
import termios
from typing import Protocol

from ..errors import ClientDisconnected
from . import kernel
from .accepted import Accepted
from .waiters import Waiters

#: Seconds that a peer has to see our half-close and to close as well, before the connection is dropped.
LINGER = 1.0

#: Seconds for which a client may take none of the bytes of a complete response while the worker leaves.
DEAF = 2.0


class Flow(Protocol):
    """What a request needs of the flow of its connection, or of its stream."""

    @property
    def read_paused(self) -> bool:
        """Whether no bytes are taken from the client."""

    @property
    def write_paused(self) -> bool:
        """Whether who writes has to wait."""

    def pause_reading(self) -> None:
        """Hold the client back."""

    def resume_reading(self) -> None:
        """Take bytes again."""

    async def drain(self) -> None:
        """Wait until bytes are taken again. Raises :class:`~.errors.ClientDisconnected`."""

    def unsent(self) -> bool:
        """Whether bytes wait for the client, as far as this process is concerned."""


class FlowControl:
    """Read and write pauses of one transport (asyncio "Flow control callbacks")."""

    __slots__ = (
        "blocked",
        "encrypted",
        "ended_at",
        "farewell",
        "lost",
        "progress",
        "queued",
        "quiet",
        "read_paused",
        "resets",
        "sock",
        "taken",
        "transport",
        "write_paused",
        "_waiters",
    )

    def __init__(self, transport: asyncio.Transport, sock: Accepted | None = None) -> None:
        self.transport = transport
        self.sock = sock  #: of the transport, which is asked for its own where this is None
        self.read_paused = False
        self.ended_at: float | None = None  #: since when the peer is seen to have closed behind bytes that nobody reads
        self.write_paused = False
        self.blocked = False  #: bytes of a file wait for the peer
        self.lost = False
        self.resets = False  #: the connection ends by a reset
        self._waiters: Waiters | None = None
        self.taken = 0  #: bytes that the peer had taken at the last look
        #: loop time when it was last seen to take some, or had nothing to take; None before the first look
        self.progress: float | None = None
        self.queued = 0  #: bytes that the kernel held for it then
        self.quiet = 1  #: how many looks in a row have found nothing to take; nothing was written before the first
        self.encrypted = not transport.can_write_eof()  #: TLS
        self.farewell = -1  #: a duplicate of the descriptor, to shut the connection down when the transport is gone

    @property
    def waiters(self) -> Waiters:
        """Who waits until bytes are taken; most connections never have one."""
        if self._waiters is None:
            self._waiters = Waiters()
        return self._waiters

    def pause_reading(self) -> None:
        """Stop taking bytes from the kernel; the peer is held back by TCP."""
        if not self.read_paused and not self.lost:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if self.read_paused and not self.lost:
            self.read_paused = False
            self.ended_at = None
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has been sent."""
        self.write_paused = False
        if self._waiters is not None:
            self._waiters.wake()

    def lose(self) -> None:
        """The transport is gone: everyone who waits is told so."""
        self.lost = True
        self.write_paused = False
        if self._waiters is not None:
            self._waiters.wake()
        # A plain transport closes its descriptor after this call, one of TLS has closed it before.
        if self.farewell >= 0:
            kernel.shut_down(self.farewell)
            os.close(self.farewell)
            self.farewell = -1
        elif not self.resets:
            self._shut_down()

    def fileno(self) -> int:
        """The descriptor of the connection, which is the transport's; -1 when it is gone."""
        sock = self.sock or self.transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def _shut_down(self) -> None:
        """End the connection in the kernel, whatever else has it open."""
        if self.sock is None:
            kernel.shut_down(self.fileno())
            return
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer was faster, or a transport of TLS has closed it

    def ending(self) -> None:
        """The transport is being closed. One of TLS is then out of reach when its time has come to be shut down."""
        if self.encrypted and self.farewell < 0 and not self.lost:
            try:
                self.farewell = os.dup(self.fileno())
            except OSError:
                pass  # it is gone in this very moment, or there are no descriptors left

    def linger(self) -> None:
        """
        Send nothing more, and read on until the peer has closed its side, or its time is over: see :meth:`settled`.

        Closing a socket with unread bytes resets it, and the reset could overtake what was sent last (RFC 9112 9.6).
        TLS has no half-close: bytes of the peer behind our close_notify are an error there, and reset the connection
        too. So this peer is told by what was sent last alone, by ``Connection: close`` for example.
        """
        self.ending()
        if not self.encrypted:
            self.transport.write_eof()
        self.resume_reading()

    def settled(self) -> bool:
        """
        Whether a peer that does not close its side may be cut, now that the time for that is over.

        A transport of TLS that lingers is closed first, and cut at the next look: the peer is to get its close_notify.
        """
        if self.encrypted and not self.transport.is_closing():
            self.transport.close()
            return False
        return True

    def close(self) -> None:
        """Close the transport, when it has sent everything."""
        self.ending()
        if not self.transport.is_closing():  # asyncio's TLS does not survive a second call
            self.transport.close()

    def abort(self, reset: bool = False) -> None:
        """End the connection at once. What the kernel has is still sent, but with ``reset``, which TCP only has."""
        if self.lost:
            return
        # Under TLS the missing close_notify says that something is missing.
        self.resets = reset and not self.encrypted and kernel.reset_when_closed(self.fileno())
        if not self.resets:
            self._shut_down()
        self.transport.abort()

    async def drain(self) -> None:
        """
        Wait until the transport takes bytes again.

        Raises :class:`~.errors.ClientDisconnected` when the connection is lost
        meanwhile (ASGI HTTP 2.4: also out of a blocked ``send()``).
        """
        while self.write_paused:
            await self.waiters.wait(asyncio.get_running_loop())
        if self.lost:
            raise ClientDisconnected("the client disconnected")

    def stalled(self, now: float, timeout: float, written: int) -> bool:
        """
        Whether the peer took none of the bytes that wait for it for ``timeout`` seconds.

        To be called once a second, with ``written``, the count of bytes handed to the
        transport, from any origin. A sum that stands still while more is written means
        that the peer took nothing; one that falls is the framing, which is not counted.

        The kernel is asked as well. It lets the transport write again only when a good part
        of its buffer is free, which takes a slow peer longer than it is given here; and a
        transport of TLS does not show what the one below it holds, but that one holds
        nothing unless the kernel does.
        """
        unsent = self.transport.get_write_buffer_size()
        queued = kernel.unacknowledged(self.fileno()) if unsent or self.encrypted or self.blocked else 0
        taken = written - unsent
        self.quiet = 0 if unsent or queued else self.quiet + 1
        if self.quiet or taken > self.taken or queued != self.queued or self.progress is None:
            self.progress = now
        self.taken, self.queued = taken, queued
        return now - self.progress >= timeout

    def holds(self) -> bool:
        """Whether bytes wait for the peer at this moment."""
        waiting = self.transport.get_write_buffer_size() > 0
        return waiting or (self.encrypted and kernel.unacknowledged(self.fileno()) > 0)

    def unsent(self) -> bool:
        """
        Whether bytes wait for the peer, as far as this process is concerned.

        Under TLS two looks in a row must have found none: at one of them the kernel may just
        have sent its last byte, while the transport below has more for it.
        """
        return self.transport.get_write_buffer_size() > 0 or (self.encrypted and self.quiet < 2)

    def readable(self) -> bool:
        """Whether the kernel holds bytes of the peer that the transport has not read yet."""
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self.fileno(), termios.FIONREAD, waiting)
        except (OSError, ValueError):  # gone in this very moment, or not a socket
            return False
        return waiting[0] > 0
