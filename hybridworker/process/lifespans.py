"""
Lifespans: startup and shutdown of everything that a worker serves.

One :class:`~.lifespan.Lifespan` for each distinct ASGI object, started in the order named and stopped in reverse. A
Hybrid may have several, under several keys; any other application has one or none. Event loop side only.

Invariant: what has started is stopped, also where another one fails, or the worker is told to go meanwhile.
"""

from __future__ import annotations

import asyncio

from ..application.application import Application
from ..connection.context import WorkerContext
from ..errors import LifespanFailed
from .lifespan import Lifespan

#: Seconds that are kept for each of the lifespans behind the one that is being stopped, at most.
KEPT_MAX = 1.0


class Lifespans:
    """The lifespans of one worker. ``mode`` is gunicorn's ``asgi_lifespan``."""

    __slots__ = ("context", "every", "started")

    def __init__(self, context: WorkerContext, mode: str = "auto") -> None:
        self.context = context
        distinct: dict[int, list[Application]] = {}
        for application in context.router.applications:
            if not application.threaded and mode != "off":
                distinct.setdefault(id(application.app), []).append(application)
        self.every = [Lifespan(context, first, mode, others) for first, *others in distinct.values()]
        self.started: list[Lifespan] = []

    def __bool__(self) -> bool:
        return bool(self.started)

    async def start(self, stop: asyncio.Event, failing: float) -> None:
        """
        Start them, unless the worker is told to ``stop`` meanwhile.

        Where one fails, those that have started are stopped within ``failing`` seconds, and LifespanFailed names it.
        """
        for lifespan in self.every:
            if stop.is_set():
                return
            try:
                self.started.append(lifespan)
                await lifespan.start(stop)
            except LifespanFailed as exc:
                self.started.remove(lifespan)
                await self.shutdown(failing)
                part = lifespan.application.part
                raise exc if part is None else LifespanFailed(f"{part.key}: {exc}") from None

    async def shutdown(self, seconds: float) -> None:
        """Stop those that were started, the last first, within ``seconds`` in all. None takes all the time."""
        loop = self.context.loop
        end = loop.time() + max(0.1, seconds)
        while self.started:
            lifespan, others = self.started.pop(), len(self.started)
            left = max(0.0, end - loop.time())
            kept = min(KEPT_MAX, left / (1 + others)) * others
            await lifespan.shutdown(left - kept)
