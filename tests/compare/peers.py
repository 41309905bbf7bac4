"""
The servers of the table, and how each is told what a row wants.

Each runs with its own defaults; what a row is about is set by the server's own option where it has one. What only a
worker class of uvicorn's can be told goes through :mod:`.apps.with_uvicorn`, as its users do it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.checklist.servers import Certificates

ASGI, WSGI = "asgi", "wsgi"


@dataclass(slots=True)
class Want:
    """One start, in words that every server has its own options for."""

    app: str
    interface: str
    address: str = ""  #: host:port, or the path of a unix socket
    workers: int = 1
    threads: int = 1
    certificates: Certificates | None = None
    graceful: int | None = None  #: seconds that requests in flight have when it is told to end
    options: Sequence[str] = ()
    environ: dict[str, str] = field(default_factory=dict)
    uvicorn: Mapping[str, object] = field(default_factory=dict)  #: CONFIG_KWARGS of a subclass
    directory: Path = Path()

    @property
    def unix(self) -> bool:
        return "/" in self.address

    @property
    def bind(self) -> str:
        return f"unix:{self.address}" if self.unix else self.address


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: ``package`` gives its version, ``interfaces`` is what it serves, the natural one first."""

    name: str
    package: str
    interfaces: tuple[str, ...]
    command: Callable[[Want], list[str]]
    #: Whether gunicorn's master watches over it.
    gunicorn: bool = True


def _gunicorn(worker: str) -> Callable[[Want], list[str]]:
    def command(want: Want) -> list[str]:
        argv = ["gunicorn", "--worker-class", worker, "--bind", want.bind, "--no-control-socket"]
        argv += ["--workers", str(want.workers), "--threads", str(want.threads)]
        if want.graceful is not None:
            argv += ["--graceful-timeout", str(want.graceful)]
        if want.certificates:
            argv += ["--certfile", want.certificates.certificate, "--keyfile", want.certificates.key]
        return [*argv, *want.options, want.app]

    return command


def _uvicorn_worker(want: Want) -> list[str]:
    worker = "uvicorn_worker.UvicornWorker"
    if want.uvicorn:
        want.environ["COMPARE_CONFIG_KWARGS"] = json.dumps(want.uvicorn)
        worker = "tests.compare.apps.with_uvicorn.Worker"
    return _gunicorn(worker)(want)


def _granian(want: Want) -> list[str]:
    argv = ["granian", "--interface", want.interface, "--workers", str(want.workers)]
    if want.unix:
        argv += ["--uds", want.address]
    else:
        host, _, port = want.address.rpartition(":")
        argv += ["--host", host, "--port", port]
    if want.interface == WSGI:
        argv += ["--blocking-threads", str(want.threads)]
    if want.graceful is not None:
        argv += ["--workers-kill-timeout", str(want.graceful)]
    if want.certificates:
        argv += ["--ssl-certificate", want.certificates.certificate, "--ssl-keyfile", want.certificates.key]
    return [*argv, *want.options, want.app]


def _hypercorn(want: Want) -> list[str]:
    argv = ["hypercorn", "--bind", want.bind, "--workers", str(want.workers)]
    if want.graceful is not None:
        argv += ["--graceful-timeout", str(want.graceful)]
    if want.certificates:
        argv += ["--certfile", want.certificates.certificate, "--keyfile", want.certificates.key]
    return [*argv, *want.options, f"wsgi:{want.app}" if want.interface == WSGI else want.app]


OURS = "hybridworker"

PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "hybridworker", (ASGI, WSGI), _gunicorn("hybridworker.Worker")),
        Peer("gthread", "gunicorn", (WSGI,), _gunicorn("gthread")),
        Peer("asgi", "gunicorn", (ASGI,), _gunicorn("asgi")),
        Peer("uvicorn-worker", "uvicorn-worker", (ASGI,), _uvicorn_worker),
        Peer("granian", "granian", (ASGI, WSGI), _granian, gunicorn=False),
        Peer("hypercorn", "hypercorn", (ASGI, WSGI), _hypercorn, gunicorn=False),
    )
}
