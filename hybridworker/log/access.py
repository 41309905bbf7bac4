"""
The access log and the request hooks, as gunicorn's logger and configuration want them.

One of the three doors to gunicorn. :func:`access_writer` makes what turns a finished
request, an :class:`Exchange`, into one ``log.access()`` call; :class:`RequestHooks` calls
``pre_request`` and ``post_request``. Both show the request to the user's code through
:class:`RequestView` and :class:`ResponseView`, made from the scope and nothing else, so
that HTTP, WebSocket and WSGI look the same.

For gunicorn's own logger :class:`AccessLog` stands in, which computes only what the
format uses, and must not be told from it: same line, same logger, same record, whatever
handlers, filters and formatters are attached. Lines are written on the event loop; the
hooks run where the application does. The rule one could break by accident: nothing of a
handler is kept between two lines, because SIGUSR1 and the user's own logging
configuration replace handlers at any time.
"""

from __future__ import annotations

import asyncio
import dis
import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from types import FunctionType, ModuleType
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote

from gunicorn import SERVER_SOFTWARE, glogging

from ..asgi import Headers, Scope
from ..errors import WorkerExit
from ..wsgi.environ import request_environ

#: The key of a scope under which a WSGI call leaves its environ: what the application and its middleware wrote
#: there shows in the log, as it does with gunicorn's own workers.
ENVIRON = "hybridworker.environ"

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_SCHEMES = {"ws": "http", "wss": "https"}
_Name = TypeVar("_Name", str, bytes)


class Exchange(Protocol):
    """A finished request: :class:`~.cycle.RequestResponseCycle`, a WebSocket, or :class:`Refused`."""

    scope: Scope
    status: int
    reason: bytes | None  #: the phrase, if the application gave one
    headers: Headers  #: the response's, as the application gave them
    #: ``time.monotonic()`` at the beginning; ``loop.time()`` of uvloop is the same clock, but in whole milliseconds
    started_at: float

    @property
    def sent(self) -> int | None:
        """Bytes of body, without framing; None where that says nothing."""


class Refused:
    """The exchange of a request that never reached the application; ``scope`` is what was known of it by then."""

    __slots__ = ("headers", "reason", "scope", "sent", "started_at", "status")

    def __init__(self, scope: Scope, status: int, started_at: float) -> None:
        self.scope = scope
        self.status = status
        self.reason: bytes | None = None
        self.headers: Headers = []
        self.sent: int | None = 0
        self.started_at = started_at


# -- what the user's code sees


class RequestView:
    """
    The request as gunicorn's request object shows it.

    ``uri`` is the target as received, ``path`` is not percent-decoded, ``remote_addr`` is "" on a unix socket.
    A hook may set attributes of its own, and change those that gunicorn makes the environ from.
    """

    fragment = ""  # a target that has one is refused
    body = None  # the application's alone

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.method: Any = scope.get("method", "GET")  # the scope of a WebSocket has none
        self.scheme: Any = _SCHEMES.get(scope["scheme"], scope["scheme"])
        self.uri = _text(scope["hybridworker.target"])
        self.path = _text(scope["raw_path"])
        self.query = _text(scope["query_string"])
        self.version = (1, 0) if scope["http_version"] == "1.0" else (1, 1)
        self.remote_addr = self.peer_addr = scope["client"] or ""
        self.trailers: list[tuple[str, str]] = []

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Upper-case names, in the order received."""
        return [(_text(name).upper(), _text(value)) for name, value in self.scope["headers"]]

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
        fresh, seen = RequestView(self.scope), vars(self)  # headers that nobody looked at are not in there
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
    """The response as gunicorn's response object shows it."""

    def __init__(self, exchange: Exchange) -> None:
        reason = exchange.reason
        phrase = _PHRASES.get(exchange.status, "") if reason is None else _text(reason)
        self.status = f"{exchange.status} {phrase}"
        self.status_code = exchange.status
        self.sent = exchange.sent
        self._fields = exchange.headers

    @cached_property
    def headers(self) -> list[tuple[str, str]]:
        return [(_text(name), _text(value)) for name, value in self._fields]


class RequestHooks:
    """gunicorn's ``pre_request`` and ``post_request``. None stands for a hook that would do nothing."""

    def __init__(self, cfg: Any, worker: Any, log: Any) -> None:
        self.worker = worker
        self.log = log
        self.pre: Callable[..., Any] | None = cfg.pre_request
        self.post: Callable[..., Any] | None = cfg.post_request
        if self.pre is cfg.settings["pre_request"].default:
            # It logs at debug level. A logger without gunicorn's ``error_log`` is left to decide by itself.
            error_log = getattr(log, "error_log", None)
            if error_log is not None and not error_log.isEnabledFor(logging.DEBUG):
                self.pre = None
        if self.post is cfg.settings["post_request"].default:
            self.post = None

    @classmethod
    def from_gunicorn(cls, cfg: Any, worker: Any, log: Any) -> RequestHooks | None:
        """The hooks of the configuration, or None when neither would do anything."""
        hooks = cls(cfg, worker, log)
        return hooks if hooks.pre is not None or hooks.post is not None else None

    def before(self, scope: Scope) -> RequestView:
        """
        Call ``pre_request``; to be done before anything is made of ``scope``, which the hook may change.

        When the hook raises, ``post_request`` is called here and the exception goes on, to become a 500.
        """
        view = RequestView(scope)
        if self.pre is not None:
            try:
                self.pre(self.worker, view)
                view.apply()
            except BaseException:
                self.after(view, {}, None)
                raise
        return view

    def after(self, view: RequestView | None, environ: dict[str, Any] | None, response: Any) -> None:
        """
        Call ``post_request``. Raises nothing but :class:`~.errors.WorkerExit`.

        Without an environ one is made from the scope; without a view :meth:`before` has raised.
        """
        try:
            if self.post is not None and view is not None:
                self.post(self.worker, view, _environ(view.scope) if environ is None else environ, response)
        except WorkerExit:
            raise
        except BaseException:  # of any kind: the response is out, and the worker goes on
            self.log.exception("Exception in post_request hook")


# -- the access log


def access_writer(log: Any, cfg: Any) -> Callable[[Exchange], None] | None:
    """
    What to call with every finished request, or None when nobody wants to know.

    ``log`` is gunicorn's logger, of whatever class. To be called in the worker's process.
    """
    if _genuine(log.access, glogging):
        if not log.access_log_enabled:
            return None
        if (
            all(_genuine(getattr(log, name), glogging) for name in ("atoms", "now", "_get_user"))
            and log.atoms_wrapper_class is glogging.SafeAtoms
            and type(log.access_log) is logging.Logger
        ):
            return AccessLog(log, cfg)

    def write(exchange: Exchange) -> None:
        try:
            took = timedelta(microseconds=int((time.monotonic() - exchange.started_at) * 1e6))
            scope = exchange.scope
            log.access(ResponseView(exchange), RequestView(scope), _environ(scope), took)
        except WorkerExit:
            raise
        except BaseException:  # of any kind: the connection has to go on
            log.exception("Exception in the access log")

    return write


class Atoms(dict[str, Any]):
    """The atoms of one line: those of the format, and all of gunicorn's once a formatter or filter asks for others."""

    __slots__ = ("source",)

    source: tuple[AccessLog, Exchange, int] | dict[str, Any]

    def __bool__(self) -> bool:
        return True  # asked by logging itself, for every record

    def __missing__(self, key: str) -> Any:
        return self.fill()[key]

    def fill(self) -> dict[str, Any]:
        """Become what gunicorn would have made."""
        source = self.source
        if isinstance(source, tuple):
            writer, exchange, took = source
            self.source = source = writer.all_atoms(exchange, took)
            self.clear()
            self.update(source)
        return source


def _filled(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def filled(self: Atoms, *args: Any) -> Any:
        self.fill()
        return method(self, *args)

    return filled


for _name in "__contains__ __eq__ __iter__ __len__ __or__ __repr__ copy get items keys values".split():
    setattr(Atoms, _name, _filled(_name))

#: Atom -> environ key.
_FROM_ENVIRON = {
    "h": "REMOTE_ADDR",
    "m": "REQUEST_METHOD",
    "U": "PATH_INFO",
    "q": "QUERY_STRING",
    "H": "SERVER_PROTOCOL",
    "f": "HTTP_REFERER",
    "a": "HTTP_USER_AGENT",
}

#: Atoms made from the bytes sent and the duration in µs. gunicorn's begin again at zero after a day;
#: a WebSocket can live longer, so these do not.
_FROM_NUMBERS: dict[str, Callable[[int | None, int], Any]] = {
    "b": lambda sent, took: "-" if sent is None else str(sent),
    "B": lambda sent, took: sent,
    "T": lambda sent, took: took // 1_000_000,
    "D": lambda sent, took: took,
    "M": lambda sent, took: took // 1000,
    "L": lambda sent, took: f"{took // 1_000_000}.{took % 1_000_000:06}",
}

#: The fields among them. Names with an underscore are in a scope if the configuration lets them in.
_FIELDS = {b"referer": "f", b"user-agent": "a", b"user_agent": "a", b"authorization": "u"}

_KEY = re.compile(r"%\(([^)]*)\)")


class AccessLog:
    """``log.access()`` of gunicorn's own logger, at a fraction of its cost."""

    def __init__(self, log: Any, cfg: Any) -> None:
        self.log = log
        self.logger: logging.Logger = log.access_log
        self.format: str = cfg.access_log_format
        keys = set(_KEY.findall(self.format))
        self.from_environ = [(key, name) for key, name in _FROM_ENVIRON.items() if key in keys]
        self.from_numbers = [(key, number) for key, number in _FROM_NUMBERS.items() if key in keys]
        self.fields = {name: key for name, key in _FIELDS.items() if key in keys}
        self.request_names = [(key, name.encode()) for key, name in _names(keys, "i")]
        self.response_names = [(key, name.encode()) for key, name in _names(keys, "o")]
        self.environ_names = _names(keys, "e")
        self.needs_environ = bool(self.environ_names) or not keys.isdisjoint("mUqH")
        #: "-" is shown for an atom that is missing, and for one that there is not
        self.constants: dict[str, Any] = dict.fromkeys(keys, "-") | {"p": f"<{os.getpid()}>"}
        self.line = _line_of_call(glogging.Logger.access, "info")
        self.record: dict[str, Any] | None = None
        self.second = 0

    def __call__(self, exchange: Exchange) -> None:
        """Write the line. Raises nothing but :class:`~.errors.WorkerExit`."""
        try:
            if self.logger.isEnabledFor(logging.INFO):
                now = time.time()
                if int(now) != self.second:
                    self._tick(int(now))
                self._emit(self.atoms(exchange, int((time.monotonic() - exchange.started_at) * 1e6)), now)
        except WorkerExit:
            raise
        except BaseException:  # of any kind: the connection has to go on
            self.log.error(traceback.format_exc())

    def atoms(self, exchange: Exchange, took: int) -> Atoms:
        """The atoms of the format; ``took`` in µs."""
        scope = exchange.scope
        atoms = Atoms(self.constants)
        atoms.source = (self, exchange, took)
        atoms["s"] = f"{exchange.status}"
        sent = exchange.sent
        for key, number in self.from_numbers:
            atoms[key] = number(sent, took)
        if self.needs_environ or ENVIRON in scope:
            self._read_environ(atoms, _environ(scope))
        else:
            self._read_scope(atoms, scope)
        # Of names that come more than once the last is shown, as gunicorn does it.
        if self.request_names:
            _show(atoms, self.request_names, dict(scope["headers"]))
        if self.response_names:
            _show(atoms, self.response_names, {name.lower(): value for name, value in exchange.headers})
        return atoms

    def _read_environ(self, atoms: Atoms, environ: dict[str, Any]) -> None:
        atoms["r"] = _escaped(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}")
        _show(atoms, self.from_environ, environ)
        if self.environ_names:
            _show(atoms, self.environ_names, {name.lower(): value for name, value in environ.items()})
        if b"authorization" in self.fields and "HTTP_AUTHORIZATION" in environ:
            atoms["u"] = _escaped(self.log._get_user(environ) or "-")

    def _read_scope(self, atoms: Atoms, scope: Scope) -> None:
        """The same without an environ, which takes longer to make than everything else here."""
        client, fields = scope["client"], self.fields
        atoms["h"] = "" if client is None else client[0]
        method, target = scope.get("method", "GET"), scope["hybridworker.target"].decode("latin-1")
        atoms["r"] = f"{method} {target} HTTP/{scope['http_version']}".replace('"', '\\"')
        found: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in fields:
                key, text = fields[name], value.decode("latin-1")
                found[key] = f"{found[key]},{text}" if key in found else text
        for key, text in found.items():
            if key == "u":
                text = self.log._get_user({"HTTP_AUTHORIZATION": text}) or "-"
            atoms[key] = text.replace('"', '\\"')

    def all_atoms(self, exchange: Exchange, took: int) -> dict[str, Any]:
        """Every atom, made by gunicorn at its own cost."""
        environ, duration = _environ(exchange.scope), timedelta(microseconds=took)
        atoms = self.log.atoms(ResponseView(exchange), RequestView(exchange.scope), environ, duration)
        return glogging.SafeAtoms({**atoms, "t": self.constants["t"]})  # type: ignore[no-any-return]  # is untyped

    def _tick(self, second: int) -> None:
        """A second has begun: write down its time, and make the record that those of this second are copied from."""
        self.second = second
        self.constants["t"] = self.log.now()
        # Whoever has replaced the factory or the method wants to see each record made.
        genuine = logging.getLogRecordFactory() is logging.LogRecord and _genuine(self.logger.makeRecord, logging)
        self.record = vars(self._make_record(())) if genuine else None

    def _make_record(self, args: Any) -> logging.LogRecord:
        code = glogging.Logger.access.__code__
        where = (code.co_filename, self.line)
        return self.logger.makeRecord(self.logger.name, logging.INFO, *where, self.format, args, None, code.co_name)

    def _emit(self, atoms: Atoms, now: float) -> None:
        if self.record is None:
            record = self._make_record((atoms,))
        else:
            # LogRecord.__init__ takes as long as all the atoms, to find out again what seldom changes.
            record = logging.LogRecord.__new__(logging.LogRecord)
            record.__dict__ = fields = self.record.copy()
            fields["args"] = atoms
            fields["relativeCreated"] += (now - fields["created"]) * 1000
            fields["created"] = now
            fields["msecs"] = int(now % 1 * 1000) + 0.0
            if "taskName" in fields:  # since Python 3.12
                task = asyncio.current_task()
                fields["taskName"] = None if task is None else task.get_name()
        self.logger.handle(record)


def _environ(scope: Scope) -> dict[str, Any]:
    """The WSGI application's own environ, or what it would have been given for this scope."""
    environ: dict[str, Any] | None = scope.get(ENVIRON)
    if environ is None:
        environ = request_environ(scope)
        environ["SERVER_SOFTWARE"] = SERVER_SOFTWARE
        environ["wsgi.url_scheme"] = _SCHEMES.get(scope["scheme"], scope["scheme"])
    return environ


def _names(keys: Iterable[str], kind: str) -> list[tuple[str, str]]:
    """The atoms ``{name}kind`` among ``keys``, each with its name in lower case."""
    return [(key, key[1:-2].lower()) for key in keys if key[:1] == "{" and key[-2:].lower() == "}" + kind]


def _show(atoms: Atoms, names: list[tuple[str, _Name]], values: Mapping[_Name, Any]) -> None:
    for key, name in names:
        if name in values:
            atoms[key] = _escaped(_text(values[name]) if isinstance(name, bytes) else values[name])


def _escaped(value: Any) -> Any:
    return value.replace('"', '\\"') if isinstance(value, str) else value


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _line_of_call(function: FunctionType, name: str) -> int:
    """The line in which ``function`` calls the method ``name``: what a record made there shows as its own."""
    found = (item.positions for item in dis.get_instructions(function) if item.argval == name)
    return next((place.lineno for place in found if place and place.lineno), function.__code__.co_firstlineno)


def _genuine(method: object, module: ModuleType) -> bool:
    """Whether ``method`` is defined in ``module``: neither overridden, nor patched, nor wrapped."""
    function = getattr(method, "__func__", None)
    return type(function) is FunctionType and function.__code__.co_filename == module.__file__
