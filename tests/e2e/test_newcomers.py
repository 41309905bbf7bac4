"""
Connections that have just been made: their first requests are answered, and they need not wait for idle ones.
"""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from tests.e2e.harness import Servers
from tests.e2e.parting import Authority, connect, start
from tests.e2e.test_signals import refused

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("app", "why"), [("asgi", "term"), ("wsgi", "term"), ("asgi", "hup"), ("wsgi", "hup"), ("asgi", "max_requests")]
)
def test_a_first_request_is_answered_whatever_keepalive_says(gunicorn: Servers, app: str, why: str) -> None:
    """A connection that was just made is not an idle one, which has 0 seconds here."""
    limit = ("--max-requests", "1") if why == "max_requests" else ()
    server = start(gunicorn, app, "--keep-alive", "0", *limit)
    (worker,) = server.worker_pids()
    with contextlib.ExitStack() as stack:
        early = [stack.enter_context(connect(server)) for _ in range(5)]
        # The connections are accepted in their order, so the others are when this one is answered.
        assert early.pop().request("/hello").status == 200
        if why == "max_requests":
            server.wait_log("Autorestarting worker")
        elif why == "term":
            server.signal(signal.SIGTERM)
            server.wait_for(lambda: refused(server), "the listener to be closed")
        else:
            server.signal(signal.SIGHUP)
            server.wait_for(lambda: server.request("/pid").text != str(worker), "another worker to accept")
        for client in early:
            assert client.request("/hello").text == "xxxxx"
    if why == "term":
        assert server.wait() == 0
    else:
        server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")


@pytest.mark.parametrize(("app", "encrypted"), [("asgi", False), ("asgi", True), ("wsgi", False)])
def test_an_idle_connection_makes_room_at_once(
    gunicorn: Servers, authority: Authority, app: str, encrypted: bool
) -> None:
    """Its client need not do anything for it, and does not: eight newcomers do not wait for one another."""
    trusted = authority if encrypted else None
    options = authority.options if encrypted else ()
    server = start(gunicorn, app, "--worker-connections", "3", "--keep-alive", "60", *options)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(connect(server, trusted)).request("/hello").status == 200
        since = time.monotonic()
        for _ in range(8):
            assert stack.enter_context(connect(server, trusted)).request("/hello").status == 200
        assert time.monotonic() - since < 6  # and not 8 to 16
