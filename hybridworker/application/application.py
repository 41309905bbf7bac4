"""
Application: one application that is served, how it is called, and how its responses are counted.

Whatever depends on the kind of an application is asked of it: how a call begins, whether it
runs in a thread, whom it believes about the client, what its requests share. There are three
kinds: an ASGI application, a WSGI application, and an endpoint of the worker itself, which is
no traffic. :mod:`..wsgi.middleware` is the ASGI form of a WSGI application. Each part of a Hybrid
is one as well, with a name and perhaps a mount point: see :mod:`.parts`. Event loop side.

Invariant: a call starts from a copy of :attr:`Application.context`, never from the context of
the callback that parsed its request, or variables would leak from one request into the next.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..asgi import MOUNT, ASGIApp, Hooks, Receive, Scope, Send
from ..config.settings import Settings
from ..wsgi.callrecords import LostCall
from .directory import Part, enter_mount

if TYPE_CHECKING:
    from ..wsgi.middleware import WSGIMiddleware


class Call(Protocol):
    """A WSGI call that was begun without a task: :class:`~.wsgi.responder.WSGIResponder`."""

    start: Any  #: the head, as a message, of a response that is whole
    gone: bool  #: nobody takes anything any more
    error: BaseException | None  #: what it raised

    def whole(self) -> bytes | None:
        """The body of a response that is complete; None where the call has to be awaited."""

    def cancel(self) -> bool:
        """Nobody wants the response any more. Returns whether the call was still queued, and so never runs."""

    def __call__(self, scope: Scope, receive: Receive, send: Send, /) -> Awaitable[None]: ...


Begin = Callable[[Scope, bytes, Callable[[], None]], Call]


class Application:
    """
    An ASGI application.

    ``hooks`` are called around each call; None where neither would do anything.
    """

    threaded = False  #: calls run in threads: they cannot be cancelled, and a slow client must not hold one
    takes_websockets = True
    takes_sockets = False  #: speaks WebSocket itself, by a socket that it finds in its environ
    counted = True  #: its requests are traffic: counted and logged
    reads_forwarded_client = True  #: what HYBRIDWORKER_FORWARDED_CLIENT=auto means for it
    begin: Begin | None = None  #: calls a threaded application for a request that is complete, without a task

    def __init__(self, app: ASGIApp, settings: Settings, hooks: Hooks | None = None) -> None:
        self.app = app
        self.hooks = hooks
        mode = settings.forwarded_client
        #: whether X-Forwarded-For of a trusted proxy names the client
        self.forwarded_client = mode == "on" or (mode == "auto" and self.reads_forwarded_client)
        #: lifespan state, copied shallowly into each scope
        self.state: dict[str, Any] = {}
        #: the context that each call starts from: that of lifespan startup, once it is complete
        self.context = contextvars.copy_context()
        #: how many responses there were of each status class, 0 for those that nobody waited for
        self.responses = [0] * 10
        self.part: Part | None = None  #: where it stands in a Hybrid; None where it is all that is served
        self.apart = False  #: its calls are counted apart: they run in threads, and those of other parts may not

    def mount(self, scope: Scope, outer: str, taken: bool) -> None:
        """
        Make the prefix of the part its mount point in ``scope``.

        ``outer`` is the prefix of the whole deployment, and ``taken`` says that the path begins with it.
        """
        if self.part is not None:
            enter_mount(scope, outer, self.part.prefix, stripped=not taken)

    def running(self) -> int:
        """How many calls are going on beside those that are requests in flight."""
        return 0

    def expire(self, scope: Scope) -> LostCall | None:
        """The time of the request with this ``scope`` is up. Returns the call that goes on in a thread all the same."""
        return None

    def works(self, scope: Scope) -> bool:
        """Whether the call for the request with this ``scope`` is not over; one without a thread ends its response."""
        return True


class WSGIApplication(Application):
    """
    A WSGI application. Its hooks run in the thread of the call, so :class:`WSGIMiddleware` has them.

    The call itself runs in the context (``contextvars``) of its thread. Code that runs on the event loop for the call
    starts from an empty context.
    """

    threaded = True
    takes_websockets = False
    takes_sockets = True
    reads_forwarded_client = False

    def __init__(self, middleware: WSGIMiddleware, settings: Settings) -> None:
        super().__init__(middleware, settings)
        self.context = contextvars.Context()
        self.running = middleware.calls  # type: ignore[method-assign]  # also calls of clients that have gone
        self.expire = middleware.expire  # type: ignore[method-assign]
        self.works = middleware.works  # type: ignore[method-assign]
        self.begin = middleware.begin

    def mount(self, scope: Scope, outer: str, taken: bool) -> None:
        """The middleware divides the path, in the thread of the call: hooks may change it before."""
        if self.part is not None:
            scope[MOUNT] = outer + self.part.prefix if taken else self.part.prefix


class Endpoint(Application):
    """An answer of the worker itself, before the application: no traffic, without hooks."""

    takes_websockets = False
    counted = False
