"""
WSGIMiddleware: the ASGI application of a worker that serves WSGI.

For each request it makes a :class:`~.responder.WSGIResponder`, which a thread of :class:`~.threads.ThreadPool`
runs. What all calls of one application have in common is here; a call, its environ and its response are in
:mod:`.responder`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from typing import Any

from asgiref.wsgi import WsgiToAsgi

from ..asgi import Hooks, Receive, Scope, Send, WSGIApp
from ..config.settings import Settings
from .callrecords import LostCall
from .commonenviron import CommonEnvirons
from .environ import encrypted_environ, request_environ
from .responder import WSGIResponder
from .spool import Disk
from .streams import ErrorStream
from .threads import ThreadPool


class WSGIMiddleware(WsgiToAsgi):
    """
    The ASGI 3 application that serves a WSGI application.

    Of ``WsgiToAsgi`` the shape is left: made of a WSGI application, it makes one
    :class:`~.responder.WSGIResponder` per request. Replaced are its one global thread (by ``pool``),
    its limit of equal header names (the server has limits of its own) and the constant
    part of the environ, which :class:`~.commonenviron.CommonEnvirons` has.

    ``errors`` serves all calls, so it must outlast whatever they do to it. ``disk`` takes what of responses
    does not fit into memory; without it, threads wait for the clients of such. ``part`` is the name of
    the application in a Hybrid, and ``lane`` the number under which its calls are counted there.
    """

    def __init__(
        self,
        wsgi_application: WSGIApp,
        settings: Settings,
        pool: ThreadPool,
        *,
        errors: ErrorStream,
        server_software: str,
        hooks: Hooks | None = None,
        disk: Disk | None = None,
        part: str = "",
        lane: int = 0,
    ) -> None:
        super().__init__(wsgi_application)  # type: ignore[no-untyped-call]  # asgiref has no types here
        self.pool = pool
        self.calls = pool.calls
        self.hooks = hooks
        self.disk = disk
        self.script_name = settings.script_name
        self.request_environ = encrypted_environ if settings.is_ssl else request_environ
        self.part = part
        self.lane = lane
        #: Not under TLS: there the bytes have to be encrypted on their way.
        self.sendfile = settings.sendfile and not settings.is_ssl
        self.environs = CommonEnvirons(settings, errors, server_software, part)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        return WSGIResponder(self)(scope, receive, send)

    def begin(self, scope: Scope, body: bytes, ready: Callable[[], None]) -> WSGIResponder:
        """
        Have the application called for a request that is complete, before anybody awaits the response.

        ``ready()`` is called by the loop when there is something to send or to raise. Most
        responses are then whole, and a task would have had nothing to wait for; any other is
        awaited as usual, with ``await responder(scope, receive, send)``.
        """
        responder = WSGIResponder(self)
        responder.scope = scope
        responder.body = io.BytesIO(body)
        responder.begin(ready)
        return responder

    def expire(self, scope: Scope) -> LostCall | None:
        """
        The time of the request with this ``scope`` is up: a call that is queued never runs.

        Returns the call where a thread runs it: nothing can end that, and the thread is lost until it does so itself.
        """
        return self.pool.expire(_serves(scope))

    def works(self, scope: Scope) -> bool:
        """Whether the call for the request with this ``scope`` is not over."""
        return self.pool.runs(_serves(scope))


def _serves(scope: Scope) -> Callable[[object], bool]:
    """Whether a call of the pool is the one for the request with this ``scope``."""
    return lambda call: isinstance(call, WSGIResponder) and call.scope is scope
