"""
``examples/deploy/nginx.conf`` as users change it, with the applications of ``examples`` behind it.

One server, a unix socket, TLS, a form of Django, streams that a worker which leaves must end. Only ports and
paths are replaced, and what is a comment there for those who need it is switched on.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import zlib

import pytest

from tests.e2e.client import Client, Response
from tests.e2e.harness import DEADLINE, Gunicorn, Servers
from tests.e2e.parting import Authority
from tests.e2e.programs import Program, Programs, found, free_port
from tests.e2e.test_deploy import CONFIG, EXAMPLES, SHOWING, configured, elsewhere

pytestmark = pytest.mark.e2e

PROJECT = ("--chdir", str(EXAMPLES / "django_project"), "--threads", "2")


def site(server: Gunicorn, port: int, **changes: str) -> str:
    """nginx.conf for the address of ``server``, with further changes."""
    if server.url.startswith("unix:"):
        changes["tcp"] = "    server 127.0.0.1:8000 max_fails=1 fail_timeout=2s;\n -> "
        changes["unix"] = f"# server unix:/run/app/app.sock; -> server {server.url};"
    else:
        changes["tcp"] = f"server 127.0.0.1:8000 -> server 127.0.0.1:{server.port}"
    return configured("nginx.conf", port=f"listen 80; -> listen 127.0.0.1:{port};", **changes)


def in_front(programs: Programs, server: Gunicorn, **changes: str) -> Program:
    """nginx in front of ``server``."""
    found("nginx")
    port = free_port()
    return programs.nginx(site(server, port, **changes), port)


def example(gunicorn: Servers, name: str, *args: str, unix: bool = False) -> Gunicorn:
    """An application of ``examples`` with the configuration of the deployments."""
    bind = ("--umask", "007", "--bind", f"unix:{gunicorn.folder() / 's'}") if unix else ()
    return gunicorn(name, "-c", str(CONFIG), *(args or ("--chdir", str(EXAMPLES))), *bind)


def test_one_server_is_what_the_file_has() -> None:
    """The others are comments."""
    assert re.findall(r"^    server (\S+) ", configured("nginx.conf"), re.MULTILINE) == ["127.0.0.1:8000"]


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_a_unix_socket_keeps_the_clients_address(programs: Programs, gunicorn: Servers, app: str) -> None:
    """By the variable of the shared file; nobody but the user and the group of gunicorn may write to the socket."""
    path = gunicorn.folder() / "s"
    server = gunicorn(app, *SHOWING, "--umask", "007", "--bind", f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o770
    nginx = in_front(programs, server)
    with elsewhere(nginx.port) as client:
        headers = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
        shown = json.loads(client.request("/scope" if app == "asgi:app" else "/environ", headers=headers).body)
    if app == "asgi:app":
        assert (shown["client"][0], shown["scheme"]) == ("127.0.0.2", "http")
    else:
        assert (shown["REMOTE_ADDR"], shown["wsgi.url_scheme"]) == ("127.0.0.2", "http")


# -- Django's forms


def submitted(nginx: Program, host: str) -> Response:
    """The answer to the form, as a browser sends it that was given ``host`` as its address."""
    with nginx.connect() as client:
        client.send(f"GET /form HTTP/1.1\r\nHost: {host}\r\n\r\n")
        page = client.response()
        if page.status != 200:
            return page
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        cookie = re.match(r"csrftoken=\w+", page.header("Set-Cookie") or "")
        assert token is not None
        assert cookie is not None
        body = f"csrfmiddlewaretoken={token[1]}&name=Ada"
        client.send(
            f"POST /form HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {cookie[0]}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        return client.response("POST")


@pytest.mark.parametrize("app", ["project.wsgi", "project.asgi"])
def test_django_takes_a_form(programs: Programs, gunicorn: Servers, app: str) -> None:
    """Host comes with its port."""
    nginx = in_front(programs, example(gunicorn, app, *PROJECT))
    response = submitted(nginx, f"localhost:{nginx.port}")
    assert (response.status, response.text) == (200, "Thank you, Ada.\n")


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ("        proxy_set_header Host $host_and_port;\n -> ", 400, "Bad Request"),
        ("Host $host_and_port; -> Host $host;", 403, "CSRF verification failed"),
        ('Host $host_and_port; -> Host "127.0.0.1";', 403, "CSRF verification failed"),
    ],
    ids=["none", "no-port", "another"],
)
def test_django_refuses_a_form_where_host_is_wrong(
    programs: Programs, gunicorn: Servers, change: str, status: int, text: str
) -> None:
    """What the comment at Host says that one sees."""
    nginx = in_front(programs, example(gunicorn, "project.wsgi", *PROJECT), host=change)
    response = submitted(nginx, f"localhost:{nginx.port}")
    assert (response.status, text in response.text) == (status, True)


# -- streams


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_events_come_through_when_they_are_made(programs: Programs, gunicorn: Servers, coding: str) -> None:
    """Compressed too; and they end with the last chunk when the worker leaves, long before its time is up."""
    server = example(gunicorn, "sse_app:app")
    nginx = in_front(programs, server, gzip="server_name _; -> server_name _; gzip on; gzip_types text/event-stream;")
    with nginx.connect() as client:
        client.start("/events", headers=f"Accept-Encoding: {coding}\r\n")
        status, _, headers = client.head()
        assert (status, dict(headers).get("Content-Encoding", "")) == (200, coding)
        inflate = zlib.decompressobj(31).decompress if coding else bytes
        events = b""
        while events.count(b"data: 20") < 2:
            events += inflate(client.chunk())
        assert events.startswith(b"retry: 1000\n\n")
        server.signal(signal.SIGTERM)
        while client.chunk():
            pass
    assert server.wait() == 0
    assert "a stream has ended, because the worker leaves" in server.log()


def test_a_hybrid_behind_one_address(programs: Programs, gunicorn: Servers) -> None:
    """Pages, events and a WebSocket, by a unix socket."""
    websockets = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    pytest.importorskip("channels", reason="channels is not installed")
    folder = gunicorn.folder()
    server = gunicorn(
        "hybrid_django:app", "-c", str(CONFIG), "--chdir", str(EXAMPLES), "--bind", f"unix:{folder}/s",
        env={"DATABASE": str(folder / "visits.sqlite3")},
    )  # fmt: skip
    nginx = in_front(programs, server)
    with nginx.connect() as client:
        assert "<output>1</output>" in client.request().text
    with nginx.connect() as client:
        client.start("/events")
        assert client.head()[0] == 200
        assert client.chunk() == b"data: 1\n\n"
        with websockets.connect(f"ws://127.0.0.1:{nginx.port}/echo", proxy=None) as chat:
            chat.send("hello")
            assert chat.recv() == "hello"
        server.signal(signal.SIGTERM)
        assert client.chunk() == b""
    assert server.wait() == 0


# -- TLS


def unchecked() -> ssl.SSLContext:
    """The context of a client that takes any certificate: who nginx is does not matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_https_and_http2_for_clients(programs: Programs, gunicorn: Servers, authority: Authority) -> None:
    """The three lines that are comments: the scheme arrives, and HTTP/2 is offered."""
    port = free_port()
    server = gunicorn("asgi:app", *SHOWING)
    in_front(
        programs,
        server,
        listen=f"# listen 443 ssl http2; -> listen 127.0.0.1:{port} ssl http2;",
        certificate=f"# ssl_certificate     /etc/nginx/site.pem; -> ssl_certificate {authority.certificate};",
        key=f"# ssl_certificate_key /etc/nginx/site.key; -> ssl_certificate_key {authority.certificate};",
    )
    context = unchecked()
    for protocol in ("h2", "http/1.1"):
        context.set_alpn_protocols([protocol])
        raw = socket.create_connection(("127.0.0.1", port), DEADLINE)
        with Client(context.wrap_socket(raw, server_hostname="localhost"), DEADLINE) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.selected_alpn_protocol() == protocol
            if protocol == "http/1.1":
                assert json.loads(client.request("/scope").body)["scheme"] == "https"


def test_grpc_by_http2_all_the_way(programs: Programs, gunicorn: Servers, authority: Authority) -> None:
    """``http2-nginx.conf`` with its lines for TLS: a body comes and trailers go; probes of HTTP/1.1 work beside it."""
    client = pytest.importorskip("tests.e2e.http2client", reason="the extra [http2] is not installed")
    found("nginx")
    text = configured("http2-nginx.conf")
    (command,) = re.findall(r"^#     gunicorn (-c .*) module:app$", text, re.MULTILINE)
    options = command.replace("gunicorn.conf.py", str(CONFIG)).replace("127.0.0.1:8000", "127.0.0.1:0").split()
    server = gunicorn("multiplexed:wsgi", *options)
    plain, port = free_port(), free_port()
    changed = configured(
        "http2-nginx.conf",
        server=f"server 127.0.0.1:8000; -> server 127.0.0.1:{server.port};",
        plain=f"listen 80; -> listen 127.0.0.1:{plain};",
        listen=f"# listen 443 ssl http2; -> listen 127.0.0.1:{port} ssl http2;",
        certificate=f"# ssl_certificate     /etc/nginx/site.pem; -> ssl_certificate {authority.certificate};",
        key=f"# ssl_certificate_key /etc/nginx/site.key; -> ssl_certificate_key {authority.certificate};",
    )
    nginx = programs.nginx(changed, port)
    with client.HTTP2Client.to(nginx, unchecked()) as grpc:
        answer = grpc.request(
            "/trailers", "POST", b"message", [("content-type", "application/grpc"), ("te", "trailers")]
        )
    assert (answer.status, ("grpc-status", "0") in answer.trailers) == (200, True)
    assert server.request("/health").text == "ok\n"
    with Client(socket.create_connection(("127.0.0.1", plain), DEADLINE), DEADLINE) as web:
        assert web.request("/trailers").status == 200
        assert web.request("/health").text == "ok\n"
    for path in ("/health", "/%68ealth", "/metrics"):
        with elsewhere(plain) as other:
            assert other.request(path).status == 403
