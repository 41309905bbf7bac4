"""
Watchdog: what holds the worker up, said while it does.

    Watchdog.abort     the arbiter has given the worker up (SIGABRT)    in a signal handler
    Watchdog.status    somebody asks what the worker does (SIGUSR2)     in a signal handler
    Watchdog.watch     report a loop that does not turn                 in the watchdog's thread
    beat, warn_of_...  a slow heartbeat, slow calls, too much memory    loop side

A signal handler runs in the main thread amid anything, perhaps amid a write to the very
log that it wants to write to, and any other thread may hold that log's lock while it
waits for a reader. The rule one could break by accident: a handler formats nothing, logs
nothing, takes no lock and starts no thread. It hands a job to the watchdog's thread,
through a queue whose ``put`` is reentrant, and waits for it at most :data:`PATIENCE`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import itertools
import logging
import os
import queue
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol, cast

from ..asgi import Scope, logged_target
from ..connection.context import Log, WorkerContext
from ..wsgi.threads import RunningCall, ThreadPool
from .background import own_tasks

#: Seconds between two looks at the loop, at least; a quarter of ``HYBRIDWORKER_SLOW_LOOP`` where that is more.
PERIOD = 0.25

#: Seconds that a dying worker waits for its report: the arbiter kills it about a second after SIGABRT.
PATIENCE = 0.5

#: Seconds that a heartbeat may take.
SLOW_BEAT = 0.1

#: Calls shown of the stack of a thread and of a task, the innermost ones; requests shown, the oldest ones; other tasks.
THREAD_CALLS, TASK_CALLS, MOST_REQUESTS, MOST_TASKS = 100, 6, 100, 20

PACKAGE = __name__.partition(".")[0]

#: The stacks of the main thread and of the pool's threads are interesting inside of these only.
ROOTS = frozenset({(f"{PACKAGE}.worker", "Worker.run"), (f"{PACKAGE}.wsgi.threads", "ThreadPool._work")})

PAGE = os.sysconf("SC_PAGE_SIZE")


class Request(Protocol):
    """What is shown of a running call of the application, be it an HTTP request or a WebSocket."""

    scope: Scope
    started_at: float
    task: asyncio.Task[None] | None


# -- requests


def in_flight(context: WorkerContext, pool: ThreadPool | None, now: float) -> list[str]:
    """
    One line for each request in flight: what, for how long, and where. ``now`` is ``time.monotonic()``.

    A call in a thread is found by its method and path; of several that are alike the
    oldest come first, as they did when they got their threads.
    """
    names = _thread_names()
    calls: dict[str, list[RunningCall]] = {}
    for call in sorted(pool.snapshot(), key=lambda call: call.started) if pool is not None else ():
        calls.setdefault(call.label, []).append(call)
    lines = []
    running = asyncio.current_task(context.loop)
    for request in _requests(context):
        label = _label(request)
        if calls.get(label):
            where = f"in thread {names.get(calls[label].pop(0).thread)}"
        elif running is not None and _runs(request, running):
            where = "in the loop, running"
        else:
            where = "in the loop"
        lines.append(f"{label}, {now - request.started_at:.1f} s, {where}")
    lines.extend(
        f"{call.label}, {now - call.started:.1f} s, in thread {names.get(call.thread)}, without its client"
        for call in itertools.chain.from_iterable(calls.values())
    )
    return lines


def _runs(request: Request, running: asyncio.Task[Any]) -> bool:
    """Whether the loop runs the request now. One that was begun at once gets its task when it first waits."""
    return request.task is running or (request.task is None and getattr(request, "call", None) is None)


def _requests(context: WorkerContext) -> list[Request]:
    return cast("list[Request]", list(context.cycles))  # made in one step: the loop may be amid anything


def _label(request: Request) -> str:
    """As the calls in the pool's threads are called."""
    return f"{request.scope.get('method', 'WebSocket')} {logged_target(request.scope)}"


def _printable(text: str) -> str:
    """The name of a task may hold line breaks, which would forge lines of the log."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _holder(context: WorkerContext | None) -> str:
    """What the request is called whose task the loop runs; of any thread. Empty while it runs none."""
    running = None if context is None else asyncio.current_task(context.loop)
    if context is not None and running is not None:
        for request in _requests(context):
            if _runs(request, running):
                return _label(request)
    return ""


def _after(word: str, text: str) -> str:
    return word + text if text else ""


# -- stacks


def format_stack(frame: FrameType | None, calls: int = THREAD_CALLS) -> str:
    """The innermost ``calls`` of a stack, as a traceback shows them, without those outside of :data:`ROOTS`."""
    if frame is None:
        return ""
    inside = itertools.takewhile(_inside, traceback.walk_stack(frame))
    summary = traceback.StackSummary.extract(inside, limit=calls)
    summary.reverse()
    return "".join(summary.format())


def _inside(call: tuple[FrameType, int]) -> bool:
    frame = call[0]
    return (frame.f_globals.get("__name__"), frame.f_code.co_qualname) not in ROOTS


def format_task(task: asyncio.Task[None]) -> str:
    """
    The innermost calls of a task that waits.

    ``Task.get_stack`` knows the outermost one only; the others hang on what each awaits.
    """
    calls: list[tuple[FrameType, int]] = []
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)) is not None:
        calls.append((frame, frame.f_lineno))
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "".join(traceback.StackSummary.extract(iter(calls[-TASK_CALLS:])).format())


def _thread_names() -> dict[int | None, str]:
    return {thread.ident: thread.name for thread in threading.enumerate()}


def _thread_stacks(pool: ThreadPool | None) -> Iterator[str]:
    """The other threads: neither the main one, nor this one, nor those of ours that serve nothing."""
    names = _thread_names()
    labels = {call.thread: call.label for call in pool.snapshot()} if pool is not None else {}
    skipped = (threading.main_thread().ident, threading.get_ident())
    for ident, frame in sys._current_frames().items():
        name, label = names.get(ident, str(ident)), labels.get(ident, "")
        if ident not in skipped and (label or not name.startswith("hybridworker-")):
            yield f"Thread {name}{_after(': ', label)}\n{format_stack(frame)}"


def _task_stacks(context: WorkerContext) -> Iterator[str]:
    """What the tasks of the oldest requests wait for; the one that runs is in the main thread's stack."""
    running = asyncio.current_task(context.loop)
    for request in _requests(context)[:MOST_REQUESTS]:
        task = request.task
        if task is not None and task is not running and (stack := format_task(task)):
            yield f"Task of {_label(request)}\n{stack}"


def _background_stacks(context: WorkerContext) -> Iterator[str]:
    """What the application's own tasks wait for, those that no request and no other part of the worker is."""
    tasks = own_tasks(context.loop)
    for task in sorted(tasks, key=lambda task: task.get_name())[:MOST_TASKS]:
        if stack := format_task(task):
            yield f"Task {_printable(task.get_name())}\n{stack}"
    if len(tasks) > MOST_TASKS:
        yield f"and {len(tasks) - MOST_TASKS} more tasks\n"


# -- reports


def report(frame: FrameType | None, context: WorkerContext | None, pool: ThreadPool | None, *, tasks: bool) -> str:
    """
    The requests in flight and the stacks of the threads.

    That of the main thread begins at ``frame``, where it was interrupted, or, where that
    is None, at what it does now.
    """
    frame = frame or sys._current_frames().get(threading.main_thread().ident or 0)
    lines = [] if context is None else in_flight(context, pool, time.monotonic())
    parts = [f"Requests in flight: {len(lines)}\n", *(f"  {line}\n" for line in lines[:MOST_REQUESTS])]
    if len(lines) > MOST_REQUESTS:
        parts.append(f"  and {len(lines) - MOST_REQUESTS} younger ones\n")
    stack = format_stack(frame)
    parts.append(f"Main thread{_after(': ', _holder(context) if stack else 'idle in the event loop')}\n{stack}")
    parts.extend(_thread_stacks(pool))
    if (
        tasks and context is not None and not context.application.threaded
    ):  # those of WSGI calls all wait for their threads
        parts.extend(_task_stacks(context))
        parts.extend(_background_stacks(context))
    return "".join(parts).rstrip()


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
    The thread that reports. Made and started after the fork; idle until there is something to do.

    It sees that the loop turns by pinging it every :attr:`period`: one wake-up of the
    thread and one of the loop. ``sent`` and ``answered`` are times of a ping.
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
        self._sent = self._answered = 0.0

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

        What holds it for less than ``slow_loop`` seconds is never reported. What holds it for
        longer by a period always is: it may have begun so long before the ping that it does not answer.
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
        """Have the report written soon, with what the tasks wait for; the interrupted code goes on at once."""
        self._jobs.put(lambda: self.log.warning("%s", self._report(None, tasks=True)))

    def abort(self, frame: FrameType | None, logger: logging.Logger | None) -> None:
        """
        Write the report before the worker dies. Returns within about a second, and raises nothing.

        Where the error log cannot be had, because the interrupted frame holds its lock or
        nobody reads the pipe behind it, what can be written without waiting goes directly to
        the descriptors of ``logger``. In the first case the log may then have it twice.
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
                stack = format_stack(sys._current_frames().get(self._loop_thread))
                self.log.warning(
                    "The event loop is held for more than %.2f s%s\n%s",
                    now - self._sent, _after(" by ", _holder(context)), stack.rstrip(),
                )  # fmt: skip
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


def beat(notify: Callable[[], None], context: WorkerContext) -> None:
    """Call ``notify``, gunicorn's heartbeat, and warn once when it takes long: it writes to a file."""
    before = time.monotonic()
    notify()
    if time.monotonic() - before > SLOW_BEAT:
        context.warn_once(
            f"A heartbeat took more than {SLOW_BEAT * 1000:.0f} ms: the disk under the worker's temporary file is slow,"
            " and the arbiter may take the worker for dead. Use --worker-tmp-dir /dev/shm"
        )


def warn_of_slow_calls(context: WorkerContext, pool: ThreadPool | None) -> None:
    """Say of each WSGI call that takes longer than gunicorn's timeout where it is."""
    for label, age, frame in () if pool is None else pool.report_slow(time.monotonic(), context.settings.timeout):
        context.log.warning("%s has been in its thread for %.0f s\n%s", label, age, format_stack(frame).rstrip())


def warn_of_size(context: WorkerContext) -> None:
    """For a worker that is about to serve: warn if it is as large by now as ``HYBRIDWORKER_MAX_RSS`` lets it become."""
    limit = context.settings.max_rss
    if limit and (used := resident()) > limit:
        context.log.warning(
            "HYBRIDWORKER_MAX_RSS=%d is less than the %d MiB of a worker that has served nothing yet,"
            " so each will be replaced at once: raise it", limit, used,
        )  # fmt: skip


def resident() -> int:
    """
    Resident memory of this process in MiB.

    The largest so far where the current one is not cheaply known (macOS), and 0 where it
    cannot be known now, because no descriptor is left.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE // 2**20
    except FileNotFoundError:
        import resource  # every process that has no /proc has this

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
    except OSError:
        return 0
