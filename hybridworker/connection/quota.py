"""
RequestQuota: how many requests a worker has begun, and after how many it is replaced (gunicorn's ``max_requests``).

One for a worker. Event loop side only.
"""

from __future__ import annotations

from collections.abc import Callable


class RequestQuota:
    """``used_up`` is called once, when ``limit`` requests have begun."""

    __slots__ = ("limit", "served", "used_up")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.served = 0  #: requests that have begun
        self.used_up: Callable[[], None] = lambda: None

    def count(self) -> None:
        """One more request begins."""
        self.served += 1
        if self.served == self.limit:
            self.used_up()
