"""The access log, with gunicorn's own logger, parser and environ as the oracle."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from gunicorn import glogging
from gunicorn.config import Config
from gunicorn.instrument.statsd import Statsd

from hybridworker.errors import WorkerExit
from hybridworker.log import access as accesslog
from hybridworker.log.access import AccessLog, Refused, access_writer
from hybridworker.log.views import ENVIRON, RequestView, ResponseView, environ_of
from tests.log.bench import CLIENTS, OF_ANY_KIND, REQUESTS, Bench, Exchange, of_gunicorn, scope_of

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

RESPONSES: list[tuple[int, bytes | None, list[tuple[bytes, bytes]], int | None]] = [
    (200, None, [(b"content-type", b"text/plain"), (b"Content-Length", b"2")], 2),
    (204, None, [], 0),
    (299, b"Custom Reason", [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b'b="\xe9"')], 123456789),
    (799, None, [(b"Content-Type", b"")], None),
]


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
    environ = environ_of(exchange.scope)
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
        environ = environ_of(exchange.scope)
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


@pytest.mark.parametrize("custom", [False, True])
def test_the_exit_of_the_process_passes_through_the_access_log(bench: Bench, custom: bool) -> None:
    """The same."""
    with pytest.raises(WorkerExit):
        write(failing(bench, WorkerExit, custom), Exchange(scope_of(REQUESTS["plain"])))
    assert bench.errors.read_text() == ""
