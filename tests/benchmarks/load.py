"""
The load: one checked request, then wrk, h2load or a client of ``clients.py``, on the core of the harness.

A number counts only if the answers were right: :func:`check` compares one answer with what the scenario expects, and
after the load any error, any status above 399 and any missing byte turns the result into a :class:`ServerError`.
"""

from __future__ import annotations

import http.client
import json
import resource
import select
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks import h2load
from tests.benchmarks.processes import spawned
from tests.benchmarks.scenarios import Scenario
from tests.benchmarks.servers import ROOT, Running, ServerError

LUA = Path(__file__).parent / "load.lua"
START_DEADLINE = 30.0

#: How many clients of a role there are beside what is measured.
COMPANY = {"trickle": 500, "download": 1, "pages": 32}

#: How the process of a load is started.
PIPES: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

#: Seconds that a call takes which a server is overloaded with.
CALL = 0.05


@dataclass(frozen=True, slots=True)
class Load:
    """
    What the load saw: times in seconds, latencies in milliseconds; ``busy`` is the share of its core it used.

    A pipeline has no latencies: wrk takes the time of a whole batch, and spoils the percentiles by its correction. Nor
    has HTTP/2: h2load gives no percentiles.
    """

    requests: int
    seconds: float
    p50: float | None
    p99: float | None
    max: float | None
    busy: float


def check(scenario: Scenario, running: Running) -> float:
    """
    Ask once and compare the answer; return the seconds from the start of the server to this answer.

    A refused connection is a server that does not listen yet. A listener of gunicorn's master accepts before its
    worker runs: then the request waits in the backlog, so no polling blurs the time.
    """
    deadline = time.perf_counter() + START_DEADLINE
    while True:
        try:
            status, body = (_ask_http2 if running.launch.http2 else _ask)(scenario, running.port)
            break
        except ConnectionError:
            if running.process.poll() is not None:
                raise ServerError(f"ended at its start: {running.log_tail()}") from None
            if time.perf_counter() > deadline:
                raise ServerError(f"no answer after {START_DEADLINE:.0f} s: {running.log_tail()}") from None
            time.sleep(0.005)
        except (OSError, http.client.HTTPException) as exc:
            raise ServerError(f"no answer: {exc!r}; {running.log_tail()}") from exc
    answered_at = time.perf_counter()
    if status != 200 or len(body) != scenario.length:
        expected = f"expected 200 with {scenario.length} bytes"
        raise ServerError(f"answered {status} with {len(body)} bytes, {expected}; {running.log_tail()}")
    if scenario.length == scenario.body and body != b"x" * scenario.body:
        raise ServerError("the echo is not what was sent")
    return answered_at - running.started_at


def _fields(scenario: Scenario) -> dict[str, str]:
    pairs = (field.partition(":") for field in scenario.headers)
    return {name: value.strip() for name, _, value in pairs}


def _ask(scenario: Scenario, port: int) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if scenario.tls:
        # The certificate is one of our own making, for this run.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=START_DEADLINE, context=context)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_DEADLINE)
    try:
        connection.request(scenario.method, scenario.path, b"x" * scenario.body or None, _fields(scenario))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _ask_http2(scenario: Scenario, port: int) -> tuple[int, bytes]:
    """By prior knowledge, or what TLS has agreed on."""
    url = f"{'https' if scenario.tls else 'http'}://127.0.0.1:{port}{scenario.path}"
    try:
        with httpx.Client(http1=False, http2=True, verify=False, timeout=START_DEADLINE) as client:
            body = b"x" * scenario.body or None
            response = client.request(scenario.method, url, content=body, headers=_fields(scenario))
            return response.status_code, response.content
    except httpx.ConnectError as exc:
        raise ConnectionRefusedError(str(exc)) from exc
    except httpx.HTTPError as exc:
        raise OSError(repr(exc)) from exc


# -- load that runs for a time


def put_load(scenario: Scenario, running: Running, seconds: int) -> Load:
    """Keep the server busy for some seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with spawned(command(scenario, running, seconds), **PIPES) as process:
        result = outcome(scenario, process, seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seen(scenario, result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def command(scenario: Scenario, running: Running, seconds: int) -> list[str]:
    """The process that keeps the server busy for some seconds."""
    port = running.port
    if scenario.client == "h2load":
        return _h2load(scenario, running, seconds)
    if scenario.client == "wrk":
        return _wrk(scenario, port, seconds)
    if scenario.client == "overload":
        capacity = scenario.threads / CALL
        return [sys.executable, "-m", "tests.benchmarks.overload", str(port), str(capacity), str(seconds)]
    if scenario.workers > 1:
        return _group(scenario.client, scenario, running, seconds)
    return _client(scenario.client, port, scenario.connections, str(seconds), scenario.path)


def outcome(scenario: Scenario, process: subprocess.Popen[bytes], seconds: int) -> dict[str, Any]:
    """What the process of a load reports at its end, which is to come in so many seconds."""
    try:
        output, errors = process.communicate(timeout=seconds + START_DEADLINE + 30)
    except subprocess.TimeoutExpired:
        raise ServerError("the load did not come to its end") from None
    if process.returncode:
        reason = (errors or output).decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise ServerError(f"load failed: {reason[0]}")
    text = output.decode(errors="replace")
    try:
        if scenario.client == "h2load":
            return h2load.read(text, seconds)
        result: dict[str, Any] = json.loads(text.splitlines()[-1])
        return result
    except (ValueError, IndexError):
        raise ServerError("the load has reported nothing") from None


def seen(scenario: Scenario, result: dict[str, Any], used: float) -> Load:
    """A report, if all answers were right, and the processor time that the load has used; else :class:`ServerError`."""
    problems = ", ".join(f"{count} {kind}" for kind, count in result["errors"].items() if count)
    if problems:
        raise ServerError(f"errors under load: {problems}")
    if not result["requests"]:
        raise ServerError("not one answer under load")
    if result["bytes"] < result["requests"] * scenario.length and scenario.client in ("wrk", "h2load"):
        raise ServerError("answers under load were shorter than the one that was checked")
    p50, p99, most = (result[name] if scenario.pipeline == 1 else None for name in ("p50", "p99", "max"))
    return Load(result["requests"], result["seconds"], p50, p99, most, used / result["seconds"])


def shares(scenario: Scenario, running: Running) -> tuple[int, int]:
    """How many connections of a burst the workers got, at least and at most."""
    with spawned(_group(scenario.client, scenario, running, 0), **PIPES) as process:
        result = outcome(scenario, process, 30)
    return result["least"], result["most"]


def _h2load(scenario: Scenario, running: Running, seconds: int) -> list[str]:
    """HTTP/1.1 gets a connection for each stream."""
    url = f"{'https' if scenario.tls else 'http'}://127.0.0.1:{running.port}{scenario.path}"
    http2 = running.launch.http2
    return h2load.command(
        url,
        scenario.connections if http2 else scenario.connections * scenario.streams,
        scenario.streams if http2 else 0,
        seconds,
        fields=tuple(scenario.headers),
        targets=running.directory / h2load.TARGET_FILE if scenario.varied else None,
    )


def _wrk(scenario: Scenario, port: int, seconds: int) -> list[str]:
    scheme = "https" if scenario.tls else "http"
    options = ["--threads", "1", "--connections", str(scenario.connections), "--duration", f"{seconds}s"]
    options += ["--timeout", "60s", "--script", str(LUA)]
    for header in scenario.headers:
        options += ["--header", header]
    script = [scenario.method, str(scenario.body), str(scenario.pipeline)]
    return ["wrk", *options, f"{scheme}://127.0.0.1:{port}{scenario.path}", "--", *script]


def _client(role: str, port: int, connections: int, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.clients", role, str(port), str(connections), *arguments]


def _group(role: str, scenario: Scenario, running: Running, seconds: int) -> list[str]:
    numbers = (running.port, scenario.connections, seconds, scenario.workers, running.process.pid)
    return [sys.executable, "-m", "tests.benchmarks.groups", role, *map(str, numbers)]


# -- clients that are there while something else is measured


@contextmanager
def beside(role: str, port: int, connections: int) -> Iterator[dict[str, Any]]:
    """
    Have the clients of a role connected meanwhile; what they report is in the dictionary when they have gone.

    They announce themselves when all are connected, stay until their standard input ends, and then report; a report
    of lost connections is a :class:`ServerError`, for the measurement was not what it says.
    """
    report: dict[str, Any] = {}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with spawned(_client(role, port, connections), cwd=ROOT, **pipes) as process:
        assert process.stdout and process.stderr
        ready, _, _ = select.select([process.stdout], [], [], START_DEADLINE)
        if not ready or not process.stdout.readline():
            process.send_signal(signal.SIGTERM)
            reason = process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            raise ServerError(f"{role}: could not connect {connections} clients; {''.join(reason)}")
        yield report
        try:
            output, _ = process.communicate(timeout=START_DEADLINE)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{role}: the clients did not come to their end") from None
        try:
            report |= json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            raise ServerError(f"{role}: the clients have reported nothing") from None
        if report["lost"]:
            raise ServerError(f"{role}: {report['lost']} of {connections} connections were lost meanwhile")
