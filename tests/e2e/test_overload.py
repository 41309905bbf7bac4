"""Queue timeout, requests at once and the length of bodies: no queue grows without an answer."""

from __future__ import annotations

import re
import time

import pytest

from tests.e2e.client import Client, Response
from tests.e2e.harness import Gunicorn, Servers
from tests.e2e.test_deadlines import EACH, counts, upgrade

pytestmark = pytest.mark.e2e


def start(gunicorn: Servers, app: str, *args: str, workers: int = 1, **variables: str) -> Gunicorn:
    return gunicorn(
        f"late:{app}",
        *("--keep-alive", "60", *args),
        env={f"HYBRIDWORKER_{name}": value for name, value in variables.items()},
        workers=workers,
    )


def assert_turned_away(response: Response) -> None:
    """An error page as any other; the client may come again soon."""
    assert (response.status, response.header("Retry-After")) == (503, "1")
    assert "<h1>Service Unavailable</h1>" in response.text


# -- the queue


def test_a_call_that_waits_too_long_for_a_thread_never_runs(gunicorn: Servers) -> None:
    """It gets a 503, on a connection that goes on."""
    server = start(gunicorn, "wsgi", "--threads", "1", QUEUE_TIMEOUT="0.5", METRICS_PATH="/metrics")
    with server.connect() as running, server.connect() as queued, server.connect() as uploads:
        running.start("/sleep")
        server.wait_log("gate sleep reached")
        queued.start("/queued")
        uploads.start("/queued", "POST", b"x" * 100_000)
        assert_turned_away(queued.response())
        assert_turned_away(uploads.response())
        server.open("sleep")
        assert running.response().text == "slept"
        assert queued.request("/").text == "hello"
    assert "begins /queued" not in server.log()
    server.wait_log("Overload: 2 requests were answered 503 by HYBRIDWORKER_QUEUE_TIMEOUT, 0 by")
    assert counts(server.request("/metrics").text, "hybridworker_shed_total")['reason="queue"'] == 2


@EACH
def test_a_trusted_proxy_says_when_a_request_began(gunicorn: Servers, app: str, prefix: str) -> None:
    """In any of three units. What is not credible, or comes twice, says nothing."""
    server = start(gunicorn, app, "--threads", "2", QUEUE_TIMEOUT="5")
    now = time.time()
    with server.connect() as client:
        for late in (f"t={now - 60:.3f}", f"{(now - 60) * 1e3:.0f}", f"t={(now - 60) * 1e6:.0f}"):
            assert_turned_away(client.request(f"{prefix}/", headers=f"X-Request-Start: {late}\r\n"))
        assert f"begins {prefix}/" not in server.log()
        for credible in (f"t={now:.3f}", f"t={now + 60:.3f}", f"{now - 7200:.0f}", "yesterday", "t=", "0"):
            assert client.request(f"{prefix}/", headers=f"X-Request-Start: {credible}\r\n").status == 200
        assert client.request(f"{prefix}/", headers=f"X-Request-Start: {now - 60:.0f}\r\n" * 2).status == 200


def test_a_client_does_not_say_when_its_request_began(gunicorn: Servers) -> None:
    """It is no trusted proxy."""
    server = start(gunicorn, "asgi", "--forwarded-allow-ips", "192.0.2.1", QUEUE_TIMEOUT="5")
    assert server.request("/", headers=f"X-Request-Start: {time.time() - 60:.0f}\r\n").status == 200


# -- requests at once


@EACH
def test_more_requests_than_are_allowed_are_turned_away(gunicorn: Servers, app: str, prefix: str) -> None:
    """Before the application; open streams count, the worker's own pages and idle connections do not."""
    paths = {"REQUESTS_MAX": "2", "HEALTH_PATH": "/health", "METRICS_PATH": "/metrics"}
    server = start(gunicorn, app, "--threads", "4", workers=1, **paths)
    with server.connect() as idle, server.connect() as one, server.connect() as stream, server.connect() as third:
        assert idle.request(f"{prefix}/").status == 200
        one.start(f"{prefix}/sleep")
        server.wait_log("gate sleep reached")
        stream.start(f"{prefix}/stream")
        stream.head()
        for method in ("GET", "HEAD"):
            response = third.request(f"{prefix}/", method)
            assert (response.status, response.header("Retry-After")) == (503, "1")
        for _ in range(40):
            third.start(f"{prefix}/")
        for _ in range(40):
            assert_turned_away(third.response())
        assert third.request("/health").status == 200
        assert counts(third.request("/metrics").text, "hybridworker_shed_total")['reason="requests"'] == 42
        assert server.log().count(f"begins {prefix}/\n") == 1
        server.open("sleep")
        assert one.response().text == "slept"
        assert third.request(f"{prefix}/").status == 200
        server.open("stream")


def test_websockets_are_no_requests(gunicorn: Servers) -> None:
    """However many are open."""
    server = start(gunicorn, "asgi", REQUESTS_MAX="1")
    with server.connect() as one, server.connect() as other:
        for client in (one, other):
            upgrade(client, "/socket")
            assert client.head()[0] == 101
        assert server.request("/").status == 200


@pytest.mark.parametrize("app", ["asgi", "wsgi"])
def test_a_sibling_with_room_gets_the_connection(gunicorn: Servers, app: str) -> None:
    """Every second connection would be turned away by a worker that takes what it cannot serve."""
    server = start(gunicorn, app, "--threads", "4", workers=2, REQUESTS_MAX="4", METRICS_PATH="/metrics")
    server.wait_for(lambda: server.request("/metrics").text.count('state="ready"') == 2, "both workers to be ready")
    clients: list[Client] = []
    try:
        for number in range(1, 9):
            client = server.connect()
            clients.append(client)
            client.start("/sleep")
            server.wait_log("begins /sleep", number)
        with server.connect() as ninth:
            assert_turned_away(ninth.request("/"))
        server.open("sleep")
        assert [client.response().status for client in clients] == [200] * 8
    finally:
        for client in clients:
            client.close()


# -- bodies

LIMIT = 100_000


@EACH
def test_a_body_that_is_announced_to_be_too_long(gunicorn: Servers, app: str, prefix: str) -> None:
    """A 413 before the application, and no 100 before it."""
    server = start(gunicorn, app, LIMIT_REQUEST_BODY=str(LIMIT))
    for expect in ("", "Expect: 100-continue\r\n"):
        with server.connect() as client:
            client.send(f"POST {prefix}/upload HTTP/1.1\r\nHost: x\r\n{expect}Content-Length: {LIMIT + 1}\r\n\r\n")
            response = client.response()
            assert (response.status, response.header("Connection")) == (413, "close")
            assert client.at_end()
    assert server.request(f"{prefix}/upload", "POST", b"x" * LIMIT).text == str(LIMIT)
    assert server.log().count("begins") == 1
    server.wait_log("the body is longer than HYBRIDWORKER_LIMIT_REQUEST_BODY", 2)


def chunked(client: Client, path: str, *sizes: int) -> None:
    client.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for size in sizes:
        client.send(b"%x\r\n%b\r\n" % (size, b"x" * size))


@EACH
def test_a_chunked_body_that_becomes_too_long(gunicorn: Servers, app: str, prefix: str) -> None:
    """A 413 as long as the response has not begun."""
    server = start(gunicorn, app, LIMIT_REQUEST_BODY=str(LIMIT), METRICS_PATH="/metrics")
    with server.connect() as client:
        chunked(client, f"{prefix}/upload", 60_000)
        server.wait_log(f"begins {prefix}/upload")
        client.send(b"%x\r\n%b\r\n" % (60_000, b"x" * 60_000))
        assert client.response().status == 413
        assert client.at_end()
    with server.connect() as client:
        chunked(client, f"{prefix}/upload", 60_000, 40_000)
        client.send(b"0\r\n\r\n")
        assert client.response().text == str(LIMIT)
    assert counts(server.request("/metrics").text, "hybridworker_shed_total")['reason="body"'] == 1


@EACH
def test_a_chunked_body_that_becomes_too_long_behind_the_response(gunicorn: Servers, app: str, prefix: str) -> None:
    """The connection is cut, and the application reads no more of it than up to a disconnect."""
    server = start(gunicorn, app, LIMIT_REQUEST_BODY=str(LIMIT))
    with server.connect() as client:
        chunked(client, f"{prefix}/echo", 10)
        assert client.head()[0] == 200
        assert client.chunk() == b"x" * 10
        client.send(b"%x\r\n%b\r\n" % (LIMIT, b"x" * LIMIT))
        assert b"0\r\n\r\n" not in client.rest()
    server.wait_log("disconnected amid its response")
    assert re.search("Invalid request POST .*/echo.*: the body is longer than", server.log())
    assert server.request(f"{prefix}/").status == 200
