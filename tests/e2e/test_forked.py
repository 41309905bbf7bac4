"""
A child that the application has forked has every connection of the worker open: it must keep no client waiting.

gunicorn's ``gthread`` shuts a socket down before it closes it, for this reason.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import Gunicorn, Servers, wait_gone
from tests.e2e.parting import BOTH, EVERYWHERE, Authority, connect, start

pytestmark = pytest.mark.e2e

MEBIBYTE = 1024 * 1024

#: A handshake, and the close frame of a client.
UPGRADE = (
    "GET /fork HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


@pytest.fixture
def forking(gunicorn: Servers) -> Iterator[Servers]:
    """Servers whose children end with the test."""
    yield gunicorn
    for server in gunicorn.started:
        server.open("fork")
        for pid in re.findall(r"child (\d+) lives", server.log()):
            wait_gone(int(pid))


def alive(server: Gunicorn) -> bool:
    """Whether the child still lives: its gate is closed, so it has not ended by itself."""
    return not (server.gates / "fork").exists() and "lives" in server.log()


def ask(client: Client, path: str, version: str) -> bytes:
    """Everything that comes of a request that is the last of its connection."""
    client.send(f"GET {path} {version}\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    parts = []
    while data := client.socket.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


@EVERYWHERE
def test_a_response_ends_although_a_child_lives(forking: Servers, app: str, loop: str, bind: str) -> None:
    """Short, large, cut and refused ones: the connection ends with each, and the client sees it."""
    server = start(forking, app, loop=loop, bind=bind)
    server.dirty = True  # one of them raises
    with connect(server) as refused, connect(server) as given_up:
        for version in ("HTTP/1.0", "HTTP/1.1"):
            for path in ("/fork", "/cut"):
                with connect(server) as client:
                    assert ask(client, path, version).count(b"200 OK") == 1
        with connect(server) as client:
            assert ask(client, "/forked", "HTTP/1.0").count(b"x") == 24 * MEBIBYTE
        refused.send("NONSENSE\r\n\r\n")
        assert b"400 Bad Request" in refused.rest()
        given_up.half_close()
        assert given_up.at_end()
        assert alive(server)


@pytest.mark.parametrize(("app", "loop"), [("asgi", "uvloop"), ("wsgi", "uvloop"), ("asgi", "asyncio")])
def test_a_response_over_tls_ends_although_a_child_lives(
    forking: Servers, authority: Authority, app: str, loop: str
) -> None:
    """Not only for TLS, which says so, but for the connection below it."""
    server = start(forking, app, *authority.options, loop=loop)
    for path, size in (("/fork", 5), ("/forked", 24 * MEBIBYTE)):  # the second fills the kernel's buffers
        client = connect(server, authority)
        assert ask(client, path, "HTTP/1.0").count(b"x") == size
        with client, Client(client.socket.unwrap(), client.deadline) as below:  # type: ignore[attr-defined]
            assert below.at_end()
    assert alive(server)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_websocket_ends_although_a_child_lives(forking: Servers, loop: str) -> None:
    """After the closing handshake the server closes first (RFC 6455 7.1.1)."""
    server = start(forking, "asgi", loop=loop)
    with connect(server) as client:
        client.send(UPGRADE)
        assert client.head()[0] == 101
        assert client.exactly(4)[:2] == b"\x88\x02"
        client.send(CLOSE)
        assert client.at_end()
        assert alive(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["term", "quit"])
@BOTH
def test_a_worker_that_leaves_ends_its_connections_although_a_child_lives(
    forking: Servers, app: str, number: signal.Signals
) -> None:
    """Whatever they were about: QUIT leaves at once, and TERM when the time is up."""
    server = start(forking, app, "--graceful-timeout", "1", "--keep-alive", "60")
    server.dirty = True
    with connect(server) as silent, connect(server) as idle, connect(server) as busy:
        assert idle.request("/fork").text == "xxxxx"
        busy.start("/silent")
        assert busy.head()[0] == 200
        assert busy.chunk() == b"first"
        server.wait_log("gate silent reached")  # QUIT interrupts whatever the loop does
        server.stop(number)
        assert [client.rest() for client in (silent, idle, busy)] == [b"", b"", b""]
        assert alive(server)
