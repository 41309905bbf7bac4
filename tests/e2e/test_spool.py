"""Slow readers of WSGI responses of any size, on a real disk."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers, memory, wait_gone
from tests.e2e.test_wsgi_websocket import Site

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
PIECE = bytes(range(256)) * 256


def spools(pid: int, folder: Path) -> list[str]:
    """The files without a name that a process has open in ``folder``."""
    names = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
    return [name for name in names if name.startswith(f"{folder}/#")]


def slow(server: Gunicorn, path: str, site: Site) -> Client:
    """A client that has read no more than the head."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    raw.settimeout(DEADLINE)
    raw.connect(("127.0.0.1", server.port))
    wrapped = raw if site.context is None else site.context.wrap_socket(raw, server_hostname="localhost")
    client = Client(wrapped, DEADLINE)
    client.start(path)
    assert client.head()[0] == 200
    return client


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("path", ["/generator?8", "/whole?8"])
def test_slow_readers_hold_no_thread(gunicorn: Servers, tmp_path: Path, path: str, tls: bool) -> None:
    """60 of them beside 2 threads: all have begun, others are served, memory stays, and every byte arrives."""
    site = Site(tmp_path, tls)
    folder = tmp_path / "spool"
    folder.mkdir()
    server = gunicorn("long:app", "--threads", "2", *site.options, env={"TMPDIR": str(folder)})
    [worker] = server.worker_pids()
    before = memory(worker)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(slow(server, path, site)) for _ in range(60)]
        fast = stack.enter_context(slow(server, "/", site))
        assert fast.exactly(5) == b"hello"
        assert len(spools(worker, folder)) > 50
        assert memory(worker) - before < 60 * 1.2 * MIB + (32 * MIB if path.startswith("/whole") else 0)
        assert os.listdir(folder) == []
        for client in clients[:4]:
            received = bytearray()
            if path.startswith("/whole"):
                received += client.exactly(8 * MIB)
            else:
                while chunk := client.chunk():
                    received += chunk
            assert received == PIECE * (8 * MIB // len(PIECE))
    server.wait_for(lambda: not spools(worker, folder), "the files to be closed")


def test_an_endless_response_keeps_its_own_thread_only(gunicorn: Servers, tmp_path: Path) -> None:
    """The disk has its limit for it, and nothing is left behind when the worker is killed."""
    env = {"TMPDIR": str(tmp_path), "HYBRIDWORKER_RESPONSE_SPOOL": "2"}
    server = gunicorn("long:app", "--threads", "2", env=env, dirty=True)
    [worker] = server.worker_pids()
    with slow(server, "/endless", Site(tmp_path, False)):
        server.wait_for(lambda: spools(worker, tmp_path), "the file")
        for _ in range(20):
            assert server.request().text == "hello"
        before = memory(worker)
        assert server.request("/generator?1").body
        assert memory(worker) - before < 8 * MIB
        server.signal(signal.SIGKILL, worker)
        wait_gone(worker)
    assert [name for name in os.listdir(tmp_path) if not name.startswith("hw-")] == []


def test_a_client_that_takes_nothing_is_cut_off(gunicorn: Servers, tmp_path: Path) -> None:
    """Also while it is sent from the disk, which is then free."""
    env = {"TMPDIR": str(tmp_path), "HYBRIDWORKER_WRITE_TIMEOUT": "1"}
    server = gunicorn("long:app", "--log-level", "debug", env=env)
    [worker] = server.worker_pids()
    with slow(server, "/endless", Site(tmp_path, False)):
        server.wait_for(lambda: spools(worker, tmp_path), "the file")
        server.wait_log("Client disconnected: GET /endless|the client has gone|takes no bytes")
        server.wait_for(lambda: not spools(worker, tmp_path), "the file to be closed")
    assert server.request().text == "hello"


def test_off_means_off(gunicorn: Servers, tmp_path: Path) -> None:
    """The thread waits for its client."""
    server = gunicorn("long:app", env={"TMPDIR": str(tmp_path), "HYBRIDWORKER_RESPONSE_SPOOL": "0"})
    [worker] = server.worker_pids()
    with slow(server, "/generator?8", Site(tmp_path, False)):
        assert not spools(worker, tmp_path)
    assert server.request().text == "hello"


@pytest.mark.parametrize("folder", ["/dev/shm", "/proc/nowhere"])
def test_a_folder_that_cannot_be_used_is_one_line(gunicorn: Servers, tmp_path: Path, folder: str) -> None:
    """Memory is no disk. Responses are complete all the same."""
    server = gunicorn("long:app", "--worker-tmp-dir", str(tmp_path), env={"TMPDIR": folder})
    for _ in range(2):
        with slow(server, "/generator?8", Site(tmp_path, False)) as client:
            server.wait_log(r"\[WARNING\] Responses to slow clients hold their threads.*" + folder)
            received = 0
            while chunk := client.chunk():
                received += len(chunk)
            assert received == 8 * MIB
    assert server.log().count("[WARNING]") == 1


#: How a folder is mounted, and what a disk then says that is written to.
DISKS = {
    "read-only": ("mount --bind $0 $0 && mount -o remount,bind,ro $0", "Read-only file system"),
    "full": (
        "truncate -s 4M $0.image && mkfs.ext4 -q $0.image && mount -o loop $0.image $0",
        "No space left on device",
    ),
}


@pytest.mark.parametrize("kind", DISKS)
def test_a_disk_that_takes_nothing_is_one_line(gunicorn: Servers, tmp_path: Path, kind: str) -> None:
    """Read-only from the beginning, or full amid a response: threads wait, others are served, every byte arrives."""
    mount, reason = DISKS[kind]
    folder = tmp_path / "spool"
    folder.mkdir()
    prefix = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', str(folder)]  # seen by this server alone
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is for root")
    options = ("--threads", "3", "--worker-tmp-dir", str(tmp_path))
    server = gunicorn("long:app", *options, env={"TMPDIR": str(folder)}, prefix=prefix)
    site = Site(tmp_path, False)
    with slow(server, "/generator?8", site) as one, slow(server, "/whole?8", site) as other:
        server.wait_log(rf"\[WARNING\] Responses to slow clients hold their threads.*: {reason} \({folder}\)$")
        for _ in range(5):
            assert server.request().text == "hello"
        received = b"".join(iter(one.chunk, b""))
        assert received == PIECE * (8 * MIB // len(PIECE))
        assert other.exactly(8 * MIB) == received
    assert server.log().count("[WARNING]") == 1
