"""
What is measured against: how each server is started, and how a started one is observed.

Every server gets the same bounds (the same workers and threads for WSGI, keep-alive long enough for the load, access
log only where the scenario asks for it) and otherwise its own defaults. A server runs in its own session, so that
stopping it can end whatever it started and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: How many requests granian takes at once where its queue is bounded: what 8 threads do in a second of 50 ms calls.
BACKPRESSURE = 160
#: Everything that is looked at for each request, with the numbers of the README.
LIMITS = (
    "REQUEST_TIMEOUT=30",
    "QUEUE_TIMEOUT=5",
    "REQUESTS_MAX=200",
    "LIMIT_REQUEST_BODY=10485760",
    "SLOW_REQUEST=5",
    "METRICS_PATH=/metrics",
)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class ServerError(Exception):
    """A server did not start, did not answer rightly, or answered some requests with errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start: what to serve, where, and with which options. Files are named relative to the working directory."""

    app: str
    interface: str
    port: int
    workers: int = 1
    threads: int = 1
    tls: bool = False
    http2: bool = False
    access_log: bool = False
    bounded: bool = False
    limited: bool = False
    extra: Sequence[str] = ()

    @property
    def bind(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server of the tables: ``package`` gives its version, ``access_log`` is the file its access lines go to."""

    name: str
    package: str
    command: Callable[[Launch], list[str]]
    access_log: str = "access.log"


def _gunicorn(worker_class: str, threads: int | None = None) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        options = [sys.executable, "-m", "gunicorn", "--worker-class", worker_class, "--bind", launch.bind]
        options += ["--workers", str(launch.workers), "--threads", str(threads or launch.threads)]
        # More than any scenario opens; 75 s is longer than any scenario leaves a connection idle.
        options += ["--worker-connections", "10000", "--keep-alive", "75", "--log-level", "warning"]
        options += ["--no-control-socket"]
        if launch.tls:
            options += ["--certfile", "cert.pem", "--keyfile", "key.pem"]
        if launch.http2:
            options += ["--http-protocols", "h2,h1"]
            options += [] if launch.tls else ["--http2-cleartext", "prior-knowledge"]
        if launch.access_log:
            options += ["--access-logfile", "access.log"]
        if launch.bounded:
            options += ["--env", "HYBRIDWORKER_QUEUE_TIMEOUT=1"]
        if launch.limited:
            options += [part for limit in LIMITS for part in ("--env", f"HYBRIDWORKER_{limit}")]
        return [*options, *launch.extra, launch.app]

    return command


def _granian(launch: Launch) -> list[str]:
    options = [sys.executable, "-m", "granian", "--interface", launch.interface, "--workers", "1"]
    options += ["--host", "127.0.0.1", "--port", str(launch.port), "--log-level", "warning"]
    options += ["--http", "2" if launch.http2 else "1"]
    # Everything shares one core: a second runtime thread could only take turns with the first.
    options += ["--runtime-threads", "1", "--backpressure", str(BACKPRESSURE if launch.bounded else 10_000)]
    options += ["--backlog", "2048"]
    if launch.interface == "wsgi":
        options += ["--blocking-threads", str(launch.threads)]
    if launch.tls:
        options += ["--ssl-certificate", "cert.pem", "--ssl-keyfile", "key.pem"]
    if launch.access_log:
        options += ["--access-log", "--log-level", "info"]
    return [*options, launch.app]


def _hypercorn(launch: Launch) -> list[str]:
    options = [sys.executable, "-m", "hypercorn", "--worker-class", "uvloop", "--workers", "1", "--bind", launch.bind]
    options += ["--keep-alive", "75", "--backlog", "2048", "--log-level", "warning"]
    if launch.http2:  # it speaks it wherever it is spoken to; by default it ends a connection after 1,000 requests
        options += ["--config", "hypercorn.toml"]
    if launch.tls:
        options += ["--certfile", "cert.pem", "--keyfile", "key.pem"]
    if launch.access_log:
        options += ["--access-logfile", "access.log", "--log-level", "info"]
    return [*options, f"{launch.interface}:{launch.app}" if launch.interface == "wsgi" else launch.app]


def _bare(launch: Launch) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.bare", launch.app, str(launch.port)]


BASELINE = "hybridworker"

#: This worker where a scenario is about HTTP/2 and it speaks HTTP/1.1.
HTTP1 = f"{BASELINE}-http1"

SERVERS = {
    server.name: server
    for server in (
        Server(name=BASELINE, package="hybridworker", command=_gunicorn("hybridworker.Worker")),
        Server(name=f"{BASELINE}-alone", package="hybridworker", command=_gunicorn("hybridworker.Worker")),
        Server(name=HTTP1, package="hybridworker", command=_gunicorn("hybridworker.Worker")),
        Server(name="bare", package="httptools", command=_bare),
        Server(name="uvicorn-worker", package="uvicorn-worker", command=_gunicorn("uvicorn_worker.UvicornWorker")),
        Server(name="gunicorn-asgi", package="gunicorn", command=_gunicorn("asgi")),
        Server(name="gunicorn-gthread", package="gunicorn", command=_gunicorn("gthread")),
        # With more than one thread gunicorn would quietly take gthread instead.
        Server(name="gunicorn-sync", package="gunicorn", command=_gunicorn("sync", threads=1)),
        Server(name="granian", package="granian", command=_granian, access_log="server.log"),
        Server(name="hypercorn", package="hypercorn", command=_hypercorn),
    )
}


def version(package: str) -> str | None:
    """The version of an installed package, None where there is none. Ours is that of the checkout."""
    if package == BASELINE:
        with suppress(ImportError):
            return str(importlib.import_module(package).__version__)
        return None
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


# -- running


@dataclass(frozen=True, slots=True)
class Running:
    """A started server: its first process, and what ``/proc`` says about the tree under it."""

    process: subprocess.Popen[bytes]
    launch: Launch
    directory: Path
    started_at: float

    @property
    def port(self) -> int:
        return self.launch.port

    def pids(self) -> list[int]:
        """The first process and all its descendants, parents first."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        pids = [self.process.pid]
        for pid in pids:
            pids += children.get(pid, [])
        return pids

    def worker(self) -> int:
        """The process that serves: the largest one under the first, or the first where it is alone."""
        return max(self.pids()[1:] or [self.process.pid], key=resident)

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree since it was started."""
        fields = [_stat(pid) for pid in self.pids()]
        return sum(int(field[11]) + int(field[12]) for field in fields if field) / CLOCK_TICKS

    def log_tail(self) -> str:
        lines = (self.directory / "server.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(" ".join(line.split())[:160] for line in lines[-3:]) or "nothing in its log"


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the state on (proc(5) number 3 is index 0), None for a gone process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def resident(pid: int) -> int:
    """Resident bytes of a process. From smaps: the counter in ``statm`` may be late by several pages per thread."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    return 0


def free_port() -> int:
    """A free port below the range that outgoing connections use: the load must not take it between two starts."""
    for port in random.sample(range(18_000, 28_000), 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerError("no free port between 18000 and 28000")


@contextmanager
def serving(server: Server, launch: Launch, directory: Path, core: int) -> Iterator[Running]:
    """Run a server in `directory`, pinned to `core`, and end it with everything it started."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BENCHMARK_FILES": str(directory)}
    for leftover in ("server.log", "access.log"):
        (directory / leftover).unlink(missing_ok=True)
    with open(directory / "server.log", "wb") as log:
        started_at = time.perf_counter()
        process = subprocess.Popen(
            server.command(launch),
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # safe: the harness has one thread
        )
    try:
        yield Running(process, launch, directory, started_at)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process started in its own session: kindly first, then its whole group. A second Ctrl-C only hurries it."""
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
