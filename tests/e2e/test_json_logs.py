"""Access lines as JSON, and those that are left out, from real gunicorns."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers

pytestmark = pytest.mark.e2e

KEYS = "time remote_addr user method path query protocol status bytes duration_us referer user_agent pid".split()


def lines(server: Gunicorn, count: int, name: str = "access") -> list[dict[str, Any]]:
    """The objects of the first ``count`` lines of a file; there are no others."""
    path = server.directory / name

    def written() -> list[str] | None:
        text = path.read_text() if path.exists() else ""
        return text.splitlines() if text.count("\n") >= count else None

    found = server.wait_for(written, f"{count} lines in {name}")
    assert len(found) == count, found
    return [json.loads(line) for line in found]


@pytest.mark.parametrize("app", ["logged:asgi", "logged:wsgi"])
def test_each_line_is_an_object(gunicorn: Servers, app: str) -> None:
    """Of a good request, a failed one, one with quotes and control characters, and one that is refused."""
    env = {"HYBRIDWORKER_ACCESS_JSON": "on"}
    server = gunicorn(app, "--threads", "2", "--access-logfile", "access", env=env, dirty=True)
    for target, field in [("/ok?a=%22", 'User-Agent: a "b" \\ \xe9\r\n'), ("/raises", ""), ("/ok%0A%22", "")]:
        with server.connect() as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n{field}Connection: close\r\n\r\n")
            client.rest()
    with server.connect() as client:
        client.send("GET /ok HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n")
        client.rest()
    good, failed, odd, refused = lines(server, 4)
    assert list(good) == KEYS
    assert good | {"time": "", "duration_us": 0, "pid": 0, "bytes": 0} == {
        "time": "",
        "remote_addr": "127.0.0.1",
        "user": None,
        "method": "GET",
        "path": "/ok",
        "query": "a=%22",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 0,
        "duration_us": 0,
        "referer": None,
        "user_agent": 'a "b" \\ \xe9',
        "pid": 0,
    }
    assert good["pid"] in server.worker_pids()
    written = datetime.fromisoformat(good["time"])
    assert written.tzinfo == UTC and abs((datetime.now(UTC) - written).total_seconds()) < DEADLINE
    assert (failed["status"], failed["path"]) == (500, "/raises")
    assert odd["path"] == '/ok\n"'
    assert (refused["status"], refused["path"]) == (400, "/ok")


def test_atoms_are_chosen(gunicorn: Servers) -> None:
    """And ordered."""
    env = {"HYBRIDWORKER_ACCESS_JSON": "s,{x-in}i,{content-length}o,{server_port}e,U"}
    server = gunicorn("logged:wsgi", "--access-logfile", "access", env=env, dirty=True)
    server.request("/ok", headers='X-In: "1"\r\n')
    (first,) = lines(server, 1)
    assert list(first) == ["status", "request.x-in", "response.content-length", "environ.server_port", "path"]
    assert first["request.x-in"] == '"1"'
    assert first["environ.server_port"] == str(server.port)


CONFIGS = {
    "logconfig": """
import pathlib
pathlib.Path("log.ini").write_text('''
[loggers]
keys=root,gunicorn.access
[handlers]
keys=file
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=
[logger_gunicorn.access]
level=INFO
handlers=file
propagate=0
qualname=gunicorn.access
[handler_file]
class=FileHandler
formatter=plain
args=('access',)
[formatter_plain]
format=%(message)s
''')
logconfig = "log.ini"
""",
    "logconfig_dict": """
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "access", "formatter": "plain"}},
    "root": {"level": "INFO", "handlers": []},
    "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["file"], "propagate": False}},
}
""",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_with_a_configuration_of_logging(gunicorn: Servers, name: str, tmp_path: Path) -> None:
    """The handlers and formatters are the user's."""
    (tmp_path / "g.py").write_text(CONFIGS[name])
    env = {"HYBRIDWORKER_ACCESS_JSON": "m,s", "HYBRIDWORKER_ACCESS_SKIP": "/none"}
    server = gunicorn("logged:asgi", "-c", str(tmp_path / "g.py"), env=env, dirty=True)
    server.request("/ok")
    assert lines(server, 1) == [{"method": "GET", "status": 200}]


def test_by_syslog(gunicorn: Servers) -> None:
    """One object in a datagram, behind gunicorn's prefix."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(DEADLINE)
        address = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        env = {"HYBRIDWORKER_ACCESS_JSON": "m,s"}
        server = gunicorn("logged:wsgi", "--log-syslog", "--log-syslog-to", address, env=env, dirty=True)
        server.request("/ok")
        while b".access:" not in (datagram := receiver.recv(65536)):
            pass
        text = datagram.decode().rstrip("\x00")
        assert json.loads(text[text.index("{") :]) == {"method": "GET", "status": 200}


@pytest.mark.parametrize("app", ["logged:asgi", "logged:wsgi"])
def test_skipped_paths_have_no_line_and_are_counted(gunicorn: Servers, app: str) -> None:
    """By the metrics and by statsd; a failure has its line."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(DEADLINE)
        env = {"HYBRIDWORKER_ACCESS_SKIP": "/ok,/raises*", "HYBRIDWORKER_METRICS_PATH": "/metrics"}
        options = ("--access-logfile", "access", "--access-logformat", '{"path": "%(U)s", "status": %(s)s}')
        statsd = ("--statsd-host", f"127.0.0.1:{receiver.getsockname()[1]}", "--threads", "2")
        server = gunicorn(app, *options, *statsd, env=env, dirty=True)
        for target in ("/ok", "/ok?a", "/%6fk", "/raises", "/ok/"):
            server.request(target)
        found = lines(server, 2)
        assert [line["path"] for line in found] == ["/raises", "/ok/"]
        assert found[0]["status"] == 500
        statuses: list[bytes] = []
        while len(statuses) < 5:
            match = re.match(rb"gunicorn\.request\.status\.(\d+)", receiver.recv(65536))
            statuses += [match[1]] if match else []
        assert statuses.count(b"200") >= 3 and statuses.count(b"500") >= 1

        def counted() -> bool:
            text = server.request("/metrics").body.decode()
            return (
                sum(int(count) for count in re.findall(r"^hybridworker_requests_total\{.*\} (\d+)$", text, re.M)) == 5
            )

        assert server.wait_for(counted, "five requests to be counted")


@pytest.mark.parametrize("name", ["HYBRIDWORKER_ACCESS_SKIP", "HYBRIDWORKER_ACCESS_JSON"])
def test_a_wrong_value_ends_the_boot(gunicorn: Servers, name: str) -> None:
    """With a line that names it."""
    server = gunicorn("asgi:app", env={name: "healthz"}, ready=False, dirty=True)
    assert server.wait() == 3
    assert f"{name}='healthz' must be " in server.log()


def test_a_websocket_has_its_line_when_it_ends(gunicorn: Servers) -> None:
    """Status 101, unless its path is skipped."""
    env = {"HYBRIDWORKER_ACCESS_JSON": "m,U,s", "HYBRIDWORKER_ACCESS_SKIP": "/quiet"}
    server = gunicorn("logged:asgi", "--access-logfile", "access", env=env)
    for path in ("/quiet", "/loud"):
        with server.connect() as client:
            _open(client, path)
    assert lines(server, 1) == [{"method": "GET", "path": "/loud", "status": 101}]


def _open(client: Client, path: str) -> None:
    fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    client.until(b"\r\n\r\n")
