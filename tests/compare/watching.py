"""What operators see, and what is done about workers that do not answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import statistics
import time

from tests.benchmarks.groups import Group
from tests.checklist.servers import free_port

from .peers import ASGI, OURS
from .protocols import REFUSALS
from .registry import Answer, no, partly, row, yes
from .servers import Subject, within

GROUP = "Watching it"


@row("The log shows the code that blocks the event loop", short="Stack of what blocks the loop")
def blocked_loop(subject: Subject) -> Answer:
    """
    A request that blocks the loop for 3 s: is the name of its function in the log? Then, under gunicorn's master, one
    of 8 s with ``--timeout 2``, which has the worker killed.
    """
    subject.needs(ASGI)
    with subject.start(ASGI) as server:
        server.request("/block?3")
        if within(2, lambda: "block_the_loop" in server.log()):
            return yes("while it lasts")
    if subject.gunicorn:
        with subject.start(ASGI, options=["--timeout", "2"]) as server:
            with contextlib.suppress(*REFUSALS):
                server.request("/block?8", patience=12)
            if within(3, lambda: "block_the_loop" in server.log()):
                return partly("only by killing the worker at --timeout")
    return no("nothing of it is in the log")


@row("A worker that hangs is replaced")
def hung_worker(subject: Subject) -> Answer:
    """
    One worker whose loop is blocked for a minute (by WSGI alone: whose only thread is busy as long): are others
    answered again within 15 s, with ``--timeout 3`` where there is such a setting?
    """
    options = ["--timeout", "3"] if subject.gunicorn else []
    with subject.start(options=options) as server, server.connect() as hanging:
        old = server.request("/pid").body
        hanging.start("/block?60" if ASGI in subject.interfaces else "/slow?60")
        time.sleep(0.5)  # it has begun
        begun = time.monotonic()
        if not within(15, lambda: server.answers(patience=1)):
            return no("nobody answers for 15 s")
        seconds = time.monotonic() - begun
        return yes(f"after {seconds:.0f} s") if server.request("/pid").body != old else no("it answers all the same")


@row("A burst of connections is shared fairly by the workers", short="Fair shares of a burst")
def fair_shares(subject: Subject) -> Answer:
    """
    Two workers and 64 connections that are opened at once and stay, ten times: how often the smaller share is 24 or
    more. Eight times is fair.
    """
    with subject.start(workers=2, threads=4) as server:
        within(15, lambda: len(server.workers()) == 2)
        smaller = []
        for _ in range(10):
            time.sleep(0.3)  # what was closed is gone
            shares = asyncio.run(Group(server.port).shares(64))
            smaller.append(min(shares.values()) if len(shares) == 2 else 0)
    usual = int(statistics.median(smaller))
    text = f"of 64 the worse worker gets {min(smaller)} to {max(smaller)}, mostly {usual}"
    return yes(text) if sum(share >= 24 for share in smaller) >= 8 else partly(text) if usual >= 16 else no(text)


@row("A health endpoint of the server's own")
def health(subject: Subject) -> Answer:
    """A path that the server answers, not the application: 200, and 503 once it has been told to leave."""
    if subject.name != OURS:
        return no("no setting for it")
    environ = {"HYBRIDWORKER_HEALTH_PATH": "/health", "HYBRIDWORKER_DRAIN_DELAY": "2"}
    with subject.start(environ=environ, graceful=6) as server:
        first = server.request("/health")
        if first.status != 200 or first.body == b"hello":
            return no(f"answered {first.status}, by the application" * (first.body == b"hello"))
        server.signal(15)
        leaving = within(2, lambda: server.request("/health").status == 503)
    return yes() if leaving else partly("200 while it leaves")


@row("Metrics for Prometheus")
def metrics(subject: Subject) -> Answer:
    """After 20 requests, text that counts them. Without such: packets for statsd that count them."""
    port = free_port("127.0.0.1")
    if subject.name in (OURS, "granian"):
        own = ["--metrics", "--metrics-port", str(port), "--metrics-scrape-interval", "1"]
        options = own if subject.name == "granian" else []
        with subject.start(
            options=options, environ={"HYBRIDWORKER_METRICS_PATH": "/metrics"} if not options else {}
        ) as server:
            for _ in range(20):
                server.request("/")

            def counted() -> bool:
                with socket.create_connection(("127.0.0.1", port if options else server.port), 5) as sock:
                    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
                found = re.findall(r"^(\w*requests?\w*)(?:\{[^}]*\})? ([0-9.e+]+)$", text, re.MULTILINE)
                return sum(float(value) for _, value in found) >= 20

            return yes() if within(5, counted, 0.3) else no("no number counts the requests")
    return statsd(subject)


def statsd(subject: Subject) -> Answer:
    """What comes by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        options = ["--statsd-host", f"127.0.0.1:{receiver.getsockname()[1]}", "--access-logfile", "-"]
        with subject.start(options=options) as server:
            for _ in range(20):
                server.request("/")
            packets = b""
            with contextlib.suppress(TimeoutError):
                while b"request" not in packets:
                    packets += receiver.recv(65536)
    return partly("by statsd only") if b"request" in packets else no("statsd counts no requests, and nothing else does")


@row("An id for each request, in the log, the application and the response")
def request_ids(subject: Subject) -> Answer:
    """A response with an ``X-Request-ID`` that the application has not set."""
    environ = {"HYBRIDWORKER_REQUEST_ID": "x-request-id"} if subject.name == OURS else {}
    with subject.start(environ=environ) as server:
        found = server.request("/").header("x-request-id")
    return yes() if found else no("no setting for it")


#: What the client sends in its ``User-Agent``: what JSON has to escape.
AWKWARD = 'a "quoted" \\ agent'


@row("Access log as JSON")
def json_log(subject: Subject) -> Answer:
    """
    A line for a request whose User-Agent has a quotation mark and a backslash: it can be read as JSON, and has them.
    Where there is no setting: with a format string that looks like JSON.
    """
    options, environ = access_options(subject, '{"path": "%(U)s", "status": %(s)s, "agent": "%(a)s"}')
    if subject.name == OURS:
        options, environ = ["--access-logfile", "-"], {"HYBRIDWORKER_ACCESS_JSON": "on"}
    if subject.name == "granian":
        text = '{"path": "%(path)s", "status": %(status)d, "agent": "%(header{user-agent})s"}'
        options = ["--access-log", "--access-log-fmt", text]
    with subject.start(options=options, environ=environ) as server:
        server.request("/plain", headers="User-Agent: plain\r\n")
        server.request("/awkward", headers=f"User-Agent: {AWKWARD}\r\n")
        within(3, lambda: "/awkward" in server.log())
        lines = [line for line in server.log().splitlines() if "plain" in line or "awkward" in line]
    agents, prefixed = [], False
    for line in lines:
        prefix, brace, rest = line.partition("{")
        with contextlib.suppress(ValueError):
            found = json.loads(brace + rest)
            agents.append(found.get("user_agent") or found.get("agent"))
            prefixed = prefixed or bool(prefix)
    if not agents:
        return no("no setting for it")
    wrong = ["behind a prefix"] if prefixed else []
    wrong += [] if AWKWARD in agents else ["broken by a quotation mark or backslash in a field"]
    return partly(f"by a format string, {' and '.join(wrong)}") if wrong else yes()


def access_options(subject: Subject, text: str) -> tuple[list[str], dict[str, str]]:
    """Options for an access log on standard output in this format."""
    if subject.name == "granian":
        return ["--access-log", "--access-log-fmt", text], {}
    return ["--access-logfile", "-", "--access-logformat", text], {}


@row("gunicorn's formats of the access log")
def access_format(subject: Subject) -> Answer:
    """``%(m)s %(U)s %(q)s %(s)s %({x-a}i)s %(D)s``: the line has what it says."""
    options, environ = access_options(subject, "LINE %(m)s %(U)s %(q)s %(s)s %({x-a}i)s %(D)s")
    if subject.name == "granian":
        options[-1] = "LINE %(method)s %(path)s %(query_string)s %(status)d %(header{x-a})s %(dt_ms).3f"
    with subject.start(options=options, environ=environ) as server:
        server.request("/path?a=b", headers="X-A: value\r\n")
        line = within(3, lambda: re.search(r"LINE GET /path \??a=b 200 value ([\d.]+)", server.log()))
        log = server.log()
    if not line:
        return no("the format is not used" if "LINE" not in log else "some of it is missing")
    return partly("a format, with names of its own") if subject.name == "granian" else yes()
