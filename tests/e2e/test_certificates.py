"""Certificates are renewed under a server that serves: files and signals as an operator has them."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, HOOKS, Gunicorn, Servers

pytestmark = pytest.mark.e2e

RENEWED = "The TLS files have changed: new connections get the certificate in"
KEPT = r"\[WARNING\] The TLS files have changed, and the old ones stay in use"


class Volume:
    """A folder with certificates that is swapped as a whole, by a symbolic link, as Kubernetes does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.authority = trustme.CA()
        self.context = ssl.create_default_context()
        self.authority.configure_trust(self.context)

    def issue(self, key: bytes | None = None, authorities: bytes | None = None) -> bytes:
        """A new certificate, which is returned as the peer sees it; ``key`` takes the place of its own."""
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        issued = self.authority.issue_cert("localhost")
        (folder / "tls.key").write_bytes(key or issued.private_key_pem.bytes())
        (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        (folder / "ca.crt").write_bytes(authorities or self.authority.cert_pem.bytes())
        (self.folder / "next").symlink_to(folder.name)
        os.replace(self.folder / "next", self.folder / "data")
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    @property
    def options(self) -> tuple[str, ...]:
        data = self.folder / "data"
        return ("--certfile", str(data / "tls.crt"), "--keyfile", str(data / "tls.key"))


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def serve(gunicorn: Servers, volume: Volume, app: str, *args: str, workers: int = 2) -> Gunicorn:
    """A server all of whose workers serve: to a worker that boots, USR1 may mean its end."""
    env = {"HYBRIDWORKER_METRICS_PATH": "/metrics"}
    server = gunicorn(app, *volume.options, *args, env=env, workers=workers)

    def ready() -> bool:
        context = ssl.create_default_context()
        volume.authority.configure_trust(context)
        volume.authority.issue_cert("client@test").configure_cert(context)
        with connect(server, context) as client:
            return client.request("/metrics").text.count('state="ready"') == workers

    server.wait_for(ready, f"{workers} workers to serve")
    return server


def connect(server: Gunicorn, context: ssl.SSLContext) -> Client:
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    return Client(context.wrap_socket(raw, server_hostname="localhost"), DEADLINE)


def shown(client: Client) -> bytes:
    """The certificate that the server has shown."""
    assert isinstance(client.socket, ssl.SSLSocket)
    return client.socket.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize(("app", "workers", "loop"), [("asgi:app", 2, "uvloop"), ("wsgi:app", 4, "asyncio")])
def test_a_renewed_certificate_is_for_new_connections(
    gunicorn: Servers, volume: Volume, app: str, workers: int, loop: str
) -> None:
    """In every worker, without a reload, and no connection ends for it."""
    first = volume.issue()
    server = serve(gunicorn, volume, app, "--asgi-loop", loop, "--keep-alive", "60", workers=workers)
    with connect(server, volume.context) as old:
        assert shown(old) == first
        assert old.request().status == 200
        second = volume.issue()
        server.signal(signal.SIGUSR1)
        server.wait_log(RENEWED + r" .*/data/tls\.crt, which is valid until \d{4}-", workers)
        for _ in range(3 * workers):
            with connect(server, volume.context) as new:
                assert shown(new) == second
                assert new.request().status == 200
        assert old.request().status == 200
        if app == "asgi:app":
            with connect(server, volume.context) as new:
                tls = json.loads(new.request("/scope").body)["extensions"]["tls"]
                assert ssl.PEM_cert_to_DER_cert(tls["server_cert"].split("\n-----BEGIN")[0] + "\n") == second


@pytest.mark.parametrize("fault", ["another key", "a password", "garbage"])
def test_files_that_cannot_be_loaded_change_nothing(gunicorn: Servers, volume: Volume, fault: str) -> None:
    """One warning for each worker, nobody is asked for a password, and better files are taken."""
    first = volume.issue()
    server = serve(gunicorn, volume, "asgi:app")
    key = volume.authority.issue_cert("localhost").private_key_pem.bytes()
    if fault == "a password":
        loaded = serialization.load_pem_private_key(key, None)
        encryption = serialization.BestAvailableEncryption(b"secret")
        key = loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    volume.issue(key=b"garbage\n" if fault == "garbage" else key)
    server.signal(signal.SIGUSR1)
    server.wait_log(KEPT, 2)
    server.signal(signal.SIGUSR1)
    with connect(server, volume.context) as client:
        assert shown(client) == first
        assert client.request().status == 200
    third = volume.issue()
    server.signal(signal.SIGUSR1)
    server.wait_log(RENEWED, 2)
    with connect(server, volume.context) as client:
        assert shown(client) == third
    assert server.log().count("the old ones stay in use") == 2
    assert "PEM pass phrase" not in server.log()


def test_an_authority_that_was_taken_away_is_trusted_no_more(gunicorn: Servers, volume: Volume) -> None:
    """A client of the old one is refused; a client of the new one is served."""
    volume.issue()
    data = volume.folder / "data"
    server = serve(gunicorn, volume, "asgi:app", "--ca-certs", str(data / "ca.crt"), "--cert-reqs", "2")
    context = ssl.create_default_context()
    volume.authority.configure_trust(context)
    volume.authority.issue_cert("client@test").configure_cert(context)
    with connect(server, context) as client:
        assert client.request().status == 200
    other = trustme.CA()
    volume.issue(authorities=other.cert_pem.bytes())
    server.signal(signal.SIGUSR1)
    server.wait_log(RENEWED, 2)
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), connect(server, context) as client:
        client.request()
    new = ssl.create_default_context()
    volume.authority.configure_trust(new)
    other.issue_cert("client@test").configure_cert(new)
    with connect(server, new) as client:
        assert client.request().status == 200


def test_with_a_hook_the_files_are_not_looked_at(gunicorn: Servers, volume: Volume) -> None:
    """It may have made the context of something else."""
    first = volume.issue()
    server = serve(gunicorn, volume, "asgi:app", "--config", str(HOOKS), workers=1)
    (worker,) = server.worker_pids()
    volume.issue()
    server.signal(signal.SIGUSR1)
    server.wait_log("Handling signal: usr1")
    server.signal(signal.SIGUSR1, worker)
    with connect(server, volume.context) as client:
        assert client.request().status == 200
        assert shown(client) == first
    assert RENEWED not in server.log()
