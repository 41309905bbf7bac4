"""
Files to a client: ``os.sendfile`` where it can be had, reads where it cannot.

This module moves the bytes of one :class:`FilePart` and knows nothing of HTTP. :mod:`.files` checks the message and
keeps everything else out of the response while the file is sent; the cycle (:meth:`send_part`) frames the bytes.

    open_path, open_file -> FilePart (opened, measured, read at once when small)
    send_some            -> empty write buffer -> dup of the socket -> a burst of sendfile

What may wait for a disk runs in the few daemon threads of :data:`POOL`. What waits for a
client waits on the loop, so a thousand slow readers occupy no thread. The methods are
labelled with the side they run on.

Invariant: a descriptor that a thread may be using is never closed, and is never the
transport's or the application's own. Its number would be given to the next client, and the
bytes of one response would go to another. So both ends are duplicates, and
:meth:`FilePart.close` leaves the closing to the end of the job.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import queue
import stat
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple

from ..errors import ClientDisconnected, InvalidMessage
from .flow import FlowControl
from .kernel import limit_unsent, unacknowledged

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

#: Up to this size a part is read in the job that opens it, and written together with the head:
#: one crossing between threads instead of three.
SMALL = 64 * 1024

#: Bytes of one ``os.sendfile``: the time for which a transfer keeps a thread from the others.
BURST = 1024 * 1024

#: Bytes of one read, where ``os.sendfile`` cannot be used. The loop encrypts them in one go.
BLOCK = 128 * 1024

#: Bytes that the kernel takes ahead of what the network does: as long as it has them, pages of the file are in memory.
UNSENT_MAX = 128 * 1024

#: What ``os.sendfile`` and the socket below it say of a peer that is gone.
_GONE = frozenset(
    {
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
    }
)

#: What ``os.sendfile`` says of a file system or socket that it does not serve.
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP})


class File(Protocol):
    """What ``http.response.zerocopysend`` needs of an open file. A bare descriptor will do as well."""

    def fileno(self) -> int: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, /) -> object: ...


class FilePart:
    """
    A range of an open file on its way to a client.

    ``offset`` and ``count`` are what is left to send; a file shorter than asked for has
    less. ``data`` holds the whole range where it was small enough to be read at once.
    """

    __slots__ = ("busy", "closing", "count", "data", "direct", "fd", "offset", "sock")

    def __init__(self, fd: int = -1, offset: int = 0) -> None:
        self.fd = fd  #: the file, ours to close
        self.sock = -1  #: a duplicate of the client's socket, ours to close
        self.offset = offset
        self.count = 0
        self.data: bytes | None = None
        self.direct: bool | None = None  #: from file to socket in the kernel; None until the first burst
        self.busy = False  #: a thread uses the descriptors
        self.closing = False

    # -- loop side

    def advance(self, size: int) -> int:
        """``size`` bytes were sent; returns ``size``."""
        self.offset += size
        self.count -= size
        return size

    def close(self) -> None:
        """Close both descriptors, now or at the end of the job that uses them. May be called twice."""
        self.closing = True
        if self.busy:
            return
        for fd in (self.fd, self.sock):
            if fd >= 0:
                os.close(fd)
        self.fd = self.sock = -1

    # -- thread side

    def open(self, path: str) -> None:
        """Open ``path`` and measure it."""
        # O_NONBLOCK: a FIFO would hold the thread until somebody writes to it. Regular files do not notice.
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.measure(None)

    def measure(self, count: int | None) -> None:
        """Find out how much of ``count`` bytes (None: to the end) there is; read it if it is small."""
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidMessage("only regular files can be sent")
        rest = max(0, status.st_size - self.offset)
        self.count = rest if count is None else min(count, rest)
        if self.count <= SMALL:
            self.data = self.read(self.count)
            self.count = len(self.data)

    def read(self, size: int) -> bytes:
        """Read the next ``size`` bytes; fewer only at the end of the file."""
        data = os.pread(self.fd, size, self.offset)
        while 0 < len(data) < size and (more := os.pread(self.fd, size - len(data), self.offset + len(data))):
            data += more
        return data

    def burst(self) -> int:
        """Hand the next bytes to the socket, as many as it takes now; 0 at the end of the file."""
        return os.sendfile(self.sock, self.fd, self.offset, min(self.count, BURST))


_Job = tuple[asyncio.Future[Any], FilePart, Callable[..., Any], tuple[Any, ...]]


class FilePool:
    """
    The threads that wait for disks.

    They are daemons, started when they are needed, and made by hand: those of
    ``concurrent.futures`` are joined at exit, and a dead file server would hold the process.
    The counters belong to the loop; the queue is the only thing both sides touch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.pending = 0  #: jobs handed out and not yet delivered

    # -- loop side

    async def run(self, part: FilePart, call: Callable[[*_Args], _T], *args: *_Args) -> _T:
        """Run ``call(*args)``, which uses the descriptors of ``part``, in a thread."""
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        part.busy = True
        self.pending += 1
        if self.pending > len(self.threads) < self.size:
            thread = threading.Thread(target=self._work, name=f"hybridworker-file-{len(self.threads)}", daemon=True)
            self.threads.append(thread)
            thread.start()
        self.jobs.put((future, part, call, args))
        try:
            return await future
        finally:
            del future  # its exception refers to this frame, and would keep the file until a garbage collection

    def close(self) -> None:
        """Let the threads end, each after its job, and wait for them."""
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()
        self.threads.clear()

    def _deliver(self, future: asyncio.Future[Any], part: FilePart, result: Any, exc: BaseException | None) -> None:
        self.pending -= 1
        part.busy = False
        if part.closing:  # the request was cancelled meanwhile
            part.close()
        if not future.done():
            if exc is not None:
                future.set_exception(exc)
            else:
                future.set_result(result)

    # -- thread side

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            future, part, call, args = job
            result, error = None, None
            try:
                result = call(*args)
            except Exception as exc:
                error = exc
            try:
                future.get_loop().call_soon_threadsafe(self._deliver, future, part, result, error)
            except RuntimeError:  # the loop is closed: the process is leaving, and takes the descriptors with it
                pass
            del job, future, part, call, args, result, error  # an idle thread keeps nothing alive


#: The one pool of the process. Its threads start after the fork, with the first file.
POOL = FilePool(4)


async def open_path(path: str) -> FilePart:
    """Open the whole file at ``path``. Raises OSError, or InvalidMessage where it is not a regular file."""
    part = FilePart()
    try:
        await POOL.run(part, part.open, path)
    except BaseException:
        part.close()
        raise
    return part


async def open_file(file: File | int, offset: int | None, count: int | None) -> FilePart:
    """
    Take ``count`` bytes (None: to the end) of an open file at ``offset`` (None: where it stands).

    The file stays the caller's, who may close it at any time.
    """
    try:
        fd = file if isinstance(file, int) else file.fileno()
        if offset is None:
            offset = os.lseek(file, 0, os.SEEK_CUR) if isinstance(file, int) else file.tell()
        part = FilePart(os.dup(fd), offset)
    except (AttributeError, TypeError, ValueError, OSError) as exc:
        raise InvalidMessage(f"file must be an open file with a descriptor, not {file!r}") from exc
    try:
        await POOL.run(part, part.measure, count)
    except BaseException:
        part.close()
        raise
    return part


async def send_some(flow: FlowControl, part: FilePart, *, write_timeout: float = math.inf, direct: bool = True) -> int:
    """
    Send the next bytes of ``part`` and return their number: 0 when none is left, or the file became shorter.

    ``direct=False`` keeps to reads. Nothing else may be written to the transport from the
    first call to the last. Raises :class:`~.errors.ClientDisconnected` when the peer goes,
    or takes no byte for ``write_timeout`` seconds. Cancelling is safe at any point; the
    caller closes ``part`` in all cases.
    """
    if not part.count:
        return 0
    if part.direct is None:
        await _flushed(flow)
        part.direct = direct and _attach(flow, part)
    while part.direct:
        if flow.lost:
            raise ClientDisconnected("the client disconnected")
        try:
            return part.advance(await POOL.run(part, part.burst))
        except BlockingIOError:
            await _writable(flow, part.sock, write_timeout)
        except OSError as exc:
            if exc.errno in _GONE:
                raise ClientDisconnected("the client disconnected") from exc
            if exc.errno not in _UNSUPPORTED:
                raise
            part.direct = False
    data = await read_some(part, BLOCK)
    write(flow, data)
    if flow.write_paused:
        await flow.drain()
    return len(data)


async def read_some(part: FilePart, size: int) -> bytes:
    """The next bytes of ``part``, ``size`` at most, read in a thread; none where the file became shorter."""
    data = await POOL.run(part, part.read, min(size, part.count))
    part.advance(len(data))
    return data


def write(flow: FlowControl, data: bytes) -> None:
    """Write to a transport that may be gone: one of uvloop's would raise RuntimeError."""
    if flow.lost:
        raise ClientDisconnected("the client disconnected")
    flow.transport.write(data)


async def _flushed(flow: FlowControl) -> None:
    """Wait until the transport holds no byte: what goes round it must not overtake."""
    transport = flow.transport
    if flow.lost or not transport.get_write_buffer_size():
        return
    low, high = transport.get_write_buffer_limits()
    transport.set_write_buffer_limits(high=0)  # pauses at once, and resumes at 0
    try:
        while transport.get_write_buffer_size():
            await flow.drain()
    finally:
        if not flow.lost:
            transport.set_write_buffer_limits(high=high, low=low)


def _attach(flow: FlowControl, part: FilePart) -> bool:
    """Duplicate the client's socket into ``part``; False where only the transport may write to it."""
    transport = flow.transport
    if flow.lost or transport.is_closing():  # the number may already be another client's
        raise ClientDisconnected("the client disconnected")
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("sslcontext") is not None:
        return False
    try:
        part.sock = os.dup(sock.fileno())
    except OSError:  # out of descriptors: reading needs none
        return False
    limit_unsent(part.sock, UNSENT_MAX)
    return True


async def _writable(flow: FlowControl, fd: int, write_timeout: float) -> None:
    """Wait until the socket takes bytes, or the connection is lost, or the peer has taken none for too long."""
    loop = asyncio.get_running_loop()
    queued = unacknowledged(fd)
    while True:
        waiter: asyncio.Future[None] = loop.create_future()
        loop.add_writer(fd, _wake, waiter)
        flow.waiters.append(waiter)
        flow.blocked = True
        timer = None if write_timeout == math.inf else loop.call_later(write_timeout, _wake, waiter, TimeoutError())
        try:
            await waiter
            return
        except TimeoutError:
            # The kernel says "writable" only when a good part of its buffer is free. A slow peer that
            # does take bytes shows in what is not acknowledged.
            before, queued = queued, unacknowledged(fd)
            if queued >= before:
                raise ClientDisconnected(f"the client took no byte for {write_timeout:g} s") from None
        finally:
            flow.blocked = False
            # Before the descriptor is closed: epoll would keep watching the connection under its old number.
            loop.remove_writer(fd)
            if timer is not None:
                timer.cancel()
            if waiter in flow.waiters:
                flow.waiters.remove(waiter)


def _wake(waiter: asyncio.Future[None], exc: Exception | None = None) -> None:
    if not waiter.done():
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)
