"""Applications that compute or block behind their ``send()``: what they have sent does not wait for them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import Gunicorn, Servers
from tests.e2e.test_tls import Certificates, certificates, connect  # noqa: F401 (a fixture)

pytestmark = pytest.mark.e2e

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

#: A loop that is blocked is what these tests are about, not what they report.
QUIET = {"HYBRIDWORKER_SLOW_LOOP": "0"}


def start(gunicorn: Servers, app: str, *args: str) -> Gunicorn:
    return gunicorn(f"blocking:{app}", *args, env=QUIET)


def reads_all(server: Gunicorn, client: Client, path: str) -> None:
    """The response is complete at the client while the application blocks; the connection is served afterwards."""
    for last in (False, True):
        client.start(path, headers="TE: trailers\r\n" + "Connection: close\r\n" * last)
        response = client.response()
        if response.status == 103:
            response = client.response()
        assert response.body.endswith(b"end")
        server.open("sent")
    assert client.at_end()


@LOOPS
@pytest.mark.parametrize("path", ["/hints", "/chunks", "/pieces", "/trailers"])
def test_a_response_does_not_wait_for_what_its_application_does_next(gunicorn: Servers, path: str, loop: str) -> None:
    """Whatever it is made of, all of it is out when the last ``send()`` returns."""
    server = start(gunicorn, "app", "--asgi-loop", loop)
    with server.connect() as client:
        reads_all(server, client, path)


@LOOPS
def test_a_stream_does_not_wait_for_a_background_task_that_blocks(gunicorn: Servers, loop: str) -> None:
    """Starlette's StreamingResponse: the end of the stream comes before the task is done."""
    server = start(gunicorn, "framework", "--asgi-loop", loop)
    with server.connect() as client:
        reads_all(server, client, "/stream")


@LOOPS
def test_the_same_over_tls(gunicorn: Servers, certificates: Certificates, loop: str) -> None:  # noqa: F811
    """Encrypting holds nothing back either."""
    server = start(gunicorn, "app", *certificates.options, "--asgi-loop", loop)
    with connect(server, certificates.client_context()) as client:
        reads_all(server, client, "/chunks")


@LOOPS
def test_the_same_on_a_unix_socket(gunicorn: Servers, tmp_path: Path, loop: str) -> None:
    """As on TCP."""
    server = start(gunicorn, "app", "--bind", f"unix:{tmp_path}/socket", "--asgi-loop", loop)
    with server.connect() as client:
        reads_all(server, client, "/chunks")


def test_what_write_was_given_does_not_wait_for_the_call(gunicorn: Servers) -> None:
    """WSGI: the thread blocks, the loop sends."""
    server = start(gunicorn, "wsgi")
    with server.connect() as client:
        client.start("/")
        client.head()
        body = client.chunk()  # the two may be joined
        while not body.endswith(b"end"):
            body += client.chunk()
        assert body == b"aend"
        server.open("sent")
        assert client.chunk() == b""


@LOOPS
def test_replies_do_not_wait_for_what_the_application_does_next(gunicorn: Servers, loop: str) -> None:
    """WebSocket: of three messages that came together two are answered, and then the application blocks."""
    pytest.importorskip("websockets", reason="the extra is not installed")
    server = start(gunicorn, "app", "--asgi-loop", loop)
    with server.connect() as client:
        key = base64.b64encode(os.urandom(16)).decode()
        fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        client.start("/socket", headers=fields + "Sec-WebSocket-Version: 13\r\n")
        assert client.head()[0] == 101
        client.send(b"".join(b"\x81\x81\0\0\0\0" + text for text in (b"a", b"b", b"c")))
        assert client.exactly(6) == b"\x81\x01a" + b"\x81\x01b"
        server.open("sent")
        assert client.exactly(2) == b"\x88\x02"
