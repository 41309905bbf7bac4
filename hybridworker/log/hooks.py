"""
RequestHooks: gunicorn's ``pre_request`` and ``post_request``.

They run where the application does: for ASGI on the event loop, in the context of the request; for
WSGI in the thread of the call, in its context.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..asgi import Scope
from ..errors import WorkerExit
from .views import Answer, RequestView, ResponseView, environ_of


class RequestHooks:
    """Both hooks, as :class:`~.asgi.Hooks` describes them. None stands for a hook that would do nothing."""

    def __init__(self, cfg: Any, worker: Any, log: Any) -> None:
        self.worker = worker
        self.log = log
        self.pre: Callable[..., Any] | None = cfg.pre_request
        self.post: Callable[..., Any] | None = cfg.post_request
        if self.pre is cfg.settings["pre_request"].default:
            # It logs at debug level. A logger without gunicorn's ``error_log`` is left to decide by itself.
            error_log = getattr(log, "error_log", None)
            if error_log is not None and not error_log.isEnabledFor(logging.DEBUG):
                self.pre = None
        if self.post is cfg.settings["post_request"].default:
            self.post = None

    @classmethod
    def from_gunicorn(cls, cfg: Any, worker: Any, log: Any) -> RequestHooks | None:
        """The hooks of the configuration, or None when neither would do anything."""
        hooks = cls(cfg, worker, log)
        return hooks if hooks.pre is not None or hooks.post is not None else None

    def before(self, scope: Scope) -> RequestView:
        """Call ``pre_request``, and write into ``scope`` what it has changed."""
        view = RequestView(scope)
        if self.pre is not None:
            try:
                self.pre(self.worker, view)
                view.apply()
            except BaseException:
                self.after(view, {}, None)
                raise
        return view

    def after(self, view: RequestView | None, environ: dict[str, Any] | None, answer: Answer | None) -> None:
        """Call ``post_request``; without a view :meth:`before` has raised, and has called it."""
        try:
            if self.post is not None and view is not None:
                response = None if answer is None else ResponseView(answer)
                self.post(self.worker, view, environ_of(view.scope) if environ is None else environ, response)
        except WorkerExit:
            raise
        except BaseException:  # of any kind: the response is out, and the worker goes on
            self.log.exception("Exception in post_request hook")
