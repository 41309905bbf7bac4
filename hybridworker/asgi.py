"""
The vocabulary of ASGI: type aliases, specification versions, request hooks, and how a log names a request.

A leaf that every other module may import. Pure.
Source: asgiref ``specs/asgi.rst`` 3.0, ``specs/www.rst`` 2.5,
``specs/lifespan.rst`` 2.0.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol, TypeAlias

from .identity import REQUEST_ID

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: Header fields as they stand in scopes and messages: lower-case names, raw values, in order.
Headers: TypeAlias = list[tuple[bytes, bytes]]

ASGI_VERSION = "3.0"
HTTP_SPEC_VERSION = "2.5"
WEBSOCKET_SPEC_VERSION = "2.5"
LIFESPAN_SPEC_VERSION = "2.0"

#: The key of a scope under which stands how many seconds the request had waited before it came to this worker.
WAITED = "hybridworker.waited"

#: The key of a scope, and of an environ, under which the name of the part of a Hybrid stands that serves the request.
PART = "hybridworker.part"

#: The key of a scope under which the mount point of a WSGI part of a Hybrid stands, percent-decoded.
MOUNT = "hybridworker.mount"

#: The key of a scope under which a WSGI call over HTTP/2 leaves its trailers.
TRAILERS = "hybridworker.trailers"

_UNPRINTABLE = re.compile(rb"[^ -~]")


class Hooks(Protocol):
    """What is called around a request: :class:`~.log.hooks.RequestHooks`."""

    def before(self, scope: Scope) -> Any:
        """
        Return the view of the request, for :meth:`after`.

        Invariant: this comes before anything is made of ``scope``, which a hook may change. Its exception becomes a
        500, and :meth:`after` is not called.
        """

    def after(self, view: Any, environ: dict[str, Any] | None, answer: Any) -> None:
        """
        Raise nothing but :class:`~.errors.WorkerExit`.

        ``environ`` is that of the application, if there is one. ``answer`` is a :class:`~.log.views.Answer`.
        """


def logged_target(scope: Scope) -> str:
    """
    Return the request target as received, and the id of the request, for a line of a log.

    What is not printable ASCII is escaped. A decoded path may hold line breaks, which would forge lines.
    """
    target: bytes = scope["hybridworker.target"]
    return _UNPRINTABLE.sub(lambda match: b"\\x%02x" % ord(match[0]), target).decode("ascii") + id_mark(scope)


def id_mark(scope: Scope) -> str:
    """What stands behind the target, or a message, in a line of a log: the id of the request, where it has one."""
    return f" [{scope[REQUEST_ID]}]" if REQUEST_ID in scope else ""


def request_label(method: str, scope: Scope, part: str = "") -> str:
    """Method, target as received and, in a Hybrid, the part that serves it, for reports."""
    label = f"{method} {logged_target(scope)}"
    return f"{label}, part {part}" if part else label
