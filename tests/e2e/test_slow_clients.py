"""
Clients that are slow, silent or too many, and what they cost the others: nothing.

The timeouts are the defaults, of tens of seconds, and nobody waits for them: the clock of
the worker's loop jumps (``apps/jumping.py``). What a test expects to be still there after a
jump is used afterwards, so that each timeout is seen to be neither too early nor too late.
"""

from __future__ import annotations

import contextlib
import select
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.client import Client, Truncated
from tests.e2e.harness import APPS, Gunicorn, Servers

pytestmark = pytest.mark.e2e

BOTH = pytest.mark.parametrize("app", ["asgi", "wsgi"])

HEAD = "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n\r\n"

KEEPALIVE = 60


def start(gunicorn: Servers, app: str, *args: str) -> Gunicorn:
    """
    A worker on the clock that jumps. The jumps would look like a loop that hangs.

    The timers of a response that is sent from disk go by the true clock: see test_spool.py.
    """
    return gunicorn(
        f"jumping:{app}",
        *("--config", str(APPS / "jumping.conf.py"), "--keep-alive", str(KEEPALIVE), "--log-level", "debug"),
        *("--threads", "3", *args),
        env={"HYBRIDWORKER_SLOW_LOOP": "0", "HYBRIDWORKER_RESPONSE_SPOOL": "0"},
    )


def jump(server: Gunicorn, seconds: float) -> None:
    """
    Let ``seconds`` pass, once the worker has read what was sent to it before.

    The loop takes everything that is ready in one turn, and bytes that were sent before
    this request begins are ready before it is.
    """
    for _ in range(2):
        assert server.request("/jump/0").status == 200
    assert server.request(f"/jump/{seconds}").text == "jumped"


@contextlib.contextmanager
def clients(server: Gunicorn, count: int) -> Iterator[list[Client]]:
    """``count`` connections at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


# -- heads


@BOTH
def test_a_head_that_trickles_is_answered_408(gunicorn: Servers, app: str) -> None:
    """15 seconds for the whole head, however often a piece of it comes; one warning."""
    server = start(gunicorn, app)
    with clients(server, 2) as (slow, quick):
        for client in (slow, quick):
            client.send("GET / HTTP/1.1\r\n")
        jump(server, 10)
        slow.send("Host: localhost\r\n")
        quick.send("Host: localhost\r\n\r\n")
        assert quick.response().status == 200
        jump(server, 10)
        response = slow.response()
        assert (response.status, response.header("Connection")) == (408, "close")
        assert slow.at_end()
    assert server.log().count("Invalid request from ip=127.0.0.1: the request head took longer than") == 1


def test_the_head_of_a_later_request_has_its_own_time(gunicorn: Servers) -> None:
    """It begins with the first byte of the head, not with the connection."""
    server = start(gunicorn, "asgi")
    with server.connect() as client:
        assert client.request().status == 200
        jump(server, 30)
        client.send("GET / HTTP/1.1\r\n")
        jump(server, 10)
        client.send("Host: localhost\r\n\r\nGET / HT")
        assert client.response().status == 200
        jump(server, 20)
        assert client.response().status == 408
        assert client.at_end()


def test_a_silent_connection_is_closed_without_a_word(gunicorn: Servers) -> None:
    """It asked for nothing, so there is nothing to answer."""
    server = start(gunicorn, "asgi")
    with clients(server, 2) as (silent, late):
        jump(server, 10)
        late.send(HEAD)
        assert late.response().status == 200
        jump(server, 10)
        assert silent.at_end()
        assert late.request().status == 200
    assert "[WARNING]" not in server.log()


def test_keep_alive_ends(gunicorn: Servers) -> None:
    """Each response begins the time anew."""
    server = start(gunicorn, "asgi")
    with clients(server, 2) as (idle, used):
        for client in (idle, used):
            assert client.request().status == 200
        jump(server, KEEPALIVE * 0.75)
        assert used.request().status == 200
        jump(server, KEEPALIVE * 0.75)
        assert idle.at_end()
        assert used.request().status == 200
    assert "[WARNING]" not in server.log()


# -- bodies


def test_a_body_that_stalls_is_a_disconnect(gunicorn: Servers) -> None:
    """gunicorn's ``timeout`` of 30 seconds without a byte; each byte begins it anew."""
    server = start(gunicorn, "asgi")
    with server.connect() as client:
        client.start("/truncated", "POST", headers="Content-Length: 10\r\n")
        client.send("12345")
        server.wait_log("the body has begun")
        jump(server, 20)
        client.send("6")
        jump(server, 20)
        assert "bytes came" not in server.log()
        jump(server, 20)
        server.wait_log("after 6 bytes came http.disconnect")


@pytest.mark.parametrize("length", [10, 1_000_000], ids=["held back", "streamed"])
def test_bodies_that_stall_hold_no_thread(gunicorn: Servers, length: int) -> None:
    """As many of them as there are threads, but for the one that jumps: all are dropped, and the next is served."""
    server = start(gunicorn, "wsgi")
    with clients(server, 2) as stalled:
        for client in stalled:
            client.start("/digest", "POST", headers=f"Content-Length: {length}\r\n")
            client.send("12345")
        jump(server, 20)
        jump(server, 20)
        for client in stalled:
            assert b"HTTP/1.1 200" not in client.rest()
        with clients(server, 3) as working:
            for number, client in enumerate(working):
                client.start(f"/at-gate/{number}")
            server.wait_log(r"gate \d reached", 3)
            for number, client in enumerate(working):
                server.open(str(number))
                assert client.response().text == f"passed {number}"


# -- readers


@BOTH
def test_a_reader_that_takes_nothing_is_dropped(gunicorn: Servers, app: str) -> None:
    """60 seconds without a byte taken; one that takes some is left alone."""
    server = start(gunicorn, app)
    with server.connect() as client:
        client.start("/flood")
        if app == "asgi":
            server.wait_log("stalled after")
        else:
            server.wait_log("at 0 bytes")
        jump(server, 40)
        assert client.head()[0] == 200
        assert len(client.exactly(32_000_000)) == 32_000_000
        jump(server, 40)
        assert "takes no bytes" not in server.log()
        # The kernel's buffers may still be growing, which counts as taken.
        for _ in range(20):
            jump(server, 70)
            if "takes no bytes, connection dropped" in server.log():
                break
        assert "takes no bytes, connection dropped" in server.log()
        with pytest.raises(Truncated):
            client.exactly(256 * 1024 * 1024 - 32_000_000)
        if app == "wsgi":
            server.wait_log("closed in the same thread: True")


# -- many


@BOTH
def test_slow_clients_do_not_disturb_a_fast_one(gunicorn: Servers, app: str) -> None:
    """A hundred heads come a byte at a time while another client asks and is answered; then half of them are late."""
    server = start(gunicorn, app)
    with clients(server, 100) as slow, server.connect() as fast:
        for position in range(len(HEAD) - 1):
            for client in slow:
                client.send(HEAD[position])
            assert fast.request().status == 200
        for client in slow[::2]:
            client.send(HEAD[-1])
        for client in slow[::2]:
            assert client.response().status == 200
        jump(server, 20)
        for client in slow[1::2]:
            assert client.response().status == 408
        assert fast.request().status == 200
        for client in slow[::2]:
            assert client.request().status == 200


def silent(client: Client) -> bool:
    """Whether nothing has come, not even an end."""
    return not client.buffer and not select.select([client.socket], [], [], 0)[0]


@BOTH
def test_connections_above_worker_connections_wait(gunicorn: Servers, app: str) -> None:
    """They stay in the backlog, unanswered, and are served when one of the others leaves."""
    server = gunicorn(f"{app}:app", "--worker-connections", "2", "--threads", "2")
    with clients(server, 4) as (first, second, third, fourth):
        first.start("/at-gate/first")
        second.start("/at-gate/second")
        server.wait_log(r"gate (first|second) reached", 2)
        for client in (third, fourth):
            client.start("/", headers="Connection: close\r\n")
        server.open("first")
        assert first.response().text == "passed first"
        first.start("/at-gate/again")
        server.wait_log("gate again reached")
        assert silent(third)
        assert silent(fourth)
        server.open("second")
        assert second.response().text == "passed second"
        second.close()
        assert third.response().status == 200
        assert fourth.response().status == 200
        server.open("again")
        assert first.response().text == "passed again"


def test_the_longest_idle_connection_makes_room(gunicorn: Servers) -> None:
    """At ``worker_connections`` a new client does not wait for the keep-alive time of those that want nothing."""
    server = gunicorn("asgi:app", "--worker-connections", "3", "--keep-alive", "1000")
    with clients(server, 3) as (busy, idle, used):
        busy.start("/at-gate/busy")
        server.wait_log("gate busy reached")
        for client in (used, idle, *[used] * 50):  # so many that the loop's clock, of milliseconds, goes on
            assert client.request().status == 200
        with server.connect() as client:
            assert client.request().status == 200
            assert idle.at_end()
            assert used.request().status == 200
            assert client.request().status == 200
        server.open("busy")
        assert busy.response().text == "passed busy"


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="prlimit (util-linux) is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is for Linux")
@BOTH
def test_a_worker_without_descriptors_waits_for_some(gunicorn: Servers, app: str) -> None:
    """It says so once a second instead of spinning, goes on beating, and serves whoever waits when some are free."""
    server = gunicorn(
        f"{app}:app", "--keep-alive", "1000", "--timeout", "3", prefix=("prlimit", "--nofile=64:64"), dirty=True
    )
    worker = server.worker_pids()
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(server.connect()) for _ in range(80)]
        assert crowd[0].request().status == 200
        server.wait_log("Cannot accept connections: .*Too many open files", 4)
        assert server.log().count("Cannot accept connections") <= 6
        last = crowd[-1]
        last.start()
        for client in crowd[1:40]:
            client.close()
        assert last.response().status == 200
        assert crowd[0].request().status == 200
    assert server.worker_pids() == worker
    log = server.log()
    assert log.count("[ERROR]") == log.count("Cannot accept connections")
    assert "Traceback" not in log
