"""
Clients of a group of workers: who gets which connection, and how long one waits.

``python -m tests.benchmarks.groups ROLE PORT CONNECTIONS SECONDS WORKERS MASTER``, run by ``load.py`` as
``clients.py`` is. Every role prints one line of JSON.

* ``burst`` opens all connections at once and asks on each of them who answers; ``burst-http2`` asks by HTTP/2.
* ``fresh`` opens a connection for each request.
* ``held`` does so while one worker after the other is held by a call that blocks its loop for a second.
* ``hup`` does so, with half of its clients on connections that they keep, and reloads the group after a second.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import signal
import sys
import time
from contextlib import closing
from typing import Any

import uvloop

from tests.benchmarks import http2

#: Seconds between two requests of a client: it is waiting times that are measured, not how much fits in.
PAUSE = 0.01

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(streams: Streams, path: str) -> bytes:
    """One request on an open connection; returns the body."""
    reader, writer = streams
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise OSError(head.split(b"\r\n")[0].decode())
    return await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))


class Group:
    """What the clients of one group of workers saw."""

    def __init__(self, port: int, speaks_http2: bool = False, path: str = "/", pause: float = PAUSE) -> None:
        self.port = port
        self.path = path
        self.pause = pause  #: between two requests of a client
        self.speaks_http2 = speaks_http2
        self.waits: list[float] = []
        self.lost = 0
        self.over = False

    async def connect(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def shares(self, count: int) -> collections.Counter[bytes]:
        """Worker -> how many of ``count`` connections that were opened at once it got."""
        connections = await asyncio.gather(*(self.connect() for _ in range(count)))
        if self.speaks_http2:
            pids = await asyncio.gather(*(http2.ask_once(*connection, "/pid") for connection in connections))
        else:
            pids = await asyncio.gather(*(ask(connection, "/pid") for connection in connections))
        for _, writer in connections:
            writer.close()
        return collections.Counter(pids)

    async def fresh(self) -> None:
        """One request after the other, each on a connection of its own."""
        while not self.over:
            begun = time.perf_counter()
            try:
                streams = await self.connect()
                with closing(streams[1]):
                    await ask(streams, self.path)
            except (OSError, EOFError):
                self.lost += 1
            self.waits.append(time.perf_counter() - begun)
            await asyncio.sleep(self.pause)

    async def kept(self) -> None:
        """One request after the other on a connection; when that has ended, as any may between two, on another one."""
        streams = await self.connect()
        while not self.over:
            begun = time.perf_counter()
            try:
                await ask(streams, self.path)
            except (OSError, EOFError) as exc:
                streams[1].close()
                streams = await self.connect()
                try:
                    await ask(streams, self.path)
                except (OSError, EOFError):
                    self.lost += 1
                self.lost += isinstance(exc, asyncio.IncompleteReadError) and bool(exc.partial)
            self.waits.append(time.perf_counter() - begun)
            await asyncio.sleep(self.pause)
        streams[1].close()

    async def block(self) -> None:
        """Have the loop of some worker blocked, again and again."""
        while not self.over:
            streams = await self.connect()
            with closing(streams[1]):
                await ask(streams, "/block")

    def result(self, seconds: float) -> dict[str, Any]:
        """As ``load.lua`` writes it."""
        ordered = sorted(wait * 1e3 for wait in self.waits) or [0.0]
        p50, p99 = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
        seen = {"requests": len(self.waits), "seconds": seconds, "bytes": 0, "errors": {"lost": self.lost}}
        return {**seen, "p50": p50, "p99": p99, "max": ordered[-1]}


async def burst(group: Group, count: int, workers: int) -> dict[str, Any]:
    """The least and the greatest share, once all workers are there."""
    deadline = time.perf_counter() + 10
    while time.perf_counter() < deadline and len(await group.shares(count)) < workers:
        pass
    await asyncio.sleep(0.5)  # what was closed is gone
    shares = await group.shares(count)
    least = min(shares.values()) if len(shares) == workers else 0
    return {"least": least, "most": max(shares.values())}


async def waits(group: Group, role: str, count: int, seconds: float, master: int) -> dict[str, Any]:
    """The load of the other roles."""
    kept = count // 2 if role == "hup" else 0
    tasks = [asyncio.create_task(group.kept() if index < kept else group.fresh()) for index in range(count)]
    if role == "held":
        tasks.append(asyncio.create_task(group.block()))
    begun = time.perf_counter()
    if role == "hup":
        await asyncio.sleep(1)
        os.kill(master, signal.SIGHUP)
    await asyncio.sleep(begun + seconds - time.perf_counter())
    group.over = True
    await asyncio.gather(*tasks)
    return group.result(time.perf_counter() - begun)


async def main(role: str, port: int, count: int, seconds: float, workers: int, master: int) -> None:
    group = Group(port, speaks_http2=role == "burst-http2")
    result = burst(group, count, workers) if role.startswith("burst") else waits(group, role, count, seconds, master)
    print(json.dumps(await result))


if __name__ == "__main__":
    arguments = sys.argv
    uvloop.run(main(arguments[1], int(arguments[2]), int(arguments[3]), float(arguments[4]), *map(int, arguments[5:7])))
