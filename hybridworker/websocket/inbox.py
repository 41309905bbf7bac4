"""
Inbox: what the application of one WebSocket receives: the connect event, messages, and one end.

:class:`~.websocket.protocol.WebSocketProtocol` feeds the reader and wakes the waiters. Event loop side only.

Invariant: ``receive()`` reports one end, the first that :meth:`Inbox.tell` was told, and never hangs behind it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from ..asgi import Message
from ..connection.waiters import Waiters
from ..states import ReaderState


class Reader(Protocol):
    """What is needed of a :class:`~.websocket.frames.MessageReader`."""

    state: ReaderState

    @property
    def idle(self) -> bool:
        """Whether no whole message waits."""

    def take(self) -> Message:
        """The next message."""


class Inbox:
    """``reader`` has the messages."""

    __slots__ = ("_connected", "_loop", "_reader", "behind", "end", "told", "waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop, reader: Reader) -> None:
        self._loop = loop
        self._reader = reader
        self._connected = False  #: the application has received websocket.connect
        self.waiters = Waiters()  #: to be woken when something may have come
        self.behind = False  #: in the next turn of the loop, more will be read of what has come
        self.end: dict[str, Any] | None = None  #: the websocket.disconnect of this connection, once it has ended
        self.told = False  #: the application has received it

    async def receive(self) -> Message:
        """The next event (ASGI WebSocket 2.5). After the last, ``websocket.disconnect`` for ever."""
        reader = self._reader
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while reader.idle:
            if self.end is not None and (not self.behind or reader.state is not ReaderState.READING):
                self.told = True
                return self.end.copy()
            await self.waiters.wait(self._loop)
        return reader.take()

    def tell(self, code: int, reason: str = "") -> None:
        """The connection has ended: the application is told so when it has received everything else."""
        if self.end is None:
            self.end = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self.waiters.wake()
