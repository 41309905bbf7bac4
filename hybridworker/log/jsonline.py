"""
JSONLine: the access line of a request as one JSON object.

gunicorn's atoms under the names of :data:`..config.atoms.NAMES`, numbers as numbers, null for what there is not. Made
from a scope and a finished response, or from the environ where a WSGI application had one. Event loop side only.

Invariant: whatever bytes a client sends, the line is one line of ASCII, and the object it was made of comes out of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Protocol

from ..asgi import PART, Headers, Scope
from ..config.atoms import OWN, USUAL, name_of, named
from ..identity import REQUEST_ID
from .views import ENVIRON, environ_of, text

_encode = json.JSONEncoder(check_circular=False, default=str).encode

#: The fields that have atoms. Names with an underscore are in a scope if the configuration lets them in.
_FIELDS = {b"referer": "f", b"user-agent": "a", b"user_agent": "a", b"authorization": "u"}


class Exchange(Protocol):
    """What is shown of a finished request."""

    scope: Scope

    @property
    def status(self) -> int | None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def sent(self) -> int | None: ...


def shown(value: object) -> str:
    """The JSON of a value. Of an object that has none, what ``str`` says of it."""
    return quoted(value) if type(value) is str else _encode(value)


def _decoded(path: Any) -> Any:
    """PATH_INFO, whose bytes are in latin-1, as the text that it mostly is."""
    if isinstance(path, str) and not path.isascii():
        return path.encode("latin-1", "replace").decode("utf-8", "replace")
    return path


#: Atom -> the Python of its JSON, for the one expression that makes a line: with a call for each value a line takes a
#: third longer. In it ``request`` is a scope or, where a WSGI application had one, the environ.
_OF_RESPONSE = {
    "t": "stamp",
    "s": "'null' if exchange.status is None else exchange.status",
    "b": "'null' if exchange.sent is None else exchange.sent",
    "B": "'null' if exchange.sent is None else exchange.sent",
    "T": "took // 1000000",
    "M": "took // 1000",
    "D": "took",
    "L": "'%d.%06d' % divmod(took, 1000000)",
}

_OF_SCOPE = _OF_RESPONSE | {
    "h": "quoted('' if request['client'] is None else request['client'][0])",
    "u": "shown(user({'HTTP_AUTHORIZATION': found['u']})) if 'u' in found else 'null'",
    "m": "quoted(request['method'] if 'method' in request else 'GET')",  # a WebSocket has none
    "U": "quoted(request['path'])",
    "q": "quoted(request['query_string'].decode('latin-1'))",
    "H": """'"HTTP/1.1"' if request['http_version'] == '1.1' else '"HTTP/' + request['http_version'] + '"'""",
    "r": "quoted(request_line(request))",
}

_OF_ENVIRON = _OF_RESPONSE | {
    "u": "shown(user(request)) if 'HTTP_AUTHORIZATION' in request else 'null'",
    "U": "shown(decoded(request.get('PATH_INFO')))",
    "r": "quoted(' '.join([str(request.get(key)) for key in ('REQUEST_METHOD', 'RAW_URI', 'SERVER_PROTOCOL')]))",
}

#: Atom -> environ key, of those that are shown as they are.
_FROM_ENVIRON = {
    "h": "REMOTE_ADDR",
    "m": "REQUEST_METHOD",
    "q": "QUERY_STRING",
    "H": "SERVER_PROTOCOL",
    "f": "HTTP_REFERER",
    "a": "HTTP_USER_AGENT",
}
_OF_ENVIRON |= {
    atom: f"quoted(value) if type(value := request.get({key!r})) is str else shown(value)"
    for atom, key in _FROM_ENVIRON.items()
}


def _request_line(scope: Scope) -> str:
    return f"{scope.get('method', 'GET')} {text(scope['hybridworker.target'])} HTTP/{scope['http_version']}"


class JSONLine:
    """
    Makes the lines, each as fast as one of text.

    ``atoms`` are chosen and ordered by the user; none of them means the usual ones, with the id of the request where
    ``identified`` says that there are ids. ``user`` is gunicorn's own, which finds a name in an environ.
    """

    def __init__(
        self, atoms: tuple[str, ...], user: Callable[[dict[str, Any]], str | None], *, identified: bool = False
    ) -> None:
        self.usual = not atoms
        atoms = atoms or (*USUAL, *((f"{{{REQUEST_ID}}}e",) if identified else ()))
        kinds = {atom: found for atom in atoms if (found := named(atom)) is not None}
        self.requested = {name.encode(): atom for atom, (name, kind) in kinds.items() if kind == "i"}
        self.fields = {field: atom for field, atom in _FIELDS.items() if atom in atoms}
        self.fields |= self.requested
        self.responded = {name.encode(): atom for atom, (name, kind) in kinds.items() if kind == "o"}
        self.environ = {name: atom for atom, (name, kind) in kinds.items() if kind == "e"}
        self.needs_environ = any(not name.startswith(OWN) for name in self.environ)
        fixed = {"l": "null", "p": f"{os.getpid()}"}
        names = {atom: quoted(name_of(atom)).replace("%", "%%") for atom in atoms}
        known: dict[str, Any] = {
            "template": "{" + ",".join(f"{name}:{fixed.get(atom, '%s')}" for atom, name in names.items()) + "}",
            "quoted": quoted,
            "shown": shown,
            "decoded": _decoded,
            "request_line": _request_line,
            "user": user,
        }
        values = [atom for atom in atoms if atom not in fixed]
        self.of_scope = _compiled(values, _OF_SCOPE, known)
        self.of_environ = _compiled(values, _OF_ENVIRON, known)
        self.second, self.stamp = 0, ""

    def line(self, exchange: Exchange, took: int, now: float) -> str:
        """The line; ``took`` in microseconds, ``now`` since the epoch."""
        scope = exchange.scope
        environ = scope.get(ENVIRON)
        found: dict[str, Any] = {}
        second = int(now)
        if second != self.second:
            self.second, self.stamp = second, time.strftime('"%Y-%m-%dT%H:%M:%S', time.gmtime(second))
        stamp = f'{self.stamp}.{int((now - second) * 1e6):06}Z"'
        requested = self.fields if environ is None else self.requested
        if requested:
            for name, value in scope["headers"]:
                if name in requested:
                    atom = requested[name]
                    # The values of a repeated field are a list (RFC 9110 5.3).
                    found[atom] = f"{found[atom]},{text(value)}" if atom in found else value.decode("latin-1")
        if self.responded:
            for name, value in exchange.headers:
                if (key := name.lower()) in self.responded:
                    atom = self.responded[key]
                    found[atom] = f"{found[atom]},{text(value)}" if atom in found else text(value)
        if self.environ:
            self._find(found, scope, environ)
        if environ is None:
            line = self.of_scope(scope, exchange, took, found, stamp)
        else:
            line = self.of_environ(environ, exchange, took, found, stamp)
        if self.usual and PART in scope:
            return f'{line[:-1]},"part":{shown(scope[PART])}}}'
        return line

    def _find(self, found: dict[str, Any], scope: Scope, environ: dict[str, Any] | None) -> None:
        """The values of an environ that were asked for, by atom. Those of this package are in the scope."""
        if self.needs_environ:
            for key, value in (environ_of(scope) if environ is None else environ).items():
                if key.lower() in self.environ:
                    found[self.environ[key.lower()]] = value
        for name, atom in self.environ.items():
            if name.startswith(OWN) and name in scope:
                found[atom] = scope[name]


def _compiled(atoms: Iterable[str], known: Mapping[str, str], names: dict[str, Any]) -> Callable[..., str]:
    """
    The function that makes a line of a request, a response, microseconds, what was found by name, and the time.

    Invariant: of what the user has written only the ``repr`` gets into the expression.
    """
    values = [known.get(atom) or f"shown(found[{atom!r}]) if {atom!r} in found else 'null'" for atom in atoms]
    source = f"lambda request, exchange, took, found, stamp: template % ({''.join(f'{value}, ' for value in values)})"
    function: Callable[..., str] = eval(source, dict(names))
    return function
