"""
Starting one of the servers.

:class:`Subject` is what a row gets; :meth:`Subject.start` starts its server in a session and a folder of its own, and
ends it, with whatever it started and nothing else, when the ``with`` block ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.checklist.servers import ROOT, Certificates, free_port, make_certificates
from tests.e2e.client import Client, Response
from tests.e2e.http2client import HTTP2Client

from .peers import ASGI, PEERS, WSGI, Peer, Want
from .registry import NotAsked

#: Seconds for what should happen, and for a start.
PATIENCE, BOOT = 10.0, 30.0

APPS = {ASGI: "tests.compare.apps.asgi:app", WSGI: "tests.compare.apps.wsgi:app"}


class Server:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], want: Want, peer: Peer) -> None:
        self.process = process
        self.want = want
        self.peer = peer
        self.directory = want.directory

    @property
    def port(self) -> int:
        return int(self.want.address.rpartition(":")[2])

    # -- clients

    def socket(self, patience: float = PATIENCE, receive_buffer: int | None = None) -> socket.socket:
        """A connection, without TLS."""
        sock = socket.socket(socket.AF_UNIX if self.want.unix else socket.AF_INET)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(patience)
        try:
            sock.connect(self.want.address if self.want.unix else ("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def tls(self, protocols: Sequence[str] = (), patience: float = PATIENCE) -> ssl.SSLSocket:
        """A connection under TLS, with ``protocols`` offered by ALPN."""
        assert self.want.certificates is not None
        context = ssl.create_default_context(cafile=self.want.certificates.authority)
        if protocols:
            context.set_alpn_protocols([*protocols])
        return context.wrap_socket(self.socket(patience), server_hostname="localhost")

    def connect(self, patience: float = PATIENCE) -> Client:
        """A client of HTTP/1.1."""
        return Client(self.tls(patience=patience) if self.want.certificates else self.socket(patience), patience)

    def http2(self) -> HTTP2Client:
        """A client of HTTP/2, under TLS where the server has it, else with prior knowledge."""
        if not self.want.certificates:
            return HTTP2Client(self.socket())
        sock = self.tls(["h2", "http/1.1"])
        if sock.selected_alpn_protocol() != "h2":
            sock.close()
            raise ConnectionError("h2 was not chosen by ALPN")
        return HTTP2Client(sock, "https")

    def request(
        self, path: str = "/", method: str = "GET", body: bytes = b"", headers: str = "", patience: float = PATIENCE
    ) -> Response:
        """One request on a connection of its own."""
        with self.connect(patience) as client:
            return client.request(path, method, body, headers + "Connection: close\r\n")

    def answers(self, path: str = "/", patience: float = PATIENCE) -> bool:
        """Whether a request is answered with 200 in time."""
        try:
            return self.request(path, patience=patience).status == 200
        except (OSError, AssertionError, ValueError):
            return False

    def answers_http2(self) -> bool:
        """The same by HTTP/2."""
        try:
            with self.http2() as client:
                return client.request().status == 200
        except (OSError, AssertionError, ValueError):
            return False

    def accepts(self) -> bool:
        """Whether a client can connect."""
        try:
            self.socket(1).close()
        except OSError:
            return False
        return True

    # -- the process

    def log(self) -> str:
        """What the server wrote to its standard streams."""
        return (self.directory / "log").read_text("utf-8", "replace")

    def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        self.process.send_signal(number)

    def exit_code(self, patience: float) -> int | None:
        """The exit code, None where it does not end in time."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(patience)
        return None

    def processes(self) -> list[int]:
        """The living processes of its session, zombies apart."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z" and int(fields[3]) == self.process.pid:
                    found.append(int(entry.name))
        return sorted(found)

    def workers(self) -> set[int]:
        """The pids of the workers that answer now: those that twelve connections in a row get to."""
        pids = set()
        for _ in range(12):
            with contextlib.suppress(OSError, AssertionError, ValueError):
                pids.add(int(self.request("/pid", patience=3).body))
        return pids


def within(seconds: float, condition: Any, pause: float = 0.02) -> Any:
    """What ``condition()`` gives as soon as it is true; a false value when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return value


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it has started: kindly, and after a moment its whole group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group that we made for it
    process.wait()


class Subject:
    """The server that a row is tried on."""

    def __init__(self, name: str, directory: Path) -> None:
        self.peer = PEERS[name]
        self.name = name
        self.directory = directory
        self._count = 0
        self._certificates: Certificates | None = None

    @property
    def gunicorn(self) -> bool:
        """Whether gunicorn's master watches over it."""
        return self.peer.gunicorn

    @property
    def interfaces(self) -> tuple[str, ...]:
        return self.peer.interfaces

    def needs(self, interface: str) -> None:
        """:class:`NotAsked` where it does not serve this interface."""
        if interface not in self.interfaces:
            raise NotAsked(f"serves {self.interfaces[0].upper()} only")

    def pick(self, **by_name: Any) -> Any:
        """
        What stands under the name of this server, with ``_`` for ``-``.

        Else what stands under ``gunicorn``, where it is one of gunicorn's; else None.
        """
        found = by_name.get(self.name.replace("-", "_"))
        return by_name.get("gunicorn") if found is None and self.gunicorn else found

    @property
    def certificates(self) -> Certificates:
        """Certificates made for this run."""
        if self._certificates is None:
            self._certificates = make_certificates(self.directory)
        return self._certificates

    def folder(self) -> Path:
        """A new folder."""
        self._count += 1
        folder = self.directory / f"{self.name}-{self._count}"
        folder.mkdir()
        return folder

    @contextlib.contextmanager
    def start(
        self,
        interface: str | None = None,
        *,
        app: str | None = None,
        folder: Path | None = None,
        options: Sequence[str] | None = None,
        environ: Mapping[str, str] | None = None,
        ready: Callable[[Server], bool] | None = None,
        boot: float = BOOT,
        **want: Any,
    ) -> Iterator[Server]:
        """
        Start the server with its natural interface or another one, and wait until it is ``ready``: until it answers.
        TimeoutError after ``boot`` seconds.

        ``options`` are its own; ``want`` has fields of :class:`.peers.Want`.
        """
        interface = interface or self.interfaces[0]
        self.needs(interface)
        folder = folder or self.folder()
        address = want.pop("address", None) or f"127.0.0.1:{free_port('127.0.0.1')}"
        wanted = Want(app or APPS[interface], interface, address, options=options or (), directory=folder, **want)
        argv = self.peer.command(wanted)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDWORKER_")}
        own = {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # rows write two versions of a module within one second
        }
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                cwd=folder,
                env={**inherited, **own, **wanted.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        server = Server(process, wanted, self.peer)
        try:
            self._wait(server, ready or (lambda server: server.answers(patience=2)), boot)
            yield server
        finally:
            end(process)

    def _wait(self, server: Server, ready: Callable[[Server], bool], boot: float) -> None:
        deadline = time.monotonic() + boot
        while not ready(server):
            if server.process.poll() is not None:
                raise ChildProcessError(f"{self.name} has ended: {server.log()[-300:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not answer: {server.log()[-300:]}")
            time.sleep(0.05)
