"""
Assembly: what gunicorn loaded, made into the applications that this worker serves.

WSGI calls run in the threads of a pool, ASGI calls may borrow threads. Worker boot only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..asgi import ASGIApp, Hooks
from ..config.settings import Settings
from .application import Application, WSGIApplication
from .detect import single_callable
from .inspection import Served
from .lending import lend

if TYPE_CHECKING:
    from ..wsgi.threads import ThreadPool
    from .lentthreads import Lender


def assemble(
    every: Iterable[Served],
    settings: Settings,
    pool: ThreadPool | None,
    lender: Lender | None,
    hooks: Hooks | None,
    server_software: str,
) -> list[Application]:
    """
    One application for each of ``every``, in the same order.

    There is a ``pool`` where one of them is WSGI. ``server_software`` is what environ says.
    """
    made: list[Application] = []
    callables: dict[int, ASGIApp] = {}  # one for each ASGI object, however many parts it is
    threaded = None if pool is None else in_threads(settings, pool, hooks, server_software)
    for lane, served in enumerate(every):
        application: Application
        if threaded is not None and served.is_wsgi:
            application = threaded(served, lane)
        else:
            if id(served.app) not in callables:
                callables[id(served.app)] = lend(single_callable(served.app, served.decision.interface), lender)
            application = Application(callables[id(served.app)], settings, hooks)
        application.part = served.part
        made.append(application)
    return made


def in_threads(
    settings: Settings, pool: ThreadPool, hooks: Hooks | None, server_software: str
) -> Callable[[Served, int], WSGIApplication]:
    """What makes the WSGI applications. All of them write to one log, and keep responses on one disk."""
    # A worker that serves ASGI alone loads nothing of this: 5 ms, and half a MiB.
    from ..wsgi.middleware import WSGIMiddleware
    from ..wsgi.spool import MIB, Disk
    from ..wsgi.streams import ErrorLog

    log = logging.getLogger("gunicorn.error")
    errors = ErrorLog(log, to_stderr=settings.log_to_stderr)
    disk = Disk(settings.response_spool * MIB, log.warning) if settings.response_spool else None

    def made_of(served: Served, lane: int) -> WSGIApplication:
        middleware = WSGIMiddleware(
            served.app, settings, pool,
            errors=errors, server_software=server_software, hooks=hooks, disk=disk,
            part="" if served.part is None else served.part.name, lane=lane,
        )  # fmt: skip
        return WSGIApplication(middleware, settings)

    return made_of
