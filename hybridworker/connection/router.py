"""
Router: which application answers a request: an endpoint, the one there is, or a part of a Hybrid.

Made once for a worker. :mod:`.fields` asks it for every request, through :attr:`Router.single`
where there is nothing to choose. Event loop side only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..application.application import Application
from ..asgi import Headers, Scope

if TYPE_CHECKING:
    from ..application.parts import Parts


class Router:
    """
    ``default`` answers what no endpoint does. Where it is a Hybrid, one of its ``parts`` does, or ``default`` what none
    of them claims.
    """

    __slots__ = ("default", "endpoints", "find", "parts", "responses", "single", "sole")

    def __init__(self, default: Application, parts: Parts | None = None) -> None:
        self.default = default
        self.parts = parts
        #: what answers every request that no endpoint does; None where :attr:`find` has to look
        self.sole: Application | None = default if parts is None else None
        #: the same of every request at all. By itself, because to ask :attr:`endpoints` each time is 0.6 % of a hello
        self.single = self.sole
        #: (scope, is it a WebSocket handshake, fields that only a forwarder may send) -> what answers. Bound for speed
        self.find: Callable[[Scope, bool, Headers | None], Application] = self._find if parts is None else parts.find
        #: the responses that are of no part, by status class: all of them, or what no part claims and refusals
        self.responses = default.responses if parts is None else parts.unclaimed.responses
        self.endpoints: dict[str, Application] = {}  #: paths that are answered before the application

    @property
    def applications(self) -> tuple[Application, ...]:
        """Everything that is served, in the order named, without endpoints."""
        return (self.default,) if self.parts is None else self.parts.applications

    def answer_first(self, endpoints: dict[str, Application]) -> None:
        """Have GET and HEAD of some paths answered before the application."""
        self.endpoints = endpoints
        if endpoints:
            self.single, self.find = None, self._find

    def running(self) -> int:
        """How many calls are going on beside those that are requests in flight. All parts share one pool."""
        return max(application.running() for application in self.applications)

    def _find(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        """An endpoint or an application. An endpoint answers no WebSocket handshake that an application takes."""
        endpoint = self.endpoints.get(scope["path"])
        if endpoint is not None and scope["method"] in ("GET", "HEAD"):
            if not websocket or not self._beside_endpoints(dict(scope), websocket, forwarded).takes_websockets:
                return endpoint
        return self._beside_endpoints(scope, websocket, forwarded)

    def _beside_endpoints(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        return self.default if self.parts is None else self.parts.find(scope, websocket, forwarded)
