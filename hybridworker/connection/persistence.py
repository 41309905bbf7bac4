"""
Persistence: whether connections outlive their responses, and for how long (RFC 9112 section 9.3).

One for a worker. Event loop side only.
"""

from __future__ import annotations

from ..config.settings import Settings


class Persistence:
    """What gunicorn's ``keepalive`` says, until the worker leaves."""

    __slots__ = ("_window", "draining", "idle_time", "keep_alive")

    def __init__(self, settings: Settings) -> None:
        self._window = settings.drain_window
        self.draining = False  #: the worker is leaving
        self.keep_alive = settings.keepalive > 0  #: connections may outlive a response
        self.idle_time = settings.keepalive  #: how long an idle connection is kept, in seconds

    def end(self) -> None:
        """The worker is leaving: every response from now on ends its connection."""
        self.draining = True
        self.keep_alive = False
        self.idle_time = self._window
