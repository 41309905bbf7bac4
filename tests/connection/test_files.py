"""filebody.py: pathsend and zerocopysend on a real connection, framed and in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.sendfile import POOL, FilePart
from hybridworker.errors import ClientDisconnected, InvalidMessage, ResponseError, UnexpectedMessage
from hybridworker.http11.protocol import HTTPProtocol
from tests.fakes import FakeLog
from tests.harness import GET, application, body, make_settings, start
from tests.waiting import run, until

SMALL = b"0123456789"

#: Fits into no socket buffer.
LARGE = os.urandom(1 << 20) * 12

Steps = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """A directory with a small and a large file."""
    (tmp_path / "small").write_bytes(SMALL)
    (tmp_path / "large").write_bytes(LARGE)
    yield tmp_path
    POOL.close()


def path_send(path: Any) -> Message:
    return {"type": "http.response.pathsend", "path": str(path) if isinstance(path, Path) else path}


def copy(file: Any, more: bool = False, **options: Any) -> Message:
    return {"type": "http.response.zerocopysend", "file": file, "more_body": more, **options}


def announced(size: int) -> Message:
    return start(200, (b"content-length", b"%d" % size))


def playing(*messages: Message) -> Steps:
    """An application that sends ``messages``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


class Served:
    """A connection to an application: ``reader`` and ``writer`` are the client's, ``errors`` what send() raised."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: Any

    def __init__(self) -> None:
        self.log = FakeLog()
        self.errors: list[BaseException] = []

    async def answer(self, request: bytes = GET) -> tuple[bytes, bytes]:
        """Ask, and read the head, and then all that comes before the connection ends or is idle."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.writer.write_eof()
        with contextlib.suppress(ConnectionError):
            return head, await self.reader.read(-1)
        return head, b""


@contextlib.asynccontextmanager
async def served(app: Steps, **settings: Any) -> AsyncIterator[Served]:
    loop = asyncio.get_running_loop()
    it = Served()

    async def recording(scope: Scope, receive: Receive, send: Send) -> None:
        async def recorded(message: Message) -> None:
            try:
                await send(message)
            except BaseException as exc:
                it.errors.append(exc)
                raise

        await app(scope, receive, recorded)

    context = WorkerContext(
        application=application(recording), settings=make_settings(**settings), loop=loop, log=it.log
    )
    context.clock.fields = b""

    def protocol() -> asyncio.Protocol:
        it.protocol = HTTPProtocol(context)
        made: asyncio.Protocol = it.protocol
        return made

    server = await loop.create_server(protocol, "127.0.0.1", 0)
    it.reader, it.writer = await asyncio.open_connection(*server.sockets[0].getsockname(), limit=65536)
    try:
        yield it
    finally:
        it.writer.close()
        with contextlib.suppress(OSError):
            await it.writer.wait_closed()
        it.protocol.abort()
        await until(lambda: not context.connections and not context.cycles)
        server.close()


def exchange(app: Steps, request: bytes = GET, **settings: Any) -> tuple[bytes, bytes, Served]:
    """The head and the body that ``app`` answers with, and the connection it was on."""
    found: list[Any] = []

    async def main() -> None:
        async with served(app, **settings) as it:
            found.extend([*await it.answer(request), it])

    run(main())
    head, content, it = found
    return head, content, it


@pytest.mark.parametrize("name", ["small", "large"])
@pytest.mark.parametrize("sendfile", [True, False])
def test_x10_path_send_with_a_length(name: str, sendfile: bool, files: Path) -> None:
    """The head is the application's own, the body is the file."""
    content = LARGE if name == "large" else SMALL
    head, sent, it = exchange(playing(announced(len(content)), path_send(files / name)), sendfile=sendfile)
    assert head == b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
    assert sent == content
    assert not it.errors


@pytest.mark.parametrize("name", ["small", "large"])
def test_x10_path_send_without_a_length(name: str, files: Path) -> None:
    """Without Content-Length the file is one chunk."""
    content = LARGE if name == "large" else SMALL
    head, sent, _ = exchange(playing(start(), path_send(files / name)))
    assert b"Transfer-Encoding: chunked" in head
    assert sent == b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


def test_path_send_to_http10_ends_with_the_connection(files: Path) -> None:
    """An HTTP/1.0 client gets no chunks."""
    head, sent, _ = exchange(playing(start(), path_send(files / "large")), b"GET / HTTP/1.0\r\n\r\n")
    assert b"chunked" not in head
    assert sent == LARGE


@pytest.mark.parametrize("name", ["small", "large"])
def test_x12_head_sends_no_file(name: str, files: Path) -> None:
    """HEAD gets the head alone."""
    head, sent, _ = exchange(playing(announced(10), path_send(files / name)), GET.replace(b"GET", b"HEAD"))
    assert (head, sent) == (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", b"")


def test_x11_a_missing_file_is_a_500(files: Path) -> None:
    """Nothing was written when the file turns out to be missing."""
    head, _, it = exchange(playing(announced(5), path_send(files / "missing")))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], FileNotFoundError)
    assert it.log.at("exception")


def test_an_application_may_answer_for_a_missing_file(files: Path) -> None:
    """After the error the response is where it was: an ordinary body is legal."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(announced(4))
        with contextlib.suppress(FileNotFoundError):
            await send(path_send(files / "missing"))
        await send(body(b"none"))

    assert exchange(app)[1] == b"none"


@pytest.mark.parametrize("path", ["relative", b"/bytes", None, 5])
def test_x9_the_path_is_absolute(path: Any, files: Path) -> None:
    """Only an absolute path that is a str is taken."""
    head, _, it = exchange(playing(announced(5), {"type": "http.response.pathsend", "path": path}))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], InvalidMessage)


@pytest.mark.parametrize("name", ["small", "large"])
def test_a_file_that_has_grown_is_cut_to_what_was_announced(name: str, files: Path) -> None:
    """Path send never sends more than the Content-Length, though the file may have grown since it was measured."""
    content = LARGE if name == "large" else SMALL
    _, sent, it = exchange(playing(announced(len(content) - 1), path_send(files / name)))
    assert sent == content[:-1]
    assert not it.errors


@pytest.mark.parametrize("name", ["small", "large"])
def test_h42_a_file_shorter_than_announced_is_a_500(name: str, files: Path) -> None:
    """What cannot be kept is found out before anything is written."""
    head, _, it = exchange(playing(announced(len(LARGE) + 1), path_send(files / name)))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], ResponseError)


def test_x8_each_part_is_one_chunk(files: Path) -> None:
    """Small and large parts mix with ordinary bodies, each a chunk; an empty part is none."""
    with (files / "large").open("rb") as large, (files / "small").open("rb") as small:
        _, sent, _ = exchange(
            playing(
                start(),
                copy(small, more=True),
                body(b"between", more=True),
                copy(large, more=True, offset=1),
                copy(small, more=True, offset=0, count=0),
                copy(small, offset=3, count=2),
            )
        )
    size = len(LARGE) - 1
    assert sent == b"a\r\n%b\r\n7\r\nbetween\r\n%x\r\n%b\r\n2\r\n34\r\n0\r\n\r\n" % (SMALL, size, LARGE[1:])


def test_x6_parts_within_a_length(files: Path) -> None:
    """With Content-Length the parts follow one another, and the connection goes on."""

    async def main() -> None:
        with (files / "large").open("rb") as large:
            app = playing(announced(len(LARGE) + 3), body(b"one", more=True), copy(large, offset=0))
            async with served(app) as it:
                for _ in range(2):
                    it.writer.write(GET)
                    await it.reader.readuntil(b"\r\n\r\n")
                    assert await it.reader.readexactly(len(LARGE) + 3) == b"one" + LARGE

    run(main())


def test_x5_parts_without_an_offset_follow_one_another(files: Path) -> None:
    """What was sent from where the file stands counts as read, by object or by descriptor."""
    with (files / "small").open("rb") as file:
        _, sent, _ = exchange(playing(announced(7), copy(file, more=True, count=3), copy(file, count=4)))
        assert sent == SMALL[:7]
        assert file.tell() == 7
    fd = os.open(files / "small", os.O_RDONLY)
    try:
        _, sent, _ = exchange(playing(announced(7), copy(fd, more=True, count=3), copy(fd, count=4)))
        assert sent == SMALL[:7]
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    finally:
        os.close(fd)


def test_x5_an_offset_leaves_the_position_alone(files: Path) -> None:
    """With an offset the file stays where it stands."""
    with (files / "small").open("rb") as file:
        assert exchange(playing(announced(2), copy(file, offset=8)))[1] == b"89"
        assert file.tell() == 0


@pytest.mark.parametrize("options", [{"offset": -1}, {"count": -1}, {"offset": "1"}, {"count": 1.0}, {"count": True}])
def test_offset_and_count_are_natural_numbers(options: Any, files: Path) -> None:
    """Wrong numbers raise before anything is written."""
    with (files / "small").open("rb") as file:
        head, _, it = exchange(playing(announced(5), copy(file, **options)))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], InvalidMessage)


def test_a_file_is_needed() -> None:
    """zerocopysend without its file raises."""
    _, _, it = exchange(playing(announced(5), {"type": "http.response.zerocopysend"}))
    assert isinstance(it.errors[0], InvalidMessage)


def test_a_file_that_cannot_be_moved(files: Path) -> None:
    """An error out of the file's own seek() is the application's, and closes what was opened for it."""

    class Stuck:
        def __init__(self, fd: int) -> None:
            self.fd = fd

        def fileno(self) -> int:
            return self.fd

        def tell(self) -> int:
            return 0

        def seek(self, offset: int) -> int:
            raise RuntimeError("stuck")

    with (files / "small").open("rb") as file:
        head, _, it = exchange(playing(announced(10), copy(Stuck(file.fileno()))))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], RuntimeError)


def test_h42_too_large_a_part_raises_and_goes_nowhere(files: Path) -> None:
    """More than the Content-Length is an error of zerocopysend, as of an ordinary body."""
    with (files / "large").open("rb") as file:
        head, _, it = exchange(playing(announced(5), copy(file)))
    assert head.startswith(b"HTTP/1.1 500")
    assert isinstance(it.errors[0], ResponseError)


@pytest.mark.parametrize("name", ["small", "large"])
def test_x17_trailers_follow_a_file(name: str, files: Path) -> None:
    """A file does not end a response that promised trailers."""
    content = LARGE if name == "large" else SMALL
    opening: Message = {**start(), "trailers": True}
    closing: Message = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
    request = b"GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n"
    _, sent, _ = exchange(playing(opening, path_send(files / name), closing), request)
    assert sent == b"%x\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(content), content)


def test_no_message_is_legal_while_a_file_is_sent(files: Path) -> None:
    """A second task cannot write amid a file."""
    caught: list[Exception] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(announced(len(LARGE)))
        sending = asyncio.ensure_future(send(path_send(files / "large")))
        await asyncio.sleep(0)
        for message in (body(b"amid", more=True), path_send(files / "small")):
            try:
                await send(message)
            except UnexpectedMessage as exc:
                caught.append(exc)
        await sending

    assert exchange(app)[1] == LARGE
    assert len(caught) == 2
    assert "FILE" in str(caught[0])


def amid(change: Callable[[Served], None], files: Path, **settings: Any) -> tuple[Served, bytes]:
    """Ask for the large file, and call ``change`` when the client's and the server's buffers are full."""
    found: list[Any] = []

    async def main() -> None:
        async with served(playing(start(200), path_send(files / "large")), **settings) as it:
            it.writer.write(GET)
            await it.reader.readuntil(b"\r\n\r\n")
            await until(lambda: it.protocol.flow.waiters)
            change(it)
            rest = b""
            with contextlib.suppress(ConnectionError):
                rest = await it.reader.read(-1)
            await until(lambda: it.errors)
            found.extend([it, rest])

    run(main())
    it, rest = found
    return it, rest


def test_a_file_cut_amid_its_sending_cuts_the_connection(files: Path) -> None:
    """The client must see that the response is not whole."""
    it, rest = amid(lambda it: os.truncate(files / "large", 0), files)
    assert isinstance(it.errors[0], ResponseError)
    assert len(rest) < len(LARGE)
    assert it.log.at("exception")


def test_h46_a_client_that_leaves_amid_a_file_is_no_error(files: Path) -> None:
    """The application gets ClientDisconnected, and the log stays quiet."""
    it, _ = amid(lambda it: it.writer.transport.abort(), files)
    assert isinstance(it.errors[0], ClientDisconnected)
    assert not it.log.at("exception")
    assert not it.log.at("error")


def test_a_client_that_takes_nothing_is_given_up(files: Path) -> None:
    """After write_timeout without a byte taken the connection is cut."""
    found: list[Any] = []

    async def main() -> None:
        async with served(playing(start(200), path_send(files / "large")), write_timeout=0.05) as it:
            it.writer.write(GET)
            await until(lambda: it.errors)
            await until(lambda: it.protocol.flow.lost)
            found.append(it)

    run(main())
    assert isinstance(found[0].errors[0], ClientDisconnected)
    assert not found[0].log.at("exception")


def test_a_send_that_the_application_cancels_cuts_the_connection(files: Path) -> None:
    """A piece of a file is nothing to go on from."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(announced(len(LARGE)))
        sending = asyncio.ensure_future(send(path_send(files / "large")))
        await receive()
        await asyncio.wait([sending], timeout=0.1)
        sending.cancel()
        await asyncio.wait([sending])
        with pytest.raises(UnexpectedMessage):
            await send(body(b"more"))

    async def main() -> None:
        async with served(app) as it:
            it.writer.write(GET)
            await until(lambda: it.errors)
            assert len(await it.reader.read(-1)) < len(LARGE)
            assert isinstance(it.errors[0], asyncio.CancelledError)

    run(main())


def test_a_connection_that_is_lost_while_the_file_is_opened(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written for nobody, and the file is closed."""
    go, started = threading.Event(), threading.Event()
    parts: list[FilePart] = []
    measure = FilePart.measure

    def slow(part: FilePart, count: int | None) -> None:
        parts.append(part)
        started.set()
        go.wait(30)
        measure(part, count)

    monkeypatch.setattr(FilePart, "measure", slow)

    async def main() -> None:
        async with served(playing(announced(len(LARGE)), path_send(files / "large"))) as it:
            it.writer.write(GET)
            try:
                await until(started.is_set)
                it.protocol.abort()
                await until(lambda: it.protocol.flow.lost)
            finally:
                go.set()
            await until(lambda: it.errors)
            assert isinstance(it.errors[0], ClientDisconnected)
            assert parts[0].fd == -1

    run(main())
