"""
Turn: the requests that have come with one turn of the loop, begun together when it has read from all connections.

Their heads are then read one after the other, and the application is called for one after the other. That the
processor does the same thing many times in a row is worth 13 % of a page of Starlette's, and 2 % of a hello; a client
that is alone pays 5 % for the turn that its request waits. A row of pipelined requests has a turn for each of them,
so that other connections go first.

WSGI calls do not come here: they are handed to threads, which are woken once in a turn. HTTP/2 begins all requests of a
read together (:mod:`..http2.protocol`). Event loop side only.

Invariant: a client that closes its side behind its request has that begun before the connection looks at its end.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Protocol


class Connection(Protocol):
    """A connection of one request at a time."""

    def start(self) -> None:
        """Call the application for the request that has come, unless that is over already."""


class Turn:
    """Connections whose requests begin when this turn has ended, in the order in which they came."""

    __slots__ = ("loop", "variables", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.variables = contextvars.Context()  #: not those of the request whose end let the next one begin
        self.waiting: list[Connection] = []

    def add(self, connection: Connection) -> None:
        """Have the request of ``connection`` begin."""
        if not self.waiting:
            self.loop.call_soon(self._start, context=self.variables)
        self.waiting.append(connection)

    def _start(self) -> None:
        waiting, self.waiting = iter(self.waiting), []
        try:
            for connection in waiting:
                connection.start()
        finally:  # what leaves the process is raised in a request; if the process stays, the others are not lost
            for connection in waiting:
                self.add(connection)
