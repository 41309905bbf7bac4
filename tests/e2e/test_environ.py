"""
S1-S6, S8, S9: the environ of a WSGI application is that of gthread, key by key.

Both workers get the same bytes, over TCP, over a unix socket, under TLS and behind a PROXY
header, and the two dictionaries are compared. :data:`DIFFERENCES` holds what is meant to
differ, each with its reason.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers

pytestmark = pytest.mark.e2e

#: Key -> why its value, or its presence, is another one here.
DIFFERENCES = {
    "gunicorn.socket": "only a request for a WebSocket has one, because the event loop owns the connection",
    "HTTP_COOKIE": 'several Cookie fields are joined with "; ", as they are split (RFC 6265 5.4), not with ","',
    "wsgi.multithread": "gthread says True always; here it is whether threads is more than 1",
    "wsgi.input": "the same methods and more",
    "wsgi.errors": "the same methods and more",
}
#: And under TLS.
TLS = dict.fromkeys(
    ("HTTPS", "SSL_CIPHER", "SSL_CLIENT_CERT", "SSL_CLIENT_S_DN", "SSL_CLIENT_VERIFY", "SSL_PROTOCOL"),
    "what mod_ssl says of the connection, which gthread does not",
)

REQUESTS = {
    "plain": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "port": b"GET / HTTP/1.1\r\nHost: example.org:8080\r\n\r\n",
    "query": b"GET /a/b?c=d&e=%20f?g HTTP/1.1\r\nHost: x\r\n\r\n",
    "empty query": b"GET /a? HTTP/1.1\r\nHost: x\r\n\r\n",
    "bytes": b"GET /%C3%A9/%FF/%2F/a%20b HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute": b"GET http://other.example/p/q?r HTTP/1.1\r\nHost: other.example\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "two slashes": b"GET //a//b HTTP/1.1\r\nHost: x\r\n\r\n",
    "body": b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain; a=b\r\nContent-Length: 3\r\n\r\nabc",
    "no length": b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\nx-a: 2\r\nX-B: 3\r\n\r\n",
    "cookies": b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    "obs-text": b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: caf\xc3\xa9 \xe9 \r\n\r\n",
    "underscore": b"GET / HTTP/1.1\r\nHost: x\r\nX_Under: 1\r\nX-Under: 2\r\n\r\n",
    "script name": b"GET /sub/page HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /sub\r\n\r\n",
    "forwarded": b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
    "http/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "http/1.0 host": b"GET / HTTP/1.0\r\nHost: example.org\r\n\r\n",
}


def ask(client: Client, request: bytes, ports: dict[str, str]) -> dict[str, Any]:
    """The environ of ``request``, with names for the ports that nobody chose."""
    with client:
        name = client.socket.getsockname()
        if isinstance(name, tuple):
            ports = {str(name[1]): "the client's", **ports}
        client.send(request)
        # gthread answers HTTP/1.0 in its own version, which the client takes for a mistake.
        old = b" HTTP/1.0\r\n" in request
        body = client.rest().partition(b"\r\n\r\n")[2] if old else client.response().body
        environ: dict[str, Any] = json.loads(body)
    for key in ("REMOTE_PORT", "SERVER_PORT", "PROXY_PORT"):
        environ[key] = ports.get(environ.get(key, "absent"), environ.get(key, "absent"))
    return environ


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert "gunicorn.socket" not in ours
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    unexpected = different - DIFFERENCES.keys() - (TLS.keys() if ours["wsgi.url_scheme"] == "https" else set())
    assert not unexpected, {key: (ours.get(key), theirs.get(key)) for key in unexpected}
    for key in ("wsgi.input", "wsgi.errors"):
        assert set(theirs[key]) <= set(ours[key])
    if "HTTP_COOKIE" in different:
        assert ours["HTTP_COOKIE"] == theirs["HTTP_COOKIE"].replace(",", "; ")


class Pair:
    """This worker and gthread, with the same options."""

    def __init__(self, gunicorn: Servers, *options: tuple[str, ...], proxy: bytes = b"") -> None:
        self.proxy = proxy
        self.servers = [
            gunicorn("environ:app", "--threads", "2", *options[index % len(options)], worker=worker)
            for index, worker in enumerate(("hybridworker.Worker", "gthread"))
        ]

    def connect(self, server: Gunicorn) -> Client:
        return server.connect()

    def check(self, request: bytes) -> None:
        asked = []
        for server in self.servers:
            ports = {} if server.url.startswith("unix:") else {str(server.port): "the server's"}
            asked.append(ask(self.connect(server), self.proxy + request, ports))
        compare(*asked)


@pytest.fixture(scope="module")
def tcp(shared_gunicorn: Servers) -> Pair:
    return Pair(shared_gunicorn, ())


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_over_tcp(tcp: Pair, request_: bytes) -> None:
    """Every key of every request."""
    tcp.check(request_)


@pytest.fixture(scope="module")
def unix(shared_gunicorn: Servers, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("s")
    # One path after the other, for the path itself is in the environ where there is no Host.
    return Pair(shared_gunicorn, ("--bind", f"unix:{folder}/a"), ("--bind", f"unix:{folder}/b"))


@pytest.mark.parametrize("name", [name for name in REQUESTS if name != "http/1.0"])
def test_over_a_unix_socket(unix: Pair, name: str) -> None:
    """The server's name and port come from Host, and there is nobody to name as the client."""
    unix.check(REQUESTS[name])


class TLSPair(Pair):
    context: ssl.SSLContext

    def connect(self, server: Gunicorn) -> Client:
        client = server.connect()
        return Client(self.context.wrap_socket(client.socket, server_hostname="localhost"), DEADLINE)


@pytest.fixture(scope="module")
def tls(shared_gunicorn: Servers, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    authority = trustme.CA()
    certificate = Path(tmp_path_factory.mktemp("tls"), "server.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    TLSPair.context = ssl.create_default_context()
    authority.configure_trust(TLSPair.context)
    return TLSPair(shared_gunicorn, ("--certfile", str(certificate), "--keyfile", str(certificate)))


@pytest.mark.parametrize("name", ["plain", "port", "query", "body", "chunked", "script name", "http/1.0"])
def test_under_tls(tls: Pair, name: str) -> None:
    """The scheme is https, the keys of mod_ssl are there, and everything else is the same."""
    tls.check(REQUESTS[name])


@pytest.fixture(scope="module")
def proxied(shared_gunicorn: Servers) -> Pair:
    return Pair(shared_gunicorn, ("--proxy-protocol", "auto"), proxy=b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 443\r\n")


@pytest.mark.parametrize("name", ["plain", "port", "query", "body", "forwarded"])
def test_behind_a_proxy_header(proxied: Pair, name: str) -> None:
    """The announced client, and the keys that say so."""
    proxied.check(REQUESTS[name])


def test_every_difference_has_a_reason() -> None:
    """A list without reasons would only grow."""
    assert all(len(reason) > 20 for reason in DIFFERENCES.values())
