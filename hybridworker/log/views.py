"""
Views: the request and the response as code written for gunicorn knows them.

Request hooks get them, and so does the ``access()`` of a logger class of the user's. A view is made
from a scope or a finished response and from nothing else, so HTTP, WebSocket and WSGI look the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import unquote

import gunicorn

from ..asgi import PART, Headers, Scope
from ..wsgi.environ import request_environ

#: The key of a scope under which a WSGI call leaves its environ. What the application and its middleware wrote
#: there shows in the log, as it does with gunicorn's own workers.
ENVIRON = "hybridworker.environ"

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_VERSIONS = {"1.0": (1, 0), "1.1": (1, 1), "2": (2, 0)}
_SCHEMES = {"ws": "http", "wss": "https"}


class Answer(Protocol):
    """A response that is over, complete or not: that of a request, of a WebSocket or of a WSGI call."""

    @property
    def status(self) -> int | None:
        """None before an application has said anything."""

    @property
    def reason(self) -> bytes | None:
        """The phrase, if the application gave one."""

    @property
    def headers(self) -> Headers:
        """As the application gave them."""

    @property
    def sent(self) -> int | None:
        """Bytes of body, without framing; None where that says nothing."""


class RequestView:
    """
    The request as gunicorn's request object shows it.

    ``uri`` is the target as received, ``path`` is not percent-decoded, ``remote_addr`` is "" on a unix socket.
    A hook may set attributes of its own, and change those that gunicorn makes the environ from.
    """

    fragment = ""  # a target that has one is refused
    body = None  # only the application reads it

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.method: Any = scope.get("method", "GET")  # the scope of a WebSocket has none
        self.scheme: Any = _SCHEMES.get(scope["scheme"], scope["scheme"])
        self.uri = text(scope["hybridworker.target"])
        self.path = text(scope["raw_path"])
        self.query = text(scope["query_string"])
        self.version = _VERSIONS[scope["http_version"]]
        self.remote_addr = self.peer_addr = scope["client"] or ""
        self.trailers: list[tuple[str, str]] = []

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Upper-case names, in the order received."""
        return [(text(name).upper(), text(value)) for name, value in self.scope["headers"]]

    @cached_property
    def proxy_protocol_info(self) -> dict[str, Any] | None:
        """What a PROXY header announced."""
        proxy = self.scope.get("hybridworker.proxy")
        if proxy is None:
            return None
        host, port = self.scope["client"]
        return {
            "proxy_protocol": proxy["PROXY_PROTOCOL"],
            "client_addr": host,
            "client_port": port,
            "proxy_addr": proxy["PROXY_ADDR"],
            "proxy_port": int(proxy["PROXY_PORT"]),
        }

    def apply(self) -> None:
        """Write into the scope what a hook has changed."""
        fresh, seen = RequestView(self.scope), vars(self)  # headers that no hook looked at are not in there
        for name, items in _APPLIED.items():
            if name in seen and seen[name] != getattr(fresh, name):
                self.scope.update(items(seen[name]))


#: Attribute of a request -> the items of a scope that follow from it.
_APPLIED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "method": lambda value: {"method": value},
    "scheme": lambda value: {"scheme": value},
    "uri": lambda value: {"hybridworker.target": value.encode("latin-1")},
    "path": lambda value: {"raw_path": value.encode("latin-1"), "path": unquote(value)},
    "query": lambda value: {"query_string": value.encode("latin-1")},
    "headers": lambda value: {"headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in value]},
}


class ResponseView:
    """
    The response as gunicorn's response object shows it.

    The response is over, so nothing is here that writes, frames or ends one.
    """

    def __init__(self, answer: Answer) -> None:
        code, reason = answer.status, answer.reason
        phrase = _PHRASES.get(code or 0, "") if reason is None else text(reason)
        self.version = gunicorn.SERVER
        self.status = None if code is None else f"{code} {phrase}" if phrase else f"{code}"
        self.status_code = code
        self.sent = answer.sent
        self._fields = answer.headers

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Without the length of a 204, which is not sent (RFC 9110 8.6)."""
        fields = [(text(name), text(value)) for name, value in self._fields]
        return (
            fields if self.status_code != 204 else [field for field in fields if field[0].lower() != "content-length"]
        )

    @property
    def response_length(self) -> int | None:
        """The Content-Length, if there is one."""
        return next((int(value) for name, value in self.headers if name.lower() == "content-length"), None)


def environ_of(scope: Scope) -> dict[str, Any]:
    """The WSGI application's own environ, or what it would have been given for this scope."""
    environ: dict[str, Any] | None = scope.get(ENVIRON)
    if environ is None:
        environ = request_environ(scope)
        environ["SERVER_SOFTWARE"] = gunicorn.SERVER_SOFTWARE
        environ["wsgi.url_scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
        if PART in scope:
            environ[PART] = scope[PART]
    return environ


def text(value: bytes) -> str:
    """The characters of a field, which are bytes (latin-1)."""
    return value.decode("latin-1")
