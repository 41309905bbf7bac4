"""
Leftovers: what the application has left to tasks, threads and processes.

When the requests of a worker that leaves are answered and the application has shut down, work
that they began may still be going on:

    end_tasks       asyncio tasks are cancelled and awaited, as ``asyncio.run`` does it
    wait_for_jobs   calls in executors and process pools, and threads, are waited for

Both end at a deadline and return in words what is not done then. Event loop side only, so that
the heartbeat goes on meanwhile. :mod:`.exit` ends the process afterwards.

Four kinds of threads are not waited for: daemon threads, as in Python itself; threads of an executor that have nothing
to do; threads that wait for an item of a :class:`queue.Queue`, as those of anyio do between two calls; and the worker's
own, whose calls are requests. A thread that is lent (:mod:`..application.lentthreads`) counts as a daemon while it is
idle; while it runs a job it does not, and is waited for. Invariant: a thread of an executor is waited for only while it
works. An executor keeps its threads for ever, so each replacement of a worker would take the whole graceful timeout.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any

#: Seconds between two looks at the threads, and between the last two, which both find nothing to do.
LOOK, LOOK_AGAIN = 0.05, 0.005

#: Seconds that asynchronous generators always have, however late it is. Most of them need no time.
LEAST = 0.1

#: How many things a sentence names.
MOST = 20

#: How the names of the worker's own threads begin.
OWN = "hybridworker-"

_NONE: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


# -- tasks


def own_tasks(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """The application's own tasks, which belong neither to a request nor to the worker."""
    running = asyncio.current_task(loop)
    return [task for task in asyncio.all_tasks(loop) if task is not running and not _is_ours(task)]


def _is_ours(task: asyncio.Task[Any]) -> bool:
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def describe(task: asyncio.Task[Any]) -> str:
    """The name of a task, its coroutine, and the line where that waits or, without a frame, begins."""
    coroutine = task.get_coro()
    frame, code = getattr(coroutine, "cr_frame", None), getattr(coroutine, "cr_code", None)
    name = f"task {printable(task.get_name())}"
    if code is None:  # no coroutine, or one that an eager task has completed
        return name
    return f"{name} in {_place(code, code.co_firstlineno if frame is None else frame.f_lineno)}"


async def end_tasks(loop: asyncio.AbstractEventLoop, deadline: float) -> list[str]:
    """Cancel the application's own tasks, await them, and close its asynchronous generators."""
    tasks = own_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
    for task in tasks:
        if task.done() and not task.cancelled() and (exception := task.exception()) is not None:
            loop.call_exception_handler(
                {"message": "A task raised when it was cancelled", "exception": exception, "task": task}
            )
    closing = loop.create_task(loop.shutdown_asyncgens())
    await asyncio.wait([closing], timeout=max(LEAST, deadline - loop.time()))
    if not closing.done():
        closing.cancel()
        await asyncio.wait([closing], timeout=LEAST)
    return [describe(task) for task in tasks if not task.done()]


# -- jobs


def jobs() -> list[str]:
    """What threads, executors and process pools of the application have to do now, in words."""
    return list(_jobs(_threads()))


async def wait_for_jobs(loop: asyncio.AbstractEventLoop, deadline: float) -> list[str]:
    """Wait until no thread, executor or process pool of the application has work left."""
    idle = 0
    while True:
        threads = _threads()
        left = list(_jobs(threads))
        if not threads or loop.time() >= deadline:
            return left
        # A thread that has just taken an item shows neither a queue nor work. The next look sees what it took.
        idle = 0 if left else idle + 1
        if idle == 2:
            return []
        await asyncio.sleep(LOOK_AGAIN if idle else min(LOOK, max(0.0, deadline - loop.time())))


def _threads() -> list[threading.Thread]:
    """The threads that may have work: those of executors and pools, and others that are not daemons."""
    kept = (threading.main_thread(), threading.current_thread())
    executors, pools = _queues(), _pools()
    return [
        thread
        for thread in threading.enumerate()
        if thread not in kept
        and not thread.name.startswith(OWN)
        and (thread in executors or thread in pools or not thread.daemon)
    ]


def _jobs(threads: Iterable[threading.Thread]) -> Iterator[str]:
    """The work of these threads, in words."""
    executors, pools, frames = _queues(), _pools(), sys._current_frames()
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        if frame is None:
            continue  # it has ended
        if thread in pools:
            if calls := len(pools[thread]):
                yield f"a process pool with {calls} call{'s' * (calls != 1)}"
        elif thread in executors:
            item, code = _item(frame)
            if item is not None or frame.f_code is not code or executors[thread].qsize():
                yield _thread(thread, frame, getattr(item, "fn", None))
        elif not _waits(thread, frame):
            yield _thread(thread, frame)


def _queues() -> dict[Any, queue.SimpleQueue[Any]]:
    """The threads of every ``ThreadPoolExecutor``, and the queue of each."""
    return _known("concurrent.futures.thread", "_threads_queues")


def _pools() -> dict[Any, dict[int, Any]]:
    """The thread that manages each ``ProcessPoolExecutor``, and the calls of the pool that have not ended."""
    return {thread: thread.pending_work_items for thread in _known("concurrent.futures.process", "_threads_wakeups")}


def _known(module: str, registry: str) -> dict[Any, Any]:
    """The threads in a registry that a module of the standard library keeps for its own exit; empty if unused."""
    weak: weakref.WeakKeyDictionary[Any, Any] = getattr(sys.modules.get(module), registry, _NONE)
    # In one step: other threads go on and change the registry.
    threads = [thread for reference in weak.keyrefs() if (thread := reference()) is not None]
    return {thread: weak.get(thread) for thread in threads}


def _item(frame: FrameType | None) -> tuple[Any, CodeType | None]:
    """The item that the thread of an executor works on, or None, and the code that waits for items."""
    code: CodeType | None = getattr(
        getattr(sys.modules.get("concurrent.futures.thread"), "_worker", None), "__code__", None
    )
    while frame is not None:
        if frame.f_code is code:
            return frame.f_locals.get("work_item"), code
        frame = frame.f_back
    return None, code


def _waits(thread: threading.Thread, frame: FrameType) -> bool:
    """Whether the outermost function of a thread waits for an empty queue, so that the thread has nothing to do."""
    get = frame.f_back
    if frame.f_code is not threading.Condition.wait.__code__ or get is None:
        return False
    caller = get.f_back
    if get.f_code is not queue.Queue.get.__code__ or caller is None:
        return False
    target = getattr(thread, "_target", None)  # some tools put functions of their own around Thread.run
    if caller.f_locals.get("self") is not thread and caller.f_code is not getattr(target, "__code__", None):
        return False
    waits: queue.Queue[Any] = get.f_locals["self"]
    return not waits._qsize()


# -- words


def sentence(things: list[str]) -> str:
    """Name the first of the ``things`` in one line, and say how many more there are."""
    more = len(things) - MOST
    return ", ".join(things[:MOST]) + (f" and {more} more" if more > 0 else "")


def _thread(thread: threading.Thread, frame: FrameType, function: Any = None) -> str:
    work = getattr(function, "__qualname__", None) or getattr(getattr(function, "func", None), "__qualname__", None)
    call = f" ({printable(work)})" if isinstance(work, str) else ""
    place: FrameType | None = frame  # where it waits says more than how
    while place is not None and place.f_globals.get("__name__") in ("threading", "queue"):
        place = place.f_back
    place = place or frame
    return f"thread {printable(thread.name)}{call} in {_place(place.f_code, place.f_lineno)}"


def _place(code: CodeType, line: int) -> str:
    return f"{code.co_qualname} ({PurePath(code.co_filename).name}:{line})"


def printable(text: str) -> str:
    """Names may hold line breaks, which would forge lines of the log."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
