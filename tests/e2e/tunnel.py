"""
Tunnel: TLS for clients that read in one thread and write in another.

The synchronous clients of WebSockets do so, and Python's ssl is not made for it: OpenSSL forbids that two threads
use a connection at once, and the ``ssl`` of Python 3.11 to 3.13 does not prevent it (its issues 137583
and 151508, and 461 of python-engineio). The reader then takes the connection for closed, once in some
thousand messages, whatever the server is. So they speak to a tunnel in the open, whose TLS one thread has.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

from tests.e2e.harness import DEADLINE


class Tunnel:
    """Listens on ``port`` of 127.0.0.1, and carries each connection to one over TLS; ``address`` is that one's."""

    def __init__(self, target: int, context: ssl.SSLContext, **options: Any) -> None:
        """``options`` are further ones of :func:`asyncio.open_connection`."""
        self.options = {"host": "127.0.0.1", "port": target, "ssl": context, "server_hostname": "localhost", **options}
        self.port = 0
        self.address: Any = None
        self.ready = threading.Event()

    async def run(self) -> None:
        """Carry until cancelled."""
        listener = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            self.port = listener.sockets[0].getsockname()[1]
            self.ready.set()
            await asyncio.Event().wait()
        finally:
            listener.close()
            if carrying := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(carrying, timeout=DEADLINE)  # their clients have left

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(**self.options)
            ends.append(back)
            self.address = back.get_extra_info("sockname")
            ways = [asyncio.create_task(_pump(*way)) for way in ((reader, back), (there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)  # TLS knows no half-close
            for way in ways:
                way.cancel()
        for end in ends:
            end.close()
        for end in ends:
            with contextlib.suppress(OSError):
                await end.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def tunnel(target: int, context: ssl.SSLContext, **options: Any) -> Iterator[Tunnel]:
    """A tunnel to the port ``target`` of 127.0.0.1, that ends with the block."""
    made = Tunnel(target, context, **options)
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(made.run())
        thread = threading.Thread(target=_run, args=(loop, task), name="tunnel")
        thread.start()
        try:
            assert made.ready.wait(DEADLINE)
            yield made
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
