"""
Watchdog: what holds the worker up, said while it does.

    Watchdog.abort       the arbiter has given the worker up (SIGABRT)      in a signal handler
    Watchdog.status      an operator asks what the worker does (SIGUSR2)    in a signal handler
    Watchdog.watch       report a loop that does not turn                   in the watchdog's thread
    warn_of_slow_calls   calls that are too long in their threads           loop side

The text is made by :mod:`.report`. A signal handler runs in the main thread amid anything,
perhaps amid a write to the very log that it wants to write to, and another thread may hold the
lock of that log while it waits for a reader. Invariant: a handler formats nothing, logs nothing,
takes no lock and starts no thread. It hands a job to the watchdog's thread, through a queue
whose ``put`` is reentrant, and waits for it at most :data:`PATIENCE`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from ..connection.context import Log, WorkerContext
from .report import format_stack, holder, report

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool

#: Seconds between two looks at the loop, at least; a quarter of ``HYBRIDWORKER_SLOW_LOOP`` where that is more.
PERIOD = 0.25

#: Seconds that a dying worker waits for its report: the arbiter kills it about a second after SIGABRT.
PATIENCE = 0.5


def descriptors(logger: logging.Logger | None) -> list[int]:
    """The file descriptors that a logger writes to, or that of stderr."""
    found = []
    while logger is not None:
        for handler in logger.handlers:
            # Not every handler has a stream, not every stream is open, or has a descriptor.
            with suppress(AttributeError, OSError, ValueError):
                found.append(cast("logging.StreamHandler[Any]", handler).stream.fileno())
        logger = logger.parent if logger.propagate else None
    return found or [2]


def last_words(text: str, fds: Iterable[int]) -> None:
    """Write ``text``, or the bare stacks where there is none, past the logger, and only as long as nothing blocks."""
    for fd in fds:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        with suppress(OSError):
            if not text and poll.poll(0):
                faulthandler.dump_traceback(fd, all_threads=True)
            data = text.encode("utf-8", "backslashreplace")
            while data and poll.poll(100):
                data = data[os.write(fd, data[: select.PIPE_BUF]) :]


class Watchdog:
    """
    The thread that reports. It is started after the fork, and sleeps until there is something to do.

    It pings the loop every :attr:`period`, to see that it turns: one wake-up of the thread
    and one of the loop.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.context: WorkerContext | None = None
        self.pool: ThreadPool | None = None
        self.limit = 0.0  #: seconds that the loop may be held
        self.period: float | None = None  #: None = nothing to look at
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hybridworker-watchdog", daemon=True)
        self._loop_thread = 0
        self._looked = self._used = 0.0  #: time of the last look, and processor time of the process then
        self._pinged = self._reported = False
        self._sent = self._answered = 0.0  #: times of the last ping

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; wait for it, but not when it is stuck in the log."""
        self._jobs.put(None)
        self._thread.join(PATIENCE)

    # -- loop side

    def watch(self, context: WorkerContext, pool: ThreadPool | None) -> None:
        """
        Know the requests of ``context`` from now on, and report whenever its loop, which calls this, is held.

        A hold of less than ``slow_loop`` seconds is never reported. One that is longer by a
        period always is; one in between is reported if a ping fell early into it.
        """
        self.context, self.pool = context, pool
        self._loop_thread = threading.get_ident()
        self.limit = context.settings.slow_loop
        if self.limit:
            self._looked, self._used = time.monotonic(), time.process_time()
            self.period = max(PERIOD, self.limit / 4)
            self._jobs.put(self._look)

    def _answer(self) -> None:
        self._answered = time.monotonic()
        self._pinged = False

    # -- in signal handlers

    def status(self) -> None:
        """Have the report written soon, with what the tasks wait for. The interrupted code goes on at once."""
        self._jobs.put(lambda: self.log.warning("%s", self._report(None, tasks=True)))

    def abort(self, frame: FrameType | None, logger: logging.Logger | None) -> None:
        """
        Write the report before the worker dies. Returns within about a second, and raises nothing.

        The error log may be out of reach: the interrupted frame holds its lock, or nobody reads
        the pipe behind it. Then the report goes directly to the descriptors of ``logger``, as far
        as it can be written without waiting. In the first case the log may have it twice.
        """
        words: list[str] = []
        done: queue.SimpleQueue[None] = queue.SimpleQueue()

        def write() -> None:
            words.append(self._report(frame, tasks=False))
            self.log.error("Worker aborted (pid: %d). %s", os.getpid(), words[0])
            done.put(None)

        with suppress(Exception):  # whatever it is, worker_abort and the exit code are worth more
            self._jobs.put(write)
            try:
                done.get(timeout=PATIENCE)
            except queue.Empty:
                last_words(words[0] + "\n" if words else "", descriptors(logger))

    # -- thread side

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self.period)
            except queue.Empty:
                job = self._look
            if job is None:
                return
            job()
            del job  # it may hold a frame, which holds the locals of a request

    def _report(self, frame: FrameType | None, *, tasks: bool) -> str:
        try:
            return report(frame, self.context, self.pool, tasks=tasks)
        except Exception:  # other threads go on while they are looked at
            return f"No report could be made\n{format_stack(frame)}{traceback.format_exc()}".rstrip()

    def _look(self) -> None:
        """See whether the loop has answered, and ping it again or report."""
        context, period = self.context, self.period
        if context is None or period is None:
            return
        now, used = time.monotonic(), time.process_time()
        rest, computed = now - self._looked, used - self._used
        self._looked, self._used = now, used
        if rest > 2 * period and computed < rest / 2 and not self._reported:
            # The whole process stood still: SIGSTOP, a paused machine, no processor. That is not the loop's fault.
            # A thread that computes without ever giving up the GIL would have used the time.
            self._sent = now
        if self._pinged:
            if not self._reported and now - self._sent >= self.limit:
                self._reported = True
                name = holder(context)
                stack = format_stack(sys._current_frames().get(self._loop_thread)).rstrip()
                by = f" by {name}" if name else ""
                self.log.warning("The event loop is held for more than %.2f s%s\n%s", now - self._sent, by, stack)
            return
        held = self._answered - self._sent
        if self._reported or held >= self.limit:
            self._reported = False
            self.log.warning("The event loop turns again; it was held for %.2f s", held)
        self._pinged, self._sent = True, now
        try:
            context.loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # the loop is closed: the worker is leaving
            self.period = None


# -- loop side


def warn_of_slow_calls(context: WorkerContext, pool: ThreadPool | None) -> None:
    """Say of the calls that are in a thread for longer than gunicorn's timeout where they are, of equal ones once."""
    now, limit = time.monotonic(), context.settings.timeout
    alike: dict[str, list[tuple[str, float]]] = {}
    for threads in (pool, context.lender):
        for label, age, frame in () if threads is None else threads.report_slow(now, limit):
            alike.setdefault(format_stack(frame).rstrip(), []).append((label, age))
    for stack, calls in alike.items():
        label, age = max(calls, key=lambda call: call[1])
        others = f", and {len(calls) - 1} more at the same place" if len(calls) > 1 else ""
        context.log.warning("%s has been in its thread for %.0f s%s\n%s", label, age, others, stack)
