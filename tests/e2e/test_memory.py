"""What a worker loads, and what workers share: the heap of the master, also the large one of ``--preload``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.e2e.harness import Servers, memory

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which pages are private"),
]

MIB = 2**20

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def private(pid: int) -> int:
    """Bytes of memory that the process ``pid`` has for itself."""
    rows = re.findall(r"^Private_Dirty:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return sum(int(row) for row in rows) * 1024


@pytest.mark.parametrize("app", ["app", "wsgi"])
def test_a_preloaded_heap_stays_shared(gunicorn: Servers, app: str) -> None:
    """Of 200 MiB, less than 15 are private after 1,000 requests, and so it is for workers that come later."""
    server = gunicorn(f"large_heap:{app}", "--preload", "--threads", "2", workers=2)
    for _ in range(10):
        with server.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            assert all(client.response().text == "4500" for _ in range(200))
    pids = server.worker_pids()
    assert max(memory(pid) for pid in pids) > 200 * MIB
    assert max(private(pid) for pid in pids) < 15 * MIB
    server.signal(1)
    pids = server.wait_workers(lambda now: len(now) == 2 and not set(pids) & set(now), "other workers")
    assert server.request().text == "4500"
    assert max(private(pid) for pid in pids) < 15 * MIB


def test_a_worker_at_rest_shares_what_the_master_has(gunicorn: Servers) -> None:
    """Most of its memory, without ``--preload``: its garbage collector writes to nothing that the master has loaded."""
    server = gunicorn("asgi:app")
    [worker] = server.worker_pids()
    assert server.request().status == 200
    assert private(worker) < 0.4 * memory(worker)


#: What few applications need, or none of this kind.
SELDOM = {"websockets", "hpack", "uwsgi", "jsonline", "dispatcher", "parts", "lentthreads", "certificates", "carrier"}


@pytest.mark.parametrize(
    ("app", "more"), [("app", {"asgiref.wsgi", "middleware", "threads", "spool"}), ("wsgi", {"handshake", "frames"})]
)
def test_a_worker_loads_what_its_application_needs(gunicorn: Servers, app: str, more: set[str]) -> None:
    """The library for WebSockets with the first of them: until then it would be a MiB for nothing."""
    server = gunicorn(f"loaded:{app}")
    loaded = server.request().text.split("\n")
    ours = {name.rpartition(".")[2] for name in loaded if name.startswith("hybridworker.")}
    assert {"cycle", "server", "hybrid"} < ours
    assert not {name for name in SELDOM | more if name in ours or name in loaded}
    if app == "app":
        with server.connect() as client:
            client.send(HANDSHAKE)
            assert client.head()[0] == 101
        assert {"websockets", "hybridworker.websocket.frames"} < set(server.request().text.split("\n"))
