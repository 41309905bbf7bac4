"""
HTTP/1.1 of an ASGI application, on the wire.

One server for the whole file; every test makes its own connections. Statement ids are
those of the checklist.
"""

from __future__ import annotations

import hashlib
import json
import select
import socket
from pathlib import Path

import pytest

from tests.e2e.client import Truncated
from tests.e2e.harness import Gunicorn, Servers, memory

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(shared_gunicorn: Servers) -> Gunicorn:
    return shared_gunicorn("asgi:app", "--keep-alive", "60")


@pytest.fixture(scope="module")
def failing(shared_gunicorn: Servers) -> Gunicorn:
    """The same application, for requests that leave errors in the log."""
    return shared_gunicorn("asgi:app", "--keep-alive", "60", dirty=True)


# -- one connection, several requests


def test_a_connection_is_kept_alive(server: Gunicorn) -> None:
    """Three requests, one connection, and nobody says close."""
    with server.connect() as client:
        for _ in range(3):
            response = client.request()
            assert (response.status, response.text) == (200, "Hello from ASGI")
            assert response.header("Connection") is None


def test_connection_close_is_obeyed(server: Gunicorn) -> None:
    """The answer says close too, and the connection ends."""
    with server.connect() as client:
        assert client.request(headers="Connection: close\r\n").header("Connection") == "close"
        assert client.at_end()


def test_without_keep_alive_the_first_answer_closes(gunicorn: Servers) -> None:
    """``--keep-alive 0``: announced and done."""
    server = gunicorn("asgi:app", "--keep-alive", "0")
    with server.connect() as client:
        assert client.request().header("Connection") == "close"
        assert client.at_end()


def test_an_idle_connection_is_closed(gunicorn: Servers) -> None:
    """``--keep-alive 1``: the connection ends by itself."""
    server = gunicorn("asgi:app", "--keep-alive", "1")
    with server.connect() as client:
        assert client.request().header("Connection") is None
        assert client.at_end()


def test_h47_pipelined_requests_are_answered_in_order(server: Gunicorn) -> None:
    """The first is held at a gate; the others, sent with it, wait for it."""
    with server.connect() as client:
        paths = ["/at-gate/pipeline", "/chunks/2", "/echo", "/"]
        for path in paths:
            client.start(path)
        server.wait_log("gate pipeline reached")
        readable, _, _ = select.select([client.socket], [], [], 0)
        assert not readable
        server.open("pipeline")
        answers = [client.response().text for _ in paths]
        assert answers == ["passed pipeline", "chunk 0\nchunk 1\n", "", "Hello from ASGI"]


def test_pipelined_requests_with_bodies_keep_their_bodies(server: Gunicorn) -> None:
    """Fifty in one segment."""
    bodies = [b"body %d" % number for number in range(50)]
    with server.connect() as client:
        client.send(
            b"".join(
                b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                for body in bodies
            )
        )
        assert [client.response().body for _ in bodies] == bodies


def test_c14_a_scope_is_not_shared_with_the_next_request(server: Gunicorn) -> None:
    """What middleware writes into a scope is gone with the request."""
    with server.connect() as client:
        assert [client.request("/deep").text for _ in range(2)] == ["False 1", "False 1"]


# -- HTTP/1.0


def test_http_1_0_is_answered_and_closed(server: Gunicorn) -> None:
    """No keep-alive unless it is asked for."""
    with server.connect() as client:
        client.send("GET / HTTP/1.0\r\n\r\n")
        response = client.response()
        assert (response.status, response.text, response.framing) == (200, "Hello from ASGI", "length")
        assert client.at_end()


def test_http_1_0_keep_alive_is_obeyed_and_said(server: Gunicorn) -> None:
    """A 1.0 client needs to be told."""
    with server.connect() as client:
        for _ in range(2):
            client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (client.response().header("Connection") or "").lower() == "keep-alive"


def test_h35_a_body_of_unknown_length_to_http_1_0_ends_with_the_connection(server: Gunicorn) -> None:
    """Never chunked, even when keep-alive was asked for."""
    with server.connect() as client:
        client.send("GET /chunks/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        response = client.response()
        assert (response.framing, response.text) == ("close", "chunk 0\nchunk 1\nchunk 2\n")


def test_h2_the_version_is_in_the_scope(server: Gunicorn) -> None:
    """As received."""
    with server.connect() as client:
        client.send("GET /scope HTTP/1.0\r\n\r\n")
        assert json.loads(client.response().body)["http_version"] == "1.0"
    assert json.loads(server.request("/scope").body)["http_version"] == "1.1"


# -- framing of responses


def test_h35_a_body_of_unknown_length_is_chunked(server: Gunicorn) -> None:
    """And the connection goes on."""
    with server.connect() as client:
        response = client.request("/chunks/3")
        assert (response.framing, response.text) == ("chunked", "chunk 0\nchunk 1\nchunk 2\n")
        assert client.request().status == 200


def test_h35_chunks_are_sent_as_they_are_made(server: Gunicorn) -> None:
    """The first chunk is on the wire while the application waits."""
    with server.connect() as client:
        client.start("/head-then-gate/stream")
        assert client.head()[0] == 200
        assert client.chunk() == b"first "
        server.open("stream")
        assert client.chunk() == b"last"
        assert client.chunk() == b""


@pytest.mark.parametrize("path", ["/", "/chunks/3", "/status/404"])
def test_h41_head_has_no_body(server: Gunicorn, path: str) -> None:
    """Head fields as for GET, no byte after them, and the connection goes on."""
    with server.connect() as client:
        head = client.request(path, method="HEAD")
        get = client.request(path)
        assert head.status == get.status
        assert head.header("Content-Length") == get.header("Content-Length")
        if path == "/chunks/3":
            assert head.header("Transfer-Encoding") is None


@pytest.mark.parametrize("status", [204, 304])
def test_h41_these_have_no_body(server: Gunicorn, status: int) -> None:
    """204 and 304 end with the head, and the connection goes on."""
    with server.connect() as client:
        response = client.request(f"/status/{status}")
        assert response.status == status
        assert response.header("Transfer-Encoding") is None
        if status == 204:
            assert response.header("Content-Length") is None
        assert client.request().text == "Hello from ASGI"


def test_h49_date_and_server_are_added_once(server: Gunicorn) -> None:
    """``Server: gunicorn``, as users have it today."""
    response = server.request()
    assert response.header("Server") == "gunicorn"
    assert (response.header("Date") or "").endswith(" GMT")


# -- request bodies


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 10 * MIB])
@pytest.mark.parametrize("how", ["length", "chunked"])
def test_h23_a_body_arrives_as_it_was_sent(server: Gunicorn, size: int, how: str) -> None:
    """Whole, once, and with one last message."""
    body = bytes(range(256)) * (size // 256) + b"r" * (size % 256)
    with server.connect() as client:
        if how == "length":
            response = client.request("/digest", method="POST", body=body)
        else:
            client.send("POST /digest HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, size, 100_000):
                part = body[start : start + 100_000]
                client.send(b"%x;ext=1\r\n%b\r\n" % (len(part), part))
            client.send("0\r\nX-Trailer: 1\r\n\r\n")
            response = client.response()
        assert response.text == f"{size} {hashlib.sha256(body).hexdigest()} 1"
        assert client.request().status == 200


def test_h22_a_body_in_many_segments_arrives_whole(server: Gunicorn) -> None:
    """Byte by byte, framing included."""
    request = (
        b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    )
    with server.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            client.send(bytes([byte]))
        assert client.response().text == "hello world"


def test_h32_the_100_comes_when_the_body_is_asked_for(server: Gunicorn) -> None:
    """The application has not asked yet: nothing comes. It asks: 100, then the final answer."""
    with server.connect() as client:
        client.send(
            "POST /body-after-gate/expect HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        server.wait_log("gate expect reached")
        readable, _, _ = select.select([client.socket], [], [], 0)
        assert not readable
        server.open("expect")
        assert client.response().status == 100
        client.send("hello")
        assert client.response().text == f"5 {hashlib.sha256(b'hello').hexdigest()} 1"


def test_h32_no_100_when_the_application_answers_first(server: Gunicorn) -> None:
    """The answer is the first thing on the wire, and the connection cannot go on."""
    with server.connect() as client:
        client.send("POST /ignores-body HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        response = client.response()
        assert (response.status, response.text) == (200, "not read")
        assert response.header("Connection") == "close"
        assert client.at_end()


def test_h25_a_small_body_that_was_not_read_is_dropped(server: Gunicorn) -> None:
    """The next request is not read out of the body of the first."""
    with server.connect() as client:
        body = b"GET /raises HTTP/1.1\r\nHost: test\r\n\r\n"
        assert client.request("/ignores-body", method="POST", body=body).text == "not read"
        assert client.request().text == "Hello from ASGI"


def test_h25_an_early_answer_to_a_long_upload_arrives(server: Gunicorn) -> None:
    """The client is still sending; the answer must not be lost to a reset."""
    with server.connect() as client:
        client.send("POST /ignores-body HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\n")
        client.send(b"x" * 100_000)
        response = client.response()
        assert (response.text, response.header("Connection")) == ("not read", "close")


# -- backpressure


def test_c16_a_client_that_does_not_read_holds_the_application(server: Gunicorn) -> None:
    """``send()`` waits, memory stays bounded, and nothing is lost when the client reads at last."""
    (worker,) = server.worker_pids()
    before = memory(worker)
    with server.connect() as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.start("/flood")
        stalled = int(server.wait_log(r"stalled after (\d+) bytes")[1])
        assert stalled < 64 * MIB
        assert memory(worker) - before < 32 * MIB
        assert client.head()[0] == 200
        assert client.exactly(256 * MIB).count(b"x") == 256 * MIB
        assert client.request().status == 200


def test_h30_an_application_that_does_not_read_holds_the_client(server: Gunicorn) -> None:
    """The upload stalls, memory stays bounded, and nothing is lost when the application reads at last."""
    (worker,) = server.worker_pids()
    before = memory(worker)
    body = b"u" * (128 * MIB)
    with server.connect() as client:
        client.send(f"POST /body-after-gate/upload HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n\r\n")
        server.wait_log("gate upload reached")
        sent, view = 0, memoryview(body)
        client.socket.setblocking(False)
        while select.select([], [client.socket], [], 1)[1]:
            sent += client.socket.send(view[sent : sent + MIB])
            assert sent < len(body), "the server took the whole body, which nobody asked for"
        client.socket.settimeout(client.deadline)
        assert memory(worker) - before < 32 * MIB
        server.open("upload")
        client.socket.sendall(view[sent:])
        assert client.response().text == f"{len(body)} {hashlib.sha256(body).hexdigest()} 1"


# -- the client leaves


def test_h27_a_client_that_leaves_is_reported(server: Gunicorn) -> None:
    """``receive()`` returns http.disconnect, and again when asked again."""
    with server.connect() as client:
        client.start("/until-disconnect")
        server.wait_log("waiting for the end")
    server.wait_log("received http.disconnect, then http.disconnect")


@pytest.mark.parametrize("how", ["close", "reset"])
def test_h29_a_body_that_is_cut_has_no_end(server: Gunicorn, how: str) -> None:
    """The application sees http.disconnect, never a false end of the body."""
    count = server.log().count("the body has begun")
    with server.connect() as client:
        client.send("POST /truncated HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n0123456789")
        server.wait_log("the body has begun", count + 1)
        if how == "reset":
            client.reset()
    server.wait_log("after 10 bytes came http.disconnect", count + 1)


def test_h44_send_raises_when_the_client_has_left(server: Gunicorn) -> None:
    """A subclass of OSError, not logged as an error although the application lets it escape (H46)."""
    with server.connect() as client:
        client.start("/send-until-error")
        server.wait_log("streaming")
        client.head()
        client.reset()
    server.wait_log("send raised ClientDisconnected")
    assert server.request().status == 200


def test_a_half_closed_client_gets_its_answers(server: Gunicorn) -> None:
    """The requests that were sent are answered; then the connection ends."""
    with server.connect() as client:
        client.start("/at-gate/half")
        client.start("/chunks/1")
        client.half_close()
        server.wait_log("gate half reached")
        server.open("half")
        assert client.response().text == "passed half"
        assert client.response().text == "chunk 0\n"
        assert client.at_end()


# -- bad input


BAD_REQUESTS = {
    "no request": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
    "method in lower case": b"get / HTTP/1.1\r\nHost: test\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: test\n\n",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_an_unparsable_request_gets_400_and_one_warning(server: Gunicorn, request_bytes: bytes) -> None:
    """The connection is closed, and the line names the peer; no traceback."""
    before = server.log().count("[WARNING]")
    with server.connect() as client:
        client.send(request_bytes)
        response = client.response()
        assert response.status == 400
        assert response.header("Connection") == "close"
        assert client.at_end()
    server.wait_log(r"\[WARNING\].*127\.0\.0\.1", before + 1)
    assert server.log().count("[WARNING]") == before + 1


def test_a_bad_request_does_not_overtake_a_good_one(server: Gunicorn) -> None:
    """The 400 comes in its turn."""
    with server.connect() as client:
        client.start("/at-gate/overtake")
        client.send("BAD\r\n\r\n")
        server.wait_log("gate overtake reached")
        server.open("overtake")
        assert client.response().text == "passed overtake"
        assert client.response().status == 400
        assert client.at_end()


@pytest.mark.parametrize("path", ["/raises", "/raises-after-start", "/returns"])
def test_an_application_that_fails_before_its_head_is_a_500(failing: Gunicorn, path: str) -> None:
    """A clean answer, a logged reason, and the worker goes on (C10, H33, H43)."""
    response = failing.request(path)
    assert response.status == 500
    assert "raised" not in response.text
    failing.wait_log(rf"{path}\b")
    assert failing.request().status == 200


@pytest.mark.parametrize("path", ["/raises-after-body", "/returns-after-body"])
def test_an_application_that_fails_after_its_head_is_cut(failing: Gunicorn, path: str) -> None:
    """Never a false end: the last chunk is missing (H43)."""
    with failing.connect() as client, pytest.raises(Truncated):
        client.request(path)
    assert failing.request().status == 200


def test_an_unknown_upgrade_is_ignored(server: Gunicorn) -> None:
    """RFC 9110 7.8: the request is answered as if it had not asked, and the connection goes on."""
    with server.connect() as client:
        headers = "Connection: Upgrade\r\nUpgrade: foo\r\n"
        assert client.request("/echo", method="POST", body=b"kept", headers=headers).text == "kept"
        assert client.request().text == "Hello from ASGI"


# -- WebSocket without the extra


def test_an_upgrade_without_the_extra_is_refused(gunicorn: Servers, tmp_path: Path) -> None:
    """501 to the client, one line to the operator that says what to install; the worker goes on."""
    (tmp_path / "websockets.py").write_text("raise ImportError('hidden by the test')\n")
    server = gunicorn("asgi:app", "--pythonpath", str(tmp_path))
    handshake = (
        "GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(2):
        with server.connect() as client:
            client.send(handshake)
            assert client.response().status == 501
    server.wait_log(r"\[WARNING\].*hybridworker\[websockets\]")
    assert server.log().count("hybridworker[websockets]") == 1
    assert "Invalid request" not in server.log()  # the client did nothing wrong
    assert server.request().status == 200
