"""
Program: one run of the loop, from the first heartbeat to the end of the last request.

:class:`~.worker.Worker` makes it and awaits :meth:`Program.run`: lifespan startup, serving, then
handing over to a younger worker, draining, lifespan shutdown and the end of background work.
One periodic task, :meth:`Program._beat`, is the heartbeat and the clock of everything below.
Event loop side only. States: ``ProgramState``. Invariant: whatever ends the worker gracefully
comes through :meth:`Program.leave`, which may be called in any state and again.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

from ..group.leadership import Leadership
from ..group.scoreboard import LAST_RECYCLE, LAST_RECYCLED, LEFTOVERS, REASONS, RECYCLED, WorkerState, set_state
from ..group.succession import Outlook, Succession
from ..standing import here
from ..states import ProgramState
from .endpoints import Status
from .foreignloops import ForeignLoops
from .grace import Grace
from .leftovers import end_tasks, jobs, own_tasks, sentence, wait_for_jobs
from .lifespans import Lifespans
from .memory import resident, set_aside, warn_of_size
from .server import Server
from .signals import Signals
from .slowrequests import SlowRequests
from .watchdog import Watchdog, warn_of_slow_calls

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool
    from .certificates import Certificates

STARTING, SERVING, WISHING = ProgramState.STARTING, ProgramState.SERVING, ProgramState.WISHING
HANDING_OVER, DRAINING, EXITING = ProgramState.HANDING_OVER, ProgramState.DRAINING, ProgramState.EXITING

#: The states in which the worker has not begun to leave.
STAYING = frozenset({STARTING, SERVING, WISHING})

#: Seconds between two looks at every timeout, and at whether a younger worker is ready.
TICK, HAND_OVER_TICK = 1.0, 0.05

#: By how much later than another one a worker may be too old, so that not all are at once.
AGE_JITTER = 1.1

#: Seconds that one heartbeat may take.
SLOW_BEAT = 0.1

#: What the siblings see. DRAINING depends on the reason.
STANDINGS = {SERVING: WorkerState.READY, WISHING: WorkerState.WISHING, HANDING_OVER: WorkerState.RETIRING}


class Notifier(Protocol):
    """What is needed of gunicorn's worker: ``timeout`` is half of the setting, and 0 where that is off."""

    ppid: int
    timeout: float

    def notify(self) -> None: ...


class Program:
    """
    What one worker does in its loop.

    ``pool`` runs the calls of a WSGI application, and ``succession`` is this worker among its
    siblings; each is None where there is none. The settings, the log and the loop are those of the context
    that ``server`` has.

    Invariant: a program is made before its loop is set, because it looks for the loop that the
    application has set at import.
    """

    def __init__(
        self,
        worker: Notifier,
        server: Server,
        pool: ThreadPool | None,
        succession: Succession | None,
        signals: Signals,
        watchdog: Watchdog,
    ) -> None:
        self.worker = worker
        self.server = server
        self.context = context = server.context
        self.pool = pool
        self.succession = succession
        self.signals = signals
        self.watchdog = watchdog
        self.leadership: Leadership | None = None  #: where the group may have a leader
        self.certificates: Certificates | None = None  #: where TLS is made of files that may be renewed
        self.foreign = ForeignLoops()
        settings = context.settings
        self.grace = Grace(settings.graceful_timeout, settings.timeout, settings.reload)
        self.state = STARTING
        self.reason = ""  #: why the worker leaves, or wants to: one of REASONS
        self.before = (SERVING, "")  #: state and reason of a worker that stays although it was told to go
        self.served_since = self.old_at = math.inf  #: loop time of the first accept, and of HYBRIDWORKER_MAX_AGE
        self.leaving = asyncio.Event()  #: the state is none of STAYING any more
        group = None if succession is None else succession.group
        self.status = Status(context, group, pool, lambda: server.saturated)
        context.router.answer_first(self.status.endpoints())
        self.slow_requests = SlowRequests(context, pool, self.recycle)
        context.quota.used_up = partial(self.recycle, "max_requests")

    @property
    def staying(self) -> bool:
        """Whether the worker has not begun to leave."""
        return self.state in STAYING

    async def run(self) -> None:
        """Serve until told to leave. Raises LifespanFailed where the application cannot start."""
        beating = self.context.loop.create_task(self._beat())
        try:
            lifespans = await self._start()
            if self.staying:
                self.server.start()
                self._enter(SERVING)
                self._serves()
            await self.leaving.wait()
            while not await self._finish(lifespans):
                await self.leaving.wait()
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            self.status.publish(0.0, resident())

    async def _start(self) -> Lifespans:
        """Start the application, and then the watch over the loop. Returns the lifespans, of which some have begun."""
        context = self.context
        lifespans = Lifespans(context, context.settings.asgi_lifespan)
        if self.staying and lifespans.every:  # not if told to go during the import
            await lifespans.start(self.leaving, context.settings.graceful_timeout)
            self.signals.keep_term()
        set_aside()
        context.loop.call_later(TICK, self.foreign.warn, context.log)
        warn_of_size(context)
        self.watchdog.watch(context, self.pool)
        return lifespans

    def _serves(self) -> None:
        """The worker has begun to accept."""
        self.served_since = now = self.context.loop.time()
        self.old_at = now + self.context.settings.max_age * random.uniform(1.0, AGE_JITTER)
        if self.succession is not None:
            self.succession.arrived()
        self._seek_leadership()

    def _enter(self, state: ProgramState) -> None:
        """Change the state, and show it to the siblings."""
        self.state = state
        if state is DRAINING:
            if self.leadership is not None:
                self.leadership.give_up(here)
            slot, number = self.context.slot, REASONS.index(self.reason)
            slot[RECYCLED + number] += 1
            slot[LAST_RECYCLE], slot[LAST_RECYCLED] = 1 + number, int(time.time())
            set_state(self.context.slot, WorkerState.DRAINING if self.reason == "term" else WorkerState.RECYCLING)
        elif state is not EXITING:
            set_state(self.context.slot, STANDINGS[state])

    # -- the clock

    async def _beat(self) -> None:
        """The heartbeat, the watch over the arbiter, and the clock: the one periodic task of the worker."""
        context, worker = self.context, self.worker
        loop, pause = context.loop, min(TICK, worker.timeout / 2) if worker.timeout else TICK
        due = loop.time() + TICK
        late = 0.0
        while True:
            self._notify()
            if os.getppid() != worker.ppid and self.staying:
                context.log.info("Parent changed, shutting down: %s", worker)
                self.leave()
            now = loop.time()
            if now >= due:
                due = now + TICK
                if late > TICK:  # the loop was held: what has become ready meanwhile goes before its time-out
                    await asyncio.sleep(0)
                try:
                    self._tick(now, late)
                except Exception:  # whatever it is, the heartbeat goes on
                    context.log.exception("Exception in the tick")
                late = 0.0
            await asyncio.sleep(pause)
            late = max(late, loop.time() - now - pause)

    def _notify(self) -> None:
        """Tell the arbiter that this worker lives. Warn once when that takes long: it writes to a file."""
        before = time.monotonic()
        self.worker.notify()
        if time.monotonic() - before > SLOW_BEAT:
            self.context.warn_once(
                f"A heartbeat took more than {SLOW_BEAT * 1000:.0f} ms: the disk under the worker's temporary file is"
                " slow, and the arbiter may take the worker for dead. Use --worker-tmp-dir /dev/shm"
            )

    def _tick(self, now: float, late: float) -> None:
        """Once a second. ``late`` is how late the loop was since the last time, at most, in seconds."""
        context = self.context
        self.signals.keep_term()
        self.server.tick(now)
        self.slow_requests.tick()
        if self.certificates is not None:
            self.certificates.tick(now)
        self._seek_leadership()
        warn_of_slow_calls(context, self.pool)
        if now >= self.old_at and self.state is SERVING:
            line = "Autorestarting worker: it has served for %d s, HYBRIDWORKER_MAX_AGE is %d."
            context.log.info(line, now - self.served_since, context.settings.max_age)
            self.recycle("max_age")
        limit, used = context.settings.max_rss, resident()
        self.status.publish(late, used)
        if limit and used > limit and self.state is SERVING:
            context.log.info("Autorestarting worker: it uses %d MiB, HYBRIDWORKER_MAX_RSS is %d.", used, limit)
            self.recycle("max_rss")
        if self.state is WISHING and (self.succession is None or self.succession.may_go(time.monotonic())):
            self.leave(self.reason)
        elif self.state is WISHING and self.succession is not None and self.succession.held_back():
            context.warn_once("This worker is not replaced yet, because its replacement could not boot")

    def _seek_leadership(self) -> None:
        """
        Lead, if nobody does. A worker that was told to go leads on while it waits, but does not begin to.

        While the master of which this one is the upgrade lives, its group has the leader.
        """
        if self.leadership is None:
            return
        if self.succession is not None and self.succession.group.scoreboard.upgrading[0]:
            return
        if self.state is SERVING or self.state is WISHING or (self.state is HANDING_OVER and here.leads):
            self.leadership.seek(here)

    # -- reasons to leave

    def leave(self, reason: str = "term") -> None:
        """Begin to leave gracefully. May be called again: being told to go ends the time for a leave of its own."""
        context = self.context
        self.grace.begin(context.loop.time(), reason)
        self.server.hurry(self.grace.requests)
        if self.state is HANDING_OVER and reason == "term":
            self._told_again()
        if reason != "term":
            context.persistence.end()  # with the response at hand
        if not self.staying:
            return
        self.before, self.reason = (self.state, self.reason), reason
        hands_over = reason == "term" and self.state is not STARTING and not context.settings.reload
        self._enter(HANDING_OVER if hands_over else DRAINING)
        self.leaving.set()

    def recycle(self, reason: str) -> None:
        """
        Have this worker replaced, by its own count.

        Of several workers that want it, one goes at a time: see :meth:`Succession.may_go`. A worker
        that is alone goes at once.
        """
        if self.state is HANDING_OVER:
            self.before = WISHING, reason  # should it stay
        if self.state is not SERVING and self.state is not WISHING:
            return
        if reason == "max_requests":
            self.context.log.info("Autorestarting worker after current request.")
        if self.succession is None or self.succession.single():
            self.leave(reason)
        elif self.state is SERVING:
            self.reason = reason
            self._enter(WISHING)

    # -- leaving

    async def _finish(self, lifespans: Lifespans) -> bool:
        """
        Finish what was begun, let the application shut down, and wait for what it does in the background.

        Returns False, and nothing of it is done, where the worker stays.
        """
        context, grace = self.context, self.grace
        loop, log = context.loop, context.log
        await asyncio.sleep(0)  # the request that was the reason begins in this turn, and is one in flight
        begun, before = loop.time(), context.quota.served - len(context.cycles)
        if lifespans:
            grace.keep_for_shutdown()
        if self.state is HANDING_OVER and not await self._hand_over():
            return False
        handed_over = loop.time()
        here.is_leaving = True
        cut = await self.server.drain(grace.requests, grace.stream)
        self._enter(EXITING)
        drained = loop.time()
        if cut:
            log.warning("%s", counted("Graceful timeout: %d requests were not finished", cut))
        if lifespans:
            await lifespans.shutdown(grace.end(drained) - drained)
        if left := await self._end_background(grace.background(drained)):
            log.warning("Background work was cut: %s", sentence(left))
        finished = max(0, context.quota.served - before - cut)
        line = counted("Served %d requests: %d finished while leaving, %d cut;", context.quota.served, finished, cut)
        took = (handed_over - begun, drained - handed_over, loop.time() - drained)
        log.info("%s %.1f s to hand over, %.1f s to drain, %.1f s to shut down", line, *took)
        return True

    async def _end_background(self, until: float) -> list[str]:
        """End the application's tasks, and wait for its jobs. Returns those that were not done ``until`` then."""
        loop, slot = self.context.loop, self.context.slot
        found = len(own_tasks(loop))
        tasks = await end_tasks(loop, until)
        counts = [max(0, found - len(tasks)), len(tasks)]
        found = len(jobs())
        left = await wait_for_jobs(loop, until)
        counts += [max(0, found - len(left)), len(left)]
        for cell, count in enumerate(counts, LEFTOVERS):
            slot[cell] += count
        return tasks + left

    async def _hand_over(self) -> bool:
        """
        Go on accepting until a younger worker does, if one is coming, and else for the drain delay.

        Returns whether to leave then: not where those that were to come could not boot.
        """
        settings, loop, succession = self.context.settings, self.context.loop, self.succession
        begun, replaced = loop.time(), False
        if succession is not None:
            succession.told_to_go()
            while (outlook := succession.outlook()) is Outlook.WAIT:  # noqa: ASYNC110 (a sibling is another process)
                await asyncio.sleep(HAND_OVER_TICK)
            # It does not stay where a hook wanted it to go as well.
            if outlook is Outlook.STAY and not self.context.persistence.draining:
                self._stay(succession)
                return False
            # The deadline is past only where the master has been silent on purpose: it waits for the old workers.
            replaced = succession.successor() is WorkerState.READY
            if replaced or self.grace.requests <= loop.time():
                self._restart_grace()
        self._enter(DRAINING)
        if self.server.is_tcp and not replaced:  # a group that goes on is nothing that balancers need to notice
            await asyncio.sleep(begun + settings.drain_delay - loop.time())
        return True

    def _told_again(self) -> None:
        """TERM while this worker waits for a younger one: the master repeats itself, or it means a stop this time."""
        if self.succession is not None:
            self.succession.told_again()
        self._restart_grace()

    def _restart_grace(self) -> None:
        """Nothing had to end while others booted, which may have taken longer than the graceful timeout."""
        self.grace.restart(self.context.loop.time())
        self.server.unhurry()
        self.server.hurry(self.grace.requests)

    def _stay(self, succession: Succession) -> None:
        """Serve on as if nobody had said TERM: the workers that were to take over could not boot."""
        state, self.reason = self.before
        settings = self.context.settings
        self.grace = Grace(settings.graceful_timeout, settings.timeout, settings.reload)
        self.server.unhurry()
        self.leaving.clear()
        succession.stay()
        self._enter(state)
        self.context.log.warning("This worker goes on, because those that were to replace it could not boot")


def counted(line: str, count: int, *others: object) -> str:
    """``line`` about ``count`` requests and ``others``, with a single request in the singular."""
    if count == 1:
        line = line.replace("requests were", "request was").replace("requests", "request")
    return line % (count, *others)
