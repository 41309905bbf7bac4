"""
Lent threads: the threads in which an ASGI application runs its synchronous code.

    any thread     Loan.submit: run it in the thread that the call has borrowed, or that it borrows now
    loop side      Loan.stream, Loan.end: give the thread back;  Lender._relieve: lend beyond the bound
    thread side    LentThread._work: run what was submitted, in order, and give the thread back if that is due

A call of the application borrows one thread and keeps it, because asgiref promises that all
synchronous code of a call runs in the same thread: Django's database connections belong to threads.
The :class:`Lender` has the threads, the :class:`Loan` is what one call has of them, as an executor.
:mod:`.lending` brings the two to the application.

What is left open in a thread belongs to its call. Invariant: a thread on whose database connections
a transaction or a cursor is open is never lent to another call. A call that streams keeps such a
thread; after the end of a call the thread ends, and its connections with it.

One lock guards the data of the lender and of all its loans.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import FrameType
from typing import Any, NamedTuple, ParamSpec, TypeVar

from ..asgi import PART, Scope, request_label
from ..wsgi.callrecords import LENT, RunningCall
from ..wsgi.waits import Waits
from .djangodb import Connections

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that a call waits for a thread. Then it gets one beyond the bound: it may be one that others wait for.
PATIENCE = 1.0

#: Seconds for which a thread stays that nobody needs, where their number has no bound.
IDLE_MAX = 30.0


class Job(NamedTuple):
    """One synchronous function of a call."""

    loan: Loan
    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class LentThread(threading.Thread):
    """One thread: the jobs that wait for it, and the one that it runs."""

    def __init__(self, lender: Lender, number: int) -> None:
        # Its own context is empty, also from Python 3.14 on, where a thread may inherit that of the one that starts it.
        context = contextvars.Context()
        super().__init__(target=context.run, args=(self._work,), name=f"{LENT}{number}", daemon=True)
        self.lender = lender
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.connections = Connections()
        self.job: Job | None = None
        self.started = 0.0  #: when ``job`` began; ``time.monotonic()``
        self.reported = 0.0  #: ``started`` of the last job that was reported as slow

    @property
    def daemon(self) -> bool:  # type: ignore[override]
        """
        Whether it is no obstacle to the end of the worker: it is none, but while it runs a job.

        :mod:`..process.leftovers` waits for threads that are not daemons. A thread that a job
        starts inherits this.
        """
        return self.job is None

    def _work(self) -> None:
        lender, monotonic = self.lender, time.monotonic
        while True:
            try:
                job = self.jobs.get(timeout=lender.idle_max)
            except queue.Empty:
                if lender.dismiss(self):
                    break
                continue
            if job is None:
                break
            self.started = monotonic()
            self.job = job
            loan, future, function, args, kwargs = job
            del job
            # The loan is told first: when the loop learns of the result, the thread may have gone back already.
            if not future.set_running_or_notify_cancel():
                loan.ran()
            else:
                try:
                    result = function(*args, **kwargs)
                except BaseException as exc:  # it is the caller's, whatever it is
                    loan.ran()
                    future.set_exception(exc)
                else:
                    loan.ran()
                    future.set_result(result)
                    del result
            del loan, future, function, args, kwargs  # an idle thread keeps nothing alive
            self.job = None
        self.connections.close()


class Loan(Executor):
    """
    What one call of the application has borrowed: an executor that runs one job at a time, in one thread.

    The thread is borrowed with the first job. It goes back with :meth:`end`; after :meth:`stream` whenever no
    job is left.
    """

    def __init__(self, lender: Lender, scope: Scope) -> None:
        self.lender = lender
        self.scope = scope
        self.thread: LentThread | None = None
        self.last: LentThread | None = None  #: the thread that it had before: the first choice for the next job
        self.waiting: list[Job] = []  #: jobs, while there is no thread for them
        self.asked = 0.0  #: when it began to wait; ``time.monotonic()``
        self.pending = 0  #: jobs that are not done
        self.streaming = False  #: a response without a known end has begun
        self.over = False  #: the call has ended
        self.ended: asyncio.Future[None] | None = None  #: of the call that waits for its last job

    @property
    def label(self) -> str:
        """Method, target and part of the call, for reports."""
        return request_label(self.scope["method"], self.scope, self.scope.get(PART, ""))

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` in the thread of the call. Raises RuntimeError where no thread can be started."""
        future: Future[T] = Future()
        job = Job(self, future, fn, args, kwargs)
        with self.lender.lock:
            if self.thread is None and not self.waiting:
                self.thread = self.lender.borrow(self)
            self.pending += 1
            if self.thread is None:
                self.waiting.append(job)
            else:
                self.thread.jobs.put(job)
        return future

    def take(self, thread: LentThread) -> None:
        """Begin with the jobs that waited. The lock is held."""
        self.thread = thread
        for job in self.waiting:
            thread.jobs.put(job)
        self.waiting.clear()

    def abandoned(self) -> bool:
        """Whether nobody waits any more for the jobs that wait. They are forgotten then. The lock is held."""
        if not all(job.future.cancelled() for job in self.waiting):
            return False
        for job in self.waiting:
            job.future.set_running_or_notify_cancel()
        self.pending -= len(self.waiting)
        self.waiting.clear()
        if self.over:
            self._settle()
        return True

    def ran(self) -> None:
        """A job is done. Thread side."""
        with self.lender.lock:
            self.pending -= 1
            if not self.pending and (self.streaming or self.over):
                self._settle()

    def stream(self) -> None:
        """The first part of a response has come whose end is not known: keep the thread only while there are jobs."""
        with self.lender.lock:
            self.streaming = True
            self._settle()

    def end(self) -> asyncio.Future[None] | None:
        """
        The call is over: give the thread back, now or when the last job is done.

        Returns what to wait for in the second case, as asgiref does at the end of its own context.
        Jobs that nobody waits for any more never run. Loop side.
        """
        lender = self.lender
        with lender.lock:
            self.over = True
            if self.waiting and self.abandoned():
                lender.forget(self)
            self._settle()
            if self.pending:
                self.ended = lender.loop.create_future()
        return self.ended

    def _settle(self) -> None:
        """Give the thread back if there are no jobs, unless something is open in it. The lock is held."""
        if self.pending:
            return
        thread = self.thread
        if thread is not None:
            in_use = thread.connections.in_use()
            if in_use and not self.over:
                return
            self.thread, self.last = None, thread
            self.lender.give_back(thread, reusable=not in_use)
        if self.ended is not None:
            self.lender.call_loop(_wake, self.ended)


def _wake(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


class Lender:
    """
    The threads of one worker that are lent: at most ``size`` at once, 0 for as many as are needed.

    The thread that came back last is lent first. Calls that find none wait in order; one that has waited for
    :data:`PATIENCE` gets a thread beyond the bound. ``warn`` is called once only, when the bound is exceeded for the
    first time. With ``timed`` the waiting times of calls are counted. Methods are for any thread unless they say
    otherwise.
    """

    def __init__(
        self, size: int, loop: asyncio.AbstractEventLoop, warn: Callable[[str], object], *, timed: bool = False
    ) -> None:
        self.size = size
        self.loop = loop
        self.warn: Callable[[str], object] | None = warn
        self.timed = timed
        self.lock = threading.RLock()  # a job may be submitted by a finalizer, amid anything
        self.threads: set[LentThread] = set()
        self.idle: list[LentThread] = []
        self.waiting: dict[Loan, None] = {}  #: in order of arrival
        self.lent = 0  #: threads that are out
        self.beyond = 0  #: how many were lent beyond the bound, since last taken
        self._made = 0
        self._closing = False
        self._waits = Waits()
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = threading.get_ident()
        self._context = contextvars.Context()  #: in which the loop looks at those who wait

    @property
    def idle_max(self) -> float | None:
        """Seconds after which an idle thread ends; None where their number is bounded."""
        return None if self.size else IDLE_MAX

    @property
    def queued(self) -> int:
        """Calls that wait for a thread."""
        return len(self.waiting)

    def take_counts(self) -> tuple[list[int], int]:
        """
        What has been counted since last asked.

        How many calls had waited for how long, by :data:`~.wsgi.waits.WAIT_BOUNDS`, and microseconds
        in all; and how many threads were lent beyond the bound.
        """
        with self.lock:
            beyond, self.beyond = self.beyond, 0
        return self._waits.take()[0], beyond

    def snapshot(self) -> list[RunningCall]:
        """The jobs that run now. Takes no lock."""
        running = [(thread, thread.job) for thread in list(self.threads)]
        return [RunningCall(thread.ident or 0, job.loan.label, thread.started) for thread, job in running if job]

    def report_slow(self, now: float, limit: float) -> list[tuple[str, float, FrameType | None]]:
        """Label, age and frame of the jobs that run for more than ``limit`` seconds (0 = no limit), each once."""
        report = []
        for thread in list(self.threads):
            job, started = thread.job, thread.started
            if job is not None and now - started > limit > 0 and thread.reported != started:
                thread.reported = started
                report.append((job.loan.label, now - started, sys._current_frames().get(thread.ident or 0)))
        return report

    def close(self) -> None:
        """End the threads that are idle, and each of the others when it comes back."""
        with self.lock:
            self._closing = True
            for thread in self.idle:
                self._end(thread)
            self.idle.clear()

    # -- lending; the lock is held

    def borrow(self, loan: Loan) -> LentThread | None:
        """A thread for ``loan``; None where it has to wait. Raises RuntimeError where none can be started."""
        if not self.waiting and not 0 < self.size <= self.lent:
            try:
                thread = self._take(loan.last)
            except RuntimeError:  # the system has none to give: one that is out will come back
                if not self.lent:
                    raise
            else:
                if self.timed:
                    self._waits.lanes[0].append(0.0)
                return thread
        loan.asked = time.monotonic()
        self.waiting[loan] = None
        if self._timer is None:
            if threading.get_ident() == self._loop_thread:
                self._watch()
            else:
                self.call_loop(self._watch)
        return None

    def give_back(self, thread: LentThread, *, reusable: bool) -> None:
        """A call is done with ``thread``."""
        self.lent -= 1
        if not reusable or self._closing or 0 < self.size < len(self.threads):
            self._end(thread)
        else:
            self.idle.append(thread)
        while self.waiting and not 0 < self.size <= self.lent:
            loan = next(iter(self.waiting))
            if loan.abandoned():
                self.forget(loan)
                continue
            try:
                self._serve(loan)
            except RuntimeError:  # no thread can be started: the timer tries again
                return

    def forget(self, loan: Loan) -> None:
        """``loan`` waits no more."""
        self.waiting.pop(loan, None)

    def _serve(self, loan: Loan) -> None:
        """Give a thread to a loan that waits."""
        thread = self._take(loan.last)
        del self.waiting[loan]
        if self.timed:
            self._waits.lanes[0].append(time.monotonic() - loan.asked)
        loan.take(thread)

    def _take(self, last: LentThread | None) -> LentThread:
        """The thread that the loan had before, if it is idle, or the one that came back last, or a new one."""
        if last is not None and last in self.idle:
            thread = last
            self.idle.remove(thread)
        elif self.idle:
            thread = self.idle.pop()
        else:
            thread = LentThread(self, self._made)
            thread.start()
            self._made += 1
            self.threads.add(thread)
        self.lent += 1
        return thread

    def _end(self, thread: LentThread) -> None:
        self.threads.discard(thread)
        thread.jobs.put(None)

    # -- the thread's side

    def dismiss(self, thread: LentThread) -> bool:
        """Whether a thread that has waited for a job in vain may end."""
        with self.lock:
            # Either it is lent to a call that has no job for it now, or it is the last one, with a connection that
            # may persist.
            if thread not in self.idle or len(self.threads) == 1:
                return False
            self.idle.remove(thread)
            self.threads.discard(thread)
            return True

    # -- the loop's side

    def call_loop(self, function: Callable[..., object], *args: object) -> None:
        """Have the loop call ``function``."""
        try:
            self.loop.call_soon_threadsafe(function, *args, context=self._context)
        except RuntimeError:  # the loop is closed: the process is leaving, and nobody waits any more
            pass

    def _watch(self) -> None:
        """Look again when the first of those who wait has waited for too long."""
        with self.lock:
            if self.waiting and self._timer is None:
                due = next(iter(self.waiting)).asked + PATIENCE
                pause = max(0.0, due - time.monotonic())
                self._timer = self.loop.call_later(pause, self._relieve, context=self._context)

    def _relieve(self) -> None:
        """Lend beyond the bound to those who have waited for too long."""
        warn, pause = None, 0.0
        with self.lock:
            self._timer = None
            now = time.monotonic()
            for loan in [loan for loan in self.waiting if now - loan.asked > PATIENCE - 0.001]:
                if loan.abandoned():
                    self.forget(loan)
                    continue
                try:
                    self._serve(loan)
                except RuntimeError:  # no thread can be started
                    pause = PATIENCE
                    break
                self.beyond += 1
                warn, self.warn = self.warn or warn, None
            if pause and self._timer is None:
                self._timer = self.loop.call_later(pause, self._relieve, context=self._context)
            else:
                self._watch()
        if warn is not None:
            warn(
                f"A call has waited {PATIENCE:g} s for a lent thread and gets one beyond the {self.size} of --threads:"
                " raise --threads, or find the calls that wait for other calls of this worker"
            )
