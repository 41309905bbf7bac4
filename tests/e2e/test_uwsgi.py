"""``protocol = uwsgi``: behind nginx's ``uwsgi_pass``, and with peers that send what no proxy would."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Client, Response
from tests.e2e.harness import DEADLINE, Gunicorn, Servers
from tests.e2e.parting import Authority
from tests.e2e.programs import Program, Programs, found, free_port
from tests.e2e.test_recycling import Load, booted
from tests.e2e.test_wsgi_websocket import KEY, UPGRADE
from tests.e2e.tunnel import tunnel
from tests.process.test_endpoints import parse
from tests.uwsgi.packets import framed, get, post

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="needs a second address on loopback, as Linux has"),
]

UWSGI = ("--protocol", "uwsgi")
BOTH = pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])

#: Where clients of nginx come from. Nobody trusts it.
CLIENT = "127.0.0.2"

#: 10 MB that no transfer can get wrong unnoticed.
BODY = random.Random(5).randbytes(10_000_000)

#: The file ``uwsgi_params`` that comes with nginx.
PARAMS = """
    uwsgi_param QUERY_STRING    $query_string;
    uwsgi_param REQUEST_METHOD  $request_method;
    uwsgi_param CONTENT_TYPE    $content_type;
    uwsgi_param CONTENT_LENGTH  $content_length;
    uwsgi_param REQUEST_URI     $request_uri;
    uwsgi_param PATH_INFO       $document_uri;
    uwsgi_param DOCUMENT_ROOT   $document_root;
    uwsgi_param SERVER_PROTOCOL $server_protocol;
    uwsgi_param REQUEST_SCHEME  $scheme;
    uwsgi_param HTTPS           $https if_not_empty;
    uwsgi_param REMOTE_ADDR     $remote_addr;
    uwsgi_param REMOTE_PORT     $remote_port;
    uwsgi_param SERVER_PORT     $server_port;
    uwsgi_param SERVER_NAME     $server_name;
"""

SITE = """
keepalive_timeout 1000;
server {{
    listen 127.0.0.1:{port};
    listen 127.0.0.1:{tls_port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    client_max_body_size 0;
    {params}
    uwsgi_next_upstream off;
    location / {{ uwsgi_pass {upstream}; }}
    location /unbuffered/ {{
        rewrite ^/unbuffered(/.*)$ $1 break;
        uwsgi_request_buffering off;
        uwsgi_buffering off;
        uwsgi_pass {upstream};
    }}
    {more}
}}
"""


class Front:
    """nginx before a server."""

    def __init__(
        self, server: Gunicorn, programs: Programs, authority: Authority, more: str = "", scheme: str = ""
    ) -> None:
        found("nginx")
        self.authority = authority
        self.tls_port = free_port()
        port = free_port()
        upstream = scheme + server.url.rpartition("://")[2]
        site = SITE.format(
            port=port,
            tls_port=self.tls_port,
            certificate=authority.certificate,
            upstream=upstream,
            params=PARAMS,
            more=more.format(upstream=upstream),
        )
        self.program: Program = programs.nginx(site, port)

    def connect(self, *, tls: bool = False) -> Client:
        """A client that comes from ``CLIENT``."""
        port = self.tls_port if tls else self.program.port
        connection = socket.create_connection(("127.0.0.1", port), DEADLINE, source_address=(CLIENT, 0))
        if tls:
            connection = self.authority.context.wrap_socket(connection, server_hostname="localhost")
        return Client(connection, DEADLINE)

    def request(self, path: str, method: str = "GET", body: bytes = b"", headers: str = "") -> Response:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.request(path, method, body, headers + "Connection: close\r\n")


def ask(server: Gunicorn, data: bytes, source: str = "127.0.0.1") -> Response:
    """The answer to bytes that are sent to the server itself."""
    connection = socket.create_connection(("127.0.0.1", server.port), DEADLINE, source_address=(source, 0))
    with Client(connection, DEADLINE) as client:
        client.send(data)
        return client.response()


# -- behind nginx


@pytest.mark.parametrize("bind", ["tcp", "unix"])
@BOTH
def test_what_the_application_sees(
    gunicorn: Servers, programs: Programs, authority: Authority, app: str, bind: str, tmp_path: Path
) -> None:
    """Client, scheme and path are those of the request that nginx got, whatever the client claims."""
    address = ("--bind", f"unix:{tmp_path}/s") if bind == "unix" else ()
    server = gunicorn(app, *UWSGI, "--access-logfile", "-", *address)
    front = Front(server, programs, authority)
    claims = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 192.0.2.1\r\n"
    path = "/scope" if app == "asgi:app" else "/environ"
    for tls in (False, True):
        with front.connect(tls=tls) as client:
            for _ in range(2):  # on one connection of the client
                response = client.request(path + "/a%20b/%C3%A9?c=%20d", headers=claims + "Cookie: a=1\r\n")
                assert response.status == 200
                seen: dict[str, Any] = json.loads(response.body)
                scheme = "https" if tls else "http"
                if app == "asgi:app":
                    assert (seen["client"], seen["scheme"]) == (list(client.socket.getsockname()), scheme)
                    assert seen["path"] == path + "/a b/é"
                    assert seen["query_string"] == "c=%20d"
                    assert ["cookie", "a=1"] in seen["headers"]
                    assert seen["http_version"] == "1.1"
                else:
                    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == (CLIENT, scheme)
                    assert seen["PATH_INFO"].encode("latin-1").decode() == path + "/a b/é"
                    assert seen["RAW_URI"] == path + "/a%20b/%C3%A9?c=%20d"
                    assert (seen["HTTP_COOKIE"], seen["SERVER_PROTOCOL"]) == ("a=1", "HTTP/1.1")
                    assert "CONTENT_TYPE" not in seen
    server.wait_log(rf'^{CLIENT} .*"GET {path}/a%20b/%C3%A9\?c=%20d HTTP/1.1" 200 ', 4)


@BOTH
def test_bodies_and_responses_of_every_kind(
    gunicorn: Servers, programs: Programs, authority: Authority, app: str
) -> None:
    """Long and chunked bodies arrive whole, with and without buffers; so do responses without a length."""
    server = gunicorn(app, *UWSGI, "--threads", "2")
    front = Front(server, programs, authority)
    with front.connect() as client:
        for prefix in ("", "/unbuffered"):
            response = client.request(prefix + "/echo", "POST", BODY)
            assert (response.status, response.body) == (200, BODY)
            client.send(f"POST {prefix}/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
            assert client.response().body == b"hello world"
            expecting = "Expect: 100-continue\r\nContent-Length: 5\r\n"
            client.send(f"POST {prefix}/echo HTTP/1.1\r\nHost: x\r\n{expecting}\r\n")
            assert client.response().status == 100
            client.send(b"hello")
            assert client.response().body == b"hello"
            chunks = client.request(prefix + "/chunks/3")
            assert chunks.status == 200
            assert chunks.body.count(b"\n" if app == "wsgi:app" else b"chunk") == 3
            assert client.request(prefix + "/", "HEAD").status == 200
        if app == "asgi:app":
            for status in (204, 304, 404):
                assert client.request(f"/status/{status}").status == status
        assert client.request("/raises").status == 500
        assert client.request("/").status == 200
    server.dirty = True  # the 500
    assert not re.search(r"\[WARNING\]", server.log())


@BOTH
def test_a_response_that_is_cut_is_not_taken_for_a_whole_one(
    gunicorn: Servers, programs: Programs, authority: Authority, app: str
) -> None:
    """It ends with its connection, so nginx must see that this was no good end."""
    server = gunicorn(app, *UWSGI, dirty=True)
    front = Front(server, programs, authority)
    with front.connect() as client:
        client.send("GET /unbuffered/raises-after-body HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(AssertionError):
            client.response()
    server.wait_log("Error handling request GET /unbuffered/raises-after-body")


def test_websockets_of_an_asgi_application(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """nginx passes the handshake on by itself."""
    connect = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed").connect
    server = gunicorn("proxied:asgi", *UWSGI, "--access-logfile", "-")
    front = Front(server, programs, authority)
    with tunnel(front.tls_port, authority.context) as there:
        for scheme, port in (("ws", front.program.port), ("wss", there.port)):
            with connect(f"ws://127.0.0.1:{port}/ws", proxy=None) as ws:
                seen = json.loads(ws.recv(DEADLINE))
                client = ws.local_address if scheme == "ws" else there.address
                assert seen == {"scheme": scheme, "client": list(client), "path": "/ws"}
                ws.send(BODY[:100_000])
                assert ws.recv(DEADLINE) == BODY[:100_000]
    server.wait_log(rf'^{re.escape("127.0.0.1")} .*"GET /ws HTTP/1.1" 101 ', 2)


def test_websockets_of_a_wsgi_application(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """``gunicorn.socket`` is in the environ of the handshake, and of nothing else."""
    server = gunicorn("wsgisocket:app", *UWSGI, "--threads", "2")
    front = Front(server, programs, authority)
    assert front.request("/").text == "False"
    with front.connect() as client:
        client.send(f"GET /peer HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}\r\n")
        assert client.head()[0] == 101
        assert client.until(b"http 127.0.0.1").endswith(f"{CLIENT} http 127.0.0.1".encode())
    with front.connect() as client:
        client.send(f"GET /wait HTTP/1.1\r\nHost: x\r\n{UPGRADE}{KEY}\r\n")
        client.until(b"waiting")
    server.wait_log("the socket has ended")


def test_a_hybrid(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """Each path reaches its part, below the mount point that the packet names as well."""
    below = f"location /site/ {{{{ uwsgi_param SCRIPT_NAME /site; {PARAMS} uwsgi_pass {{upstream}}; }}}}"
    server = gunicorn("hybrids:app", *UWSGI, "--threads", "2")
    front = Front(server, programs, authority, below)
    assert front.request("/shop/a%20b").text.startswith(f"wsgi|/shop|/a b|/shop/a%20b|{CLIENT}|/shop")
    assert front.request("/mcp/a%20b").text.startswith(f"tools|/mcp|/mcp/a b|/mcp/a%20b|{CLIENT}|tools|/mcp")
    assert front.request("/site/shop/x").text.startswith("wsgi|/site/shop|/x|")
    assert front.request("/site/mcp/x").text.startswith("tools|/site/mcp|/site/mcp/x|")
    assert front.request("/site/other").text.startswith("wsgi|/site|/other|")


def test_health_and_metrics(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """They are paths like others, and answered before the application."""
    env = {"HYBRIDWORKER_HEALTH_PATH": "/health", "HYBRIDWORKER_METRICS_PATH": "/metrics"}
    server = gunicorn("asgi:app", *UWSGI, "--access-logfile", "-", env=env)
    front = Front(server, programs, authority)
    assert front.request("/health").text == "ok\n"
    assert front.request("/").status == 200

    def counted() -> bool:
        requests = parse(front.request("/metrics").text)["hybridworker_requests_total"]
        return requests.samples["hybridworker_requests_total", (("status", "2xx"),)] == 1

    server.wait_for(counted, "the request to be counted, and no other")
    assert "/health" not in server.log()


def test_the_chain_of_trusted_proxies(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """Where the client of nginx is a trusted proxy itself, what it says of its own client is believed."""
    server = gunicorn("asgi:app", *UWSGI, "--forwarded-allow-ips", f"127.0.0.1,{CLIENT}")
    front = Front(server, programs, authority)
    claims = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
    seen = json.loads(front.request("/scope", headers=claims).body)
    assert (seen["client"], seen["scheme"]) == (["192.0.2.1", 0], "https")


def test_uwsgi_under_tls(gunicorn: Servers, programs: Programs, authority: Authority) -> None:
    """``uwsgi_pass suwsgi://``; the scheme stays that of nginx's client."""
    server = gunicorn("asgi:app", *UWSGI, *authority.options)
    front = Front(server, programs, authority, scheme="suwsgi://")
    assert json.loads(front.request("/scope").body)["scheme"] == "http"
    assert front.request("/echo", "POST", BODY).body == BODY
    context = ssl.create_default_context(cafile=None)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as raw:
        with context.wrap_socket(raw) as encrypted, Client(encrypted, DEADLINE) as client:
            assert encrypted.selected_alpn_protocol() is None
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.response().status == 400


@BOTH
def test_a_drain_finishes_what_has_begun(gunicorn: Servers, programs: Programs, authority: Authority, app: str) -> None:
    """And what nginx opens no more is refused by nobody but the closed socket."""
    server = gunicorn(app, *UWSGI, "--threads", "2")
    front = Front(server, programs, authority)
    with front.connect() as client:
        client.send("GET /at-gate/one HTTP/1.1\r\nHost: x\r\n\r\n")
        server.wait_log("gate one reached")
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        server.open("one")
        assert client.response().text == "passed one"
        assert server.wait() == 0
    server.wait_log("Served 1 request: 1 finished while leaving, 0 cut")


@BOTH
def test_no_request_is_lost_when_workers_recycle(
    gunicorn: Servers, programs: Programs, authority: Authority, app: str
) -> None:
    """``max_requests`` under load."""
    server = gunicorn(app, *UWSGI, "--max-requests", "100", "--threads", "2", workers=2)
    front = Front(server, programs, authority)
    with Load(front.program.port) as load:
        server.wait_for(lambda: booted(server) >= 5, "three workers to be replaced")
    assert load.lost == []
    assert all(kind.endswith(" 200") for kind in load.answers)


# -- what no proxy sends


@pytest.fixture(scope="module")
def site(shared_gunicorn: Servers) -> Gunicorn:
    """A server that sees all kinds of peers."""
    return shared_gunicorn("asgi:app", *UWSGI)


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "HTTP, and protocol is uwsgi (uwsgi_pass, not proxy_pass"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP, and protocol is uwsgi"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400, "a TLS handshake on a port without certfile"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\r\n", 400, "a PROXY header, and proxy_protocol is off"),
        (framed(b"", 5), 501, "a uwsgi packet with modifier1 5, which is not served"),
        (framed(b""), 400, "no REQUEST_METHOD in a uwsgi packet (nginx: include uwsgi_params)"),
        (framed(b"\x05\0AB"), 400, "a variable does not end within its uwsgi packet"),
        (get("/", CONTENT_LENGTH="-1"), 400, "malformed CONTENT_LENGTH"),
        (get("/", HTTP_A="b\r\nc: d"), 400, "a field value with a control character"),
        (get("/" + "a" * 5000), 414, "limit_request_line"),
        (get("/", **{f"HTTP_A{number}": "1" for number in range(100)}), 431, "limit_request_fields"),
        (get("/", HTTP_A="x" * 9000), 431, "limit_request_field_size"),
    ],
)
def test_bad_packets_are_one_line(site: Gunicorn, data: bytes, status: int, reason: str) -> None:
    """Each gets its status, and harms nobody."""
    before = site.log().count("[WARNING]")
    assert ask(site, data).status == status
    site.wait_log(re.escape("Invalid request from ip=127.0.0.1: ") + ".*" + re.escape(reason))
    assert site.log().count("[WARNING]") == before + 1
    assert ask(site, get("/")).text == "Hello from ASGI"


def test_packets_one_behind_the_other(site: Gunicorn) -> None:
    """Answered in their order, and junk behind them in its turn."""
    with site.connect() as client:
        client.send(get("/") + post(b"body", "/echo") + get("/chunks/2"))
        assert client.response().text == "Hello from ASGI"
        assert client.response().text == "body"
        last = client.response()
        assert (last.framing, last.header("connection")) == ("close", "close")
        assert client.at_end()
    with site.connect() as client:
        client.send(get("/") + b"junk and more of it")
        assert client.response().status == 200
        assert client.response().status == 501
        assert client.at_end()


def test_a_websocket_without_a_proxy(site: Gunicorn) -> None:
    """A handshake that is not complete is refused."""
    pytest.importorskip("websockets", reason="the extra [websockets] is not installed")
    broken = get("/", HTTP_CONNECTION="Upgrade", HTTP_UPGRADE="websocket")
    assert ask(site, broken).status == 426


def test_who_is_not_in_uwsgi_allow_ips_gets_a_403(gunicorn: Servers) -> None:
    """Whatever it sends. Others are served meanwhile."""
    server = gunicorn("wsgi:app", *UWSGI, "--uwsgi-allow-from", "127.0.0.1,127.0.0.4/30")
    with server.connect() as client:
        client.send(get("/"))
        assert client.response().status == 200
        for data in (get("/"), b"GET / HTTP/1.1\r\n\r\n", b"\0"):
            assert ask(server, data, CLIENT).status == 403
        assert ask(server, get("/"), "127.0.0.5").status == 200
        client.send(get("/"))
        assert client.response().status == 200
    line = r"\[WARNING\] Invalid request from ip=127\.0\.0\.2: uwsgi_allow_ips does not name this peer$"
    server.wait_log(line, 3)


def test_peers_that_stall_hold_up_nobody(gunicorn: Servers) -> None:
    """Amid a packet and amid a body; the worker leaves in time all the same."""
    env = {"HYBRIDWORKER_HEADER_TIMEOUT": "1"}
    server = gunicorn("wsgi:app", *UWSGI, "--threads", "1", env=env)
    with server.connect() as head, server.connect() as body, server.connect() as silent:
        head.send(get("/")[:-1])
        body.send(post(b"x" * 1000, "/echo")[:-1])
        assert ask(server, get("/")).status == 200
        assert head.response().status == 408
        assert head.at_end()
        assert silent.at_end()
        body.send(b"x")
        assert body.response().body == b"x" * 1000


def test_a_packet_to_a_server_that_speaks_http(gunicorn: Servers) -> None:
    """The line says what is set wrongly."""
    server = gunicorn("asgi:app")
    assert ask(server, get("/")).status == 400
    server.wait_log("Invalid request from ip=127.0.0.1: a packet of uwsgi, it seems, and protocol is http$")
