"""
What the lines of the logs say of a request: which one it is, and nothing that its client has made up.

Filters of the user's find the id of a request in its context, wherever the worker logs it.
"""

from __future__ import annotations

import re
import signal

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import APPS, WORKER, Gunicorn, Servers
from tests.oracle import of_gunicorn_27

pytestmark = pytest.mark.e2e

HANDSHAKE = (
    "GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def websocket(server: Gunicorn, path: str) -> Client:
    client = server.connect()
    client.send(HANDSHAKE % path)
    return client


# -- the id of the request


def with_ids(gunicorn: Servers, app: str, *args: str, worker: str = WORKER) -> Gunicorn:
    config = ("--config", str(APPS / "request_id.conf.py"), "--threads", "2")
    return gunicorn(f"request_id:{app}", *config, *args, worker=worker, dirty=True)


def id_of(server: Gunicorn, path: str, status: int = 200, method: str = "GET") -> str:
    """The id in the line of the access log."""
    line = re.escape(f"{method} {path} HTTP/1.1 {status}")
    return server.wait_log(rf"^<(.*)> gunicorn\.access INFO \S+ {line}$")[1]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_the_access_record_is_made_in_the_context_of_the_request(gunicorn: Servers, app: str, loop: str) -> None:
    """However the response is made: whole, in parts, behind a body, on a connection that is kept, or for an error."""
    server = with_ids(gunicorn, app, "--asgi-loop", loop)
    with server.connect() as client:
        for number, kind in enumerate(["list", "iterator", "list", "iterator"]):
            assert client.request(f"/{kind}/{number}").text == "one two"
            assert id_of(server, f"/{kind}/{number}") == str(number)
        client.send("POST /list/chunked HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send("3\r\nabc\r\n0\r\n\r\n")
        assert client.response().text == "one two"
        assert id_of(server, "/list/chunked", method="POST") == "chunked"
    assert server.request("/raises/failed").status == 500
    assert id_of(server, "/raises/failed", 500) == "failed"
    assert server.wait_log(r"^<(.*)> gunicorn\.error ERROR .*Error handling request GET /raises/failed$")[1] == "failed"
    with server.connect() as client:
        client.start("/late/late")
        client.rest()
    assert id_of(server, "/late/late") == "late"
    assert server.wait_log(r"^<(.*)> gunicorn\.error ERROR .*Error handling request GET /late/late$")[1] == "late"


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_the_record_of_a_client_that_left_has_the_id(gunicorn: Servers, app: str) -> None:
    """Its call still runs, or was cancelled: it is logged from outside of it."""
    server = with_ids(gunicorn, app, "--asgi-disconnect-grace-period", "0")
    with server.connect() as client:
        client.start("/gate/left")
        server.wait_log("gate left reached")
        client.reset()
    assert id_of(server, "/gate/left", 499) == "left"
    server.open("left")


def test_the_error_of_a_call_whose_client_left_has_the_id(gunicorn: Servers) -> None:
    """Of WSGI: the call goes on, and nobody waits for it."""
    server = with_ids(gunicorn, "wsgi")
    with server.connect() as client:
        client.start("/abandoned/left")
        server.wait_log("gate left reached")
        client.reset()
    assert id_of(server, "/abandoned/left", 499) == "left"
    server.open("left")
    line = r"^<(.*)> gunicorn\.error ERROR .*Error handling request GET /abandoned/left, whose client has gone$"
    assert server.wait_log(line)[1] == "left"


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_a_refused_request_behind_another_has_not_its_id(gunicorn: Servers, app: str) -> None:
    """It is parsed when the response before it is complete, which may be amid the other's call."""
    server = with_ids(gunicorn, app)
    with server.connect() as client:
        client.send("GET /list/mine HTTP/1.1\r\nHost: x\r\n\r\nGET /list/refused HTTP/1.1\r\n\r\n")
        assert client.response().status == 200
        assert client.response().status == 400
    assert id_of(server, "/list/mine") == "mine"
    assert id_of(server, "/list/refused", 400) == "-"
    assert server.wait_log(r"^<(.*)> gunicorn\.error WARNING .*Invalid request from ip=")[1] == "-"


def test_the_record_of_a_websocket_has_the_id(gunicorn: Servers) -> None:
    """It is made when the connection is gone, whoever ends it."""
    server = with_ids(gunicorn, "asgi")
    with websocket(server, "/ends/one") as client:
        assert client.head()[0] == 101
        client.until(b"\x88\x02\x03\xe8")
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        client.rest()
    assert id_of(server, "/ends/one", 101) == "one"
    with websocket(server, "/gate/two") as client:
        assert client.head()[0] == 101
        client.reset()
    assert id_of(server, "/gate/two", 101) == "two"
    with websocket(server, "/raises/three") as client:
        client.rest()
    assert id_of(server, "/raises/three", 500) == "three"


@of_gunicorn_27
def test_the_record_is_that_of_gthread(gunicorn: Servers) -> None:
    """The id, and the place in the code: a list, an iterator, and one that fails."""
    lines = []
    for worker in (WORKER, "gthread"):
        server = with_ids(gunicorn, "wsgi", worker=worker)
        for path in ("/list/1", "/iterator/2", "/late/3", "/raises/4"):
            with server.connect() as client:
                client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                client.rest()
            server.wait_log(rf"gunicorn\.access INFO .* {path} ")
        lines.append(re.findall(r"^<.*> gunicorn\.access .*$", server.log(), re.MULTILINE))
    assert lines[0] == lines[1]
    assert len(lines[0]) == 4


# -- forged lines

#: What a client wants to see as a line of the log: percent-encoded line breaks of all kinds, and the line.
FORGED = "%0a[2026-01-01%2000:00:00%20+0000]%20[1]%20[ERROR]%20forged%0d%c2%85%e2%80%a8forged?q=%0a"


def look(server: Gunicorn, text: str, kind: str = "") -> None:
    """Wait for the line about the request, which names the target as received; no line is the client's."""
    server.wait_log(rf"{text} (GET |WebSocket )?{re.escape(f'/{kind}/{FORGED}')}(?![^\s,])")
    for line in re.split(r"[\n\r\x85\u2028]", server.log()):
        assert not line.startswith(("[2026-01-01", "forged"))


@pytest.mark.parametrize(
    ("app", "kind", "line"),
    [
        ("wsgi", "raises", "Error handling request"),
        ("wsgi", "late", "Error handling request"),
        ("asgi", "raises", "Error handling request"),
        ("asgi", "late", "Error handling request"),
        ("asgi", "returns", "without completing its response:"),
    ],
)
def test_an_error_line_cannot_be_forged(gunicorn: Servers, app: str, kind: str, line: str) -> None:
    """It names the target as received."""
    server = gunicorn(f"forged:{app}", "--threads", "2", dirty=True)
    with server.connect() as client:
        client.start(f"/{kind}/{FORGED}")
        client.rest()
    look(server, line, kind)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("raises", "Error handling WebSocket"),
        ("accepts", "Error handling WebSocket"),
        ("returns", "without answering a WebSocket handshake:"),
    ],
)
def test_the_error_line_of_a_websocket_cannot_be_forged(gunicorn: Servers, kind: str, line: str) -> None:
    """The same."""
    server = gunicorn("forged:asgi", dirty=True)
    with websocket(server, f"/{kind}/{FORGED}") as client:
        client.until(b"\r\n\r\n")
    look(server, line, kind)


def test_an_error_behind_its_client_cannot_be_forged(gunicorn: Servers) -> None:
    """A WSGI call that fails when nobody waits for it any more."""
    access = ("--access-logfile", "-", "--access-logformat", "access %(s)s")
    server = gunicorn("forged:wsgi", "--threads", "2", *access, dirty=True)
    with server.connect() as client:
        client.start(f"/abandoned/{FORGED}")
        server.wait_log("gate held reached")
        client.reset()
    server.wait_log("^access 499$")
    server.open("held")
    look(server, "Error handling request", "abandoned")


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_the_reports_of_the_watchdog_cannot_be_forged(gunicorn: Servers, app: str) -> None:
    """That of a slow call or of a held loop, and the one that SIGUSR2 asks for."""
    env = {"HYBRIDWORKER_SLOW_LOOP": "0.3"}
    timeout = ("--timeout", "1") if app == "wsgi" else ()
    server = gunicorn(f"forged:{app}", "--threads", "2", *timeout, env=env, dirty=True)
    with server.connect() as client:
        client.start(f"/held/{FORGED}")
        server.wait_log("gate held reached")
        if app == "wsgi":
            look(server, r"\[WARNING\]", "held")
            server.wait_log("has been in its thread for")
        else:
            look(server, r"The event loop is held for more than \S+ s by", "held")
        (worker,) = server.worker_pids()
        server.signal(signal.SIGUSR2, worker)
        server.wait_log("Requests in flight: 1")
        look(server, "^ ", "held")
        server.open("held")
        assert client.response().status == 200
