"""
nginx and HAProxy in front of the worker.

Both are started by the tests, on loopback, with a configuration of their own in a folder of
the test, and listen at sockets that the test has bound for them: no port is guessed, and a
client may connect before they are ready. Clients come from ``CLIENT``, an address of the
loopback network that nobody trusts, while the proxies come from 127.0.0.1, which is trusted
by default; only Linux has both without being asked.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn, Servers
from tests.e2e.tunnel import tunnel

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a second address on loopback, as Linux has"),
]
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")

BOTH = pytest.mark.parametrize("app", ["proxied:asgi", "wsgi:app"])

#: Where clients come from, and where they say that they come from.
CLIENT = "127.0.0.2"
CLAIMED = "203.0.113.9"

#: 10 MB that no transfer can get wrong unnoticed.
BODY = random.Random(3).randbytes(10_000_000)

NGINX_CONF = """
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ }}
http {{
    access_log off;
    client_body_temp_path bodies;
    proxy_temp_path answers;
    fastcgi_temp_path unused1;
    uwsgi_temp_path unused2;
    scgi_temp_path unused3;
    client_max_body_size 0;
    keepalive_timeout 1000;
    keepalive_requests 1000000;
    upstream worker {{
        server {upstream};
        keepalive 8;
    }}
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        "" "";
    }}
    proxy_http_version 1.1;
    proxy_next_upstream off;
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme;
    server {{
        listen {plain};
        listen {encrypted} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {certificate};
        location / {{
            proxy_pass http://worker;
        }}
        location /unbuffered/ {{
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_pass http://worker/;
        }}
    }}
}}
"""

HAPROXY_CONF = """
global
    log stderr format raw local0 warning
defaults
    log global
    mode {mode}
    timeout connect 30s
    timeout client 60s
    timeout server 60s
listen worker
    bind fd@{descriptor}
    server worker {upstream} {option}
"""


@pytest.fixture
def bind(request: pytest.FixtureRequest) -> Iterator[str]:
    """An address for the worker; ``unix:`` gets a path. Comes before ``gunicorn``, so that its folder outlives it."""
    with tempfile.TemporaryDirectory(prefix="hw-") as folder:
        yield f"unix:{folder}/socket" if request.param == "unix:" else request.param


@dataclass
class Proxy:
    """One running proxy. ``port`` is that of plain HTTP; ``trust`` signed the certificate of ``tls_port``."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int
    tls_port: int = 0
    trust: trustme.CA = field(default_factory=trustme.CA)

    def connect(self, *, tls: bool = False) -> Client:
        """A client that comes from ``CLIENT``."""
        port = self.tls_port if tls else self.port
        connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE, source_address=(CLIENT, 0))
        if tls:
            connection = self.context.wrap_socket(connection, server_hostname="localhost")
        return Client(connection, DEADLINE)

    @property
    def context(self) -> ssl.SSLContext:
        """Of a client that trusts its certificate."""
        context = ssl.create_default_context()
        self.trust.configure_trust(context)
        return context

    def request(self, path: str, headers: str = "", *, tls: bool = False) -> Any:
        """The JSON of a response, from a connection of its own."""
        with self.connect(tls=tls) as client:
            response = client.request(path, headers=headers + "Connection: close\r\n")
        assert response.status == 200, response
        return json.loads(response.body)


def bound() -> socket.socket:
    """A socket that listens at a free port, for a proxy to inherit."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    return listener


@contextlib.contextmanager
def running(argv: list[str], folder: Path, listeners: list[socket.socket], env: dict[str, str]) -> Iterator[Proxy]:
    """A proxy that inherits ``listeners``; ended, and its complaints looked at, at the end."""
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[listener.fileno() for listener in listeners],
            start_new_session=True,
        )
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()  # if the proxy does not start, connections are refused and nobody waits
    try:
        yield Proxy(process, log, *ports)
        assert process.poll() is None, f"the proxy has ended\n{log.read_text()}"
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def upstream(server: Gunicorn) -> str:
    """The first address of ``server``, as nginx writes it."""
    return server.url.removeprefix("http://")


@contextlib.contextmanager
def nginx(server: Gunicorn) -> Iterator[Proxy]:
    """nginx in front of the first address of ``server``."""
    assert NGINX is not None
    with tempfile.TemporaryDirectory(prefix="hw-nginx-") as path, bound() as plain, bound() as encrypted:
        folder, trust = Path(path), trustme.CA()
        trust.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        names = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in (plain, encrypted)]
        (folder / "nginx.conf").write_text(
            NGINX_CONF.format(
                user="user root;" if os.getuid() == 0 else "",  # or it could not enter the folder
                upstream=upstream(server),
                plain=names[0],
                encrypted=names[1],
                certificate=folder / "server.pem",
            )
        )
        # What nginx calls its new binary with: descriptors of listeners, each with a semicolon.
        inherited = {"NGINX": "".join(f"{listener.fileno()};" for listener in (plain, encrypted))}
        argv = [NGINX, "-p", path, "-c", "nginx.conf", "-e", "stderr"]
        with running(argv, folder, [plain, encrypted], inherited) as proxy:
            proxy.trust = trust
            yield proxy


@contextlib.contextmanager
def haproxy(server: Gunicorn, mode: str, option: str) -> Iterator[Proxy]:
    """HAProxy in front of the first address of ``server``; ``option`` is send-proxy or send-proxy-v2."""
    assert HAPROXY is not None
    with tempfile.TemporaryDirectory(prefix="hw-haproxy-") as path, bound() as listener:
        folder = Path(path)
        (folder / "haproxy.cfg").write_text(
            HAPROXY_CONF.format(
                mode=mode,
                descriptor=listener.fileno(),
                upstream=upstream(server).replace("unix:", "unix@"),
                option=option,
            )
        )
        with running([HAPROXY, "-db", "-f", "haproxy.cfg"], folder, [listener], {}) as proxy:
            yield proxy


def seen(proxy: Proxy, app: str, headers: str = "", *, tls: bool = False) -> tuple[str, str, str]:
    """What the application sees of a request: the client's address, the scheme, and X-Forwarded-For as it came."""
    if app == "wsgi:app":
        environ = proxy.request("/environ", headers, tls=tls)
        return environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ.get("HTTP_X_FORWARDED_FOR", "")
    scope = proxy.request("/scope", headers, tls=tls)
    fields = dict(scope["headers"])
    return (scope["client"] or [""])[0], scope["scheme"], fields.get("x-forwarded-for", "")


# -- nginx: forwarded fields


@needs_nginx
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:"], indirect=True)
def test_asgi_sees_the_client_behind_nginx(bind: str, gunicorn: Servers) -> None:
    """The address that nginx saw, not the one that the client claims; and the scheme that nginx was spoken to in."""
    server = gunicorn("proxied:asgi", "--bind", bind)
    with nginx(server) as proxy:
        assert seen(proxy, "proxied:asgi") == (CLIENT, "http", CLIENT)
        assert seen(proxy, "proxied:asgi", tls=True) == (CLIENT, "https", CLIENT)
        claims = f"X-Forwarded-For: {CLAIMED}\r\nX-Forwarded-Proto: https\r\n"
        assert seen(proxy, "proxied:asgi", claims) == (CLIENT, "http", f"{CLAIMED}, {CLIENT}")


@needs_nginx
def test_asgi_follows_the_chain_of_trusted_proxies(gunicorn: Servers) -> None:
    """With the client trusted as well, whom it speaks for is believed."""
    server = gunicorn("proxied:asgi", "--forwarded-allow-ips", f"127.0.0.1,{CLIENT}")
    with nginx(server) as proxy:
        assert seen(proxy, "proxied:asgi", f"X-Forwarded-For: {CLAIMED}\r\n")[0] == CLAIMED


@needs_nginx
@pytest.mark.parametrize(("bind", "peer"), [("127.0.0.1:0", "127.0.0.1"), ("unix:", "")], indirect=["bind"])
def test_wsgi_sees_the_peer_and_the_scheme(bind: str, gunicorn: Servers, peer: str) -> None:
    """REMOTE_ADDR is nginx, as under gunicorn's own workers; the field is there for whoever wants it."""
    server = gunicorn("wsgi:app", "--bind", bind)
    with nginx(server) as proxy:
        assert seen(proxy, "wsgi:app") == (peer, "http", CLIENT)
        assert seen(proxy, "wsgi:app", tls=True) == (peer, "https", CLIENT)


@needs_nginx
@BOTH
def test_an_untrusted_nginx_is_not_believed(gunicorn: Servers, app: str) -> None:
    """The fields are there, and mean nothing."""
    server = gunicorn(app, "--forwarded-allow-ips", "192.0.2.1")
    with nginx(server) as proxy:
        assert seen(proxy, app, tls=True) == ("127.0.0.1", "http", CLIENT)


# -- nginx: connections and bodies


@needs_nginx
@BOTH
def test_nginx_uses_one_connection_for_many_requests(gunicorn: Servers, app: str) -> None:
    """Of clients that have a connection each: the port that the worker sees stays the same."""
    # Whom the worker does not trust is seen as it is.
    server = gunicorn(app, "--forwarded-allow-ips", "192.0.2.1", "--keep-alive", "1000")
    with nginx(server) as proxy:
        if app == "wsgi:app":
            ports = {proxy.request("/environ")["REMOTE_PORT"] for _ in range(10)}
        else:
            ports = {proxy.request("/scope")["client"][1] for _ in range(10)}
    assert len(ports) == 1


@needs_nginx
@BOTH
@pytest.mark.parametrize("path", ["/echo", "/unbuffered/echo"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_bodies_pass_through_nginx_as_they_are(gunicorn: Servers, app: str, path: str, framing: str) -> None:
    """10 MB up and down, whole or passed on as they come; and once more on the same connections."""
    server = gunicorn(app, "--keep-alive", "1000")
    if app == "wsgi:app":
        path = path.replace("echo", "read-all")
    with nginx(server) as proxy, proxy.connect() as client:
        for _ in range(2):
            if framing == "length":
                response = client.request(path, "POST", BODY)
            else:
                client.start(path, "POST", headers="Transfer-Encoding: chunked\r\n")
                for at in range(0, len(BODY), 300_000):
                    piece = BODY[at : at + 300_000]
                    client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                client.send("0\r\n\r\n")
                response = client.response("POST")
            assert response.status == 200
            assert response.body == BODY


# -- WebSocket


@contextlib.contextmanager
def websocket(proxy: Proxy, path: str, *, tls: bool = False) -> Iterator[tuple[dict[str, Any], Any]]:
    """What the application saw of the handshake, and a connection of the ``websockets`` package that it echoes."""
    sync = pytest.importorskip("websockets.sync.client", reason="the extra is not installed")
    with contextlib.ExitStack() as stack:
        if tls:
            port = stack.enter_context(tunnel(proxy.tls_port, proxy.context, local_addr=(CLIENT, 0))).port
            connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        else:
            connection = proxy.connect().socket
        connect = sync.connect(f"ws://localhost{path}", sock=connection, open_timeout=DEADLINE, max_size=None)
        ws = stack.enter_context(connect)
        yield json.loads(ws.recv(DEADLINE)), ws


@needs_nginx
@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_a_websocket_through_nginx(gunicorn: Servers, tls: bool) -> None:
    """Messages of each size, pings, the closing handshake; the client and the scheme in the scope."""
    server = gunicorn("proxied:asgi")
    with nginx(server) as proxy, websocket(proxy, "/ws", tls=tls) as (scope, ws):
        assert scope == {"scheme": "wss" if tls else "ws", "client": [CLIENT, 0], "path": "/ws"}
        for message in ("", "text", b"bytes", BODY[:1_000_000]):
            ws.send(message)
            assert ws.recv(DEADLINE) == message
        assert ws.ping().wait(DEADLINE)
        ws.close(1000, "done")
        assert ws.close_code == 1000


# -- recycling


def pid(proxy: Proxy) -> int:
    """The worker that answers through ``proxy``."""
    with proxy.connect() as client:
        return int(client.request("/pid", headers="Connection: close\r\n").body)


@needs_nginx
@BOTH
def test_hup_behind_nginx_loses_no_request(gunicorn: Servers, app: str) -> None:
    """No 502 although nginx keeps connections and never asks twice: three reloads under the load of four clients."""
    server = gunicorn(app, "--keep-alive", "1000")
    stop = False

    def ask(proxy: Proxy) -> list[int]:
        statuses = []
        with proxy.connect() as client:
            while not stop:
                statuses.append(client.request("/pid", "POST", b"body").status)
        return statuses

    with nginx(server) as proxy, concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask, proxy) for _ in range(4)]
        try:
            for _ in range(3):
                workers = set(server.worker_pids())
                server.signal(signal.SIGHUP)
                server.wait_workers(lambda pids, old=workers: pids != [] and not old & set(pids), "the next worker")  # type: ignore[misc]
                assert pid(proxy) not in workers
        finally:
            stop = True
        statuses = [status for future in asked for status in future.result(DEADLINE)]
    assert len(statuses) >= 12
    assert set(statuses) == {200}, proxy.log


# -- HAProxy: the PROXY protocol

VERSIONS = pytest.mark.parametrize(
    ("version", "option"), [("v1", "send-proxy"), ("v2", "send-proxy-v2"), ("auto", "send-proxy-v2-ssl-cn")]
)


@needs_haproxy
@BOTH
@VERSIONS
@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:"], indirect=True)
def test_the_proxy_protocol_names_the_client(bind: str, gunicorn: Servers, app: str, version: str, option: str) -> None:
    """For as long as the connection lasts, in every request of it."""
    server = gunicorn(app, "--proxy-protocol", version, "--bind", bind, "--keep-alive", "1000")
    with haproxy(server, "tcp", option) as proxy, proxy.connect() as client:
        address = list(client.socket.getsockname())
        for _ in range(3):
            if app == "wsgi:app":
                environ = json.loads(client.request("/environ").body)
                assert [environ["REMOTE_ADDR"], int(environ["REMOTE_PORT"])] == address
                assert (environ["PROXY_PROTOCOL"], environ["PROXY_ADDR"]) == ("TCP4", "127.0.0.1")
                assert int(environ["PROXY_PORT"]) == proxy.port
            else:
                scope = json.loads(client.request("/scope").body)
                assert scope["client"] == address
                assert scope["hybridworker.proxy"]["PROXY_PORT"] == str(proxy.port)


@needs_haproxy
def test_the_proxy_protocol_and_the_access_log(gunicorn: Servers) -> None:
    """The announced address stands in it."""
    server = gunicorn("proxied:asgi", "--proxy-protocol", "v2", "--access-logfile", "-")
    with haproxy(server, "tcp", "send-proxy-v2") as proxy:
        proxy.request("/scope")
    server.wait_log(rf'^{CLIENT} - - .*"GET /scope HTTP/1.1" 200 ')


@needs_haproxy
def test_the_proxy_protocol_from_haproxy_that_speaks_http(gunicorn: Servers) -> None:
    """Two clients never share a connection that is announced for one of them."""
    server = gunicorn("proxied:asgi", "--proxy-protocol", "v2", "--keep-alive", "1000")
    with haproxy(server, "http", "send-proxy-v2") as proxy, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.connect()) for _ in range(3)]
        for client in clients * 3:
            assert json.loads(client.request("/scope").body)["client"] == list(client.socket.getsockname())


@needs_haproxy
def test_a_websocket_behind_a_proxy_header(gunicorn: Servers) -> None:
    """The announced client is that of the WebSocket as well."""
    server = gunicorn("proxied:asgi", "--proxy-protocol", "v2")
    with haproxy(server, "tcp", "send-proxy-v2") as proxy, websocket(proxy, "/ws") as (scope, ws):
        assert scope["client"] == list(ws.local_address)
        ws.send(BODY[:100_000])
        assert ws.recv(DEADLINE) == BODY[:100_000]


@needs_haproxy
@BOTH
def test_a_proxy_header_from_somebody_else_is_403(gunicorn: Servers, app: str) -> None:
    """``proxy_allow_ips`` without HAProxy's address."""
    server = gunicorn(app, "--proxy-protocol", "v2", "--proxy-allow-from", "192.0.2.1")
    with haproxy(server, "tcp", "send-proxy-v2") as proxy, proxy.connect() as client:
        response = client.request("/")
        assert response.status == 403
        assert client.at_end()
    server.wait_log("Invalid request from ip=127.0.0.1: a PROXY header from a peer that is not in proxy_allow_ips")


@needs_haproxy
@BOTH
def test_bodies_pass_through_haproxy_as_they_are(gunicorn: Servers, app: str) -> None:
    """10 MB up and down behind a PROXY header."""
    server = gunicorn(app, "--proxy-protocol", "auto", "--keep-alive", "1000")
    path = "/echo" if app == "proxied:asgi" else "/read-all"
    with haproxy(server, "tcp", "send-proxy-v2") as proxy, proxy.connect() as client:
        for _ in range(2):
            assert client.request(path, "POST", BODY).body == BODY
