"""
The access log: one ``log.access()`` of gunicorn's logger for each finished request.

:func:`access_writer` makes what writes the line of an :class:`Exchange`. :class:`AccessLog` replaces gunicorn's own
method: it computes only what the format uses, and must produce exactly the same record, for the same logger, whatever
handlers, filters and formatters are attached. A logger class that changes any of it gets the call as it is.

Lines are written on the event loop. Invariant: nothing of a handler is kept between two lines, because SIGUSR1 and
the user's logging configuration replace handlers at any time.
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
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gunicorn import glogging
from gunicorn.instrument import statsd

from ..asgi import Headers, Scope
from ..config.settings import Settings
from ..errors import WorkerExit
from .skip import Muffler, SkippedPaths
from .views import ENVIRON, Answer, RequestView, ResponseView, environ_of, text

if TYPE_CHECKING:
    from .jsonline import JSONLine

_Name = TypeVar("_Name", str, bytes)


class Exchange(Answer, Protocol):
    """A finished request: :class:`~.cycle.RequestResponseCycle`, a WebSocket, or :class:`Refused`."""

    scope: Scope
    #: ``time.monotonic()`` at the beginning; ``loop.time()`` of uvloop is the same clock, but in whole milliseconds
    started_at: float


class Refused:
    """The exchange of a request that never reached the application; ``scope`` is what was known of it by then."""

    reason: bytes | None = None
    sent: int | None = 0

    def __init__(self, scope: Scope, status: int, started_at: float, headers: Headers | None = None) -> None:
        self.scope = scope
        self.status = status
        self.headers: Headers = headers or []
        self.started_at = started_at


Writer = Callable[[Exchange], None]


def access_writer(log: Any, cfg: Any, settings: Settings | None = None) -> Writer | None:
    """
    Return the function to call with every finished request, or None when there is no access log.

    ``log`` is gunicorn's logger, of whatever class. Without ``settings`` none of our own are looked at. Invariant:
    this is called in the worker's process, not in the master, because its id is in the lines.
    """
    counts = _genuine(log.access, statsd) or isinstance(log, statsd.Statsd)  # what it logs, it counts as well
    if _genuine(log.access, glogging) and not log.access_log_enabled:
        return None
    calling = _calling(log)
    write: Writer = calling
    if settings is not None and settings.access_json is not None:
        if _logs_plainly(log) and (_genuine(log.access, glogging) or _genuine(log.access, statsd)):
            from .jsonline import JSONLine  # few logs are JSON

            line = JSONLine(settings.access_json, log._get_user, identified=settings.request_id != b"")
            write = AccessLog(log, cfg, line)
            if counts:
                write = _counting(write, calling, log)
        else:
            name = type(log).__qualname__
            log.warning("HYBRIDWORKER_ACCESS_JSON has no effect: logger_class %s makes the lines itself", name)
    elif _plain(log) and _genuine(log.access, glogging):
        write = AccessLog(log, cfg)
    if settings is None or not settings.access_skip:
        return write
    return _skipping(SkippedPaths(settings.access_skip), write, _muffled(calling, log) if counts else None)


def _plain(log: Any) -> bool:
    """Whether whatever ``log.access()`` of gunicorn asks is gunicorn's as well."""
    return (
        _logs_plainly(log)
        and all(_genuine(getattr(log, name, None), glogging) for name in ("now", "_get_user"))
        and log.atoms_wrapper_class is glogging.SafeAtoms
    )


def _logs_plainly(log: Any) -> bool:
    """Whether the atoms are gunicorn's, and no logger of another kind is asked to write: all that JSON needs."""
    return _genuine(getattr(log, "atoms", None), glogging) and type(log.access_log) is logging.Logger


def _muffled(write: Writer, log: Any) -> Writer:
    """``write``, of which nothing is logged."""
    muffler = Muffler(log.access_log)
    return lambda exchange: muffler.call(write, exchange)


def _counting(write: Writer, calling: Writer, log: Any) -> Writer:
    """``write``, if there is an access log, and the counting of gunicorn's statsd, without a line of its own."""
    count = _muffled(calling, log)
    if not log.access_log_enabled:
        return count

    def both(exchange: Exchange) -> None:
        write(exchange)
        count(exchange)

    return both


def _skipping(skipped: SkippedPaths, write: Writer, count: Writer | None) -> Writer:
    """``write`` but for the requests that are ``skipped``: these are only counted, where ``count`` does so."""

    def skip(exchange: Exchange) -> None:
        if not skipped.skips(exchange.scope, exchange.status or 0):
            write(exchange)
        elif count is not None:
            count(exchange)

    return skip


def _calling(log: Any) -> Writer:
    """Have ``log.access()`` of any class write, as gunicorn's own workers do."""

    def write(exchange: Exchange) -> None:
        try:
            took = timedelta(microseconds=int((time.monotonic() - exchange.started_at) * 1e6))
            scope = exchange.scope
            log.access(ResponseView(exchange), RequestView(scope), environ_of(scope), took)
        except WorkerExit:
            raise
        except BaseException:  # of any kind: the connection has to go on
            log.exception("Exception in the access log")

    return write


#: The atom that is a whole line of JSON.
LINE = "json"


class Atoms(dict[str, Any]):
    """
    The atoms of one line: those of the format, and all of gunicorn's once a formatter or filter asks for others.

    Formatting the line only uses ``atoms[key]``. Any other method that would show that some atoms are missing (``in``,
    ``len``, iteration, ``get`` and so on) first fills in all of them.
    """

    __slots__ = ("source",)

    source: tuple[AccessLog, Exchange, int] | dict[str, Any]

    def __bool__(self) -> bool:
        return True  # logging asks this of every record, and would have it filled

    def __missing__(self, key: str) -> Any:
        return self.fill()[key]

    def fill(self) -> dict[str, Any]:
        """Take all of gunicorn's atoms, and return them."""
        source = self.source
        if isinstance(source, tuple):
            writer, exchange, took = source
            self.source = source = writer.all_atoms(exchange, took)
            line = dict.get(self, LINE)
            self.clear()
            self.update(source)
            if line is not None:
                self[LINE] = line
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
    """
    ``log.access()`` of gunicorn's own logger, in 9 us instead of 36.

    With ``json`` the line is what that makes; all else of the record stays as it is.
    """

    def __init__(self, log: Any, cfg: Any, json: JSONLine | None = None) -> None:
        self.log = log
        self.logger: logging.Logger = log.access_log
        self.json = json
        self.format: str = cfg.access_log_format if json is None else f"%({LINE})s"
        keys = set(_KEY.findall(self.format))
        self.from_environ = [(key, name) for key, name in _FROM_ENVIRON.items() if key in keys]
        self.from_numbers = [(key, number) for key, number in _FROM_NUMBERS.items() if key in keys]
        self.fields = {name: key for name, key in _FIELDS.items() if key in keys}
        self.request_names = [(key, name.encode()) for key, name in _names(keys, "i")]
        self.response_names = [(key, name.encode()) for key, name in _names(keys, "o")]
        self.environ_names = _names(keys, "e")
        self.needs_environ = bool(self.environ_names) or not keys.isdisjoint("mUqH")
        #: "-" is shown for an atom without a value, and for one that does not exist
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
                took = int((time.monotonic() - exchange.started_at) * 1e6)
                if self.json is None:
                    atoms = self.atoms(exchange, took)
                else:
                    atoms = Atoms()
                    atoms.source = (self, exchange, took)
                    atoms[LINE] = self.json.line(exchange, took, now)
                self._emit(atoms, now)
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
            self._read_environ(atoms, environ_of(scope))
        else:
            self._read_scope(atoms, scope)
        # Of a field that is repeated the last is shown, as by gunicorn.
        if self.request_names:
            _show(atoms, self.request_names, dict(scope["headers"]))
        if self.response_names:
            _show(atoms, self.response_names, {name.lower(): value for name, value in exchange.headers})
        return atoms

    def _read_environ(self, atoms: Atoms, environ: dict[str, Any]) -> None:
        """Fill in what depends on the request."""
        atoms["r"] = _escaped(f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} {environ['SERVER_PROTOCOL']}")
        _show(atoms, self.from_environ, environ)
        if self.environ_names:
            _show(atoms, self.environ_names, {name.lower(): value for name, value in environ.items()})
        if b"authorization" in self.fields and "HTTP_AUTHORIZATION" in environ:
            atoms["u"] = _escaped(self.log._get_user(environ) or "-")

    def _read_scope(self, atoms: Atoms, scope: Scope) -> None:
        """Do the same without an environ, which takes longer to make than everything else here."""
        client, fields = scope["client"], self.fields
        atoms["h"] = "" if client is None else client[0]
        method, target = scope.get("method", "GET"), scope["hybridworker.target"].decode("latin-1")
        atoms["r"] = f"{method} {target} HTTP/{scope['http_version']}".replace('"', '\\"')
        found: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in fields:
                key, shown = fields[name], value.decode("latin-1")
                found[key] = f"{found[key]},{shown}" if key in found else shown
        for key, shown in found.items():
            if key == "u":
                shown = self.log._get_user({"HTTP_AUTHORIZATION": shown}) or "-"
            atoms[key] = shown.replace('"', '\\"')

    def all_atoms(self, exchange: Exchange, took: int) -> dict[str, Any]:
        """Every atom, made by gunicorn at its own cost."""
        environ, duration = environ_of(exchange.scope), timedelta(microseconds=took)
        atoms = self.log.atoms(ResponseView(exchange), RequestView(exchange.scope), environ, duration)
        return glogging.SafeAtoms({**atoms, "t": self.constants["t"]})  # type: ignore[no-any-return]  # is untyped

    def _tick(self, second: int) -> None:
        """A second has begun: format its time, and make the record from which those of this second are copied."""
        self.second = second
        self.constants["t"] = self.log.now()
        # A factory or a method that was replaced wants to make each record.
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
            # LogRecord.__init__ finds out again what seldom changes: with it a line takes 12.0 us, with a copy 9.0.
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


def _names(keys: Iterable[str], kind: str) -> list[tuple[str, str]]:
    """The atoms ``{name}kind`` among ``keys``, each with its name in lower case."""
    return [(key, key[1:-2].lower()) for key in keys if key[:1] == "{" and key[-2:].lower() == "}" + kind]


def _show(atoms: Atoms, names: list[tuple[str, _Name]], values: Mapping[_Name, Any]) -> None:
    for key, name in names:
        if name in values:
            atoms[key] = _escaped(text(values[name]) if isinstance(name, bytes) else values[name])


def _escaped(value: Any) -> Any:
    return value.replace('"', '\\"') if isinstance(value, str) else value


def _line_of_call(function: FunctionType, name: str) -> int:
    """The line in which ``function`` calls the method ``name``: what a record made there shows as its own."""
    found = (item.positions for item in dis.get_instructions(function) if item.argval == name)
    return next((place.lineno for place in found if place and place.lineno), function.__code__.co_firstlineno)


def _genuine(method: object, module: ModuleType) -> bool:
    """Whether ``method`` is defined in ``module``: neither overridden, nor patched, nor wrapped."""
    function = getattr(method, "__func__", None)
    return type(function) is FunctionType and function.__code__.co_filename == module.__file__
