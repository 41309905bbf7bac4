"""JSONLine: an object for each request, from a scope or an environ, whatever the client has sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from gunicorn import glogging
from gunicorn.instrument.statsd import Statsd
from hypothesis import given
from hypothesis import strategies as st

from hybridworker.asgi import PART
from hybridworker.config.atoms import NAMES, USUAL, chosen, name_of
from hybridworker.log.access import AccessLog, access_writer
from hybridworker.log.jsonline import JSONLine
from hybridworker.log.views import ENVIRON
from hybridworker.wsgi.environ import request_environ
from tests.harness import make_settings
from tests.log.bench import CLIENTS, REQUESTS, Bench, Exchange, scope_of
from tests.test_fuzz import fuzzing

NOW = 1_700_000_000.25
USER = glogging.Logger._get_user.__get__(object())


def line(exchange: Exchange, atoms: str = "on", took: int = 1_234_567) -> dict[str, Any]:
    """The object of an exchange, with its keys in their order."""
    maker = JSONLine(chosen(atoms) or (), USER)
    text = maker.line(exchange, took, NOW)
    assert text.isascii() and text.isprintable()
    found: dict[str, Any] = json.loads(text)
    return found


def served(name: str, wsgi: bool, **changes: Any) -> Exchange:
    """A request that an ASGI or a WSGI application has answered."""
    scope = scope_of(REQUESTS[name], **changes)
    if wsgi:
        scope[ENVIRON] = request_environ(scope)
    return Exchange(scope, 200, None, [(b"Content-Type", b"text/plain"), (b"X-A", b'a "b"')], 5)


each_interface = pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])


@each_interface
def test_the_usual_line(wsgi: bool) -> None:
    """Readable names, numbers as numbers, null for what there is not."""
    assert line(served("plain", wsgi)) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "remote_addr": "192.0.2.7",
        "user": None,
        "method": "GET",
        "path": "/a/b",
        "query": "x=1&y=%20",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "duration_us": 1_234_567,
        "referer": "http://e/",
        "user_agent": "curl/8",
        "pid": os.getpid(),
    }


@each_interface
@pytest.mark.parametrize("atom", NAMES)
def test_each_atom_has_its_name(atom: str, wsgi: bool) -> None:
    """The one of the documentation."""
    assert list(line(served("basic", wsgi), atom)) == [NAMES[atom].name]


@each_interface
def test_the_values_that_are_not_usual(wsgi: bool) -> None:
    """Durations in all their units; the whole request line."""
    assert line(served("bare", wsgi), "r,l,b,T,M,L,u,f,a") == {
        "request": "GET / HTTP/1.0",
        "ident": None,
        "bytes": 5,
        "duration_s": 1,
        "duration_ms": 1234,
        "duration": 1.234567,
        "user": None,
        "referer": None,
        "user_agent": None,
    }
    assert line(served("basic", wsgi), "u") == {"user": 'al"addin'}


@each_interface
def test_fields_and_environ_are_chosen_and_ordered(wsgi: bool) -> None:
    """By their kind and name; what there is not is null."""
    atoms = "{X-A}i,s,{x-a}o,{none}i,{none}o,{server_port}e,{none}e,{content-type}o"
    found = line(served("repeated", wsgi), atoms)
    assert list(found.items()) == [
        ("request.x-a", "1,2"),
        ("status", 200),
        ("response.x-a", 'a "b"'),
        ("request.none", None),
        ("response.none", None),
        ("environ.server_port", "8000"),
        ("environ.none", None),
        ("response.content-type", "text/plain"),
    ]


def test_what_this_package_knows_of_a_request_has_short_names() -> None:
    """From the scope: an ASGI application has no environ."""
    exchange = served("plain", False, **{PART: "api", "hybridworker.request_id": "abc"})
    assert line(exchange, "{hybridworker.part}e,{hybridworker.request_id}e") == {"part": "api", "request_id": "abc"}
    assert line(exchange)["part"] == "api"
    identified = JSONLine((), USER, identified=True)
    assert json.loads(identified.line(exchange, 1, NOW))["request_id"] == "abc"


@each_interface
def test_a_path_is_text(wsgi: bool) -> None:
    """Decoded, as UTF-8; what is none is replaced, and a line end is escaped."""
    scope = scope_of(b"GET /caf%C3%A9%0A%ff HTTP/1.1\r\nHost: e\r\n\r\n", path="/café\n\ufffd")
    if wsgi:
        scope[ENVIRON] = request_environ(scope)
    assert line(Exchange(scope), "U") == {"path": "/café\n\ufffd"}


def test_what_an_application_wrote_into_its_environ_shows() -> None:
    """As in a line of text, and objects as they describe themselves."""
    exchange = served("plain", True)
    exchange.scope[ENVIRON] |= {"REMOTE_ADDR": "203.0.113.1", "app.user": 7, "app.thing": {1, 2}, "HTTP_REFERER": None}
    found = line(exchange, "h,f,{app.user}e,{app.thing}e")
    assert found == {
        "remote_addr": "203.0.113.1",
        "referer": None,
        "environ.app.user": 7,
        "environ.app.thing": "{1, 2}",
    }


@each_interface
def test_a_field_may_be_shown_twice(wsgi: bool) -> None:
    """As the atom that it has, and by its name; a repeated one is a list."""
    found = line(served("basic", wsgi), "u,{authorization}i")
    assert found == {"user": 'al"addin', "request.authorization": "bASIC YWwiYWRkaW46c2VzYW1l"}
    found = line(served("repeated", wsgi), "a,{user-agent}i,{x-a}i")
    assert found == {"user_agent": "-,b", "request.user-agent": "-,b", "request.x-a": "1,2"}
    found = line(served("underscores", wsgi), "a,{user_agent}i")
    assert found == {"user_agent": "a,c", "request.user_agent": "a"}


class Shy:
    """An object that does not say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("not you")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ([1.5, float("inf")], "[1.5, inf]"),
        ({("a", 1): 2}, "{('a', 1): 2}"),
        (b"\xff", "b'\\xff'"),
        (Shy(), "<Shy>"),
    ],
)
def test_a_value_that_json_has_not_is_text(value: Any, shown: str) -> None:
    """No line is lost, and none is JSON only to Python."""
    exchange = served("plain", True)
    exchange.scope[ENVIRON]["app"] = value
    assert line(exchange, "{app}e") == {"environ.app": shown}


def test_a_websocket_and_a_client_that_left() -> None:
    """A method without one in the scope, no count of bytes, and no address of a unix socket."""
    scope = scope_of(REQUESTS["plain"], CLIENTS["unix"])
    del scope["method"]
    found = line(Exchange(scope, 101, None, [], None), "m,r,s,B,b,h".replace(",b", ""))
    assert found == {
        "method": "GET",
        "request": "GET /a/b?x=1&y=%20 HTTP/1.1",
        "status": 101,
        "bytes": None,
        "remote_addr": "",
    }


@fuzzing
@given(st.binary(max_size=40), st.binary(max_size=40), st.booleans())
def test_any_bytes_come_out_as_they_went_in(target: bytes, value: bytes, wsgi: bool) -> None:
    """Nothing that a client sends breaks a line or an object."""
    scope = scope_of(REQUESTS["bare"])
    scope["headers"] = [(b"user-agent", value), (b"x-a", value)]
    scope["hybridworker.target"] = b"/" + target
    if wsgi:
        scope[ENVIRON] = request_environ(scope)
    found = line(Exchange(scope), "r,a,{x-a}i")
    assert found["request"] == f"GET /{target.decode('latin-1')} HTTP/1.0"
    assert found["user_agent"] == found["request.x-a"] == value.decode("latin-1")


def test_a_name_cannot_leave_its_string() -> None:
    """Of an atom only the name is used, however odd it is."""
    atoms = "{a%s'\"\\}i,{%(x)s}o"
    assert line(served("plain", False), atoms) == {"request.a%s'\"\\": None, "response.%(x)s": None}


def test_the_time_is_that_of_each_line() -> None:
    """With microseconds, in UTC, and the second is formatted once."""
    maker = JSONLine(("t",), USER)
    exchange = served("plain", False)
    for now in (NOW, NOW + 0.5, NOW + 0.999999, NOW + 60):
        text = json.loads(maker.line(exchange, 1, now))["time"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
        assert datetime.fromisoformat(text).timestamp() == pytest.approx(now, abs=2e-6)
        assert datetime.fromisoformat(text).tzinfo == UTC


# -- in gunicorn's log


def write(bench: Bench, *exchanges: Exchange, log: Any = None, **settings: Any) -> None:
    """Write lines as the worker does, on a loop."""

    async def main() -> None:
        writer = access_writer(log or bench.logger(), bench.cfg, make_settings(**settings))
        assert writer is not None
        for exchange in exchanges:
            writer(exchange)

    asyncio.run(main())


def test_a_record_has_the_atoms_beside_its_line(bench: Bench) -> None:
    """Filters that look at ``record.args`` go on working."""
    seen: list[Any] = []
    log = bench.logger()

    def look(record: Any) -> bool:
        seen.append((record.args["U"], record.args["{x-a}o"]))
        return True

    log.access_log.addFilter(look)
    write(bench, served("plain", False), log=log, access_json=("m", "s"))
    assert bench.lines() == ['{"method":"GET","status":200}']
    assert seen == [("/a/b", 'a \\"b\\"')]  # escaped for a line of text, as gunicorn has them


def test_gunicorns_statsd_goes_on_counting(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, of JSON, and the three datagrams of a request."""
    sent: list[str] = []
    monkeypatch.setattr(Statsd, "_sock_send", lambda self, message: sent.append(message))
    bench.set(statsd_host="127.0.0.1:1")
    log = bench.logger(Statsd)
    log.sock.close()
    write(bench, served("plain", False), log=log, access_json=("s",))
    assert bench.lines() == ['{"status":200}']
    assert [message.partition(":")[0] for message in sent] == [
        "gunicorn.request.duration",
        "gunicorn.requests",
        "gunicorn.request.status.200",
    ]


class Own(glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """A logger class that makes its lines itself."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        self.access_log.info("own %s", resp.status)


class Atoms(glogging.Logger):  # type: ignore[misc]
    """One that adds an atom."""

    def atoms(self, *args: Any) -> Any:
        return {**super().atoms(*args), "s": "changed"}


@pytest.mark.parametrize(("kind", "expected"), [(Own, "own 200 OK"), (Atoms, "changed")])
def test_a_logger_class_of_the_users_is_called_as_today(kind: type[Any], expected: str, bench: Bench) -> None:
    """And one warning says that the variable does nothing."""
    bench.set(access_log_format="%(s)s")
    write(bench, served("plain", False), log=bench.logger(kind), access_json=())
    assert bench.lines() == [expected]
    name = kind.__qualname__
    line = f"HYBRIDWORKER_ACCESS_JSON has no effect: logger_class {name} makes the lines itself"
    assert line in bench.errors.read_text()


class Clock(glogging.Logger):  # type: ignore[misc]
    """One that has another time, and knows users otherwise."""

    def now(self) -> str:
        return "now"

    def _get_user(self, environ: Any) -> str:
        return "somebody"


def test_a_logger_class_that_changes_neither_is_written_for(bench: Bench) -> None:
    """The user is the one that it names."""
    write(bench, served("basic", False), log=bench.logger(Clock), access_json=("u", "s"))
    assert bench.lines() == ['{"user":"somebody","status":200}']
    assert not bench.errors.exists() or "no effect" not in bench.errors.read_text()


def test_the_line_is_made_by_our_own_writer(bench: Bench) -> None:
    """The quick one, with and without JSON."""
    log = bench.logger()
    assert isinstance(access_writer(log, bench.cfg, make_settings(access_json=())), AccessLog)
    assert isinstance(access_writer(log, bench.cfg, make_settings()), AccessLog)


def test_names_are_told_apart() -> None:
    """Those of the usual line, and those of all kinds."""
    assert len({name_of(atom) for atom in USUAL}) == len(USUAL)
    assert {name_of(atom) for atom in NAMES} == {name_of(atom) for atom in ("r", "l", "T", "M", "L", *USUAL)}
