"""
Clients that go on asking while something happens to the server, and what they have lost.

Half of them make a connection for each request, half keep theirs. Lost is a request that is refused, cut, not answered
200 or not answered in time. A kept connection that ends before a byte of the response has come is no loss, as clients
ask such a GET again on a new one (RFC 9110 9.2.2); the second attempt counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from types import TracebackType
from typing import Self

#: Clients, seconds between two requests of one, and seconds for an answer.
CLIENTS, PAUSE, PATIENCE = 8, 0.01, 20.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Unsent(Exception):
    """A kept connection has ended without a byte of the response."""


def kind(exc: Exception) -> str:
    """How a request was lost, in one word or two."""
    if isinstance(exc, ConnectionRefusedError):
        return "refused"
    if isinstance(exc, TimeoutError):
        return "no answer"
    return str(exc) if isinstance(exc, ValueError) else "cut"


class Load:
    """The clients, in a thread of their own, from entering to leaving the context."""

    def __init__(self, port: int, path: str = "/") -> None:
        self.port = port
        self.request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self.count = 0
        self.longest = 0.0  #: seconds that a request took
        self.lost: list[str] = []
        self.bodies: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def go_on(self, requests: int, seconds: float = 20.0) -> bool:
        """Wait until so many more have been answered or lost; whether they were."""
        enough, deadline = self.count + requests, time.monotonic() + seconds
        while self.count < enough and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.count >= enough

    def __str__(self) -> str:
        why = f" ({', '.join(sorted(set(self.lost)))})" if self.lost else ""
        return f"lost {len(self.lost):,} of {self.count:,}{why}, longest wait {self.longest:.1f} s"

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number % 2 == 0) for number in range(CLIENTS)))

    async def _client(self, keeps: bool) -> None:
        kept: Streams | None = None
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    if kept is not None:
                        with contextlib.suppress(Unsent):
                            kept = await self._ask(kept, keeps, again=True)
                            continue
                    kept = await self._ask(await asyncio.open_connection("127.0.0.1", self.port), keeps)
            except (OSError, EOFError, ValueError, TimeoutError) as exc:
                kept = None
                self.lost.append(kind(exc))
            finally:
                self.count += 1
                self.longest = max(self.longest, time.monotonic() - begun)
                await asyncio.sleep(PAUSE)
        if kept is not None:
            kept[1].close()

    async def _ask(self, streams: Streams, keeps: bool, again: bool = False) -> Streams | None:
        """One request; returns the connection if it stays open."""
        reader, writer = streams
        try:
            try:
                writer.write(self.request)
                head = await reader.readuntil(b"\r\n\r\n")
            except (ConnectionError, asyncio.IncompleteReadError) as exc:
                if again and not getattr(exc, "partial", b""):
                    raise Unsent from None
                raise
            fields = head.lower()
            if not head.startswith(b"HTTP/1.1 200 "):
                raise ValueError(head.split(b" ", 2)[1].decode())
            self.bodies.add(await reader.readexactly(int(fields.split(b"content-length:")[1].split(b"\r\n")[0])))
        except BaseException:
            writer.close()
            raise
        if keeps and b"\r\nconnection: close" not in fields:
            return streams
        writer.close()
        return None
