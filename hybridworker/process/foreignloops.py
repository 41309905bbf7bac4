"""
Foreign loops: event loops and tasks that the application made while it was imported.

The worker runs one loop, which it makes after the import. What was given to another loop never
runs, unless the application runs that loop in a thread. :mod:`.program` looks before the worker's
own loop is set, and has the warning written when the threads of the application have had time to
begin. Event loop side. Invariant: no code of the application runs here, so this looks only at
what asyncio itself keeps.
"""

from __future__ import annotations

import asyncio
import sys
import types
import weakref
from collections.abc import Iterable

from ..connection.context import Log

#: Tasks named in the warning.
MOST_TASKS = 5


class ForeignLoops:
    """
    The loops that were there before the worker's own.

    Of the loop that is set for the main thread only a weak reference is held. If the
    application has not kept the loop either, nothing can be given to it any more.
    """

    def __init__(self) -> None:
        #: loops with tasks that are not done -> the names of those; kept until the warning is written
        self.pending: dict[asyncio.AbstractEventLoop, list[str]] = {}
        for task in _all_tasks():
            if not task.done() and not task.get_loop().is_closed():
                self.pending.setdefault(task.get_loop(), []).append(_name(task))
        loop = _set_loop()
        self.kept = None if loop is None or loop.is_closed() else weakref.ref(loop)

    def warn(self, log: Log) -> None:
        """Write one warning at most."""
        names = sorted(name for loop, names in self.pending.items() if not loop.is_running() for name in names)
        kept = None if self.kept is None else self.kept()
        self.pending, self.kept = {}, None
        if names:
            more = f" and {len(names) - MOST_TASKS} more" if len(names) > MOST_TASKS else ""
            log.warning(
                "Made at import, on an event loop that never runs: %s%s. Make tasks in lifespan startup, or run their"
                " loop in a thread", ", ".join(names[:MOST_TASKS]), more,
            )  # fmt: skip
        elif kept is not None and not kept.is_running():
            log.warning(
                "The application keeps an event loop from its import. This worker runs another one, so what is given to"
                " that loop never runs: use asyncio.get_running_loop(), or run that loop in a thread"
            )


def _set_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that is set for this thread. ``asyncio.get_event_loop`` could make one, or call the application."""
    policy = getattr(asyncio.events, "_event_loop_policy", None)  # None as long as nobody has used it
    loop = getattr(getattr(policy, "_local", None), "_loop", None)
    return loop if isinstance(loop, asyncio.AbstractEventLoop) else None


def _all_tasks() -> Iterable[asyncio.Task[object]]:
    """The tasks of all loops; ``asyncio.all_tasks`` has those of one loop."""
    tasks: Iterable[object] = getattr(
        asyncio.tasks, "_scheduled_tasks" if sys.version_info >= (3, 12) else "_all_tasks", ()
    )
    try:
        return [task for task in tasks if isinstance(task, asyncio.Task)]
    except RuntimeError:  # a loop in a thread makes tasks meanwhile; then there is no warning
        return []


def _name(task: asyncio.Task[object]) -> str:
    coroutine = task.get_coro()
    if isinstance(coroutine, types.CoroutineType):
        code = coroutine.cr_code
        return f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"
    return task.get_name()
