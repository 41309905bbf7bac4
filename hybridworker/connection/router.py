"""
Router: which application answers a request: an endpoint, the one there is, or a part of a Hybrid.

Made once for a worker. :mod:`.fields` asks it for every request, through :attr:`Router.single`
where there is nothing to choose, and through :attr:`Router.known` where the path says it all. Event loop side only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..application.application import Application
from ..asgi import Headers, Scope
from ..cache import KNOWN_MAX, remember

if TYPE_CHECKING:
    from ..application.parts import Parts


class Router:
    """
    ``default`` answers what no endpoint does. Where it is a Hybrid, one of its ``parts`` does, or ``default`` what none
    of them claims.
    """

    __slots__ = ("default", "endpoints", "known", "parts", "responses", "single")

    def __init__(self, default: Application, parts: Parts | None = None) -> None:
        self.default = default
        self.parts = parts
        #: what answers every request; None where there are parts, or endpoints, which to ask is 0.6 % of a hello
        self.single = default if parts is None else None
        #: path -> the part that serves it, unless the request is a WebSocket handshake or a forwarder names a prefix
        self.known: dict[str, Application] = {}
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
            self.single = None

    def running(self) -> int:
        """How many calls are going on beside those that are requests in flight. All parts share one pool."""
        return max(application.running() for application in self.applications)

    def find(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        """
        An endpoint or an application. An endpoint answers no WebSocket handshake that an application takes.

        ``websocket`` says that the request is a handshake. ``forwarded`` are the fields that only a forwarder may send,
        where one of them may name a prefix.
        """
        path: str = scope["path"]
        endpoint = self.endpoints.get(path)
        if endpoint is not None and scope["method"] in ("GET", "HEAD"):
            if not websocket or not self._beside_endpoints(dict(scope), websocket, forwarded).takes_websockets:
                return endpoint
        application = self._beside_endpoints(scope, websocket, forwarded)
        part = application.part
        if endpoint is None and part is not None and not (part.mounted or websocket or forwarded is not None):
            if len(path) <= KNOWN_MAX:
                remember(self.known, path, application)
        return application

    def _beside_endpoints(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        return self.default if self.parts is None else self.parts.find(scope, websocket, forwarded)
