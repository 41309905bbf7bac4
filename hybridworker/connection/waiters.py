"""
Waiters: the tasks that wait for one thing, and are all told when it may have come.

For :mod:`.flow` and for the messages of a WebSocket. Event loop side only.
"""

from __future__ import annotations

import asyncio


class Waiters(list[asyncio.Future[None]]):
    """A list, so that what waits in another way may add a future of its own and take it away."""

    __slots__ = ()

    async def wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until :meth:`wake`. Nothing is left behind where that is cancelled."""
        waiter = loop.create_future()
        self.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self:
                self.remove(waiter)
            raise

    def wake(self) -> None:
        """Let all go on that wait now."""
        if self:
            waiters = self[:]
            self.clear()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
