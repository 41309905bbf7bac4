"""
The graceful stop with clients that do nothing, or not enough: it does not wait for them.
"""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from tests.e2e.client import Client, Truncated
from tests.e2e.harness import Gunicorn, Servers
from tests.e2e.parting import LONGEST, Authority, connect, drained, start
from tests.e2e.test_forked import UPGRADE

pytestmark = pytest.mark.e2e

HEAD = "GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def deaf(client: Client, server: Gunicorn, count: int) -> None:
    """Have ``client`` read nothing of a response that is complete, the ``count``th of them."""
    client.start("/big")
    server.wait_log("sent /big", count)


@pytest.mark.parametrize(
    ("app", "loop", "bind"),
    [
        ("asgi", "uvloop", "tcp"),
        ("asgi", "asyncio", "tls"),
        ("wsgi", "uvloop", "tls"),
        ("wsgi", "asyncio", "unix"),
    ],
)
def test_forty_clients_that_want_nothing_do_not_hold_up_the_stop(
    gunicorn: Servers, authority: Authority, app: str, loop: str, bind: str
) -> None:
    """Silent and idle ones, half a head, half a body to drop, half a handshake, an answer that is not read."""
    trusted = authority if bind == "tls" else None
    unread = 60_000 if app == "asgi" else 100_000  # WSGI waits for a short body
    options = ("--keep-alive", "300", *(authority.options if trusted else ()))
    server = start(gunicorn, app, *options, loop=loop, bind="unix" if bind == "unix" else "tcp", header_timeout="0")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server, trusted)) for _ in range(35)]
        for number, client in enumerate(clients):
            match number % 7:
                case 0:
                    pass  # silent
                case 1:
                    assert client.request("/hello").status == 200
                case 2:
                    client.send("GET /hel")
                case 3:
                    client.send("\r")
                case 4:
                    deaf(client, server, number // 7 + 1)
                case 5:
                    client.start("/hello", "POST", headers=f"Content-Length: {unread}\r\n")
                    assert client.response().status == 200
                case 6:
                    assert client.request("/hello").status == 200
                    client.send("\r\nG")
        for part in (b"", b"", b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
            raw = stack.enter_context(server.connect())
            if trusted:
                raw.send(part)
        assert drained(server) < LONGEST


def test_a_slow_reader_keeps_its_time_beside_a_deaf_one(gunicorn: Servers, authority: Authority) -> None:
    """While the worker leaves a response is cut only where its client takes nothing: the other one gets all of it."""
    for options, trusted in (((), None), (authority.options, authority)):
        server = start(gunicorn, "asgi", "--keep-alive", "300", *options)
        with connect(server, trusted) as client, connect(server, trusted) as other:
            deaf(client, server, 1)
            deaf(other, server, 2)
            server.signal(signal.SIGTERM)
            assert client.head()[0] == 200
            missing = 24 * 1024 * 1024
            since = time.monotonic()
            while time.monotonic() < since + 4:  # a deaf one has 2 s
                missing -= len(client.exactly(100_000))
                time.sleep(0.1)
            assert len(client.exactly(missing)) == missing
            assert client.at_end()
            assert other.head()[0] == 200
            with pytest.raises(Truncated):
                other.exactly(24 * 1024 * 1024)


def test_deaf_websockets_do_not_hold_up_the_stop(gunicorn: Servers, authority: Authority) -> None:
    """They are told 1012, and cut when they do not answer."""
    for options, trusted in (((), None), (authority.options, authority)):
        server = start(gunicorn, "asgi", *options)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(connect(server, trusted))
                client.send(UPGRADE.replace("/fork", "/"))
                assert client.head()[0] == 101
            assert drained(server) < LONGEST


@pytest.mark.parametrize(("app", "bind"), [("asgi", "tcp"), ("wsgi", "unix")])
def test_an_empty_line_behind_a_body_is_no_request(gunicorn: Servers, app: str, bind: str) -> None:
    """RFC 9112 2.2: it is ignored, the connection stays as idle as it was, and the next request is answered."""
    server = start(gunicorn, app, "--keep-alive", "60", bind=bind, header_timeout="0.5")
    with connect(server) as client, connect(server) as other, connect(server) as trickle:
        client.send("POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab\r\n")
        assert client.response().text == "xxxxx"
        assert other.request("/hello").text == "xxxxx"
        other.send("\r")
        trickle.send("G")
        assert trickle.response().status == 408  # the time of a head is over
        other.send("\n")
        for quiet in (client, other):
            assert quiet.request("/hello").text == "xxxxx"
        client.send("\r\n")
    assert server.log().count("[WARNING]") == 1


@pytest.mark.parametrize(("app", "loop"), [("asgi", "uvloop"), ("wsgi", "asyncio")])
def test_half_a_head_is_told_that_it_is_too_late(gunicorn: Servers, app: str, loop: str) -> None:
    """On a new connection and behind an answer, also where it begins during the drain."""
    server = start(gunicorn, app, "--keep-alive", "60", "--proxy-protocol", "v1", loop=loop, header_timeout="0")
    with contextlib.ExitStack() as stack:
        halves = ("G", "GET / HTTP/1.1\r\n", HEAD[:-2], "\r\nGET ", "PROXY TC")
        clients = [stack.enter_context(connect(server)) for _ in halves]
        for client, half in zip(clients, halves, strict=True):
            client.send(half)
        used, late = stack.enter_context(connect(server)), stack.enter_context(connect(server))
        assert used.request("/hello").status == 200
        used.send("GET /hello HT")
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        late.send("GET /hello HT")
        assert drained(server) < LONGEST
        for client in (*clients, used, late):
            response = client.response()
            assert (response.status, response.header("Connection")) == (408, "close")
    assert "the request head was not complete when the worker left" in server.log()
