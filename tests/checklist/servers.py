"""
Starting a server, of any of the kinds that can be compared.

:class:`Subject` is what a statement gets: the server under test, started once for most
statements (:attr:`Subject.server`) and in other configurations where one needs them
(:meth:`Subject.start`). Each server has a directory of its own for notes and its log, a
process group of its own, and is gone when its ``with`` block ends.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .app import LIFESPAN
from .case import DIRECTORY
from .registry import NotDecidable
from .wire import PATIENCE, Answer, App, Fields, Run, WebSocket, Wire, tls

ROOT = Path(__file__).parents[2]

#: Seconds that a server may take to start.
BOOT = 20.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM: the server's certificate and key, the authority, and a client's certificate and key."""

    certificate: str
    key: str
    authority: str
    client: str


@dataclass(slots=True)
class Options:
    """How a server is to be started, in words that every kind has its own flags for."""

    app: str = "app"
    address: tuple[str, int] | str = ("127.0.0.1", 0)  #: host and port (0: any that is free), or the path of a socket
    certificates: Certificates | None = None
    verify: bool = False  #: ask for a client certificate
    root_path: str | None = None
    max_requests: int | None = None
    timeout: int | None = None
    ping_interval: float | None = None
    environ: dict[str, str] = field(default_factory=dict)


def _gunicorn(worker: str, options: Options) -> list[str]:
    address = options.address if isinstance(options.address, str) else "{}:{}".format(*options.address)
    if ":" in address.rpartition(":")[0]:  # an IPv6 address
        address = "[{}]:{}".format(*options.address)
    argv = ["gunicorn", "-k", worker, "-w", "1", "-b", address if "/" not in address else f"unix:{address}"]
    if options.certificates:
        argv += ["--certfile", options.certificates.certificate, "--keyfile", options.certificates.key]
        if options.verify:
            argv += ["--ca-certs", options.certificates.authority, "--cert-reqs", "1"]
    for flag, value in (
        ("--root-path", options.root_path),
        ("--max-requests", options.max_requests),
        ("--timeout", options.timeout),
    ):
        argv += [flag, str(value)] if value is not None else []
    return [*argv, f"tests.checklist.app:{options.app}"]


def _hybridworker(options: Options) -> list[str]:
    if options.ping_interval is not None:
        options.environ["HYBRIDWORKER_WS_PING_INTERVAL"] = str(options.ping_interval)
    return _gunicorn("hybridworker.Worker", options)


def _gunicorn_asgi(options: Options) -> list[str]:
    _impossible(**{"WSGI applications": options.app == "wsgi", "the ping interval": options.ping_interval})
    return _gunicorn("asgi", options)


def _uvicorn_worker(options: Options) -> list[str]:
    _impossible(**{"WSGI applications": options.app == "wsgi", "the ping interval": options.ping_interval})
    return _gunicorn("uvicorn_worker.UvicornWorker", options)


def _uvicorn(options: Options) -> list[str]:
    _impossible(**{"a heartbeat": options.timeout})
    argv = ["uvicorn"]
    if isinstance(options.address, str):
        argv += ["--uds", options.address]
    else:
        argv += ["--host", options.address[0], "--port", str(options.address[1])]
    if options.certificates:
        argv += ["--ssl-certfile", options.certificates.certificate, "--ssl-keyfile", options.certificates.key]
        if options.verify:
            argv += ["--ssl-ca-certs", options.certificates.authority, "--ssl-cert-reqs", "1"]
    if options.ping_interval is not None:
        argv += ["--ws-ping-interval", str(options.ping_interval), "--ws-ping-timeout", str(options.ping_interval)]
    for flag, value in (
        ("--root-path", options.root_path),
        ("--limit-max-requests", options.max_requests),
        ("--interface", "wsgi" if options.app == "wsgi" else None),
    ):
        argv += [flag, str(value)] if value is not None else []
    return [*argv, f"tests.checklist.app:{options.app}"]


def _granian(options: Options) -> list[str]:
    _impossible(
        **{
            "a heartbeat": options.timeout,
            "the ping interval": options.ping_interval,
            "a number of requests after which a worker is replaced": options.max_requests,
        }
    )
    argv = ["granian", "--interface", "wsgi" if options.app == "wsgi" else "asgi", "--workers", "1"]
    if isinstance(options.address, str):
        argv += ["--uds", options.address]
    else:
        argv += ["--host", options.address[0], "--port", str(options.address[1])]
    if options.certificates:
        argv += ["--ssl-certificate", options.certificates.certificate, "--ssl-keyfile", options.certificates.key]
        if options.verify:
            argv += ["--ssl-ca", options.certificates.authority, "--ssl-client-verify"]
    if options.root_path is not None:
        argv += ["--url-path-prefix", options.root_path]
    return [*argv, f"tests.checklist.app:{options.app}"]


def _hypercorn(options: Options) -> list[str]:
    _impossible(**{"a heartbeat": options.timeout})
    address = options.address if isinstance(options.address, str) else "{}:{}".format(*options.address)
    if ":" in address.rpartition(":")[0]:
        address = "[{}]:{}".format(*options.address)
    argv = ["hypercorn", "-b", address if "/" not in address else f"unix:{address}"]
    if options.certificates:
        argv += ["--certfile", options.certificates.certificate, "--keyfile", options.certificates.key]
        if options.verify:
            argv += ["--ca-certs", options.certificates.authority, "--verify-mode", "CERT_OPTIONAL"]
    for flag, value in (
        ("--root-path", options.root_path),
        ("--max-requests", options.max_requests),
        ("--websocket-ping-interval", options.ping_interval),
    ):
        argv += [flag, str(value)] if value is not None else []
    return [*argv, f"tests.checklist.app:{options.app}"]


SERVERS: dict[str, Callable[[Options], list[str]]] = {
    "hybridworker": _hybridworker,
    "uvicorn": _uvicorn,
    "uvicorn-worker": _uvicorn_worker,
    "gunicorn-asgi": _gunicorn_asgi,
    "granian": _granian,
    "hypercorn": _hypercorn,
}


def _impossible(**wanted: object) -> None:
    for what, value in wanted.items():
        if value:
            raise NotDecidable(f"this server has no setting for {what}")


class Server:
    """One running server."""

    def __init__(self, process: subprocess.Popen[bytes], options: Options, directory: Path, log: IO[bytes]) -> None:
        self.process = process
        self.options = options
        self.address = options.address
        self.directory = directory
        self.lifespan = Run(directory, "lifespan")
        self._log = log

    # -- clients

    def connect(self, certificate: bool = False) -> Wire:
        """A connection; under TLS with the client's ``certificate`` or without."""
        return Wire(self._socket(certificate), self.directory)

    def websocket(self, certificate: bool = False) -> WebSocket:
        """A connection on which a handshake can be asked for."""
        return WebSocket(self._socket(certificate), self.directory)

    def call(
        self,
        app: App,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        content: bytes | None = None,
        version: str = "1.1",
    ) -> tuple[Run, Answer]:
        """One request on a connection of its own; waits for the answer and for the application to end."""
        with self.connect() as wire:
            run = wire.request(app, method, target, headers, content, version)
            answer = wire.answer(method)
        run.ended()
        return run, answer

    def _socket(self, certificate: bool) -> socket.socket:
        if isinstance(self.address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            try:
                sock.connect(self.address)
            except OSError:
                sock.close()
                raise
        else:
            sock = socket.create_connection(self.address, PATIENCE)
        if self.options.certificates is None:
            return sock
        context = ssl.create_default_context(cafile=self.options.certificates.authority)
        if certificate:
            context.load_cert_chain(self.options.certificates.client)
        return tls(sock, context)

    # -- the process

    def log(self) -> str:
        """What the server wrote to its standard streams."""
        return Path(self._log.name).read_text("utf-8", "replace")

    def wait_for_log(self, text: str) -> None:
        """Wait until ``text`` stands in the log."""
        wait_until(lambda: text in self.log(), f"{text!r} does not appear in the log")

    def exit_code(self, patience: float = PATIENCE) -> int:
        """Wait for the server to end."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the server did not end within {patience:g} s") from None

    def terminate(self) -> None:
        """Ask it to leave in good order."""
        self.process.send_signal(signal.SIGTERM)

    def accepts(self) -> bool:
        """Whether a client can connect."""
        try:
            self._socket(False).close()
        except OSError:
            return False
        return True

    def ready(self) -> bool:
        """Whether a request is answered."""
        try:
            with self.connect(certificate=self.options.verify) as wire:
                wire.send(b"GET / HTTP/1.1\r\nHost: checklist\r\nConnection: close\r\n\r\n")
                return wire.answer().body == b"ready"
        except (OSError, AssertionError):
            return False


def wait_until(condition: Callable[[], object], otherwise: str, patience: float = PATIENCE) -> None:
    """Wait for ``condition``, with the deadline of all waits."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.01)


class Subject:
    """The server under test."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._count = 0
        self._stack = contextlib.ExitStack()
        self._server: Server | None = None
        self._broken = ""
        self._certificates: Certificates | None = None

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    @property
    def gunicorn(self) -> bool:
        """Whether an arbiter of gunicorn's watches over it."""
        return SERVERS[self.name] in (_hybridworker, _gunicorn_asgi, _uvicorn_worker)

    @property
    def server(self) -> Server:
        """The server that most statements share."""
        if self._broken:
            raise AssertionError(self._broken)
        if self._server is None or self._server.process.poll() is not None:
            try:
                self._server = self._stack.enter_context(self.start())
            except AssertionError as exc:
                self._broken = str(exc)  # it would not start the next time either
                raise
        return self._server

    @property
    def certificates(self) -> Certificates:
        """Certificates made for this run."""
        if self._certificates is None:
            self._certificates = make_certificates(self.directory)
        return self._certificates

    @contextlib.contextmanager
    def start(self, options: Options | None = None, lifespan: App | None = None, wait: bool = True) -> Iterator[Server]:
        """
        Start another one.

        ``lifespan`` plays the lifespan instead of the usual one; ``wait=False`` returns at
        once instead of when it answers.
        """
        options = options or Options()
        self._count += 1
        directory = self.directory / f"{self.name}-{self._count}"
        directory.mkdir()
        if not isinstance(options.address, str) and not options.address[1]:
            options.address = (options.address[0], free_port(options.address[0]))
        argv = SERVERS[self.name](options)
        environ = os.environ | options.environ | {DIRECTORY: str(directory), "PYTHONPATH": str(ROOT)}
        environ[LIFESPAN] = f"{lifespan.__module__}:{lifespan.__name__}" if lifespan else ""
        environ["PYTHONUNBUFFERED"] = "1"
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *argv],
                cwd=directory,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            server = Server(process, options, directory, log)
            try:
                if wait:
                    self._wait(server)
                yield server
            finally:
                stop(process)

    def _wait(self, server: Server) -> None:
        deadline = time.monotonic() + BOOT
        while not server.ready():
            if server.process.poll() is not None:
                raise AssertionError(f"the server did not start: {server.log()[-300:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the server did not answer within {BOOT:g} s")
            time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it has started."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # the group that we made for it
    process.wait()


def free_port(host: str) -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def make_certificates(directory: Path) -> Certificates:
    """An authority, the certificate of a server named localhost, and one of a client."""
    try:
        import trustme
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise NotDecidable("trustme is not installed") from None
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("someone@example.org", common_name="Someone", organization_name="Example, Inc.")
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), None)
    paths = Certificates(*(str(directory / name) for name in ("server.pem", "key.pem", "authority.pem", "client.pem")))
    Path(paths.certificate).write_bytes(b"".join(pem.bytes() for pem in server.cert_chain_pems))
    Path(paths.key).write_bytes(  # granian reads PKCS#8 only
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    authority.cert_pem.write_to_path(paths.authority)
    client.private_key_and_cert_chain_pem.write_to_path(paths.client)
    return paths
