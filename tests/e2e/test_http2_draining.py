"""
HTTP/2 connections of a worker that leaves: two GOAWAYs, and no request lost (RFC 9113 6.8).

Behind nginx and HAProxy, which speak HTTP/2 to the worker, at ``max_requests``, over reloads and upgrades.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

from tests.e2e.harness import DEADLINE, Gunicorn, Servers, wait_gone
from tests.e2e.http2client import HTTP2Client
from tests.e2e.programs import Program, Programs, free_port

pytestmark = pytest.mark.e2e

CLEARTEXT = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
LARGEST = 2**31 - 1
CLIENTS = 8

NGINX = """
upstream worker {{ server {upstream}; keepalive 16; }}
server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000;
    location / {{ grpc_pass grpc://worker; grpc_next_upstream off; }}
}}
"""

HAPROXY = """
defaults
    mode http
    timeout connect 30s
    timeout client 60s
    timeout server 60s
    retries 0
listen worker
    bind 127.0.0.1:{port}
    http-reuse always
    server worker {upstream} proto h2
"""


def test_term_says_goodbye_twice(gunicorn: Servers) -> None:
    """What is under way is answered, streams that still come are served, then the true last one is named."""
    server = gunicorn("multiplexed:app", *CLEARTEXT)
    with HTTP2Client.to(server) as client:
        first = client.start("/waits/gate")
        server.wait_log("gate gate reached")
        server.signal(signal.SIGTERM)
        client.wait_silently = True  # the answer to the PING shows that nothing more comes
        client.wait(lambda: client.goaways)
        assert client.goaways == [(LARGEST, 0)]
        late = client.start("/sleeps/1")
        assert client.finish(late).status == 200
        client.answer_pings()
        client.wait(lambda: len(client.goaways) == 2)
        assert client.goaways[1] == (late, 0)
        server.open("gate")
        assert client.finish(first).body == b"gate"
        client.wait_closed()
    assert server.wait() == 0
    server.wait_log(r"Served 2 requests: 2 finished while leaving, 0 cut")


def test_a_client_that_answers_no_ping_is_left_after_a_while(gunicorn: Servers) -> None:
    """The second GOAWAY comes all the same."""
    server = gunicorn("multiplexed:app", *CLEARTEXT)
    with HTTP2Client.to(server) as client:
        assert client.request("/sleeps/1").status == 200
        client.wait_silently = True
        server.signal(signal.SIGTERM)
        client.wait_closed()
    assert client.goaways == [(LARGEST, 0), (1, 0)]
    assert server.wait() == 0


def test_an_idle_connection_ends_with_a_goaway(gunicorn: Servers) -> None:
    """After ``keepalive``; the last stream is the true one."""
    server = gunicorn("multiplexed:app", *CLEARTEXT, "--keep-alive", "1")
    with HTTP2Client.to(server) as client:
        assert client.request("/sleeps/1").status == 200
        client.wait_closed()
    assert client.goaways == [(1, 0)]


def test_the_graceful_timeout_cuts_what_is_left(gunicorn: Servers) -> None:
    """A stream that does not end in time."""
    server = gunicorn("multiplexed:app", *CLEARTEXT, "--graceful-timeout", "1", dirty=True)
    with HTTP2Client.to(server) as client:
        client.start("/leaves")
        server.wait_log("begun")
        server.signal(signal.SIGTERM)
        client.wait_closed()
    assert server.wait() == 0
    server.wait_log("1 request was not finished")


def test_full_workers_take_idle_connections_back(gunicorn: Servers) -> None:
    """``worker_connections`` are connections: an idle one of HTTP/2 makes room, one with a stream does not."""
    server = gunicorn("multiplexed:app", *CLEARTEXT, "--worker-connections", "2", "--keep-alive", "60")
    with HTTP2Client.to(server) as idle, HTTP2Client.to(server) as busy:
        assert idle.request("/sleeps/1").status == 200
        stream = busy.start("/waits/gate")
        server.wait_log("gate gate reached")
        with HTTP2Client.to(server) as third:
            assert third.request("/sleeps/1").status == 200
        idle.wait_closed()
        assert idle.goaways == [(1, 0)]
        server.open("gate")
        assert busy.finish(stream).body == b"gate"


# -- behind proxies


class Load:
    """Clients that send requests through a proxy until :meth:`stop`; ``failed`` has what was no 200."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.stopping = False
        self.done = 0
        self.failed: list[object] = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        while not self.stopping:
            try:
                connection.request("GET", "/sleeps/2")
                response = connection.getresponse()
                response.read()
                outcome: object = response.status
            except (OSError, http.client.HTTPException) as exc:
                outcome = exc
                connection.close()
            with self.lock:
                self.done += 1
                if outcome != 200:
                    self.failed.append(outcome)
        connection.close()

    def stop(self) -> None:
        """Send no further requests, and wait for the answers."""
        self.stopping = True
        for thread in self.threads:
            thread.join()


def nginx(programs: Programs, server: Gunicorn) -> Program:
    port = free_port()
    return programs.nginx(NGINX.format(upstream=f"127.0.0.1:{server.port}", port=port), port)


def haproxy(programs: Programs, server: Gunicorn) -> Program:
    port = free_port()
    return programs.haproxy(HAPROXY.format(upstream=f"127.0.0.1:{server.port}", port=port), port)


Start = Callable[[Programs, Gunicorn], Program]


@pytest.mark.parametrize(("proxy", "app"), [(nginx, "multiplexed:app"), (haproxy, "multiplexed:wsgi")])
def test_no_request_is_lost_at_max_requests(gunicorn: Servers, programs: Programs, proxy: Start, app: str) -> None:
    """Workers are replaced every 100 requests, behind a proxy that keeps its connections."""
    recycling = ("--max-requests", "100", "--max-requests-jitter", "20")
    server = gunicorn(app, *CLEARTEXT, *recycling, "--threads", "4", workers=2)
    load = Load(proxy(programs, server).port)
    try:
        server.wait_log(r"Served \d{3,} requests", 3)
    finally:
        load.stop()
    assert load.failed == []
    assert load.done > 300


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_no_request_is_lost_over_reloads(gunicorn: Servers, programs: Programs, proxy: Start) -> None:
    """HUP twice."""
    server = gunicorn("multiplexed:app", *CLEARTEXT, workers=2)
    load = Load(proxy(programs, server).port)
    try:
        for number in (1, 2):
            server.signal(signal.SIGHUP)
            server.wait_log("Booting worker", 2 + number * 2)
            server.wait_log(r"Served \d+ requests?:", number * 2)  # a worker may have served a single one
    finally:
        load.stop()
    assert load.failed == []
    assert load.done > 100


@pytest.mark.parametrize("proxy", [nginx, haproxy])
def test_no_request_is_lost_over_an_upgrade(gunicorn: Servers, programs: Programs, proxy: Start) -> None:
    """USR2: a second master serves beside the first, which is then told to go."""
    server = gunicorn("multiplexed:app", *CLEARTEXT, workers=2, dirty=True)  # two masters in one log
    load = Load(proxy(programs, server).port)
    server.signal(signal.SIGUSR2)
    second = int(server.wait_log(r"\[(\d+)\] \[INFO\] Starting gunicorn", 2)[1])
    try:
        server.wait_log("Booting worker", 4)
        server.wait_log("Serving ASGI 3 application", 4)
        assert server.stop() == 0
        seen = load.done
        deadline = time.monotonic() + DEADLINE
        while load.done < seen + 100 and time.monotonic() < deadline:  # by the second one's workers
            time.sleep(0.01)
        assert load.done >= seen + 100
    finally:
        load.stop()
        os.kill(second, signal.SIGTERM)
        wait_gone(second)
    assert load.failed == []
    assert len(re.findall(r"Served \d+ requests?: \d+ finished while leaving, 0 cut", server.log())) == 4
