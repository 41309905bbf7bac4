"""WebSockets over WSGI: Flask-Sock, Flask-SocketIO with threads, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import socketio
import trustme
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers, memory
from tests.e2e.tunnel import tunnel

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
KEY = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"


class Site:
    """How a server is spoken to: in the open, or under TLS with an authority of our own."""

    def __init__(self, folder: Path, tls: bool) -> None:
        self.options: tuple[str, ...] = ()
        self.context: ssl.SSLContext | None = None
        if tls:
            authority, path = trustme.CA(), folder / "server.pem"
            authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
            self.options = ("--certfile", str(path), "--keyfile", str(path))
            self.context = ssl.create_default_context()
            authority.configure_trust(self.context)

    @property
    def scheme(self) -> str:
        return "http" if self.context is None else "https"

    def url(self, server: Gunicorn, path: str) -> str:
        return f"{self.scheme.replace('http', 'ws')}://127.0.0.1:{server.port}{path}"

    @contextlib.contextmanager
    def port(self, server: Gunicorn) -> Iterator[int]:
        """Where clients without TLS of their own reach ``server``: those that use a connection in two threads."""
        if self.context is None:
            yield server.port
        else:
            with tunnel(server.port, self.context) as there:
                yield there.port

    @contextlib.contextmanager
    def connect(self, server: Gunicorn, path: str) -> Iterator[ClientConnection]:
        with self.port(server) as port:
            with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=DEADLINE, max_size=None) as ws:
                yield ws


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"), request.param)


@pytest.fixture
def plain(tmp_path: Path) -> Site:
    return Site(tmp_path, False)


def begin(server: Gunicorn, path: str) -> Client:
    """A client that has been told to switch protocols."""
    client = server.connect()
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}\r\n")
    status, _, _ = client.head()
    assert status == 101
    return client


def test_flask_sock(gunicorn: Servers, site: Site) -> None:
    """Short and long messages, text and bytes; one access line with the status of the handshake."""
    server = gunicorn("wsgisocket:app", "--threads", "4", "--access-logfile", "-", *site.options)
    with site.connect(server, "/echo") as ws:
        for message in "hello", "x" * 100_000, b"y" * 3_000_000:
            ws.send(message)
            assert ws.recv(DEADLINE) == message
    server.wait_log(r'"GET /echo HTTP/1.1" 101 \d+')
    with site.connect(server, "/peer") as ws:
        assert ws.recv(DEADLINE) == f"127.0.0.1 {site.scheme} 127.0.0.1"
        with pytest.raises(ConnectionClosed) as caught:
            ws.recv(DEADLINE)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1000


def test_a_hundred_threads(gunicorn: Servers, site: Site) -> None:
    """As many WebSockets at once, each with its own thread."""
    server = gunicorn("wsgisocket:app", "--threads", "100", *site.options)

    async def talk() -> None:
        async with contextlib.AsyncExitStack() as stack:
            url = site.url(server, "/echo")
            sockets = [await stack.enter_async_context(connect_async(url, ssl=site.context)) for _ in range(100)]
            for turn in range(3):
                for number, ws in enumerate(sockets):
                    await ws.send(f"{turn} {number}")
                for number, ws in enumerate(sockets):
                    assert await ws.recv() == f"{turn} {number}"

    asyncio.run(asyncio.wait_for(talk(), 2 * DEADLINE))


class Member:
    """A client of python-socketio in both namespaces; ``heard`` is what came."""

    def __init__(self, scheme: str, port: int) -> None:
        """``scheme`` is what the server is spoken to with, whatever is before it: the origin must be the server's."""
        self.heard: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        session = requests.Session()
        session.trust_env = False  # a proxy that is set there
        self.client = socketio.Client(
            reconnection=False,
            http_session=session,
            request_timeout=DEADLINE,  # the first request may have to wait for the boot
            websocket_extra_options={"origin": f"{scheme}://127.0.0.1:{port}"},
        )
        for namespace in "/chat", "/news":
            for event in "joined", "said":
                self.client.on(event, lambda text, event=event: self.heard.put((event, text)), namespace=namespace)
        self.client.connect(f"http://127.0.0.1:{port}", namespaces=["/chat", "/news"], wait_timeout=DEADLINE)

    def hear(self) -> tuple[str, str]:
        return self.heard.get(timeout=DEADLINE)


def test_flask_socketio_with_threads(gunicorn: Servers, site: Site) -> None:
    """Polling first, then the upgrade; what is said in a room is heard there and nowhere else."""
    server = gunicorn("socketio_threads:app", "--threads", "20", "--access-logfile", "-", *site.options)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(site.port(server))
        members = []
        for _ in range(4):
            member = Member(site.scheme, port)
            stack.callback(member.client.disconnect)
            members.append(member)
        for member in members:
            server.wait_for(lambda member=member: member.client.transport() == "websocket", "the upgrade")  # type: ignore[misc]
        for number, member in enumerate(members):
            member.client.emit("join", f"room {number % 2}", namespace="/chat")
            assert member.hear() == ("joined", f"room {number % 2}")
        members[0].client.emit("join", "room 1", namespace="/news")
        assert members[0].hear() == ("joined", "room 1")
        members[0].client.emit("say", ("room 0", "hello"), namespace="/chat")
        assert [members[number].hear() for number in (0, 2)] == [("said", "/chat room 0 hello")] * 2
        members[0].client.emit("say", ("room 1", "news"), namespace="/news")
        assert members[0].hear() == ("said", "/news room 1 news")
        assert all(member.heard.empty() for member in members)
    server.wait_log(r'"GET /socket.io/\?transport=polling[^"]*" 200')
    server.wait_log(r'"GET /socket.io/\?transport=websocket[^"]*" 101', 4)


def test_only_a_websocket_has_a_socket(gunicorn: Servers) -> None:
    """A request on the same connection has none, and an upgrade to something else neither."""
    server = gunicorn("wsgisocket:app")
    with server.connect() as client:
        assert client.request().text == "False"
        assert client.request(headers="Connection: Upgrade\r\nUpgrade: foo\r\n").text == "False"


def test_the_address_of_a_proxy_header(gunicorn: Servers) -> None:
    """The environ has it, and the bytes behind the header are the application's."""
    server = gunicorn("wsgisocket:app", "--proxy-protocol", "v1")
    with server.connect() as client:
        client.send(f"PROXY TCP4 192.0.2.7 192.0.2.8 5000 80\r\nGET /peer HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}\r\n")
        assert client.head()[0] == 101
        assert client.until(b"127.0.0.1").endswith(b"192.0.2.7 http 127.0.0.1")


@pytest.mark.parametrize("end", ["/stop", "/return"])
def test_the_end_of_the_call_ends_the_connection(gunicorn: Servers, end: str) -> None:
    """By StopIteration or by returning, without a line in the log."""
    server = gunicorn("wsgisocket:raw")
    with begin(server, end) as client:
        assert client.at_end()
    assert "[ERROR]" not in server.log()


def test_an_exception_ends_the_connection(gunicorn: Servers, plain: Site) -> None:
    """It is logged once, by Flask here; the next one is served."""
    server = gunicorn("wsgisocket:app", dirty=True)
    with plain.connect(server, "/fail") as ws:
        assert ws.recv(DEADLINE) == "about to fail"
        with pytest.raises(ConnectionClosed):
            ws.recv(DEADLINE)
    server.wait_log("a fault of the application$")
    assert server.log().count("Traceback") == 1
    assert server.request().text == "False"


def test_a_client_that_leaves_ends_the_call(gunicorn: Servers) -> None:
    """Closed or reset: the thread sees the end of its socket, and has room for the next one."""
    server = gunicorn("wsgisocket:app", "--threads", "1")
    for number, leave in enumerate((Client.close, Client.reset), 1):
        client = begin(server, "/wait")
        client.until(b"waiting")
        leave(client)
        server.wait_log("the socket has ended", number)
    assert server.request().text == "False"


def test_a_drain_lets_a_websocket_go_on_until_the_grace_period_ends(gunicorn: Servers, plain: Site) -> None:
    """Then its socket is shut down, and the worker leaves in time."""
    server = gunicorn("wsgisocket:app", "--threads", "2", "--graceful-timeout", "3")
    with plain.connect(server, "/echo") as ws, begin(server, "/wait") as waiting:
        waiting.until(b"waiting")
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        ws.send("still here")
        assert ws.recv(DEADLINE) == "still here"
        with pytest.raises(ConnectionClosed):
            ws.recv(DEADLINE)
        server.wait_log("the socket has ended")
        assert server.wait() == 0
    assert "Graceful timeout: 2 requests were not finished" in server.log()
    assert "Background work was cut" not in server.log()


def test_quit_ends_both_sides(gunicorn: Servers, plain: Site) -> None:
    """At once, although a thread is in the call."""
    server = gunicorn("wsgisocket:app", "--graceful-timeout", "30")
    with plain.connect(server, "/wait") as ws:
        assert ws.recv(DEADLINE) == "waiting"
        server.signal(signal.SIGQUIT)
        with pytest.raises(ConnectionClosed):
            ws.recv(DEADLINE)
        assert server.wait() == 0


def test_a_client_that_reads_nothing_holds_its_application_back(gunicorn: Servers) -> None:
    """In a blocked send(), not in memory; when it leaves, that fails."""
    server = gunicorn("wsgisocket:raw", "--threads", "2")
    assert server.request().text == "plain"
    [worker] = server.worker_pids()
    before = memory(worker)
    with begin(server, "/flood") as client:
        client.exactly(20 * MIB)
        assert memory(worker) - before < 8 * MIB
    server.wait_log("the flood has ended")
    assert "[ERROR]" not in server.log()


def test_an_application_that_reads_nothing_holds_its_client_back(gunicorn: Servers) -> None:
    """By TCP; nothing of what was sent is lost."""
    server = gunicorn("wsgisocket:raw", "--threads", "2")
    with begin(server, "/deaf") as client:
        client.socket.settimeout(1)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * MIB:
                sent += client.socket.send(b"x" * 65536)
        assert sent < 64 * MIB
        client.socket.settimeout(DEADLINE)
        server.open("listen")
        client.half_close()
        server.wait_log(rf"received {sent} bytes")


@pytest.mark.parametrize("fields", ["", "Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 8\r\n"])
def test_a_client_without_handshake_fields_is_one_line(gunicorn: Servers, fields: str) -> None:
    """It is refused, and harms nobody."""
    server = gunicorn("wsgisocket:app")
    response = server.request("/echo", headers="Connection: Upgrade\r\nUpgrade: websocket\r\n" + fields)
    assert response.status == (400 if "13" in fields else 426)
    server.wait_log(r"\[WARNING\] Invalid request from ip=127\.0\.0\.1: Sec-WebSocket-.*$")
    assert server.request().text == "False"
    assert len(re.findall(r"\[WARNING\]|Traceback", server.log())) == 1


def test_without_descriptors_a_websocket_is_one_line(gunicorn: Servers) -> None:
    """It gets a 503, and is served when there are some again."""
    server = gunicorn("wsgisocket:raw", "--threads", "2", dirty=True)
    with server.connect() as client, server.connect() as other:
        assert other.request("/exhaust").text == "plain"
        client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}\r\n")
        assert client.response().status == 503
        assert other.request("/release").text == "plain"
    server.wait_log(r"\[ERROR\] A WebSocket over WSGI was refused: \[Errno 24\] Too many open files$")
    begin(server, "/return").close()
    assert server.log().count("[ERROR]") == 1
