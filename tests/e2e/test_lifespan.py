"""Startup and shutdown of an ASGI application in a real worker. Ids are those of the checklist."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.harness import HOOKS, Servers

pytestmark = pytest.mark.e2e


def test_l1_the_scope_and_the_events(gunicorn: Servers) -> None:
    """``lifespan`` with an empty state, then startup, then shutdown, in the main thread (L2)."""
    server = gunicorn("lifespans:records")
    assert server.request().text == "served"
    assert server.stop() == 0
    log = server.log()
    assert "lifespan scope ['asgi', 'state', 'type'] 2.0 state {}" in log
    assert log.count("lifespan event {'type': 'lifespan.startup'}") == 1
    assert log.count("lifespan event {'type': 'lifespan.shutdown'}") == 1
    assert "lifespan thread is main: True" in log


def test_l4_no_request_before_startup_is_complete(gunicorn: Servers) -> None:
    """A connection made meanwhile waits in the backlog, and is answered afterwards."""
    server = gunicorn("lifespans:at_gate")
    server.wait_log("gate startup reached")
    with server.connect() as client:
        client.start()
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.settimeout(client.deadline)
        server.open("startup")
        assert client.response().text == "served"


def test_l6_a_failed_startup_ends_gunicorn_with_3(gunicorn: Servers) -> None:
    """The application's own message is in the log, and there is no respawn loop."""
    server = gunicorn("lifespans:failed", ready=False, dirty=True)
    assert server.wait() == 3
    assert "the database is not there" in server.log()
    assert server.log().count("Booting worker") == 1
    assert "Traceback" not in server.log()


def test_l7_the_message_is_optional(gunicorn: Servers) -> None:
    """A failure without a reason is a failure all the same."""
    server = gunicorn("lifespans:failed_silently", ready=False, dirty=True)
    assert server.wait() == 3


@pytest.mark.parametrize("app", ["refuses", "returns", "raises_in_startup"])
def test_l5_an_application_without_lifespan_is_served(gunicorn: Servers, app: str) -> None:
    """``asgi_lifespan=auto``: an exception or a return before the answer means that it is not supported."""
    server = gunicorn(f"lifespans:{app}", dirty=app == "raises_in_startup")
    assert server.request().text == "served"
    assert server.stop() == 0


@pytest.mark.parametrize("app", ["refuses", "returns", "raises_in_startup", "failed"])
def test_l5_with_lifespan_on_that_is_a_failure(gunicorn: Servers, app: str) -> None:
    """``asgi_lifespan=on``: exit code 3."""
    server = gunicorn(f"lifespans:{app}", "--asgi-lifespan", "on", ready=False, dirty=True)
    assert server.wait() == 3


def test_with_lifespan_off_it_is_not_called(gunicorn: Servers) -> None:
    """``asgi_lifespan=off``: even an application that would fail is served."""
    server = gunicorn("lifespans:failed", "--asgi-lifespan", "off")
    assert server.request().text == "served"


def test_l8_shutdown_comes_after_the_last_response(gunicorn: Servers) -> None:
    """The request in flight at TERM is answered first."""
    server = gunicorn("asgi:app")
    with server.connect() as client:
        client.start("/at-gate/last")
        server.wait_log("gate last reached")
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        server.open("last")
        assert client.response().text == "passed last"
    assert server.wait() == 0
    assert server.log().count("shutdown in") == 1


def test_l9_the_worker_waits_for_shutdown(gunicorn: Servers) -> None:
    """It ends when the application says so."""
    server = gunicorn("lifespans:slow_shutdown")
    assert server.request().text == "served"
    server.signal(signal.SIGTERM)
    server.wait_log("gate shutdown reached")
    server.open("shutdown")
    assert server.wait() == 0
    assert "shutdown done" in server.log()


def test_l9_but_not_longer_than_the_graceful_timeout(gunicorn: Servers) -> None:
    """A shutdown that does not end is given up, by the worker itself, which leaves through the arbiter's door."""
    server = gunicorn("lifespans:slow_shutdown", "--graceful-timeout", "1", "--config", str(HOOKS), dirty=True)
    assert server.request().text == "served"
    worker = server.worker_pids()[0]
    server.signal(signal.SIGTERM, worker)  # the arbiter kills only workers that it stopped itself
    server.wait_log(f"hook worker_exit {worker}")
    assert "shutdown done" not in server.log()


def test_l10_a_failed_shutdown_is_logged(gunicorn: Servers) -> None:
    """With the application's message; then the worker ends as it would have."""
    server = gunicorn("lifespans:shutdown_failed", dirty=True)
    assert server.request().text == "served"
    assert server.stop() == 0
    assert "the queue was not flushed" in server.log()


def test_l11_shutdown_also_when_a_worker_is_recycled(gunicorn: Servers) -> None:
    """``max_requests``: each worker that goes says goodbye."""
    server = gunicorn("asgi:app", "--max-requests", "2")
    for _ in range(2):
        assert server.request().status == 200
    server.wait_log("shutdown in")
    server.wait_log("startup in", 2)
    assert server.request().status == 200


def test_l11_not_on_quit(gunicorn: Servers) -> None:
    """QUIT leaves at once."""
    server = gunicorn("asgi:app")
    assert server.request().status == 200
    assert server.stop(signal.SIGQUIT) == 0
    assert "shutdown in" not in server.log()


def test_l12_no_shutdown_where_startup_was_not_complete(gunicorn: Servers) -> None:
    """TERM during startup ends the worker, by itself, and the application is not asked to shut down."""
    server = gunicorn("lifespans:at_gate", "--graceful-timeout", "5", "--config", str(HOOKS))
    server.wait_log("gate startup reached")
    (worker,) = server.worker_pids()
    server.signal(signal.SIGTERM, worker)
    server.wait_log(f"hook worker_exit {worker}")
    server.wait_log("gate startup reached", 2)
    server.open("startup")  # for the worker that replaces it
    assert server.request().text == "served"


def test_l13_an_application_may_return_after_startup(gunicorn: Servers) -> None:
    """Neither serving nor stopping is disturbed."""
    server = gunicorn("lifespans:returns_after_startup")
    assert server.request().text == "served"
    assert server.stop() == 0


def test_l14_context_variables_and_state_of_startup_are_seen(gunicorn: Servers) -> None:
    """In every request, and nothing that a request sets is seen by the next (H19)."""
    server = gunicorn("asgi:app")
    with server.connect() as client:
        answers = [client.request("/context").text for _ in range(2)]
    assert answers == ["startup ['startup'] ['mine', 'started']"] * 2


def test_l15_heartbeats_go_on_during_a_long_startup(gunicorn: Servers) -> None:
    """Four seconds of startup and a timeout of one: nobody is killed."""
    server = gunicorn("lifespans:slow", "--timeout", "1")
    server.wait_log("slow startup done")
    assert server.request().text == "served"
    assert "WORKER TIMEOUT" not in server.log()
    assert server.log().count("Booting worker") == 1


def test_l3_each_worker_starts_its_own(gunicorn: Servers) -> None:
    """One lifespan for each loop."""
    server = gunicorn("asgi:app", workers=2)
    server.wait_log("startup in", 2)
    assert server.stop() == 0
    assert server.log().count("shutdown in") == 2
