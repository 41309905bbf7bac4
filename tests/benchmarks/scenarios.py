"""
What is measured: one record per scenario, in the order of the tables.

A record says which application answers, what the load looks like, which servers take part, and which bars this worker
has set itself. Nothing here runs anything; ``measure.py`` does.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

ASGI = ("hybridworker", "bare", "uvicorn-worker", "gunicorn-asgi", "granian", "hypercorn")
ASGI_PEERS = ("hybridworker", "uvicorn-worker", "gunicorn-asgi", "granian", "hypercorn")
#: This worker with the peer's application: what the Hybrid itself costs, or saves.
ALONE = ("hybridworker", "hybridworker-alone")
GROUP = ("hybridworker", "uvicorn-worker", "gunicorn-asgi")
WSGI = ("hybridworker", "gunicorn-gthread", "gunicorn-sync", "granian")
FRAMEWORK_BARS = {"uvicorn-worker": 1.1}
ASGI_BARS = {"uvicorn-worker": 1.2, "granian": 1.0}
WSGI_FRAMEWORK_BARS = {"gunicorn-gthread": 1.5, "granian": 0.9}


class Measure(Enum):
    """The number a scenario is about; the value is its unit in the tables."""

    RATE = "requests/s"
    MESSAGES = "messages/s"
    P99 = "ms, p99"
    MAX = "ms, longest wait"
    GOODPUT = "answers in time/s"
    RECOVERY = "ms to recover"
    SHARE = "times the fair share"
    REST = "MiB"
    CONNECTION = "KiB"
    STARTUP = "ms"
    CPU = "us of processor"

    @property
    def more_is_better(self) -> bool:
        return self in (Measure.RATE, Measure.MESSAGES, Measure.GOODPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One scenario.

    ``peer_app`` is what the peers serve where they cannot serve ``app``, or where that is what is compared.
    ``length`` is the length of a right answer's body, checked by one request before the load. ``client`` names the
    role of ``clients.py``, or with several ``workers`` of ``groups.py``, that makes the load where wrk does not,
    ``beside`` the one that disturbs it meanwhile.
    ``streams`` is how many requests h2load has under way on each connection of HTTP/2; zero means HTTP/1.1. ``varied``
    gives each of them a query of its own.
    ``bars`` maps a server to the least ratio to it that this worker has to show, ``limit`` bounds this worker's own
    value.
    """

    name: str
    title: str
    app: str
    peer_app: str | None = None
    interface: str = "asgi"
    servers: Sequence[str] = ASGI_PEERS
    measure: Measure = Measure.RATE
    bars: Mapping[str, float] = field(default_factory=dict)
    limit: float | None = None

    client: str = "wrk"
    beside: str | None = None
    connections: int = 32
    path: str = "/"
    method: str = "GET"
    body: int = 0
    length: int = 13
    headers: Sequence[str] = ()
    pipeline: int = 1
    streams: int = 0
    varied: bool = False

    workers: int = 1
    threads: int = 8
    tls: bool = False
    access_log: bool = False
    #: a queue of a second, where the server can bound it: the queue timeout, and the backpressure of granian
    bounded: bool = False
    #: this worker has every limit and the metrics on, and its own form beside it none
    limited: bool = False

    @property
    def http2(self) -> bool:
        """Whether the servers are to speak HTTP/2."""
        return self.streams > 0

    @property
    def table(self) -> str:
        """In which table it stands."""
        return "http/2" if self.http2 and self.workers == 1 else self.interface


def _asgi(name: str, title: str, app: str, **options: object) -> Scenario:
    options = {"bars": ASGI_BARS, **options}
    return Scenario(name=name, title=title, app=f"tests.benchmarks.apps:{app}", **options)  # type: ignore[arg-type]


def _wsgi(name: str, title: str, app: str, **options: object) -> Scenario:
    options = {"interface": "wsgi", "servers": WSGI, **options}
    return Scenario(name=name, title=title, app=f"tests.benchmarks.apps_wsgi:{app}", **options)  # type: ignore[arg-type]


def _framework(name: str, title: str, app: str, **options: object) -> Scenario:
    app = f"tests.benchmarks.frameworks.{app}"
    return Scenario(name=name, title=title, app=app, **options)  # type: ignore[arg-type]


def _http2(name: str, title: str, app: str, shape: str, bars: Sequence[float | None], **options: object) -> Scenario:
    """
    Processor time of HTTP/2, in the ``shape`` of so many connections "x" so many streams on each.

    ``bars`` are those to the asgi or gthread worker of gunicorn, hypercorn, granian and HTTP/1.1.
    """
    wsgi = app.startswith("apps_wsgi")
    peers = ("gunicorn-gthread" if wsgi else "gunicorn-asgi", "hypercorn", "granian", "hybridworker-http1")
    connections, streams = map(int, shape.split("x"))
    options = {"connections": connections, "streams": streams, "interface": "wsgi" if wsgi else "asgi", **options}
    return Scenario(
        name=name,
        title=f"{title}, {shape.replace('x', ' x ')}",
        app=f"tests.benchmarks.{app}",
        servers=("hybridworker", *peers),
        measure=Measure.CPU,
        client="h2load",
        bars={peer: bar for peer, bar in zip(peers, bars, strict=True) if bar is not None},
        **options,  # type: ignore[arg-type]
    )


def _connections(count: int) -> Scenario:
    servers = ("hybridworker", "bare", "uvicorn-worker", "granian")
    name, title = f"connections-{count}", f"Hello, {count:,} connections"
    return _asgi(name, title, "hello", connections=count, servers=servers, bars={})


def _group(name: str, title: str, **options: object) -> Scenario:
    options = {"workers": 2, "servers": GROUP, **options}
    return Scenario(name=name, title=title, app="tests.benchmarks.apps_group:app", **options)  # type: ignore[arg-type]


def _burst(count: int, workers: int) -> Scenario:
    fair = count / workers
    # Under two more than the fair share; the least share stands under the table.
    return _group(f"burst-{count}-{workers}", f"Burst of {count:,} connections, {workers} workers", client="burst",
                  measure=Measure.SHARE, connections=count, workers=workers, limit=(fair + 2) / fair)  # fmt: skip


def _balance(workers: int) -> Scenario:
    servers = ("hybridworker", "gunicorn-asgi")
    return _group(f"http2-balance-{workers}", f"8 connections of HTTP/2, {workers} workers", client="burst-http2",
                  measure=Measure.SHARE, connections=8, streams=1, workers=workers, servers=servers)  # fmt: skip


def _hybrid(name: str, title: str, app: str, peer_app: str, **options: object) -> Scenario:
    app, peer_app = f"tests.benchmarks.{app}", f"tests.benchmarks.{peer_app}"
    return Scenario(name=name, title=title, app=app, peer_app=peer_app, interface="hybrid", **options)  # type: ignore[arg-type]


_HELLO_BARS = {"uvicorn-worker": 1.5, "gunicorn-asgi": 1.8, "granian": 1.5, "bare": 0.7}
_LIMITED_BARS = {"hybridworker-alone": 0.98}
_CLOSE = ("Connection: close",)
_ECHO = {"method": "POST", "body": 10_240, "length": 10_240}
_WS_BARS = {"uvicorn-worker": 1.2, "gunicorn-asgi": 1.0, "granian": 1.0}
_WS = {"client": "echo", "measure": Measure.MESSAGES, "bars": _WS_BARS}
_BROADCAST = {"client": "broadcast", "measure": Measure.MESSAGES, "bars": _WS_BARS, "connections": 100}
_IDLE = {"client": "hold", "measure": Measure.CONNECTION, "connections": 5_000, "bars": {}}
_IDLE_WS = {"client": "hold-websocket", "measure": Measure.CONNECTION, "connections": 1_000, "bars": {}}
_IDLE_HTTP2 = {
    "client": "hold-http2",
    "measure": Measure.CONNECTION,
    "connections": 2_000,
    "streams": 1,
    "servers": ("hybridworker", "gunicorn-asgi", "granian", "hypercorn"),
    "bars": {},
}
#: What a browser behind a proxy sends to an application beside method, path, scheme and authority.
_APP_FIELDS = {
    "headers": (
        "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "accept-encoding: gzip, deflate, br",
        "accept-language: en-GB,en;q=0.9,de;q=0.8",
        "user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "cookie: sessionid=0123456789abcdef0123456789abcdef; csrftoken=fedcba9876543210fedcba9876543210",
        "referer: https://www.example.com/somewhere",
        "x-forwarded-for: 203.0.113.7",
        "x-forwarded-proto: http",
    ),
    "varied": True,
}
_P99 = {"measure": Measure.P99, "connections": 4, "bars": {}}
_SLOW = {**_P99, "beside": "trickle"}
#: Four times what 8 threads can do of calls that take 50 ms.
_OVERLOAD = {
    "client": "overload",
    "servers": ("hybridworker", "gunicorn-gthread", "granian"),
    "bounded": True,
    "connections": 8,
    "bars": {},
}

SCENARIOS: tuple[Scenario, ...] = (
    _asgi("asgi-hello", "Hello", "hello", servers=ASGI, bars=_HELLO_BARS),
    _asgi("asgi-get-10k", "10 KB answer", "get_10k", length=10_240),
    _asgi("asgi-echo-10k", "10 KB echo", "echo", **_ECHO),
    _asgi("asgi-download-1m", "1 MB download", "download_1m", length=1_048_576, connections=8),
    _asgi("asgi-upload-1m", "1 MB upload", "upload", method="POST", body=1_048_576, length=7, connections=8),
    _asgi("asgi-stream", "Stream of 100 chunks", "stream", length=10_000),
    _asgi("asgi-sleep", "10 ms sleep, 256 connections", "sleep", connections=256),
    _asgi("asgi-pipeline", "Pipeline, 16 deep", "hello", servers=ASGI, pipeline=16),
    _asgi("asgi-close", "A connection per request", "hello", servers=ASGI, headers=_CLOSE),
    _asgi("asgi-tls", "Hello over TLS", "hello", tls=True),
    _asgi("asgi-access-log", "Hello, access log", "hello", access_log=True,
          bars={"uvicorn-worker": 1.3, "gunicorn-asgi": 2.0}),
    _asgi("asgi-limits", "Hello, all limits and metrics", "hello", servers=ALONE, limited=True, bars=_LIMITED_BARS),
    _framework("starlette", "Starlette", "with_starlette:app", length=43, bars=FRAMEWORK_BARS),
    _framework("fastapi", "FastAPI", "with_fastapi:app", length=43, bars=FRAMEWORK_BARS),
    _framework("django-asgi", "Django", "with_django:asgi", path="/async", length=48, bars=FRAMEWORK_BARS),
    _framework("file-50k", "50 KB file (Starlette)", "with_starlette:app", path="/50k", length=51_200,
               bars={"uvicorn-worker": 1.5}),
    _asgi("websocket-echo", "WebSocket echo, deflate offered", "websocket_echo", **_WS),
    _asgi("websocket-echo-plain", "WebSocket echo, no deflate", "websocket_echo", **{**_WS, "client": "echo-plain"}),
    _asgi("websocket-broadcast", "WebSocket broadcast to 100", "websocket_broadcast", **_BROADCAST),
    _connections(8),
    _connections(64),
    _connections(512),
    _connections(2_000),
    _asgi("slow-clients", "Hello beside 500 slow clients", "hello", **_SLOW),
    _framework("download-beside", "Hello beside a 100 MB download", "with_starlette:app", path="/hello",
               **{**_P99, "beside": "download"}),
    _burst(64, 2),
    _burst(64, 4),
    _burst(1_000, 2),
    _burst(1_000, 4),
    _group("close", "A connection per request, 2 workers", headers=_CLOSE, bars={"uvicorn-worker": 1.0}),
    _group("held", "New connections, one of 2 workers blocked", client="held", measure=Measure.P99, connections=4),
    _group("hup", "Reload of 2 workers, import takes 3 s", client="hup", measure=Measure.MAX, connections=8),
    _asgi("startup", "Start to first answer", "hello", measure=Measure.STARTUP, bars={}),
    _asgi("memory-rest", "Memory of a worker at rest", "hello", measure=Measure.REST, bars={"uvicorn-worker": 1.0}),
    _asgi("memory-idle", "Memory per idle connection of 5,000", "hello", limit=5.0, **_IDLE),
    _asgi("memory-websocket", "Memory per idle WebSocket of 1,000", "websocket_echo", **_IDLE_WS),
    _http2("http2-hello", "ASGI hello", "apps:hello", "8x16", (10, 12, 1.1, 1.3)),
    _http2("http2-hello-1", "ASGI hello", "apps:hello", "1x100", (10, None, 1.2, 1.3)),
    _http2("http2-hello-serial", "ASGI hello", "apps:hello", "8x1", (7, 9, 1.8, 0.9)),
    _http2("http2-app", "ASGI, 12 fields, new queries", "apps:hello", "8x16", (8, 8, 0.7, 1.1), **_APP_FIELDS),
    _http2("http2-get-10k", "ASGI 10 KB", "apps:get_10k", "8x16", (9, 11, 1.1, 1.3), length=10_240),
    _http2("http2-get-1m", "ASGI 1 MB", "apps:download_1m", "4x4", (9, 5, 1.3, 0.5), length=1_048_576),
    _http2("http2-tls", "ASGI hello over TLS", "apps:hello", "8x16", (10, None, 1.0, 2.5), tls=True),
    _http2("http2-tls-1m", "ASGI 1 MB over TLS", "apps:download_1m", "4x4", (5, None, 0.65, 0.75), length=1_048_576,
           tls=True),
    _http2("http2-wsgi-hello", "WSGI hello", "apps_wsgi:hello", "8x16", (9, 18, 0.75, 1.2)),
    _http2("http2-wsgi-1m", "WSGI 1 MB", "apps_wsgi:download_1m", "4x4", (6, 5, 1.2, 0.5), length=1_048_576),
    _asgi("http2-memory", "Memory per idle connection of 2,000", "hello", limit=8.0, **_IDLE_HTTP2),
    _balance(2),
    _balance(4),
    _wsgi("wsgi-hello", "Hello", "hello", bars={"gunicorn-gthread": 5.0, "granian": 0.5}),
    _wsgi("wsgi-get-10k", "10 KB answer", "get_10k", length=10_240),
    _wsgi("wsgi-echo-10k", "10 KB echo", "echo", **_ECHO),
    _wsgi("wsgi-download-1m", "1 MB download", "download_1m", length=1_048_576, connections=8),
    _wsgi("wsgi-generator", "Generator of 100 items", "generator", length=10_000,
          bars={"gunicorn-gthread": 3.0, "granian": 1.0}),
    _wsgi("wsgi-sleep", "10 ms sleep, 32 threads", "sleep", threads=32, connections=64, bars={"granian": 1.0}),
    _wsgi("wsgi-access-log", "Hello, access log", "hello", access_log=True),
    _wsgi("wsgi-limits", "Hello, all limits and metrics", "hello", servers=ALONE, limited=True, bars=_LIMITED_BARS),
    _framework("flask", "Flask", "with_flask:app", interface="wsgi", servers=WSGI, length=44,
               bars=WSGI_FRAMEWORK_BARS),
    _framework("django-wsgi", "Django", "with_django:wsgi", interface="wsgi", servers=WSGI, length=48,
               bars=WSGI_FRAMEWORK_BARS),
    _wsgi("wsgi-slow-clients", "Hello beside 500 slow clients", "hello", **_SLOW),
    _wsgi("wsgi-overload", "Overload of 4, 50 ms calls, answers", "sleep_50", **_OVERLOAD, measure=Measure.GOODPUT),
    _wsgi("wsgi-overload-p99", "The same, those that were answered", "sleep_50", **_OVERLOAD, measure=Measure.P99),
    _wsgi("wsgi-overload-recovery", "The same, when it ceases", "sleep_50", **_OVERLOAD, measure=Measure.RECOVERY),
    _hybrid("hybrid-asgi-hello", "ASGI hello, one of five parts", "apps_hybrid:asgi", "apps:hello",
            servers=ALONE, bars={"hybridworker-alone": 0.97}),
    _hybrid("hybrid-wsgi-hello", "WSGI hello, one of five parts", "apps_hybrid:wsgi", "apps_wsgi:hello",
            servers=ALONE, bars={"hybridworker-alone": 0.97}),
    _hybrid("hybrid-django", "Django page: WSGI in a Hybrid, ASGI elsewhere", "frameworks.with_hybrid:django",
            "frameworks.with_django:asgi",
            servers=("hybridworker", "uvicorn-worker"), length=48, bars={"uvicorn-worker": 6.0}),
    _hybrid("hybrid-flask", "Flask: in a Hybrid, by a2wsgi in Starlette elsewhere", "frameworks.with_hybrid:flask",
            "frameworks.with_a2wsgi:app", servers=(*ALONE, "uvicorn-worker"), length=44,
            bars={"hybridworker-alone": 2.0, "uvicorn-worker": 2.0}),
)  # fmt: skip


def chosen(patterns: Sequence[str]) -> list[Scenario]:
    """The scenarios that match a shell pattern, all without patterns; ValueError for a pattern that matches none."""
    for pattern in patterns:
        if not any(fnmatch.fnmatch(scenario.name, pattern) for scenario in SCENARIOS):
            names = ", ".join(scenario.name for scenario in SCENARIOS)
            raise ValueError(f"no scenario matches {pattern!r}; there are: {names}")
    return [
        scenario
        for scenario in SCENARIOS
        if not patterns or any(fnmatch.fnmatch(scenario.name, pattern) for pattern in patterns)
    ]
