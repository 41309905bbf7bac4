"""``gunicorn.SERVER``, which configuration files set to say less, or something else, in the Server field."""

from __future__ import annotations

import re

import pytest

from tests.e2e.harness import APPS, WORKER, Gunicorn, Servers

pytestmark = pytest.mark.e2e

CONFIG = ("--config", str(APPS / "server_field.conf.py"))
HANDSHAKE = (
    "GET /%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def server_line(server: Gunicorn, request: str) -> bytes:
    """The Server line of the answer to ``request``, with its line break."""
    with server.connect() as client:
        client.send(request)
        lines = client.until(b"\r\n\r\n").splitlines(keepends=True)
    (line,) = (line for line in lines if line.lower().startswith(b"server:"))
    return line


@pytest.mark.parametrize("value", ["mine/1.0 (caf\xe9)", ""], ids=["a name", "empty"])
@pytest.mark.parametrize(("app", "worker"), [("wsgi", WORKER), ("asgi", WORKER), ("wsgi", "gthread")])
def test_the_server_field_is_what_the_configuration_says(gunicorn: Servers, app: str, worker: str, value: str) -> None:
    """In a response, an error page, a refusal, the answer of an endpoint, and the handshake of a WebSocket."""
    env = {"SERVER_FIELD": value, "HYBRIDWORKER_HEALTH_PATH": "/health", "PYTHONUTF8": "1"}
    server = gunicorn(f"logged:{app}", *CONFIG, worker=worker, env=env, dirty=True)
    expected = f"Server: {value}\r\n".encode("latin-1")
    get = "GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    requests = [get % "ok", "GET / HTTP/1.0\r\n\r\n"]
    if worker == WORKER:  # gunicorn's own pages have no such field
        requests += [get % "raises", get % "health", "GET / HTTP/1.1\r\n\r\n"]
    if app == "asgi":
        requests += [HANDSHAKE % path for path in ("accepts", "refuses", "denies", "raises")]
    for request in requests:
        assert server_line(server, request) == expected
    if app == "wsgi":
        server.wait_log(f"post_request: version {re.escape(repr(value))}$")


@pytest.mark.parametrize("value", ["a\r\nX-Forged: 1", "a\nb", "snowman \u2603"], ids=["fields", "line", "not latin-1"])
def test_a_server_field_that_cannot_be_sent_ends_the_boot(gunicorn: Servers, value: str) -> None:
    """With one line; gunicorn's own workers send the line breaks, and fail with each request."""
    server = gunicorn("logged:wsgi", *CONFIG, env={"SERVER_FIELD": value, "PYTHONUTF8": "1"}, ready=False, dirty=True)
    assert server.wait() == 3
    assert server.log().count("[ERROR] gunicorn.SERVER=") == 1
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_server_software_stays_gunicorns(gunicorn: Servers, app: str) -> None:
    """In the environ, and so in the access log: it has the version, whatever the field says."""
    options = ("--access-logfile", "-", "--access-logformat", "software %({server_software}e)s")
    server = gunicorn(f"logged:{app}", *CONFIG, *options, env={"SERVER_FIELD": "mine"})
    assert server.request("/ok").status == 200
    server.wait_log(r"^software gunicorn/\d+\.\d+")
