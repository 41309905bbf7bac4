"""
Assembly: what gunicorn loaded, made into the applications that this worker serves.

WSGI calls run in the threads of a pool, ASGI calls may borrow threads. Worker boot only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..asgi import ASGIApp, Hooks
from ..config.settings import Settings
from ..wsgi.middleware import WSGIMiddleware
from ..wsgi.spool import MIB, Disk
from ..wsgi.streams import ErrorLog
from ..wsgi.threads import ThreadPool
from .application import Application, WSGIApplication
from .detect import single_callable
from .inspection import Served
from .lending import lend
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
    log = logging.getLogger("gunicorn.error")
    errors = ErrorLog(log, to_stderr=settings.log_to_stderr)
    disk = Disk(settings.response_spool * MIB, log.warning) if settings.response_spool else None  # one for all parts
    for lane, served in enumerate(every):
        application: Application
        if pool is not None and served.is_wsgi:
            middleware = WSGIMiddleware(
                served.app, settings, pool,
                errors=errors, server_software=server_software, hooks=hooks, disk=disk,
                part="" if served.part is None else served.part.name, lane=lane,
            )  # fmt: skip
            application = WSGIApplication(middleware, settings)
        else:
            if id(served.app) not in callables:
                callables[id(served.app)] = lend(single_callable(served.app, served.decision.interface), lender)
            application = Application(callables[id(served.app)], settings, hooks)
        application.part = served.part
        made.append(application)
    return made
