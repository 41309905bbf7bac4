"""
Stream: one request on an HTTP/2 connection, and the flow of its bytes in both directions.

For its cycle it is what :class:`~.connection.flow.FlowControl` is for one of HTTP/1.1: what is sent
waits for the windows of the stream and of the connection (RFC 9113 5.2), and for the transport.
:mod:`.framereader` keeps state and windows, :mod:`.outbox` sends. Event loop side only.

Invariant: after :meth:`Stream.lose` no task is left waiting.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Protocol

from ..connection.cycle import RequestResponseCycle
from ..connection.flow import DEAF, FlowControl
from ..errors import ClientDisconnected
from ..states import ResponseState, StreamState


class Tunnel(Protocol):
    """What takes the bytes of a stream that is no request: :class:`~.tunnel.Tunnel`."""

    def receive(self, data: bytes, ended: bool) -> None:
        """Bytes of the client have come; ``ended``: they are the last."""

    def lose(self) -> None:
        """The stream is gone."""

    def drained(self) -> None:
        """Everything has been sent."""

    def tick(self, now: float) -> None:
        """Look at the timeouts."""

    def drain(self, deadline: float) -> None:
        """The worker is leaving."""

    def end(self) -> None:
        """Our side has ended."""


class Stream:
    """
    One stream. The attributes up to ``send_window`` are the reader's (:class:`~.owner.FramedStream`).

    ``parts`` is what waits to be sent, ``size`` the bytes of it; ``final`` says that the response ends with it,
    ``trailing`` are the trailers that do. All but ``size`` are made when something has to wait, which is seldom.
    """

    __slots__ = (
        "id", "state", "expected", "window", "owed", "send_window",  # the reader's
        "cycle", "flow", "tunnel",
        "final", "parts", "progress", "size", "trailing", "waiter", "write_paused",  # what is sent
        "deadline", "dropped", "lingers", "lost",
    )  # fmt: skip

    state: StreamState
    window: int
    owed: int
    send_window: int
    final: bool
    parts: deque[memoryview]
    progress: float  #: loop time when the client was last seen to take some of ``parts``
    trailing: bytes

    read_paused = False  #: the window holds the client back, and credit is given as the application reads

    def __init__(self, stream_id: int, flow: FlowControl) -> None:
        self.id = stream_id
        self.expected: int | None = None
        self.flow = flow  #: of the connection
        self.cycle: RequestResponseCycle | None = None
        self.tunnel: Tunnel | None = None
        self.size = 0
        self.write_paused = flow.write_paused  #: who sends has to wait, for the windows, the transport or the outbox
        self.waiter: asyncio.Future[None] | None = None
        self.deadline = math.inf  #: loop time until which the client has to go on with its body
        self.dropped = 0  #: bytes of body that nobody read
        self.lingers = False  #: the call goes on although the stream is closed
        self.lost = False  #: reset, or the connection is gone

    # -- what the cycle asks of a flow

    def pause_reading(self) -> None:
        """Nothing to do: the client may send no more than the window."""

    def resume_reading(self) -> None:
        """Never paused."""

    def unsent(self) -> bool:
        """Whether bytes wait for the client, as far as this process is concerned."""
        return self.size > 0 or self.flow.unsent()

    async def drain(self) -> None:
        """Wait until everything was sent. Raises :class:`~.errors.ClientDisconnected` when the stream is lost."""
        while self.size and not self.lost:
            waiter = self.waiter
            if waiter is None or waiter.done():
                waiter = self.waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(waiter)
        if self.lost:
            raise ClientDisconnected("the client has reset the stream")
        if self.flow.write_paused:
            await self.flow.drain()

    # -- what the connection does

    def stalled(self, now: float, timeout: float, leaving: bool) -> bool:
        """
        Whether the client took nothing of what waits for it for ``timeout`` seconds.

        A worker that is ``leaving`` waits no longer than DEAF where the client alone is waited for: the response is
        complete, or a thread has made it and it waits on disk.
        """
        cycle = self.cycle
        if leaving and (
            cycle is None or cycle.state is ResponseState.COMPLETE or not cycle.application.works(cycle.scope)
        ):
            timeout = min(timeout, DEAF)
        return self.size > 0 and now - self.progress >= timeout

    def wait(self, part: bytes, now: float) -> None:
        """Keep ``part`` of the response until it can be sent. ``now`` is loop time."""
        if not self.size:
            self.parts = deque()
            self.final, self.trailing, self.progress = False, b"", now
        self.parts.append(memoryview(part))
        self.size += len(part)
        self.write_paused = True

    def wake(self) -> None:
        """Everything was sent, or never will be."""
        self.write_paused = self.flow.write_paused
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if self.tunnel is not None and not self.lost:
            self.tunnel.drained()

    def lose(self) -> None:
        """The stream is gone: nothing of it is sent any more, and whoever waits is told."""
        self.lost = True
        if self.size:
            self.size = 0
            self.parts.clear()
        self.wake()


def opened(streams: dict[int, Stream]) -> list[Stream]:
    """Those that are open, as a copy. Without any, the dict gives back the room of those that it has held."""
    if not streams:
        streams.clear()  # 4 KiB after 100 at once, of a connection that is idle now
    return list(streams.values())
