"""
Clients that close their side while a response is under way: which of them still get it, and that none holds a place.

On TCP a client that has gone and one that has closed its side alone look the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from tests.e2e.client import Client, Truncated
from tests.e2e.harness import Gunicorn, Servers
from tests.e2e.parting import EVERYWHERE, connect, start

pytestmark = pytest.mark.e2e


def begun(server: Gunicorn, path: str) -> Client:
    """A client that has got the first piece of a stream."""
    client = connect(server)
    client.start(path)
    assert client.head()[0] == 200
    assert client.chunk() == b"first"
    return client


@EVERYWHERE
def test_a_stream_with_nothing_to_say_is_released(gunicorn: Servers, app: str, loop: str, bind: str) -> None:
    """Closed or half-closed, its client gets nothing more after the grace period, and its place is free."""
    options = ("--worker-connections", "4", "--asgi-disconnect-grace-period", "1")
    server = start(gunicorn, app, *options, loop=loop, bind=bind)
    gone = [begun(server, "/silent") for _ in range(2)]
    half = [begun(server, "/silent") for _ in range(2)]
    for client in gone:
        client.close()
    for client in half:
        client.half_close()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(connect(server))
            assert client.request("/hello").text == "xxxxx"
        for client in half:
            with pytest.raises(Truncated):
                client.chunk()
            client.close()
    server.open("silent")  # the threads of WSGI cannot be cancelled


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
@pytest.mark.parametrize(("loop", "bind"), [("uvloop", "tcp"), ("asyncio", "tcp"), ("uvloop", "unix")])
def test_a_stream_before_a_body_that_nobody_reads_is_released(
    gunicorn: Servers, loop: str, bind: str, leave: Callable[[Client], None]
) -> None:
    """Reading is paused, so the transport does not see that the client has gone."""
    options = ("--worker-connections", "1", "--asgi-disconnect-grace-period", "1")
    server = start(gunicorn, "asgi", *options, loop=loop, bind=bind)
    with connect(server) as client:
        client.start("/silent", "POST", b"x" * 200_000)
        assert client.head()[0] == 200
        assert client.chunk() == b"first"
        leave(client)
        with connect(server) as newcomer:
            assert newcomer.request("/hello").text == "xxxxx"


def test_what_a_half_closed_client_has_sent_is_read_all_the_same(gunicorn: Servers) -> None:
    """Its end is behind the body, and the application takes its time with that."""
    server = start(gunicorn, "asgi", "--asgi-disconnect-grace-period", "1")
    with connect(server) as client:
        client.start("/counts", "POST", b"x" * 400_000)
        client.half_close()
        assert client.response().text == "400000"


@pytest.mark.parametrize(
    ("app", "loop", "bind"), [("asgi", "uvloop", "tcp"), ("asgi", "asyncio", "unix"), ("wsgi", "asyncio", "tcp")]
)
def test_a_half_closed_client_gets_a_stream_that_goes_on(gunicorn: Servers, app: str, loop: str, bind: str) -> None:
    """What has written something within the grace period is taken for wanted, however long it is silent afterwards."""
    server = start(gunicorn, app, "--asgi-disconnect-grace-period", "1", loop=loop, bind=bind)
    with begun(server, "/again") as client, begun(server, "/silent") as silent:
        server.wait_log("gate again reached")
        client.half_close()
        server.open("again")
        assert client.chunk() == b"again"
        silent.half_close()  # later: when this one is given up, so would be the other
        with pytest.raises(Truncated):
            silent.chunk()
        server.open("silent")
        assert client.chunk() == b"last"
        assert client.chunk() == b""


@pytest.mark.parametrize(
    ("app", "loop", "bind"),
    [
        ("asgi", "uvloop", "tcp"),
        ("asgi", "asyncio", "tcp"),
        ("asgi", "uvloop", "unix"),
        ("wsgi", "uvloop", "tcp"),
        ("wsgi", "asyncio", "unix"),
    ],
)
def test_a_stream_that_spoke_to_nobody_is_released(gunicorn: Servers, app: str, loop: str, bind: str) -> None:
    """
    Long before the grace period ends.

    On a unix socket the kernel tells that the client has closed both directions. On TCP the
    answer to what was written does, although the stream has nothing more to write.
    """
    options = ("--worker-connections", "1", "--asgi-disconnect-grace-period", "100")
    server = start(gunicorn, app, *options, loop=loop, bind=bind)
    client = begun(server, "/again")
    server.wait_log("gate again reached")
    client.close()
    if bind == "tcp":
        server.open("again")
    with connect(server) as client:
        assert client.request("/hello").text == "xxxxx"
    server.open("again")
    server.open("silent")
