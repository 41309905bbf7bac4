"""
How a worker leaves, and that it is alive until then.

TERM drains, QUIT and INT leave at once whatever the threads do, heartbeats go on in
every phase. That a worker left by itself is shown by the ``worker_exit`` hook, which
does not run in a worker that was killed.
"""

from __future__ import annotations

import os
import re
import signal
import socket

import pytest

from tests.e2e.client import Truncated
from tests.e2e.harness import HOOKS, Gunicorn, Servers, wait_gone

pytestmark = pytest.mark.e2e

#: Far beyond the deadline of the harness: a worker that waits for it makes the test fail.
LONG = ("--graceful-timeout", "300", "--timeout", "300", "--config", str(HOOKS))


def left_by_itself(server: Gunicorn, worker: int) -> bool:
    """Whether the worker went through the arbiter's ``finally``."""
    return f"hook worker_exit {worker} " in server.log()


# -- TERM


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_term_finishes_the_request_in_flight(gunicorn: Servers, app: str) -> None:
    """The listener is gone at once, the answer says close, the exit code is 0."""
    server = gunicorn(app, "--threads", "2", *LONG)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/at-gate/drain")
        server.wait_log("gate drain reached")
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: refused(server), "the listener to be closed")
        server.open("drain")
        response = client.response()
        assert response.text == "passed drain"
        assert response.header("Connection") == "close"
        assert client.at_end()
    assert server.wait() == 0
    assert left_by_itself(server, worker)


def refused(server: Gunicorn) -> bool:
    """Whether nobody listens any more."""
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it was taken into the backlog of a listener that was then closed
    return False


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_term_finishes_a_response_that_has_begun(gunicorn: Servers, app: str) -> None:
    """A stream that is under way is sent to its end."""
    server = gunicorn(app, "--threads", "2", *LONG)
    with server.connect() as client:
        client.start("/head-then-gate/stream")
        assert client.head()[0] == 200
        assert client.chunk() == b"first "
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: refused(server), "the listener to be closed")
        server.open("stream")
        assert client.chunk() == b"last"
        assert client.chunk() == b""
    assert server.wait() == 0


def test_term_waits_for_a_call_whose_client_has_gone(gunicorn: Servers) -> None:
    """It may be amid a transaction: it comes to its end, and so does its ``close()``."""
    options = ("--asgi-disconnect-grace-period", "0", "--log-level", "debug", *LONG)
    server = gunicorn("wsgi:app", "--threads", "2", *options)
    with server.connect() as client:
        client.start("/head-then-gate/left")
        assert client.head()[0] == 200
        server.wait_log("gate left reached")
        client.reset()
    server.wait_log("Request cancelled: GET /head-then-gate/left")
    server.signal(signal.SIGTERM)
    server.wait_for(lambda: refused(server), "the listener to be closed")
    server.open("left")
    assert server.wait() == 0
    assert "closed in the same thread: True" in server.log()


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_term_cuts_what_is_not_finished_in_time(gunicorn: Servers, app: str) -> None:
    """``graceful_timeout`` is kept by the worker itself, also when a thread is stuck."""
    server = gunicorn(app, "--threads", "2", "--graceful-timeout", "1", "--config", str(HOOKS), dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/head-then-gate/never")
        assert client.head()[0] == 200
        server.wait_log("gate never reached")
        server.signal(signal.SIGTERM, worker)  # the arbiter would kill only workers that it stops itself
        assert client.chunk() == b"first "
        with pytest.raises(Truncated):
            client.chunk()
    server.wait_log(f"hook worker_exit {worker} ")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")


def test_silent_and_idle_connections_do_not_hold_up_the_stop(gunicorn: Servers) -> None:
    """One that never sent a byte, one with half a head, and one that is kept alive."""
    server = gunicorn("asgi:app", "--keep-alive", "300", *LONG)
    with server.connect() as silent, server.connect() as half, server.connect() as idle:
        half.send("GET / HTTP/1.1\r\nHos")
        assert idle.request().header("Connection") is None
        assert server.stop() == 0
        assert silent.at_end()
        assert idle.at_end()


def test_a_request_on_a_kept_alive_connection_is_answered_while_draining(gunicorn: Servers) -> None:
    """It was sent before the client could know; the answer says close."""
    server = gunicorn("asgi:app", "--keep-alive", "60", *LONG)
    with server.connect() as busy, server.connect() as idle:
        assert idle.request().header("Connection") is None
        busy.start("/at-gate/busy")
        server.wait_log("gate busy reached")
        server.signal(signal.SIGTERM)
        server.wait_for(lambda: refused(server), "the listener to be closed")
        response = idle.request()
        assert (response.text, response.header("Connection")) == ("Hello from ASGI", "close")
        assert idle.at_end()
        server.open("busy")
        assert busy.response().text == "passed busy"
    assert server.wait() == 0


def test_term_again_and_again_is_harmless(gunicorn: Servers) -> None:
    """The arbiter repeats it about once a second."""
    server = gunicorn("asgi:app", *LONG)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/at-gate/again")
        server.wait_log("gate again reached")
        for _ in range(5):
            server.signal(signal.SIGTERM, worker)
        server.open("again")
        assert client.response().text == "passed again"
    server.wait_log(f"hook worker_exit {worker} ")


def test_a_worker_leaves_when_its_master_has_died(gunicorn: Servers) -> None:
    """Nobody would look after it; it drains as after TERM."""
    server = gunicorn("asgi:app", *LONG)
    (worker,) = server.worker_pids()
    assert server.request().status == 200
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    wait_gone(worker)
    assert "shutdown in" in server.log()


def test_hup_replaces_the_workers_and_finishes_their_requests(gunicorn: Servers) -> None:
    """A reload: the old worker answers what it has, the new one everything else."""
    server = gunicorn("asgi:app", *LONG)
    (old,) = server.worker_pids()
    with server.connect() as client:
        client.start("/at-gate/reload")
        server.wait_log("gate reload reached")
        server.signal(signal.SIGHUP)
        server.wait_log("Booting worker with pid", 2)
        server.wait_log("startup in", 2)
        server.open("reload")
        assert client.response().text == "passed reload"
    server.wait_workers(lambda pids: len(pids) == 1 and old not in pids, "the old worker to leave")
    assert server.request("/pid").text != str(old)


# -- QUIT and INT

BLOCKED = [
    ("asgi:app", "/at-gate/blocked"),
    ("asgi:app", "/block-loop/blocked"),
    ("asgi:app", "/block-executor/blocked"),
    ("wsgi:app", "/at-gate/blocked"),
    ("wsgi:app", "/head-then-gate/blocked"),
    ("django_app:asgi", "/async-blocks/blocked"),
    ("django_app:asgi", "/sync-blocks/blocked"),
    ("django_app:wsgi", "/async-blocks/blocked"),
    ("django_app:wsgi", "/sync-blocks/blocked"),
]


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["QUIT", "INT"])
@pytest.mark.parametrize(("app", "path"), BLOCKED)
def test_quit_and_int_leave_at_once(gunicorn: Servers, app: str, path: str, number: int) -> None:
    """Whatever blocks, on the loop or in a thread: the gate stays closed for two minutes, the worker does not."""
    server = gunicorn(app, "--threads", "2", *LONG)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start(path)
        server.wait_log("gate blocked reached")
        assert server.stop(number) == 0
    assert left_by_itself(server, worker)
    assert f"hook worker_int {worker}" in server.log()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["QUIT", "INT"])
def test_quit_and_int_are_not_lost_where_exceptions_are_ignored(gunicorn: Servers, number: int) -> None:
    """A handler may run in a weak reference's callback or a finalizer, out of which its SystemExit does not get."""
    server = gunicorn("asgi:app", *LONG, dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/block-callback/ignored")
        server.wait_log("gate ignored reached")
        assert server.stop(number) == 0
    assert left_by_itself(server, worker)


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_int_ends_one_worker(gunicorn: Servers, app: str) -> None:
    """Sent to a worker alone; it is replaced."""
    server = gunicorn(app, *LONG)
    (worker,) = server.worker_pids()
    assert server.request().status == 200
    server.signal(signal.SIGINT, worker)
    server.wait_log(f"hook worker_exit {worker} ")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")
    assert server.request().status == 200


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_ctrl_c_in_a_terminal(gunicorn: Servers, app: str) -> None:
    """Everybody gets INT, and the worker QUIT from its master as well: the hook runs once, and nothing is printed."""
    server = gunicorn(app, *LONG)
    (worker,) = server.worker_pids()
    assert server.request().status == 200
    os.killpg(server.pid, signal.SIGINT)
    assert server.wait() == 0
    assert left_by_itself(server, worker)
    assert server.log().count(f"hook worker_int {worker}") == 1


@pytest.mark.parametrize(("app", "path"), [case for case in BLOCKED if case[1] != "/block-loop/blocked"])
def test_graceful_timeout_holds_when_a_thread_is_stuck(gunicorn: Servers, app: str, path: str) -> None:
    """No executor of anybody's keeps the process."""
    server = gunicorn(app, "--threads", "2", "--graceful-timeout", "1", "--config", str(HOOKS), dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start(path)
        server.wait_log("gate blocked reached")
        server.signal(signal.SIGTERM, worker)
        if path.startswith("/async-blocks") and app == "django_app:asgi":
            server.open("blocked")  # this one holds the loop itself: nothing runs before it lets go
        server.wait_log(f"hook worker_exit {worker} ")
        server.wait_workers(lambda pids: worker not in pids and len(pids) == 1, "the worker to be replaced")


# -- other signals


def test_winch_is_ignored(gunicorn: Servers) -> None:
    """A terminal that changes its size ends nobody."""
    server = gunicorn("asgi:app")
    (worker,) = server.worker_pids()
    assert server.request().status == 200
    server.signal(signal.SIGWINCH, worker)
    assert server.request("/pid").text == str(worker)


def test_usr1_reopens_the_logs(gunicorn: Servers) -> None:
    """After a rotation the worker writes into the new file."""
    server = gunicorn("asgi:app", "--access-logfile", "access")
    (worker,) = server.worker_pids()
    access = server.directory / "access"
    assert server.request("/pid").status == 200
    server.wait_for(lambda: "/pid" in access.read_text(), "the access line")
    access.rename(server.directory / "old")
    server.signal(signal.SIGUSR1)
    server.wait_for(access.exists, "the new file")
    server.wait_for(lambda: server.request("/clock").status == 200 and "/clock" in access.read_text(), "a line in it")
    assert server.request("/pid").text == str(worker)


def test_ttin_and_ttou_change_the_number_of_workers(gunicorn: Servers) -> None:
    """The oldest leaves, gracefully."""
    server = gunicorn("asgi:app", *LONG)
    (oldest,) = server.worker_pids()
    assert server.request().status == 200
    server.signal(signal.SIGTTIN)
    server.wait_workers(lambda pids: len(pids) == 2, "a second worker")
    server.wait_log("startup in", 2)
    server.signal(signal.SIGTTOU)
    server.wait_workers(lambda pids: len(pids) == 1 and oldest not in pids, "the oldest to leave")
    assert left_by_itself(server, oldest)


# -- heartbeats


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_a_long_response_outlives_a_short_timeout(gunicorn: Servers, app: str) -> None:
    """``--timeout 1`` and four seconds of work: heartbeats come from the loop."""
    server = gunicorn(app, "--timeout", "1", "--config", str(HOOKS))
    (worker,) = server.worker_pids()
    assert server.request("/beats/8").text == "." * 8 + str(worker)
    assert "WORKER TIMEOUT" not in server.log()


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_heartbeats_go_on_while_draining(gunicorn: Servers, app: str) -> None:
    """TERM to one worker with ``--timeout 1``: it is not killed before its response is sent."""
    server = gunicorn(app, "--timeout", "1", "--graceful-timeout", "30", "--config", str(HOOKS))
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/beats/8")
        assert client.head()[0] == 200
        server.signal(signal.SIGTERM, worker)
        assert b"".join(iter(client.chunk, b"")) == b"." * 8 + str(worker).encode()
    server.wait_log(f"hook worker_exit {worker} ")
    assert "WORKER TIMEOUT" not in server.log()


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_without_a_timeout_the_worker_does_not_spin(gunicorn: Servers, app: str) -> None:
    """``--timeout 0``: two seconds of idling cost a handful of heartbeats, not thousands."""
    server = gunicorn(app, "--timeout", "0", "--config", str(HOOKS))
    (worker,) = server.worker_pids()
    assert server.request("/beats/4").text == "." * 4 + str(worker)
    assert server.stop() == 0
    match = re.search(rf"hook worker_exit {worker} after (\d+) heartbeats", server.log())
    assert match is not None
    assert int(match[1]) < 50


def test_a_blocked_loop_is_noticed(gunicorn: Servers) -> None:
    """``--timeout 1``: the arbiter aborts, the hook runs, the worker leaves with 1 and is replaced."""
    server = gunicorn("asgi:app", "--timeout", "1", "--config", str(HOOKS), dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/block-loop/noticed")
        server.wait_log("WORKER TIMEOUT")
        server.wait_log(f"hook worker_abort {worker}")
        server.wait_log(f"hook worker_exit {worker} ")
        assert not client.rest().startswith(b"HTTP/1.1 200")
    server.wait_log("Booting worker with pid", 2)
    assert server.request().status == 200


def test_a_stopped_worker_leaves_nothing_open(gunicorn: Servers) -> None:
    """Requests of every kind, then TERM: no warning about an unclosed resource (the fixture looks)."""
    server = gunicorn("asgi:app", "--keep-alive", "60", env={"PYTHONASYNCIODEBUG": "1"})
    server.open("executor")
    with server.connect() as client:
        assert client.request("/chunks/3").status == 200
        assert client.request("/echo", method="POST", body=b"x" * 100_000).status == 200
        assert client.request("/block-executor/executor").status == 200
    with socket.create_connection(("127.0.0.1", server.port)):
        pass
    assert server.stop() == 0
