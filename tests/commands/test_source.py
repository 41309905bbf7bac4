"""Source: how the address of a metrics page is read, and what is no page."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridworker.commands.source import Source, Unavailable
from tests.commands.pages import text
from tests.waiting import DEADLINE


@pytest.mark.parametrize(
    ("url", "address", "path"),
    [
        ("unix:/run/app.sock:/metrics", "/run/app.sock", "/metrics"),
        ("unix:/run/a:b.sock:/m/x", "/run/a:b.sock", "/m/x"),
        ("unix:///run/app.sock:/metrics", "/run/app.sock", "/metrics"),
        ("unix:/run/app.sock", "/run/app.sock", "/metrics"),
        ("unix:app.sock:/m", "app.sock", "/m"),
    ],
)
def test_a_unix_socket(url: str, address: str, path: str) -> None:
    """As in --bind, with the path behind it."""
    source = Source(url)
    assert (source.address, source.path) == (address, path)


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000/m", "127.0.0.1", 8000, "/m"),
        ("http://[::1]:8000", "::1", 8000, "/metrics"),
        ("localhost:8000/m?x=1", "localhost", 8000, "/m?x=1"),
        ("https://example.com/", "example.com", None, "/metrics"),
    ],
)
def test_a_url(url: str, host: str, port: int | None, path: str) -> None:
    """Without a path it is the usual one."""
    source = Source(url)
    assert (source.host, source.port, source.path) == (host, port, path)


@pytest.mark.parametrize("url", ["", "unix:", "ftp://x", "http://", "http://[::1", "http://x y/", "http://x:99999/"])
def test_what_is_no_address(url: str) -> None:
    """It is refused before anything is asked for."""
    with pytest.raises(ValueError):
        Source(url)


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], Source]]:
    """Makes a server that gives one answer to one request, and its address."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.settimeout(DEADLINE)
    threads = []

    def serve(answer: bytes) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    def start(answer: bytes) -> Source:
        threads.append(threading.Thread(target=serve, args=(answer,)))
        threads[-1].start()
        return Source(f"unix:{tmp_path / 's'}:/m")

    yield start
    for thread in threads:
        thread.join(DEADLINE)
    listener.close()


def test_a_page(answering: Callable[[bytes], Source]) -> None:
    """By HTTP over a unix socket."""
    body = text({"slot": 2, "pid": 7}).encode()
    page = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body).page()
    assert page.workers[2].pid == 7


@pytest.mark.parametrize(
    ("answer", "reason", "mistaken"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "/m answered 404: HYBRIDWORKER_METRICS_PATH=/m", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "/m is no metrics page of hybridworker", True),
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n", "/m answered 503", False),
        (b"", "closed connection without response", False),
        (b"SSH-2.0-x\r\n\r\n", "SSH-2.0-x", False),
    ],
)
def test_what_is_no_page(answering: Callable[[bytes], Source], answer: bytes, reason: str, mistaken: bool) -> None:
    """One line says what came instead."""
    with pytest.raises(Unavailable, match=reason) as raised:
        answering(answer).page()
    assert raised.value.mistaken is mistaken
    assert "\n" not in str(raised.value)
