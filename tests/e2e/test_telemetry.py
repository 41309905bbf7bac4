"""The recipes for OpenTelemetry and Prometheus, with the libraries themselves and two workers each."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import ROOT, Gunicorn, Servers

pytestmark = pytest.mark.e2e

EXAMPLES = ROOT / "examples"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(ThreadingHTTPServer):
    """Takes OTLP by HTTP, and keeps the spans: the pid that sent each, its trace id and its name."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, str, str]] = []
        super().__init__(("127.0.0.1", 0), Exports)


class Exports(BaseHTTPRequestHandler):
    """One export of spans."""

    server: Collector

    def do_POST(self) -> None:
        """Read the spans."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        request = service.ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in request.resource_spans:
            (pid,) = (pair.value.int_value for pair in resource.resource.attributes if pair.key == "process.pid")
            for scope in resource.scope_spans:
                self.server.spans.extend((pid, span.trace_id.hex(), span.name) for span in scope.spans)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in this process."""
    pytest.importorskip("opentelemetry.proto", reason="opentelemetry is not installed")
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def started(gunicorn: Servers, conf: str, app: str, chdir: Path, env: dict[str, str]) -> Gunicorn:
    """An example with its own configuration, on a free port."""
    options = ("-c", str(EXAMPLES / conf), "--chdir", str(chdir), "--bind", "127.0.0.1:0")
    return gunicorn(app, *options, env=env, workers=2, dirty=True)


@pytest.mark.parametrize(
    ("app", "folder"), [("project.wsgi", "django_project"), ("fastapi_app:app", "")], ids=["django", "fastapi"]
)
def test_spans_come_from_each_worker(gunicorn: Servers, collector: Collector, app: str, folder: str) -> None:
    """Their trace ids are in the access lines, be they made by the application or sent by the client."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRICS_EXPORTER": "none",
    }
    server = started(gunicorn, "opentelemetry.conf.py", app, EXAMPLES / folder, env)
    pids = set(server.worker_pids())

    def seen() -> bool:
        assert server.request("/").status == 200
        return {pid for pid, _, _ in collector.spans} >= pids

    server.wait_for(seen, "spans of both workers")
    server.request("/", headers=f"traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n")
    server.wait_for(lambda: [span for span in collector.spans if span[1] == TRACE], "the span of the client's trace")
    assert all(name.startswith("GET") for _, _, name in collector.spans)
    server.wait_log(rf'"GET / HTTP/1\.1" 200 \d+ us, trace 00-{TRACE}-[0-9a-f]{{16}}-0\d$')
    for _, trace, _ in list(collector.spans):
        server.wait_log(rf"trace 00-{trace}-[0-9a-f]{{16}}-0\d$")
    assert "Traceback" not in server.log()


def test_counters_of_all_workers(gunicorn: Servers, tmp_path: Path) -> None:
    """Whichever answers; those of a worker that has ended stay, and its gauges go."""
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    folder = tmp_path / "values"
    folder.mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    server = started(gunicorn, "prometheus.conf.py", "prometheus_app:app", EXAMPLES, env)
    sent = 0

    def sample(name: str) -> float:
        match = re.search(rf"^{name} (\S+)$", server.request("/metrics").text, re.MULTILINE)
        return 0.0 if match is None else float(match[1])

    def both() -> bool:
        nonlocal sent
        assert server.request("/").text == "thank you\n"
        sent += 1
        return sample("app_workers") == 2.0

    server.wait_for(both, "both workers to have taken an order")
    orders = 'app_orders_total{kind="tea"}'
    assert sample(re.escape(orders)) == sample("app_order_seconds_count") == sent
    gone, stays = server.worker_pids()
    server.signal(signal.SIGTERM, gone)
    server.wait_workers(lambda pids: gone not in pids and len(pids) == 2 and stays in pids, "a worker to be replaced")
    server.wait_for(lambda: sample("app_workers") == 1.0, "the gauge of the worker to go")
    assert sample(re.escape(orders)) == sent
    assert server.stop() == 0
    assert not folder.exists()
    assert '"GET /metrics ' not in server.log()
