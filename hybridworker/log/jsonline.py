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

_encode = json.JSONEncoder(check_circular=False, default=str, allow_nan=False).encode

#: Characters of digits: those of microseconds are looked up, which takes half as long as to format them.
_THREE_DIGITS = [f"{number:03}" for number in range(1000)]


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
    if type(value) is str:
        return quoted(value)
    try:
        return _encode(value)
    except Exception:  # an infinite number, keys that are no text, or whatever the ``str`` of an object raises
        return quoted(_described(value))


def _described(value: object) -> str:
    try:
        return str(value)
    except Exception:  # it is the application's, and the line must not be lost
        return f"<{type(value).__qualname__}>"


def _decoded(path: Any) -> Any:
    """PATH_INFO, whose bytes are in latin-1, as the text that it mostly is."""
    if isinstance(path, str) and not path.isascii():
        return path.encode("latin-1", "replace").decode("utf-8", "replace")
    return path


#: Atom -> the Python of its JSON, for the function that makes a line: with a call for each value a line takes a
#: third longer. In it ``request`` is a scope or, where a WSGI application had one, the environ; ``fields`` are those of
#: the request, ``sent`` those of the response.
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
    "u": "shown(user({'HTTP_AUTHORIZATION': fields[b'authorization'].decode('latin-1')}))"
    " if b'authorization' in fields else 'null'",
    "m": "quoted(request['method'] if 'method' in request else 'GET')",  # a WebSocket has none
    "U": "quoted(request['path'])",
    "q": "quoted(request['query_string'].decode('latin-1'))",
    "H": """'"HTTP/1.1"' if request['http_version'] == '1.1' else '"HTTP/' + request['http_version'] + '"'""",
    "r": "quoted(request_line(request))",
    "f": "quoted(fields[b'referer'].decode('latin-1')) if b'referer' in fields else 'null'",
    "a": "quoted(fields[b'user-agent'].decode('latin-1')) if b'user-agent' in fields else 'null'",
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

#: Kind of a named atom -> the same, with the ``repr`` of its name.
_NAMED = {
    "i": "quoted(fields[{0!r}].decode('latin-1')) if {0!r} in fields else 'null'",
    "o": "quoted(sent[{0!r}].decode('latin-1')) if {0!r} in sent else 'null'",
    "e": "shown(environ[{0!r}]) if {0!r} in environ else 'null'",
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
        names = {kind: [found[0] for atom in atoms if (found := named(atom)) and found[1] == kind] for kind in "ioe"}
        #: whether fields of the request are shown: where there is an environ, only those that were asked for by name
        self.needs_named, self.needs_sent = bool(names["i"]), bool(names["o"])
        self.needs_fields = self.needs_named or not {"u", "f", "a"}.isdisjoint(atoms)
        self.environ = frozenset(names["e"])
        self.needs_environ = any(not name.startswith(OWN) for name in self.environ)
        known = {"quoted": quoted, "shown": shown, "decoded": _decoded, "request_line": _request_line, "user": user}
        self.of_scope = _compiled(atoms, _OF_SCOPE, known)
        self.of_environ = _compiled(atoms, _OF_ENVIRON, known)
        self.second, self.stamp = 0, ""

    def line(self, exchange: Exchange, took: int, now: float) -> str:
        """The line; ``took`` in microseconds, ``now`` since the epoch."""
        scope = exchange.scope
        own = scope.get(ENVIRON)
        second = int(now)
        if second != self.second:
            self.second, self.stamp = second, time.strftime('"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
        micros = int((now - second) * 1e6)
        stamp = self.stamp + _THREE_DIGITS[micros // 1000] + _THREE_DIGITS[micros % 1000] + 'Z"'
        fields = _by_name(scope["headers"]) if self.needs_named or (own is None and self.needs_fields) else _NONE
        sent = _by_name([(name.lower(), value) for name, value in exchange.headers]) if self.needs_sent else _NONE
        environ = self._find(scope, own) if self.environ else _NONE
        if own is None:
            line = self.of_scope(scope, exchange, took, stamp, fields, sent, environ)
        else:
            line = self.of_environ(own, exchange, took, stamp, fields, sent, environ)
        if self.usual and PART in scope:
            return f'{line[:-1]},"part":{shown(scope[PART])}}}'
        return line

    def _find(self, scope: Scope, own: dict[str, Any] | None) -> dict[str, Any]:
        """The values of an environ that were asked for, by name. Those of this package are in the scope."""
        found: dict[str, Any] = {}
        if self.needs_environ:
            for key, value in (environ_of(scope) if own is None else own).items():
                if key.lower() in self.environ:
                    found[key.lower()] = value
        for name in self.environ:
            if name.startswith(OWN) and name in scope:
                found[name] = scope[name]
        return found


#: Of what a line does not show.
_NONE: dict[Any, Any] = {}


def _by_name(fields: Headers) -> dict[bytes, bytes]:
    """The fields by their lower-case names; the values of a repeated one are a list (RFC 9110 5.3)."""
    found = dict(fields)
    if len(found) == len(fields) and b"user_agent" not in found:
        return found
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name, []).append(value)
        if name == b"user_agent":  # in a scope if the configuration lets it in, and the same to CGI
            values.setdefault(b"user-agent", []).append(value)
    return {name: b",".join(several) for name, several in values.items()}


def _compiled(atoms: Iterable[str], known: Mapping[str, str], names: dict[str, Any]) -> Callable[..., str]:
    """
    The function that makes a line of a request, a response and what is known of both.

    Invariant: of what the user has written only the ``repr`` gets into the source.
    """
    body, parts, text = "", "", "{"
    fixed = {"l": "null", "p": f"{os.getpid()}"}
    for number, atom in enumerate(atoms):
        text += f"{quoted(name_of(atom))}:"
        if atom in fixed:
            text += f"{fixed[atom]},"
            continue
        source = known[atom] if (kind := named(atom)) is None else _of_named(*kind)
        body += f" v{number} = {source}\n"
        parts += f"{text!r} f'{{v{number}}}' "
        text = ","
    parts += repr(text.rstrip(",") + "}")
    exec(
        f"def line(request, exchange, took, stamp, fields, sent, environ):\n{body} return {parts}\n", names := {**names}
    )
    function: Callable[..., str] = names["line"]
    return function


def _of_named(name: str, kind: str) -> str:
    return _NAMED[kind].format(name if kind == "e" else name.encode())
