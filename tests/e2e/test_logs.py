"""
The access log, the counters and what reopens them, next to gunicorn's own threaded worker.

What equals gthread is shown by asking both the same and comparing their lines, atom by
atom; what is meant to differ is in :data:`DIFFERENCES`, each with its reason.
"""

from __future__ import annotations

import base64
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.client import Client, Response
from tests.e2e.harness import DEADLINE, Gunicorn, Servers
from tests.oracle import of_gunicorn_27

pytestmark = pytest.mark.e2e

ATOMS = [
    *"hlursbBmUqHfa",
    *("{x-in}i", "{X-IN}i", "{cookie}i", "{x-none}i"),
    *("{x-out}o", "{X-Twice}o", "{content-length}o", "{x-none}o", "{server}o", "{date}o", "{connection}o"),
    *("{http_x_in}e", "{HTTP_COOKIE}e", "{raw_uri}e", "{path_info}e", "{script_name}e", "{query_string}e"),
    *("{server_name}e", "{server_port}e", "{server_software}e", "{content_length}e", "{content_type}e"),
    *("{http_authorization}e", "{http_x_under}e", "{http_x_empty}e", "{path}e", "{remote_addr}e"),
    *("{wsgi.url_scheme}e", "{wsgi.version}e", "{wsgi.multithread}e", "{wsgi.multiprocess}e"),
    *("{wsgi.run_once}e", "{wsgi.input_terminated}e"),
]
#: One record for each request: an atom may hold a line break, so the record has an end of its own.
FORMAT = "|".join(f"%({atom})s" for atom in ATOMS) + "|end"

HOST = "Host: localhost\r\n"
USER = base64.b64encode(b'us"er:pass').decode()

#: Name -> head without its empty line, and body.
REQUESTS = {
    "get": (f"GET /ok HTTP/1.1\r\n{HOST}", ""),
    "query": (f"GET /ok?a=1&b=%22x%22&c='\"' HTTP/1.1\r\n{HOST}", ""),
    "fields": (
        f'GET /ok HTTP/1.1\r\n{HOST}X-In: "q" \xe9\r\nX-In: second\r\nX-Empty:\r\nX_Under: 1\r\nCookie: a=1; b="2"\r\n',
        "",
    ),
    "referer": (f'GET /ok HTTP/1.1\r\n{HOST}Referer: http://a/"b"\r\nUser-Agent: agent/"1" \xe9\r\n', ""),
    "post": (f"POST /ok HTTP/1.1\r\n{HOST}Content-Length: 5\r\nContent-Type: a/b\r\n", "hello"),
    "chunked": (f"POST /ok HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    "put": (f"PUT /ok HTTP/1.1\r\n{HOST}Content-Length: 0\r\n", ""),
    "head": (f"HEAD /ok HTTP/1.1\r\n{HOST}", ""),
    "head of a stream": (f"HEAD /stream HTTP/1.1\r\n{HOST}", ""),
    "reason": (f"GET /reason HTTP/1.1\r\n{HOST}", ""),
    "created": (f"DELETE /created HTTP/1.1\r\n{HOST}", ""),
    "missing": (f"GET /missing HTTP/1.1\r\n{HOST}", ""),
    "empty": (f"GET /empty HTTP/1.1\r\n{HOST}", ""),
    "unchanged": (f"GET /unchanged HTTP/1.1\r\n{HOST}", ""),
    "stream": (f"GET /stream HTTP/1.1\r\n{HOST}", ""),
    "http 1.0": ("GET /stream HTTP/1.0\r\n", ""),
    "raises": (f"GET /raises HTTP/1.1\r\n{HOST}", ""),
    "raises late": (f"GET /raises-late HTTP/1.1\r\n{HOST}", ""),
    "user": (f"GET /ok HTTP/1.1\r\n{HOST}Authorization: Basic {USER}\r\n", ""),
    "no user": (f"GET /ok HTTP/1.1\r\n{HOST}Authorization: Bearer {USER}\r\n", ""),
    "broken user": (f"GET /ok HTTP/1.1\r\n{HOST}Authorization: Basic !!!\r\n", ""),
    "encoded": (f"GET /ok/%C3%A9/%22?q=%C3%A9 HTTP/1.1\r\n{HOST}", ""),
    "not UTF-8": (f"GET /ok/%FF/%E9?q=%FF HTTP/1.1\r\n{HOST}", ""),
    "control": (f"GET /ok/a%0Ab%00c/%7F HTTP/1.1\r\n{HOST}", ""),
    "slashes": (f"GET //ok///slash/../x;p=1?? HTTP/1.1\r\n{HOST}", ""),
    "absolute": ("GET http://other/ok?x=1 HTTP/1.1\r\nHost: other\r\n", ""),
    "asterisk": (f"OPTIONS * HTTP/1.1\r\n{HOST}", ""),
    "forwarded": (f"GET /ok HTTP/1.1\r\n{HOST}X-Forwarded-Proto: https\r\nX-Forwarded-For: 9.9.9.9\r\n", ""),
    "cookies": (f"GET /ok HTTP/1.1\r\n{HOST}Cookie: a=1\r\nCookie: b=2\r\n", ""),
    "no path": ("GET http://other HTTP/1.1\r\nHost: other\r\n", ""),
}

#: What gthread makes its line of when the application fails before it has called start_response: an environ without
#: what only its own worker adds. Here the line has what the application was given.
BARE = "{path_info}e {script_name}e {server_name}e {server_port}e {wsgi.url_scheme}e {wsgi.multithread}e U".split()

#: Request -> the atoms that differ from gthread's.
DIFFERENCES = {
    "raises": BARE,
    # A list is the whole body, so that its length is known and announced, also in chunks and to HTTP/1.0.
    "stream": ["{content-length}o"],
    "http 1.0": ["{content-length}o"],
    "cookies": ["{HTTP_COOKIE}e"],  # joined with "; " (RFC 6265 5.4), not with ","
    "no path": ["U", "{path_info}e"],  # an absolute target without a path means "/" (RFC 9112 3.2.1)
}

#: What an ASGI application leaves no place for: there is no environ with the ``wsgi.*`` keys, and no reason phrase.
WSGI_ONLY = {atom for atom in ATOMS if atom.startswith("{wsgi.") and "scheme" not in atom}


class Lines:
    """Asks a server, and gives what it logged of each question."""

    def __init__(self, server: Gunicorn, end: str = "|end\n") -> None:
        self.server = server
        self.end = end
        self.path = server.directory / "access"
        self.seen = len(self.records())

    def records(self) -> list[str]:
        text = self.path.read_text(encoding="utf-8", errors="surrogateescape") if self.path.exists() else ""
        *records, rest = text.split(self.end)
        assert rest == ""
        return records

    def ask(self, head: str, body: str = "") -> bytes:
        """Everything that the server answers, up to the end of the connection."""
        with self.server.connect() as client:
            client.send(f"{head}Connection: close\r\n\r\n{body}")
            return client.rest()

    def of(self, head: str, body: str = "") -> list[str]:
        """The atoms of the one line of this request."""
        self.ask(head, body)
        return self.next()

    def next(self) -> list[str]:
        """The atoms of the next line; the server's port is written as PORT."""
        records = self.server.wait_for(lambda: self.records()[self.seen :], "a line in the access log")
        assert len(records) == 1
        self.seen += 1
        return records[0].replace(str(self.server.port), "PORT").split("|")


def logging_server(gunicorn: Servers, app: str, *args: str, worker: str = "hybridworker.Worker") -> Lines:
    options = ("--threads", "2", "--access-logfile", "access", "--access-logformat", FORMAT)
    return Lines(gunicorn(app, *options, *args, worker=worker, dirty=True))


@pytest.fixture(scope="module")
def servers(shared_gunicorn: Servers) -> dict[str, Lines]:
    return {
        "wsgi": logging_server(shared_gunicorn, "logged:wsgi"),
        "asgi": logging_server(shared_gunicorn, "logged:asgi"),
        "gthread": logging_server(shared_gunicorn, "logged:wsgi", worker="gthread"),
    }


def differing(one: list[str], other: list[str]) -> dict[str, tuple[str, str]]:
    assert len(one) == len(other) == len(ATOMS)
    return {atom: (a, b) for atom, a, b in zip(ATOMS, one, other, strict=True) if a != b}


# -- equal to gthread


@of_gunicorn_27
@pytest.mark.parametrize("name", REQUESTS)
def test_the_line_is_that_of_gthread(servers: dict[str, Lines], name: str) -> None:
    """The same atoms for the same request, but for the differences that are meant."""
    ours, gthread = (servers[worker].of(*REQUESTS[name]) for worker in ("wsgi", "gthread"))
    difference = differing(ours, gthread)
    assert sorted(difference) == sorted(DIFFERENCES.get(name, [])), difference


@pytest.mark.parametrize("name", REQUESTS)
def test_the_line_of_an_asgi_application_is_that_of_a_wsgi_application(servers: dict[str, Lines], name: str) -> None:
    """What is no WSGI key is the same; the client is the one whom the proxy names,
    and a body in parts has no length."""
    wsgi, asgi = (servers[app].of(*REQUESTS[name]) for app in ("wsgi", "asgi"))
    difference = differing(asgi, wsgi)
    meant = {
        "forwarded": {"h", "{remote_addr}e"},
        "stream": {"{content-length}o"},
        "http 1.0": {"{content-length}o"},
    }.get(name, set())
    assert set(difference) - WSGI_ONLY == meant, difference
    assert {asgi[ATOMS.index(atom)] for atom in WSGI_ONLY} == {"-"}


def test_the_default_format_and_the_pid(gunicorn: Servers) -> None:
    """gunicorn's own default, with the time of the request, and ``%(p)s`` the worker's pid; ``-`` is stdout."""
    server = gunicorn("logged:asgi", "--access-logfile", "-")
    server.request("/ok?a", headers="User-Agent: me\r\n")
    server.wait_log(
        r'^127\.0\.0\.1 - - \[\d+/\w+/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /ok\?a HTTP/1\.1" 200 2 "-" "me"$'
    )
    server = gunicorn("logged:asgi", "--access-logfile", "-", "--access-logformat", "pid %(p)s")
    server.request()
    assert server.wait_log(r"^pid <(\d+)>$")[1] == str(server.worker_pids()[0])


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_durations_are_of_the_request(gunicorn: Servers, app: str) -> None:
    """In seconds, ms, µs and as a decimal number: the four agree, and a request of 1.5 s has more than one."""
    server = gunicorn(
        f"{app}:app", "--access-logfile", "access", "--access-logformat", "%(U)s|%(T)s|%(M)s|%(D)s|%(L)s|end"
    )
    lines = Lines(server)
    server.request("/beats/3")
    path, seconds, milli, micro, decimal = lines.next()
    assert path == "/beats/3"
    assert int(micro) >= 1_000_000  # the timers of uvloop count whole ms, and end up to one too early
    assert int(milli) == int(micro) // 1000
    assert int(seconds) == int(micro) // 1_000_000
    assert decimal == f"{int(micro) // 1_000_000}.{int(micro) % 1_000_000:06}"


def test_a_kept_alive_and_pipelined_connection_has_a_line_for_each_request(gunicorn: Servers) -> None:
    """In the order of the requests."""
    lines = Lines(gunicorn("logged:wsgi", "--access-logfile", "access", "--access-logformat", "%(r)s"), "\n")
    with lines.server.connect() as client:
        client.send("".join(f"GET /ok?{number} HTTP/1.1\r\n{HOST}\r\n" for number in range(5)))
        for _ in range(5):
            assert client.response().status == 200
        assert client.request("/ok?5").status == 200
    expected = [f"GET /ok?{number} HTTP/1.1" for number in range(6)]
    lines.server.wait_for(lambda: len(lines.records()) >= 6, "six lines")
    assert lines.records() == expected


def test_a_client_that_leaves_has_one_line(gunicorn: Servers) -> None:
    """499 where there was no status yet; the application goes on in peace."""
    server = gunicorn("asgi:app", "--access-logfile", "access", "--access-logformat", "%(r)s %(s)s|end")
    lines = Lines(server)
    with server.connect() as client:
        client.start("/at-gate/leaves")
        server.wait_log("gate leaves reached")
        client.reset()
    assert lines.next() == ["GET /at-gate/leaves HTTP/1.1 499"]
    server.open("leaves")
    assert server.request("/").status == 200
    assert lines.next() == ["GET / HTTP/1.1 200"]


# -- refused requests

#: More fields than are allowed.
MANY = "A: b\r\n" * 200

REFUSED = {
    "host twice": (f"GET /ok HTTP/1.1\r\nUser-Agent: me\r\n{HOST}{HOST}", 400),
    "length": (f"GET /ok HTTP/1.1\r\nUser-Agent: me\r\n{HOST}Content-Length: x\r\n", 400),
    "coding": (f"GET /ok HTTP/1.1\r\nUser-Agent: me\r\n{HOST}Transfer-Encoding: gzip\r\n", 501),
    "expectation": (f"GET /ok HTTP/1.1\r\nUser-Agent: me\r\n{HOST}Expect: else\r\n", 417),
    "fields": (f"GET /ok HTTP/1.1\r\nUser-Agent: me\r\n{HOST}{MANY}", 431),
}

#: What is no request at all, as its first line says.
NO_REQUEST = {
    "version": (f"GET /ok HTTP/3.1\r\n{HOST}", 400),
    "garbage": ("garbage\r\n", 400),
    "forged": (f'GET /ok\n1.2.3.4 "forged" HTTP/1.1\r\n{HOST}', None),  # the parser may give up amid the line
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_a_refused_request_has_one_line(servers: dict[str, Lines], app: str, name: str) -> None:
    """Its status and what is known of it."""
    head, status = REFUSED[name]
    lines = servers[app]
    assert lines.ask(head).startswith(b"HTTP/1.1 %d " % status)
    atoms = dict(zip(ATOMS, lines.next(), strict=True))
    assert (atoms["h"], atoms["r"], atoms["s"], atoms["b"]) == ("127.0.0.1", "GET /ok HTTP/1.1", str(status), "0")
    assert atoms["a"] == "me"
    assert lines.of(*REQUESTS["get"])[ATOMS.index("s")] == "200"


@pytest.mark.parametrize("name", NO_REQUEST)
@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_what_is_no_request_has_no_line(servers: dict[str, Lines], app: str, name: str) -> None:
    """As with gthread: the error log has a warning, and the next line is that of the next request."""
    head, status = NO_REQUEST[name]
    lines = servers[app]
    warnings = lines.server.log().count("Invalid request from ip=127.0.0.1")
    answer = lines.ask(head)
    if status is not None:
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    lines.server.wait_log("Invalid request from ip=127.0.0.1", warnings + 1)
    assert lines.of(*REQUESTS["get"])[ATOMS.index("s")] == "200"


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_a_body_that_is_refused_has_one_line(servers: dict[str, Lines], app: str) -> None:
    """The request was given to the application, or not; there is one line either way."""
    lines = servers[app]
    atoms = lines.of(f"POST /ok HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n", "5\r\nhelloX0\r\n\r\n")
    assert atoms[ATOMS.index("s")] == "400"
    assert lines.of(*REQUESTS["get"])[ATOMS.index("s")] == "200"


# -- WebSocket

HANDSHAKE = (
    f"GET /%s HTTP/1.1\r\n{HOST}Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: %s\r\n\r\n"
)


def websocket(server: Gunicorn, path: str, version: int = 13) -> Client:
    client = server.connect()
    client.send(HANDSHAKE % (path, version))
    return client


@pytest.fixture(scope="module")
def sockets(shared_gunicorn: Servers) -> Lines:
    text = "%(r)s|%(s)s|%(b)s|%({x-out}o)s|%({upgrade}i)s|%({raw_uri}e)s|%(D)s|end"
    return Lines(shared_gunicorn("logged:asgi", "--access-logfile", "access", "--access-logformat", text, dirty=True))


def test_a_websocket_has_one_line_when_it_ends(sockets: Lines) -> None:
    """101, the bytes sent, and the time from the handshake to the end."""
    with websocket(sockets.server, "gate") as client:
        assert client.head()[0] == 101
        assert client.exactly(7) == b"\x81\x05hello"
        assert len(sockets.records()) == sockets.seen
        sockets.server.open("websocket")
        assert client.exactly(4) == b"\x88\x02\x03\xe8"
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        assert client.at_end()
    request, status, sent, out, upgrade, uri, took = sockets.next()
    assert (request, status, sent, out) == ("GET /gate HTTP/1.1", "101", "11", "accepted")
    assert (upgrade, uri) == ("websocket", "/gate")
    assert int(took) > 0


def test_the_duration_of_a_websocket_is_that_of_its_life(sockets: Lines) -> None:
    """A client that says goodbye after a second."""
    with websocket(sockets.server, "accepts") as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silence:
        assert client.head()[0] == 101
        silence.bind(("127.0.0.1", 0))
        silence.settimeout(1)
        with pytest.raises(TimeoutError):
            silence.recv(1)  # a second passes
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        client.rest()
    atoms = sockets.next()
    assert atoms[1] == "101"
    assert int(atoms[-1]) >= 1_000_000


@pytest.mark.parametrize(
    ("path", "version", "status", "out"),
    [
        ("refuses", 13, "403", "-"),
        ("denies", 13, "401", "denied"),
        ("raises", 13, "500", "-"),
        ("accepts", 12, "426", "-"),
    ],
)
def test_a_websocket_that_fails_has_one_line(sockets: Lines, path: str, version: int, status: str, out: str) -> None:
    """Refused by the application, denied with a response, failed, or of another version."""
    with websocket(sockets.server, path, version) as client:
        assert client.rest().startswith(b"HTTP/1.1 " + status.encode())
    atoms = sockets.next()
    assert (atoms[0], atoms[1], atoms[3]) == (f"GET /{path} HTTP/1.1", status, out)
    assert Lines.of(sockets, *REQUESTS["get"])[1] == "200"


def test_a_websocket_client_that_vanishes_has_one_line(sockets: Lines) -> None:
    """A reset is an end as well."""
    client = websocket(sockets.server, "accepts")
    assert client.head()[0] == 101
    client.reset()
    assert sockets.next()[1] == "101"


# -- who else is told


def test_without_an_access_log_there_is_no_line(gunicorn: Servers) -> None:
    """Neither in the error log nor anywhere else."""
    server = gunicorn("logged:asgi", "--log-level", "debug")
    assert server.request("/unlogged").status == 200
    assert server.stop() == 0
    assert '"GET /unlogged' not in server.log()
    assert not (server.directory / "access").exists()


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
@pytest.mark.parametrize("access", [(), ("--access-logfile", "access")], ids=["silent", "logged"])
def test_a_logger_class_gets_the_real_call(gunicorn: Servers, app: str, access: tuple[str, ...]) -> None:
    """With the objects of gunicorn's interface; its ``access()`` is called without an access log, too."""
    server = gunicorn(f"logged:{app}", "--logger-class", "counting_logger.CountingLogger", *access, dirty=True)
    server.request("/reason?x", "POST", b"body")
    server.wait_log(r"^access 200 (Very Well|OK) 6 POST /reason\?x 0$")
    server.request("/raises")
    server.wait_log(r"^access 500 Internal Server Error 0 GET /raises 0$")
    assert server.log().count("\naccess ") == 2
    if access:
        server.wait_for(lambda: len((server.directory / "access").read_text().splitlines()) == 2, "two lines")


@contextmanager
def statsd() -> Iterator[socket.socket]:
    """What a StatsD server listens at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(DEADLINE)
        yield listener


def metrics(listener: socket.socket, count: int) -> list[str]:
    """The next ``count`` metrics of requests; the gauges of the master are left out."""
    found: list[str] = []
    while len(found) < count:
        metric = listener.recv(4096).decode()
        if ".request" in metric:
            found.append(metric)
    return found


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
@pytest.mark.parametrize("access", [(), ("--access-logfile", "access")], ids=["silent", "logged"])
def test_statsd_counts_with_and_without_an_access_log(gunicorn: Servers, app: str, access: tuple[str, ...]) -> None:
    """Duration, count and status of each request, with prefix and tags."""
    with statsd() as listener:
        server = gunicorn(
            f"logged:{app}",
            f"--statsd-host=127.0.0.1:{listener.getsockname()[1]}",
            "--statsd-prefix=mine",
            "--dogstatsd-tags=a:1,b:2",
            *access,
            dirty=True,
        )
        for path, status in (("/ok", 200), ("/missing", 404), ("/raises", 500)):
            assert server.request(path).status == status
            duration, requests, statuses = metrics(listener, 3)
            assert re.fullmatch(r"mine\.gunicorn\.request\.duration:\d+(\.\d+)?\|ms\|#a:1,b:2", duration)
            assert requests == "mine.gunicorn.requests:1|c|@1.0|#a:1,b:2"
            assert statuses == f"mine.gunicorn.request.status.{status}:1|c|@1.0|#a:1,b:2"


def test_statsd_counts_websockets(gunicorn: Servers) -> None:
    """Once, when it has ended."""
    with statsd() as listener:
        # Dirty: gunicorn leaves the socket of its StatsD client unclosed.
        server = gunicorn("logged:asgi", f"--statsd-host=127.0.0.1:{listener.getsockname()[1]}", dirty=True)
        with websocket(server, "accepts") as client:
            assert client.head()[0] == 101
            client.send(b"\x88\x82\0\0\0\0\x03\xe8")
            client.rest()
        assert [metric.partition(":")[0] for metric in metrics(listener, 3)] == [
            "gunicorn.request.duration",
            "gunicorn.requests",
            "gunicorn.request.status.101",
        ]


# -- reopening


def test_usr1_reopens_every_log(gunicorn: Servers) -> None:
    """The access log, the error log, and ``wsgi.errors``, whose stream is that of the error log."""
    server = gunicorn("logged:wsgi", "--access-logfile", "access", "--error-logfile", "errors", ready=False, dirty=True)
    access, errors = server.directory / "access", server.directory / "errors"

    def address() -> re.Match[str] | None:
        text = errors.read_text() if errors.exists() else ""
        return re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", text)

    port = int(server.wait_for(address, "the address")[1])

    def ask(path: str) -> Response:
        with Client(socket.create_connection(("127.0.0.1", port), DEADLINE), DEADLINE) as client:
            return client.request(path, headers="Connection: close\r\n")

    def wait(path: str, text: str) -> None:
        file = server.directory / path
        server.wait_for(lambda: file.exists() and text in file.read_text(), f"{text!r} in {path}")

    ask("/errors?1")
    wait("errors", "written to wsgi.errors")
    wait("access", "/errors?1")
    access.rename(server.directory / "old-access")
    errors.rename(server.directory / "old-errors")
    (worker,) = server.worker_pids()
    server.signal(signal.SIGUSR1)
    wait("access", "")
    wait("errors", "")
    # The master has reopened its own; the worker's turn is seen by its lines.
    server.wait_for(
        lambda: ask("/errors?2").status == 200 and "/errors?2" in access.read_text(), "a line in the new access log"
    )
    ask("/raises")
    wait("errors", "written to wsgi.errors")
    wait("errors", "ValueError: raised before the head")
    assert server.worker_pids() == [worker]
    assert "Traceback" not in (server.directory / "old-errors").read_text()
    assert "I/O operation on closed file" not in errors.read_text()


# -- quiet


@pytest.mark.parametrize("app", ["wsgi:app", "asgi:app"])
def test_clients_that_leave_are_no_errors(gunicorn: Servers, app: str) -> None:
    """Whatever a client does to its connection is debug information (the fixture looks for error lines)."""
    server = gunicorn(app, "--threads", "2", "--log-level", "debug")
    with server.connect() as client:
        client.start("/head-then-gate/left")
        server.wait_log("gate left reached")
        client.reset()
    server.open("left")
    with server.connect() as client:
        client.start("/flood")
        assert client.head()[0] == 200
        client.reset()
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\nHos")
        client.reset()
    with server.connect() as client:
        path = "/truncated" if app == "asgi:app" else "/digest"  # both read what there is
        client.send(f"POST {path} HTTP/1.1\r\n{HOST}Content-Length: 100000\r\n\r\nhalf")
        client.reset()
    assert server.request().status == 200
    assert server.stop() == 0
    assert "[DEBUG]" in server.log()


def test_debug_level_works(gunicorn: Servers) -> None:
    """gunicorn's default ``pre_request`` then prints each request."""
    for app in ("wsgi:app", "asgi:app"):
        server = gunicorn(app, "--log-level", "debug")
        assert server.request("/pid").status == 200
        server.wait_log(r"\[DEBUG\] GET /pid$")
