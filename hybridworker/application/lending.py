"""
Lending: the hook into asgiref by which an ASGI application borrows threads.

asgiref runs the synchronous code of a call in the executor that its ``ThreadSensitiveContext`` has.
Only the outermost context of a call counts, so this worker enters one before Django does, and gives it
a :class:`~.lentthreads.Loan` as its executor. Left alone, asgiref starts a thread for each call and lets
it end with the call, and Django's database connections with it.

:func:`make_lender` decides once, when the worker begins, whether threads are lent. :func:`lend`
puts the hook around an application, so a call of one that borrows nothing costs nothing. Event
loop side.

The hook is asgiref's own map of contexts to executors. ``ThreadSensitiveContext(executor=...)`` of asgiref 3.13 is
public, but makes the synchronous code of a task that outlives its call fail. So the entry in the map is removed when
the call ends. A task that outlives its call then gets an executor made by asgiref, as it would without this module.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..asgi import ASGIApp, Message, Receive, Scope, Send
from ..config.settings import Settings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from .lentthreads import Lender

#: The module that is loaded where Django's handler serves ASGI.
HANDLER = "django.core.handlers.asgi"

#: What a call sends amid its response, or in place of its body, and may then wait long for its client.
_FILES = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class Hook(NamedTuple):
    """The parts of asgiref that are needed."""

    new_context: Callable[[], Any]
    current: contextvars.ContextVar[Any]
    executors: MutableMapping[Any, Executor]


def find_hook() -> Hook | None:
    """The hook of the asgiref that is installed; None where it has changed."""
    from asgiref import sync

    context = getattr(sync, "ThreadSensitiveContext", None)
    current = getattr(getattr(sync, "SyncToAsync", None), "thread_sensitive_context", None)
    executors = getattr(getattr(sync, "SyncToAsync", None), "context_to_thread_executor", None)
    if not callable(context) or not isinstance(current, contextvars.ContextVar):
        return None
    return Hook(context, current, executors) if isinstance(executors, MutableMapping) else None


def make_lender(
    settings: Settings, loop: asyncio.AbstractEventLoop, log: Any, *, bounded: bool = True
) -> Lender | None:
    """
    The threads that ASGI applications of this worker borrow; None where they borrow none.

    With ``bounded`` at most ``settings.threads`` are out at once, where that is more than 1. ``log``
    is gunicorn's logger. To be asked when the application is loaded, in the thread of the loop.
    """
    mode = settings.lend_threads
    if mode == "off" or (mode == "auto" and HANDLER not in sys.modules):
        return None
    if find_hook() is None:
        log.info("This version of asgiref lends no threads: each call has one of its own")
        return None
    from . import djangodb  # few applications borrow threads
    from .lentthreads import Lender

    djangodb.watch()
    size = settings.threads if bounded and settings.threads > 1 else 0
    most = f"at most {size} at once" if size else "as many as are needed"
    log.info("Threads are lent to synchronous code of the ASGI application, %s", most)
    return Lender(size, loop, log.warning, timed=bool(settings.metrics_path))


def lend(app: ASGIApp, lender: Lender | None) -> ASGIApp:
    """Return ``app`` as one whose HTTP calls borrow their threads of ``lender``, or as it is where there is none."""
    hook = None if lender is None else find_hook()
    if lender is None or hook is None:
        return app
    from .lentthreads import Loan  # it is loaded: there is a lender

    new_context, current, executors = hook

    async def borrowing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or current.get(None) is not None:  # lifespan startup may have entered one for all
            return await app(scope, receive, send)
        loan = Loan(lender, scope)

        async def sending(message: Message) -> None:
            if message.get("more_body") or message["type"] in _FILES:
                if loan.thread is not None or not loan.streaming:
                    loan.stream()
            await send(message)

        context = new_context()
        executors[context] = loan
        current.set(context)
        waits = False
        try:
            await app(scope, receive, sending)
            waits = True
        except Exception:
            waits = True
            raise
        finally:  # cancelled, or the process is being left: then nothing may be awaited any more
            executors.pop(context, None)
            ended = loan.end()
            if ended is not None and waits:
                await ended

    return borrowing
