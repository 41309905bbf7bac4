"""
Signals of the application: its handlers, its children, and how it tells its worker to go.

Handlers that are installed after gunicorn's stay. TERM ends the worker gracefully whatever the
application has made of it. A child that the application forks obeys signals as any process does.
"""

from __future__ import annotations

import re
import signal
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import APPS, Gunicorn, Servers

pytestmark = pytest.mark.e2e

#: Far beyond the deadline of the harness: a worker that waits for it makes the test fail.
LONG = ("--graceful-timeout", "300", "--timeout", "300", "--config", str(APPS / "signalled.conf.py"))
BOTH = pytest.mark.parametrize("app", ["asgi", "wsgi"])
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
#: Two places where the application installs its handlers, on both loops and by both interfaces.
PLACES = pytest.mark.parametrize(
    ("app", "loop", "where"),
    [
        ("asgi", "uvloop", "import"),
        ("asgi", "asyncio", "hook"),
        ("wsgi", "uvloop", "hook"),
        ("wsgi", "asyncio", "import"),
    ],
)


def signalled(gunicorn: Servers, app: str, *args: str, dirty: bool = False, workers: int = 1, **env: Any) -> Gunicorn:
    return gunicorn(f"signalled:{app}", "--threads", "2", *LONG, *args, env=env, dirty=dirty, workers=workers)


def leaves_gracefully(server: Gunicorn, number: int = signal.SIGTERM) -> None:
    """Send the signal to the worker amid a request: the request is answered, the worker leaves and is replaced."""
    (worker,) = server.worker_pids()
    with server.connect() as client, server.connect() as other:
        client.start("/at-gate/leaving")
        server.wait_log("gate leaving reached")
        server.signal(number, worker)
        server.wait_for(lambda: says_close(other), "the worker to leave")
        server.open("leaving")
        response = client.response()
        assert (response.text, response.header("Connection")) == ("passed leaving", "close")
    server.wait_log(f"^worker_exit {worker}$")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")
    assert server.request("/pid").status == 200  # it serves: the end of the test is not amid its boot


def says_close(client: Client) -> bool:
    """Ask for something on a kept-alive connection: whether that was its last request."""
    response = client.request("/pid")
    assert response.status == 200
    return response.header("Connection") == "close"


# -- handlers


@pytest.mark.parametrize(
    ("app", "install", "line"),
    [
        ("asgi", "term", r"^worker_exit {pid}$"),
        ("wsgi", "exits", r"\[ERROR\] Worker \(pid:{pid}\) exited with code 7"),
        ("asgi", "raises", r"\[ERROR\] The worker was ended by ValueError$"),
    ],
)
def test_a_term_amid_the_import_is_not_lost(gunicorn: Servers, app: str, install: str, line: str) -> None:
    """Where only the application's handler sees it: the worker goes, and the next one serves."""
    server = signalled(gunicorn, app, INSTALL=install, dirty=True)
    first = int(server.request("/pid").text)  # its import is over
    server.open("slow")
    server.signal(signal.SIGTERM, first)
    server.wait_log("gate import reached")
    (second,) = server.wait_workers(lambda pids: len(pids) == 1 and first not in pids, "the worker to be replaced")
    server.signal(signal.SIGTERM, second)
    server.wait_log("^taken SIGTERM$", 2)
    server.open("import")
    server.wait_log(line.format(pid=second))
    server.wait_workers(lambda pids: len(pids) == 1 and second not in pids, "the worker to be replaced")
    assert server.request("/pid").status == 200


@PLACES
def test_a_term_handler_of_the_application_runs_first(gunicorn: Servers, app: str, loop: str, where: str) -> None:
    """Once; then the worker leaves gracefully."""
    server = signalled(gunicorn, app, "--asgi-loop", loop, INSTALL="term", WHERE=where)
    leaves_gracefully(server)
    assert server.log().count("taken SIGTERM") == 1


@pytest.mark.parametrize(
    ("app", "install", "line"),
    [
        (
            "asgi",
            "raises",
            r"\[ERROR\] Exception in the application's SIGTERM handler\nTraceback [^[]*raised in the handler$",
        ),
        ("wsgi", "exits", r"\[INFO\] The application's SIGTERM handler raised SystemExit\(7\)$"),
    ],
)
def test_what_a_term_handler_raises_is_logged(gunicorn: Servers, app: str, install: str, line: str) -> None:
    """And the worker leaves gracefully all the same."""
    server = signalled(gunicorn, app, INSTALL=install, dirty=True)
    leaves_gracefully(server)
    server.wait_log(line)


def test_a_term_handler_may_call_the_one_before_it(gunicorn: Servers) -> None:
    """As well-behaved libraries do."""
    server = signalled(gunicorn, "asgi", INSTALL="chained")
    leaves_gracefully(server)
    assert server.log().count("taken SIGTERM") == 1


@LOOPS
def test_a_handler_that_the_application_gives_to_the_loop(gunicorn: Servers, loop: str) -> None:
    """In lifespan startup, with ``add_signal_handler``: it is called, and the worker leaves nevertheless."""
    server = signalled(gunicorn, "asgi", "--asgi-loop", loop, INSTALL="loop", WHERE="lifespan")
    leaves_gracefully(server)
    assert server.log().count("taken SIGTERM") == 1


@pytest.mark.parametrize(("where", "install"), [("import", "ignored"), ("hook", "default"), ("lifespan", "ignored")])
def test_an_application_cannot_make_its_worker_deaf(gunicorn: Servers, where: str, install: str) -> None:
    """SIG_IGN and SIG_DFL for TERM are not obeyed, with one warning."""
    server = signalled(gunicorn, "asgi", INSTALL=install, WHERE=where)
    leaves_gracefully(server)
    name = "SIG_IGN" if install == "ignored" else "SIG_DFL"
    assert f"[WARNING] The application has set SIGTERM to {name}, which is not obeyed" in server.log()


@pytest.mark.parametrize(
    ("app", "loop", "where", "install", "line"),
    [
        ("asgi", "uvloop", "hook", "usr1", "^taken SIGUSR1$"),
        ("wsgi", "asyncio", "import", "usr1", "^taken SIGUSR1$"),
        ("asgi", "asyncio", "hook", "faulthandler", "^Current thread 0x"),
        ("wsgi", "uvloop", "import", "faulthandler", "^Current thread 0x"),
    ],
)
def test_a_usr1_handler_of_the_application_stays(
    gunicorn: Servers, app: str, loop: str, where: str, install: str, line: str
) -> None:
    """Also one that Python does not see."""
    server = signalled(gunicorn, app, "--asgi-loop", loop, INSTALL=install, WHERE=where)
    (worker,) = server.worker_pids()
    assert server.request("/pid").text == str(worker)
    server.signal(signal.SIGUSR1, worker)
    server.wait_log(line)
    assert server.request("/pid").text == str(worker)


@LOOPS
def test_term_is_acted_on_while_the_loop_is_idle(gunicorn: Servers, loop: str) -> None:
    """Again and again, and without the second that the heartbeat takes."""
    server = signalled(gunicorn, "asgi", "--asgi-loop", loop)
    for _ in range(3):
        worker = int(server.request("/pid").text)
        server.signal(signal.SIGTERM, worker)
        server.wait_log(f"^worker_exit {worker}$")
        server.wait_workers(lambda pids, old=worker: len(pids) == 1 and old not in pids, "the next worker")  # type: ignore[misc]
    assert server.log().count("lifespan shutdown") == 3


@BOTH
@LOOPS
def test_a_second_term_does_not_cut_worker_exit(gunicorn: Servers, app: str, loop: str) -> None:
    """The arbiter repeats it about once a second."""
    server = signalled(gunicorn, app, "--asgi-loop", loop, HOLD="1")
    (worker,) = server.worker_pids()
    assert server.request("/pid").status == 200
    server.signal(signal.SIGTERM, worker)
    server.wait_log("gate worker_exit reached")
    server.signal(signal.SIGTERM, worker)
    server.signal(signal.SIGUSR1, worker)
    server.open("worker_exit")
    server.wait_log("^worker_exit is over$")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")
    assert server.request("/pid").status == 200


# -- alive


def recycled(server: Gunicorn, reason: str) -> int:
    match = re.search(
        rf'^hybridworker_recycles_total{{reason="{reason}"}} (\d+)', server.request("/metrics").text, re.M
    )
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize(
    ("app", "loop", "how"),
    [
        ("asgi", "uvloop", "pre_request"),
        ("asgi", "asyncio", "thread"),
        ("wsgi", "uvloop", "thread"),
        ("wsgi", "asyncio", "pre_request"),
    ],
)
def test_alive_false_begins_the_graceful_leave(gunicorn: Servers, app: str, loop: str, how: str) -> None:
    """At once, from a hook and from a thread; the request in flight is finished, and the reason counted."""
    env: dict[str, Any] = {"HYBRIDWORKER_METRICS_PATH": "/metrics", "LEAVE": how}
    server = signalled(gunicorn, app, "--asgi-loop", loop, "--max-requests", "1000", **env)
    (worker,) = server.worker_pids()
    with server.connect() as busy, server.connect() as other:
        busy.start("/at-gate/busy")
        server.wait_log("gate busy reached")
        assert server.request("/unused" if how == "pre_request" else "/leave").status == 200
        server.wait_for(lambda: says_close(other), "the worker to leave")
        server.open("busy")
        response = busy.response()
        assert (response.text, response.header("Connection")) == ("passed busy", "close")
    server.wait_log(f"^worker_exit {worker}$")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "the worker to be replaced")
    assert recycled(server, "hook") == 1
    assert recycled(server, "term") == 0


def test_alive_false_before_there_is_a_loop(gunicorn: Servers) -> None:
    """In ``post_worker_init``: this worker does not serve, the next one does."""
    env: dict[str, Any] = {"HYBRIDWORKER_METRICS_PATH": "/metrics", "LEAVE": "post_worker_init"}
    server = signalled(gunicorn, "asgi", **env)
    server.wait_log("Booting worker with pid", 2)
    assert server.request("/pid").status == 200
    assert recycled(server, "hook") == 1


# -- children


#: From Python 3.12 on it warns of forks beside threads.
FORKS: dict[str, Any] = {"PYTHONWARNINGS": "default,ignore:This process:DeprecationWarning"}


@BOTH
@LOOPS
def test_a_child_obeys_signals(gunicorn: Servers, app: str, loop: str) -> None:
    """A pool in a with statement ends; TERM ends a child, and not its worker."""
    server = signalled(gunicorn, app, "--asgi-loop", loop, **FORKS)
    (worker,) = server.worker_pids()
    assert server.request("/child").text == f"{['SIG_DFL'] * 6} -1"
    assert server.request("/terminate").text == str(-signal.SIGTERM)
    assert server.request("/pool").text == "[1, 2]"
    assert server.request("/pid").text == str(worker)


@BOTH
def test_a_child_keeps_the_handlers_of_the_application(gunicorn: Servers, app: str) -> None:
    """Only the worker's are reset."""
    server = signalled(gunicorn, app, INSTALL="term", **FORKS)
    assert server.request("/child").text == f"{['taken', *['SIG_DFL'] * 5]} -1"


# -- what is no Exception


@pytest.mark.parametrize(
    ("loop", "name"),
    [("uvloop", "KeyboardInterrupt"), ("asyncio", "KeyboardInterrupt"), ("uvloop", "SystemExit"), ("uvloop", "Exit3")],
)
def test_what_a_task_raises_ends_its_worker_alone(gunicorn: Servers, loop: str, name: str) -> None:
    """Not the unix socket, nor the siblings: in the worker the code of the master is still on the stack."""
    bind = ("--bind", "127.0.0.1:0", "--bind", "unix:socket", "--asgi-loop", loop)
    server = signalled(gunicorn, "asgi", *bind, workers=2, dirty=True)
    pids = server.worker_pids()
    unix = f"unix:{server.directory / 'socket'}"
    with server.connect(unix) as client:
        client.start(f"/task/{name}")
    ended = server.wait_workers(lambda now: len(now) == 2 and now != pids, "the worker to be replaced")
    (gone,) = set(pids) - set(ended)
    (stayed,) = set(pids) & set(ended)
    server.wait_log(f"^worker_exit {gone}$")
    if name == "KeyboardInterrupt":
        server.wait_log(r"\[ERROR\] The worker was ended by KeyboardInterrupt$")
        server.wait_log(rf"Worker \(pid:{gone}\) exited with code 255")
    if name == "Exit3":
        server.wait_log(r"\[ERROR\] The application ended the worker: sys.exit\(3\)$")
    server.wait_log("Booting worker with pid", 3)
    with server.connect(unix) as client:
        assert client.request("/pid").text in map(str, ended)
    assert f"worker_exit {stayed}" not in server.log()
