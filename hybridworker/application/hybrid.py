"""
Hybrid: an ASGI and a WSGI application side by side, as one object.

The user makes a :class:`Hybrid` in a module and names it to the server. This worker takes it apart (:mod:`.parts`):
each part is served as what it is. For any other server it is an ASGI 3 application (:mod:`.dispatcher`), so that test
clients and other workers serve the same module.

Invariant: this module imports neither gunicorn nor an event loop, and runs no line of the applications.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from ..asgi import Receive, Scope, Send
from ..errors import HybridError
from .detect import undeclared
from .directory import Part

if TYPE_CHECKING:
    from .dispatcher import Dispatcher

#: Any callable that speaks ASGI or WSGI. What it speaks is found out when it is served.
AnyApplication = Callable[..., Any]

#: How many objects are looked at for a Hybrid inside of an application.
WITHIN_MAX = 1000

#: What it is looked for in, of the types that are built in. (Modules and classes are among those, too.)
_CONTAINERS = frozenset({list, tuple, FunctionType, MethodType})


class Hybrid:
    """
    Several applications in one: which of them serves a request is decided by its path and its protocol.

    ``default`` serves whatever nothing else claims, and ``websocket`` every WebSocket that no path claims. The keys of
    ``routes`` and ``mounts`` are prefixes of the decoded path, by whole segments: ``/ws`` claims ``/ws`` and ``/ws/x``,
    not ``/wsx``. The longest one wins. A route sees the path as it came. To a mount its prefix is the mount point: it
    becomes a part of ``root_path`` (ASGI) or of ``SCRIPT_NAME`` (WSGI).

    A WebSocket goes to the longest prefix of an ASGI application, else to ``websocket``, else as HTTP does. What
    nothing claims is answered with 404. Each ASGI application has a lifespan of its own; one that is named twice has
    one.

    Raises ValueError, with a line that names the key, for a prefix that claims nothing, for one that is given twice,
    and for what is no application.
    """

    def __init__(
        self,
        default: AnyApplication | None = None,
        *,
        websocket: AnyApplication | None = None,
        routes: Mapping[str, AnyApplication] | None = None,
        mounts: Mapping[str, AnyApplication] | None = None,
    ) -> None:
        named = [("default", default), ("websocket", websocket)]
        parts = [Part(key, key, _checked(key, app)) for key, app in named if app is not None]
        seen: dict[str, str] = {}
        for keyword, table in (("routes", routes), ("mounts", mounts)):
            if table is not None and not isinstance(table, Mapping):
                raise HybridError(
                    f"Hybrid: {keyword} is of type {type(table).__name__}: it maps prefixes to applications"
                )
            for prefix, app in (table or {}).items():
                key = f"{keyword}[{prefix!r}]"
                _check_prefix(key, prefix)
                if prefix in seen:
                    raise HybridError(f"Hybrid: {key} and {seen[prefix]} claim the same paths: name one of them")
                seen[prefix] = key
                parts.append(Part(key, prefix, _checked(key, app), prefix, keyword == "mounts"))
        if not parts:
            raise HybridError("Hybrid: there is no application in it: Hybrid(application, ...)")
        #: every application, in the order named
        self.parts: tuple[Part, ...] = tuple(parts)
        self._dispatcher: Dispatcher | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope of ASGI 3, on any server. WSGI parts run through asgiref's ``WsgiToAsgi``."""
        if self._dispatcher is None:
            from .dispatcher import Dispatcher  # this worker serves the parts without it

            try:
                self._dispatcher = Dispatcher(self.parts)
            except HybridError as exc:
                if scope["type"] != "lifespan":
                    raise
                # To raise would be to say that there is no lifespan: many servers would then serve errors.
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(exc)})
                return
        await self._dispatcher(scope, receive, send)

    def __repr__(self) -> str:
        return f"<Hybrid of {', '.join(part.key for part in self.parts)}>"


def _check_prefix(key: str, prefix: object) -> None:
    """Refuse what no path begins with by whole segments, and what could forge a line of the log."""
    if not isinstance(prefix, str):
        raise HybridError(f"Hybrid: {key}: a prefix is a string such as '/ws', not {type(prefix).__name__}")
    if not prefix.startswith("/"):
        raise HybridError(f"Hybrid: {key}: a prefix begins with a slash: {'/' + prefix.strip('/')!r}")
    if prefix.endswith("/"):
        inner = prefix.strip("/")
        meant = f": {'/' + inner!r}" if inner else "; what claims every path is the first argument"
        raise HybridError(f"Hybrid: {key}: a prefix does not end with a slash{meant}")
    if not prefix.isprintable() or "\ufffd" in prefix:
        raise HybridError(f"Hybrid: {key}: a prefix is printable")
    if "?" in prefix or unquote(prefix) != prefix:
        meant = unquote(prefix.partition("?")[0])
        raise HybridError(f"Hybrid: {key}: a prefix is compared with the decoded path, without its query: {meant!r}")


def _checked(key: str, app: object) -> object:
    """Refuse what cannot be an application. What can be one is looked at when it is served."""
    inner = undeclared(app)
    if isinstance(inner, Hybrid):
        raise HybridError(f"Hybrid: {key} is a Hybrid: a Hybrid may not contain another one, so name its parts here")
    if hybrid_within(inner) is not None:
        raise HybridError(
            f"Hybrid: {key} wraps a Hybrid: a Hybrid may not contain another one, so name its parts here, each wrapped"
        )
    if isinstance(inner, str):
        raise HybridError(f"Hybrid: {key} is the string {inner!r}: import the application, and name it without quotes")
    if not callable(inner):
        raise HybridError(f"Hybrid: {key} is of type {type(inner).__name__}, and no application: it cannot be called")
    return app


def hybrid_within(app: object) -> Hybrid | None:
    """
    A Hybrid that ``app`` wraps, as a middleware does; None where none is found.

    Looks at attributes, closures and what ``functools`` leaves. Invariant: this asks types and dictionaries only,
    because some objects run code of the application for any attribute, and for ``isinstance``.
    """
    queue, seen = [app], {id(app)}
    for found in queue:
        if issubclass(type(found), Hybrid):
            return cast(Hybrid, found)
        for inner in _held(found) if len(queue) < WITHIN_MAX else ():
            if id(inner) not in seen:
                seen.add(id(inner))
                queue.append(inner)
    return None


def _held(holder: object) -> list[object]:
    """The objects that ``holder`` keeps: no classes, modules or plain values."""
    held: list[object] = []
    if type(holder) is list or type(holder) is tuple:
        held = list(holder)
    elif type(holder) is functools.partial:
        held = [holder.func, *holder.args, *holder.keywords.values()]
    elif type(holder) is MethodType:
        held = [holder.__func__, holder.__self__]
    else:
        for cell in holder.__closure__ or () if type(holder) is FunctionType else ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # a variable without a value yet
                continue
        try:
            held += object.__getattribute__(holder, "__dict__").values()
        except AttributeError:
            pass  # it has none
    return [item for item in held if type(item) in _CONTAINERS or type(item).__module__ != "builtins"]
