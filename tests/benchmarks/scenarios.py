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
ASGI_PEERS = ("hybridworker", "uvicorn-worker", "gunicorn-asgi", "granian")
#: Hypercorn is slow everywhere, and tells little more in every scenario than in some.
ALL_ASGI_PEERS = (*ASGI_PEERS, "hypercorn")
#: This worker with the peer's application: what the Hybrid itself costs, or saves.
ALONE = ("hybridworker", "hybridworker-alone")
GROUP = ("hybridworker", "uvicorn-worker", "gunicorn-asgi")
WSGI = ("hybridworker", "gunicorn-gthread", "granian")
#: The sync worker, too, which serves one request per connection.
ALL_WSGI = ("hybridworker", "gunicorn-gthread", "gunicorn-sync", "granian")
FRAMEWORK_BARS = {"uvicorn-worker": 1.1}
ASGI_BARS = {"uvicorn-worker": 1.2, "granian": 1.0}
WSGI_FRAMEWORK_BARS = {"gunicorn-gthread": 1.5, "granian": 0.9}


class Measure(Enum):
    """The number a scenario is about; the value is its unit in the tables."""

    RATE = "requests/s"
    MESSAGES = "messages/s"
    P50 = "ms, p50"
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

    @property
    def relative(self) -> bool:
        """Whether its table compares: a throughput tells something beside another one, a latency by itself."""
        return self.more_is_better or self is Measure.CPU

    @property
    def field(self) -> str:
        """Where a sample has it, beside the one measure that its scenario is about."""
        return {Measure.P50: "p50", Measure.P99: "p99", Measure.MAX: "max", Measure.RECOVERY: "max"}[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    One scenario.

    ``measure`` is what it is about, ``also`` what the same load shows beside that: tables have rows for both.
    ``peer_app`` is what the peers serve where they cannot serve ``app``, or where that is what is compared, and
    ``peer_interface`` how it is called.
    ``length`` is the length of a right answer's body, checked by one request before the load. ``client`` names the
    role of ``clients.py``, or with several ``workers`` of ``groups.py``, that makes the load where wrk does not,
    ``beside`` the one that disturbs it meanwhile.
    ``streams`` is how many requests h2load has under way on each connection of HTTP/2; zero means HTTP/1.1. ``varied``
    gives each of them a query of its own.
    ``cores`` is on how many the server runs: with two, one of which it may have to share with the load, several
    workers show how they scale, with one how they share.
    ``settings`` are variables of this worker, without their prefix; its own form beside it has none. ``bounded`` has
    granian queue no more than a second.
    ``bars`` maps a server to the least ratio to it that this worker has to show, ``limit`` bounds this worker's own
    value.
    """

    name: str
    title: str
    app: str
    peer_app: str | None = None
    peer_interface: str | None = None
    interface: str = "asgi"
    servers: Sequence[str] = ASGI_PEERS
    measure: Measure = Measure.RATE
    also: Sequence[Measure] = ()
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
    cores: int = 1
    threads: int = 8
    tls: bool = False
    access_log: bool = False
    bounded: bool = False
    settings: Sequence[str] = ()

    @property
    def http2(self) -> bool:
        """Whether the servers are to speak HTTP/2."""
        return self.streams > 0

    @property
    def measures(self) -> Sequence[Measure]:
        """All that it has rows for."""
        return (self.measure, *self.also)

    @property
    def takes_turns(self) -> bool:
        """
        Whether its servers take turns (``turns.py``): a throughput under one load that runs for a time.

        What sleeps would do so while it is stopped.
        """
        steady = self.client in ("wrk", "h2load", "echo", "echo-plain", "broadcast") and self.beside is None
        throughput = self.measure in (Measure.RATE, Measure.MESSAGES, Measure.CPU)
        return steady and throughput and not self.app.endswith(":sleep")

    @property
    def database(self) -> bool:
        """Whether the shop's database has to be there."""
        return any("django_" in (app or "") for app in (self.app, self.peer_app))

    @property
    def hybrid(self) -> bool:
        """Whether this worker serves a Hybrid."""
        return "hybrid" in self.app

    @property
    def table(self) -> str:
        """In which table of throughput it stands."""
        if self.http2 and self.workers == 1:
            return "http/2"
        return "applications" if self.app.startswith("tests.benchmarks.frameworks.") else self.interface


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


def _shop(name: str, title: str, app: str, **options: object) -> Scenario:
    """A real application. With ``workers`` it has both cores, and is compared with those that are near."""
    interface = options.get("interface", "asgi")
    if options.get("workers", 1) == 2:
        servers = ("hybridworker", "gunicorn-gthread" if interface == "wsgi" else "uvicorn-worker", "granian")
        options = {"cores": 2, "servers": servers, **options}
    elif interface == "wsgi":
        options = {"servers": WSGI, **options}
    return _framework(name, title, app, **options)


def _probe(name: str, title: str, **options: object) -> Scenario:
    """How long one waits who asks now and then, while 8 threads are busy with pages of Django."""
    options = {"client": "probe", "beside": "pages", "measure": Measure.P99, "also": (Measure.P50,), **options}
    options = {"connections": 2, "settings": ("HEALTH_PATH=/health",), "bars": {}, **options}
    return _hybrid(name, title, "frameworks.mounted:django_in_hybrid", **options)  # type: ignore[arg-type]


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
#: Everything that is looked at for each request, with the numbers of the README.
_LIMITS = (
    "REQUEST_TIMEOUT=30",
    "QUEUE_TIMEOUT=5",
    "REQUESTS_MAX=200",
    "LIMIT_REQUEST_BODY=10485760",
    "SLOW_REQUEST=5",
    "METRICS_PATH=/metrics",
)
_LIMITED = {"servers": ALONE, "settings": _LIMITS, "bars": {"hybridworker-alone": 0.98}}
#: Page, session and user of ``with_django_shop.py``.
_CUSTOMER = {
    "headers": ("Cookie: sessionid=0123456789abcdefghijklmnopqrstuv",),
    "length": 1_807,
    "connections": 16,
}
_ITEMS = {
    "path": "/shops/7/items?limit=20&order=price&in_stock=true",
    "headers": ("Authorization: Bearer not-a-secret",),
    "length": 1_850,
}
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
    "settings": ("QUEUE_TIMEOUT=1",),
    "connections": 8,
    "bars": {},
}

SCENARIOS: tuple[Scenario, ...] = (
    _asgi("asgi-hello", "Hello", "hello", servers=ASGI, bars=_HELLO_BARS),
    _asgi("asgi-get-10k", "10 KB answer", "get_10k", length=10_240),
    _asgi("asgi-echo-10k", "10 KB echo", "echo", **_ECHO),
    _asgi("asgi-download-1m", "1 MB download", "download_1m", length=1_048_576, connections=8),
    _asgi("asgi-upload-1m", "1 MB upload", "upload", method="POST", body=1_048_576, length=7, connections=8),
    _asgi("asgi-stream", "Stream of 100 chunks", "stream", length=10_000, servers=ALL_ASGI_PEERS),
    _asgi("asgi-sleep", "10 ms sleep, 256 connections", "sleep", connections=256),
    _asgi("asgi-pipeline", "Pipeline, 16 deep", "hello", servers=ASGI, pipeline=16),
    _asgi("asgi-close", "A connection per request", "hello", servers=ASGI, headers=_CLOSE),
    _asgi("asgi-tls", "Hello over TLS", "hello", tls=True),
    _asgi("asgi-access-log", "Hello, access log", "hello", access_log=True,
          bars={"uvicorn-worker": 1.3, "gunicorn-asgi": 2.0}),
    _asgi("asgi-limits", "Hello, all limits and metrics", "hello", **_LIMITED),
    _framework("starlette", "Starlette, JSON", "with_starlette:app", length=43, bars=FRAMEWORK_BARS),
    _framework("django-asgi", "Django, JSON by an async view, no middleware", "with_django:asgi", path="/async",
               length=48, bars=FRAMEWORK_BARS),
    _framework("file-50k", "50 KB file (Starlette)", "with_starlette:app", path="/50k", length=51_200,
               bars={"uvicorn-worker": 1.5}),
    _shop("shop-fastapi", "FastAPI shop", "with_fastapi_shop:app", **_ITEMS, servers=ALL_ASGI_PEERS,
          bars=FRAMEWORK_BARS),
    _shop("shop-fastapi-2", "FastAPI shop, 2 workers", "with_fastapi_shop:app", **_ITEMS, workers=2),
    _shop("shop-django-asgi", "Django shop, ASGI", "with_django_shop:asgi", **_CUSTOMER),
    _asgi("websocket-echo", "WebSocket echo, deflate offered", "websocket_echo", **_WS, servers=ALL_ASGI_PEERS),
    _asgi("websocket-echo-plain", "WebSocket echo, no deflate", "websocket_echo", **{**_WS, "client": "echo-plain"}),
    _asgi("websocket-broadcast", "WebSocket broadcast to 100", "websocket_broadcast", **_BROADCAST),
    _connections(8),
    _connections(512),
    _connections(2_000),
    _asgi("slow-clients", "ASGI hello beside 500 slow clients", "hello", **_SLOW),
    _framework("download-beside", "Hello beside a 100 MB download", "with_starlette:app", path="/hello",
               **{**_P99, "beside": "download"}),
    _burst(64, 2),
    _burst(64, 4),
    _burst(1_000, 2),
    _burst(1_000, 4),
    _group("close", "A connection per request, 2 workers", headers=_CLOSE, bars={"uvicorn-worker": 1.0}),
    _group("held", "New connections, one of 2 workers blocked", client="held", measure=Measure.P99, connections=4),
    _group("hup", "Reload of 2 workers, import takes 3 s", client="hup", measure=Measure.MAX, connections=8),
    _asgi("startup", "Start to first answer", "hello", measure=Measure.STARTUP, servers=ALL_ASGI_PEERS, bars={}),
    _asgi("memory-rest", "Memory of a worker at rest", "hello", measure=Measure.REST, bars={"uvicorn-worker": 1.0}),
    _asgi("memory-idle", "Memory per idle connection of 5,000", "hello", servers=ALL_ASGI_PEERS, limit=5.0, **_IDLE),
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
    _wsgi("wsgi-hello", "Hello", "hello", servers=ALL_WSGI, bars={"gunicorn-gthread": 5.0, "granian": 0.5}),
    _wsgi("wsgi-get-10k", "10 KB answer", "get_10k", length=10_240),
    _wsgi("wsgi-echo-10k", "10 KB echo", "echo", **_ECHO),
    _wsgi("wsgi-download-1m", "1 MB download", "download_1m", length=1_048_576, connections=8),
    _wsgi("wsgi-generator", "Generator of 100 items", "generator", length=10_000,
          bars={"gunicorn-gthread": 3.0, "granian": 1.0}),
    _wsgi("wsgi-sleep", "10 ms sleep, 32 threads", "sleep", threads=32, connections=64, bars={"granian": 1.0}),
    _wsgi("wsgi-access-log", "Hello, access log", "hello", access_log=True),
    _wsgi("wsgi-limits", "Hello, all limits and metrics", "hello", **_LIMITED),
    _framework("flask", "Flask, JSON", "with_flask:app", interface="wsgi", servers=WSGI, length=44,
               bars=WSGI_FRAMEWORK_BARS),
    _framework("django-wsgi", "Django, JSON by WSGI, no middleware", "with_django:wsgi", interface="wsgi",
               servers=WSGI, length=48, bars=WSGI_FRAMEWORK_BARS),
    _shop("shop-flask", "Flask shop", "with_flask_shop:app", interface="wsgi", length=2_308, servers=ALL_WSGI,
          bars=WSGI_FRAMEWORK_BARS),
    _shop("shop-flask-2", "Flask shop, 2 workers", "with_flask_shop:app", interface="wsgi", length=2_308, workers=2),
    _shop("shop-django-wsgi", "Django shop, WSGI", "with_django_shop:wsgi", interface="wsgi", **_CUSTOMER,
          servers=ALL_WSGI, bars=WSGI_FRAMEWORK_BARS),
    _shop("shop-django-wsgi-2", "Django shop, WSGI, 2 workers", "with_django_shop:wsgi", interface="wsgi", **_CUSTOMER,
          workers=2),
    _wsgi("wsgi-slow-clients", "WSGI hello beside 500 slow clients", "hello", **_SLOW),
    _wsgi("wsgi-overload", "4 times too many calls of 50 ms", "sleep_50", **_OVERLOAD, measure=Measure.GOODPUT,
          also=(Measure.P99, Measure.RECOVERY)),
    _hybrid("hybrid-asgi-hello", "ASGI hello, one of five parts", "apps_hybrid:asgi", "apps:hello",
            servers=ALONE, bars={"hybridworker-alone": 0.97}),
    _hybrid("hybrid-wsgi-hello", "WSGI hello, one of five parts", "apps_hybrid:wsgi", "apps_wsgi:hello",
            servers=ALONE, bars={"hybridworker-alone": 0.97}),
    _hybrid("shop-django-hybrid", "Django shop: WSGI in a Hybrid, ASGI elsewhere",
            "frameworks.mounted:django_in_hybrid", "frameworks.with_django_shop:asgi", **_CUSTOMER,
            servers=("hybridworker", "uvicorn-worker")),
    _hybrid("shop-django-hybrid-2", "The same, 2 workers", "frameworks.mounted:django_in_hybrid",
            "frameworks.with_django_shop:asgi", **_CUSTOMER, servers=("hybridworker", "uvicorn-worker"), workers=2,
            cores=2),
    _hybrid("shop-flask-hybrid", "Flask shop: in a Hybrid, by a2wsgi in Starlette elsewhere",
            "frameworks.mounted:flask_in_hybrid", "frameworks.mounted:flask_in_starlette", length=2_308,
            servers=(*ALONE, "uvicorn-worker"), bars={"hybridworker-alone": 2.0, "uvicorn-worker": 2.0}),
    _probe("probe-health", "Health, 8 threads busy with Django", peer_app="frameworks.with_django_shop:wsgi",
           peer_interface="wsgi", path="/health", length=3, servers=WSGI),
    _probe("probe-asgi", "ASGI route, 8 threads busy with Django", peer_app="frameworks.mounted:django_in_starlette",
           path="/hello", servers=("hybridworker", "uvicorn-worker")),
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
