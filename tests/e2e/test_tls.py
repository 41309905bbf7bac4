"""TLS through gunicorn's own ``ssl_context``: served, described, and never plaintext by mistake."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.client import Client
from tests.e2e.harness import APPS, DEADLINE, HOOKS, Gunicorn, Servers

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Certificates:
    """An authority of our own, and what it signed."""

    authority: trustme.CA
    server: Path
    folder: Path

    def client_context(self) -> ssl.SSLContext:
        """A client that trusts the authority."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    @property
    def options(self) -> tuple[str, ...]:
        """The options of gunicorn's command line."""
        return ("--certfile", str(self.server), "--keyfile", str(self.server))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return Certificates(authority, folder / "server.pem", folder)


def connect(server: Gunicorn, context: ssl.SSLContext) -> Client:
    """A client behind the handshake."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    return Client(context.wrap_socket(raw, server_hostname="localhost"), DEADLINE)


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_requests_over_tls(gunicorn: Servers, certificates: Certificates, app: str) -> None:
    """Kept alive, with bodies in both directions, and without a warning at the end."""
    server = gunicorn(app, *certificates.options)
    assert server.url.startswith("https://")
    with connect(server, certificates.client_context()) as client:
        assert client.request().text == ("Hello from ASGI" if app == "asgi:app" else "Hello from WSGI")
        body = b"t" * 1_000_000
        assert client.request("/echo", method="POST", body=body).body == body
        assert client.request("/chunks/3").framing == "chunked"


def test_x23_the_scheme_and_the_extension(gunicorn: Servers, certificates: Certificates) -> None:
    """https in the scope, and the negotiated version beside it."""
    server = gunicorn("asgi:app", *certificates.options)
    with connect(server, certificates.client_context()) as client:
        scope = json.loads(client.request("/scope").body)
    assert scope["scheme"] == "https"
    assert scope["extensions"]["tls"]["tls_version"] == 0x0304


def test_the_scheme_under_wsgi(gunicorn: Servers, certificates: Certificates) -> None:
    """https in the environ."""
    server = gunicorn("wsgi:app", *certificates.options)
    with connect(server, certificates.client_context()) as client:
        assert json.loads(client.request("/environ").body)["wsgi.url_scheme"] == "https"


def test_what_wsgi_is_told_of_tls(gunicorn: Servers, certificates: Certificates) -> None:
    """The names of mod_ssl, the client's certificate among them; behind a proxy that says https there is nothing."""
    authorities = ("--ca-certs", str(certificates.folder / "ca.pem"), "--cert-reqs", "1")
    server = gunicorn("wsgi:app", *certificates.options, *authorities)
    context = certificates.client_context()
    names = {"HTTPS", "SSL_PROTOCOL", "SSL_CIPHER", "SSL_CLIENT_VERIFY", "SSL_CLIENT_CERT", "SSL_CLIENT_S_DN"}

    def told() -> dict[str, str]:
        with connect(server, context) as client:
            for _ in range(2):
                environ = json.loads(client.request("/environ").body)
        return {name: environ[name] for name in names & set(environ)}

    environ = told()
    assert environ == {
        "HTTPS": "on", "SSL_PROTOCOL": "TLSv1.3", "SSL_CIPHER": environ["SSL_CIPHER"], "SSL_CLIENT_VERIFY": "NONE"
    }  # fmt: skip
    assert environ["SSL_CIPHER"].startswith("TLS_")
    certificates.authority.issue_cert("client@test", common_name="the client").configure_cert(context)
    environ = told()
    assert set(environ) == names
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert "CN=the client" in environ["SSL_CLIENT_S_DN"]
    plain = gunicorn("wsgi:app")
    environ = json.loads(plain.request("/environ", headers="X-Forwarded-Proto: https\r\n").body)
    assert environ["wsgi.url_scheme"] == "https"
    assert not names & set(environ)


def test_h20_no_tls_extension_on_a_plain_connection(gunicorn: Servers) -> None:
    """Only where TLS is."""
    scope = json.loads(gunicorn("asgi:app").request("/scope").body)
    assert scope["scheme"] == "http"
    assert "tls" not in scope.get("extensions", {})


def test_http_2_is_not_negotiated(gunicorn: Servers, certificates: Certificates) -> None:
    """A client that prefers h2 gets http/1.1."""
    server = gunicorn("asgi:app", *certificates.options)
    context = certificates.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with connect(server, context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() in ("http/1.1", None)
        assert client.request().status == 200


def test_the_hook_makes_the_context(gunicorn: Servers, certificates: Certificates) -> None:
    """gunicorn's ``ssl_context`` hook is called in each worker."""
    server = gunicorn("asgi:app", *certificates.options, "--config", str(HOOKS))
    with connect(server, certificates.client_context()) as client:
        assert client.request().status == 200
    assert "hook ssl_context" in server.log()


def test_client_certificates_are_required_when_configured(gunicorn: Servers, certificates: Certificates) -> None:
    """``cert_reqs`` 2: without one there is no answer, with one of the authority there is."""
    server = gunicorn(
        "asgi:app", *certificates.options, "--ca-certs", str(certificates.folder / "ca.pem"), "--cert-reqs", "2"
    )
    context = certificates.client_context()
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)), connect(server, context) as client:
        client.request()
    certificates.authority.issue_cert("client@test").configure_cert(context)
    with connect(server, context) as client:
        assert client.request().status == 200


def test_the_context_of_the_hook_is_the_one_in_use(gunicorn: Servers, certificates: Certificates) -> None:
    """Its lowest version holds; its h2 is never negotiated, not even with a client that speaks nothing else."""
    server = gunicorn("asgi:app", *certificates.options, "--config", str(APPS / "tls_hook.conf.py"))
    old = certificates.client_context()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, old)
    for offered, selected in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
        context = certificates.client_context()
        context.set_alpn_protocols(offered)
        with connect(server, context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.selected_alpn_protocol() == selected
            assert client.request().status == 200


def test_a_client_certificate_is_in_the_scope(gunicorn: Servers, certificates: Certificates) -> None:
    """``cert_reqs`` 1: nobody needs one; who has one of ``ca_certs`` is named; one of another authority is refused."""
    server = gunicorn(
        "asgi:app", *certificates.options, "--ca-certs", str(certificates.folder / "ca.pem"), "--cert-reqs", "1"
    )

    def extension(context: ssl.SSLContext) -> dict[str, Any]:
        with connect(server, context) as client:
            scope = json.loads(client.request("/scope").body)
            extension: dict[str, Any] = scope["extensions"]["tls"]
            return extension

    context = certificates.client_context()
    assert (extension(context)["client_cert_name"], extension(context)["client_cert_chain"]) == (None, [])
    certificates.authority.issue_cert("client@test", common_name="the client").configure_cert(context)
    assert "CN=the client" in extension(context)["client_cert_name"]
    assert extension(context)["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    foreign = certificates.client_context()
    trustme.CA().issue_cert("client@test").configure_cert(foreign)
    # Under TLS 1.3 the client learns of it with the first answer.
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        extension(foreign)
    assert extension(context)["client_cert_error"] is None


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", b"\0" * 100_000, b"\x16\x03\x01\x02\x00\x01", b""],
    ids=["plain request", "garbage", "cut", "nothing"],
)
@pytest.mark.parametrize("how", ["half-close", "reset"])
def test_what_is_no_handshake_does_no_harm(
    gunicorn: Servers, certificates: Certificates, data: bytes, how: str
) -> None:
    """No plaintext answer, no error in the log, and the others are served."""
    server = gunicorn("asgi:app", *certificates.options)
    with connect(server, certificates.client_context()) as other:
        assert other.request().status == 200
        with server.connect() as client:
            with contextlib.suppress(ConnectionError):  # the server may have had enough
                client.send(data)
                if how == "half-close":
                    client.half_close()
            if how == "reset":
                client.reset()
            else:
                assert b"HTTP/1.1 200" not in client.rest()
        assert other.request().status == 200
    with connect(server, certificates.client_context()) as client:
        assert client.request().status == 200


def test_http_on_a_port_of_tls_is_a_warning(gunicorn: Servers, certificates: Certificates) -> None:
    """With the address of the client, as for any request that is wrong."""
    server = gunicorn("asgi:app", *certificates.options)
    with server.connect() as client, contextlib.suppress(ConnectionError):
        client.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        client.rest()
    server.wait_log(r"\[WARNING\] Invalid request from ip=127\.0\.0\.1: http:// on a port that speaks TLS$")


def test_a_handshake_has_the_time_of_a_head(gunicorn: Servers, certificates: Certificates) -> None:
    """Whoever says nothing, or half of it, is dropped after HYBRIDWORKER_HEADER_TIMEOUT; nobody else has to wait."""
    server = gunicorn("asgi:app", *certificates.options, env={"HYBRIDWORKER_HEADER_TIMEOUT": "1"})
    with server.connect() as silent, server.connect() as begun:
        begun.send(b"\x16\x03\x01\x02\x00\x01")
        with connect(server, certificates.client_context()) as client:
            assert client.request().status == 200
        assert silent.at_end()
        assert begun.at_end()
    with connect(server, certificates.client_context()) as client:
        assert client.request().status == 200


def test_handshakes_count_as_connections(gunicorn: Servers, certificates: Certificates) -> None:
    """One that never ends takes a place of ``worker_connections``, and gives it back."""
    options = (*certificates.options, "--worker-connections", "2", "--keep-alive", "1000")
    server = gunicorn("asgi:app", *options)
    with server.connect() as silent, connect(server, certificates.client_context()) as client:
        # An idle connection would make room; a busy one does not, and neither does a handshake.
        client.start("/at-gate/taken")
        server.wait_log("gate taken reached")
        with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as waiting:
            silent.close()
            context = certificates.client_context()
            with Client(context.wrap_socket(waiting, server_hostname="localhost"), DEADLINE) as last:
                assert last.request().status == 200
        server.open("taken")
        assert client.response().status == 200


@pytest.mark.parametrize("content", ["", "this is no certificate\n"], ids=["empty", "garbage"])
def test_a_certificate_that_cannot_be_read_ends_gunicorn_with_3(
    gunicorn: Servers, tmp_path: Path, content: str
) -> None:
    """The boot is aborted: never plaintext on a port that was to be encrypted, and no respawn loop."""
    broken = tmp_path / "broken.pem"
    broken.write_text(content)
    server = gunicorn("asgi:app", "--certfile", str(broken), "--keyfile", str(broken), ready=False, dirty=True)
    assert server.wait() == 3
    assert server.log().count("Booting worker") == 1


def test_a_large_response_over_tls_waits_for_its_reader(gunicorn: Servers, certificates: Certificates) -> None:
    """Flow control through the TLS layer: the application stalls, and nothing is lost."""
    server = gunicorn("asgi:app", *certificates.options)
    with connect(server, certificates.client_context()) as client:
        client.start("/flood")
        server.wait_log(r"stalled after (\d+) bytes")
        assert client.head()[0] == 200
        assert client.exactly(256 * 1024 * 1024).count(b"x") == 256 * 1024 * 1024


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_client_that_goes_on_sending_gets_all_of_a_last_response(
    gunicorn: Servers, certificates: Certificates, loop: str
) -> None:
    """Bytes behind a close_notify would reset the connection, and cut what the client has not read yet."""
    server = gunicorn("asgi:app", *certificates.options, "--asgi-loop", loop)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        raw.settimeout(DEADLINE)
        raw.connect(("127.0.0.1", server.port))
        with Client(certificates.client_context().wrap_socket(raw, server_hostname="localhost"), DEADLINE) as client:
            client.send(b"POST /megabyte HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            status, _, fields = client.head()
            assert (status, dict(fields)["Connection"]) == (200, "close")
            for _ in range(100):
                client.send(b"x" * 1000)
                assert len(client.exactly(10_000)) == 10_000
