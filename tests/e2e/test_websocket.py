"""
WebSockets through a real worker: with the ``websockets`` client, with raw bytes, and under frameworks.

What the frames mean is shown by ``test_frames.py`` and ``test_websocket.py`` one folder up; here is
what needs a socket, a process or a framework.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.client import Client, Response
from tests.e2e.harness import DEADLINE, Gunicorn, Servers, memory, wait_gone
from tests.e2e.tunnel import tunnel

pytest.importorskip("websockets", reason="the extra hybridworker[websockets] is not installed")

from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect
from websockets.typing import Origin, Subprotocol

pytestmark = pytest.mark.e2e

#: Far beyond the deadline of the harness: a worker that waits for it makes the test fail.
LONG = ("--graceful-timeout", "300", "--timeout", "300")

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def shared(shared_gunicorn: Servers) -> Gunicorn:
    """A server for the tests that leave it as it was."""
    return shared_gunicorn("sockets:app")


def url(server: Gunicorn, path: str) -> str:
    return f"ws://127.0.0.1:{server.port}{path}"


def client(server: Gunicorn, path: str, **options: Any) -> ClientConnection:
    """The ``websockets`` client, without the proxies of the environment."""
    connection: ClientConnection = connect(url(server, path), proxy=None, open_timeout=DEADLINE, **options)
    return connection


def handshake(
    path: str, headers: str = "", *, method: str = "GET", key: str = "dGhlIHNhbXBsZSBub25jZQ==", version: str = "13"
) -> bytes:
    """A handshake, by default a good one."""
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n{headers}\r\n"
    ).encode()


def opened(client: Client, path: str, headers: str = "") -> Response:
    """A raw connection after its handshake."""
    client.send(handshake(path, headers))
    status, reason, fields = client.head()
    assert status == 101
    return Response(status, reason, fields, b"", "none", [])


def frame(first: int, payload: bytes = b"") -> bytes:
    """A frame to the server, masked with zeros (RFC 6455 5.2)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


def read_frame(client: Client) -> tuple[int, bytes]:
    """The first byte and the payload of the server's next frame, which is not masked."""
    first, size = client.exactly(2)
    if size == 126:
        (size,) = struct.unpack("!H", client.exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", client.exactly(8))
    return first, client.exactly(size)


def close_code(client: ClientConnection) -> int:
    """Receive until the end; returns the code of the server's close frame."""
    try:
        while True:
            client.recv(DEADLINE)
    except ConnectionClosed as exc:
        assert exc.rcvd is not None, "the connection ended without a close frame"
        return exc.rcvd.code


# -- messages


@pytest.mark.parametrize(
    "message",
    ["", "h\u00e9llo \u2713", b"", b"\x00\xff", "t" * 126, b"b" * 65536, "\u20ac" * 1_000_000, os.urandom(8 * MIB)],
    ids=["empty-text", "text", "empty-binary", "binary", "126", "64k", "large-text", "large-binary"],
)
@pytest.mark.parametrize("compression", ["deflate", None])
def test_w10_echo(shared: Gunicorn, message: str | bytes, compression: str | None) -> None:
    """Text stays text and bytes stay bytes, of any size, compressed and plain."""
    with client(shared, "/echo", compression=compression, max_size=None) as socket_:
        assert bool(socket_.protocol.extensions) is (compression is not None)
        socket_.send(message)
        assert socket_.recv(DEADLINE) == message


def test_w11_fragments(shared: Gunicorn) -> None:
    """A fragmented message arrives whole; a ping between its frames is answered first (W12)."""
    with client(shared, "/echo") as socket_:
        socket_.send(["one ", "tw\u00f6 ", "three"])
        assert socket_.recv(DEADLINE) == "one tw\u00f6 three"
    with shared.connect() as raw:
        opened(raw, "/echo")
        raw.send(frame(0x01, b"on") + frame(0x89, b"ping") + frame(0x00, b"e ") + frame(0x80, b"two"))
        assert read_frame(raw) == (0x8A, b"ping")
        assert read_frame(raw) == (0x81, b"one two")


def test_messages_keep_their_order(shared: Gunicorn) -> None:
    """A thousand messages sent ahead come back one by one."""
    with client(shared, "/echo", max_queue=None) as socket_:
        for number in range(1000):
            socket_.send(str(number))
        assert [socket_.recv(DEADLINE) for _ in range(1000)] == [str(number) for number in range(1000)]


def test_a_flood_of_tiny_messages_is_answered_to_the_last(shared: Gunicorn) -> None:
    """They come faster than they are read: reading pauses, and goes on by itself."""
    count = 50_000
    with shared.connect() as raw:
        opened(raw, "/echo")
        raw.send(frame(0x81) * count)
        assert raw.exactly(2 * count) == b"\x81\x00" * count
        raw.send(frame(0x88, b"\x03\xe8"))
        assert read_frame(raw) == (0x88, b"\x03\xe8")
        assert raw.at_end()


def test_frames_right_behind_the_handshake(shared: Gunicorn) -> None:
    """Bytes that came in one segment with the request are the first frames."""
    with shared.connect() as raw:
        raw.send(handshake("/echo") + frame(0x81, b"early"))
        assert raw.head()[0] == 101
        assert read_frame(raw) == (0x81, b"early")
        raw.send(frame(0x88, struct.pack("!H", 1000)))
        assert read_frame(raw) == (0x88, struct.pack("!H", 1000))
        assert raw.at_end()  # RFC 6455 7.1.1: the server closes first


def test_a_websocket_on_a_connection_that_served_requests(shared: Gunicorn) -> None:
    """An upgrade may come after other requests."""
    with shared.connect() as raw:
        assert raw.request().status == 200
        opened(raw, "/echo")
        raw.send(frame(0x81, b"hello"))
        assert read_frame(raw) == (0x81, b"hello")


# -- compression


def test_compression_on_the_wire(shared: Gunicorn) -> None:
    """What gains by it is compressed, with the bit that says so; what is short is not."""
    with shared.connect() as raw:
        response = opened(raw, "/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        assert (response.header("Sec-WebSocket-Extensions") or "").startswith("permessage-deflate")
        raw.send(frame(0x81, b"short"))
        assert read_frame(raw) == (0x81, b"short")
        raw.send(frame(0x81, b"long " * 2000))
        first, payload = read_frame(raw)
        assert first == 0xC1
        assert len(payload) < 500
        assert zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff") == b"long " * 2000


def test_compression_can_be_switched_off(gunicorn: Servers) -> None:
    """``HYBRIDWORKER_WS_COMPRESSION=off``: the offer is not taken up."""
    server = gunicorn("sockets:app", env={"HYBRIDWORKER_WS_COMPRESSION": "off"})
    with client(server, "/echo") as socket_:
        assert socket_.protocol.extensions == []
        socket_.send("plain " * 1000)
        assert socket_.recv(DEADLINE) == "plain " * 1000


def test_a_bomb_costs_no_more_memory_than_a_message_may(gunicorn: Servers) -> None:
    """What would inflate to 256 MiB ends in 1009, with 16 MiB inflated at most (W23)."""
    server = gunicorn("sockets:app")
    (worker,) = server.worker_pids()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -12)
    block = deflater.compress(bytes(MIB)) + deflater.flush(zlib.Z_FULL_FLUSH)  # which nothing behind it refers to
    with server.connect() as raw:
        opened(raw, "/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n")
        before = peak_memory(worker)
        raw.send(frame(0xC2, (block * 256)[:-4]))
        first, payload = read_frame(raw)
        assert (first, payload[:2]) == (0x88, struct.pack("!H", 1009))
    assert peak_memory(worker) - before < 64 * MIB
    server.wait_log(r"^disconnected 1009 ")


def peak_memory(pid: int) -> int:
    """The most bytes of memory that the process ``pid`` has held so far (Linux); now, elsewhere."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) * 1024 if match else memory(pid)


# -- handshakes


def test_w3_w5_subprotocols_and_headers(shared: Gunicorn) -> None:
    """Offers over all header lines, in order; the choice and the application's fields come back."""
    with shared.connect() as raw:
        response = opened(raw, "/echo/chat", "Sec-WebSocket-Protocol: a, chat\r\nSec-WebSocket-Protocol: b\r\n")
        assert response.values("Sec-WebSocket-Protocol") == ["chat"]
    with shared.connect() as raw:
        response = opened(raw, "/scope", "Sec-WebSocket-Protocol: a,  b\r\nX: y\r\nSec-WebSocket-Protocol: c\r\n")
        assert response.values("Sec-WebSocket-Protocol") == []
        assert [pair for pair in response.headers if pair[0].startswith("x-")] == [
            ("x-one", "1"),
            ("x-two", "a"),
            ("x-two", "b"),
        ]
        assert response.values("Sec-WebSocket-Accept") == ["s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]  # RFC 6455 1.3
        scope = json.loads(read_frame(raw)[1])
    assert scope["type"] == "websocket"
    assert (scope["scheme"], scope["http_version"]) == ("ws", "1.1")
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert "websocket.http.response" in scope["extensions"]
    with client(shared, "/echo/chat", subprotocols=[Subprotocol("superchat"), Subprotocol("chat")]) as socket_:
        assert socket_.subprotocol == "chat"


@pytest.mark.parametrize(("path", "framing"), [("/denies", "close"), ("/denies/length", "length")])
def test_x2_denial_responses(shared: Gunicorn, path: str, framing: str) -> None:
    """The application's own response, of several parts, and then the end of the connection."""
    with shared.connect() as raw:
        raw.send(handshake(path))
        response = raw.response()
        assert (response.status, response.text, response.framing) == (429, "come later.\n", framing)
        assert response.header("x-reason") == "full"
        assert response.header("Connection") == "close"
        assert raw.at_end()
    with pytest.raises(InvalidStatus) as caught, client(shared, path):
        pass
    assert (caught.value.response.status_code, caught.value.response.body) == (429, b"come later.\n")


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"path": "/refuses"}, 403, None),
        ({"path": "/echo", "version": "8"}, 426, ("Sec-WebSocket-Version", "13")),
        ({"path": "/echo", "key": "c2hvcnQ="}, 400, None),
        ({"path": "/echo", "key": "x\r\nSec-WebSocket-Key: y"}, 400, None),
        ({"path": "/echo", "method": "DELETE"}, 405, ("Allow", "GET")),
        ({"path": "/echo", "method": "HEAD"}, 405, ("Allow", "GET")),
    ],
    ids=["w7-close-before-accept", "w26-version", "w26-short-key", "w26-two-keys", "w26-method", "w26-head"],
)
def test_refusals(shared: Gunicorn, changes: dict[str, str], status: int, field: tuple[str, str] | None) -> None:
    """Each has its status, and the connection ends."""
    with shared.connect() as raw:
        raw.send(handshake(**changes))
        response = raw.response(changes.get("method", "GET"))
        assert response.status == status
        assert field is None or response.header(field[0]) == field[1]
        assert raw.at_end()


@pytest.mark.parametrize(
    ("path", "line"),
    [("/raises", "Error handling WebSocket /raises"), ("/returns", "Application returned without answering")],
    ids=["w8-raises", "w9-returns"],
)
def test_an_application_that_does_not_answer(gunicorn: Servers, path: str, line: str) -> None:
    """500, one error in the log, and the worker goes on."""
    server = gunicorn("sockets:app", dirty=True)
    with server.connect() as raw:
        raw.send(handshake(path))
        assert raw.response().status == 500
        assert raw.at_end()
    server.wait_log(re.escape(line))
    assert server.request().status == 200
    assert server.log().count("[ERROR]") == 1
    assert server.log().count("Traceback") == (path == "/raises")


def test_other_upgrades_and_wsgi_are_served_as_http(gunicorn: Servers, shared: Gunicorn) -> None:
    """An upgrade may be ignored (RFC 9110 7.8), and the connection is kept, unless WSGI has had its socket."""
    with shared.connect() as raw:
        assert raw.request("/", headers="Upgrade: h2c\r\nConnection: Upgrade\r\n").status == 200
        assert raw.request("/").status == 200
    server = gunicorn("wsgi:app")
    with server.connect() as raw:
        raw.send(handshake("/"))
        response = raw.response()
        assert (response.text, response.header("Connection")) == ("Hello from WSGI", "close")
        assert raw.at_end()


# -- the end


def test_w15_w20_the_application_closes(shared: Gunicorn) -> None:
    """Its code and reason reach the client; what it sends afterwards raises, which is no error in the log."""
    with client(shared, "/closes/4001") as socket_:
        with pytest.raises(ConnectionClosed) as caught:
            socket_.recv(DEADLINE)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "enough \u2713")
    shared.wait_log(r"^disconnected 4001 'enough \u2713'$")
    shared.wait_log(r"^send raised ClientDisconnected$")


@pytest.mark.parametrize("path", ["/works-on/closes", "/works-on/denies"])
def test_an_application_that_has_ended_the_connection_works_on(gunicorn: Servers, path: str) -> None:
    """The client's leaving is no reason to cancel it: it was sent away."""
    server = gunicorn("sockets:app", "--asgi-disconnect-grace-period", "0", "--access-logfile", "-")
    with server.connect() as raw:
        raw.send(handshake(path))
        raw.head()
        server.wait_log("^gate works reached$")
    server.wait_log(f'"GET {path} HTTP/1.1" ')  # the connection is gone
    assert server.request("/").status == 200
    server.open("works")
    server.wait_log("^worked on$")


def test_w22_the_application_returns(shared: Gunicorn) -> None:
    """1000."""
    with client(shared, "/returns-later") as socket_:
        socket_.send("go")
        assert close_code(socket_) == 1000


def test_w16_the_client_closes(shared: Gunicorn) -> None:
    """The application is told the code and the reason; 1005 where there is none, 1006 for a loss."""
    with client(shared, "/echo") as socket_:
        socket_.close(4002, "bye")
    shared.wait_log(r"^disconnected 4002 'bye'$")
    with shared.connect() as raw:
        opened(raw, "/echo")
        raw.send(frame(0x88))
        assert read_frame(raw)[0] == 0x88
        assert raw.at_end()
    shared.wait_log(r"^disconnected 1005 ''$")
    with shared.connect() as raw:
        opened(raw, "/echo")
        raw.reset()
    shared.wait_log(r"^disconnected 1006 ''$")


def test_w21_an_exception_after_accept(gunicorn: Servers) -> None:
    """1011, one error with one traceback, and the worker goes on."""
    server = gunicorn("sockets:app", dirty=True)
    with client(server, "/raises-later") as socket_:
        socket_.send("go")
        assert close_code(socket_) == 1011
    server.wait_log(r"ValueError: raised after accept")
    with client(server, "/echo") as socket_:
        socket_.send("still here")
        assert socket_.recv(DEADLINE) == "still here"
    assert server.log().count("Traceback") == server.log().count("[ERROR]") == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x03abc", 1002),
        (frame(0x83), 1002),
        (frame(0x91, b"x"), 1002),
        (frame(0x81, b"\xff\xfe"), 1007),
        (b"\x82\xff" + struct.pack("!Q", 17 * MIB), 1009),
    ],
    ids=["unmasked", "opcode", "reserved-bit", "utf-8", "size"],
)
def test_w23_bad_input_gets_its_code_and_no_traceback(shared: Gunicorn, data: bytes, code: int) -> None:
    """The close frame, then the end; the fixture fails for any error in the log."""
    with shared.connect() as raw:
        opened(raw, "/echo")
        raw.send(data)
        first, payload = read_frame(raw)
        assert (first, payload[:2]) == (0x88, struct.pack("!H", code))
        assert raw.at_end()


# -- what a WebSocket counts


def test_max_requests_counts_a_websocket(gunicorn: Servers) -> None:
    """One each, however many messages: after two of them the worker is replaced, and says so with 1012."""
    server = gunicorn("sockets:app", "--max-requests", "2", *LONG)
    (worker,) = server.worker_pids()
    with client(server, "/echo") as one:
        for number in range(5):
            one.send(str(number))
            assert one.recv(DEADLINE) == str(number)
        assert server.worker_pids() == [worker]
        with client(server, "/echo") as two:
            assert close_code(two) == 1012
        assert close_code(one) == 1012
    wait_gone(worker)
    server.wait_workers(lambda pids: len(pids) == 1, "the worker's successor")
    with client(server, "/echo") as socket_:
        socket_.send("again")
        assert socket_.recv(DEADLINE) == "again"


def test_the_access_log(gunicorn: Servers) -> None:
    """One line at the end: the status that was sent, and the time until the close."""
    server = gunicorn("sockets:app", "--access-logfile", "access", "--access-logformat", "%(m)s %(U)s %(s)s %(D)s|end")

    def lines() -> list[str]:
        return (server.directory / "access").read_text().splitlines()

    with client(server, "/echo") as socket_:
        began = time.monotonic()
        for number in range(200):
            socket_.send(str(number))
            assert socket_.recv(DEADLINE) == str(number)
        assert lines() == []
        spent = time.monotonic() - began
    server.wait_for(lambda: len(lines()) == 1, "a line of the WebSocket")
    method, path, status, duration = lines()[0].removesuffix("|end").split()
    assert (method, path, status) == ("GET", "/echo", "101")
    assert int(duration) >= int(spent * 1_000_000)
    for path in ("/refuses", "/denies"):
        with server.connect() as raw:
            raw.send(handshake(path))
            raw.response()
    server.wait_for(lambda: len(lines()) == 3, "the lines of the refusals")
    assert {line.rpartition(" ")[0] for line in lines()[1:]} == {"GET /refuses 403", "GET /denies 429"}


# -- the worker leaves


def test_w27_term_says_1012_and_does_not_wait(gunicorn: Servers) -> None:
    """Every client gets its close frame, every application its end, and nobody waits for graceful_timeout."""
    server = gunicorn("sockets:app", *LONG)
    count = 30

    async def one(ready: asyncio.Semaphore) -> int:
        async with connect_async(url(server, "/echo"), proxy=None, open_timeout=DEADLINE) as socket_:
            await socket_.send("hello")
            assert await socket_.recv() == "hello"
            ready.release()
            with pytest.raises(ConnectionClosed) as caught:
                await socket_.recv()
            assert caught.value.rcvd is not None
            return caught.value.rcvd.code

    async def everybody() -> list[int]:
        ready = asyncio.Semaphore(0)
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ready)) for _ in range(count)]
            for _ in range(count):
                await ready.acquire()
            server.signal(signal.SIGTERM)
        return [task.result() for task in tasks]

    assert asyncio.run(everybody()) == [1012] * count
    assert server.wait() == 0
    assert server.log().count("disconnected 1012 ''") == count


def test_term_does_not_wait_for_a_client_that_does_not_answer(gunicorn: Servers) -> None:
    """It gets its close frame and some seconds; the worker leaves without it."""
    server = gunicorn("sockets:app", *LONG)
    with server.connect() as raw:
        opened(raw, "/echo")
        server.signal(signal.SIGTERM)
        assert read_frame(raw) == (0x88, struct.pack("!H", 1012))
        assert server.wait() == 0


def test_quit_leaves_at_once(gunicorn: Servers) -> None:
    """SIGQUIT does not wait for an application that receives nothing."""
    server = gunicorn("sockets:app", *LONG)
    with server.connect() as raw:
        opened(raw, "/at-gate/never")
        server.wait_log("gate never reached")
        assert server.stop(signal.SIGQUIT) == 0
        raw.rest()  # returns: the connection has ended


# -- other sockets


def test_tls(gunicorn: Servers, tmp_path: Path) -> None:
    """wss: large messages, the scheme, a handshake that is refused, and 1012 at the end."""
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    server = gunicorn("sockets:app", "--certfile", str(certificate), "--keyfile", str(certificate), *LONG)

    with tunnel(server.port, context) as there:

        def secure(path: str) -> ClientConnection:
            address = f"ws://127.0.0.1:{there.port}{path}"
            return connect(address, proxy=None, open_timeout=DEADLINE, max_size=None)

        with secure("/scope") as socket_:
            assert json.loads(socket_.recv(DEADLINE))["scheme"] == "wss"
        with pytest.raises(InvalidStatus) as caught, secure("/refuses"):
            pass
        assert caught.value.response.status_code == 403
        large = os.urandom(4 * MIB)
        with secure("/echo") as socket_:
            socket_.send(large)
            assert socket_.recv(DEADLINE) == large
            server.signal(signal.SIGTERM)
            assert close_code(socket_) == 1012
    assert server.wait() == 0


def test_a_unix_socket(gunicorn: Servers, tmp_path: Path) -> None:
    """Without an address of the client, and with the path as the server's."""
    path = f"{tmp_path}/socket"
    gunicorn("sockets:app", "--bind", f"unix:{path}")
    with unix_connect(path, "ws://localhost/scope") as socket_:
        scope = json.loads(socket_.recv(DEADLINE))
    assert scope["client"] is None
    assert scope["server"] == [path, None]
    with unix_connect(path, "ws://localhost/echo") as socket_:
        socket_.send("hello")
        assert socket_.recv(DEADLINE) == "hello"


# -- backpressure


def test_w24_a_client_that_sends_too_fast_is_paused(gunicorn: Servers) -> None:
    """What the application does not take stays with the client, and nothing of it is lost."""
    server = gunicorn("sockets:app")
    (worker,) = server.worker_pids()
    message = frame(0x82, bytes(65536))
    total = 128 * MIB // 65536
    with server.connect() as raw:
        opened(raw, "/at-gate/late")
        server.wait_log("gate late reached")
        before = memory(worker)
        data = memoryview(message * total)
        raw.socket.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < len(data):
                sent += raw.socket.send(data[sent : sent + MIB])
        assert sent < len(data) // 2  # the buffers of the kernel, on both sides
        assert memory(worker) - before < 16 * MIB
        raw.socket.settimeout(DEADLINE)
        server.open("late")
        raw.send(bytes(data[sent:]) + frame(0x81, b"how many"))
        assert read_frame(raw) == (0x81, str(total * 65536).encode())


def test_w25_a_client_that_does_not_read_stops_the_sender(gunicorn: Servers) -> None:
    """``send()`` waits, the memory stays, and everything arrives."""
    server = gunicorn("sockets:app")
    (worker,) = server.worker_pids()
    with server.connect() as raw:
        opened(raw, "/flood")
        before = memory(worker)
        server.wait_log(r"^stalled after \d+ bytes$")
        assert memory(worker) - before < 16 * MIB
        size = 0
        while (received := read_frame(raw))[0] == 0x82:
            size += len(received[1])
        assert received == (0x88, struct.pack("!H", 1000))
        assert size == 128 * MIB


# -- frameworks


def test_starlette(gunicorn: Servers) -> None:
    """An endpoint with JSON, a denial response, a close before accept, an iteration, an exception."""
    server = gunicorn("sockets_frameworks:starlette_app", dirty=True)
    with client(server, "/shout", subprotocols=[Subprotocol("shout")]) as socket_:
        assert socket_.subprotocol == "shout"
        socket_.send('{"text": "h\u00e9"}')
        assert json.loads(socket_.recv(DEADLINE)) == {"text": "H\u00c9"}
        socket_.close(4000)
    server.wait_log(r"^starlette disconnected 4000$")
    with pytest.raises(InvalidStatus) as caught, client(server, "/denies"):
        pass
    response = caught.value.response
    assert (response.status_code, response.headers["retry-after"]) == (409, "7")
    assert json.loads(response.body or b"") == {"detail": "no seat"}
    for path in ("/closes", "/nothing"):
        with pytest.raises(InvalidStatus) as caught, client(server, path):
            pass
        assert caught.value.response.status_code in (403, 404)  # Starlette denies an unknown path by itself
    with client(server, "/iterates") as socket_:
        socket_.send(b"abc")
        assert socket_.recv(DEADLINE) == b"cba"
    server.wait_log(r"^starlette iterated to the end$")
    assert "[ERROR]" not in server.log()
    with client(server, "/fails") as socket_:
        assert close_code(socket_) == 1011
    server.wait_log("ValueError: raised under Starlette")
    assert server.log().count("[ERROR]") == 1


def test_fastapi(gunicorn: Servers) -> None:
    """A path parameter and a dependency; who has no token, or no number, is refused before accept."""
    server = gunicorn("sockets_frameworks:fastapi_app")
    with client(server, "/items/7?token=secret") as socket_:
        socket_.send("hello")
        assert socket_.recv(DEADLINE) == "item 7 secret: hello"
        socket_.close(4000, "done")
    server.wait_log(r"^fastapi disconnected 4000 'done'$")
    for path in ("/items/7", "/items/7?token=wrong", "/items/seven?token=secret"):
        with pytest.raises(InvalidStatus) as caught, client(server, path):
            pass
        assert caught.value.response.status_code == 403


def test_channels(gunicorn: Servers) -> None:
    """A room through a channel layer, a sync consumer in its thread, a foreign origin, and 1012 for all."""
    pytest.importorskip("channels", reason="channels is not installed")
    server = gunicorn("sockets_channels:app", *LONG)
    assert server.request().text == "Hello from Channels"
    own = Origin("http://127.0.0.1")
    with client(server, "/rooms/tea", origin=own, subprotocols=[Subprotocol("chat")]) as one:
        assert one.subprotocol == "chat"
        with client(server, "/rooms/tea", origin=own) as two, client(server, "/sync", origin=own) as sync:
            two.send('{"text": "hello"}')
            assert [json.loads(socket_.recv(DEADLINE)) for socket_ in (one, two)] == [{"text": "hello"}] * 2
            sync.send("hello")
            assert sync.recv(DEADLINE) == "False hello"
            sync.send(b"\x00\x01")
            assert sync.recv(DEADLINE) == b"\x00\x01"
        server.wait_log(r"^channels disconnected 1000$")
        server.wait_log(r"^channels sync disconnected 1000$")
        with pytest.raises(InvalidStatus) as caught, client(server, "/rooms/tea", origin=Origin("http://evil.example")):
            pass
        assert caught.value.response.status_code == 403
        server.signal(signal.SIGTERM)
        assert close_code(one) == 1012
    assert server.wait() == 0
    assert "channels disconnected 1012" in server.log()
