"""
A real gunicorn for the end-to-end tests.

:class:`Gunicorn` starts the console script of the running environment in a session and
process group of its own, keeps everything it prints in a file, and sees to it that no process is left
behind. Readiness, progress and exit are observed (log lines, a connection, the exit
status) with a deadline; nothing here waits for a fixed time. The rule one could break
by accident: a test that expects errors says so (``dirty=True``), for otherwise any
traceback, error line or warning of Python in the log fails it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Final, TypeVar

from gunicorn.config import KNOWN_SETTINGS

from tests.e2e.client import Client, Response

ROOT: Final = Path(__file__).resolve().parents[2]
APPS: Final = ROOT / "tests" / "e2e" / "apps"
HOOKS: Final = APPS / "hooks.conf.py"
WORKER: Final = "hybridworker.Worker"

T = TypeVar("T")

#: Seconds after which an event that was waited for counts as missing. Generous: it is no measurement.
DEADLINE: Final = 40.0

#: What must not be in the log of a server that did nothing wrong. gunicorn's own code leaves sockets
#: unclosed, and some of its releases call the SIGTERM that they sent themselves an error.
FORGIVEN: Final = r"was sent SIGTERM|/gunicorn/\w+\.py:\d+: ResourceWarning|: Enable tracemalloc"
DIRT: Final = re.compile(
    rf"^(?!.*(?:{FORGIVEN})).*(?:\[ERROR\]|\[CRITICAL\]|Traceback|Warning: |never awaited|Exception ignored).*$",
    re.MULTILINE,
)


class Gunicorn:
    """
    One gunicorn master and its workers.

    ``argv`` are the arguments after the program's name. ``directory`` holds the log, the
    gates and, for unix sockets, the socket files; it is the working directory unless
    ``cwd`` says otherwise.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        prefix: Sequence[str] = (),
        dirty: bool = False,
    ) -> None:
        self.directory = directory
        self.dirty = dirty
        self.log_path = directory / "log"
        self.gates = directory / "gates"
        self.gates.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("GUNICORN_", "LISTEN_"))}
        environment: dict[str, str | None] = {
            **inherited,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(APPS)]),
            "PYTHONWARNINGS": "default",
            "PYTHONUNBUFFERED": "1",
            "GATES": str(self.gates),
            **(env or {}),
        }
        # A server must not outlive its tests, not even where they are killed and no fixture ends it.
        setpriv = shutil.which("setpriv")  # util-linux
        guard = [setpriv, "--pdeathsig", "TERM"] if setpriv is not None and sys.platform == "linux" else []
        program = Path(sys.executable).with_name("gunicorn")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*guard, *prefix, str(program), *argv],
                cwd=cwd or directory,
                env={name: value for name, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        self.pid = self.process.pid

    # -- what it printed

    def log(self) -> str:
        """Everything printed so far, by the master and by every worker."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_log(self, pattern: str, count: int = 1) -> re.Match[str]:
        """Wait until ``pattern`` was printed ``count`` times; returns the last of these matches."""
        expression = re.compile(pattern, re.MULTILINE)

        def found() -> re.Match[str] | None:
            matches = list(expression.finditer(self.log()))
            return matches[count - 1] if len(matches) >= count else None

        return self.wait_for(found, f"{pattern!r} to be printed {count} time(s)")

    def wait_for(self, condition: Callable[[], T | None], what: str) -> T:
        """Wait until ``condition()`` is true, and return its value. Fails at once when the master has ended."""
        deadline = time.monotonic() + DEADLINE
        while True:
            ended = self.process.poll() is not None  # looked at first: what was printed before is then complete
            value = condition()
            if value:
                return value
            if ended or time.monotonic() > deadline:
                state = f"gunicorn has ended with {self.process.returncode}" if ended else "the deadline has passed"
                raise AssertionError(f"waited for {what}, but {state}\n{self.log()}")
            time.sleep(0.01)

    # -- where it listens

    @property
    def binds(self) -> list[str]:
        """The addresses in the "Listening at" line, in the order of the ``--bind`` options."""
        match = self.wait_log(r"Listening at: (\S+) \(\d+\)$")
        return match[1].split(",")

    @property
    def url(self) -> str:
        """The first address as a URL, without a slash at its end."""
        return self.binds[0]

    @property
    def port(self) -> int:
        """The TCP port of the first address."""
        return int(self.url.rpartition(":")[2])

    def connect(self, bind: str | None = None) -> Client:
        """A raw client on ``bind``, by default the first address. TLS addresses are connected to without TLS."""
        bind = bind or self.url
        if bind.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(DEADLINE)
            connection.connect(bind.removeprefix("unix:"))
        else:
            host, _, port = bind.rpartition("://")[2].rpartition(":")
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=DEADLINE)
        return Client(connection, DEADLINE)

    def request(self, path: str = "/", method: str = "GET", body: bytes = b"", headers: str = "") -> Response:
        """One request on a connection of its own. ``headers`` are further lines, each with its CRLF."""
        with self.connect() as client:
            return client.request(path, method, body, headers + "Connection: close\r\n")

    # -- its processes

    def wait_ready(self, workers: int = 1) -> Gunicorn:
        """Wait until ``workers`` workers have booted and a connection is taken."""
        self.wait_log(r"Booting worker with pid", workers)
        self.connect().close()
        return self

    def worker_pids(self) -> list[int]:
        """The master's children."""
        return sorted(pid for pid, process in processes().items() if process.parent == self.pid and process.alive)

    def wait_workers(self, condition: Callable[[list[int]], bool], what: str) -> list[int]:
        """Wait until ``condition`` holds for the list of worker pids."""
        return self.wait_for(lambda: pids if condition(pids := self.worker_pids()) else None, what)

    def signal(self, number: int, pid: int | None = None) -> None:
        """Send a signal to the master, or to the worker ``pid``."""
        os.kill(self.pid if pid is None else pid, number)

    def open(self, gate: str) -> None:
        """Let the application pass the gate it waits at (``apps/gate.py``)."""
        (self.gates / gate).touch()

    def touch(self, watched: Path) -> None:
        """
        Touch a file that ``--reload`` watches until a worker has seen it.

        Again and again: the first time may be before the reloader has looked at all. With a time that differs
        from the one before.
        """

        def seen() -> bool:
            os.utime(watched, (watched.stat().st_atime, watched.stat().st_mtime + 1))
            return f"Worker reloading: {watched} modified" in self.log()

        self.wait_for(seen, "the reload to begin")

    def wait(self) -> int:
        """Wait until the master ends; returns its exit code."""
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"gunicorn does not end\n{self.log()}") from None

    def stop(self, number: int = SIGTERM) -> int:
        """Send a signal to the master and wait for its end; returns the exit code."""
        if self.process.poll() is None:
            self.signal(number)
        return self.wait()

    def close(self) -> None:
        """
        End the server and look at what it left: processes, errors in the log.

        Called by the fixture, for every server. A test that has stopped its server itself
        loses nothing by it.
        """
        running = self.process.poll() is None
        try:
            code = self._end() if running else 0
        finally:
            left = self._kill_group()
        assert not running or code == 0, f"SIGTERM ended gunicorn with {code}\n{self.log()}"
        assert not left, f"processes {left} were left behind\n{self.log()}"
        if not self.dirty:
            dirt = DIRT.search(self.log())
            assert dirt is None, f"{dirt[0]!r} is in the log\n{self.log()}"

    def _end(self) -> int:
        """TERM until it ends; returns the exit code."""
        self.signal(SIGTERM)
        deadline = time.monotonic() + DEADLINE
        while True:
            try:
                return self.process.wait(1)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, f"gunicorn does not end\n{self.log()}"
                # gunicorn says it once, and a worker that was just forked has missed it.
                for pid in self.worker_pids():
                    with suppress(ProcessLookupError):  # it ended by itself meanwhile
                        os.kill(pid, SIGTERM)

    def _kill_group(self) -> list[int]:
        """Kill whatever is left of the process group; returns the pids of those that were."""
        left = [pid for pid, process in processes().items() if process.group == self.pid and process.alive]
        for pid in left:
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself meanwhile
        for pid in left:
            wait_gone(pid)
        self.process.wait()
        return left


class Process:
    """What the tests ask about a process."""

    __slots__ = ("alive", "group", "parent")

    def __init__(self, parent: int, group: int, state: str) -> None:
        self.parent = parent
        self.group = group
        self.alive = not state.startswith("Z")  # a zombie only waits for its parent


def processes() -> dict[int, Process]:
    """Every process of the machine, by pid."""
    if sys.platform != "linux":
        lines = subprocess.check_output(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], text=True).splitlines()
        rows = [line.split() for line in lines]
        return {int(pid): Process(int(parent), int(group), state) for pid, parent, group, state in rows}
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path("/proc", entry, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we looked
            state, parent, group = stat.rpartition(") ")[2].split()[:3]
            found[int(entry)] = Process(int(parent), int(group), state)
    return found


def wait_gone(pid: int) -> None:
    """Wait for the end of a process that need not be a child of ours."""
    deadline = time.monotonic() + DEADLINE
    while (process := processes().get(pid)) is not None and process.alive:
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.01)


def memory(pid: int) -> int:
    """Bytes of memory that the process ``pid`` holds (Linux)."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def arguments(app: str, args: Sequence[str], worker: str, workers: int) -> list[str]:
    """The command line for ``app``: a free port unless ``args`` bind something, no file outside the test's folder."""
    argv = ["--worker-class", worker, "--workers", str(workers)]
    if not any(arg.startswith(("--bind", "-b")) for arg in args):
        argv += ["--bind", "127.0.0.1:0"]
    if any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS):  # gunicorn 25.1 and later
        argv.append("--no-control-socket")
    return [*argv, *args, app]


class Servers:
    """Makes servers, each in a folder of its own, and closes them; what the ``gunicorn`` fixture gives to a test."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        self.folder = folder
        self.started: list[Gunicorn] = []

    def __call__(
        self,
        app: str,
        *args: str,
        env: Mapping[str, str | None] | None = None,
        worker: str = WORKER,
        workers: int = 1,
        ready: bool = True,
        dirty: bool = False,
        pass_fds: Sequence[int] = (),
        prefix: Sequence[str] = (),
    ) -> Gunicorn:
        """
        Start gunicorn with ``app``; ``args`` are further options of its command line.

        ``ready=False`` returns at once, for servers that are expected to fail; ``dirty=True``
        says that errors in the log are expected; ``env`` adds to the environment of the tests, or
        takes from it what has None as its value; ``prefix`` is a program that executes gunicorn.
        """
        argv = arguments(app, args, worker, workers)
        server = Gunicorn(argv, self.folder(), env=env, dirty=dirty, pass_fds=pass_fds, prefix=prefix)
        self.started.append(server)
        return server.wait_ready(workers) if ready else server

    def command(self, argv: Sequence[str], cwd: Path, workers: int = 1) -> Gunicorn:
        """Start gunicorn with a whole command line, in the folder ``cwd``."""
        server = Gunicorn(argv, self.folder(), cwd=cwd)
        self.started.append(server)
        return server.wait_ready(workers)


@contextmanager
def servers(folder: Callable[[], Path]) -> Iterator[Servers]:
    """Servers that are closed, and looked through for what they left, at the end."""
    factory = Servers(folder)
    try:
        yield factory
    finally:
        failures = []
        for server in factory.started:
            try:
                server.close()
            except AssertionError as exc:
                failures.append(exc)
        if failures:
            raise failures[0]
