"""
Clock: the time of the last tick, and the response fields that follow it.

One for a worker, ticked once a second. Most code that needs the time does not mind that it is up to a second old. Event
loop side only.
"""

from __future__ import annotations

import time

from .response import default_fields


class Clock:
    """
    ``server`` is the value of the Server field. ``exact`` says that each request wants a time of its own: its duration
    is logged, counted or limited.
    """

    __slots__ = ("_server", "exact", "fields", "now")

    def __init__(self, server: bytes, now: float, exact: bool) -> None:
        self._server = server
        self.exact = exact
        self.now = now  #: loop time
        self.fields = b""  #: the Server and Date lines
        self.tick(now)

    def tick(self, now: float) -> None:
        """Set the clock, once a second. ``now`` is loop time."""
        self.now = now
        self.fields = default_fields(self._server, time.time())
