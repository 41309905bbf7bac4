"""Ids of requests: what clients, applications and logs see of them, from real gunicorns."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.e2e.client import Response
from tests.e2e.harness import APPS, ROOT, Gunicorn, Servers

pytestmark = pytest.mark.e2e

NAMED = {"HYBRIDWORKER_REQUEST_ID": "x-request-id"}
MADE = re.compile(r"[0-9a-f]{32}")
FORMAT = "%(r)s|%(s)s|%({x-request-id}i)s|%({x-request-id}o)s|%({hybridworker.request_id}e)s"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

each_app = pytest.mark.parametrize("app", ["ids:asgi", "ids:wsgi"])


def identified(gunicorn: Servers, app: str, *args: str, workers: int = 1, **env: str) -> Gunicorn:
    """A server whose every line of the log begins with an id."""
    options = ("-c", str(APPS / "ids.conf.py"), "--threads", "2", "--access-logformat", FORMAT)
    return gunicorn(app, *options, *args, env={**NAMED, **env}, dirty=True, workers=workers)


def seen(response: Response) -> list[str | None]:
    """What the application knew: in its code, in a thread, and as the field of the request."""
    found: list[str | None] = json.loads(response.body)
    return found


@each_app
def test_an_id_goes_all_the_way(gunicorn: Servers, app: str) -> None:
    """From the proxy to the application, its threads, its log lines, the access line and the response."""
    server = identified(gunicorn, app)
    response = server.request("/show", headers="X-Request-ID: from-the-proxy\r\n")
    assert response.values("x-request-id") == ["from-the-proxy"]
    assert seen(response) == ["from-the-proxy"] * 3
    server.wait_log(r"^INFO <from-the-proxy> in the view$")
    server.wait_log(r"^INFO <from-the-proxy> GET /show HTTP/1\.1\|200\|from-the-proxy\|from-the-proxy\|from-the-proxy$")


@each_app
def test_an_id_is_made(gunicorn: Servers, app: str) -> None:
    """Another one for each request, also where a client that is no proxy has sent one, or two have come."""
    server = identified(gunicorn, app, "--forwarded-allow-ips", "192.0.2.1", workers=2)
    ids = []
    for headers in ("", "X-Request-ID: forged\r\n", "X-Request-ID: a\r\nX_Request_ID: b\r\n"):
        with server.connect() as client:
            for _ in range(2):
                response = client.request("/show", headers=headers)
                (value,) = response.values("x-request-id")
                assert seen(response) == [value] * 3
                ids.append(value)
    assert len(set(ids)) == 6
    assert all(MADE.fullmatch(value) for value in ids)


@each_app
def test_the_field_of_the_application_is_left_alone(gunicorn: Servers, app: str) -> None:
    """It is sent once, and the access line has both."""
    server = identified(gunicorn, app)
    response = server.request("/sets", headers="X-Request-ID: abc\r\n")
    assert response.values("x-request-id") == ["of the application"]
    server.wait_log(r"\|200\|abc\|of the application\|abc$")


@each_app
def test_errors_have_it(gunicorn: Servers, app: str) -> None:
    """The page, the line with the traceback, and the refusal of what is no proper request."""
    server = identified(gunicorn, app)
    assert server.request("/raises", headers="X-Request-ID: abc\r\n").values("x-request-id") == ["abc"]
    server.wait_log(r"^ERROR <abc> Error handling request GET /raises \[abc\]$")
    server.wait_log(r"^INFO <abc> GET /raises HTTP/1\.1\|500\|abc\|abc\|abc$")
    with server.connect() as client:
        client.send("GET /bad HTTP/1.1\r\nX-Request-ID: def\r\n\r\n")
        response = client.response()
    assert (response.status, response.values("x-request-id")) == (400, ["def"])
    server.wait_log(r"^WARNING <def> Invalid request from ip=127\.0\.0\.1: no Host .* \[def\]$")
    server.wait_log(r"^INFO <def> GET /bad HTTP/1\.1\|400\|def\|def\|def$")


@each_app
def test_reports_name_it(gunicorn: Servers, app: str) -> None:
    """USR2, the slow loop and slow calls."""
    timeout = "0" if app == "ids:asgi" else "1"
    server = identified(gunicorn, app, "--timeout", timeout, HYBRIDWORKER_SLOW_LOOP="0.25")
    (pid,) = server.worker_pids()
    with server.connect() as client:
        client.start("/gate", headers="X-Request-ID: slow-one\r\n")
        if app == "ids:asgi":
            server.wait_log(r"The event loop is held for more than .* by GET /gate \[slow-one\]$")
        else:
            server.wait_log(r"GET /gate \[slow-one\] has been in its thread for ")
        server.signal(signal.SIGUSR2, pid)
        where = "in the loop, running" if app == "ids:asgi" else "in thread hybridworker-wsgi-0"
        server.wait_log(rf"^  GET /gate \[slow-one\], [0-9.]+ s, {where}$")
        server.open("held")
        assert client.response().status == 200


def test_the_table_of_an_aborted_worker_names_it(gunicorn: Servers) -> None:
    """What held it up, and which request that was."""
    server = identified(gunicorn, "ids:asgi", "--timeout", "1", HYBRIDWORKER_SLOW_LOOP="0")
    with server.connect() as client:
        client.start("/gate", headers="X-Request-ID: the-last\r\n")
        server.wait_log(r"Worker aborted")
        server.wait_log(r"^  GET /gate \[the-last\], [0-9.]+ s, in the loop, running$")
    server.open("held")
    server.wait_log("Booting worker with pid", 2)
    assert server.request("/show").status == 200


@pytest.mark.parametrize(("path", "status"), [("/", 101), ("/denied", 403)])
def test_websockets_have_it(gunicorn: Servers, path: str, status: int) -> None:
    """In the answer to the handshake, in the application, and in the access line."""
    server = identified(gunicorn, "ids:asgi")
    fields = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with server.connect() as client:
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n{fields}X-Request-ID: a-socket\r\n\r\n")
        head = client.until(b"\r\n\r\n")
        assert int(head.split(b" ")[1]) == status
        assert head.lower().count(b"\r\nx-request-id: a-socket\r\n") == 1
        if status == 101:
            assert client.exactly(10) == b"\x81\x08a-socket"
    server.wait_log(rf"^INFO <a-socket> GET {path} HTTP/1\.1\|{status}\|a-socket\|a-socket\|a-socket$")


@each_app
def test_a_trace_is_shown_and_nothing_is_changed(gunicorn: Servers, app: str) -> None:
    """Neither in the request nor in the response."""
    server = identified(gunicorn, app, HYBRIDWORKER_REQUEST_ID="traceparent", HYBRIDWORKER_FORWARDED_CLIENT="off")
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    response = server.request("/show", headers=f"traceparent: {parent}\r\nX-Request-ID: as it is\r\n")
    assert seen(response) == [TRACE, TRACE, "as it is"]
    assert response.header("traceparent") is None and response.header("x-request-id") is None
    server.wait_log(rf"^INFO <{TRACE}> GET /show HTTP/1\.1\|200\|as it is\|-\|{TRACE}$")
    assert seen(server.request("/show")) == [None, None, None]
    server.wait_log(r"^INFO <-> GET /show HTTP/1\.1\|200\|-\|-\|-$")


@each_app
def test_off_is_the_default(gunicorn: Servers, app: str) -> None:
    """The field is the application's own matter."""
    server = identified(gunicorn, app, HYBRIDWORKER_REQUEST_ID="")
    response = server.request("/show", headers="X-Request-ID: abc\r\n")
    assert seen(response) == [None, None, "abc"]
    assert response.header("x-request-id") is None


@each_app
def test_a_line_of_json_has_it(gunicorn: Servers, app: str) -> None:
    """Among the usual ones."""
    server = identified(gunicorn, app, HYBRIDWORKER_ACCESS_JSON="on")
    server.request("/show", headers="X-Request-ID: abc\r\n")
    line = server.wait_log(r"^INFO <abc> (\{.*\})$")[1]
    assert json.loads(line)["request_id"] == "abc"


def test_the_lines_of_the_readme(gunicorn: Servers, tmp_path: Path) -> None:
    """The configuration that it gives puts the id into the lines of the application."""
    readme = (ROOT / "README.rst").read_text(encoding="utf-8")
    found = re.search(r"^    logconfig_dict = \{\n(?:     .*\n)+    \}$", readme, re.MULTILINE)
    assert found is not None
    (tmp_path / "g.py").write_text(re.sub("^    ", "", found[0], flags=re.MULTILINE))
    server = gunicorn("ids:wsgi", "-c", str(tmp_path / "g.py"), env=NAMED)
    server.request("/show", headers="X-Request-ID: abc\r\n")
    server.wait_log(r"\[INFO\] \[abc\] in the view$")
