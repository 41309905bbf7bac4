"""
gunicorn's hooks: when they are called, with what, where, and what becomes of their exceptions.

For an ASGI application the request's hooks run on the loop in the context of the
request, for a WSGI application in the thread of the call, in its context.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import APPS, WORKER, Gunicorn, Servers

pytestmark = pytest.mark.e2e

CONFIG = ("--config", str(APPS / "request_hooks.conf.py"))
BOTH = pytest.mark.parametrize("app", ["asgi", "wsgi"])


def hooked(gunicorn: Servers, app: str, *args: str, worker: str = WORKER, **env: str) -> Gunicorn:
    return gunicorn(f"hooked:{app}", "--threads", "2", *CONFIG, *args, env=env, worker=worker, dirty=True)


@BOTH
def test_the_request_and_the_response_are_shown(gunicorn: Servers, app: str) -> None:
    """With the attributes of gunicorn's own objects; post_request comes after the response."""
    server = hooked(gunicorn, app)
    assert server.request("/a%20b?q=%41", headers="X-In: in\r\n").status == 201
    place = "loop" if app == "asgi" else "thread"
    server.wait_log(rf"^pre GET /a%20b\?q=%41 /a%20b 'q=%41' \(1, 1\) http \['in'\] True True {place} nothing$")
    phrase = "Created" if app == "asgi" else "Very Well"  # an ASGI application gives none
    server.wait_log(rf"^post4 /a%20b\?q=%41 /a b localhost 201 {phrase} 201 \['out'\] 5$")
    assert server.log().count("\npre ") == server.log().count("\npost4 ") == 1


def test_the_hooks_print_what_they_print_under_gthread(gunicorn: Servers) -> None:
    """The same configuration, the same requests, the same lines."""
    printed = []
    for worker in (WORKER, "gthread"):
        server = hooked(gunicorn, "wsgi", worker=worker)
        for number, path in enumerate(("/plain?a", "/raises", "/pre-raises", "/changed", "/post-raises"), 1):
            server.request(path, headers="X-In: in\r\n")
            server.wait_log("^post4 ", number)
        lines = [line.split(" True True ")[0] for line in server.log().splitlines()]
        printed.append([line for line in lines if line.startswith(("pre ", "post4 "))])
    ours, gthread = printed
    assert len(ours) == 10
    assert ours == gthread


@BOTH
def test_the_hooks_run_in_the_context_of_the_request(gunicorn: Servers, app: str) -> None:
    """
    What pre_request sets the application sees, and what that sets post_request.

    For ASGI nothing is left for the next request; for WSGI the next one of the thread sees it, as under gthread.
    """
    server = hooked(gunicorn, app, "--keep-alive", "30")
    place = "loop" if app == "asgi" else "thread"
    with server.connect() as client:
        for number in (1, 2, 3):
            assert client.request("/").text == "pre -"
            server.wait_log(f"^where {place} application$", number)
    found = re.findall(rf"True True {place} (\w+)$", server.log(), re.MULTILINE)
    threads = found.count("nothing")
    assert threads == 3 if app == "asgi" else 1 <= threads <= 2
    assert found.count("application") == 3 - threads


@BOTH
@pytest.mark.parametrize("parameters", ["2", "3", "4"])
def test_post_request_may_take_two_to_four_parameters(gunicorn: Servers, app: str, parameters: str) -> None:
    """gunicorn's own wrapping of old hooks works."""
    server = hooked(gunicorn, app, POST_REQUEST=parameters)
    server.request("/p")
    server.wait_log(rf"^post{parameters} /p\b")


@BOTH
def test_a_hook_may_change_the_headers(gunicorn: Servers, app: str) -> None:
    """The application sees the field that pre_request has added."""
    assert hooked(gunicorn, app).request("/changed").text == "pre by the hook"


@BOTH
def test_pre_request_that_raises_is_a_500(gunicorn: Servers, app: str) -> None:
    """The application is not called, post_request gets no response, the next request is served."""
    server = hooked(gunicorn, app)
    assert server.request("/pre-raises").status == 500
    server.wait_log("^ValueError: raised in pre_request$")
    server.wait_log(r"^post4 /pre-raises \{\} None$")
    assert server.request("/").status == 201
    assert server.log().count("post4 /pre-raises") == 1


@BOTH
def test_post_request_that_raises_is_logged(gunicorn: Servers, app: str) -> None:
    """The client has its response; the line is gunicorn's."""
    server = hooked(gunicorn, app, "--keep-alive", "30")
    with server.connect() as client:
        assert client.request("/post-raises").status == 201
        server.wait_log(r"\[ERROR\] Exception in post_request hook$")
        server.wait_log("^ValueError: raised in post_request$")
        assert client.request("/").status == 201


@BOTH
def test_post_request_is_called_when_the_application_has_failed(gunicorn: Servers, app: str) -> None:
    """For ASGI it sees the status that the client gets; for WSGI none yet, as under gthread."""
    server = hooked(gunicorn, app)
    assert server.request("/raises").status == 500
    status = "500 Internal Server Error 500" if app == "asgi" else "None None"
    server.wait_log(rf"^post4 /raises /raises localhost {status} \[\] 0$")


@BOTH
def test_post_request_is_called_when_the_client_has_left(gunicorn: Servers, app: str) -> None:
    """Once, when the application has ended."""
    server = hooked(gunicorn, app)
    with server.connect() as client:
        client.start("/gate")
        server.wait_log("gate hooked reached")
        client.reset()
    server.open("hooked")
    server.wait_log("^post4 /gate /gate localhost ")
    assert server.request("/").status == 201
    server.wait_log("^post4 / ")
    assert server.log().count("post4 /gate") == 1


def test_a_websocket_is_a_request_to_the_hooks(gunicorn: Servers) -> None:
    """pre_request before the application, post_request with 101 when it has ended."""
    server = hooked(gunicorn, "asgi")
    with server.connect() as client:
        client.send(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert client.head()[0] == 101
        server.wait_log(r"^pre GET /ws /ws '' \(1, 1\) http \[\] True True loop nothing$")
        server.wait_log(r"^post4 /ws /ws localhost 101 Switching Protocols 101 \['out'\] 4$")


# -- the worker's


@BOTH
def test_post_worker_init_sees_a_worker_that_is_ready(gunicorn: Servers, app: str) -> None:
    """With its application and the attributes that gunicorn promises."""
    server = hooked(gunicorn, app, "--timeout", "40")
    (worker,) = server.worker_pids()
    server.wait_log(rf"^post_worker_init {worker} True True False 0$")
    server.wait_log(r"^worker has 1 True 1 1 20\.0$")


@BOTH
def test_worker_exit_knows_how_many_requests_there_were(gunicorn: Servers, app: str) -> None:
    """On TERM; the first argument is the arbiter."""
    server = hooked(gunicorn, app)
    (worker,) = server.worker_pids()
    for _ in range(3):
        assert server.request().status == 201
    assert server.stop() == 0
    assert f"worker_exit {worker} 3 Arbiter" in server.log()
    assert "worker_int" not in server.log()


@BOTH
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT], ids=["QUIT", "INT"])
def test_worker_int_is_called(gunicorn: Servers, app: str, number: signal.Signals) -> None:
    """Then worker_exit; the exit code is 0."""
    server = hooked(gunicorn, app)
    (worker,) = server.worker_pids()
    assert server.request().status == 201
    assert server.stop(number) == 0
    log = server.log()
    assert log.index(f"worker_int {worker}\n") < log.index(f"worker_exit {worker} ")


@BOTH
def test_worker_abort_is_called(gunicorn: Servers, app: str) -> None:
    """Then worker_exit; the exit code is 1, and the worker is replaced."""
    server = hooked(gunicorn, app)
    (worker,) = server.worker_pids()
    assert server.request().status == 201
    server.signal(signal.SIGABRT, worker)
    server.wait_log(rf"Worker \(pid:{worker}\) exited with code 1")
    log = server.log()
    assert log.index(f"worker_abort {worker}\n") < log.index(f"worker_exit {worker} ")
    server.wait_log("Booting worker with pid", 2)
    assert server.request().status == 201


@BOTH
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGABRT], ids=["worker_int", "worker_abort"])
def test_a_worker_hook_that_raises_keeps_nobody(gunicorn: Servers, app: str, number: signal.Signals) -> None:
    """The worker leaves nevertheless, its traceback is in the log, and another one serves."""
    server = hooked(gunicorn, app, RAISE="1")
    (worker,) = server.worker_pids()
    assert server.request().status == 201
    server.signal(number, worker)
    name = "worker_int" if number is signal.SIGQUIT else "worker_abort"
    server.wait_log(f"^ValueError: raised in {name}$")
    server.wait_log(f"^worker_exit {worker} ")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "another worker")
    server.wait_log("Booting worker with pid", 2)
    assert server.request().status == 201


def test_gunicorn_conf_py_is_found(gunicorn: Servers, tmp_path: Path) -> None:
    """A ``gunicorn.conf.py`` in the working directory, without an option."""
    (tmp_path / "gunicorn.conf.py").write_text(
        "from gate import say\n"
        f"bind, worker_class, wsgi_app = '127.0.0.1:0', '{WORKER}', 'hooked:asgi'\n"
        "def post_request(worker, req, environ, resp): say(f'found {resp.status}')\n"
    )
    server = gunicorn.command([], tmp_path)
    assert server.request().status == 201
    server.wait_log("^found 201 Created$")
