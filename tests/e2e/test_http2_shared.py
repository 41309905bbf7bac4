"""What every request has, over HTTP/2: the parts of a Hybrid, limits of time and of size, ids. Streams are apart."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

from tests.e2e.harness import APPS, Servers
from tests.e2e.http2client import HTTP2Client

pytestmark = pytest.mark.e2e

CLEARTEXT = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")

each_interface = pytest.mark.parametrize("interface", ["asgi", "wsgi"])

#: Bytes of the longest body that is taken.
LIMIT = 100_000


def test_a_hybrid_serves_each_path_by_its_part(gunicorn: Servers) -> None:
    """All of them on one connection, begun together; the endpoints come first."""
    server = gunicorn("hybrids:app", *CLEARTEXT, "--threads", "2", env={"HYBRIDWORKER_HEALTH_PATH": "/healthz"})
    paths = {"/": "wsgi", "/ws": "room", "/events/1": "everywhere", "/mcp/x": "tools", "/ws/pages/1": "wsgi"}
    with HTTP2Client.to(server) as client:
        streams = {client.start(path): kind for path, kind in paths.items()}
        found = {stream: client.finish(stream).text.split("|")[0] for stream in streams}
        assert found == streams
        assert client.request("/healthz").status == 200


@each_interface
def test_a_request_timeout_is_a_504_on_its_stream(gunicorn: Servers, interface: str) -> None:
    """A stream that has begun goes on, and so does the connection."""
    env = {"HYBRIDWORKER_REQUEST_TIMEOUT": "1"}
    server = gunicorn(f"late:{interface}", *CLEARTEXT, "--threads", "3", "--log-level", "debug", env=env)
    with HTTP2Client.to(server) as client:
        streaming = client.start("/stream")
        client.wait(lambda: client.answers[streaming].body == b"a")
        late = client.finish(client.start("/sleep"))
        assert (late.status, late.reset) == (504, None)
        assert "<h1>Gateway Timeout</h1>" in late.text
        assert client.request("/").text == "hello"
        server.open("sleep")
        server.open("stream")
        assert client.finish(streaming).text == "ab"
        assert client.goaways == []
    server.wait_log("HYBRIDWORKER_REQUEST_TIMEOUT")


@each_interface
def test_a_body_that_is_too_long_is_a_413_on_its_stream(gunicorn: Servers, interface: str) -> None:
    """By its Content-Length or as it comes; bytes that still come are dropped, and the others are served."""
    env = {"HYBRIDWORKER_LIMIT_REQUEST_BODY": str(LIMIT)}
    server = gunicorn(f"late:{interface}", *CLEARTEXT, "--threads", "3", env=env)
    with HTTP2Client.to(server) as client:
        for fields in ([("content-length", str(3 * LIMIT))], []):
            stream = client.start("/upload", "POST", fields, end=False)
            client.send(stream, b"x" * (3 * LIMIT))
            assert client.finish(stream).status == 413
        assert client.request("/upload", "POST", b"x" * LIMIT).text == str(LIMIT)
        assert client.goaways == []
    assert server.wait_log("the body is longer than HYBRIDWORKER_LIMIT_REQUEST_BODY", 2)


@each_interface
def test_an_id_goes_all_the_way(gunicorn: Servers, interface: str) -> None:
    """A proxy's or one of the worker's own: in the application, the log, the response, and a refusal."""
    options = ("-c", str(APPS / "ids.conf.py"), "--threads", "2")
    env = {"HYBRIDWORKER_REQUEST_ID": "x-request-id"}
    server = gunicorn(f"ids:{interface}", *CLEARTEXT, *options, env=env, dirty=True)
    with HTTP2Client.to(server) as client:
        named = client.request("/show", fields=[("x-request-id", "from-the-proxy")])
        assert named["x-request-id"] == "from-the-proxy"
        assert json.loads(named.body) == ["from-the-proxy"] * 3
        server.wait_log(r"^INFO <from-the-proxy> in the view$")
        made = [client.request("/show") for _ in range(2)]  # the same head twice: it is decoded once
        ids = [answer["x-request-id"] for answer in made]
        assert [json.loads(answer.body) for answer in made] == [[value] * 3 for value in ids]
        assert len(set(ids)) == 2
        refused = client.request("/" + "x" * 5000, fields=[("x-request-id", "refused")])
        assert (refused.status, refused["x-request-id"]) == (414, "refused")
        server.wait_log(r"^WARNING <refused> Invalid request .*limit_request_line")


@pytest.mark.parametrize("permitted", [False, True])
def test_methods_are_those_that_gunicorns_settings_permit(gunicorn: Servers, permitted: bool) -> None:
    """As over HTTP/1.1. (gunicorn's own HTTP/2 takes any token, whatever they say.)"""
    options = ("--permit-unconventional-http-method", "--casefold-http-method") if permitted else ()
    server = gunicorn("wsgi:app", *CLEARTEXT, *options, "--access-logfile", "-")
    with HTTP2Client.to(server) as client:
        assert json.loads(client.request("/environ", "FOOBAR").body)["REQUEST_METHOD"] == "FOOBAR"
        answer = client.request("/environ", "fo#")
        if permitted:
            assert json.loads(answer.body)["REQUEST_METHOD"] == "FO#"
            server.wait_log(r'"FO# /environ HTTP/2\.0" 200')
        else:
            assert answer.reset == 1
            server.wait_log("the method is none .*, or one that is not permitted")
        assert client.request().status == 200


@each_interface
def test_a_full_worker_turns_streams_away(gunicorn: Servers, interface: str) -> None:
    """Each stream counts; the answer is that of HTTP/1.1, id included, and the connection goes on."""
    env = {"REQUESTS_MAX": "2", "QUEUE_TIMEOUT": "5", "REQUEST_ID": "x-request-id"}
    server = gunicorn(
        f"late:{interface}",
        *(*CLEARTEXT, "--threads", "4"),
        env={f"HYBRIDWORKER_{name}": value for name, value in env.items()},
        workers=1,
    )
    with HTTP2Client.to(server) as client:
        old = client.request("/", fields=[("x-request-start", f"t={time.time() - 60:.3f}")])
        assert (old.status, old["retry-after"]) == (503, "1")
        running = [client.start("/sleep"), client.start("/stream")]
        client.wait(lambda: client.answers[running[1]].body == b"a")
        server.wait_log("gate sleep reached")
        for stream in [client.start("/") for _ in range(20)]:
            away = client.finish(stream)
            assert (away.status, away["retry-after"], len(away["x-request-id"])) == (503, "1", 32)
        server.open("sleep")
        server.open("stream")
        assert [client.finish(stream).text for stream in running] == ["slept", "ab"]
        assert client.request("/").text == "hello"
        assert client.goaways == []
    assert server.log().count("begins /\n") == 1
