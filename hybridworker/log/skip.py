"""
Skip: requests that are not in the access log, because they are many and say nothing.

HYBRIDWORKER_ACCESS_SKIP names their paths. One that fails, with a status from 400 on, has its line all the same. Event
loop side only.

Invariant: a request that is skipped is counted like any other, by this worker and by gunicorn's statsd.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from ..asgi import Scope


class SkippedPaths:
    """``items`` are decoded paths, and prefixes with a ``*`` at their end."""

    def __init__(self, items: Iterable[str]) -> None:
        items = tuple(items)
        self.paths = frozenset(item for item in items if not item.endswith("*"))
        self.prefixes = tuple(item[:-1] for item in items if item.endswith("*"))

    def skips(self, scope: Scope, status: int) -> bool:
        """Whether a request that was answered with ``status`` has no line."""
        if status >= 400:
            return False
        path: str = scope["path"]
        return path in self.paths or path.startswith(self.prefixes)


class Muffler:
    """
    A filter that drops what is logged in the course of one call.

    gunicorn's statsd counts a request where it logs it, so that call must be made. What another thread logs meanwhile
    is kept.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self.thread: int | None = None
        logger.addFilter(self.filter)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is kept."""
        return self.thread is None or threading.get_ident() != self.thread

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call ``function``, and drop what it logs."""
        self.thread = threading.get_ident()
        try:
            function(*args)
        finally:
            self.thread = None
