"""
Spool: what of a response does not fit into memory, in an unnamed file on disk.

A client that reads slowly must hold no thread, however long its response is. So the thread writes what
the client has not taken, beyond :data:`MEMORY_MAX`, into the file, and is free; the loop sends from it by
``sendfile``, when what was in memory before it is sent. :mod:`.handoff` decides what goes where.

    thread side    Disk.open -> Spool.write         loop side    Spool.part -> Spool.advance

The file is in TMPDIR and has no name, so nothing is left of it, however the process ends. What is
written is also taken out of the page cache, by a thread of the worker's own (:class:`Sweeper`): there
it would be memory again, and count as that of the container.

A body that an application makes in one piece stays memory of its thread when it is freed: glibc keeps a block or two
for each. The sweeper asks for them (malloc_trim(3)), which costs 1 ms for each 8 MiB. 60 slow readers of 8 MiB beside 8
threads cost 0.4 to 1.3 MiB each with it, and 1.3 to 2.0 without; those of a generator 0.03. What it leaves is the end
of each thread's arena: with ``MALLOC_ARENA_MAX=2`` in the environment they cost 0.2 to 0.6.

Invariant: ``end`` is set by the thread that writes, after the bytes are in the file, and ``sent`` by the loop. The
file is closed with the object, when neither side has it any more: its number may be another client's by then.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

MIB = 1024 * 1024

#: Bytes of response that may wait in memory for the client, where there is no disk or they are all of it.
AHEAD_MAX = MIB

#: Bytes that may wait in memory where the rest goes to disk.
MEMORY_MAX = MIB // 2

#: Bytes of all spools of one worker.
TOTAL_MAX = 1024 * MIB

#: Bytes that are sent as one part of a response, and after which the page cache is looked after.
PART = MIB

#: Bytes of all spools that may be in the page cache and not on disk. Beyond it a thread waits for the disk itself.
DIRTY_MAX = 32 * MIB

#: Bytes on disk after which memory that was freed is given back, and seconds without work after which it is anyhow.
TRIM, QUIET = 16 * MIB, 1.0

#: Seconds until a disk that has refused is tried again.
REST = 30.0

#: File systems that are memory.
_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})

_flush = getattr(os, "fdatasync", os.fsync)


class Disk:
    """
    The disk, as one worker may use it: ``limit`` bytes for each response, and ``total`` for all of them.

    ``warn`` gets a line, once for each reason, where it cannot be used: responses then wait for their
    clients, each in its thread. It is found out when it is first needed.
    """

    def __init__(
        self, limit: int, warn: Callable[[str], object], *, total: int = TOTAL_MAX, folder: str | None = None
    ) -> None:
        self.limit = limit
        self.total = total
        self.warn = warn
        self.folder = folder or os.environ.get("TMPDIR") or tempfile.gettempdir()
        self.used = 0
        self.dirty = 0  #: bytes that may not be on disk yet
        self.cleaned = 0  #: bytes that were written to it, in all
        #: guards the numbers, and what was said. A collection may end a spool in a thread that has it
        self.lock = threading.RLock()
        self._sweeper = Sweeper()
        self._checked = False
        self._rests_until = 0.0
        self._said: set[str] = set()

    @property
    def usable(self) -> bool:
        """Whether it is worth trying. Thread side, like all that follows."""
        return self.used < self.total and time.monotonic() >= self._rests_until

    def open(self) -> Spool | None:
        """A new file; None where there can be none."""
        if not self._checked:
            self._checked = True
            if kind := memory_behind(self.folder):
                self._refuse(f"{self.folder} is {kind}, which is memory", for_ever=True)
        if not self.usable:
            return None
        try:
            # Not through `tempfile.gettempdir()`: where TMPDIR cannot be used it takes another folder, unseen.
            with tempfile.TemporaryFile(buffering=0, dir=self.folder) as file:
                return Spool(self, os.dup(file.fileno()))
        except OSError as exc:
            self._refuse(f"{exc.strerror or exc} ({self.folder})")
            return None

    def take(self, size: int) -> int:
        """Reserve up to ``size`` bytes; returns how many there are."""
        with self.lock:
            size = max(0, min(size, self.total - self.used))
            self.used += size
            return size

    def give_back(self, size: int) -> None:
        """End a reservation."""
        with self.lock:
            self.used -= size

    def soil(self, size: int) -> None:
        """So many bytes more, or less, are in the page cache alone."""
        with self.lock:
            self.dirty += size

    def failed(self, exc: OSError) -> None:
        """A write has failed: the disk is full, say."""
        self._refuse(f"{exc.strerror or exc} ({self.folder})")

    def sweep(self, spool: Spool) -> None:
        """Have what was written and sent of ``spool`` taken out of the page cache. Either side."""
        self._sweeper.add(spool)

    def close(self) -> None:
        """Let the thread end, for tests."""
        self._sweeper.close()

    def _refuse(self, reason: str, *, for_ever: bool = False) -> None:
        self._rests_until = float("inf") if for_ever else time.monotonic() + REST
        with self.lock:
            said = reason in self._said
            self._said.add(reason)
        if not said:
            self.warn(f"Responses to slow clients hold their threads, because none can be kept on disk: {reason}")


class Spool:
    """One file. ``end`` bytes were written, of which the client has ``sent``."""

    __slots__ = ("clean", "disk", "end", "fd", "sent", "sweeping", "swept")

    def __init__(self, disk: Disk, fd: int) -> None:
        self.disk = disk
        self.fd = fd
        self.end = 0
        self.sent = 0
        self.swept = 0  #: bytes written when the sweeper was last asked
        self.sweeping = False  #: the sweeper has it
        self.clean = 0  #: bytes that are on disk, at least

    def __del__(self) -> None:
        os.close(self.fd)
        self.disk.give_back(self.end)
        self.disk.soil(self.clean - self.end)

    @property
    def drained(self) -> bool:
        """Whether everything in it was sent."""
        return self.sent == self.end

    # -- thread side

    def write(self, data: bytes | memoryview) -> int:
        """Append ``data``, or what of it there is room for; returns the number of bytes. Raises nothing."""
        room = granted = self.disk.take(min(len(data), self.disk.limit - self.end))
        view = memoryview(data)
        at = 0
        try:
            while at < granted:
                at += os.pwrite(self.fd, view[at:granted], self.end + at)
        except OSError as exc:
            self.disk.failed(exc)
        self.disk.give_back(room - at)
        self.end += at
        self.disk.soil(at)
        if self.disk.dirty > DIRTY_MAX:
            self.sweep()
        elif self.end - self.swept >= PART:
            self.swept = self.end
            self.disk.sweep(self)
        return at

    def sweep(self) -> None:
        """Wait until the disk has everything, and have the kernel forget it. Thread side, and the sweeper's."""
        end = self.end
        try:
            _flush(self.fd)  # what is not on disk yet cannot be forgotten
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError as exc:
            self.disk.failed(exc)
        with self.disk.lock:
            done = max(0, end - self.clean)  # another thread may have done the same meanwhile
            self.clean += done
            self.disk.dirty -= done
            self.disk.cleaned += done

    # -- loop side

    def part(self) -> int:
        """How many bytes are to be sent next, of those from ``sent`` on."""
        return min(self.end - self.sent, PART)

    def advance(self, size: int) -> None:
        """The client has, or the kernel has for it, ``size`` more bytes."""
        self.sent += size
        self.disk.sweep(self)


class Sweeper:
    """The thread that waits for the disk, so that no call and no client does."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Spool | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, spool: Spool) -> None:
        """Have the pages of ``spool`` written and forgotten."""
        if spool.sweeping:
            return
        spool.sweeping = True
        self._jobs.put(spool)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="hybridworker-spool", daemon=True)
                    try:
                        thread.start()
                    except RuntimeError:  # the system has none to give: the kernel forgets them in its own time
                        self._jobs.get_nowait()
                        return
                    self._thread = thread

    def close(self) -> None:
        """Let the thread end, and wait for it."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        trim, cleaned, trimmed = allocator_trim(), 0, 0
        while True:
            try:
                spool = self._jobs.get(timeout=QUIET if cleaned > trimmed else None)
            except Empty:  # the calls are over by now, and have freed what they made
                trim(0)
                trimmed = cleaned
                continue
            if spool is None:
                return
            spool.sweeping = False
            spool.sweep()
            cleaned = spool.disk.cleaned
            del spool  # the next one may be long in coming
            if cleaned - trimmed >= TRIM:
                trim(0)
                trimmed = cleaned


def allocator_trim() -> Callable[[int], object]:
    """``malloc_trim(3)`` of glibc, which keeps what a thread has freed; elsewhere a function without effect."""
    try:
        import ctypes  # late: it takes memory itself, and not every build of Python has it

        return ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return lambda pad: 0


def memory_behind(folder: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The file system of ``folder`` where that is memory, else an empty string. Only Linux tells (proc(5))."""
    try:
        device = os.stat(folder).st_dev
        lines = Path(mounts).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2:3] == [number] and kind.split()[0] in _MEMORY:
            return kind.split()[0]
    return ""
