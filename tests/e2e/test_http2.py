"""HTTP/2 end to end: requests and responses of real servers, by a raw client and by those that people use."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

pytest.importorskip("h2", reason="the extra is not installed")

from tests.e2e.harness import DEADLINE, HOOKS, Gunicorn, Servers
from tests.e2e.http2client import HTTP2Client

pytestmark = pytest.mark.e2e

H2 = ("--http-protocols", "h2,h1")
CLEARTEXT = (*H2, "--http2-cleartext", "prior-knowledge")

#: More than a window, and no multiple of a frame.
BODY = bytes(range(251)) * 1200


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for servers, and a client that trusts it."""
    folder, authority = tmp_path_factory.mktemp("tls"), trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    return folder / "server.pem", context


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is sent as a file."""
    path = tmp_path_factory.mktemp("files") / "file"
    path.write_bytes(BODY)
    return path


@pytest.fixture(scope="module", params=["asgi:app", "wsgi:app"])
def server(request: pytest.FixtureRequest, shared_gunicorn: Servers) -> Gunicorn:
    """One without TLS for either interface."""
    return shared_gunicorn(request.param, *CLEARTEXT, "--threads", "4", "--access-logfile", "-", "-c", str(HOOKS))


@pytest.fixture(scope="module")
def special(shared_gunicorn: Servers, file: Path) -> Gunicorn:
    """The ASGI application for what is special to HTTP/2."""
    return shared_gunicorn("multiplexed:app", *CLEARTEXT, env={"FILE": str(file)}, dirty=True)


@pytest.fixture
def client(server: Gunicorn) -> Iterator[HTTP2Client]:
    with HTTP2Client.to(server) as client:
        yield client


# -- requests and responses


def test_many_requests_on_one_connection(client: HTTP2Client) -> None:
    """Begun together, answered each; with the fields of the server itself."""
    streams = [client.start() for _ in range(50)]
    for stream in streams:
        answer = client.finish(stream)
        assert answer.status == 200
        assert answer.text.startswith("Hello from ")
        assert answer["server"] == "gunicorn"
        assert answer["date"].endswith("GMT")


def test_a_body_larger_than_the_windows_comes_back(client: HTTP2Client) -> None:
    """In both directions, with a Content-Length and without; credit is given as the application reads."""
    assert client.request("/echo", "POST", BODY, [("content-length", str(len(BODY)))]).body == BODY
    whole = "/read-all" if "WSGI" in client.request().text else "/echo"
    assert client.request(whole, "POST", BODY).body == BODY


def test_head_has_no_content(client: HTTP2Client) -> None:
    """RFC 9113 8.1: HEADERS with END_STREAM."""
    answer = client.request("/", "HEAD")
    assert (answer.status, answer.body, answer.ended) == (200, b"", True)
    assert answer["content-length"] == "15"


def test_an_error_of_the_application_is_its_streams(server: Gunicorn, client: HTTP2Client) -> None:
    """A 500 before the head; behind it RST_STREAM INTERNAL_ERROR; the others go on."""
    server.dirty = True
    assert client.request("/raises").status == 500
    answer = client.request("/raises-after-body")
    assert (answer.status, answer.reset) == (200, 2)
    assert client.request().status == 200


def test_limits_are_answers(server: Gunicorn, client: HTTP2Client) -> None:
    """414 and 431, in the access log, and the connection goes on."""
    assert client.request("/" + "x" * 5000).status == 414
    assert client.request("/", fields=[("x-long", "y" * 9000)]).status == 431
    assert client.request("/", fields=[(f"x-{number}", "") for number in range(200)]).status == 431
    assert client.request("/", fields=[("expect", "miracles")]).status == 417
    assert client.request().status == 200
    server.wait_log(r'"GET /x+ HTTP/2(\.0)?" 414')


def test_a_malformed_request_is_reset_alone(server: Gunicorn, client: HTTP2Client) -> None:
    """RFC 9113 8.1.1: PROTOCOL_ERROR on its stream, one line in the log, and the others are served."""
    streams = [client.start(), client.start("/ x"), client.start(fields=[("Upper", "x")]), client.start()]
    answers = [client.finish(stream) for stream in streams]
    assert [answer.reset for answer in answers] == [None, 1, 1, None]
    assert [answer.status for answer in answers] == [200, 0, 0, 200]
    server.wait_log(r"Invalid request from ip=127\.0\.0\.1: .*8\.3\.1")


def test_hooks_and_access_log(server: Gunicorn, client: HTTP2Client) -> None:
    """They are called as for HTTP/1.1, and show the version."""
    assert client.request("/?hooked").status == 200
    server.wait_log(r'"GET /\?hooked HTTP/2(\.0)?" 200 15')


def test_scope_and_environ(server: Gunicorn, client: HTTP2Client) -> None:
    """The version, the decoded path, Host first, cookies joined (RFC 9113 8.2.3)."""
    fields = [("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")]
    if "WSGI" in client.request().text:
        environ = json.loads(client.request("/environ/%C3%A9?q=1", fields=fields).body)
        assert environ["SERVER_PROTOCOL"] == "HTTP/2.0"
        assert environ["PATH_INFO"] == "/environ/\xc3\xa9"
        assert (environ["HTTP_HOST"], environ["HTTP_COOKIE"]) == ("localhost", "a=1; c=2")
        assert environ["QUERY_STRING"] == "q=1"
        return
    scope = json.loads(client.request("/scope/%C3%A9?q=1", fields=fields).body)
    assert (scope["http_version"], scope["path"], scope["query_string"]) == ("2", "/scope/\xe9", "q=1")
    assert scope["headers"][0] == ["host", "localhost"]
    assert ["cookie", "a=1; c=2"] in scope["headers"]
    assert set(scope["extensions"]) == {
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.trailers",
        "http.response.zerocopysend",
    }


def test_a_trusted_peer_names_client_and_scheme(server: Gunicorn, client: HTTP2Client) -> None:
    """Forwarding fields are believed as over HTTP/1.1."""
    fields = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")]
    if "WSGI" in client.request().text:
        environ = json.loads(client.request("/environ", fields=fields).body)
        assert environ["wsgi.url_scheme"] == "https"
    else:
        scope = json.loads(client.request("/scope", fields=fields).body)
        assert (scope["scheme"], scope["client"]) == ("https", ["203.0.113.9", 0])


def test_a_client_that_expects_a_100_gets_it(client: HTTP2Client) -> None:
    """When the body is first asked for."""
    stream = client.start("/echo", "POST", [("expect", "100-continue"), ("content-length", "4")], end=False)
    client.wait(lambda: client.answers[stream].hints)
    assert client.answers[stream].hints[0][0] == (":status", "100")
    client.send(stream, b"body", end=True)
    assert client.finish(stream).body == b"body"


def test_a_body_that_nobody_reads_is_dropped(client: HTTP2Client) -> None:
    """The response comes at once, then RST_STREAM NO_ERROR (RFC 9113 8.1), and the connection goes on."""
    stream = client.start("/", "POST", end=False)
    client.send(stream, bytes(200_000), end=True)
    answer = client.finish(stream)
    assert answer.status == 200
    assert answer.reset in (None, 0)
    assert client.request().status == 200


# -- what is special


def test_trailers(special: Gunicorn) -> None:
    """Always announced, END_STREAM on them; none is an end as well."""
    with HTTP2Client.to(special) as client:
        answer = client.request("/trailers")
        assert (answer.body, answer.trailers) == (b"onetwo", [("grpc-status", "0"), ("grpc-message", "fine")])
        answer = client.request("/trailers/empty")
        assert (answer.body, answer.trailers, answer.ended) == (b"onetwo", [], True)
        assert client.request("/trailers", "HEAD").ended


def test_early_hints(special: Gunicorn) -> None:
    """By the standard's message, and by gunicorn's."""
    with HTTP2Client.to(special) as client:
        answer = client.request("/hints")
    assert answer.hints == [
        [(":status", "103"), ("link", "</a.css>; rel=preload")],
        [(":status", "103"), ("x-informal", "1")],
    ]
    assert answer.body == b"hinted"


@pytest.mark.parametrize("path", ["/path", "/path/length"])
def test_files_go_in_portions(special: Gunicorn, path: str) -> None:
    """Larger than the windows, read as the client takes them."""
    with HTTP2Client.to(special) as client:
        assert client.request(path).body == BODY
        answer = client.request("/descriptor")
        assert answer.body == b"<" + BODY + b">"
        assert answer.trailers == [("x-end", "1")]
        head = client.request(path, "HEAD")
        assert (head.status, head.body, head.ended) == (200, b"", True)


def test_connection_close_of_the_application_is_a_goaway(special: Gunicorn) -> None:
    """Behind its stream the connection is left in good order; fields of a connection are not sent."""
    with HTTP2Client.to(special) as client:
        answer = client.request("/closes")
        assert {name for name, _ in answer.headers} == {"server", "date"}
        client.wait_closed()
    assert client.goaways == [(2**31 - 1, 0), (1, 0)]
    assert len(client.pings) == 1


def test_a_reset_is_the_disconnect_of_that_request(special: Gunicorn) -> None:
    """The application is told; the others go on."""
    with HTTP2Client.to(special) as client:
        stream = client.start("/leaves")
        special.wait_log("begun")
        client.h2.reset_stream(stream, 8)
        client.flush()
        special.wait_log("disconnected")
        assert client.request("/trailers").status == 200


def test_a_response_is_out_before_its_application_blocks(special: Gunicorn) -> None:
    """Also where the responses of a read are joined: nothing that send() was given is held back meanwhile."""
    with HTTP2Client.to(special) as client:
        streams = [client.start("/blocks-behind") for _ in range(3)]
        client.finish(streams[0])
        assert "blocked" not in special.log()
        for stream in streams:
            assert client.finish(stream).body == b"early"
        special.wait_log("blocked", 3)


def test_windows_hold_a_response_back(special: Gunicorn) -> None:
    """A stream whose client gives no credit waits, and the others do not (RFC 9113 5.2)."""
    with HTTP2Client.to(special, credit=False) as client:
        client.h2.increment_flow_control_window(10_000_000)  # of the connection
        stream = client.start("/big/300")
        client.wait(lambda: len(client.answers[stream].body) == 65535)
        assert client.request("/trailers").body == b"onetwo"
        client.h2.increment_flow_control_window(10_000_000, stream)
        client.flush()
        assert len(client.finish(stream).body) == 300 * 1024


def test_a_response_that_is_too_short_is_reset(special: Gunicorn) -> None:
    """RST_STREAM INTERNAL_ERROR, and the others go on."""
    with HTTP2Client.to(special) as client:
        assert client.request("/broken").reset == 2
        assert client.request("/trailers").status == 200


def test_wsgi_has_trailers_hints_and_files(gunicorn: Servers, file: Path) -> None:
    """``gunicorn.http2.send_trailers`` before and amid the body, ``wsgi.early_hints``, ``wsgi.file_wrapper``."""
    server = gunicorn("multiplexed:wsgi", *CLEARTEXT, env={"FILE": str(file)})
    with HTTP2Client.to(server) as client:
        answer = client.request("/trailers")
        assert (answer.body, answer.trailers) == (b"body", [("grpc-status", "0")])
        answer = client.request("/late-trailers")
        assert (answer.body, answer.trailers) == (b"onetwo", [("x-checksum", "abc")])
        assert client.request("/hints").hints == [[(":status", "103"), ("link", "</a.css>; rel=preload")]]
        assert client.request("/file").body == BODY
        assert client.request("/").text.startswith("HTTP/2.0 ")


# -- which version is spoken


@pytest.mark.parametrize(("protocols", "chosen"), [("h2,h1", "HTTP/2"), ("h1,h2", "HTTP/1.1"), ("h2", "HTTP/2")])
def test_alpn_chooses(gunicorn: Servers, certificate: tuple[Path, ssl.SSLContext], protocols: str, chosen: str) -> None:
    """In the server's order; a client without ALPN speaks HTTP/1.1 in any case."""
    path, context = certificate
    server = gunicorn("asgi:app", "--certfile", str(path), "--keyfile", str(path), "--http-protocols", protocols)
    context = ssl.create_default_context(cafile=str(path.parent / "ca.pem"))
    with httpx.Client(http2=True, verify=context, base_url=f"https://localhost:{server.port}") as client:
        answers = [client.post("/echo", content=BODY) for _ in range(3)]
    assert all(answer.http_version == chosen and answer.content == BODY for answer in answers)
    plain = ssl.create_default_context(cafile=str(path.parent / "ca.pem"))
    with plain.wrap_socket(socket.create_connection(("127.0.0.1", server.port)), server_hostname="localhost") as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_prior_knowledge_is_for_trusted_peers(gunicorn: Servers) -> None:
    """Others speak HTTP/1.1 only, and get its 400 for a preface."""
    server = gunicorn("asgi:app", *CLEARTEXT, "--forwarded-allow-ips", "192.0.2.1", dirty=True)
    assert server.request().status == 200
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20))
        assert sock.recv(65536).startswith(b"HTTP/1.1 400")


def test_http1_on_a_port_of_prior_knowledge(gunicorn: Servers) -> None:
    """A 400, as gunicorn has it, but for the paths that probes ask for; ``both`` lets it through, with a warning."""
    paths = {"HYBRIDWORKER_HEALTH_PATH": "/health", "HYBRIDWORKER_METRICS_PATH": "/metrics"}
    server = gunicorn("asgi:app", *CLEARTEXT, env=paths)
    assert server.request().status == 400
    assert server.request("/health").text == "ok\n"
    with HTTP2Client.to(server) as client:
        assert client.request("/health").text == "ok\n"
        server.wait_for(lambda: "http2_connections 1" in client.request("/metrics").text, "the gauge to be published")
        metrics = client.request("/metrics").text
    assert "hybridworker_http2_streams" in metrics
    assert 'hybridworker_http2_resets_total{reason="refused_stream"} 0' in metrics
    server = gunicorn("asgi:app", *H2, "--http2-cleartext", "both")
    server.wait_log(r"\[WARNING\] http2_cleartext='both': Upgrade: h2c is not served")
    assert server.request().status == 200
    upgrade = server.request(headers="Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n")
    assert (upgrade.status, upgrade.text) == (200, "Hello from ASGI")
    with HTTP2Client.to(server) as client:
        assert client.request().status == 200


def test_a_preface_in_pieces_behind_a_proxy_header(gunicorn: Servers) -> None:
    """The PROXY header comes first, as over HTTP/1.1, and however the bytes are cut."""
    server = gunicorn("asgi:app", *CLEARTEXT, "--proxy-protocol", "v1")

    class Slow(socket.socket):
        def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
            for at in range(len(data)):
                self.send(data[at : at + 1])

    sock = Slow(socket.AF_INET)
    sock.settimeout(DEADLINE)
    sock.connect(("127.0.0.1", server.port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(b"PROXY TCP4 203.0.113.5 192.0.2.1 4444 80\r\n")
    with HTTP2Client(sock) as client:
        assert json.loads(client.request("/scope").body)["client"] == ["203.0.113.5", 4444]


def test_a_unix_socket_speaks_http2(gunicorn: Servers, tmp_path: Path) -> None:
    """Its peers are trusted."""
    server = gunicorn("asgi:app", *CLEARTEXT, "--bind", "unix:h2.sock", ready=False)
    server.wait_log("Booting worker")
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    server.wait_for(lambda: sock.connect_ex(str(server.directory / "h2.sock")) == 0, "the socket")
    with HTTP2Client(sock) as client:
        assert client.request().status == 200


# -- clients that people use


def found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, timeout=DEADLINE, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl(server: Gunicorn, file: Path) -> None:
    """By prior knowledge, an upload and a download."""
    url = f"http://127.0.0.1:{server.port}"
    curl = [found("curl"), "--silent", "--show-error", "--http2-prior-knowledge"]
    assert run(*curl, url).startswith("Hello from ")
    answer = run(
        *curl,
        "--data-binary",
        f"@{file}",
        "--write-out",
        "%{http_version} %{http_code}",
        "--output",
        "/dev/null",
        f"{url}/echo",
    )
    assert answer == "2 200"


def test_nghttp_and_h2load(server: Gunicorn, file: Path) -> None:
    """nghttp with priorities and padding, h2load with 32 streams on each of 4 connections."""
    url = f"http://127.0.0.1:{server.port}/"
    shown = run(found("nghttp"), "--verbose", "--padding", "64", "--data", str(file), f"{url}echo")
    assert ":status: 200" in shown
    shown = run(found("h2load"), "-n", "2000", "-c", "4", "-m", "32", url)
    assert "2000 succeeded, 0 failed" in shown


def test_httpx_over_http2_without_tls(server: Gunicorn) -> None:
    """By prior knowledge."""
    with httpx.Client(http1=False, http2=True, base_url=f"http://127.0.0.1:{server.port}") as client:
        assert client.post("/echo", content=BODY).content == BODY
