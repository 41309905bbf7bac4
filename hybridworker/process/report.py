"""
Report: what the worker is doing, as text.

The requests in flight, and the stacks of threads and tasks. :mod:`.watchdog` writes it to the log.
Nothing is changed, logged or waited for here. Any thread may ask, while the others go on: so each
collection that another thread may change is copied in one step first.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..application.application import Application
from ..asgi import PART, Scope, request_label
from ..connection.context import WorkerContext
from ..wsgi.callrecords import LENT, RunningCall
from .leftovers import own_tasks, printable

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool

#: Calls shown of the stack of a thread and of a task, the innermost ones; requests shown, the oldest ones; other tasks.
THREAD_CALLS, TASK_CALLS, MOST_REQUESTS, MOST_TASKS = 100, 6, 100, 20

PACKAGE = __name__.partition(".")[0]

#: A stack of the main thread, or of one of the pool's, is shown from inside of these functions.
ROOTS = frozenset(
    {
        (f"{PACKAGE}.worker", "Worker.run"),
        (f"{PACKAGE}.wsgi.threads", "ThreadPool._work"),
        (f"{PACKAGE}.application.lentthreads", "LentThread._work"),
    }
)


class Request(Protocol):
    """What is shown of a running call of the application, be it an HTTP request or a WebSocket."""

    application: Application
    scope: Scope
    started_at: float
    task: asyncio.Task[None] | None


class Named(Protocol):
    """What a line calls by its name."""

    scope: Scope


# -- requests


def in_flight(context: WorkerContext, pool: ThreadPool | None, now: float) -> list[str]:
    """
    One line for each request in flight: what, for how long, and where. ``now`` is ``time.monotonic()``.

    A call in a thread is found by its label. Of several that are alike the oldest come
    first, as they did when they got their threads.
    """
    names = _thread_names()
    calls: dict[str, list[RunningCall]] = {}
    for call in sorted(running_calls(context, pool), key=lambda call: call.started):
        calls.setdefault(call.label, []).append(call)
    lines = []
    running = asyncio.current_task(context.loop)
    for request in _requests(context):
        name = label(request)
        if calls.get(name):
            where = f"in thread {names.get(calls[name].pop(0).thread)}"
        elif running is not None and _runs(request, running):
            where = "in the loop, running"
        else:
            where = "in the loop"
        lines.append(f"{name}, {now - request.started_at:.1f} s, {where}")
    lines.extend(
        f"{call.label}, {now - call.started:.1f} s, in thread {names.get(call.thread)}, without its client"
        for call in itertools.chain.from_iterable(calls.values())
    )
    return lines


def running_calls(context: WorkerContext | None, pool: ThreadPool | None) -> list[RunningCall]:
    """What runs in the threads for WSGI calls, and in those that are lent."""
    lender = None if context is None else context.lender
    return [call for threads in (pool, lender) if threads is not None for call in threads.snapshot()]


def _runs(request: Request, running: asyncio.Task[Any]) -> bool:
    """Whether the loop runs the request now. A request that was begun at once gets its task when it first waits."""
    return request.task is running or (request.task is None and getattr(request, "call", None) is None)


def _requests(context: WorkerContext) -> list[Request]:
    return cast("list[Request]", list(context.cycles))  # made in one step: the loop may be amid anything


def label(request: Named) -> str:
    """Method, target and part, as in the labels of the calls in the pool's threads."""
    scope = request.scope
    return request_label(scope.get("method", "WebSocket"), scope, scope.get(PART, ""))


def holder(context: WorkerContext | None) -> str:
    """The label of the request whose task the loop runs now; empty while it runs none."""
    running = None if context is None else asyncio.current_task(context.loop)
    if context is not None and running is not None:
        for request in _requests(context):
            if _runs(request, running):
                return label(request)
    return ""


def _after(word: str, text: str) -> str:
    return word + text if text else ""


# -- stacks


def format_stack(frame: FrameType | None, calls: int = THREAD_CALLS) -> str:
    """The innermost ``calls`` of a stack, as a traceback shows them, as far as they are inside of :data:`ROOTS`."""
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


def _thread_stacks(context: WorkerContext | None, pool: ThreadPool | None) -> Iterator[str]:
    """The other threads, without the main one, this one, and those of the worker that serve nothing."""
    names = _thread_names()
    labels = {call.thread: call.label for call in running_calls(context, pool)}
    skipped = (threading.main_thread().ident, threading.get_ident())
    for ident, frame in sys._current_frames().items():
        name, label = names.get(ident, str(ident)), labels.get(ident, "")
        if ident not in skipped and (label or not name.startswith(("hybridworker-", LENT))):
            yield f"Thread {name}{_after(': ', label)}\n{format_stack(frame)}"


def _task_stacks(context: WorkerContext) -> Iterator[str]:
    """What the tasks of the oldest requests wait for. The task that runs is in the stack of the main thread."""
    running = asyncio.current_task(context.loop)
    for request in [request for request in _requests(context) if not request.application.threaded][:MOST_REQUESTS]:
        task = request.task
        if task is not None and task is not running and (stack := format_task(task)):
            yield f"Task of {label(request)}\n{stack}"


def _background_stacks(context: WorkerContext) -> Iterator[str]:
    """What the application's own tasks wait for, which belong neither to a request nor to the worker."""
    tasks = own_tasks(context.loop)
    for task in sorted(tasks, key=lambda task: task.get_name())[:MOST_TASKS]:
        if stack := format_task(task):
            yield f"Task {printable(task.get_name())}\n{stack}"
    if len(tasks) > MOST_TASKS:
        yield f"and {len(tasks) - MOST_TASKS} more tasks\n"


# -- reports


def report(frame: FrameType | None, context: WorkerContext | None, pool: ThreadPool | None, *, tasks: bool) -> str:
    """
    The requests in flight and the stacks of the threads; with ``tasks`` also what the tasks wait for.

    The stack of the main thread begins at ``frame``, where it was interrupted. Where that is
    None, it begins at what the thread does now.
    """
    frame = frame or sys._current_frames().get(threading.main_thread().ident or 0)
    lines = [] if context is None else in_flight(context, pool, time.monotonic())
    parts = [f"Requests in flight: {len(lines)}\n", *(f"  {line}\n" for line in lines[:MOST_REQUESTS])]
    if len(lines) > MOST_REQUESTS:
        parts.append(f"  and {len(lines) - MOST_REQUESTS} younger ones\n")
    stack = format_stack(frame)
    parts.append(f"Main thread{_after(': ', holder(context) if stack else 'idle in the event loop')}\n{stack}")
    parts.extend(_thread_stacks(context, pool))
    # The tasks of threaded calls all wait for their threads.
    if tasks and context is not None and not all(application.threaded for application in context.router.applications):
        parts.extend(_task_stacks(context))
        parts.extend(_background_stacks(context))
    return "".join(parts).rstrip()
