"""sendfile.py: the bytes of a file reach the client, nobody else, and no descriptor stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from hybridworker.connection import sendfile
from hybridworker.connection.flow import FlowControl
from hybridworker.connection.sendfile import POOL, SMALL, FilePart, FilePool, open_file, open_path, send_some
from hybridworker.errors import ClientDisconnected, InvalidMessage
from tests.fakes import FakeTransport
from tests.waiting import run, until

LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop"), pytest.param(asyncio.new_event_loop, id="asyncio")]
#: Fits neither into a socket's buffer nor into a burst.
LARGE = os.urandom(1 << 20) * 12

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Every test ends with the descriptors and threads it began with."""
    run(asyncio.sleep(0))  # the first loop of a process keeps a pipe for signals
    before = set(os.listdir("/dev/fd"))
    yield
    POOL.close()
    assert set(os.listdir("/dev/fd")) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hybridworker-file")]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that holds LARGE."""
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


class Connection(asyncio.Protocol):
    """The server's end: a transport with its FlowControl."""

    def __init__(self, made: asyncio.Future[FlowControl]) -> None:
        self.made = made

    def connection_made(self, transport: Any) -> None:
        self.flow = FlowControl(transport)
        self.made.set_result(self.flow)

    def pause_writing(self) -> None:
        self.flow.pause_writing()

    def resume_writing(self) -> None:
        self.flow.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.flow.lose()


@contextlib.asynccontextmanager
async def connection(server_ssl: Any = None, client_ssl: Any = None) -> Any:
    """A flow on the server's side, and the client's reader and writer."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[FlowControl] = loop.create_future()
    server = await loop.create_server(lambda: Connection(made), "127.0.0.1", 0, ssl=server_ssl)
    name = "localhost" if client_ssl else None
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(), ssl=client_ssl, server_hostname=name, limit=65536
    )
    flow = await made
    server.close()
    try:
        yield flow, reader, writer
    finally:
        writer.close()
        flow.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        await until(lambda: flow.lost)


async def send_all(flow: FlowControl, part: FilePart, **options: Any) -> int:
    total = 0
    try:
        while size := await send_some(flow, part, **options):
            total += size
    finally:
        part.close()
    return total


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("direct", [True, False], ids=["sendfile", "reads"])
@pytest.mark.parametrize("size", [SMALL + 1, 5_000_000])
def test_the_whole_file_arrives(factory: LoopFactory, direct: bool, size: int, large: Path) -> None:
    """What the client reads is the file, byte by byte, whichever way it is sent."""
    content = LARGE[:size]
    large.write_bytes(content)

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))
            assert (part.count, part.data) == (size, None)
            sending = asyncio.create_task(send_all(flow, part, direct=direct))
            assert await reader.readexactly(size) == content
            assert await sending == size

    run(main(), factory)


def test_a_unix_socket_is_served_as_well(large: Path) -> None:
    """os.sendfile works into a unix socket."""

    async def main() -> None:
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        made: asyncio.Future[FlowControl] = loop.create_future()
        transport, _ = await loop.create_connection(lambda: Connection(made), sock=near)
        reader, writer = await asyncio.open_unix_connection(sock=far)
        part = await open_path(str(large))
        sending = asyncio.create_task(send_all(await made, part))
        assert await reader.readexactly(len(LARGE)) == LARGE
        await sending
        assert part.direct
        writer.close()
        transport.abort()
        await until(lambda: made.result().lost)

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_what_was_written_before_is_not_overtaken(factory: LoopFactory, large: Path) -> None:
    """The file goes out only when the transport has got rid of what it held."""
    before = b"x" * 6_000_000

    async def main() -> None:
        async with connection() as (flow, reader, _):
            flow.transport.write(before)
            assert flow.transport.get_write_buffer_size() > 0
            limits = flow.transport.get_write_buffer_limits()
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            assert await reader.readexactly(len(before)) == before
            assert await reader.readexactly(len(LARGE)) == LARGE
            await sending
            assert flow.transport.get_write_buffer_limits() == limits

    run(main(), factory)


def test_a_slow_client_occupies_no_thread(large: Path) -> None:
    """While the client does not read, the transfer waits on the loop and the pool is idle."""

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            await until(lambda: flow.waiters)
            assert POOL.pending == 0
            assert not part.busy
            await reader.readexactly(len(LARGE))
            assert await sending == len(LARGE)
            assert not flow.waiters

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_h45_a_client_that_leaves_wakes_the_transfer(factory: LoopFactory, large: Path) -> None:
    """A reset amid a file raises ClientDisconnected out of the blocked send."""

    async def main() -> None:
        async with connection() as (flow, _, writer):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            await until(lambda: flow.waiters)
            writer.transport.abort()
            with pytest.raises(ClientDisconnected):
                await sending

    run(main(), factory)


@pytest.mark.parametrize("factory", LOOPS)
def test_an_abort_of_our_own_wakes_the_transfer(factory: LoopFactory, large: Path) -> None:
    """After transport.abort() the transfer ends and gives the connection's last descriptor back."""

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            await until(lambda: flow.waiters)
            flow.transport.abort()
            with pytest.raises(ClientDisconnected):
                await sending
            assert len(await reader.read(-1)) < len(LARGE)

    run(main(), factory)


def test_a_connection_that_is_gone_is_not_written_to(large: Path) -> None:
    """A file for a client that has left before is refused, sent directly or by reads."""

    async def main() -> None:
        for direct in (True, False):
            async with connection() as (flow, _, _):
                part = await open_path(str(large))
                flow.transport.abort()
                await until(lambda: flow.lost)
                with pytest.raises(ClientDisconnected):
                    await send_all(flow, part, direct=direct)

    run(main())


@pytest.mark.parametrize("factory", LOOPS)
def test_a_cancelled_transfer_closes_its_descriptors(factory: LoopFactory, large: Path) -> None:
    """Cancelling a blocked transfer frees both descriptors and leaves the loop without a watcher."""

    async def main() -> None:
        async with connection() as (flow, _, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            await until(lambda: flow.waiters)
            sock = part.sock
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert (part.fd, part.sock) == (-1, -1)
            assert not flow.waiters
            assert not asyncio.get_running_loop().remove_writer(sock)

    run(main(), factory)


def test_a_descriptor_in_use_is_closed_after_its_job() -> None:
    """close() while a thread works leaves the descriptor open until the job is delivered."""
    go, started = threading.Event(), threading.Event()

    def job(fd: int) -> None:
        started.set()
        go.wait(30)
        os.fstat(fd)

    async def main() -> None:
        part = FilePart(os.open(os.devnull, os.O_RDONLY))
        fd = part.fd
        working = asyncio.create_task(POOL.run(part, job, fd))
        await until(started.is_set)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        part.close()
        os.fstat(fd)
        go.set()
        await until(lambda: part.fd == -1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    run(main())


def test_a_cancelled_open_closes_what_it_opened(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor of an open that nobody waits for any more is closed."""
    go, started = threading.Event(), threading.Event()
    measure = FilePart.measure

    def slow(part: FilePart, count: int | None) -> None:
        started.set()
        go.wait(30)
        measure(part, count)

    monkeypatch.setattr(FilePart, "measure", slow)

    async def main() -> None:
        opening = asyncio.create_task(open_path(str(large)))
        await until(started.is_set)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        go.set()
        await until(lambda: POOL.pending == 0)

    run(main())


def test_a_file_that_becomes_shorter_ends_the_transfer(large: Path) -> None:
    """At an unexpected end of the file send_some returns 0 and `count` says what is missing."""

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            await until(lambda: flow.waiters)
            os.truncate(large, 0)
            reading = asyncio.create_task(reader.read(-1))
            sent = await sending
            assert 0 < sent < len(LARGE)
            assert part.count == len(LARGE) - sent
            flow.transport.close()
            assert len(await reading) == sent

    run(main())


def test_a_peer_that_takes_nothing_is_given_up(large: Path) -> None:
    """write_timeout seconds without a byte taken raise ClientDisconnected, though the transport notices nothing."""

    async def main() -> None:
        async with connection() as (flow, _, _):
            part = await open_path(str(large))
            with pytest.raises(ClientDisconnected, match="took no byte"):
                await send_all(flow, part, write_timeout=0.05)
            assert not flow.waiters

    run(main())


def test_a_slow_peer_is_not_given_up(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as acknowledgements come the peer lives, even if the socket is not writable for longer."""
    queued = iter([9, 7, 5, 5])
    monkeypatch.setattr(sendfile, "unacknowledged", lambda fd: next(queued))

    async def main() -> None:
        async with connection() as (flow, _, _):
            part = await open_path(str(large))
            with pytest.raises(ClientDisconnected, match="took no byte"):
                await send_all(flow, part, write_timeout=0.01)
            assert next(queued, None) is None

    run(main())


def test_a_file_system_without_sendfile_is_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where os.sendfile is not supported the file goes out by reads."""

    def refuse(*args: Any) -> int:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "sendfile", refuse)

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            assert await reader.readexactly(len(LARGE)) == LARGE
            await sending
            assert part.direct is False

    run(main())


@pytest.mark.parametrize(("number", "expected"), [(errno.EPIPE, ClientDisconnected), (errno.EIO, OSError)])
def test_errors_of_the_peer_and_of_the_disk_differ(
    number: int, expected: type[Exception], large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken pipe is a client that left; an I/O error stays what it is."""

    def fail(*args: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", fail)

    async def main() -> None:
        async with connection() as (flow, _, _):
            part = await open_path(str(large))
            with pytest.raises(OSError) as caught:
                await send_all(flow, part)
            assert type(caught.value) is expected

    run(main())


def test_under_tls_the_file_is_read(large: Path) -> None:
    """With TLS the kernel cannot encrypt what it copies, so the transport gets the bytes."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)

    async def main() -> None:
        async with connection(server, client) as (flow, reader, _):
            part = await open_path(str(large))
            sending = asyncio.create_task(send_all(flow, part))
            assert await reader.readexactly(len(LARGE)) == LARGE
            await sending
            assert part.direct is False

    run(main())


def test_a_transport_that_is_no_socket_gets_reads(large: Path) -> None:
    """A transport without a socket is written to like any other."""

    async def main() -> None:
        transport = FakeTransport()
        part = await open_path(str(large))
        await send_all(FlowControl(transport), part)
        assert transport.sent == LARGE

    run(main())


def test_out_of_descriptors_the_file_is_read(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate that cannot be had is no reason to fail."""

    async def main() -> None:
        async with connection() as (flow, reader, _):
            part = await open_path(str(large))

            def refuse(fd: int) -> int:
                raise OSError(errno.EMFILE, "too many open files")

            monkeypatch.setattr(os, "dup", refuse)
            sending = asyncio.create_task(send_all(flow, part))
            assert await reader.readexactly(len(LARGE)) == LARGE
            await sending

    run(main())


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_a_small_file_is_read_when_it_is_opened(size: int, tmp_path: Path) -> None:
    """Up to SMALL bytes come with the opening, in one job."""
    path = tmp_path / "small"
    path.write_bytes(b"s" * size)

    async def main() -> None:
        part = await open_path(str(path))
        assert part.data == b"s" * size
        assert part.count == size
        part.close()

    run(main())


def test_x11_a_missing_file_raises(tmp_path: Path) -> None:
    """Opening raises the OSError that the application would have got."""

    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await open_path(str(tmp_path / "missing"))

    run(main())


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_only_regular_files_are_sent(kind: str, tmp_path: Path) -> None:
    """A directory is refused, and a FIFO too, without waiting for a writer."""
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()

    async def main() -> None:
        with pytest.raises(InvalidMessage, match="regular"):
            await open_path(str(path))

    run(main())


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        (None, None, b"3456789"),
        (None, 2, b"34"),
        (0, None, b"0123456789"),
        (4, 3, b"456"),
        (8, 50, b"89"),
        (20, None, b""),
        (0, 0, b""),
    ],
)
def test_x5_offset_and_count(offset: int | None, count: int | None, expected: bytes, tmp_path: Path) -> None:
    """Without an offset a file is sent from where it stands, without a count to its end."""
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")

    async def main() -> None:
        with path.open("rb") as file:
            file.read(3)
            part = await open_file(file, offset, count)
            assert part.data == expected
            part.close()
            assert file.tell() == 3
        fd = os.open(path, os.O_RDONLY)
        os.lseek(fd, 3, os.SEEK_SET)
        part = await open_file(fd, offset, count)
        assert part.data == expected
        part.close()
        os.close(fd)

    run(main())


def test_x7_the_application_may_close_its_file_at_any_time(large: Path) -> None:
    """The transfer has a descriptor of its own."""

    async def main() -> None:
        async with connection() as (flow, reader, _):
            with large.open("rb") as file:
                part = await open_file(file, 1, None)
            sending = asyncio.create_task(send_all(flow, part))
            assert await reader.readexactly(part.count) == LARGE[1:]
            await sending

    run(main())


@pytest.mark.parametrize("thing", ["text", None, object(), -1])
def test_x4_what_has_no_descriptor_is_refused(thing: Any) -> None:
    """Only something with a file descriptor can be sent."""

    async def main() -> None:
        with pytest.raises(InvalidMessage, match="descriptor"):
            await open_file(thing, None, None)

    run(main())


def test_the_pool_is_small_lazy_and_of_daemons() -> None:
    """Threads start when all others have work, up to the size of the pool, and never hold up the exit."""
    pool, go = FilePool(2), threading.Event()

    async def main() -> None:
        assert not pool.threads
        jobs = [asyncio.create_task(pool.run(FilePart(), go.wait, 30)) for _ in range(3)]
        await until(lambda: pool.pending == 3)
        assert len(pool.threads) == 2
        assert all(thread.daemon for thread in pool.threads)
        go.set()
        assert await asyncio.gather(*jobs) == [True] * 3
        assert await pool.run(FilePart(), len, b"abc") == 3
        assert len(pool.threads) == 2
        with pytest.raises(ZeroDivisionError):
            await pool.run(FilePart(), divmod, 1, 0)
        pool.close()
        assert not pool.threads

    run(main())


def test_a_job_that_outlives_its_loop_harms_nobody() -> None:
    """A thread whose loop has been closed drops the result and goes on."""
    pool, go, started = FilePool(1), threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        go.wait(30)

    async def leave() -> None:
        working = asyncio.create_task(pool.run(FilePart(), job))
        await until(started.is_set)
        working.cancel()

    async def again() -> None:
        assert await pool.run(FilePart(), len, b"ab") == 2

    run(leave())
    go.set()
    run(again())
    pool.close()
