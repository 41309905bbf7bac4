"""
Parts: the applications of a Hybrid in this worker, and which of them serves a request.

Each part is an :class:`~.application.Application` of its own, with its own kind, name and counts; those of one ASGI
object share its state and its context. :meth:`Parts.find` says which one serves a request. Event loop side.

Invariant: a scope names its part, and its mount point is set, before anything else is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from ..asgi import PART, Headers, Scope
from ..cache import KNOWN_MAX, remember
from ..config.settings import Settings
from .application import Application
from .directory import Directory, normal_prefix, outer_prefix
from .dispatcher import not_found

#: What serves a path, the prefix of the deployment, and whether the path begins with that.
Found: TypeAlias = tuple[Application, str, bool]


class Unclaimed(Application):
    """What answers a request that no part claims. It is traffic, and no part."""

    takes_websockets = False


class Parts:
    """The applications of a Hybrid, in the order named, and which of them serves a request."""

    __slots__ = ("applications", "default", "directory", "known", "outers", "unclaimed")

    def __init__(self, applications: Sequence[Application], unclaimed: Application, settings: Settings) -> None:
        self.applications = tuple(applications)
        self.unclaimed = unclaimed
        for app in self.applications:
            app.apart = app.threaded
        entries = [(app.part, app) for app in self.applications if app.part]
        self.directory = Directory(entries, lambda app: app.takes_websockets)
        #: what serves the paths that no prefix claims
        self.default = unclaimed if self.directory.default is None else self.directory.default
        #: path -> what was found for HTTP, where that is a mount. The router remembers the others
        self.known: dict[str, Found] = {}
        outers = {normal_prefix(settings.root_path), normal_prefix(settings.script_name)} - {""}
        #: the prefixes that the whole deployment may have, as configured, the longest first
        self.outers = tuple(sorted(outers, key=len, reverse=True))

    @classmethod
    def of(cls, applications: Sequence[Application], settings: Settings, hooks: object = None) -> Parts:
        """The parts, and what answers the rest."""
        unclaimed = Unclaimed(not_found, settings, hooks)  # type: ignore[arg-type]  # Hooks or None
        return cls(applications, unclaimed, settings)

    def find(self, scope: Scope, websocket: bool, forwarded: Headers | None) -> Application:
        """
        The application that serves the request of ``scope``.

        ``websocket`` says that it is a handshake. ``forwarded`` are the fields that only a forwarder may send, also
        those that were dropped.
        """
        script_name = _script_name(scope["headers"], forwarded) if forwarded is not None else ""
        found = None if websocket or script_name else self.known.get(scope["path"])
        if found is None:
            found = self._look(scope, websocket, script_name)
        application, outer, taken = found
        part = application.part
        if part is not None:
            scope[PART] = part.name
            if part.mounted:
                application.mount(scope, outer, taken)
        return application

    def _look(self, scope: Scope, websocket: bool, script_name: str) -> Found:
        """Divide the path, and look it up."""
        path: str = scope["path"]
        outer, taken = "", True
        if script_name or self.outers:
            outers = (script_name, *self.outers)
            division = outer_prefix(path, outers)
            taken = division is not None
            outer, path = (next(filter(None, outers)), path) if division is None else division
        directory = self.directory
        application = (directory.find_for_websocket(path) if websocket else directory.find(path)) or self.unclaimed
        found = (application, outer, taken)
        mounted = application.part is not None and application.part.mounted
        if mounted and not websocket and not script_name and len(scope["path"]) <= KNOWN_MAX:
            remember(self.known, scope["path"], found)
        return found


def _script_name(headers: Headers, forwarded: Headers) -> str:
    """The prefix that a forwarder names, if it is trusted: from others no such field is kept."""
    if not any(name == b"script_name" for name, _ in forwarded):
        return ""
    values = [value for name, value in headers if name == b"script_name"]
    return normal_prefix(values[-1].decode("latin-1")) if values else ""
