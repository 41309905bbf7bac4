"""SocketCarrier: a WebSocket over WSGI, with a fake transport and real threads."""

from __future__ import annotations

import asyncio
import errno
import gc
import io
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import uvloop

from hybridworker.application.application import WSGIApplication
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.ending import end_stream
from hybridworker.group.scoreboard import UPGRADED
from hybridworker.http11.carrier import SocketCarrier
from hybridworker.http11.cycle import HTTP11Cycle
from hybridworker.http11.protocol import HTTPProtocol
from hybridworker.identity import REQUEST_ID, current
from hybridworker.states import CarrierState, ResponseState
from hybridworker.wsgi.middleware import WSGIMiddleware
from hybridworker.wsgi.threads import ThreadPool
from tests.fakes import FakeLog, FakeTransport
from tests.harness import make_settings, settle
from tests.waiting import passes, run, until

KEY = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + KEY + b"\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"

Start = Callable[..., Any]
Environ = dict[str, Any]


pools: list[ThreadPool] = []


@pytest.fixture(autouse=True)
def closed_pools() -> Iterator[None]:
    """The threads of a test end with it."""
    yield
    while pools:
        pools.pop().close()


class Encrypted(FakeTransport):
    """As a transport of TLS, it has no half-close."""

    def can_write_eof(self) -> bool:
        return False


class Carried:
    """A connection to a WSGI application; to be made in a running loop."""

    def __init__(self, app: Any, transport: FakeTransport | None = None, **options: Any) -> None:
        settings = make_settings(threads=4, **options)
        self.loop = asyncio.get_running_loop()
        self.pool = ThreadPool(4, self.loop)
        pools.append(self.pool)
        middleware = WSGIMiddleware(app, settings, self.pool, errors=io.StringIO(), server_software="test")
        self.log = FakeLog()
        self.lines: list[tuple[int, int | None]] = []
        self.context = WorkerContext(
            application=WSGIApplication(middleware, settings),
            settings=settings,
            loop=self.loop,
            log=self.log,
            access=lambda cycle: self.lines.append((cycle.status, cycle.sent)),
        )
        self.context.clock.fields = b""
        self.transport = transport or FakeTransport()
        protocol = HTTPProtocol(self.context)
        protocol.connection_made(self.transport)
        protocol.data_received(UPGRADE)
        self.http = protocol
        self.carrier: Any = self.transport.protocol

    @property
    def sent(self) -> bytes:
        return self.transport.sent

    async def over(self) -> None:
        """The call has begun and ended, and what comes of it has been done."""
        await settle()
        await until(lambda: not self.context.cycles)
        await settle()

    def lose(self) -> None:
        self.transport.closing = True
        self.carrier.connection_lost(None)


def upgraded(handle: Callable[[socket.socket], Any], result: Any = ()) -> Any:
    """An application that switches protocols and handles its socket."""

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        sock = environ["gunicorn.socket"]
        sock.sendall(SWITCH)
        handle(sock)
        if result is StopIteration:
            raise StopIteration
        return result  # type: ignore[no-any-return]

    return app


def echo(sock: socket.socket) -> None:
    while data := sock.recv(4096):
        sock.sendall(data)


@pytest.mark.parametrize("result", [(), [b"ignored"], StopIteration], ids=["return", "items", "StopIteration"])
def test_the_response_is_the_sockets(result: Any) -> None:
    """Bytes go both ways, then both sides end; the log has the status of the first line. Nothing is an error."""

    async def main() -> None:
        w = Carried(upgraded(echo, result))
        w.carrier.data_received(b"hello")
        await until(lambda: w.sent == SWITCH + b"hello")
        assert len(w.context.cycles) == 1
        w.carrier.eof_received()
        await w.over()
        assert w.transport.closing
        assert w.lines == [(101, len(SWITCH) + 5)]
        assert w.sent == SWITCH + b"hello"
        assert [level for level, _ in w.log.lines if level != "debug"] == []
        assert w.context.router.responses[1] == 1
        assert w.context.quota.served == 1

    run(main())


def test_bytes_that_come_with_the_request_are_carried() -> None:
    """They came behind its head, in the same segment."""

    async def main() -> None:
        w = Carried(upgraded(echo))
        assert isinstance(w.carrier, SocketCarrier)
        w.carrier.eof_received()
        await w.over()

        received: list[bytes] = []
        again = Carried(upgraded(lambda sock: received.append(sock.recv(100))))
        protocol = HTTPProtocol(again.context)
        transport = FakeTransport()
        protocol.connection_made(transport)
        protocol.data_received(UPGRADE + b"early")
        await until(lambda: b"early" in received)
        again.carrier.abort()
        await again.over()

    run(main())


def test_only_a_websocket_has_a_socket() -> None:
    """And the rest of the environ is the same with it and without."""
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return [b"plain"]

    requests = [
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n" + KEY + b"\r\n",
        b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
        b"GET /ws HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        UPGRADE.replace(b"GET", b"POST"),
        UPGRADE.replace(b"GET", b"POST").replace(b"Host: x", b"Host: x\r\nContent-Length: 2") + b"ab",
    ]

    async def main() -> None:
        w = Carried(app)
        await w.over()
        assert "gunicorn.socket" in seen[0]
        assert w.sent.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        assert w.lines == [(200, 5)]
        for number, request in enumerate(requests, 2):
            protocol, transport = HTTPProtocol(w.context), FakeTransport()
            protocol.connection_made(transport)
            protocol.data_received(request)
            await until(lambda number=number: len(seen) == number)  # type: ignore[misc]
            await w.over()
            assert transport.sent.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not any("gunicorn.socket" in environ for environ in seen[1:])
        same = {"wsgi.input", "wsgi.early_hints", "gunicorn.socket", "HTTP_CONNECTION", "HTTP_UPGRADE"}
        assert set(seen[0]) - same == {*seen[1], "HTTP_CONNECTION"} - same

    run(main())


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"", 426),
        (b"Sec-WebSocket-Version: 13\r\n", 400),
        (KEY.replace(b"13", b"8"), 426),
    ],
)
def test_a_handshake_without_its_fields_is_refused(fields: bytes, status: int) -> None:
    """One line, and the application is not called."""

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        raise AssertionError("called")

    async def main() -> None:
        w = Carried(app)
        await w.over()
        w.log.lines.clear()
        protocol, transport = HTTPProtocol(w.context), FakeTransport()
        protocol.connection_made(transport)
        protocol.data_received(UPGRADE.replace(KEY, fields))
        await settle()
        assert transport.sent.startswith(b"HTTP/1.1 %d " % status)
        assert (b"Sec-WebSocket-Version: 13" in transport.sent) == (status == 426)
        assert len(w.log.lines) == 1
        assert w.log.at("warning")[0].startswith("Invalid request from ip=127.0.0.1: Sec-WebSocket-")

    run(main())


def test_without_descriptors_a_websocket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line and a 503."""

    def exhausted(*args: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        monkeypatch.setattr("hybridworker.http11.carrier.socket_pair", exhausted)
        w = Carried(upgraded(echo))
        await settle()
        assert w.sent.startswith(b"HTTP/1.1 503 ")
        assert w.log.lines == [("error", "A WebSocket over WSGI was refused: [Errno 24] Too many open files")]
        assert w.lines == [(503, 0)]

    run(main())


def test_start_response_does_not_answer_after_the_socket() -> None:
    """What it sends is dropped, however long."""

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        environ["gunicorn.socket"].send(SWITCH)
        write = start_response("200 OK", [("Content-Length", "4000000")])
        for _ in range(4):
            write(b"x" * 1_000_000)
        return []

    async def main() -> None:
        w = Carried(app)
        await w.over()
        assert w.sent == SWITCH
        assert w.lines == [(101, len(SWITCH))]
        assert not w.log.at("exception")

    run(main())


def test_the_socket_wins_over_a_head_that_is_held_back() -> None:
    """Nothing of it was written."""
    gate = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        environ["gunicorn.socket"].send(SWITCH)
        return [b"ignored"]

    async def main() -> None:
        w = Carried(app)
        await w.over()
        assert w.sent == SWITCH
        gate.set()

    run(main())


def test_bytes_behind_a_response_that_has_begun_are_dropped() -> None:
    """They would end up amid its body."""
    begun = threading.Event()

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        yield b"ab"
        passes(begun)
        environ["gunicorn.socket"].send(b"amid")
        yield b"cd"

    async def main() -> None:
        w = Carried(app)
        await until(lambda: w.sent.endswith(b"ab"))
        w.carrier.data_received(b"dropped")
        begun.set()
        await w.over()
        assert w.sent.endswith(b"\r\n\r\nabcd")
        assert w.transport.eof
        assert w.lines == [(200, 4)]

    run(main())


def test_an_exception_ends_both_sides_and_is_logged_once() -> None:
    """Before a byte it is a 500, after it the end."""

    def fail(sock: socket.socket) -> None:
        raise ValueError("application")

    def before(environ: Environ, start_response: Start) -> Iterable[bytes]:
        raise ValueError("application")

    async def main() -> None:
        for app, status, sent in (upgraded(fail), 101, SWITCH), (before, 500, b"HTTP/1.1 500 "):
            w = Carried(app)
            await w.over()
            assert w.sent.startswith(sent)
            assert w.transport.eof
            assert w.log.at("exception") == ["Error handling request GET /ws"]
            assert w.lines[0][0] == status

    run(main())


def test_stop_iteration_without_a_byte_ends_the_connection() -> None:
    """The application says that it is done; it has not answered, and that is no error."""

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        raise StopIteration

    async def main() -> None:
        w = Carried(app)
        await w.over()
        assert w.sent == b""
        assert w.transport.eof
        assert [level for level, _ in w.log.lines if level != "debug"] == []

    run(main())


def test_a_status_in_pieces_and_one_that_is_missing() -> None:
    """The log has what the first line says, as soon as it is there; without one it is a 500."""

    def pieces(sock: socket.socket) -> None:
        pass

    def bytewise(environ: Environ, start_response: Start) -> Iterable[bytes]:
        sock = environ["gunicorn.socket"]
        for byte in b"HTTP/1.1 403 Forbidden\r\n\r\n":
            sock.send(bytes([byte]))
        return []

    def raw(environ: Environ, start_response: Start) -> Iterable[bytes]:
        os.write(environ["gunicorn.socket"].fileno(), b"no status\r\n")
        return []

    async def main() -> None:
        for app, status in (bytewise, 403), (raw, 500):
            w = Carried(app)
            await w.over()
            assert w.lines[0][0] == status
            assert not w.log.at("exception")

    run(main())


def test_a_client_that_leaves_ends_the_applications_side() -> None:
    """What it sent last can still be read, then comes the end; writing fails, which is no error."""
    read: list[bytes] = []
    gate = threading.Event()

    def handle(sock: socket.socket) -> None:
        passes(gate)
        while data := sock.recv(3):
            read.append(data)
        sock.sendall(b"too late")

    async def main() -> None:
        w = Carried(upgraded(handle))
        await until(lambda: w.sent == SWITCH)
        w.carrier.data_received(b"last")
        w.lose()
        assert w.context.router.default.running() == 1
        gate.set()
        await w.over()
        assert b"".join(read) == b"last"
        assert [level for level, _ in w.log.lines if level != "debug"] == []
        assert w.lines == [(101, len(SWITCH))]

    run(main())


def test_an_application_that_does_not_read_holds_the_client_back() -> None:
    """One segment is held besides what the kernel takes; nothing is lost."""
    gate = threading.Event()
    size = 0

    def handle(sock: socket.socket) -> None:
        nonlocal size
        passes(gate)
        while size < 8_000_000:
            size += len(sock.recv(65536))

    async def main() -> None:
        w = Carried(upgraded(handle))
        await until(lambda: w.sent == SWITCH)
        fed = 0
        while w.transport.reading:
            w.carrier.data_received(b"x" * 100_000)
            fed += 100_000
        assert len(w.carrier.buffer) <= 100_000
        assert fed < 4_000_000
        gate.set()
        while fed < 8_000_000:
            await until(lambda: w.transport.reading)
            w.carrier.data_received(b"x" * 100_000)
            fed += 100_000
        await w.over()
        assert size == 8_000_000

    run(main())


def test_a_client_that_does_not_read_holds_the_application_back() -> None:
    """Its thread blocks when the kernel's buffer is full; what it has written goes out before the end."""
    written = 0

    def handle(sock: socket.socket) -> None:
        nonlocal written
        passes(gate)
        for _ in range(64):
            sock.sendall(b"y" * 65536)
            written += 65536

    async def main() -> None:
        w = Carried(upgraded(handle))
        await until(lambda: w.sent == SWITCH)
        w.carrier.pause_writing()
        gate.set()
        await until(lambda: not w.carrier.reading)
        before = len(w.sent)
        await settle()
        assert len(w.sent) == before < 200_000
        assert written < 64 * 65536
        w.carrier.resume_writing()
        await w.over()
        assert len(w.sent) == len(SWITCH) + 64 * 65536

    gate = threading.Event()
    run(main())


def test_close_and_shutdown_of_the_application() -> None:
    """The one ends the connection at once, the other its own direction; the call goes on."""
    gate = threading.Event()

    def close(sock: socket.socket) -> None:
        sock.close()
        passes(gate)

    def shutdown(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b"more"
        passes(gate)

    async def main() -> None:
        w = Carried(upgraded(close))
        await until(lambda: w.carrier.state is CarrierState.CLOSING)
        assert w.context.cycles
        half = Carried(upgraded(shutdown))
        await until(lambda: half.transport.eof)
        assert half.carrier.state is CarrierState.CARRYING
        half.carrier.data_received(b"more")
        gate.set()
        await w.over()
        await half.over()
        assert not half.log.at("exception")

    run(main())


def test_an_abort_ends_both_sides() -> None:
    """At the end of the grace period, or of a client that takes nothing: the thread sees the end of its socket."""
    seen: list[bytes] = []

    async def main() -> None:
        w = Carried(upgraded(lambda sock: seen.append(sock.recv(10))))
        await until(lambda: w.sent == SWITCH)
        assert w.carrier in w.context.connections
        [cycle] = w.context.cycles
        assert cycle.streaming
        cycle.cancel()
        w.carrier.abort()
        await w.over()
        await until(lambda: not w.context.router.default.running())
        assert seen == [b""]
        assert w.transport.aborted
        assert w.lines == [(101, len(SWITCH))]
        assert [level for level, _ in w.log.lines if level != "debug"] == []

    run(main())


def test_a_client_that_takes_nothing_is_dropped() -> None:
    """As any other that holds up a response."""

    async def main() -> None:
        w = Carried(upgraded(echo), write_timeout=60.0)
        await until(lambda: w.sent == SWITCH)
        w.transport.unsent = len(SWITCH)
        now = w.loop.time()
        w.carrier.tick(now)
        w.carrier.tick(now + 59)
        assert not w.transport.aborted
        w.carrier.tick(now + 61)
        assert w.transport.aborted
        w.lose()
        await w.over()

    run(main())


def test_a_reload_waits_for_no_websocket() -> None:
    """While a worker that drains lets it go on."""

    async def main() -> None:
        for reload in False, True:
            w = Carried(upgraded(echo), reload=reload)
            await until(lambda w=w: w.sent == SWITCH)  # type: ignore[misc]
            w.carrier.drain(w.loop.time() + 5)
            if reload:
                await w.over()
            else:
                await settle()
                w.carrier.data_received(b"on")
                await until(lambda w=w: w.sent.endswith(b"on"))  # type: ignore[misc]
                w.carrier.abort()
                await w.over()

    run(main())


def test_a_connection_that_is_closed_waits_for_the_client_a_moment() -> None:
    """Then it is cut; bytes that are still to be sent have their time."""

    async def main() -> None:
        w = Carried(upgraded(lambda sock: None))
        await w.over()
        assert w.carrier.state is CarrierState.CLOSING
        now = w.loop.time()
        w.transport.unsent = 5
        w.carrier.tick(now + 2)
        assert not w.transport.aborted
        w.transport.unsent = 0
        w.carrier.tick(now + 4)
        assert w.transport.aborted
        w.lose()
        assert w.carrier not in w.context.connections

    run(main())


def test_under_tls_the_end_of_input_is_the_end() -> None:
    """The transport closes itself, and the thread is told."""

    async def main() -> None:
        w = Carried(upgraded(echo), transport=Encrypted())
        await until(lambda: w.sent == SWITCH)
        assert not w.carrier.eof_received()
        w.lose()
        await w.over()
        assert w.lines == [(101, len(SWITCH))]

    run(main())


@pytest.mark.parametrize("end", ["return", "StopIteration", "exception", "close", "answer", "client"])
def test_no_descriptor_waits_for_a_collection(end: str) -> None:
    """Where the application does not close its socket, that ends with the connection and the call, however they end."""
    fds: list[int] = []

    def app(environ: Environ, start_response: Start) -> Iterable[bytes]:
        sock = environ["gunicorn.socket"]
        fds.append(sock.fileno())
        if end == "answer":
            start_response("200 OK", [])
            return [b"hello"]
        sock.sendall(SWITCH)
        if end == "StopIteration":
            raise StopIteration
        if end == "exception":
            raise ValueError("application")
        if end == "client":
            sock.recv(10)
        if end == "close":
            sock.shutdown(socket.SHUT_RDWR)
        return []

    async def main() -> None:
        w = Carried(app)
        if end == "client":
            await until(lambda: w.sent == SWITCH)
            w.lose()
        await w.over()
        if end != "client":
            w.lose()
        w.transport.protocol = None
        del w.carrier, w.http
        await settle()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fds[0])

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_the_access_line_counts_every_byte() -> None:
    """Also those that the loop takes after the call has returned, because the client was slow."""

    async def main() -> None:
        w = Carried(upgraded(lambda sock: sock.sendall(b"y" * 100_000)))
        w.carrier.pause_writing()
        await w.over()
        assert len(w.sent) == len(SWITCH) + 100_000
        assert w.lines == [(101, len(w.sent))]

    run(main())


def test_a_slow_client_has_all_of_what_an_application_wrote_before_it_closed() -> None:
    """The end of the call is no reason to cut what is being sent."""
    gate = threading.Event()

    def handle(sock: socket.socket) -> None:
        sock.sendall(b"the end")
        sock.close()
        passes(gate)

    async def main() -> None:
        w = Carried(upgraded(handle))
        await until(lambda: w.carrier.state is CarrierState.CLOSING)
        w.transport.unsent = 7
        gate.set()
        await w.over()
        assert w.sent == SWITCH + b"the end"
        assert not w.transport.aborted
        assert w.lines == [(101, len(w.sent))]

    run(main())


def test_under_tls_shutdown_of_the_application_is_the_end() -> None:
    """TLS knows no half-close: otherwise the client would wait for an end, and the application for the client."""

    def handle(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(10) == b""

    async def main() -> None:
        w = Carried(upgraded(handle), transport=Encrypted())
        await until(lambda: w.transport.closing)
        w.lose()
        await w.over()
        assert w.lines == [(101, len(SWITCH))]
        assert not w.log.at("exception")

    run(main())


def test_a_websocket_is_none_of_the_requests_that_are_limited() -> None:
    """A handshake is: it takes a thread, or waits for one. So one too many gets a 503."""
    gate = threading.Event()

    def handle(environ: Environ, start_response: Start) -> Iterable[bytes]:
        passes(gate)
        return upgraded(echo)(environ, start_response)  # type: ignore[no-any-return]

    async def main() -> None:
        w = Carried(handle, requests_max=1)
        await settle()
        assert w.context.admission is not None
        assert w.context.admission.full
        protocol, transport = HTTPProtocol(w.context), FakeTransport()
        protocol.connection_made(transport)
        protocol.data_received(UPGRADE)
        assert transport.sent.startswith(b"HTTP/1.1 503 ")
        assert transport.eof
        transport.protocol.connection_lost(None)
        gate.set()
        await until(lambda: w.sent == SWITCH)
        assert not w.context.admission.full
        w.carrier.eof_received()
        await w.over()
        assert w.context.slot[UPGRADED] == 0
        assert [status for status, _ in w.lines] == [503, 101]

    run(main())


def test_a_stream_that_is_asked_to_end_sees_its_client_leave() -> None:
    """HYBRIDWORKER_STREAM_DRAIN: the application still has a moment for its last bytes."""

    def handle(sock: socket.socket) -> None:
        assert sock.recv(10) == b""
        sock.sendall(b"bye")

    async def main() -> None:
        w = Carried(upgraded(handle))
        await until(lambda: w.sent == SWITCH)
        [cycle] = w.context.cycles
        assert isinstance(cycle, HTTP11Cycle)
        assert end_stream(cycle)
        w.carrier.tick(w.loop.time())
        await w.over()
        assert w.sent == SWITCH + b"bye"
        assert cycle.state is ResponseState.COMPLETE

    run(main())


def test_the_metrics_know_it_as_a_websocket() -> None:
    """Its handshake and its whole time."""

    async def main() -> None:
        w = Carried(upgraded(echo), metrics_path="/metrics")
        await until(lambda: w.sent == SWITCH)
        w.carrier.eof_received()
        await w.over()
        w.lose()
        durations = w.context.durations
        assert durations is not None
        assert len(durations.answered) == len(durations.closed) == 1
        assert not any(durations.whole)

    run(main())


def test_what_the_loop_logs_has_the_id_of_the_request() -> None:
    """Also where no thread has begun with the call."""

    async def main() -> None:
        w = Carried(upgraded(echo), request_id=b"x-request-id")
        cycle = w.carrier.cycle
        assert cycle.variables.run(current.get) == cycle.scope[REQUEST_ID]
        w.carrier.abort()
        await w.over()

    run(main())


def test_a_websocket_is_no_slow_call() -> None:
    """The report on calls that take long is for those that ought to be over."""

    async def main() -> None:
        w = Carried(upgraded(echo))
        await until(lambda: w.sent == SWITCH)
        later = w.loop.time() + 1000
        assert w.pool.report_slow(later, 30.0) == []
        assert [call.label for call in w.pool.snapshot()] == ["GET /ws"]
        w.carrier.abort()
        await w.over()

    run(main(), uvloop.new_event_loop)
