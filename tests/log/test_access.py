"""The access log and the hooks, with gunicorn's own logger, parser and environ as the oracle."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn import glogging
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser
from gunicorn.instrument.statsd import Statsd

from hybridworker.errors import WorkerExit
from hybridworker.log import access as accesslog
from hybridworker.log.access import ENVIRON, AccessLog, Refused, RequestHooks, RequestView, ResponseView, access_writer
from tests.fakes import FakeLog

ATOMS = ["h", "l", "u", "t", "r", "s", "m", "U", "q", "H", "b", "B", "f", "a", "T", "D", "M", "L", "p"]
NAMED = [
    "{user-agent}i",
    "{User-Agent}i",
    "{X-A}I",
    "{x_under}i",
    "{none}i",
    "{näme€}i",
    "{content-type}o",
    "{SET-COOKIE}o",
    "{none}o",
    "{HTTP_HOST}e",
    "{http_x_a}e",
    "{path_info}e",
    "{remote_port}e",
    "{wsgi.url_scheme}e",
    "{SERVER_SOFTWARE}e",
    "{none}e",
    "{x-a}z",
    "{",
    "Z",
]
DEFAULT = Config().access_log_format
ODD = [
    "",
    "no atom at all",
    "100%% %(s)s",
    "%%(h)s",
    "%(a)s %(a)s",
    "%(D)012d|%(h)20s|%(h)-20s|%(m).2s",
    '%(h)s "%({referer}i)s" %({referer}i)r',
    '{"time": "%(t)s", "line": "%(r)s", "agent": "%(a)s", "id": "%({x-a}i)s"}',
    "%((h))s",
]

WRONG = ["%(s)d is no number", "%(h)s %", "%(h"]

REQUESTS = {
    "plain": b"GET /a/b?x=1&y=%20 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8\r\nReferer: http://e/\r\n\r\n",
    "bare": b"GET / HTTP/1.0\r\n\r\n",
    "quotes": b'POST /"q"?"=" HTTP/1.1\r\nHost: e\r\nUser-Agent: a "b" \\"\r\nReferer: "\r\nX-A: "x"\r\n\r\n',
    "encoded": b"GET /caf%C3%A9/%ff%0A?%C3%A9 HTTP/1.1\r\nHost: e\r\nUser-Agent: caf\xe9\r\n\r\n",
    "user": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Basic am\xc3\xb6\r\nAuthorization: Bearer x\r\n\r\n",
    "basic": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: bASIC YWwiYWRkaW46c2VzYW1l\r\n\r\n",
    "bearer": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer abc\r\n\r\n",
    "not base64": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Basic a\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nHost: e\r\nX-A: 1\r\nUser-Agent: -\r\nX-A: 2\r\nUser-Agent: b\r\n\r\n",
    "underscores": b"GET / HTTP/1.1\r\nHost: e\r\nUser_Agent: a\r\nX_Under: b\r\nUser-Agent: c\r\n\r\n",
}
CLIENTS: dict[str, Any] = {"ipv4": ("192.0.2.7", 40000), "ipv6": ("2001:db8::7", 40000), "unix": ""}
RESPONSES: list[tuple[int, bytes | None, list[tuple[bytes, bytes]], int | None]] = [
    (200, None, [(b"content-type", b"text/plain"), (b"Content-Length", b"2")], 2),
    (204, None, [], 0),
    (299, b"Custom Reason", [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b'b="\xe9"')], 123456789),
    (799, None, [(b"Content-Type", b"")], None),
]


class Exchange:
    """What the worker hands to the log."""

    def __init__(
        self, scope: Any, status: int = 200, reason: bytes | None = None, headers: Any = (), sent: int | None = 0
    ) -> None:
        self.scope = scope
        self.status = status
        self.reason = reason
        self.headers = list(headers)
        self.sent = sent
        self.started_at = 0.0


def scope_of(request: bytes, client: Any = CLIENTS["ipv4"], **changes: Any) -> dict[str, Any]:
    """The scope of a request, by hand."""
    line, *fields = request.split(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, protocol = line.split(b" ")
    raw_path, _, query = target.partition(b"?")
    pairs = [field.split(b": ", 1) for field in fields]
    return {
        "type": "http",
        "http_version": protocol[5:].decode(),
        "method": method.decode(),
        "scheme": "http",
        "path": raw_path.decode(),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in pairs],
        "client": client or None,
        "server": ("127.0.0.1", 8000),
        "hybridworker.target": target,
    } | changes


def of_gunicorn(request: bytes, client: Any, cfg: Config) -> tuple[Any, Any, dict[str, Any]]:
    """Request, response and environ as gunicorn's threaded worker makes them."""
    req = next(RequestParser(cfg, iter([request]), client))
    resp, environ = wsgi.create(req, None, client, ("127.0.0.1", 8000), cfg)
    return req, resp, environ


class Bench:
    """A gunicorn logger that writes to files, and its configuration."""

    def __init__(self, tmp_path: Path) -> None:
        self.cfg = Config()
        self.access = tmp_path / "access.log"
        self.errors = tmp_path / "error.log"
        self.set(accesslog=str(self.access), errorlog=str(self.errors), header_map="dangerous")

    def set(self, **settings: Any) -> None:
        for name, value in settings.items():
            self.cfg.set(name, value)

    def logger(self, kind: type[Any] = glogging.Logger, **settings: Any) -> Any:
        self.set(**settings)
        log = kind(self.cfg)
        for handler in list(log.access_log.handlers):
            if not hasattr(handler, "_gunicorn"):  # pytest's own, which raises what other handlers report
                log.access_log.removeHandler(handler)
        return log

    def writer(self, kind: type[Any] = glogging.Logger, **settings: Any) -> Callable[[Any], None]:
        writer = access_writer(self.logger(kind, **settings), self.cfg)
        assert writer is not None
        return writer

    def lines(self) -> list[str]:
        return self.access.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Loggers are global: whatever a test attaches to them is taken off again."""
    yield Bench(tmp_path)
    for name in ("gunicorn.access", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.filters.clear()
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()


class Clock:
    """The clocks that the module reads; durations are exact."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25
        self.elapsed = 3725.015625

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.elapsed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still until it is moved; gunicorn's time of day says always the same."""
    clock = Clock()
    monkeypatch.setattr(accesslog, "time", clock)
    monkeypatch.setattr(time, "strftime", lambda *args: "[then]")
    return clock


def write(writer: Callable[[Any], None], *exchanges: Any) -> None:
    """Write lines as the worker does, on a loop."""

    async def main() -> None:
        for exchange in exchanges:
            writer(exchange)

    asyncio.run(main())


# -- the line


@pytest.mark.parametrize("text", [f"%({atom})s" for atom in ATOMS + NAMED] + [DEFAULT, *ODD])
def test_the_line_is_gunicorns_line(text: str, bench: Bench, clock: Clock) -> None:
    """For every atom, request and response the line equals that of the threaded worker, byte for byte."""
    bench.set(access_log_format=text)
    log = bench.logger()
    writer = access_writer(log, bench.cfg)
    assert isinstance(writer, AccessLog)
    seconds = timedelta(seconds=clock.elapsed)
    exchanges, calls = [], []
    pairs = [(request, CLIENTS["ipv4"]) for request in REQUESTS.values()]
    pairs += [(REQUESTS["plain"], client) for client in CLIENTS.values()]
    for request, client in pairs:
        for status, reason, headers, sent in RESPONSES:
            exchanges.append(Exchange(scope_of(request, client), status, reason, headers, sent))
            req, resp, environ = of_gunicorn(request, client, bench.cfg)
            resp.status = ResponseView(exchanges[-1]).status
            resp.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
            resp.sent = sent
            calls.append((resp, req, environ, seconds))
    write(writer, *exchanges)
    ours = bench.lines()
    assert len(ours) >= len(calls)  # some of the values hold a line end, and gunicorn writes it as it is
    for call in calls:
        log.access(*call)
    assert bench.lines()[len(ours) :] == ours
    assert bench.errors.read_text() == ""


@pytest.mark.parametrize("text", WRONG)
def test_a_format_that_python_refuses_is_reported_as_gunicorn_does(
    text: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line, and a report of the logging package on stderr; the request is not harmed."""
    log = bench.logger(access_log_format=text)
    writer = access_writer(log, bench.cfg)
    assert isinstance(writer, AccessLog)
    exchange = Exchange(scope_of(REQUESTS["plain"]))
    write(writer, exchange)
    ours = capsys.readouterr().err
    environ = accesslog._environ(exchange.scope)
    log.access(ResponseView(exchange), RequestView(exchange.scope), environ, timedelta(seconds=1))
    theirs = capsys.readouterr().err
    assert bench.lines() == []
    error = ours[: ours.index("Call stack:")].splitlines()
    assert error == theirs[: theirs.index("Call stack:")].splitlines()
    assert error[0] == "--- Logging error ---"


@pytest.mark.parametrize(
    "text", [DEFAULT, "%(h)s %(U)s", "%({remote_addr}e)s %({app.KEY}e)s %({none}e)s", "%(u)s %(m)s"]
)
@pytest.mark.parametrize("authorization", ["basic eDp5", "basic Onk=", "bearer eDp5"])
def test_what_a_wsgi_application_wrote_into_its_environ_shows(
    authorization: str, text: str, bench: Bench, clock: Clock
) -> None:
    """Middleware that corrects the environ in place is believed, as by gunicorn's own workers."""
    log = bench.logger(access_log_format=text)
    writer = access_writer(log, bench.cfg)
    assert isinstance(writer, AccessLog)
    changes = {
        "REMOTE_ADDR": '198.51.100.1"',
        "app.key": 7,
        "APP.KEY": 8,
        "none": None,
        "HTTP_AUTHORIZATION": authorization,
    }
    request = REQUESTS["plain"]
    req, resp, environ = of_gunicorn(request, CLIENTS["ipv4"], bench.cfg)
    environ.update(changes)
    resp.status, resp.sent = "200 OK", 5
    log.access(resp, req, environ, timedelta(seconds=clock.elapsed))
    write(writer, Exchange(scope_of(request, **{ENVIRON: environ}), sent=5))
    first, second = bench.lines()
    assert first == second


def test_a_websocket_is_a_get_that_was_answered_with_101(bench: Bench, clock: Clock) -> None:
    """The scope of a WebSocket has no method and a scheme of its own; a day and more is shown as it is."""
    writer = bench.writer(access_log_format="%(r)s %(m)s %(s)s %(b)s %(T)s %(D)s %(M)s %(L)s %({wsgi.url_scheme}e)s")
    scope = scope_of(b"GET /ws HTTP/1.1\r\nHost: e\r\n\r\n", type="websocket", scheme="wss")
    del scope["method"]
    clock.elapsed = 90061.5
    write(writer, Exchange(scope, 101, sent=None))
    assert bench.lines() == ["GET /ws HTTP/1.1 GET 101 - 90061 90061500000 90061500 90061.500000 https"]


def test_a_refused_request_has_a_line(bench: Bench, clock: Clock) -> None:
    """What was known of a request when it was refused is in its line."""
    scope = scope_of(b"GET /a HTTP/1.1\r\nHost: e\r\nUser-Agent: x\r\n\r\n")
    write(bench.writer(), Refused(scope, 400, clock.elapsed))
    assert bench.lines() == ['192.0.2.7 - - [then] "GET /a HTTP/1.1" 400 0 "-" "x"']


# -- the record


class Recorder(logging.Handler):
    """Keeps the records, or does with each what it is told."""

    def __init__(self, each: Callable[[logging.LogRecord], Any] = lambda record: record) -> None:
        super().__init__()
        self.each = each
        self.seen: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(self.each(record))


def both(bench: Bench, clock: Clock, recorder: Recorder, exchange: Exchange, text: str = DEFAULT) -> list[Any]:
    """What ``recorder`` sees of our line and of gunicorn's own for the same exchange."""
    log = bench.logger(access_log_format=text)
    log.access_log.addHandler(recorder)
    writer = access_writer(log, bench.cfg)
    assert isinstance(writer, AccessLog)

    async def main() -> None:
        writer(exchange)
        environ = accesslog._environ(exchange.scope)
        duration = timedelta(seconds=clock.elapsed)
        log.access(ResponseView(exchange), RequestView(exchange.scope), environ, duration)

    asyncio.run(main())
    return recorder.seen


def test_the_record_is_gunicorns_record(bench: Bench, clock: Clock) -> None:
    """Handlers, filters and formatters find in the record what they find in gunicorn's."""
    ours, theirs = both(bench, clock, Recorder(), Exchange(scope_of(REQUESTS["plain"])))
    assert ours.getMessage() == theirs.getMessage()
    assert vars(ours).keys() == vars(theirs).keys()
    # gunicorn's own line number is that of a statement inside the same function.
    for name in vars(ours).keys() - {"args", "created", "msecs", "relativeCreated"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.created == clock.now
    assert ours.msecs == 250.0
    expected = theirs.relativeCreated + (ours.created - theirs.created) * 1000
    assert ours.relativeCreated == pytest.approx(expected, abs=1)


def test_a_record_made_outside_of_a_task_has_no_task_name(bench: Bench) -> None:
    """A line written by a callback of the loop names no task."""
    recorder = Recorder(lambda record: getattr(record, "taskName", None))
    log = bench.logger()
    log.access_log.addHandler(recorder)
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    loop = asyncio.new_event_loop()
    loop.call_soon(writer, Exchange(scope_of(REQUESTS["plain"])))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert recorder.seen == [None]
    write(writer, Exchange(scope_of(REQUESTS["plain"])))
    assert (recorder.seen[1] is None) is (sys.version_info < (3, 12))


def test_a_record_has_a_task_name_only_where_python_gives_it_one(bench: Bench, clock: Clock) -> None:
    """Records of Python 3.11 have no such attribute."""
    recorder = Recorder()
    log = bench.logger()
    log.access_log.addHandler(recorder)
    writer = access_writer(log, bench.cfg)
    assert isinstance(writer, AccessLog)
    exchange = Exchange(scope_of(REQUESTS["plain"]))
    write(writer, exchange)
    assert writer.record is not None
    writer.record.pop("taskName", None)
    write(writer, exchange)
    assert not hasattr(recorder.seen[1], "taskName")


LOOKS: list[Callable[[Any], Any]] = [
    lambda args: args["U"],
    lambda args: args["{X-A}i"],
    lambda args: args["{http_x_a}e"],
    lambda args: args["no such atom"],
    lambda args: (args["a"], args["D"], args["a"]),
    lambda args: (args.get("h"), args.get("{x-a}i"), args.get("{X-A}i"), args.get("Z", 3)),
    lambda args: ("m" in args, "Z" in args),
    lambda args: sorted(args),
    lambda args: len(args),
    lambda args: dict(args),
    lambda args: {**args},
    lambda args: list(args.keys()),
    lambda args: list(args.items()),
    lambda args: len(list(args.values())),
    lambda args: args.copy(),
    lambda args: repr(args),
    lambda args: args | {"extra": 1},
    lambda args: args == dict(args),
    lambda args: bool(args),
]


@pytest.mark.parametrize("look", LOOKS)
def test_a_formatter_may_look_at_any_atom(look: Callable[[Any], Any], bench: Bench, clock: Clock) -> None:
    """``record.args`` answers as gunicorn's atoms do, whatever the format uses."""
    recorder = Recorder(lambda record: look(record.args))
    ours, theirs = both(bench, clock, recorder, Exchange(scope_of(REQUESTS["quotes"]), sent=3), text="%(h)s %(Z)s")
    assert ours == theirs


def test_only_the_atoms_of_the_format_are_computed(bench: Bench) -> None:
    """Nothing is made of a request that the line does not show."""
    writer = bench.writer(access_log_format="%(s)s %(b)s")
    scope = scope_of(REQUESTS["plain"])
    scope["headers"] = []
    del scope["raw_path"]  # what PATH_INFO and the views are made from
    write(writer, Exchange(scope, sent=5))
    assert bench.lines() == ["200 5"]


def test_whoever_replaced_the_record_factory_sees_each_record(bench: Bench) -> None:
    """Tracing libraries put their ids into records by a factory of their own."""
    original, made = logging.getLogRecordFactory(), []

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(*args, **kwargs)
        made.append(record)
        return record

    recorder = Recorder()
    log = bench.logger()
    log.access_log.addHandler(recorder)
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    logging.setLogRecordFactory(factory)
    try:
        write(writer, *(Exchange(scope_of(REQUESTS["plain"])) for _ in range(3)))
    finally:
        logging.setLogRecordFactory(original)
    assert len(recorder.seen) == 3
    assert all(record in made for record in recorder.seen)
    assert len(bench.lines()) == 3


def test_whoever_patched_make_record_sees_each_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for those that patch the method of the logger."""
    original = logging.Logger.makeRecord

    def patched(self: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(self, *args, **kwargs)
        record.trace = object()
        return record

    monkeypatch.setattr(logging.Logger, "makeRecord", patched)
    recorder = Recorder()
    log = bench.logger()
    log.access_log.addHandler(recorder)
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    write(writer, *(Exchange(scope_of(REQUESTS["plain"])) for _ in range(2)))
    first, second = recorder.seen
    assert first.trace is not second.trace


# -- over time


def test_the_time_is_formatted_once_a_second(bench: Bench, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of one second share their time of day; the next second has its own."""
    times = iter(["[first]", "[second]"])
    monkeypatch.setattr(time, "strftime", lambda *args: next(times))
    writer = bench.writer(access_log_format="%(t)s")
    exchange = Exchange(scope_of(REQUESTS["plain"]))
    write(writer, exchange, exchange)
    clock.now += 0.75
    write(writer, exchange)
    assert bench.lines() == ["[first]", "[first]", "[second]"]


def test_the_time_is_that_of_the_common_log_format(bench: Bench) -> None:
    """With the real clock the time of day is now."""
    before = int(time.time())
    write(bench.writer(access_log_format="%(t)s"), Exchange(scope_of(REQUESTS["plain"])))
    (line,) = bench.lines()
    written = time.mktime(time.strptime(line[1:21], "%d/%b/%Y:%H:%M:%S"))
    assert before <= written <= time.time()
    assert re.fullmatch(r"\[.{20} [+-]\d{4}\]", line)


def test_lines_go_to_the_reopened_file(bench: Bench) -> None:
    """After SIGUSR1, which makes gunicorn reopen its files, the writer goes on into the new one."""
    log = bench.logger(access_log_format="%(s)s")
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    write(writer, Exchange(scope_of(REQUESTS["plain"]), 200))
    rotated = bench.access.rename(bench.access.with_suffix(".1"))
    log.reopen_files()
    write(writer, Exchange(scope_of(REQUESTS["plain"]), 404))
    assert (rotated.read_text(), bench.access.read_text()) == ("200\n", "404\n")


def test_a_level_above_info_silences_the_log(bench: Bench) -> None:
    """The logger's level is obeyed, also when it is changed at run time."""
    log = bench.logger(access_log_format="%(s)s")
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    log.access_log.setLevel(logging.WARNING)
    write(writer, Exchange(scope_of(REQUESTS["plain"]), 200))
    log.access_log.setLevel(logging.INFO)
    write(writer, Exchange(scope_of(REQUESTS["plain"]), 201))
    assert bench.lines() == ["201"]


def test_a_filter_of_the_users_is_obeyed(bench: Bench) -> None:
    """The well-known recipe against health checks in the log."""
    log = bench.logger(access_log_format="%(r)s")
    log.access_log.addFilter(lambda record: "/health" not in record.getMessage())
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    for target in (b"/health", b"/other"):
        write(writer, Exchange(scope_of(b"GET " + target + b" HTTP/1.1\r\n\r\n")))
    assert bench.lines() == ["GET /other HTTP/1.1"]


# -- who wants a line


def test_nobody_wants_a_line(bench: Bench) -> None:
    """gunicorn's own logger without an access log: there is nothing to call."""
    assert access_writer(bench.logger(accesslog=None), bench.cfg) is None


def test_a_logging_configuration_wants_lines(bench: Bench) -> None:
    """``logconfig_dict`` alone enables the access log."""
    config = {"version": 1, "disable_existing_loggers": False, "handlers": {}, "loggers": {}, "root": {}}
    log = bench.logger(accesslog=None, logconfig_dict=config)
    assert isinstance(access_writer(log, bench.cfg), AccessLog)


class Overridden(glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
    """A logger class whose ``access()`` is the user's."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self.calls: list[Any] = []

    def access(self, *args: Any) -> None:
        self.calls.append(args)


def test_a_custom_access_method_gets_the_real_call(bench: Bench, clock: Clock) -> None:
    """Once per request, with the objects of gunicorn's threaded worker, with and without an access log."""
    log = bench.logger(Overridden, accesslog=None)
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    headers = [(b"X-B", b"\xe9")]
    write(writer, Exchange(scope_of(REQUESTS["plain"]), 299, b"Custom", headers, 7))
    ((resp, req, environ, duration),) = log.calls
    assert (resp.status, resp.status_code, resp.headers, resp.sent) == ("299 Custom", 299, [("X-B", "é")], 7)
    assert (req.method, req.uri) == ("GET", "/a/b?x=1&y=%20")
    assert (environ["HTTP_USER_AGENT"], environ["SERVER_SOFTWARE"][:9]) == ("curl/8", "gunicorn/")
    assert duration == timedelta(seconds=clock.elapsed)


@pytest.mark.parametrize("name", ["atoms", "now", "_get_user"])
def test_an_overridden_part_of_the_logger_is_used(name: str, bench: Bench) -> None:
    """A logger class that makes its own atoms, time or user is not stood in for."""
    calls = []

    def own(self: Any, *args: Any) -> Any:
        calls.append(name)
        return getattr(glogging.Logger, name)(self, *args)

    kind = type("Own", (glogging.Logger,), {name: own})
    write(bench.writer(kind), Exchange(scope_of(REQUESTS["plain"])))
    assert calls == [name]
    assert len(bench.lines()) == 1


def test_an_own_class_of_atoms_is_used(bench: Bench) -> None:
    """``atoms_wrapper_class`` decides what the line shows."""

    class Shouting(glogging.SafeAtoms):  # type: ignore[misc]  # gunicorn ships no types
        def __getitem__(self, key: str) -> Any:
            return str(super().__getitem__(key)).upper()

    kind = type("Own", (glogging.Logger,), {"atoms_wrapper_class": Shouting})
    write(bench.writer(kind, access_log_format="%(a)s"), Exchange(scope_of(REQUESTS["plain"])))
    assert bench.lines() == ["CURL/8"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("whole_class", [False, True])
def test_a_patched_logger_is_used(
    wrapped: bool, whole_class: bool, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who patches gunicorn's class, or one logger, gets the calls, also with a wrapper that looks like the original."""
    calls: list[Any] = []

    def access(*args: Any) -> None:
        calls.append(args)

    log = bench.logger()
    if wrapped:
        functools.update_wrapper(access, glogging.Logger.access)
    monkeypatch.setattr(glogging.Logger if whole_class else log, "access", access)
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    write(writer, Exchange(scope_of(REQUESTS["plain"])))
    assert len(calls) == 1


def test_a_logger_that_overrides_nothing_of_it_is_stood_in_for(bench: Bench) -> None:
    """A class that only sets the log up in its own way costs nothing."""
    kind = type("Own", (glogging.Logger,), {"setup": lambda self, cfg: glogging.Logger.setup(self, cfg)})
    assert isinstance(bench.writer(kind), AccessLog)


class FakeSocket:
    """Takes the place of the UDP socket of statsd."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data.decode())


@pytest.mark.parametrize("enabled", [True, False])
def test_statsd_gets_its_metrics(enabled: bool, bench: Bench, clock: Clock) -> None:
    """Duration, requests and status are counted with and without an access log, for every kind of exchange."""
    settings = {} if enabled else {"accesslog": None}
    log = bench.logger(Statsd, statsd_host="127.0.0.1:8125", statsd_prefix="app", dogstatsd_tags="tag:1", **settings)
    log.sock.close()
    log.sock = socket = FakeSocket()
    writer = access_writer(log, bench.cfg)
    assert writer is not None
    scope = scope_of(REQUESTS["plain"])
    clock.elapsed = 0.25
    write(writer, Exchange(scope, 200), Refused(scope, 431, 0.0), Exchange(scope, 599, b""))
    assert socket.sent == [
        metric
        for status in (200, 431, 599)
        for metric in (
            "app.gunicorn.request.duration:250.0|ms|#tag:1",
            "app.gunicorn.requests:1|c|@1.0|#tag:1",
            f"app.gunicorn.request.status.{status}:1|c|@1.0|#tag:1",
        )
    ]
    assert len(bench.lines() if enabled else [1, 1, 1]) == 3


def test_a_logger_that_fails_harms_nobody(bench: Bench) -> None:
    """An exception out of a custom ``access()`` is logged, and does not reach the connection."""

    class Failing(glogging.Logger):  # type: ignore[misc]  # gunicorn ships no types
        def access(self, *args: Any) -> None:
            raise ValueError("no access")

    write(bench.writer(Failing), Exchange(scope_of(REQUESTS["plain"])))
    assert "ValueError: no access" in bench.errors.read_text()


def test_a_scope_that_the_application_broke_harms_nobody(bench: Bench) -> None:
    """What cannot be written is an error in the log, and does not reach the connection."""
    write(bench.writer(), Exchange({"type": "http"}))
    assert "KeyError" in bench.errors.read_text()
    assert bench.lines() == []


# -- the request as hooks see it

VIEWED = ["method", "scheme", "uri", "path", "query", "fragment", "headers", "version", "peer_addr", "remote_addr"]


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_view_shows_what_gunicorns_request_shows(request_bytes: bytes, client: Any, bench: Bench) -> None:
    """Each attribute that hooks use equals that of gunicorn's own request object."""
    req, _, _ = of_gunicorn(request_bytes, client, bench.cfg)
    view = RequestView(scope_of(request_bytes, client))
    for name in [*VIEWED, "trailers", "proxy_protocol_info"]:
        assert getattr(view, name) == getattr(req, name), name
    assert view.body is None


def test_the_view_shows_a_proxy_header(bench: Bench) -> None:
    """The addresses of the PROXY protocol are those that gunicorn's request object has."""
    bench.set(proxy_protocol="v1", proxy_allow_ips="*")
    request = REQUESTS["plain"]
    req, _, _ = of_gunicorn(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n" + request, ("10.0.0.1", 5), bench.cfg)
    proxy = {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "192.0.2.1", "PROXY_PORT": "443"}
    view = RequestView(scope_of(request, **{"hybridworker.proxy": proxy}))
    assert view.proxy_protocol_info == req.proxy_protocol_info


# -- hooks

WORKER = SimpleNamespace(log=FakeLog())


def hooks_of(bench: Bench, log: Any = None, **settings: Any) -> RequestHooks:
    bench.set(**settings)
    hooks = RequestHooks.from_gunicorn(bench.cfg, WORKER, log or bench.logger())
    assert hooks is not None
    return hooks


def test_default_hooks_cost_nothing(bench: Bench) -> None:
    """When both hooks are gunicorn's own and would do nothing, there are none."""
    assert RequestHooks.from_gunicorn(bench.cfg, WORKER, bench.logger()) is None


def test_at_debug_level_the_default_hook_logs_the_request(bench: Bench) -> None:
    """gunicorn's own pre_request names method and path in the debug log."""
    log = bench.logger(loglevel="debug")
    hooks = RequestHooks.from_gunicorn(bench.cfg, SimpleNamespace(log=log), log)
    assert hooks is not None
    hooks.before(scope_of(REQUESTS["plain"]))
    assert bench.errors.read_text().endswith("[DEBUG] GET /a/b\n")


def test_a_logger_of_another_kind_decides_about_the_default_hook(bench: Bench) -> None:
    """A logger without gunicorn's ``error_log`` may want the debug line."""
    hooks = hooks_of(bench, log=FakeLog())
    hooks.before(scope_of(REQUESTS["plain"]))
    assert WORKER.log.at("debug")[-1] == "GET /a/b"


def test_pre_request_alone(bench: Bench) -> None:
    """Only the hook that is set is called."""
    calls: list[Any] = []
    hooks = hooks_of(bench, pre_request=lambda worker, req: calls.append((worker, req)))
    view = hooks.before(scope_of(REQUESTS["plain"]))
    hooks.after(view, {}, None)
    assert calls == [(WORKER, view)]
    assert hooks.post is None


@pytest.mark.parametrize(
    ("hook", "arity"),
    [
        (lambda *calls: lambda worker, req: calls[0](worker, req), 2),
        (lambda *calls: lambda worker, req, environ: calls[0](worker, req, environ), 3),
        (lambda *calls: lambda worker, req, environ, resp: calls[0](worker, req, environ, resp), 4),
    ],
)
def test_post_request_takes_from_two_to_four_arguments(hook: Any, arity: int, bench: Bench) -> None:
    """A hook gets as many of worker, request, environ and response as it has parameters."""
    calls: list[Any] = []
    hooks = hooks_of(bench, post_request=hook(lambda *args: calls.append(args)))
    view, environ, response = hooks.before(scope_of(REQUESTS["plain"])), {"a": 1}, object()
    hooks.after(view, environ, response)
    assert calls == [(WORKER, view, environ, response)[:arity]]
    assert hooks.pre is None


def test_post_request_gets_an_environ_where_nobody_has_one(bench: Bench) -> None:
    """For an ASGI application the environ is what a WSGI application would have been given."""
    environs: list[Any] = []
    hooks = hooks_of(bench, post_request=lambda worker, req, environ, resp: environs.append(environ))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), None, None)
    assert environs[0]["REQUEST_METHOD"] == "GET"
    assert environs[0]["wsgi.url_scheme"] == "http"


def test_what_one_hook_notes_the_other_finds(bench: Bench) -> None:
    """A hook may keep things of its own on the request."""
    found: list[Any] = []

    def pre(worker: Any, req: Any) -> None:
        req.mark = "x"

    hooks = hooks_of(bench, pre_request=pre, post_request=lambda worker, req: found.append(req.mark))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert found == ["x"]


def test_an_exception_of_pre_request_goes_on_after_post_request(bench: Bench) -> None:
    """It means a 500; post_request is called all the same, and once, without environ and response."""
    calls: list[Any] = []

    def fail(worker: Any, req: Any) -> None:
        raise ValueError("not today")

    hooks = hooks_of(bench, pre_request=fail, post_request=lambda worker, req, env, resp: calls.append((env, resp)))
    with pytest.raises(ValueError, match="not today"):
        hooks.before(scope_of(REQUESTS["plain"]))
    hooks.after(None, {}, object())
    assert calls == [({}, None)]


class Unusual(BaseException):
    """No Exception."""


#: Out of a hook or a logger all of them are errors of its own.
OF_ANY_KIND = pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Unusual])


def raises(kind: type[BaseException]) -> Callable[..., Any]:
    """A function, with the parameters that both hooks are called with, that raises."""

    def fail(worker: Any, req: Any) -> None:
        raise kind("too late")

    return fail


@OF_ANY_KIND
def test_an_exception_of_post_request_is_logged(bench: Bench, kind: type[BaseException]) -> None:
    """It is swallowed: the response is out."""
    hooks = hooks_of(bench, post_request=raises(kind))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert "Exception in post_request hook\nTraceback" in bench.errors.read_text()


@OF_ANY_KIND
def test_whatever_pre_request_raises_post_request_is_called(bench: Bench, kind: type[BaseException]) -> None:
    """As under gunicorn's own workers."""
    calls: list[Any] = []
    hooks = hooks_of(bench, pre_request=raises(kind), post_request=lambda worker, req, env, resp: calls.append(resp))
    with pytest.raises(kind):
        hooks.before(scope_of(REQUESTS["plain"]))
    assert calls == [None]


def failing(bench: Bench, kind: type[BaseException], custom: bool) -> Callable[[Any], None]:
    """A writer whose logger is of a class that raises, or has a filter that does."""

    def fail(*args: Any) -> Any:
        raise kind("too late")

    if custom:
        return bench.writer(type("Failing", (glogging.Logger,), {"access": fail}))
    writer = bench.writer()
    assert isinstance(writer, AccessLog)
    writer.logger.addFilter(fail)
    return writer


@OF_ANY_KIND
@pytest.mark.parametrize("custom", [False, True])
def test_whatever_the_access_log_raises_is_logged(bench: Bench, kind: type[BaseException], custom: bool) -> None:
    """By a filter, or by a logger of another class: the response is out, and the connection has to go on."""
    write(failing(bench, kind, custom), Exchange(scope_of(REQUESTS["plain"])))
    assert f"{kind.__name__}: too late" in bench.errors.read_text()


def test_the_exit_of_the_process_passes_through_a_hook(bench: Bench) -> None:
    """It interrupts whatever runs, and is no error of that."""
    hooks = hooks_of(bench, post_request=raises(WorkerExit))
    with pytest.raises(WorkerExit):
        hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert bench.errors.read_text() == ""


@pytest.mark.parametrize("custom", [False, True])
def test_the_exit_of_the_process_passes_through_the_access_log(bench: Bench, custom: bool) -> None:
    """The same."""
    with pytest.raises(WorkerExit):
        write(failing(bench, WorkerExit, custom), Exchange(scope_of(REQUESTS["plain"])))
    assert bench.errors.read_text() == ""


def change_everything(worker: Any, req: Any) -> None:
    req.method = "PUT"
    req.scheme = "https"
    req.uri = "/x%20y?z"
    req.path = "/x%20y"
    req.query = "z"
    req.headers.append(("X-ADDED", "é"))


def test_the_application_gets_what_pre_request_made_of_the_request(bench: Bench) -> None:
    """Whatever a hook changes, gunicorn makes the environ from; so does the scope."""
    scope = scope_of(REQUESTS["plain"])
    before = list(scope["headers"])
    hooks_of(bench, pre_request=change_everything).before(scope)
    assert scope["method"] == "PUT"
    assert scope["scheme"] == "https"
    assert scope["hybridworker.target"] == b"/x%20y?z"
    assert (scope["raw_path"], scope["path"], scope["query_string"]) == (b"/x%20y", "/x y", b"z")
    assert scope["headers"] == [*before, (b"x-added", b"\xe9")]


def test_a_hook_that_only_looks_changes_nothing(bench: Bench) -> None:
    """The scope is left as it is, its own list of headers included."""
    scope = scope_of(REQUESTS["plain"])
    before, headers = dict(scope), scope["headers"]
    hooks_of(bench, pre_request=lambda worker, req: [getattr(req, name) for name in VIEWED]).before(scope)
    assert scope == before
    assert scope["headers"] is headers


def test_a_change_that_cannot_be_taken_over_is_an_exception_of_the_hook(bench: Bench) -> None:
    """What is no header never reaches the application."""
    hooks = hooks_of(bench, pre_request=lambda worker, req: req.headers.append(("X", "€")))
    with pytest.raises(UnicodeEncodeError):
        hooks.before(scope_of(REQUESTS["plain"]))
