"""
ThreadPool: the threads that run WSGI calls.

    loop side      submit: queue; _wake_for_queue            _collect: call.wake()
    thread side    _work: call.run() -> ready, announced to the loop

``size`` calls run at once, in daemon threads that are started when they are needed and
never joined. They are woken once in a turn of the loop, for all the calls that came in
it: a thread that woke amid the turn would take the GIL from the loop, which gives it up
between any two of its callbacks, and each request would cost two switches. One woken
thread drains the queue, because calls that compute only fight for the GIL when several
threads run them; a further one is woken when those that run are blocked, which
:meth:`ThreadPool._check` finds out within about a millisecond. As long as calls are seen
to block, each gets its thread at once. The thread that went idle last is woken first: its
caches are warm, and surplus threads stay asleep. :mod:`.handoff` is the other half of the
crossing; nothing here knows HTTP.

A thread has one context (``contextvars``) for its whole life, empty at first, as under
gunicorn's threaded worker: nothing that was set at import, by another thread or by the
loop is seen in a call, and what a call leaves set is seen by the next one of its thread.
Invariant: a variable of this package's own that is set for a call is reset with it.

A thread whose call goes on when its time is up, which nothing can end, is *lost*: another one takes
its place until it comes back, and then it ends. With a size of 1 none does, because calls would overlap.

No lock guards the data: ``append``, ``pop`` and ``remove`` of lists, deques and sets are
atomic.

Invariant: each side publishes first, and checks then. A thread adds itself to ``idle`` before it
looks at the queue; the loop queues before it looks at ``idle``. The other way round a call could
be left lying.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from .callrecords import LostCall, RunningCall
from .waits import Waits

#: Seconds between two looks at threads that may be blocked. A call that takes less is quick.
PATIENCE = 0.001

#: A thread that computes for so many seconds holds the queue up no longer.
FAIRNESS = 0.010


class Call(Protocol):
    """What a thread runs."""

    queued_at: float  #: ``time.monotonic()``; the pool's own

    @property
    def label(self) -> str:
        """What the call serves, for reports: "GET /path"."""

    @property
    def lasting(self) -> bool:
        """Whether it is none that ought to be over soon."""

    @property
    def lane(self) -> int:
        """Under which number it is counted, from 0: that of its application."""

    @property
    def delay(self) -> float:
        """Seconds that it had waited before it was queued."""

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for it, and it has nothing to say yet."""

    def drop(self) -> None:
        """It waited too long and never runs; called by the side that took it from the queue."""

    def expire(self) -> None:
        """Loop side: its time is up, and its thread is lost."""

    def run(self, variables: contextvars.Context) -> None:
        """Thread side, in ``variables``, the context of the thread. Raises nothing."""

    def wake(self) -> None:
        """Loop side: the call was posted, or has ended."""


class _Worker(threading.Thread):
    """One thread and what it does."""

    def __init__(self, pool: ThreadPool, number: int) -> None:
        # Otherwise the thread inherits the context of the one that starts it, from Python 3.14 on.
        self.variables = contextvars.Context()
        name = f"hybridworker-wsgi-{number}"
        super().__init__(target=self.variables.run, args=(pool._work, self), name=name, daemon=True)
        #: Guards no data: an idle thread waits for it, and whoever wakes the thread releases it.
        self.sleep = threading.Lock()
        self.sleep.acquire()
        self.call: Call | None = None
        self.started = 0.0  #: when ``call`` began; ``time.monotonic()``
        self.lost: Call | None = None  #: the call whose time is up; written by the loop
        self.over = False  #: it was lost, has come back, and ends
        self.reported = 0.0  #: ``started`` of the last call that was reported as slow

    @property
    def daemon(self) -> bool:  # type: ignore[override]
        """
        Whether it is no obstacle to the end of the process: it is none, but not while a call asks.

        A thread inherits this from the one that makes it. What a call starts is to be
        waited for, as under gthread, unless the application says otherwise.
        """
        return self.call is None


class ThreadPool:
    """
    Runs at most ``size`` calls at once, for one event loop (by default the running one).

    ``post`` is called by the threads, everything else by the loop. With ``timed`` it is
    counted how long calls wait for a thread, for each of the ``lanes`` in which they are counted
    by itself. The lanes share the threads and the queue. A call that waits for more than ``patience``
    seconds is dropped.
    """

    def __init__(
        self,
        size: int,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        timed: bool = False,
        lanes: int = 1,
        patience: float = math.inf,
    ) -> None:
        self.size = size
        self.timed = timed or patience < math.inf
        self.patience = patience
        self.loop = asyncio.get_running_loop() if loop is None else loop
        #: In which the loop collects results: not in the context of the thread that announces them.
        self._variables = contextvars.Context()
        # Both sides
        self._queue: deque[Call] = deque()
        self._idle: list[_Worker] = []
        self._blocked: set[_Worker] = set()  #: seen to wait amid a call, so not counted upon
        self._blocking = False  #: the last that was seen of calls is that they wait
        self._ready: deque[Call] = deque()
        self._announced = False
        self._closing = False
        # The loop's
        self._workers: list[_Worker] = []
        self._lost: set[_Worker] = set()  #: those of them that may be lost, or may be over
        self._made = 0  #: threads that were started
        self._waking = False  #: threads will be woken at the end of this turn
        self._checking = False
        self._clocks = (0.0, 0.0, 0.0)
        self._oldest: tuple[Call | None, float] = (None, 0.0)
        self.waits = Waits(lanes)

    # -- loop side

    def submit(self, call: Call) -> None:
        """Queue ``call`` and see to it that a thread takes it. Raises RuntimeError where there is none to be had."""
        if self.timed:
            call.queued_at = time.monotonic()
        self._queue.append(call)
        if not self._workers:
            self._wake()
        elif not self._waking:
            self._waking = True
            self.loop.call_soon(self._wake_for_queue)
        if not self._checking:
            self._check_later()

    def _wake_for_queue(self) -> None:
        """Wake threads for the calls that this turn of the loop has queued."""
        self._waking = False
        if self._blocking:
            for _ in range(min(len(self._queue), self.size)):
                self._wake()
        else:
            self._wake_if_blocked()

    def cancel(self, call: Call) -> bool:
        """Take ``call`` out of the queue, so that it never runs; False when a thread has taken it already."""
        try:
            self._queue.remove(call)
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Let each thread end when it finds nothing more to do. Waits for none of them."""
        self._closing = True
        while self._idle:
            self._wake()

    @property
    def busy(self) -> int:
        """Threads that are awake."""
        return len(self._workers) - len(self._idle)

    def calls(self) -> int:
        """Calls that run or wait for a thread."""
        running = sum(worker.call is not None and worker.call is not worker.lost for worker in self._workers)
        return len(self._queue) + running

    @property
    def queued(self) -> int:
        """Calls that wait for a thread."""
        return len(self._queue)

    def queue_age(self, now: float) -> float:
        """Seconds since this method first saw the call that waits longest; to be asked once in a while."""
        call = self._queue[0] if self._queue else None
        if call is not self._oldest[0]:
            self._oldest = (call, now)
        return now - self._oldest[1] if call is not None else 0.0

    def queued_in(self, lane: int) -> int:
        """Calls of one lane that wait for a thread."""
        return sum(call.lane == lane for call in self._queue.copy())

    def snapshot(self) -> list[RunningCall]:
        """The calls that run now."""
        running = [(worker, worker.call) for worker in self._workers]
        return [RunningCall(worker.ident or 0, call.label, worker.started) for worker, call in running if call]

    def report_slow(self, now: float, limit: float) -> list[tuple[str, float, FrameType | None]]:
        """Label, age and frame of the calls that run for more than ``limit`` seconds (0 = no limit), each once."""
        report = []
        for worker in self._workers:
            call, started = worker.call, worker.started
            if call is None or call is worker.lost:
                continue
            if now - started > limit > 0 and worker.reported != started and not call.lasting:
                frame = sys._current_frames().get(worker.ident or 0)
                worker.reported = started
                report.append((call.label, now - started, frame))
        return report

    def drop_late(self, now: float) -> None:
        """Drop the calls that have waited for too long; ``now`` is ``time.monotonic()``."""
        for call in self._queue.copy() if self.patience < math.inf else ():
            if now - call.queued_at + call.delay > self.patience and self.cancel(call):
                call.drop()
                self._ready.append(call)
        self._collect()

    def expire(self, matches: Callable[[Call], bool]) -> LostCall | None:
        """End the call that ``matches``: it never runs if it is queued, and is returned if a thread runs it."""
        for worker in self._workers:
            call = worker.call
            if call is not None and matches(call):
                return self._lose(worker, call)
        for call in self._queue.copy():
            if matches(call):
                if self.cancel(call):
                    call.drop()
                break
        return None

    def runs(self, matches: Callable[[Call], bool]) -> bool:
        """Whether a call that ``matches`` waits for a thread, or has not come back from one."""
        running = [worker.call for worker in self._workers if worker.call is not worker.lost]
        return any(call is not None and matches(call) for call in [*running, *self._queue.copy()])

    def expire_abandoned(self, now: float, limit: float) -> list[LostCall]:
        """Count the threads as lost that run an abandoned call for more than ``limit`` seconds; returns these calls."""
        old = [(worker, worker.call) for worker in self._workers if now - worker.started > limit]
        lost = [self._lose(worker, call) for worker, call in old if call is not None and call.abandoned]
        return [call for call in lost if call is not None]

    @property
    def lost(self) -> int:
        """Threads that run a call whose time is up."""
        self._prune()
        return len(self._lost)

    def _lose(self, worker: _Worker, call: Call) -> LostCall | None:
        if worker.lost is call:
            return None
        call.expire()
        self._lost.add(worker)  # before the thread can see that it is lost: whatever becomes of it, _prune knows
        worker.lost = call
        frame = sys._current_frames().get(worker.ident or 0)
        if worker.call is not call:
            worker.lost = None
            return None  # it has come back in this very moment
        self._blocked.add(worker)
        self._wake_if_blocked()
        return LostCall(worker.name, call.label, time.monotonic() - worker.started, frame)

    def _prune(self) -> None:
        """Forget the threads that were lost and have come back."""
        for worker in [w for w in self._lost if w.over or w.lost is None or w.call is not w.lost]:
            self._lost.discard(worker)
            if worker.over:
                self._workers.remove(worker)
                self._blocked.discard(worker)

    @property
    def _capacity(self) -> int:
        """How many threads there may be: ``size``, and one for each that is lost, ``size`` of these at most."""
        if not self._lost or self.size == 1:
            return self.size
        self._prune()
        return self.size + min(len(self._lost), self.size)

    def _wake_if_blocked(self) -> None:
        """Wake a thread for the queue, if none that is awake can be counted upon."""
        if self._queue and len(self._idle) + len(self._blocked) >= len(self._workers):
            self._wake()

    def _wake(self) -> None:
        """Wake the thread that went idle last, or start one."""
        try:
            worker = self._idle.pop()
        except IndexError:
            if len(self._workers) < self._capacity:
                worker = _Worker(self, self._made)
                try:
                    worker.start()
                except RuntimeError:  # the system has none to give: those that run will take the call
                    if not self._workers:
                        raise
                else:
                    self._made += 1
                    self._workers.append(worker)
        else:
            worker.sleep.release()

    def _check_later(self) -> None:
        self._checking = True
        self._clocks = (time.monotonic(), time.thread_time(), time.process_time())
        self.loop.call_later(PATIENCE, self._check)

    def _check(self) -> None:
        """
        Find the threads that are blocked; if all are that are awake, wake one for the queue.

        A thread that has been in a call for long may be waiting, or computing. What tells
        the two apart is whether anybody used the processor while the loop did not.
        """
        self._checking = False
        if self._ready:
            self._collect()
        if self._lost:
            self._prune()
        if not self._queue and len(self._idle) == len(self._workers):
            return  # all that there was is done
        now = time.monotonic()
        since, loop_time, process_time = self._clocks
        used = time.thread_time() - loop_time
        free = now - since - used
        waiting = free > PATIENCE / 4 and time.process_time() - process_time - used < free / 2
        undecided = False
        for worker in self._workers:
            if worker.call is None or worker in self._blocked:
                continue
            age = now - worker.started
            if waiting and age > PATIENCE / 2:
                self._blocking = True
                self._blocked.add(worker)
            elif age > FAIRNESS:
                self._blocked.add(worker)
            else:
                undecided = True
        self._wake_if_blocked()
        if undecided or (self._queue and len(self._blocked) < self._capacity):
            self._check_later()

    def _collect(self) -> None:
        self._announced = False
        ready = self._ready
        while ready:
            ready.popleft().wake()
        if self._queue and not self._checking:
            self._check_later()

    # -- thread side

    def post(self, call: Call) -> None:
        """Have ``call.wake()`` called by the loop; many posts in a row cost no more than one."""
        self._ready.append(call)
        if not self._announced:
            self._announce()

    def _announce(self) -> None:
        self._announced = True
        try:
            self.loop.call_soon_threadsafe(self._collect, context=self._variables)
        except RuntimeError:  # the loop is closed: the process is leaving, and nobody listens any more
            pass

    def _work(self, worker: _Worker) -> None:
        """Take calls from the queue and run them; sleep while there are none."""
        queue, blocked, monotonic, variables = self._queue, self._blocked, time.monotonic, worker.variables
        waits = self.waits.lanes
        now = monotonic()
        while True:
            try:
                call = queue.popleft()
            except IndexError:
                if self._closing:
                    return
                self._rest(worker)
                now = monotonic()
                continue
            worker.started = now
            worker.call = call
            if self.timed:
                if (wait := now - call.queued_at) < 0.0:
                    wait = 0.0  # it has come after the last one ended
                # Whoever gets a thread within a millisecond was admitted just now, with the delay that it has.
                if wait > PATIENCE and self.patience < math.inf and wait + call.delay > self.patience:
                    worker.call = None
                    call.drop()
                    self.post(call)
                    continue
                waits[call.lane].append(wait)
            call.run(variables)
            if worker.lost is call and self.size > 1:
                worker.over = True  # before it is seen to have come back: see _prune
            worker.call = None
            now = monotonic()
            self._ready.append(call)
            if worker.lost is not None:
                worker.lost = None
            del call  # an idle thread keeps nothing alive
            quick = now - worker.started < PATIENCE
            if quick and self._blocking:
                self._blocking = False
            if blocked and worker in blocked:
                blocked.discard(worker)
                quick = False
            # After a quick call the next one is likely to be quick too, and one announcement does for both. If it
            # is not, the loop's next look finds the result: it looks while a call waits and a thread is not known
            # to be blocked.
            if not self._announced and not (quick and queue and not worker.over):
                self._announce()
            if worker.over:
                return

    def _rest(self, worker: _Worker) -> None:
        """Sleep until woken, unless there is something to do after all."""
        self._idle.append(worker)
        if self._queue or self._closing:
            try:
                self._idle.remove(worker)
            except ValueError:
                pass  # woken meanwhile: the lock is free, or will be at once
            else:
                return
        worker.sleep.acquire()
