"""Streams end when their worker leaves: how soon, and what their clients see."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client, Truncated
from tests.e2e.harness import Gunicorn, Servers

pytestmark = pytest.mark.e2e

#: Seconds that a server has to leave, of which no stream here may take more than a part.
GRACEFUL = ("--graceful-timeout", "30")
LONGEST = 12.0


def stream(client: Client, path: str) -> None:
    """Begin a stream."""
    client.start(path)
    assert client.head()[0] == 200
    assert client.chunk() == b"data: begin\n\n"


def rest(client: Client) -> tuple[bytes, bool]:
    """What follows, and whether it came to its end."""
    data = b""
    try:
        while part := client.chunk():
            data += part
        client.fields()
    except Truncated:
        return data, False
    return data, True


def drained(server: Gunicorn) -> float:
    """End the server; returns the seconds of its drain."""
    assert server.stop() == 0
    (seconds,) = re.findall(r"([\d.]+) s to drain", server.log())
    return float(seconds)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(
    ("path", "seen", "whole"),
    [
        ("/events/listens", "stream saw the disconnect", True),
        ("/events/sends", "stream saw an OSError", True),
        ("/events/idles", "stream was cancelled", True),
        ("/events/ends", "stream has ended itself", True),
        ("/lines/listens", "stream saw the disconnect", False),
        ("/lines/sends", "stream saw an OSError", False),
        ("/lines/idles", "stream was cancelled", False),
        ("/lines/ends", "stream has ended itself", True),
    ],
)
def test_a_stream_of_asgi_is_asked_to_end(gunicorn: Servers, path: str, seen: str, whole: bool, loop: str) -> None:
    """Server-sent events, and what the application ends itself, have their last chunk; everything else is cut."""
    server = gunicorn("streams:app", *GRACEFUL, "--asgi-loop", loop, env={"HYBRIDWORKER_STREAM_DRAIN": "0"})
    with server.connect() as client:
        stream(client, path)
        server.wait_log(r"stream \w+ begun")
        server.signal(signal.SIGTERM)
        data, complete = rest(client)
    assert complete is whole
    assert data.endswith(b"bye\n\n") is path.endswith("/ends")
    assert drained(server) < LONGEST
    assert seen in server.log()
    assert f"Streams asked to end: 1, of which {int(not whole)} were cut" in server.log()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize(("app", "path"), [("app", "/lines/idles"), ("wsgi", "/lines/sends")])
def test_a_body_that_ends_with_its_connection_is_cut_by_a_reset(
    gunicorn: Servers, app: str, path: str, loop: str
) -> None:
    """HTTP/1.0 knows no other way to say that something is missing."""
    server = gunicorn(f"streams:{app}", *GRACEFUL, "--asgi-loop", loop, env={"HYBRIDWORKER_STREAM_DRAIN": "0"})
    with server.connect() as client:
        client.send(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        server.wait_log(r"stream \w+ begun")
        client.until(b"data: begin")
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionResetError):
            while client.socket.recv(1 << 16):
                pass
    assert server.wait() == 0


@pytest.mark.parametrize(("path", "whole"), [("/events/sends", True), ("/lines/sends", False)])
def test_a_generator_of_wsgi_is_closed_between_two_items(gunicorn: Servers, path: str, whole: bool) -> None:
    """Its thread is free, and ``close()`` was called."""
    server = gunicorn("streams:wsgi", "--threads", "2", *GRACEFUL, env={"HYBRIDWORKER_STREAM_DRAIN": "0"})
    with server.connect() as client:
        stream(client, path)
        server.wait_log("stream sends begun")
        server.signal(signal.SIGTERM)
        assert rest(client)[1] is whole
    assert drained(server) < LONGEST
    assert "generator was closed" in server.log()


@pytest.mark.parametrize("app", ["app", "wsgi"])
def test_an_application_that_asks_ends_by_itself(gunicorn: Servers, app: str) -> None:
    """``is_leaving()``, in a task and in a thread; nothing is cut, and no variable is set."""
    server = gunicorn(f"streams:{app}", "--threads", "2", *GRACEFUL)
    with server.connect() as client:
        stream(client, "/lines/asks")
        server.signal(signal.SIGTERM)
        data, complete = rest(client)
    assert complete
    assert data.endswith(b"data: left\n\n")
    assert drained(server) < LONGEST


@pytest.mark.parametrize("value", ["1.5", None])
def test_a_stream_has_the_time_that_it_is_given(gunicorn: Servers, value: str | None) -> None:
    """Without a value it has the graceful timeout, less what is kept."""
    server = gunicorn("streams:app", "--graceful-timeout", "4", env={"HYBRIDWORKER_STREAM_DRAIN": value})
    with server.connect() as client:
        stream(client, "/events/sends")
        server.wait_log("stream sends begun")
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        assert rest(client)[1] is (value is not None)
        assert time.monotonic() - begun > 1.4
    server.stop()


def test_events_do_not_hold_up_a_reload(gunicorn: Servers, tmp_path: Path) -> None:
    """With ``--reload`` nothing need be set: the next worker is there before anybody could look for it."""
    watched = tmp_path / "watched"
    watched.touch()
    server = gunicorn(
        "streams:app", "--reload", "--reload-engine", "poll", "--reload-extra-file", str(watched), *GRACEFUL
    )
    with server.connect() as listens, server.connect() as idles:
        for client, way in ((listens, "listens"), (idles, "idles")):
            stream(client, f"/events/{way}")
            server.wait_log(f"stream {way} begun")
        server.touch(watched)
        assert rest(listens)[1]
        assert rest(idles)[1]
        server.wait_log("Booting worker with pid", 2)
    (seconds,) = re.findall(r"([\d.]+) s to drain", server.log())
    assert float(seconds) < 6  # it is 0.3; without the variable it was 30


def test_a_thread_that_makes_a_stream_does_not_hold_up_a_reload(gunicorn: Servers, tmp_path: Path) -> None:
    """It blocks between two events, and is left behind after a second."""
    watched = tmp_path / "watched"
    watched.touch()
    reload = ("--reload", "--reload-engine", "poll", "--reload-extra-file", str(watched))
    server = gunicorn("streams:wsgi", "--threads", "2", *reload, *GRACEFUL)
    with server.connect() as client:
        stream(client, "/events/idles")
        server.wait_log("gate held reached")
        server.touch(watched)
        assert rest(client)[1]
        server.wait_log("Booting worker with pid", 2)
    (seconds,) = re.findall(r"([\d.]+) s to drain", server.log())
    assert float(seconds) < 8


@pytest.mark.parametrize("workers", [2, 4])
def test_a_deploy_ends_the_streams_of_every_worker(gunicorn: Servers, workers: int) -> None:
    """HUP, under the new workers: each client gets its last chunk and asks again."""
    server = gunicorn("streams:app", *GRACEFUL, env={"HYBRIDWORKER_STREAM_DRAIN": "0"}, workers=workers)
    server.wait_log("Serving ", workers)
    clients = [server.connect() for _ in range(8)]
    for client in clients:
        stream(client, "/events/listens")
    old = set(server.worker_pids())
    server.signal(signal.SIGHUP)
    for client in clients:
        assert rest(client) == (b"", True)
        client.close()
    server.wait_workers(lambda now: len(now) == workers and not old & set(now), "all to be replaced")
    with server.connect() as client:
        stream(client, "/events/ends")
