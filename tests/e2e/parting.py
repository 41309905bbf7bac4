"""
Clients and servers for the tests of how connections end.

The worker says in its last line how long it has drained; that, and not the clock of a test,
is compared with the four seconds that no mixture of clients may exceed.
"""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path
from typing import Final

import pytest
import trustme

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers

#: The longest drain, in seconds, with clients that want nothing.
LONGEST: Final = 4.0

APPS: Final = {"asgi": "parting:app", "wsgi": "parting:wsgi"}

BOTH: Final = pytest.mark.parametrize("app", ["asgi", "wsgi"])

#: Interface, loop and address: what a kind spans.
EVERYWHERE: Final = pytest.mark.parametrize(
    ("app", "loop", "bind"),
    [
        ("asgi", "uvloop", "tcp"),
        ("asgi", "uvloop", "unix"),
        ("asgi", "asyncio", "tcp"),
        ("asgi", "asyncio", "unix"),
        ("wsgi", "uvloop", "tcp"),
        ("wsgi", "uvloop", "unix"),
        ("wsgi", "asyncio", "tcp"),
    ],
)


class Authority:
    """A certificate, and the context of a client that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.certificate = folder / "server.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(self.certificate)
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    @property
    def options(self) -> tuple[str, ...]:
        """The options of gunicorn's command line."""
        return ("--certfile", str(self.certificate), "--keyfile", str(self.certificate))


def start(
    gunicorn: Servers, app: str, *args: str, loop: str = "uvloop", bind: str = "tcp", header_timeout: str | None = None
) -> Gunicorn:
    """A worker that has more time to leave than any test."""
    address = ("--bind", f"unix:{gunicorn.folder() / 's'}") if bind == "unix" else ()
    options = ("--asgi-loop", loop, "--graceful-timeout", "100", "--threads", "8", *address, *args)
    return gunicorn(APPS[app], *options, env={"HYBRIDWORKER_HEADER_TIMEOUT": header_timeout})


def connect(server: Gunicorn, authority: Authority | None = None) -> Client:
    """A client, behind the handshake if there is to be one."""
    if authority is None:
        return server.connect()
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    return Client(authority.context.wrap_socket(raw, server_hostname="localhost"), DEADLINE)


def drained(server: Gunicorn) -> float:
    """End the server; returns the seconds of its drain, as the worker saw them."""
    assert server.stop() == 0
    (seconds,) = re.findall(r"([\d.]+) s to drain", server.log())
    return float(seconds)
