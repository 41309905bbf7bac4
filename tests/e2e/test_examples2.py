"""The examples that need more than gunicorn: a Redis beside it, or a second port."""

from __future__ import annotations

import json
import re
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Gunicorn, Servers, arguments
from tests.e2e.programs import Programs, free_port
from tests.e2e.test_examples import EXAMPLES, command

pytestmark = pytest.mark.e2e


def start(gunicorn: Servers, name: str, workers: int, env: dict[str, str]) -> Gunicorn:
    """Run the command of an example on a free port, with an environment."""
    *options, app = command(EXAMPLES / name)
    argv = arguments(app, [*options, "--bind", "127.0.0.1:0"], "hybridworker.Worker", workers)
    server = Gunicorn(argv, gunicorn.folder(), cwd=ROOT, env=env)
    gunicorn.started.append(server)
    return server.wait_ready(workers)


def test_channels_broadcast_across_processes(programs: Programs, gunicorn: Servers) -> None:
    """What is said in one worker is heard in the other, through Redis."""
    # Redis is asked for first, so that it ends last: workers that lose it complain.
    websockets = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    pytest.importorskip("channels_redis", "4.3", reason="needs channels-redis 4.3: earlier ones leave connections open")
    redis = programs.redis()
    server = start(gunicorn, "channels_app.py", 2, {"REDIS_URL": f"redis://127.0.0.1:{redis.port}/0"})
    assert "new WebSocket" in server.request().text
    # Whichever worker accepts the first, sooner or later the other one accepts one as well.
    with ExitStack() as stack:
        people: dict[int, Any] = {}
        for _ in range(100):
            person = stack.enter_context(websockets.connect(f"ws://127.0.0.1:{server.port}/chat", proxy=None))
            welcome = json.loads(person.recv())
            assert welcome["text"] == "welcome"
            people.setdefault(welcome["pid"], person)
            if len(people) == 2:
                break
        assert sorted(people) == server.worker_pids()
        for pid, person in people.items():
            person.send(f"hello from {pid}")
            for hearer in people.values():
                assert json.loads(hearer.recv()) == {"pid": pid, "text": f"hello from {pid}"}


def scrape(port: int) -> dict[str, float]:
    """The samples of a page of metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        text = page.read().decode()
    samples = re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
    assert len(samples) == len([line for line in text.splitlines() if not line.startswith("#")])
    return {name: float(value) for name, value in samples}


def test_metrics_by_hooks(gunicorn: Servers) -> None:
    """Whichever worker answers counts for all: by class, in buckets that grow, and beside the worker's own page."""
    port = free_port()
    server = start(gunicorn, "metrics.conf.py", 2, {"METRICS_PORT": str(port)})
    for path in ("/", "/", "/", "/nothing"):
        server.request(path)
    name = "app_request_seconds"

    def counted() -> dict[str, float] | None:
        samples = scrape(port)
        return samples if samples[f'{name}_count{{status="4xx"}}'] == 1 else None

    samples = server.wait_for(counted, "the last request to be counted")  # post_request comes after the response
    assert samples[f'{name}_count{{status="2xx"}}'] == 3
    assert samples[f'{name}_sum{{status="2xx"}}'] > 0
    buckets = [value for key, value in samples.items() if key.startswith(f'{name}_bucket{{status="2xx"')]
    assert buckets == sorted(buckets)
    assert buckets[-1] == 3
    # The worker's own counts reach the scoreboard once a second.
    server.wait_for(
        lambda: scrape(server.port)['hybridworker_requests_total{status="4xx"}'] >= 1, "the worker's own count"
    )


def test_django_both_ways(gunicorn: Servers, tmp_path: Path) -> None:
    """Pages with a database in threads, events and a WebSocket on the loop, in one worker."""
    websockets = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    server = start(gunicorn, "hybrid_django.py", 1, {"DATABASE": str(tmp_path / "visits.sqlite3")})
    assert "<output>1</output>" in server.request().text
    with server.connect() as stream:
        stream.start("/events")
        assert stream.head()[0] == 200
        assert stream.chunk() == b"data: 1\n\n"
        assert "<output>2</output>" in server.request().text
        assert stream.chunk() == b"data: 2\n\n"
    with websockets.connect(f"ws://127.0.0.1:{server.port}/echo", proxy=None) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
    server.wait_log(r"Serving WSGI application hybrid_django:app, default")


def test_flask_and_fastapi_side_by_side(gunicorn: Servers) -> None:
    """Each knows its own URLs."""
    server = start(gunicorn, "hybrid_migration.py", 1, {})
    assert json.loads(server.request().body) == {"hello": "Flask", "new": "/api/v2/items", "old": "/api/v1/items"}
    assert json.loads(server.request("/api/v1/items").body) == ["tea"]
    assert json.loads(server.request("/api/v2/items").body) == ["tea", "coffee"]
    assert json.loads(server.request("/api/v2/self").body) == {"items": "http://localhost/api/v2/items"}
    assert "/api/v2/openapi.json" in server.request("/api/v2/docs").text
