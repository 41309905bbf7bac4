"""
A WSGI application on the wire: what any application relies on.

The whole of PEP 3333 is tested beside :mod:`hybridworker.wsgi.responder`; here a real gunicorn, a
real socket, real threads. Most handlers run under ``wsgiref.validate``.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket

import pytest

from tests.e2e.client import Truncated
from tests.e2e.harness import Gunicorn, Servers, memory

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(shared_gunicorn: Servers) -> Gunicorn:
    return shared_gunicorn("wsgi:app", "--threads", "4", "--keep-alive", "60")


@pytest.fixture(scope="module")
def failing(shared_gunicorn: Servers) -> Gunicorn:
    """The same application, for requests that leave errors in the log."""
    return shared_gunicorn("wsgi:app", "--threads", "4", dirty=True)


def test_a_connection_is_kept_alive(server: Gunicorn) -> None:
    """Three requests, one connection."""
    with server.connect() as client:
        for _ in range(3):
            response = client.request()
            assert (response.status, response.reason, response.text) == (200, "OK", "Hello from WSGI")


def test_s2_the_environ_describes_the_request(server: Gunicorn) -> None:
    """The keys of PEP 3333 and of CGI."""
    environ = json.loads(
        server.request("/environ/caf%C3%A9?a=1&b=%20", headers="X-One: 1\r\nX-One: 2\r\nX_Under: 3\r\n").body
    )
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] == "/environ/caf\xc3\xa9"  # S6: UTF-8 bytes as latin-1 text
    assert environ["RAW_URI"] == "/environ/caf%C3%A9?a=1&b=%20"
    assert environ["QUERY_STRING"] == "a=1&b=%20"
    assert environ["SERVER_NAME"] == "127.0.0.1"
    assert environ["SERVER_PORT"] == str(server.port)
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["HTTP_X_ONE"] == "1,2"
    assert "HTTP_X_UNDER" not in environ  # S5
    assert environ["wsgi.version"] == [1, 0]
    assert environ["wsgi.url_scheme"] == "http"
    assert (environ["wsgi.multithread"], environ["wsgi.multiprocess"], environ["wsgi.run_once"]) == (True, False, False)


@pytest.mark.parametrize("size", [0, 1, 65536, 10 * MIB])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_s7_a_body_arrives_as_it_was_sent(server: Gunicorn, size: int, how: str) -> None:
    """Whole, and with an end, however it was framed."""
    body = bytes(range(256)) * (size // 256) + b"r" * (size % 256)
    with server.connect() as client:
        if how == "length":
            response = client.request("/digest", method="POST", body=body)
        else:
            client.send("POST /digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, size, 100_000):
                part = body[start : start + 100_000]
                client.send(b"%x\r\n%b\r\n" % (len(part), part))
            client.send("0\r\n\r\n")
            response = client.response()
        assert response.text == f"{size} {hashlib.sha256(body).hexdigest()}"
        assert client.request().status == 200


def test_a_response_without_length_is_chunked_and_streamed(server: Gunicorn) -> None:
    """The first item is on the wire while the application works on the second."""
    with server.connect() as client:
        client.start("/head-then-gate/stream")
        assert client.head()[0] == 200
        assert client.chunk() == b"first "
        server.open("stream")
        assert client.chunk() == b"last"
        assert client.chunk() == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_s14_close_is_called_in_the_thread_of_the_iteration(server: Gunicorn, method: str) -> None:
    """Also when no body is sent (S16)."""
    before = server.log().count("closed in the same thread")
    with server.connect() as client:
        response = client.request("/chunks/3", method=method)
        assert response.text == ("chunk 0\nchunk 1\nchunk 2\n" if method == "GET" else "")
        assert client.request().status == 200
    server.wait_log("closed in the same thread: ", before + 1)
    assert "closed in the same thread: False" not in server.log()


def test_s23_as_many_calls_run_at_once_as_there_are_threads(server: Gunicorn) -> None:
    """Four requests are inside the application at the same time, beside the loop."""
    clients = [server.connect() for _ in range(4)]
    for number, client in enumerate(clients):
        client.start(f"/at-gate/t{number}")
    for number in range(4):
        server.wait_log(f"gate t{number} reached")
    for number in reversed(range(4)):
        server.open(f"t{number}")
    assert [client.response().text for client in clients] == [f"passed t{number}" for number in range(4)]
    for client in clients:
        client.close()


def test_with_one_thread_calls_never_overlap(gunicorn: Servers) -> None:
    """The second request is taken, and waits until the first has been answered."""
    server = gunicorn("wsgi:app", "--threads", "1")
    with server.connect() as first, server.connect() as second:
        first.start("/at-gate/a")
        server.wait_log("gate a reached")
        second.start("/at-gate/b")
        server.open("b")
        server.open("a")
        assert first.response().text == "passed a"
        assert second.response().text == "passed b"
    log = server.log()
    assert log.index("gate a reached") < log.index("gate b reached")


@pytest.mark.parametrize(
    "beginning",
    [
        "GET / HTTP/1.1\r\nHos",
        "POST /digest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nthe first bytes",
    ],
    ids=["head", "body"],
)
def test_a_request_that_is_still_coming_in_holds_no_thread(gunicorn: Servers, beginning: str) -> None:
    """Ten slow clients and one thread: another request is answered meanwhile."""
    server = gunicorn("wsgi:app", "--threads", "1")
    slow = [server.connect() for _ in range(10)]
    for client in slow:
        client.send(beginning)
    assert server.request().text == "Hello from WSGI"
    for client in slow:
        client.reset()


def test_applications_do_not_run_in_the_thread_of_the_loop(server: Gunicorn) -> None:
    """A blocked call must not block anybody else."""
    assert server.request("/thread").text.endswith("False")


def test_s25_a_client_that_does_not_read_holds_the_application(server: Gunicorn) -> None:
    """The thread waits, memory stays bounded, nothing is lost."""
    (worker,) = server.worker_pids()
    before = memory(worker)
    with server.connect() as client, server.connect() as other:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.start("/flood")
        assert client.head()[0] == 200
        server.wait_log("at 0 bytes")
        assert other.request("/beats/2").status == 200  # a second in which the flood could go on
        assert f"at {128 * MIB} bytes" not in server.log()
        assert memory(worker) - before < 32 * MIB
        assert client.exactly(256 * MIB).count(b"x") == 256 * MIB


def test_s24_a_client_that_leaves_ends_the_iteration(server: Gunicorn) -> None:
    """The next write fails, ``close()`` runs, and the thread is free again."""
    before = server.log().count("closed in the same thread")
    clients = [server.connect() for _ in range(4)]
    for client in clients:
        client.start("/endless")
        client.head()
    for client in clients:
        client.reset()
    server.wait_log("closed in the same thread: True", before + 4)
    assert server.request().status == 200


def test_a_body_that_is_cut_is_not_taken_for_a_whole_one(gunicorn: Servers) -> None:
    """The application is not called, or its read fails; it never sees a false end."""
    server = gunicorn("wsgi:app", "--threads", "2", dirty=True)
    with server.connect() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n0123456789")
        client.half_close()
        answer = client.rest()
    assert not answer.startswith(b"HTTP/1.1 200")
    assert server.request().status == 200


def test_s22_an_application_that_raises_is_a_500(failing: Gunicorn) -> None:
    """With its traceback in the log, and the worker goes on."""
    assert failing.request("/raises").status == 500
    failing.wait_log("ValueError: raised before the head")
    assert failing.request().status == 200


def test_s22_an_application_that_raises_after_its_head_is_cut(failing: Gunicorn) -> None:
    """Never a false end; ``close()`` runs all the same."""
    with failing.connect() as client, pytest.raises(Truncated):
        client.request("/raises-after-body")
    failing.wait_log("ValueError: raised after the head")
    failing.wait_log("closed in the same thread: True")
    assert failing.request().status == 200


def test_a_log_that_is_reopened_amid_a_call(gunicorn: Servers) -> None:
    """The call goes on writing to wsgi.errors, into the new file."""
    server = gunicorn("wsgi:app", "--bind", "unix:socket", "--error-logfile", "errors", ready=False)
    log, old = server.directory / "errors", server.directory / "old"

    def wait(text: str) -> None:
        server.wait_for(lambda: log.exists() and text in log.read_text(), f"{text!r} in the error log")

    wait("Serving WSGI application")
    with server.connect(f"unix:{server.directory}/socket") as client:
        client.start("/errors-around-gate/reopened")
        server.wait_log("gate reopened reached")
        log.rename(old)
        (worker,) = server.worker_pids()
        server.signal(signal.SIGUSR1, worker)
        server.wait_for(log.exists, "the new error log")
        server.open("reopened")
        assert client.response().text == "written"
    assert "written before the gate\n" in old.read_text()
    assert "written behind the gate\n" in log.read_text()


def test_an_application_that_closes_its_errors(server: Gunicorn) -> None:
    """The stream is everybody's: the next request writes to it all the same."""
    for count in (1, 2):
        assert server.request("/closes-errors").text == "closed"
        server.wait_log(r"^written before close\(\)$", count)


def test_an_error_of_close_is_told_although_the_client_has_left(failing: Gunicorn) -> None:
    """The leaving is no error, but it excuses none."""
    with failing.connect() as client:
        client.start("/closes-badly")
        failing.wait_log("streaming badly")
        client.reset()
    failing.wait_log(r"^RuntimeError: raised in close\(\)$")
    assert failing.request().status == 200


def test_l16_no_lifespan_for_wsgi(server: Gunicorn) -> None:
    """A WSGI application is never called with a scope."""
    assert "lifespan" not in server.log().lower()


def test_an_upgrade_is_plain_http_for_wsgi(server: Gunicorn) -> None:
    """An application that does not take the socket answers as if it had not been asked; that ends the connection."""
    headers = (
        "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    with server.connect() as client:
        assert client.request(headers=headers).text == "Hello from WSGI"
        assert client.at_end()


def test_expect_100_continue(server: Gunicorn) -> None:
    """The body is asked for when the application reads it."""
    with server.connect() as client:
        client.send("POST /digest HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.response().status == 100
        client.send("hello")
        assert client.response().text == f"5 {hashlib.sha256(b'hello').hexdigest()}"


def test_a_body_that_is_read_behind_the_head(server: Gunicorn) -> None:
    """A client that waits for a 100 gets it, before the head of the response."""
    with server.connect() as client:
        client.send(
            "POST /reads-behind-its-head HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert client.response().status == 100
        assert client.head()[0] == 200
        assert client.chunk() == b"begun "
        client.send("hello")
        assert client.chunk() == b"hello"
        assert client.chunk() == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_read_in_close(server: Gunicorn, chunked: bool) -> None:
    """The client has all of its response by then."""
    before = server.log().count("drained 100000 bytes")
    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000"
    with server.connect() as client:
        client.send(f"POST /drains-in-close HTTP/1.1\r\nHost: test\r\n{framing}\r\n\r\n")
        assert client.response().text == "ok"
        client.send(f"{100000:x}\r\n" * chunked + "x" * 100000 + "\r\n0\r\n\r\n" * chunked)
        server.wait_log("drained 100000 bytes", before + 1)
