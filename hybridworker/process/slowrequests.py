"""
SlowRequests: requests that take too long are ended, and logged with their stack.

:mod:`.connection.requesttimeouts` finds them among the requests in flight, :mod:`.wsgi.threads` among the calls;
here they become lines of the log, and threads that are lost become a reason to be replaced. Event
loop side only.

Invariant: the log is not flooded by what floods the worker. Where many requests are alike, one is shown
a minute, with the number of the others.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from ..connection.context import Cycle, WorkerContext
from ..connection.requesttimeouts import Late, Latecomer, RequestTimeouts
from ..group.scoreboard import SHED, SHEDS
from ..wsgi.callrecords import LostCall
from .report import format_stack, format_task, label, running_calls

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool

#: Seconds between two reports that are alike, and how many kinds of reports are remembered.
INTERVAL, REMEMBERED = 60.0, 256


class Sparing:
    """Shows one report of a kind in :data:`INTERVAL`, and counts the others."""

    __slots__ = ("crowded_out", "kinds")

    def __init__(self) -> None:
        #: kind -> when it was shown last, and how many were left out since; the oldest first
        self.kinds: dict[tuple[object, str], tuple[float, int]] = {}
        self.crowded_out = 0  #: those for whose kind there was no room

    def left_out(self, kind: tuple[object, str], now: float) -> int | None:
        """How many were left out before the report that is at hand; None where it is left out as well."""
        if kind in self.kinds:
            shown, count = self.kinds[kind]
            if now - shown < INTERVAL:
                self.kinds[kind] = shown, count + 1
                return None
            del self.kinds[kind]
        else:
            count = 0
            self._make_room(now)
            if len(self.kinds) == REMEMBERED:
                self.crowded_out += 1
                return None
        count, self.crowded_out = count + self.crowded_out, 0
        self.kinds[kind] = now, 0
        return count

    def _make_room(self, now: float) -> None:
        """Forget the oldest kind if its time is over; what it has left out is counted with the next report."""
        if len(self.kinds) == REMEMBERED:
            oldest = next(iter(self.kinds))
            shown, count = self.kinds[oldest]
            if now - shown >= INTERVAL:
                self.crowded_out += count
                del self.kinds[oldest]


class SlowRequests:
    """
    The tick of the time-outs of requests.

    ``recycle`` asks for the worker to be replaced, for the reason that it is given.
    """

    __slots__ = ("context", "pool", "recycle", "said", "said_at", "sparing", "timeouts")

    def __init__(self, context: WorkerContext, pool: ThreadPool | None, recycle: Callable[[str], None]) -> None:
        self.context = context
        self.pool = pool
        self.recycle = recycle
        self.timeouts = RequestTimeouts(context)
        self.sparing = Sparing()
        self.said = self._turned_away()  #: how many were turned away when the log last said so
        self.said_at = 0.0

    def tick(self) -> None:
        """Once a second: end and report what has taken too long."""
        if self.context.admission is None:
            return
        now, pool = time.monotonic(), self.pool
        if pool is not None:
            pool.drop_late(now)
        for latecomer in self.timeouts.tick():
            self._report(latecomer, now)
        if pool is not None:
            for call in pool.expire_abandoned(now, self.context.settings.request_timeout):
                self._lost(call, "its client has gone")
            if (lost := pool.lost) >= pool.size:
                self.context.warn_once(
                    f"Autorestarting worker: {lost} of its threads are lost to calls that do not end,"
                    f" --threads is {pool.size}."
                )
                self.recycle("lost_threads")
        self._sum_up(now)

    def _report(self, latecomer: Latecomer, now: float) -> None:
        late, cycle, age, lost = latecomer
        if lost is not None:  # there are only so many threads
            self._lost(lost, "the client has got a 504")
            return
        left_out = self.sparing.left_out((late, cycle.scope["path"]), now)
        if left_out is None:
            return
        name, more = label(cycle), f" (and {left_out} more were not shown)" if left_out else ""
        log, stack = self.context.log, self._stack(cycle)
        if late is Late.SLOW:
            log.warning("%s has not begun to answer after %.1f s%s%s", name, age, more, stack)
        elif late is Late.EXPIRED:
            text = "%s was ended by HYBRIDWORKER_REQUEST_TIMEOUT after %.1f s%s%s"
            log.warning(text, name, age, more, stack)
        else:
            text = "%s goes on although HYBRIDWORKER_REQUEST_TIMEOUT has cancelled it%s%s"
            log.warning(text, name, more, stack)

    def _lost(self, call: LostCall, why: str) -> None:
        """A thread is lost until its call returns."""
        stack = format_stack(call.frame).rstrip()
        text = "%s has been in thread %s for %.1f s, which is lost until it returns: %s\n%s"
        self.context.log.warning(text, call.label, call.thread, call.age, why, stack)

    def _stack(self, cycle: Cycle) -> str:
        """Where the request is, on lines of its own; empty for one that waits for a thread."""
        frame = self._frame(label(cycle))
        stack = format_stack(frame) if frame is not None else "" if cycle.task is None else format_task(cycle.task)
        return f"\n{stack.rstrip()}" if stack else ""

    def _frame(self, name: str) -> FrameType | None:
        """The frame of the oldest call with this label."""
        calls = [call for call in running_calls(self.context, self.pool) if call.label == name]
        if not calls:
            return None
        return sys._current_frames().get(min(calls, key=lambda call: call.started).thread)

    def _turned_away(self) -> list[int]:
        """How many requests were turned away, for each reason but the time-out, which is reported by itself."""
        return [self.context.slot[SHED + SHEDS.index(reason)] for reason in ("queue", "requests")]

    def _sum_up(self, now: float) -> None:
        """Say how many requests were turned away, at most once in :data:`INTERVAL`."""
        if now - self.said_at < INTERVAL:
            return
        counts = self._turned_away()
        queue, requests = (count - before for count, before in zip(counts, self.said, strict=True))
        if queue or requests:
            self.said, self.said_at = counts, now
            text = (
                "Overload: %d requests were answered 503 by HYBRIDWORKER_QUEUE_TIMEOUT, %d by HYBRIDWORKER_REQUESTS_MAX"
            )
            self.context.log.warning(text, queue, requests)
