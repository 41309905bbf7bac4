"""
Directory: which of several applications serves a path.

A :class:`Part` says where an application stands in a :class:`~.hybrid.Hybrid`, and :class:`Directory` finds the part
of a request. :func:`outer_prefix` tells what of a path belongs to the whole deployment, and :func:`enter_mount` joins
both in a scope. Pure, and the same for this worker and for any other ASGI server.

Invariant: paths are compared by whole segments and percent-decoded, so that every spelling of a path goes to one part.
Nothing else is normalised: ``/a/../ws`` does not begin with ``/ws``, and neither does ``//ws``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, unquote

from ..asgi import Scope

#: What stands for itself in a path (RFC 3986 3.3), beside letters, digits and ``-._~``.
PATH_SAFE = "/!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class Part:
    """One application of a Hybrid, and where it stands there."""

    key: str  #: as in the code that makes the Hybrid: ``default``, ``websocket``, ``routes['/ws']``, ``mounts['/mcp']``
    name: str  #: for logs and metrics: ``default``, ``websocket`` or the prefix
    app: Any
    prefix: str = ""  #: the paths that it claims; empty where it claims none
    mounted: bool = False  #: the prefix belongs to its mount point


Found = TypeVar("Found")


class Directory(Generic[Found]):
    """
    The parts of one Hybrid, by path.

    ``entries`` are pairs of a part and an object; the lookups return the object of the part that serves the path.
    ``takes_websockets(object)`` says whether that part speaks WebSocket.
    """

    __slots__ = ("default", "sockets", "table", "websocket")

    def __init__(
        self, entries: Iterable[tuple[Part, Found]], takes_websockets: Callable[[Found], bool] = lambda found: True
    ) -> None:
        #: first segment -> the prefixes that begin with it, longest first, each also with a slash, and what is found
        self.table: dict[str, list[tuple[str, str, Found]]] = {}
        self.sockets: dict[str, list[tuple[str, str, Found]]] = {}  #: the same of those that take WebSockets
        self.default: Found | None = None
        self.websocket: Found | None = None
        for part, found in entries:
            if part.prefix:
                row = (part.prefix, f"{part.prefix}/", found)
                self.table.setdefault(_first_segment(part.prefix), []).append(row)
                if takes_websockets(found):
                    self.sockets.setdefault(_first_segment(part.prefix), []).append(row)
            elif part.name == "websocket":
                self.websocket = found
            else:
                self.default = found
        for rows in (*self.table.values(), *self.sockets.values()):
            rows.sort(key=lambda row: len(row[0]), reverse=True)

    def find(self, path: str) -> Found | None:
        """What serves HTTP to the decoded ``path``: the longest prefix, else the default, else None."""
        end = path.find("/", 1)
        rows = self.table.get(path if end < 0 else path[:end])
        if rows is not None:
            for prefix, slashed, found in rows:
                if path.startswith(slashed) or path == prefix:
                    return found
        return self.default

    def find_for_websocket(self, path: str) -> Found | None:
        """
        What gets a WebSocket handshake.

        The longest prefix of a part that takes WebSockets; else ``websocket``; else what would serve HTTP.
        """
        for prefix, slashed, found in self.sockets.get(_first_segment(path), ()):
            if path.startswith(slashed) or path == prefix:
                return found
        return self.find(path) if self.websocket is None else self.websocket


def _first_segment(path: str) -> str:
    end = path.find("/", 1)
    return path if end < 0 else path[:end]


# -- the prefix of the whole deployment, and that of a mount


def normal_prefix(text: str) -> str:
    """A configured prefix, percent-decoded, with one slash before it and none behind; empty where there is none."""
    inner = unquote(text).strip("/")
    return f"/{inner}" if inner else ""


def outer_prefix(path: str, prefixes: Iterable[str]) -> tuple[str, str] | None:
    """The first of ``prefixes`` with which the decoded ``path`` begins, and what is below it; None without one."""
    for prefix in prefixes:
        if prefix and (path.startswith(f"{prefix}/") or path == prefix):
            return prefix, path[len(prefix) :]
    return None


def enter_mount(scope: Scope, outer: str, prefix: str, *, stripped: bool) -> None:
    """
    Make ``prefix`` a part of the mount point that ``scope`` names.

    ``root_path`` grows, and ``path`` stays whole: it begins with ``root_path`` (ASGI HTTP 2.5). Where a proxy has
    ``stripped`` the ``outer`` prefix from the path, that is put before it.
    """
    scope["root_path"] = outer + prefix
    if outer and stripped:
        scope["path"] = outer + scope["path"]
        if scope.get("raw_path") is not None:
            scope["raw_path"] = quote(outer, safe=PATH_SAFE).encode("ascii") + scope["raw_path"]
