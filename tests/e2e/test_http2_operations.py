"""
What operators and applications rely on, over HTTP/2: hooks, logs, reports, replacement, limits, slow readers.

By prior knowledge, and under TLS by ALPN where the connection matters, which is another one there. What a request has
in any version of HTTP is tested over HTTP/1.1; here is that it is so on a stream, and that the other streams go on.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

from tests.e2e.harness import APPS, DEADLINE, Gunicorn, Servers, memory
from tests.e2e.http2client import Answer, HTTP2Client
from tests.e2e.parting import Authority
from tests.e2e.test_json_logs import KEYS, lines
from tests.e2e.test_logs import metrics, statsd
from tests.e2e.test_spool import MIB, PIECE, spools

pytestmark = pytest.mark.e2e

H2 = ("--http-protocols", "h2,h1")
CONNECT = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
CANCEL = 8

#: What does not depend on the transport.
by_prior_knowledge = pytest.mark.parametrize("site", ["cleartext"], indirect=True)

each_interface = pytest.mark.parametrize("app", ["asgi", "wsgi"])


class Site:
    """How a server is spoken to."""

    def __init__(self, authority: Authority | None) -> None:
        self.context = None if authority is None else authority.context
        self.scheme = "http" if authority is None else "https"
        if self.context is not None:
            self.context.set_alpn_protocols(["h2"])
        own = ("--http2-cleartext", "prior-knowledge") if authority is None else authority.options
        self.options = (*H2, *own)

    def connect(self, server: Gunicorn, **options: Any) -> HTTP2Client:
        return HTTP2Client.to(server, self.context, **options)


@pytest.fixture(scope="module", params=["cleartext", "tls"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    # An authority of its own: HTTP2Client has its context offer h2 alone.
    return Site(Authority(tmp_path_factory.mktemp("authority")) if request.param == "tls" else None)


@pytest.fixture
def start(gunicorn: Servers, site: Site) -> Callable[..., Gunicorn]:
    """Starts a server that is spoken to as ``site`` says; ``variables`` are of this worker."""

    def start(app: str, *args: str, dirty: bool = False, **variables: str) -> Gunicorn:
        env = {f"HYBRIDWORKER_{name}": value for name, value in variables.items()}
        return gunicorn(app, "--threads", "2", *site.options, *args, env=env, dirty=dirty)

    return start


Start = Callable[..., Gunicorn]


def reset(client: HTTP2Client, stream: int) -> None:
    client.h2.reset_stream(stream, CANCEL)
    client.flush()


# -- what is called and written


@each_interface
def test_the_hooks_see_each_request(start: Start, site: Site, app: str) -> None:
    """Its version, its scheme, its response; what they raise is their stream's, and one that was reset is told of."""
    server = start(f"hooked:{app}", "--config", str(APPS / "request_hooks.conf.py"), dirty=True)
    place, phrase = ("loop", "Created") if app == "asgi" else ("thread", "Very Well")
    with site.connect(server) as client:
        assert client.request("/a%20b?q=%41", fields=[("x-in", "in")]).status == 201
        seen = rf"\(2, 0\) {site.scheme} \['in'\] True True {place} nothing"
        server.wait_log(rf"^pre GET /a%20b\?q=%41 /a%20b 'q=%41' {seen}$")
        server.wait_log(rf"^post4 /a%20b\?q=%41 /a b localhost 201 {phrase} 201 \['out'\] 5$")
        assert client.request("/changed").text == "pre by the hook"
        assert client.request("/pre-raises").status == 500
        server.wait_log(r"^post4 /pre-raises \{\} None$")
        assert client.request("/post-raises").status == 201
        server.wait_log(r"\[ERROR\] Exception in post_request hook$")
        left = client.start("/gate")
        server.wait_log("gate hooked reached")
        reset(client, left)
        server.open("hooked")
        server.wait_log("^post4 /gate /gate localhost ")
        assert client.request("/").status == 201
        assert server.log().count("post4 /gate") == 1
        assert client.goaways == []


@by_prior_knowledge
def test_a_websocket_is_a_request_to_the_hooks(start: Start, site: Site) -> None:
    """With the status that it has in HTTP/2."""
    server = start("hooked:asgi", "--config", str(APPS / "request_hooks.conf.py"), dirty=True)
    with site.connect(server) as client:
        stream = client.start("/ws", "CONNECT", CONNECT, end=False)
        client.wait(lambda: client.answers[stream].status == 200)
        server.wait_log(rf"^pre GET /ws /ws '' \(2, 0\) {site.scheme} \[\] True True loop nothing$")
        server.wait_log(r"^post4 /ws /ws localhost 200 OK 200 \['out'\] 4$")


@each_interface
def test_each_line_is_an_object(start: Start, site: Site, app: str) -> None:
    """Of a good request, a failed one, one that is refused, and one whose client has reset it."""
    server = start(f"logged:{app}", "--access-logfile", "access", dirty=True, ACCESS_JSON="on")
    with site.connect(server) as client:
        client.request("/ok?a=%22", fields=[("user-agent", 'a "b"')])
        client.request("/raises")
        client.request("/" + "x" * 5000)
        left = client.start("/ok", "POST", [("content-length", "100000")], end=False)
        client.request("/ok")  # the other is begun by now
        reset(client, left)
        found = lines(server, 5)
    good, failed, refused, *others = found
    lost = next(line for line in others if line["method"] == "POST")
    assert list(good) == KEYS
    assert good | {"time": "", "duration_us": 0, "pid": 0} == {
        "time": "",
        "remote_addr": "127.0.0.1",
        "user": None,
        "method": "GET",
        "path": "/ok",
        "query": "a=%22",
        "protocol": "HTTP/2" if app == "asgi" else "HTTP/2.0",
        "status": 200,
        "bytes": 2,
        "duration_us": 0,
        "referer": None,
        "user_agent": 'a "b"',
        "pid": 0,
    }
    assert (failed["status"], failed["path"]) == (500, "/raises")
    assert refused["status"] == 414
    assert (lost["status"], lost["path"]) == (499, "/ok")


@by_prior_knowledge
@each_interface
def test_statsd_counts_each_stream(start: Start, site: Site, app: str) -> None:
    """Duration, count and status, of refused requests too."""
    with statsd() as listener:
        server = start(f"logged:{app}", f"--statsd-host=127.0.0.1:{listener.getsockname()[1]}", dirty=True)
        with site.connect(server) as client:
            for path, status in (("/ok", 200), ("/missing", 404), ("/" + "x" * 5000, 414)):
                assert client.request(path).status == status
                duration, requests, statuses = metrics(listener, 3)
                assert re.match(r"gunicorn\.request\.duration:\d", duration)
                assert requests == "gunicorn.requests:1|c|@1.0"
                assert statuses == f"gunicorn.request.status.{status}:1|c|@1.0"


@by_prior_knowledge
@each_interface
def test_usr2_writes_the_streams_of_a_connection(start: Start, site: Site, app: str) -> None:
    """Each of them, with the function that it is in."""
    server = start(f"stuck:{app}")
    (worker,) = server.worker_pids()
    with site.connect(server) as client:
        streams = [client.start("/wait") for _ in range(2)]
        server.wait_log("gate stuck reached", 2)
        server.signal(signal.SIGUSR2, worker)
        server.wait_log(r"\[WARNING\] Requests in flight: 2$")
        server.wait_log(r"^  GET /wait, \d+\.\d s, in (the loop|thread hybridworker-wsgi-\d)$", 2)
        function = "waits_for_a_gate" if app == "asgi" else "block"
        server.wait_log(rf'^  File ".*", line \d+, in {function}$', 2)
        server.open("stuck")
        assert {client.finish(stream).text.split()[0] for stream in streams} == {str(worker)}


@each_interface
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the peak is known")
def test_a_worker_that_has_grown_is_replaced(start: Start, site: Site, app: str) -> None:
    """By two GOAWAYs, and what runs is finished."""
    server = start(f"stuck:{app}", MAX_RSS="200")
    (worker,) = server.worker_pids()
    with site.connect(server) as client:
        waiting = client.start("/wait")
        server.wait_log("gate stuck reached")
        grown = client.start("/grow/250")
        assert client.finish(grown).text.split()[0] == str(worker)
        server.wait_log(r"Autorestarting worker: it uses \d{3} MiB, HYBRIDWORKER_MAX_RSS is 200\.")
        client.wait(lambda: len(client.goaways) == 2)
        server.open("stuck")
        assert client.finish(waiting).text.split()[0] == str(worker)
        client.wait_closed()
    assert client.goaways == [(2**31 - 1, 0), (grown, 0)]
    server.wait_log("Booting worker with pid", 2)
    with site.connect(server) as client:
        assert client.request("/").text.split()[0] != str(worker)


# -- limits


def assert_turned_away(answer: Answer) -> None:
    """An error page as any other; the client may come again soon."""
    assert (answer.status, answer.reset, answer["retry-after"]) == (503, None, "1")
    assert "<h1>Service Unavailable</h1>" in answer.text


@each_interface
def test_more_requests_than_are_allowed_are_turned_away(start: Start, site: Site, app: str) -> None:
    """Streams are what counts, on whichever connection; one that was reset counts until its task is over."""
    server = start(f"late:{app}", REQUESTS_MAX="2", HEALTH_PATH="/health")
    with site.connect(server) as client, site.connect(server) as other:
        streams = [client.start("/sleep") for _ in range(2)]
        server.wait_log("gate sleep reached", 2)
        for _ in range(3):
            assert_turned_away(client.request("/"))
        assert client.request("/", "HEAD").status == 503
        assert_turned_away(other.request("/"))
        assert other.request("/health").text == "ok\n"
        if app == "asgi":  # a call in a thread is no request any more when its client has gone
            reset(client, streams[0])
            assert_turned_away(client.request("/"))
        assert server.log().count("begins /\n") == 0
        server.open("sleep")
        assert client.finish(streams[1]).text == "slept"
        server.wait_for(lambda: client.request("/").status == 200, "room for one more")
        assert client.goaways == []


@by_prior_knowledge
def test_a_call_that_waits_too_long_for_a_thread_never_runs(start: Start, site: Site) -> None:
    """It gets a 503 on its stream, and so does one of which a proxy says that it has waited."""
    server = start("late:wsgi", QUEUE_TIMEOUT="0.5")
    with site.connect(server) as client:
        running = [client.start("/sleep") for _ in range(2)]
        server.wait_log("gate sleep reached", 2)
        queued = [client.start("/queued") for _ in range(3)]
        for stream in queued:
            assert_turned_away(client.finish(stream))
        server.open("sleep")
        assert [client.finish(stream).text for stream in running] == ["slept"] * 2
        assert_turned_away(client.request("/queued", fields=[("x-request-start", f"t={time.time() - 60:.3f}")]))
        assert client.request("/").text == "hello"
    assert "begins /queued" not in server.log()


# -- bodies, trailers, interim responses


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_slow_readers_hold_no_thread(gunicorn: Servers, site: Site, tmp_path: Path) -> None:
    """24 streams that take nothing beside 2 threads: all have begun, others are served, and every byte arrives."""
    options = ("--threads", "2", "--keep-alive", "60", *site.options)
    server = gunicorn("long:app", *options, env={"TMPDIR": str(tmp_path)})
    (worker,) = server.worker_pids()
    before = memory(worker)
    with site.connect(server, credit=False) as client:
        client.h2.increment_flow_control_window(2**30)  # of the connection alone
        streams = [client.start("/generator?4") for _ in range(24)]
        client.wait(lambda: all(client.answers[stream].status for stream in streams))
        assert client.request("/").text == "hello"
        server.wait_for(lambda: len(spools(worker, tmp_path)) == 24, "all to be on disk")
        assert memory(worker) - before < 24 * 1.2 * MIB + 16 * MIB
        for stream in streams[:2]:
            client.h2.increment_flow_control_window(4 * MIB, stream)
            client.flush()
            assert client.finish(stream).body == PIECE * (4 * MIB // len(PIECE))
        for stream in streams[2:]:
            reset(client, stream)
        server.wait_for(lambda: not spools(worker, tmp_path), "the files to be closed")
        assert client.request("/").text == "hello"


@each_interface
def test_trailers_of_a_request_are_checked_and_dropped(start: Start, site: Site, app: str) -> None:
    """They end the body (RFC 9113 8.1); what may not be in them resets the stream, and the others go on."""
    server = start(f"late:{app}")
    with site.connect(server) as client:

        def upload(*trailers: tuple[str, str]) -> Answer:
            stream = client.start("/upload", "POST", end=False)
            client.send(stream, b"x" * 100_000)
            client.h2.send_headers(stream, list(trailers), end_stream=True)
            client.flush()
            return client.finish(stream)

        assert upload(("x-checksum", "abc"), ("grpc-status", "0")).text == "100000"
        for name in ("content-length", "connection", ":path"):
            assert upload((name, "1")).reset == 1
        assert client.request("/").text == "hello"
    server.wait_log("Invalid request from ip=127.0.0.1: .*trailer", 2)


def test_what_is_special_of_asgi(start: Start, site: Site) -> None:
    """Trailers both ways, hints, a file between two parts, all on one connection at once."""
    server = start("multiplexed:app")
    with site.connect(server) as client:
        stream = client.start("/trailers", "POST", [("te", "trailers")], end=False)
        client.send(stream, b"request")
        client.h2.send_headers(stream, [("x-sent", "1")], end_stream=True)
        hints, file = client.start("/hints"), client.start("/descriptor")
        answer = client.finish(stream)
        assert (answer.body, answer.trailers) == (b"onetwo", [("grpc-status", "0"), ("grpc-message", "fine")])
        assert [fields[0] for fields in client.finish(hints).hints] == [(":status", "103")] * 2
        answer = client.finish(file)
        assert answer.body == b"<" + (APPS / "multiplexed.py").read_bytes() + b">"
        assert answer.trailers == [("x-end", "1")]


def test_what_is_special_of_wsgi(start: Start, site: Site) -> None:
    """The same by gunicorn's ways for WSGI."""
    server = start("multiplexed:wsgi")
    with site.connect(server) as client:
        streams = {path: client.start(path) for path in ("/trailers", "/late-trailers", "/hints", "/file")}
        answers = {path: client.finish(stream) for path, stream in streams.items()}
    assert answers["/trailers"].trailers == [("grpc-status", "0")]
    assert answers["/late-trailers"].trailers == [("x-checksum", "abc")]
    assert answers["/hints"].hints == [[(":status", "103"), ("link", "</a.css>; rel=preload")]]
    assert answers["/file"].body == (APPS / "multiplexed.py").read_bytes()


@each_interface
def test_a_client_that_expects_a_100_is_told_to_go_on(start: Start, site: Site, app: str) -> None:
    """When the application reads, and not where it does not."""
    server = start(f"late:{app}")
    expects = [("expect", "100-continue"), ("content-length", "4")]
    with site.connect(server) as client:
        stream = client.start("/upload", "POST", expects, end=False)
        client.wait(lambda: client.answers[stream].hints)
        assert client.answers[stream].hints == [[(":status", "100")]]
        client.send(stream, b"body", end=True)
        assert client.finish(stream).text == "4"
        answer = client.finish(client.start("/", "POST", expects, end=False))
        assert (answer.text, answer.hints) == ("hello", [])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_proxy_header_comes_first(start: Start, site: Site, version: str) -> None:
    """Before the preface, under TLS inside of it as gunicorn has it; it is for all streams of the connection."""
    server = start("asgi:app", "--proxy-protocol", version)
    header = b"PROXY TCP4 203.0.113.5 192.0.2.1 4444 80\r\n"
    if version == "v2":
        addresses = socket.inet_aton("203.0.113.5") + socket.inet_aton("192.0.2.1") + b"\x11\x5c\0\x50"
        header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses
    sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    if site.context is not None:
        sock = site.context.wrap_socket(sock, server_hostname="localhost")
    sock.sendall(header)
    with HTTP2Client(sock, site.scheme) as client:
        for _ in range(2):
            scope = json.loads(client.request("/scope").body)
            assert (scope["client"], scope["scheme"]) == (["203.0.113.5", 4444], site.scheme)


# -- what is served


def test_websockets_reach_the_parts_of_a_hybrid(start: Start, site: Site) -> None:
    """By path and by type, as over HTTP/1.1, beside the pages on one connection; what nothing claims is a 404."""
    server = start(
        "hybrids:app", "--access-logfile", "-", "--access-logformat", "%(r)s %(s)s [%({hybridworker.part}e)s]"
    )
    expected = {
        "/ws/pages/1": "room",
        "/anything": "everywhere",
        "/shop/x": "everywhere",
        "/mcp/x": "tools|/mcp|/mcp/x",
    }
    with site.connect(server) as client:
        streams = {path: client.start(path, "CONNECT", CONNECT, end=False) for path in expected}
        assert client.request("/shop/x").text.startswith("wsgi|/shop|/x")
        for path, stream in streams.items():
            answer = client.answers[stream]
            client.wait(lambda answer=answer: len(answer.body) > 2 and len(answer.body) == 2 + answer.body[1])  # type: ignore[misc]
            assert answer.body[2:].decode().startswith(expected[path] + "|")
            reset(client, stream)
            server.wait_log(rf"^GET {path} HTTP/2 200 \[.*\]$")
    server = start("hybrids:headless")
    with site.connect(server) as client:
        assert client.finish(client.start("/x", "CONNECT", CONNECT, end=False)).status == 404
        assert client.request("/x").status == 404
        assert client.request("/ws").status == 200


@by_prior_knowledge
def test_threads_are_lent_to_the_streams_of_a_connection(start: Start, site: Site) -> None:
    """At most as many as there are; a stream that was reset gives its thread back."""
    pytest.importorskip("django", reason="the extra hybridworker[examples] is not installed")
    server = start("django_lent:asgi", METRICS_PATH="/metrics")
    with site.connect(server) as client:
        left = client.start("/query-blocks/left")
        server.wait_log("gate left reached")
        streams = [client.start("/query") for _ in range(24)]
        assert {client.finish(stream).text for stream in streams} == {"60"}
        reset(client, left)
        server.open("left")
        name, lent, connections = json.loads(client.request("/threads").body).values()
        assert name in lent and len(lent) <= 2 and connections <= 2
        lent_now = r"^hybridworker_threads_lent 0$"
        server.wait_for(lambda: re.search(lent_now, client.request("/metrics").text, re.M), "the threads to come back")
        assert client.request("/query").text == "60"
