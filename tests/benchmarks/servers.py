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
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks import processes

ROOT = Path(__file__).parents[2]
#: How many requests granian takes at once where its queue is bounded: what 8 threads do in a second of 50 ms calls.
BACKPRESSURE = 160


class ServerError(Exception):
    """A server did not start, did not answer rightly, or answered some requests with errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """
    One start: what to serve, where, and with which options.

    Files are named relative to the server's own folder, which is in the directory of what all servers share.
    """

    app: str
    interface: str
    port: int
    workers: int = 1
    threads: int = 1
    tls: bool = False
    http2: bool = False
    access_log: bool = False
    bounded: bool = False
    settings: Sequence[str] = ()
    extra: Sequence[str] = ()

    @property
    def bind(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    A server of the tables.

    ``package`` gives its version, ``access_log`` is the file its access lines go to, ``path`` the folders that its
    modules come from before all others.
    """

    name: str
    package: str
    command: Callable[[Launch], list[str]]
    access_log: str = "access.log"
    path: Sequence[Path] = ()


def _gunicorn(worker_class: str, threads: int | None = None) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        options = [sys.executable, "-m", "gunicorn", "--worker-class", worker_class, "--bind", launch.bind]
        options += ["--workers", str(launch.workers), "--threads", str(threads or launch.threads)]
        # More than any scenario opens; 75 s is longer than any scenario leaves a connection idle.
        options += ["--worker-connections", "10000", "--keep-alive", "75", "--log-level", "warning"]
        options += ["--no-control-socket"]
        if launch.tls:
            options += ["--certfile", "../cert.pem", "--keyfile", "../key.pem"]
        if launch.http2:
            options += ["--http-protocols", "h2,h1"]
            options += [] if launch.tls else ["--http2-cleartext", "prior-knowledge"]
        if launch.access_log:
            options += ["--access-logfile", "access.log"]
        options += [part for setting in launch.settings for part in ("--env", f"HYBRIDWORKER_{setting}")]
        return [*options, *launch.extra, launch.app]

    return command


def _granian(launch: Launch) -> list[str]:
    options = [sys.executable, "-m", "granian", "--interface", launch.interface]
    options += ["--workers", str(launch.workers)]
    options += ["--host", "127.0.0.1", "--port", str(launch.port), "--log-level", "warning"]
    options += ["--http", "2" if launch.http2 else "1"]
    # Everything shares one core: a second runtime thread could only take turns with the first.
    options += ["--runtime-threads", "1", "--backpressure", str(BACKPRESSURE if launch.bounded else 10_000)]
    options += ["--backlog", "2048"]
    if launch.interface == "wsgi":
        options += ["--blocking-threads", str(launch.threads)]
    if launch.tls:
        options += ["--ssl-certificate", "../cert.pem", "--ssl-keyfile", "../key.pem"]
    if launch.access_log:
        options += ["--access-log", "--log-level", "info"]
    return [*options, launch.app]


def _hypercorn(launch: Launch) -> list[str]:
    options = [sys.executable, "-m", "hypercorn", "--worker-class", "uvloop", "--bind", launch.bind]
    options += ["--workers", str(launch.workers)]
    options += ["--keep-alive", "75", "--backlog", "2048", "--log-level", "warning"]
    if launch.http2:  # it speaks it wherever it is spoken to; by default it ends a connection after 1,000 requests
        options += ["--config", "../hypercorn.toml"]
    if launch.tls:
        options += ["--certfile", "../cert.pem", "--keyfile", "../key.pem"]
    if launch.access_log:
        options += ["--access-logfile", "access.log", "--log-level", "info"]
    return [*options, f"{launch.interface}:{launch.app}" if launch.interface == "wsgi" else launch.app]


def _bare(launch: Launch) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.bare", launch.app, str(launch.port)]


BASELINE = "hybridworker"

#: This worker where a scenario is about HTTP/2 and it speaks HTTP/1.1.
HTTP1 = f"{BASELINE}-http1"

#: An earlier revision of this worker; ``revision.py`` says where it is.
BASE = f"{BASELINE}-base"

#: Those that serve this worker's own application with the scenario's settings.
OWN = (BASELINE, BASE)

SERVERS = {
    server.name: server
    for server in (
        Server(name=BASELINE, package="hybridworker", command=_gunicorn("hybridworker.Worker")),
        Server(name=BASE, package="hybridworker", command=_gunicorn("hybridworker.Worker")),
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
    """
    A started server: its first process, and what is known of the tree under it.

    ``directory`` has the files that all servers share, ``folder`` is its own, with its logs.
    """

    process: subprocess.Popen[bytes]
    launch: Launch
    directory: Path
    folder: Path
    started_at: float

    @property
    def port(self) -> int:
        return self.launch.port

    def worker(self) -> int:
        """The process that serves: the largest one under the first, or the first where it is alone."""
        return max(processes.family(self.process.pid)[1:] or [self.process.pid], key=processes.resident)

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree since it was started."""
        return processes.cpu_seconds(processes.family(self.process.pid))

    def log_tail(self) -> str:
        lines = (self.folder / "server.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(" ".join(line.split())[:160] for line in lines[-3:]) or "nothing in its log"


_given: set[int] = set()


def free_port() -> int:
    """
    A free port below the range that outgoing connections use: the load must not take it between two starts.

    None is given again soon: of servers that are started side by side, none may listen yet.
    """
    if len(_given) > 5_000:
        _given.clear()
    for port in random.sample(sorted(set(range(18_000, 28_000)) - _given), 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise ServerError("no free port between 18000 and 28000")


@contextmanager
def serving(server: Server, launch: Launch, directory: Path, cores: Sequence[int]) -> Iterator[Running]:
    """Run a server in a folder of its own in `directory`, pinned to `cores`, and end it with everything it started."""
    path = os.pathsep.join(map(str, (*server.path, ROOT)))
    environment = {**os.environ, "PYTHONPATH": path, "BENCHMARK_FILES": str(directory)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed servers have theirs, and a start would not be the same
    folder = directory / server.name
    folder.mkdir(exist_ok=True)
    for leftover in ("server.log", "access.log"):
        (folder / leftover).unlink(missing_ok=True)
    with open(folder / "server.log", "wb") as log:
        started_at = time.perf_counter()
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        with processes.spawned(server.command(launch), cores, cwd=folder, env=environment, **streams) as process:
            yield Running(process, launch, directory, folder, started_at)
