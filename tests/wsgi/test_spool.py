"""Spool: what of a response does not fit into memory, on disk."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from hybridworker.errors import ClientDisconnected
from hybridworker.wsgi.handoff import JOIN_MAX
from hybridworker.wsgi.middleware import WSGIMiddleware
from hybridworker.wsgi.spool import AHEAD_MAX, MEMORY_MAX, MIB, Disk, allocator_trim, memory_behind
from hybridworker.wsgi.streams import FileWrapper
from hybridworker.wsgi.threads import ThreadPool
from tests.waiting import DEADLINE, run, until, until_seen
from tests.wsgicall import Client, make_scope, make_settings

Start = Callable[..., Any]
PIECE = bytes(range(256)) * 256


class Warnings(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(64 * MIB, Warnings(), folder=str(tmp_path))
    yield made
    made.close()


class Reader(Client):
    """A client of which the test says when it reads; it also takes files."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.zerocopysend":
            data = os.pread(message["file"], message["count"], message["offset"])
            message = {"type": "http.response.body", "body": data, "more_body": message["more_body"], "spooled": True}
        await super().send(message)

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def spooled(self) -> int:
        return sum(len(message["body"]) for message in self.messages if "spooled" in message)


def serve(app: Any, disk: Disk | None, meanwhile: Callable[[Reader, ThreadPool], Any], reads: bool = False) -> Reader:
    """Run a call to whose client ``meanwhile`` does something while it does not read yet, and wait for its end."""

    async def main() -> Reader:
        settings, client = make_settings(), Reader()
        pool = ThreadPool(1)
        middleware = WSGIMiddleware(app, settings, pool, errors=None, server_software="x", disk=disk)  # type: ignore[arg-type]
        if not reads:
            client.reads.clear()
        task = asyncio.ensure_future(middleware(make_scope(), client.receive, client.send))
        try:
            result = meanwhile(client, pool)
            if result is not None:
                await result
            client.reads.set()
            await task
        finally:
            pool.close()
        return client

    made: Reader = run(main())
    return made


async def free(client: Reader, pool: ThreadPool) -> None:
    """The thread has nothing more to do, although nothing was read."""
    await until(lambda: client.messages and not pool.calls())


def generator(environ: Any, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [])
    return (PIECE for _ in range(8 * MIB // len(PIECE)))


def listed(environ: Any, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [PIECE] * (8 * MIB // len(PIECE))


def whole(environ: Any, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [PIECE * (8 * MIB // len(PIECE))]


def measured(environ: Any, start_response: Start) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", str(8 * MIB))])
    return iter([PIECE * (8 * MIB // len(PIECE)) + b"beyond its length"])


def written(environ: Any, start_response: Start) -> Iterable[bytes]:
    write = start_response("200 OK", [])
    for _ in range(8 * MIB // len(PIECE)):
        write(PIECE)
    return []


@pytest.mark.parametrize("app", [generator, listed, whole, measured, written])
def test_a_slow_reader_holds_no_thread(app: Any, disk: Disk) -> None:
    """The call ends before the client has read anything, and the client gets every byte in its order."""
    client = serve(app, disk, free)
    assert client.body == PIECE * (8 * MIB // len(PIECE))
    assert client.spooled >= 8 * MIB - AHEAD_MAX
    assert not client.messages[-1]["more_body"]
    disk.close()
    assert disk.used == disk.dirty == 0
    assert os.listdir(disk.folder) == []
    if app in (listed, whole, measured):
        assert client.headers["content-length"] == str(8 * MIB)


def test_what_fits_into_memory_is_not_on_disk(disk: Disk) -> None:
    """A body of a MiB in one piece, and a shorter one in several."""

    def one(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b"x" * AHEAD_MAX]

    def several(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        return (PIECE for _ in range(MEMORY_MAX // JOIN_MAX))

    for app, size in (one, AHEAD_MAX), (several, MEMORY_MAX):
        client = serve(app, disk, free)
        assert len(client.body) == size
        assert not client.spooled


def test_a_client_that_reads_has_it_from_memory(disk: Disk) -> None:
    """The thread waits a moment for it instead."""
    client = serve(generator, disk, lambda client, pool: None, reads=True)
    assert len(client.body) == 8 * MIB
    assert client.spooled < 8 * MIB


def test_after_the_disk_comes_memory_again(disk: Disk) -> None:
    """When the client has caught up; items still reach it as they come."""
    turns: list[int] = []

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", [])
        for turn in range(4):
            yield from [PIECE] * 32
            turns.append(turn)
            while len(turns) < 5 and turn == 1:
                pass

    async def catch_up(client: Reader, pool: ThreadPool) -> None:
        await until(lambda: len(turns) == 2)
        client.reads.set()
        await until(lambda: len(client.body) == 64 * len(PIECE))
        client.reads.clear()
        turns.extend([0, 0, 0])
        await free(client, pool)

    client = serve(app, disk, catch_up)
    assert client.body == PIECE * 128
    disk.close()
    assert disk.used == 0


@pytest.mark.parametrize("disk_there", [True, False])
def test_beyond_the_limit_the_thread_waits(tmp_path: Path, disk_there: bool) -> None:
    """As it does without a disk; nothing is lost."""
    disk = Disk(2 * MIB, Warnings(), folder=str(tmp_path)) if disk_there else None

    async def blocked(client: Reader, pool: ThreadPool) -> None:
        await until(lambda: client.messages and (disk is None or disk.used == 2 * MIB))
        for _ in range(100):
            await asyncio.sleep(0)
        assert pool.calls() == 1

    client = serve(generator, disk, blocked)
    assert client.body == PIECE * (8 * MIB // len(PIECE))
    if disk is not None:
        disk.close()
        assert disk.used == 0
        assert cast(Warnings, disk.warn) == []


def test_the_limit_of_all_is_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is given back can be taken again."""
    disk = Disk(64 * MIB, Warnings(), total=3 * MIB, folder=str(tmp_path))
    monkeypatch.setattr(disk, "sweep", lambda spool: None)
    one, other = disk.open(), disk.open()
    assert one is not None
    assert other is not None
    assert one.write(b"x" * (2 * MIB)) == 2 * MIB
    assert other.write(b"x" * (2 * MIB)) == MIB
    assert disk.open() is None
    del one
    gc.collect()
    assert other.write(b"x" * (2 * MIB)) == 2 * MIB
    del other
    assert disk.used == 0


@pytest.mark.parametrize("end", ["client", "application"])
def test_the_file_ends_with_the_response(disk: Disk, end: str) -> None:
    """Whoever ends it, also where the application keeps its environ."""
    kept: list[Any] = []

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        kept.append(environ)
        start_response("200 OK", [])
        yield from [PIECE] * 64
        if end == "application":
            raise ValueError("application")

    async def leave(client: Reader, pool: ThreadPool) -> None:
        await free(client, pool)
        assert disk.used
        if end == "client":
            client.leave()

    with pytest.raises(ClientDisconnected if end == "client" else ValueError):
        serve(app, disk, leave)
    disk.close()
    gc.collect()
    assert disk.used == disk.dirty == 0


def test_a_file_may_follow_what_is_on_disk(disk: Disk, tmp_path: Path) -> None:
    """In its order."""
    path = tmp_path / "file"
    path.write_bytes(b"the file")

    def app(environ: Any, start_response: Start) -> Iterable[bytes]:
        write = start_response("200 OK", [])
        for _ in range(64):
            write(PIECE)
        return FileWrapper(path.open("rb"))

    async def main() -> bytes:
        client, pool = Reader(), ThreadPool(1)
        client.reads.clear()
        settings = make_settings(sendfile=False)
        middleware = WSGIMiddleware(app, settings, pool, errors=None, server_software="x", disk=disk)  # type: ignore[arg-type]
        task = asyncio.ensure_future(middleware(make_scope(), client.receive, client.send))
        await free(client, pool)
        client.reads.set()
        await task
        pool.close()
        return client.body

    assert run(main()) == PIECE * 64 + b"the file"


def test_a_disk_that_is_memory_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line for the worker, not one for each response."""
    monkeypatch.setattr("hybridworker.wsgi.spool.memory_behind", lambda folder: "tmpfs")
    disk = Disk(MIB, Warnings(), folder=str(tmp_path))
    assert disk.usable
    assert disk.open() is disk.open() is None
    assert not disk.usable
    assert disk.warn == [
        "Responses to slow clients hold their threads, because none can be kept on disk:"
        f" {tmp_path} is tmpfs, which is memory"
    ]


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """Read-only, or not there: no other folder is taken in its place."""
    disk = Disk(MIB, Warnings(), folder=str(tmp_path / "missing"))
    assert disk.open() is disk.open() is None
    lines = cast(Warnings, disk.warn)
    assert len(lines) == 1
    assert lines[0].endswith(f"No such file or directory ({tmp_path}/missing)")


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    """What fitted is kept; the rest waits in the thread, and nothing is lost."""
    pwrite, room = os.pwrite, 2 * MIB

    def full(fd: int, data: Any, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, data[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", full)
    client = serve(generator, disk, lambda client, pool: until(lambda: disk.warn))
    assert client.body == PIECE * (8 * MIB // len(PIECE))
    assert len(disk.warn) == 1  # type: ignore[arg-type]
    assert "No space left on device" in disk.warn[0]  # type: ignore[index]
    disk.close()
    assert disk.used == 0


def test_a_collection_may_end_a_spool_at_any_time(disk: Disk) -> None:
    """Also in the thread that has the lock: from Python 3.12 on one may begin behind any call."""
    spools = [disk.open()]
    assert spools[0] is not None
    spools[0].write(PIECE)

    def collected() -> None:
        with disk.lock:
            spools.clear()

    thread = threading.Thread(target=collected, daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert disk.used == 0


def test_the_folder_is_that_of_tmpdir(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, what Python takes."""
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert Disk(MIB, Warnings()).folder == "/somewhere"
    monkeypatch.delenv("TMPDIR")
    assert Disk(MIB, Warnings()).folder == tempfile.gettempdir()


def test_memory_behind_a_folder(tmp_path: Path) -> None:
    """As the table of mounts says; where it says nothing, a disk is assumed."""
    device = os.stat(tmp_path).st_dev
    line = f"36 35 {os.major(device)}:{os.minor(device)} / /tmp rw,noatime master:1 - {{}} /dev/root rw\n"
    mounts = tmp_path / "mounts"
    for kind, expected in ("tmpfs", "tmpfs"), ("ext4", ""), ("ramfs", "ramfs"):
        mounts.write_text("35 1 0:99 / / rw - tmpfs none rw\n" + line.format(kind))
        assert memory_behind(str(tmp_path), str(mounts)) == expected
    assert memory_behind(str(tmp_path), str(tmp_path / "none")) == ""
    assert memory_behind(str(tmp_path / "none")) == ""


def test_beyond_a_bound_the_thread_writes_to_the_disk_itself(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> None:
    """The page cache is memory as well."""
    monkeypatch.setattr("hybridworker.wsgi.spool.DIRTY_MAX", MIB)
    monkeypatch.setattr(disk, "sweep", lambda spool: None)
    spool = disk.open()
    assert spool is not None
    spool.write(b"x" * MIB)
    assert disk.dirty == MIB
    spool.write(b"x" * MIB)
    assert disk.dirty == 0
    del spool
    assert disk.used == 0


@pytest.mark.parametrize(("amount", "quiet"), [(2, 1000.0), (1000, 0.001)], ids=["many bytes", "no more work"])
def test_the_allocator_is_asked_for_freed_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, amount: int, quiet: float
) -> None:
    """Behind many bytes, and behind the last of fewer; not again where nothing more was written."""
    asked: list[int] = []
    monkeypatch.setattr("hybridworker.wsgi.spool.TRIM", amount * MIB)
    monkeypatch.setattr("hybridworker.wsgi.spool.QUIET", quiet)
    monkeypatch.setattr("hybridworker.wsgi.spool.allocator_trim", lambda: asked.append)
    disk = Disk(64 * MIB, Warnings(), folder=str(tmp_path))
    spool = disk.open()
    assert spool is not None
    spool.write(b"x" * (3 * MIB))
    until_seen(lambda: asked)
    disk.sweep(spool)
    until_seen(lambda: not spool.sweeping)
    disk.close()
    assert asked == [0]


def no_library(name: Any) -> Any:
    raise OSError("none of this name")


@pytest.mark.parametrize("library", [no_library, lambda name: object()], ids=["no library", "no such function"])
def test_without_glibc_freed_memory_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    """As with musl, and on macOS."""
    assert allocator_trim()(0) in (0, 1)
    monkeypatch.setattr(ctypes, "CDLL", library)
    assert allocator_trim()(0) == 0
