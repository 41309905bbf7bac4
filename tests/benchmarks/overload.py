"""
More requests than a server can answer, and what becomes of it when they cease.

``python -m tests.benchmarks.overload PORT CAPACITY SECONDS``, run by ``load.py`` as ``clients.py`` is; prints one line
of JSON. Requests come at :data:`FACTOR` times the ``CAPACITY`` (answers a second) for some seconds, whether or not
those before them are answered, each on a connection of its own; then at half of it until the server has recovered.

``requests`` counts the answers that came in time, ``p99`` is of all that came, late ones included, and ``max`` is the
time from the end of the overload until answers come promptly again.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from contextlib import suppress
from typing import Any

import uvloop

#: How much more than it can answer a server is asked.
FACTOR = 4

#: Seconds: an answer that comes later is too late for a person, and after so many the client has gone.
IN_TIME, PATIENCE = 2.0, 10.0

#: The server has recovered when so many answers in a row come within so many seconds; at most so many are waited for.
ROW, PROMPT, RECOVERY_MAX = 10, 0.5, 30.0

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Overload:
    """What the clients saw."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.waits: list[float] = []  #: of the answers with status 200
        self.row = 0  #: how many of the last answers were prompt
        self.recovering = False
        self.recovered = asyncio.Event()

    async def ask(self) -> bool:
        """One request on a connection of its own; whether it got a 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(REQUEST)
            return (await reader.read(64)).startswith(b"HTTP/1.1 200 ")
        finally:
            writer.close()

    async def client(self, recovering: bool) -> None:
        """One client, with its patience."""
        begun, answered = time.perf_counter(), False
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                answered = await self.ask()
        wait = time.perf_counter() - begun
        if recovering:
            self.row = self.row + 1 if answered and wait < PROMPT else 0
            if self.row == ROW:
                self.recovered.set()
        elif answered:
            self.waits.append(wait)

    async def run(self, capacity: float, seconds: float) -> dict[str, Any]:
        """The overload, and the time behind it."""
        clients: set[asyncio.Task[None]] = set()

        def begin(recovering: bool) -> None:
            task = asyncio.ensure_future(self.client(recovering))
            clients.add(task)
            task.add_done_callback(clients.discard)

        await paced(FACTOR * capacity, seconds, lambda: begin(False), self.recovered)
        over = time.perf_counter()
        await paced(capacity / 2, RECOVERY_MAX, lambda: begin(True), self.recovered)
        recovery = time.perf_counter() - over
        await asyncio.gather(*clients)
        ordered = sorted(wait * 1e3 for wait in self.waits) or [0.0]
        p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
        good = sum(wait <= IN_TIME for wait in self.waits)
        seen = {"requests": max(1, good), "seconds": seconds, "bytes": 0, "errors": {}}
        return {**seen, "p50": p50, "p99": p99, "max": recovery * 1e3}


async def paced(rate: float, seconds: float, begin: Any, enough: asyncio.Event) -> None:
    """Call ``begin`` so many times a second, until the time is over or it is enough."""
    begun, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begun) < seconds and not enough.is_set():
        while count < passed * rate:
            begin()
            count += 1
        await asyncio.sleep(0.005)


async def main(port: int, capacity: float, seconds: float) -> None:
    print(json.dumps(await Overload(port).run(capacity, seconds)))


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
