"""
Admission: whether a request may begin, in any version of HTTP.

    RequestHead                 check_length, note_start      what the head says
    RequestResponseCycle.start  admits                        before the application is called
    RequestResponseCycle.feed   cuts                          a body whose length was not announced

How long those that have begun may take is for :mod:`.requesttimeouts`. Event loop side only. Invariant: there
is an :class:`Admission` only where a limit is set, so that requests pay nothing for those that are off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from typing import Any, Protocol

from ..application.application import Application
from ..asgi import PART, WAITED, Headers, Message, Scope, request_label
from ..config.settings import Settings
from ..errors import ProtocolError
from ..group.scoreboard import SHED, SHEDS, UPGRADED, Slot
from ..states import CallState, ResponseState
from .errorpages import error_page
from .forwarded import FieldPolicy
from .requestids import RequestIds

#: What Retry-After says to a client that was turned away: seconds.
RETRY_AFTER = b"1"

#: Seconds after a 504 for which an answer that comes too late is worth a line of the log.
TOO_LATE = 5.0

#: Up to here CPython compares ints fastest. No worker has so many requests in flight.
SMALL_INT_MAX = 2**30 - 1

TOO_LONG = "the body is longer than HYBRIDWORKER_LIMIT_REQUEST_BODY"


class Request(Protocol):
    """What is needed of a :class:`~.cycle.RequestResponseCycle`."""

    scope: Scope
    application: Application
    call_state: CallState
    state: ResponseState
    started_at: float
    since: float
    expired_at: float  #: when its time was up; missing before
    received: int  #: bytes of the body; missing before the first of them

    def start_response(self, message: Message) -> None: ...
    def body(self, body: Any, more: bool) -> None: ...
    def fail(self, status: int) -> None: ...
    def refuse(self, status: int) -> None: ...


class Log(Protocol):
    """What is needed of the log."""

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None: ...


def limited(settings: Settings) -> bool:
    """Whether any of the limits is set, of those that look at a request when it begins or while it runs."""
    limits = (
        settings.limit_request_body,
        settings.queue_timeout,
        settings.requests_max,
        settings.request_timeout,
        settings.slow_request,
    )
    return any(limit < math.inf for limit in limits)


class Admission:
    """
    The limits of one worker.

    ``cycles`` are its requests in flight, WebSockets included, and ``slot`` is its row of the scoreboard.
    """

    __slots__ = (
        "asked_from", "body_max", "cycles", "elsewhere", "ids", "log", "looked", "queue_timeout",
        "requests_max", "slot",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        log: Log,
        cycles: Sized,
        slot: Slot,
        ids: RequestIds | None,
    ) -> None:
        self.log = log
        self.cycles = cycles
        self.slot = slot
        self.ids = ids
        self.body_max = settings.limit_request_body
        self.queue_timeout = settings.queue_timeout
        self.requests_max = settings.requests_max
        #: requests in flight from which on :meth:`admits` is asked: all, once a request has had WAITED in its scope
        self.asked_from = int(min(settings.requests_max, SMALL_INT_MAX))
        self.looked = time.monotonic()  #: when the deadlines were last looked at
        self.elsewhere: Callable[[], bool] = lambda: False  #: whether a sibling would take the connection

    @property
    def full(self) -> bool:
        """Whether there are as many requests as ``HYBRIDWORKER_REQUESTS_MAX`` allows."""
        return len(self.cycles) - self.slot[UPGRADED] >= self.requests_max

    def check_length(self, length: int) -> None:
        """Raise :class:`~.errors.ProtocolError` for an announced length that is too much."""
        if length > self.body_max:
            self.count("body")
            raise ProtocolError(TOO_LONG, 413)

    def note_start(self, scope: Scope, policy: FieldPolicy, fields: Headers) -> None:
        """Keep in ``scope`` what X-Request-Start says; ``fields`` are those that :class:`FieldPolicy` judges."""
        if self.queue_timeout < math.inf and (waited := policy.waited(fields, time.time())):
            scope[WAITED] = waited
            self.asked_from = 0

    # -- a request that begins

    def admits(self, request: Request) -> bool:
        """Whether ``request`` may begin. One that may not is turned away before this returns."""
        reason = self._objection(request) if request.application.counted else ""
        if not reason:
            return True
        request.call_state = CallState.OVER
        self.turn_away(request, reason)
        return False

    def _objection(self, request: Request) -> str:
        """Why ``request`` may not begin, one of ``SHEDS``; empty if it may."""
        if self.full:
            return "requests"
        if self.queue_timeout < math.inf and request.scope.get(WAITED, 0.0) >= self.queue_timeout:
            return "queue"
        return ""

    def turn_away(self, request: Request, reason: str) -> None:
        """Answer 503 to a request that has not begun, and never will."""
        if request.state is not ResponseState.WAITING:  # the client has gone meanwhile
            request.fail(503)
            return
        self.count(reason)
        page = error_page(503)
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", b"%d" % len(page)),
            (b"retry-after", RETRY_AFTER),
        ]
        if self.ids is not None:
            headers += self.ids.fields(request.scope)
        if reason == "requests" and self.elsewhere():
            headers.append((b"connection", b"close"))  # the next connection comes to a sibling
        request.start_response({"type": "http.response.start", "status": 503, "headers": headers})
        request.body(page, False)

    # -- one that has begun

    def complete(self, request: Request, running: bool) -> None:
        """The body has come: the clock begins to run, or, where the application is ``running``, goes on."""
        now = time.monotonic()
        request.since = request.since + now - max(self.looked, request.started_at) if running else now

    def cuts(self, request: Request, size: int) -> bool:
        """Whether ``size`` more bytes make the body too long; the request is then refused (RFC 9110 15.5.14)."""
        request.received = size = getattr(request, "received", 0) + size
        if size <= self.body_max:
            return False
        self.count("body")
        self.log.warning("Invalid request %s: %s", _label(request), TOO_LONG)
        request.refuse(413)
        return True

    def expire(self, request: Request) -> None:
        """The time of ``request`` is up: answer 504, unless its client has gone. For the application it has now."""
        request.expired_at = time.monotonic()
        if request.state is not ResponseState.ABORTED:
            self.count("timeout")
            request.refuse(504)

    def answers_late(self, request: Request) -> None:
        """The application answers a request that has ended; worth a line, once, if it has its 504."""
        if getattr(request, "expired_at", 0.0):
            late, request.expired_at = time.monotonic() - request.expired_at, 0.0
            if late <= TOO_LATE:
                text = "%s answered %.1f s after its 504 (HYBRIDWORKER_REQUEST_TIMEOUT)"
                self.log.warning(text, _label(request), late)

    def count(self, reason: str) -> None:
        """A request was turned away; ``reason`` is one of ``SHEDS``."""
        self.slot[SHED + SHEDS.index(reason)] += 1


def _label(request: Request) -> str:
    """Method, target and part, for the log."""
    return request_label(request.scope["method"], request.scope, request.scope.get(PART, ""))
