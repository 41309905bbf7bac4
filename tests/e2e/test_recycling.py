"""
Recycling loses nothing: HUP, ``max_requests`` and TTOU under load.

The clients keep connections, pipeline, or make a connection for each request. What counts
as lost is a request without its answer: one that is refused, reset, cut, answered 5xx or
not at all. A kept-alive connection that the server ended *between* two requests, after it
had announced it or after silence, is no loss; a request on it that got no byte would be.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import signal
import threading
from types import TracebackType
from typing import Self

import pytest

from tests.e2e.harness import Gunicorn, Servers

pytestmark = pytest.mark.e2e

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Load:
    """Clients in a thread of their own, from entering to leaving the context."""

    def __init__(self, port: int, app_path: bytes = b"/") -> None:
        self.port = port
        self.request = GET.replace(b"/ ", app_path + b" ", 1)
        self.answers: collections.Counter[str] = collections.Counter()
        self.lost: list[str] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop.set()
        self.thread.join()

    @property
    def count(self) -> int:
        """Requests answered so far."""
        return self.answers.total()

    async def _run(self) -> None:
        kinds = [("kept", 1, 0)] * 3 + [("slow", 1, 0.02)] * 3 + [("pipelined", 4, 0)] * 2 + [("new", 1, 0)] * 2
        await asyncio.gather(*(self._client(*kind) for kind in kinds))

    async def _client(self, kind: str, depth: int, pause: float) -> None:
        while not self.stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as exc:
                self.lost.append(f"{kind}: connection: {exc!r}")
                return
            with contextlib.closing(writer):
                await self._connection(kind, depth, pause, reader, writer)

    async def _connection(
        self, kind: str, depth: int, pause: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while not self.stop.is_set():
            writer.write(self.request * depth)
            for sent in range(depth):
                try:
                    async with asyncio.timeout(30):
                        head = await reader.readuntil(b"\r\n\r\n")
                        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                        await reader.readexactly(length)
                except (OSError, EOFError, ValueError) as exc:
                    self.lost.append(f"{kind}: answer {sent}: {exc!r}")
                    return
                status = head.split(b" ", 2)[1].decode()
                self.answers[f"{kind} {status}"] += 1
                if status != "200":
                    self.lost.append(f"{kind}: {status}")
                if b"\r\nconnection: close\r\n" in head.lower():
                    return  # what was pipelined behind it is to be asked again (RFC 9112 9.6)
            if kind == "new":
                return
            await asyncio.sleep(pause)


def booted(server: Gunicorn) -> int:
    return server.log().count("Booting worker with pid")


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_hup_loses_no_request(gunicorn: Servers, app: str) -> None:
    """Twenty reloads in a row on two workers that also recycle by themselves, under load: every answer is a 200."""
    server = gunicorn(app, "--workers", "2", "--threads", "4", "--max-requests", "100", workers=2)
    with Load(server.port) as load:
        for _ in range(20):
            workers = set(server.worker_pids())
            answered = load.count
            server.signal(signal.SIGHUP)
            server.wait_workers(lambda pids, old=workers: not old & set(pids), "the old workers to leave")  # type: ignore[misc]
            server.wait_for(lambda before=answered: load.count > before + 20, "the load to go on")  # type: ignore[misc]
    assert load.lost == []
    assert all(kind.endswith(" 200") for kind in load.answers)
    assert len(load.answers) == 4


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_max_requests_loses_no_request(gunicorn: Servers, app: str) -> None:
    """Workers that recycle all the time, under load: every request is answered 200."""
    server = gunicorn(app, "--workers", "2", "--threads", "4", "--max-requests", "100", workers=2)
    with Load(server.port) as load:
        server.wait_for(lambda: booted(server) >= 12, "ten workers to be replaced")
    assert load.lost == []
    assert all(kind.endswith(" 200") for kind in load.answers)


def test_ttou_loses_no_request(gunicorn: Servers) -> None:
    """The worker that is one too many finishes what it has."""
    server = gunicorn("asgi:app", "--workers", "2", workers=2)
    with Load(server.port) as load:
        for _ in range(3):
            server.signal(signal.SIGTTIN)
            server.wait_workers(lambda pids: len(pids) == 3, "three workers")
            server.signal(signal.SIGTTOU)
            server.wait_workers(lambda pids: len(pids) == 2, "two workers")
            server.wait_for(lambda before=load.count: load.count > before + 20, "the load to go on")  # type: ignore[misc]
    assert load.lost == []


def test_max_requests_is_announced_and_exact(gunicorn: Servers) -> None:
    """The last response says close, the log says why, and the next worker serves on."""
    server = gunicorn("asgi:app", "--max-requests", "3")
    with server.connect() as client:
        for number in range(3):
            response = client.request("/", "GET", b"", "")
            assert (response.header("Connection") == "close") is (number == 2)
        assert client.at_end()
    server.wait_log("Autorestarting worker after current request")
    server.wait_log("Booting worker with pid", 2)
    assert server.request("/").status == 200


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_max_age_loses_no_request(gunicorn: Servers, workers: int) -> None:
    """Workers that are too old go one after another, as with ``max_requests``, and the reason is counted."""
    env = {"HYBRIDWORKER_MAX_AGE": "1", "HYBRIDWORKER_METRICS_PATH": "/metrics"}
    server = gunicorn("asgi:app", env=env, workers=workers)
    first = set(server.worker_pids())
    with Load(server.port) as load:
        server.wait_log(r"Autorestarting worker: it has served for [12] s, HYBRIDWORKER_MAX_AGE is 1\.", workers)
        server.wait_workers(lambda pids: len(pids) == workers and not first & set(pids), "all to be replaced")
        server.wait_for(lambda before=load.count: load.count > before + 20, "the load to go on")  # type: ignore[misc]
    assert load.lost == []
    assert 'hybridworker_recycles_total{reason="max_age"} ' in server.request("/metrics").text
    assert 'hybridworker_recycles_total{reason="max_age"} 0' not in server.request("/metrics").text


def test_health_answers_when_the_worker_serves_and_not_before(gunicorn: Servers) -> None:
    """The port is open from the beginning, because it is the master's: what looks at that alone is too early."""
    server = gunicorn("lifespans:at_gate", env={"HYBRIDWORKER_HEALTH_PATH": "/health"})
    server.wait_log("gate startup reached")
    with server.connect() as client:  # taken by the backlog
        client.start("/health")
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.settimeout(client.deadline)
        server.open("startup")
        assert client.response().text == "ok\n"
