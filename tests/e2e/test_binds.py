"""Where a worker listens: TCP, several binds, unix sockets, descriptors that were inherited."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Gunicorn, Servers, wait_gone

pytestmark = pytest.mark.e2e


def scope(server: Gunicorn, bind: str) -> Any:
    """The scope that a request on ``bind`` has."""
    with server.connect(bind) as client:
        return json.loads(client.request("/scope").body)


def test_h16_h18_tcp_addresses_are_in_the_scope(gunicorn: Servers) -> None:
    """Both ends of the connection."""
    server = gunicorn("asgi:app")
    with server.connect() as client:
        shown = json.loads(client.request("/scope").body)
        assert shown["client"] == list(client.socket.getsockname())
        assert shown["server"] == ["127.0.0.1", server.port]


def test_several_binds_are_served_by_each_worker(gunicorn: Servers, tmp_path: Path) -> None:
    """Two ports and a unix socket."""
    server = gunicorn("asgi:app", "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/socket")
    first, second, path = server.binds
    assert first != second
    assert scope(server, first)["server"] == ["127.0.0.1", int(first.rpartition(":")[2])]
    assert scope(server, second)["server"] == ["127.0.0.1", int(second.rpartition(":")[2])]
    assert scope(server, path)["server"] == [f"{tmp_path}/socket", None]


def test_h17_an_ipv6_address_has_two_parts(gunicorn: Servers) -> None:
    """Neither flow nor scope."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
    server = gunicorn("asgi:app", "--bind", "[::1]:0")
    shown = scope(server, server.url)
    assert len(shown["client"]) == 2
    assert shown["client"][0] == "::1"
    assert shown["server"] == ["::1", server.port]


def test_h18_a_unix_socket_in_the_scope(gunicorn: Servers, tmp_path: Path) -> None:
    """The path and nothing else; the client has no address."""
    server = gunicorn("asgi:app", "--bind", f"unix:{tmp_path}/socket")
    shown = scope(server, server.url)
    assert shown["server"] == [f"{tmp_path}/socket", None]
    assert shown["client"] is None


def test_a_unix_socket_under_wsgi(gunicorn: Servers, tmp_path: Path) -> None:
    """An environ as gunicorn's own workers make it."""
    server = gunicorn("wsgi:app", "--bind", f"unix:{tmp_path}/socket")
    with server.connect() as client:
        client.send("GET /environ HTTP/1.1\r\nHost: www.example.org\r\n\r\n")
        environ = json.loads(client.response().body)
    assert environ["REMOTE_ADDR"] == ""
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("www.example.org", "80")


def test_the_file_of_a_unix_socket_outlives_a_worker(gunicorn: Servers, tmp_path: Path) -> None:
    """It is the master's: a worker that is recycled must not make the service unreachable."""
    path = tmp_path / "socket"
    server = gunicorn("asgi:app", "--bind", f"unix:{path}")
    inode = path.stat().st_ino
    # A worker that has answered has its own signal handlers; until then TERM would be lost in those of the master.
    assert server.request().status == 200
    for _ in range(2):
        (worker,) = server.worker_pids()
        server.signal(signal.SIGTERM, worker)
        wait_gone(worker)
        assert server.request().status == 200
        assert path.stat().st_ino == inode
    assert server.stop() == 0
    assert not path.exists()


def test_the_file_survives_a_reload(gunicorn: Servers, tmp_path: Path) -> None:
    """HUP keeps the listeners."""
    path = tmp_path / "socket"
    server = gunicorn("asgi:app", "--bind", f"unix:{path}")
    (worker,) = server.worker_pids()
    server.signal(signal.SIGHUP)
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "another worker")
    assert server.request().status == 200


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket to be inherited."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_a_descriptor_as_a_bind(gunicorn: Servers, listener: socket.socket) -> None:
    """``--bind fd://N``."""
    fd = listener.fileno()
    server = gunicorn("asgi:app", "--bind", f"fd://{fd}", pass_fds=[fd])
    assert server.port == listener.getsockname()[1]
    assert server.request().status == 200


def test_descriptors_of_an_upgraded_master(gunicorn: Servers, listener: socket.socket) -> None:
    """``GUNICORN_FD``: how a new master takes over after USR2."""
    fd = listener.fileno()
    env = {"GUNICORN_FD": str(fd), "GUNICORN_PID": str(os.getpid())}
    server = gunicorn("asgi:app", env=env, pass_fds=[fd])
    assert server.port == listener.getsockname()[1]
    assert server.request().status == 200
    assert server.stop() == 0
    socket.create_connection(listener.getsockname()).close()  # ours still listens: nobody shut it down


def test_descriptors_of_systemd(gunicorn: Servers, listener: socket.socket) -> None:
    """``LISTEN_FDS``: socket activation hands over descriptor 3."""
    fd = listener.fileno()
    script = f'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    server = gunicorn("asgi:app", pass_fds=[fd], prefix=["bash", "-c", script, "bash"])
    assert server.port == listener.getsockname()[1]
    assert server.request().status == 200


def test_with_reuse_port_each_worker_has_its_own_socket(gunicorn: Servers) -> None:
    """The child makes it after the fork."""
    with (
        socket.socket() as reserved
    ):  # bound and not listening: nobody else gets the port, and no connection comes here
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        server = gunicorn("asgi:app", "--reuse-port", "--bind", address, workers=2, ready=False)
        server.wait_log("startup in", 2)
        with server.connect(address) as client:
            assert int(client.request("/pid").text) in server.worker_pids()
        assert server.stop() == 0
