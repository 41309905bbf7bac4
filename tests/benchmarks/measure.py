"""One measurement: a scenario on a server, from its start to its end, as a :class:`Sample`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.benchmarks import h2load, load
from tests.benchmarks.processes import resident
from tests.benchmarks.scenarios import Measure, Scenario
from tests.benchmarks.servers import (
    BASELINE,
    HTTP1,
    OWN,
    ROOT,
    Launch,
    Running,
    Server,
    ServerError,
    free_port,
    serving,
)

WARM_UP = 1  # seconds; wrk counts in whole ones
#: Loads that need some seconds: a reload with an import of 3 s, a queue that grows until no answer comes in time.
LEAST = {"hup": 8, "overload": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    The numbers of one measurement.

    ``value`` is the scenario's measure in its unit. Rates are per second of wall clock, ``per_cpu`` per second of CPU
    of the whole process tree of the server; ``busy`` is the share of a core the server used, ``load_busy`` that of
    the load: where the second is near 1 and the first is not, the load was the limit. ``least`` and ``most`` are the
    shares of the workers in a burst of connections, ``pages`` is the rate of the pages that were asked for beside.
    Where the servers took ``turns``, there were so many; then a second is one of its turns, and the latencies are
    those of a run of :data:`WARM_UP` seconds beforehand, for a load that is stopped has none.
    """

    value: float
    rate: float | None = None
    per_cpu: float | None = None
    p50: float | None = None
    p99: float | None = None
    max: float | None = None
    least: float | None = None
    most: float | None = None
    pages: float | None = None
    rss: float | None = None
    busy: float | None = None
    load_busy: float | None = None
    turns: int | None = None


def prepare(directory: Path, scenarios: Sequence[Scenario]) -> None:
    """Make the files that scenarios serve, and the certificate and the database where one of them needs it."""
    (directory / "50k.bin").write_bytes(b"x" * 51_200)
    with open(directory / "100m.bin", "wb") as file:
        file.truncate(100 * 1_048_576)
    h2load.write_targets(directory)
    (directory / "hypercorn.toml").write_text("keep_alive_max_requests = 1000000000\n")
    if any(scenario.tls for scenario in scenarios):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)
    if any(scenario.database for scenario in scenarios):
        command = [sys.executable, "-m", "tests.benchmarks.frameworks.with_django_shop"]
        environment = {**os.environ, "BENCHMARK_FILES": str(directory)}
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60)
        if made.returncode:
            reason = made.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"the database of the shop could not be made: {''.join(reason)}")


def launch_of(scenario: Scenario, *extra: str, server: str = BASELINE) -> Launch:
    """How a server is started for a scenario; only this worker serves its application under its settings."""
    own = server in OWN
    return Launch(
        app=scenario.app if own else scenario.peer_app or scenario.app,
        interface=scenario.interface if own else scenario.peer_interface or scenario.interface,
        port=free_port(),
        workers=scenario.workers,
        threads=1 if scenario.interface == "asgi" else scenario.threads,
        tls=scenario.tls,
        http2=scenario.http2 and server != HTTP1,
        access_log=scenario.access_log,
        bounded=scenario.bounded,
        settings=scenario.settings if own else (),
        extra=extra,
    )


def measure(scenario: Scenario, server: Server, seconds: int, directory: Path, cores: Sequence[int]) -> Sample:
    """Start the server on the first of its cores, check it, measure, and end it; :class:`ServerError` says why not."""
    cores = cores[: scenario.cores]
    with serving(server, launch_of(scenario, server=server.name), directory, cores) as running:
        first_answer = load.check(scenario, running)
        match scenario.measure:
            case Measure.STARTUP:
                return Sample(value=first_answer * 1e3, rss=mib(running))
            case Measure.REST:
                return Sample(value=mib(running), rss=mib(running))
            case Measure.CONNECTION:
                return _connections(scenario, running)
            case Measure.SHARE:
                return _shares(scenario, running)
            case _:
                return _load(scenario, server, running, seconds)


def mib(running: Running) -> float:
    """Of the worker, resident."""
    return resident(running.worker()) / 2**20


def _connections(scenario: Scenario, running: Running) -> Sample:
    """
    Resident bytes per connection of the worker alone; what the kernel holds for a socket is the same for all.

    A first tenth of the connections comes and goes beforehand, so that what the first requests of a process load and
    allocate once is not counted for connections.
    """
    with load.beside(scenario.client, running.port, scenario.connections // 10):
        pass
    worker = running.worker()
    before = resident(worker)
    with load.beside(scenario.client, running.port, scenario.connections):
        grown = resident(worker) - before
    return Sample(value=grown / 1024 / scenario.connections, rss=mib(running))


def _shares(scenario: Scenario, running: Running) -> Sample:
    least, most = load.shares(scenario, running)
    fair = scenario.connections / scenario.workers
    return Sample(value=most / fair, least=least, most=most, rss=mib(running))


def _load(scenario: Scenario, server: Server, running: Running, seconds: int) -> Sample:
    with ExitStack() as stack:
        company: dict[str, Any] = {}
        if scenario.beside:
            count = load.COMPANY[scenario.beside]
            company = stack.enter_context(load.beside(scenario.beside, running.port, count))
        # A warm-up must not block, reload or overload the workers.
        gentle = {"held": "fresh", "hup": "fresh", "overload": "wrk"}
        warm_up = replace(scenario, client=gentle.get(scenario.client, scenario.client))
        load.put_load(warm_up, running, WARM_UP)
        if scenario.client == "hup":  # the import of the new workers takes 3 s, and what comes behind it some more
            stack.callback((running.directory / "slow").unlink)
            (running.directory / "slow").touch()
        seconds = max(seconds, LEAST.get(scenario.client, 0))
        before = running.cpu_seconds()
        seen = load.put_load(scenario, running, seconds)
        used = running.cpu_seconds() - before
        rss = mib(running)
    sample = of_load(scenario, seen, used)
    if scenario.access_log:
        check_access_log(running.folder / server.access_log, seen.requests)
    return replace(sample, pages=company.get("rate"), rss=rss)


def of_load(scenario: Scenario, seen: load.Load, used: float) -> Sample:
    """What a load has shown of a server that has ``used`` so many seconds of processor time meanwhile."""
    rate = seen.requests / seen.seconds
    value = {
        Measure.P50: seen.p50,
        Measure.P99: seen.p99,
        Measure.MAX: seen.max,
        Measure.RECOVERY: seen.max,
        Measure.CPU: used / seen.requests * 1e6,
    }.get(scenario.measure, rate)
    assert value is not None  # no scenario asks for the latency of a pipeline, or of HTTP/2
    return Sample(
        value=value,
        rate=rate,
        per_cpu=seen.requests / used if used else None,
        p50=seen.p50,
        p99=seen.p99,
        max=seen.max,
        busy=used / seen.seconds,
        load_busy=seen.busy,
    )


def check_access_log(path: Path, requests: int) -> None:
    """A line per request, or as good as: a server may write the last ones later."""
    lines = 0
    if path.exists():
        with open(path, "rb") as file:
            lines = sum(1 for _ in file)
    if lines < 0.9 * requests:
        raise ServerError(f"the access log has {lines} lines for {requests} requests")


def to_json(sample: Sample) -> dict[str, Any]:
    """The fields that were measured."""
    return {name: getattr(sample, name) for name in Sample.__slots__ if getattr(sample, name) is not None}
