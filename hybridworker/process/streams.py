"""
Streams: how a worker that leaves ends responses of unknown length.

Two rules, each with seconds of its own. ``HYBRIDWORKER_STREAM_DRAIN`` asks streams to end, so that a
deploy need not wait for them: the application sees its client leave, and has a moment for the last part.
And a worker that leaves for a reason of its own, without another limit, cuts them after
``graceful_timeout``. :class:`~.server.Server` asks for both in its drain. Event loop side only.

Invariant: no client takes a part for the whole. A body that the application has not ended is cut,
but for server-sent events, whose clients ask again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..connection.context import Cycle, WorkerContext
from ..connection.cycle import RequestResponseCycle
from ..connection.ending import close_stream, end_stream, streams_events
from ..states import ResponseState

ABORTED, COMPLETE = ResponseState.ABORTED, ResponseState.COMPLETE

#: Seconds for the last part of a stream that was asked to end; and with ``--reload``, where somebody waits.
LAST, RELOAD_LAST = 1.0, 0.2


class Streams:
    """
    The streams of a worker that drains since ``begun``, loop time.

    After ``limit`` seconds, counted from the first tick that saw it, a stream is cut.
    """

    __slots__ = ("asked", "context", "due", "last", "limit", "seen")

    def __init__(self, context: WorkerContext, begun: float, limit: float) -> None:
        settings = context.settings
        self.context = context
        self.limit = limit
        self.due = begun + settings.stream_drain  #: loop time from which on streams are asked to end
        self.last = RELOAD_LAST if settings.reload else LAST
        self.seen: dict[Cycle, float] = {}  #: since when each was seen to be a stream
        self.asked: dict[RequestResponseCycle, float] = {}  #: when each was asked to end

    def tick(self, now: float) -> int:
        """Look at the streams. Returns the number of those that were cut at the limit."""
        if now >= self.due:
            self._ask(now)
        if self.limit == math.inf:
            return 0
        self.seen = {cycle: self.seen.get(cycle, now) for cycle in self.context.cycles if cycle.streaming}
        late = [cycle for cycle, since in self.seen.items() if now >= since + self.limit]
        cancel(late)
        return len(late)

    def report(self) -> None:
        """Say how many streams were asked to end."""
        if self.asked:
            cut = sum(cycle.state is ABORTED and not streams_events(cycle) for cycle in self.asked)
            self.context.log.info("Streams asked to end: %d, of which %d were cut", len(self.asked), cut)

    def _ask(self, now: float) -> None:
        """
        Ask streams to end, also those that have just begun, and end those that have had their moment.

        What an application does behind the end of its response has the time of any other request.
        """
        for cycle in list(self.context.cycles):
            if not isinstance(cycle, RequestResponseCycle):
                continue  # a WebSocket has a close frame
            since = self.asked.get(cycle)
            if since is None:
                if end_stream(cycle):
                    self.asked[cycle] = now
            elif now >= since + self.last and cycle.state is not COMPLETE:
                close_stream(cycle)
                cycle.cancel()


def cancel(cycles: Iterable[Cycle]) -> None:
    """Cancel calls of the application, and drop their connections."""
    for cycle in cycles:
        if cycle.task is not None:
            cycle.cancel()
        cycle.abort()
