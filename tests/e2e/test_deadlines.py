"""HYBRIDWORKER_REQUEST_TIMEOUT and HYBRIDWORKER_SLOW_REQUEST: nothing hangs unseen."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

import hybridworker
from tests.e2e.client import Client, Response
from tests.e2e.harness import HOOKS, Gunicorn, Servers

pytestmark = pytest.mark.e2e

#: Application, the prefix of its paths.
ASGI, WSGI = ("asgi", ""), ("wsgi", "")
HYBRID = pytest.mark.skipif(not hasattr(hybridworker, "Hybrid"), reason="there is no Hybrid")
EACH = pytest.mark.parametrize(
    ("app", "prefix"),
    [
        pytest.param(*ASGI, id="asgi"),
        pytest.param(*WSGI, id="wsgi"),
        pytest.param("hybrid", "/asgi", id="hybrid-asgi", marks=HYBRID),
        pytest.param("hybrid", "", id="hybrid-wsgi", marks=HYBRID),
    ],
)

#: What the access log says of a request: its path, status, and microseconds.
FORMAT = "access %(U)s %(s)s %(D)s"


def start(gunicorn: Servers, app: str, *args: str, **variables: str) -> Gunicorn:
    """A worker whose requests have a second."""
    env = {"REQUEST_TIMEOUT": "1", **variables}
    access = ("--access-logfile", "-", "--access-logformat", FORMAT)
    return gunicorn(
        f"late:{app}",
        *("--threads", "3", "--log-level", "debug", *access, *args),
        env={f"HYBRIDWORKER_{name}": value for name, value in env.items()},
    )


def assert_timed_out(response: Response) -> None:
    """An error page as any other, after which the connection ends."""
    assert (response.status, response.reason, response.header("Connection")) == (504, "Gateway Timeout", "close")
    assert "<h1>Gateway Timeout</h1>" in response.text


@EACH
def test_a_request_that_takes_too_long_gets_a_504(gunicorn: Servers, app: str, prefix: str) -> None:
    """The client is answered, the access log has the status and the true duration, and the worker serves on."""
    server = start(gunicorn, app)
    with server.connect() as client:
        assert_timed_out(client.request(f"{prefix}/sleep"))
        assert client.at_end()
    assert server.request(f"{prefix}/").text == "hello"
    took = int(server.wait_log(rf"access {prefix}/sleep 504 (\d+)")[1])
    assert 1e6 <= took < 10e6
    server.open("sleep")
    if app == "asgi" or prefix:
        ended = r"was ended by HYBRIDWORKER_REQUEST_TIMEOUT after \d\.\d s\n(.*\n)*?.*late\.py"
        server.wait_log(rf"GET {prefix}/sleep(, part \S+)? {ended}")
        server.wait_log("^cancelled$")
    else:
        server.wait_log(
            r"GET /sleep(, part \S+)? has been in thread hybridworker-wsgi-\d+ for \d\.\d s, which is lost(.*\n)+.*late"
        )
        server.wait_log("too late: HYBRIDWORKER_REQUEST_TIMEOUT has passed")


@EACH
def test_a_response_that_has_begun_may_take_its_time(gunicorn: Servers, app: str, prefix: str) -> None:
    """A stream needs no exception."""
    server = start(gunicorn, app)
    with server.connect() as client:
        client.start(f"{prefix}/stream")
        client.head()
        assert client.chunk() == b"a"
        assert_timed_out(server.request(f"{prefix}/sleep"))
        server.open("sleep")
        server.open("stream")
        assert [client.chunk(), client.chunk()] == [b"b", b""]


@EACH
def test_a_head_that_is_held_back_is_no_response(gunicorn: Servers, app: str, prefix: str) -> None:
    """Nothing is sent before the body begins, so the client can still be told."""
    server = start(gunicorn, app)
    assert_timed_out(server.request(f"{prefix}/started"))
    server.open("started")


@EACH
def test_the_clock_stands_while_the_body_comes_in(gunicorn: Servers, app: str, prefix: str) -> None:
    """An upload has time-outs of its own."""
    server = start(gunicorn, app)
    size = 200_000
    with server.connect() as client:
        client.send(f"POST {prefix}/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n")
        client.send(b"x" * 70_000)
        server.wait_log(f"begins {prefix}/upload")
        for _ in range(2):
            assert_timed_out(server.request(f"{prefix}/sleep"))
        client.send(b"x" * (size - 70_000))
        assert client.response().text == str(size)
    server.open("sleep")


@EACH
def test_what_is_pipelined_behind_a_504_is_not_begun(gunicorn: Servers, app: str, prefix: str) -> None:
    """The connection ends with the 504, which says so."""
    server = start(gunicorn, app)
    with server.connect() as client:
        client.start(f"{prefix}/sleep")
        client.start(f"{prefix}/")
        assert_timed_out(client.response())
        assert client.at_end()
    server.open("sleep")
    assert f"begins {prefix}/\n" not in server.log()


@EACH
def test_a_client_that_has_left_is_no_reason_to_forget_its_request(gunicorn: Servers, app: str, prefix: str) -> None:
    """It is ended all the same, and a thread that it holds is lost."""
    server = start(gunicorn, app)
    with server.connect() as client:
        client.start(f"{prefix}/sleep")
        server.wait_log("gate sleep reached")
        client.reset()
    if app == "asgi" or prefix:
        server.wait_log("^cancelled$")
    else:
        server.wait_log(
            r"GET /sleep(, part \S+)? has been in thread .* which is lost until it returns: its client has gone"
        )
    server.open("sleep")
    assert server.request(f"{prefix}/").text == "hello"


@EACH
def test_a_drain_does_not_wait_for_what_is_timed_out(gunicorn: Servers, app: str, prefix: str) -> None:
    """The client gets its 504, and the worker goes."""
    server = start(gunicorn, app)
    with server.connect() as client:
        client.start(f"{prefix}/sleep")
        server.wait_log("gate sleep reached")
        server.signal(15)
        assert_timed_out(client.response())
    assert server.wait() == 0
    assert "requests were not finished" not in server.log()


@pytest.mark.parametrize("app", ["asgi", pytest.param("hybrid", marks=HYBRID)])
def test_a_call_that_swallows_its_cancellation(gunicorn: Servers, app: str) -> None:
    """It is reported once, with its stack, and so is its answer, which comes too late."""
    server = start(gunicorn, app)
    prefix = "" if app == "asgi" else "/asgi"
    assert_timed_out(server.request(f"{prefix}/swallow"))
    goes_on = r"goes on although HYBRIDWORKER_REQUEST_TIMEOUT has cancelled it\n(.*\n)*.*swallow"
    server.wait_log(rf"GET {prefix}/swallow(, part \S+)? {goes_on}")
    server.open("swallow")
    server.wait_log(rf"GET {prefix}/swallow(, part \S+)? answered \d\.\d s after its 504")
    assert server.log().count("goes on although") == 1
    assert server.log().count("\nswallowed\n") == 1


def test_a_call_that_waits_for_an_executor(gunicorn: Servers) -> None:
    """The thread goes on, and nobody waits for it."""
    server = start(gunicorn, "asgi")
    assert_timed_out(server.request("/executor"))
    assert server.request("/").text == "hello"
    server.open("executor")
    server.wait_log("executor returns")


def test_a_loop_that_is_blocked_answers_when_it_turns_again(gunicorn: Servers) -> None:
    """It cannot in time. What is ready by then is sent before anybody is told that it is late, and so is its own."""
    server = start(gunicorn, "asgi")
    with server.connect() as ready, server.connect() as blocking, server.connect() as late:
        ready.start("/executor")
        late.start("/sleep")
        server.wait_log("gate executor reached")
        server.wait_log("gate sleep reached")
        blocking.start("/block")
        server.wait_log("gate block reached")
        since = time.monotonic()
        server.wait_for(lambda: time.monotonic() > since + 2.5, "all of them to be late")
        server.open("executor")
        server.wait_log("executor returns")
        server.open("block")
        assert blocking.response().text == "blocked"
        assert ready.response().text == "blocked"
        assert_timed_out(late.response())
    assert server.request("/").text == "hello"


@EACH
def test_an_upload_that_stalls_has_the_time_outs_of_bodies(gunicorn: Servers, app: str, prefix: str) -> None:
    """A 400 after ``timeout``, and no 504 before it."""
    server = start(gunicorn, app, "--timeout", "4")
    with server.connect() as client:
        client.send(f"POST {prefix}/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n")
        client.send(b"x" * 70_000)
        server.wait_log(f"begins {prefix}/upload")
        assert client.response().status == 400
    assert server.request(f"{prefix}/").text == "hello"


@EACH
def test_a_stream_that_is_left_is_not_late(gunicorn: Servers, app: str, prefix: str) -> None:
    """Its first byte was in time, so neither is it reported, nor is its thread lost."""
    server = start(gunicorn, app, "--threads", "1", METRICS_PATH="/metrics")
    (pid,) = server.worker_pids()
    with server.connect() as client:
        client.start(f"{prefix}/stream")
        client.head()
        assert client.chunk() == b"a"
        if app == "asgi":
            assert_timed_out(server.request(f"{prefix}/sleep"))  # so much time has passed
        client.reset()
    since = time.monotonic()
    server.wait_for(lambda: time.monotonic() > since + 2.5, "the time-out to pass")
    server.open("stream")
    server.open("sleep")
    assert server.request(f"{prefix}/").text == "hello"
    assert server.worker_pids() == [pid]
    assert not re.search("/stream.*(was ended|is lost)|Autorestarting", server.log())


def test_a_handshake_counts_until_it_is_answered(gunicorn: Servers) -> None:
    """One that is not gets a 504; one that was accepted is left alone."""
    server = start(gunicorn, "asgi")
    with server.connect() as open_one, server.connect() as client:
        upgrade(open_one, "/socket")
        assert open_one.head()[0] == 101
        upgrade(client, "/never")
        assert_timed_out(client.response())
        server.open("socket")
        assert open_one.exactly(2) == b"\x88\x02"


def upgrade(client: Client, path: str) -> None:
    client.start(
        path,
        headers="Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    )


def test_hooks_see_the_504(gunicorn: Servers) -> None:
    """``post_request`` is called when the call is over, with the status that the client has got."""
    for app in ("asgi", "wsgi"):
        server = start(gunicorn, app, "--config", str(HOOKS.with_name("late.conf.py")))
        assert_timed_out(server.request("/sleep"))
        server.open("sleep")
        server.wait_log("post_request /sleep 504")


# -- threads


def test_a_queued_call_never_runs(gunicorn: Servers) -> None:
    """The time in the queue counts."""
    server = start(gunicorn, "wsgi", "--threads", "1")
    with server.connect() as running, server.connect() as queued:
        running.start("/sleep")
        server.wait_log("gate sleep reached")
        queued.start("/queued")
        assert_timed_out(running.response())
        assert_timed_out(queued.response())
    server.open("sleep")
    assert server.request("/").text == "hello"
    assert "begins /queued" not in server.log()


def test_lost_threads_are_replaced_until_the_worker_is(gunicorn: Servers) -> None:
    """As many as there are threads; then the worker asks to be replaced, and waits for none of them."""
    server = start(gunicorn, "wsgi", "--threads", "2", METRICS_PATH="/metrics")
    (pid,) = server.worker_pids()
    assert_timed_out(server.request("/sleep"))
    server.wait_log("which is lost until it returns", 1)
    with server.connect() as one, server.connect() as other:
        one.start("/stream")
        other.start("/stream")
        for client in (one, other):  # two calls at once, beside the one that is lost
            client.head()
            assert client.chunk() == b"a"
        server.open("stream")
        for client in (one, other):
            assert [client.chunk(), client.chunk()] == [b"b", b""]
    assert_timed_out(server.request("/sleep"))
    server.wait_log("Autorestarting worker: 2 of its threads are lost to calls that do not end, --threads is 2")
    server.wait_workers(lambda pids: pids != [pid] and len(pids) == 1, "another worker")
    assert server.request("/").text == "hello"
    assert re.search(r'^hybridworker_recycles_total{reason="lost_threads"} 1$', server.request("/metrics").text, re.M)


def test_a_single_thread_is_not_replaced(gunicorn: Servers) -> None:
    """Its calls never overlap, so the worker is replaced at once."""
    server = start(gunicorn, "wsgi", "--threads", "1")
    (pid,) = server.worker_pids()
    assert_timed_out(server.request("/sleep"))
    server.wait_log("Autorestarting worker: 1 of its threads")
    server.wait_workers(lambda pids: pids != [pid] and len(pids) == 1, "another worker")
    assert server.request("/").text == "hello"


def test_a_thread_that_comes_back_is_no_longer_lost(gunicorn: Servers) -> None:
    """Nothing is left of it: the next one that is lost is the first."""
    server = start(gunicorn, "wsgi", "--threads", "2")
    for number in (1, 2, 3):
        assert_timed_out(server.request("/sleep"))
        server.open("sleep")
        server.wait_log("too late", number)
        (server.gates / "sleep").unlink()
    assert server.request("/").text == "hello"
    assert "Autorestarting" not in server.log()


# -- slow requests


@EACH
def test_a_slow_request_is_reported_while_it_runs(gunicorn: Servers, app: str, prefix: str) -> None:
    """Once, with its stack; another one of its path within the minute is only counted."""
    server = start(gunicorn, app, REQUEST_TIMEOUT="0", SLOW_REQUEST="1")
    with server.connect() as one, server.connect() as other:
        for client, path in ((one, "/sleep?a"), (other, "/sleep?b")):
            client.start(f"{prefix}{path}")
        server.wait_log(
            rf"GET {prefix}/sleep\?[ab](, part \S+)? has not begun to answer after \d\.\d s\n(.*\n)*.*late\.py"
        )
        server.open("sleep")
        assert (one.response().text, other.response().text) == ("slept", "slept")
    assert server.log().count("has not begun to answer") == 1


def counts(text: str, name: str) -> dict[str, float]:
    """The samples of one metric, by their labels."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.M)}


@EACH
def test_the_metrics(gunicorn: Servers, app: str, prefix: str) -> None:
    """Durations by status class, and what was turned away."""
    server = start(gunicorn, app, METRICS_PATH="/metrics")
    assert server.request(f"{prefix}/").status == 200
    assert_timed_out(server.request(f"{prefix}/sleep"))
    server.open("sleep")

    def page() -> Any:
        text = server.request("/metrics").text
        return text if counts(text, "hybridworker_request_seconds_count").get('status="5xx"') == 1 else None

    text = server.wait_for(page, "the metrics")
    for name in ("request_seconds", "response_seconds"):
        found = counts(text, f"hybridworker_{name}_bucket")
        assert found['status="2xx",le="1"'] == found['status="2xx",le="+Inf"'] == 1
        assert found['status="5xx",le="1"'] == 0
        assert found['status="5xx",le="+Inf"'] == 1
        assert counts(text, f"hybridworker_worker_{name}_count")['slot="0",status="5xx"'] == 1
    assert counts(text, "hybridworker_shed_total")['reason="timeout"'] == 1
