"""
The context (``contextvars``) that a WSGI call finds: that of its thread, as under gunicorn's threaded worker.

Frameworks keep in it whose request they serve, so what two calls share of it is one user's data
in the hands of another.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.harness import APPS, WORKER, Gunicorn, Servers

pytestmark = pytest.mark.e2e

PUSHED = ("--config", str(APPS / "pushed.conf.py"))


@pytest.mark.parametrize(
    ("where", "options"),
    [("import", ()), ("import", ("--preload",)), ("hook", ())],
    ids=["import", "preload", "post_worker_init"],
)
@pytest.mark.parametrize("worker", [WORKER, "gthread"])
def test_users_of_flask_do_not_share_g(gunicorn: Servers, worker: str, where: str, options: tuple[str, ...]) -> None:
    """With an application context pushed outside of any request; each request has its own, torn down behind it."""
    pytest.importorskip("flask")
    server = gunicorn("flask_pushed:app", "--threads", "2", *PUSHED, *options, worker=worker, env={"PUSH": where})
    # One behind the other, on one connection, and at once.
    with server.connect() as client:
        for name in ("ann", "bob", "cid"):
            assert client.request(f"/login/{name}").text == f"nobody {name} None"
            server.wait_log(f"^teardown of {name}$")
    with server.connect() as one, server.connect() as other:
        one.start("/login/dee?gate")
        other.start("/login/eve?gate")
        server.wait_log("gate dee reached")
        server.wait_log("gate eve reached")
        server.open("eve")
        assert other.response().text == "nobody eve None"
        server.wait_log("^teardown of eve$")
        server.open("dee")
        assert one.response().text == "nobody dee None"
        server.wait_log("^teardown of dee$")
    assert server.log().count("teardown of") == 5


def answer(response: Any) -> tuple[int, dict[str, str], str]:
    """Thread, the variables that the call found, and what it has of its own behind the gate."""
    thread, seen, own = json.loads(response.body)
    return thread, seen, own


def ask(server: Gunicorn, path: str, kind: str) -> tuple[int, dict[str, str], str]:
    if kind == "chunked":
        with server.connect() as client:
            client.send(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            )
            return answer(client.response())
    return answer(server.request(f"{path}?{kind}", "POST" if kind == "length" else "GET", b"abc" * (kind == "length")))


@pytest.mark.parametrize("options", [(), ("--preload",), ("--asgi-loop", "asyncio")], ids=["", "preload", "asyncio"])
def test_a_thread_has_one_context_empty_at_first(gunicorn: Servers, options: tuple[str, ...]) -> None:
    """Nothing of the import, and of the worker nothing at all; what a call leaves set, the next of its thread sees."""
    server = gunicorn("contexts:wsgi", "--threads", "2", *options)
    with server.connect() as one, server.connect() as other:
        one.start("/set/ann/first")
        other.start("/set/bob/second")
        server.wait_log("gate first reached")
        server.wait_log("gate second reached")
        server.open("first")
        server.open("second")
        ann, bob = answer(one.response()), answer(other.response())
    assert ann[1:] == ({}, "ann")
    assert bob[1:] == ({}, "bob")
    assert ann[0] != bob[0]
    last = {ann[0]: "ann", bob[0]: "bob"}
    for number, kind in enumerate(["list", "iterator", "length", "chunked"] * 2):
        thread, seen, own = ask(server, f"/set/{number}", kind)
        assert seen == {"left": last[thread]}
        last[thread] = own


def test_djangos_caches_are_made_once_for_a_thread(gunicorn: Servers) -> None:
    """Not for each request, which would have its own connection to Redis."""
    pytest.importorskip("django")
    server = gunicorn("django_caches:app", "--threads", "2")
    for number in range(1, 21):
        assert server.request("/count").text == str(number)
    assert 1 <= server.log().count("a cache was made") <= 2
