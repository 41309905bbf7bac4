"""
How long the requests of a worker have that leaves for a reason of its own, and of one that was told to go meanwhile.
"""

from __future__ import annotations

import signal

import pytest

from tests.e2e.client import Truncated
from tests.e2e.harness import Servers

pytestmark = pytest.mark.e2e

BOTH = pytest.mark.parametrize("interface", ["asgi", "wsgi"])


@pytest.mark.parametrize("reason", ["max_requests", "max_rss"])
@BOTH
def test_a_worker_that_recycles_finishes_its_requests(gunicorn: Servers, interface: str, reason: str) -> None:
    """All of them, beyond the graceful timeout; a stream has no more than that."""
    options = ("--threads", "4", "--graceful-timeout", "1", "--timeout", "300", "--asgi-disconnect-grace-period", "0")
    limit = ("--max-requests", "3") if reason == "max_requests" else ()
    environment = {} if limit else {"HYBRIDWORKER_MAX_RSS": "1"}
    app = f"{interface}:app"
    server = gunicorn(app, *options, *limit, env=environment, dirty=True, ready=False)
    with server.connect() as stream, server.connect() as one, server.connect() as two:
        stream.start("/head-then-gate/stream")
        one.start("/at-gate/one")
        two.start("/at-gate/two")
        assert stream.head()[0] == 200
        assert stream.chunk() == b"first "
        server.wait_log("gate one reached")
        server.wait_log("gate two reached")
        server.wait_log("Autorestarting worker")
        with pytest.raises(Truncated):
            stream.chunk()  # the graceful timeout is over
        server.open("one")
        server.open("two")
        assert one.response().text == "passed one"
        assert two.response().text == "passed two"
        server.open("stream")
    server.wait_log(r"Served 3 requests: 2 finished while leaving, 1 cut;")


@BOTH
def test_a_hung_request_does_not_keep_a_worker_that_recycles(gunicorn: Servers, interface: str) -> None:
    """It has ``graceful_timeout`` and ``timeout``."""
    options = ("--threads", "2", "--graceful-timeout", "1", "--timeout", "2", "--max-requests", "1")
    server = gunicorn(f"{interface}:app", *options, dirty=True)
    with server.connect() as client:
        client.start("/at-gate/never")
        server.wait_log("Graceful timeout: 1 request was not finished")
        assert client.at_end()
    assert server.request("/").status == 200
    assert "WORKER TIMEOUT" not in server.log()


@BOTH
def test_a_worker_that_recycles_hurries_when_it_is_told_to_go(gunicorn: Servers, interface: str) -> None:
    """From then on it has the graceful timeout, as any other."""
    options = ("--threads", "2", "--graceful-timeout", "1", "--timeout", "300", "--max-requests", "1")
    server = gunicorn(f"{interface}:app", *options, dirty=True)
    with server.connect() as client:
        client.start("/at-gate/never")
        server.wait_log("gate never reached")
        server.wait_log("Autorestarting worker")
        server.signal(signal.SIGTERM, server.worker_pids()[0])
        server.wait_log("Graceful timeout: 1 request was not finished")
