"""
Processes of the benchmark, and what ``/proc`` says about them.

Invariant: each is started by :func:`spawned`, in a session of its own, so that ending it ends whatever it started and
nothing else, whenever Ctrl-C comes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any


@contextmanager
def postponed() -> Iterator[None]:
    """Keep SIGINT and SIGTERM until the block is left: a process that was just started must have its owner."""
    caught: list[tuple[int, FrameType | None]] = []
    handlers = {
        number: signal.signal(number, lambda *call: caught.append(call)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for signum, frame in caught:
        if callable(call := handlers[signal.Signals(signum)]):
            call(signum, frame)


@contextmanager
def spawned(command: Sequence[str], cores: Sequence[int] = (), **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, on some cores or where this process runs, and end it with everything it started."""
    if cores:
        options["preexec_fn"] = lambda: os.sched_setaffinity(0, cores)  # safe: the harness has one thread
    process = None
    try:
        with postponed():
            process = subprocess.Popen(command, start_new_session=True, **options)
        yield process
    finally:
        if process is not None:
            end(process)


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process started in its own session: kindly first, then its whole group. A second Ctrl-C only hurries it."""
    try:
        dismiss(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # what it was to be told, and did not live to hear
                    stream.close()


def dismiss(process: subprocess.Popen[bytes]) -> None:
    """Tell a process and its group to end, also where they are stopped, and do not wait for it."""
    for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process gets its signals when it goes on
        tell(process, number)


def tell(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process started in its own session and to its whole group; nothing if it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def state(process: subprocess.Popen[bytes]) -> str:
    """The letter of its state as in proc(5): T is stopped, Z has ended."""
    fields = _stat(process.pid)
    return fields[0] if fields else "Z"


def busy(pids: Sequence[int]) -> bool:
    """Whether a thread of these processes runs, or waits for a processor."""
    for pid in pids:
        with suppress(OSError):
            for path in Path(f"/proc/{pid}/task").glob("*/stat"):
                if path.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
    return False


def family(pid: int) -> list[int]:
    """A process and all its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    pids = [pid]
    for parent in pids:
        pids += children.get(parent, [])
    return pids


def cpu_seconds(pids: Sequence[int]) -> float:
    """
    User and system time of some processes since they were started; one that is gone has none.

    By the clock that clock_getcpuclockid(3) names, to the nanosecond: ``/proc/PID/stat`` counts hundredths of a second,
    which is a percent of a short measurement.
    """
    used = 0.0
    for pid in pids:
        with suppress(OSError):
            used += time.clock_gettime(~pid << 3 | 2)
    return used


def resident(pid: int) -> int:
    """Resident bytes of a process. From smaps: the counter in ``statm`` may be late by several pages per thread."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the state on (proc(5) number 3 is index 0), None for a gone process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
