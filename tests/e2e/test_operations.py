"""
What an operator does and sees: reports of what hangs, recycling, reload, upgrade, drain.

Each test waits for what gunicorn prints or answers. A worker that is killed instead of
leaving by itself shows: its ``worker_exit`` hook is missing from the log.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from gunicorn.config import KNOWN_SETTINGS

from tests.e2e.client import Client, Response
from tests.e2e.harness import APPS, DEADLINE, HOOKS, WORKER, Gunicorn, Servers, wait_gone

pytestmark = pytest.mark.e2e

CONFIG = ("--config", str(HOOKS))
BOTH = pytest.mark.parametrize("app", ["asgi", "wsgi"])
ROOTED = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")

#: Beyond the deadline of the harness.
LONG = ("--graceful-timeout", "300", "--timeout", "300")


# -- what hangs


def test_a_blocked_loop_is_reported_before_the_worker_dies(gunicorn: Servers) -> None:
    """The table of requests, the application's frame, worker_abort, exit code 1, worker_exit, a new worker."""
    server = gunicorn("stuck:asgi", "--timeout", "2", *CONFIG, env={"HYBRIDWORKER_SLOW_LOOP": "0"}, dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as waiting, server.connect() as blocking:
        waiting.start("/wait")
        server.wait_log("gate stuck reached")
        blocking.start("/sleep/60", "POST")
        server.wait_log(rf"Worker \(pid:{worker}\) exited with code 1")
        assert waiting.at_end()
    log = server.log()
    assert re.search(rf"\[ERROR\] Worker aborted \(pid: {worker}\)\. Requests in flight: 2$", log, re.MULTILINE)
    assert re.search(r"^  GET /wait, \d+\.\d s, in the loop$", log, re.MULTILINE)
    assert re.search(r"^  POST /sleep/60, \d+\.\d s, in the loop, running$", log, re.MULTILINE)
    assert re.search(
        r'^Main thread: POST /sleep/60\n(  .*\n)*  File ".*stuck\.py", line \d+, in stuck_for_a_while$',
        log,
        re.MULTILINE,
    )
    marks = ["WORKER TIMEOUT", "Worker aborted", f"hook worker_abort {worker}", f"hook worker_exit {worker} "]
    places = [log.index(mark) for mark in marks]
    assert places == sorted(places)
    server.wait_log("Booting worker with pid", 2)
    assert server.request().status == 200


@BOTH
def test_an_aborted_worker_tells_of_its_threads(gunicorn: Servers, app: str) -> None:
    """The stack of every thread in which something of the application runs."""
    server = gunicorn(f"stuck:{app}", "--threads", "2", *CONFIG, *LONG, dirty=True)
    (worker,) = server.worker_pids()
    path = "/executor" if app == "asgi" else "/wait"
    with server.connect() as client:
        client.start(path)
        server.wait_log("gate stuck reached")
        server.signal(signal.SIGABRT, worker)
        server.wait_log(rf"Worker \(pid:{worker}\) exited with code 1")
    log = server.log()
    where = "in the loop" if app == "asgi" else r"in thread hybridworker-wsgi-\d"
    assert re.search(rf"^  GET {path}, \d+\.\d s, {where}$", log, re.MULTILINE)
    assert re.search(r'^Thread .*\n(  .*\n)*  File ".*gate\.py", line \d+, in block$', log, re.MULTILINE)
    assert f"hook worker_exit {worker} " in log


@BOTH
def test_usr2_to_a_worker_writes_the_table(gunicorn: Servers, app: str) -> None:
    """As often as it is asked; the request goes on, and so does the worker."""
    server = gunicorn(f"stuck:{app}", "--threads", "2", *LONG)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/wait")
        server.wait_log("gate stuck reached")
        for count in (1, 2):
            server.signal(signal.SIGUSR2, worker)
            server.wait_log(r"\[WARNING\] Requests in flight: 1$", count)
        function = "waits_for_a_gate" if app == "asgi" else "block"
        server.wait_log(r"^  GET /wait, \d+\.\d s, in (the loop|thread hybridworker-wsgi-\d)$", 2)
        server.wait_log(rf'^  File ".*", line \d+, in {function}$', 2)
        server.open("stuck")
        assert client.response().text.split()[0] == str(worker)
    assert server.stop() == 0


def test_usr2_to_an_idle_worker_tells_of_the_applications_own_tasks(gunicorn: Servers) -> None:
    """What nobody waits for is nowhere else to be seen; the worker's own tasks are not shown."""
    server = gunicorn("stuck:polling", *LONG)
    server.wait_log("Serving ")
    (worker,) = server.worker_pids()
    idle = (
        r"\[WARNING\] Requests in flight: 0\nMain thread: idle in the event loop\n"
        r'Task poller\n(  .*\n)*  File ".*stuck\.py", line \d+, in polls\n(  .*\n)*'
    )

    def told() -> str | None:
        """Asked again where the loop was at work, be it only with its heartbeat."""
        server.signal(signal.SIGUSR2, worker)
        match = re.search(idle, server.log())
        return None if match is None else match[0]

    assert server.wait_for(told, "an idle worker's report").count("Task ") == 1


def test_usr2_while_the_loop_is_blocked_names_what_blocks_it(gunicorn: Servers) -> None:
    """The report does not need the loop."""
    server = gunicorn("asgi:app", *LONG, env={"HYBRIDWORKER_SLOW_LOOP": "0"})
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/block-loop/usr2")
        server.wait_log("gate usr2 reached")
        server.signal(signal.SIGUSR2, worker)
        server.wait_log(r"^Main thread: GET /block-loop/usr2$")
        server.wait_log(r'^  File ".*gate\.py", line \d+, in block$')
        server.open("usr2")
        assert client.response().status == 200


def test_a_slow_loop_is_reported_once_per_stall(gunicorn: Servers) -> None:
    """With the request and the line of the application that holds it, and again when it turns."""
    server = gunicorn("asgi:app", *LONG, env={"HYBRIDWORKER_SLOW_LOOP": "0.2"})
    for count, name in enumerate(("first", "second"), 1):
        with server.connect() as client:
            client.start(f"/block-loop/{name}")
            server.wait_log(rf"\[WARNING\] The event loop is held for more than \d\.\d+ s by GET /block-loop/{name}$")
            server.wait_log(r'^  File ".*asgi\.py", line \d+, in block_loop\n    gate\.block\(argument\)$', count)
            server.open(name)
            assert client.response().status == 200
            server.wait_log(r"\[WARNING\] The event loop turns again; it was held for \d+\.\d+ s$", count)
    assert server.log().count("The event loop is held") == 2


def test_a_wsgi_call_older_than_the_timeout_is_reported_once(gunicorn: Servers) -> None:
    """It is not killed; the heartbeat is the loop's."""
    server = gunicorn("stuck:wsgi", "--threads", "2", "--timeout", "1", *CONFIG)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/wait")
        server.wait_log(r"\[WARNING\] GET /wait has been in its thread for \d s$")
        server.wait_log(r'^  File ".*stuck\.py", line \d+, in wsgi$')
        # A second call becomes old as well: had the first been reported twice, it would have been by then.
        with server.connect() as other:
            other.start("/wait/other")
            server.wait_log(r"GET /wait/other has been in its thread for \d s$")
            server.open("stuck")
            assert client.response().text.split()[0] == other.response().text.split()[0] == str(worker)
    assert server.log().count("GET /wait has been in its thread") == 1
    assert "WORKER TIMEOUT" not in server.log()


# -- recycling


def booted(server: Gunicorn) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.log())]


@BOTH
def test_max_requests_with_jitter(gunicorn: Servers, app: str) -> None:
    """Between the limit and the limit with its jitter; the reason is logged once, and the next worker serves."""
    server = gunicorn(f"stuck:{app}", "--max-requests", "3", "--max-requests-jitter", "3", *CONFIG)
    for generation in (1, 2):
        with server.connect() as client:
            served = 0
            while True:
                response = client.request()
                served += 1
                if response.header("Connection") == "close":
                    break
        assert 3 <= served <= 6
        server.wait_log("Autorestarting worker after current request", generation)
        server.wait_log(rf"Served {served} requests: ", 1)
        server.wait_log("Booting worker with pid", generation + 1)
        server.wait_log("hook worker_exit", generation)


@BOTH
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the peak is known")
def test_a_worker_that_has_grown_is_replaced(gunicorn: Servers, app: str) -> None:
    """``HYBRIDWORKER_MAX_RSS``: the reason is logged, and it drains."""
    server = gunicorn(f"stuck:{app}", *CONFIG, env={"HYBRIDWORKER_MAX_RSS": "200"})
    (worker,) = server.worker_pids()
    assert server.request().status == 200
    assert server.request("/grow/250").text.split()[0] == str(worker)
    server.wait_log(r"Autorestarting worker: it uses \d{3} MiB, HYBRIDWORKER_MAX_RSS is 200\.")
    server.wait_log(f"hook worker_exit {worker} ")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "another worker")
    assert server.request().text.split()[0] != str(worker)


@BOTH
def test_the_drain_has_a_summary(gunicorn: Servers, app: str) -> None:
    """How many were served, finished while leaving, and cut, and how long each phase took."""
    server = gunicorn(f"stuck:{app}", "--threads", "2", *LONG)
    assert server.request().status == 200
    with server.connect() as client:
        client.start("/wait")
        server.wait_log("gate stuck reached")
        server.signal(signal.SIGHUP)
        server.wait_log("Serving ", 2)  # the new worker comes first
        server.open("stuck")
        assert client.response().status == 200
    server.wait_log(r"Served 2 requests: 1 finished while \w+, 0 cut;.* \d+\.\d s to drain, \d+\.\d s to shut down$")


@BOTH
def test_what_is_cut_is_told(gunicorn: Servers, app: str) -> None:
    """After ``graceful_timeout``; the worker leaves by itself."""
    server = gunicorn(f"stuck:{app}", "--threads", "2", "--graceful-timeout", "1", *CONFIG, dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as client:
        client.start("/wait")
        server.wait_log("gate stuck reached")
        server.signal(signal.SIGTERM, worker)
        server.wait_log(r"\[WARNING\] Graceful timeout: 1 request was not finished$")
        server.wait_log(r"Served 1 request: 0 finished while \w+, 1 cut;")
        server.wait_log(f"hook worker_exit {worker} ")


@BOTH
def test_workers_leave_when_the_master_was_killed(gunicorn: Servers, app: str) -> None:
    """What is in flight is finished, and nobody holds the port."""
    server = gunicorn(f"stuck:{app}", "--threads", "2", *LONG, *CONFIG, workers=2)
    workers, port = server.worker_pids(), server.port
    with server.connect() as client:
        client.start("/wait")
        server.wait_log("gate stuck reached")
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        server.open("stuck")
        assert int(client.response().text.split()[0]) in workers
    for worker in workers:
        wait_gone(worker)
        assert f"hook worker_exit {worker} " in server.log()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


@BOTH
def test_ttin_and_ttou(gunicorn: Servers, app: str) -> None:
    """One more, one less; the one that leaves drains."""
    server = gunicorn(f"stuck:{app}", *LONG, *CONFIG)
    (oldest,) = server.worker_pids()
    assert server.request().status == 200
    server.signal(signal.SIGTTIN)
    server.wait_workers(lambda pids: len(pids) == 2, "a second worker")
    server.signal(signal.SIGTTOU)
    server.wait_workers(lambda pids: len(pids) == 1 and oldest not in pids, "the oldest to leave")
    server.wait_log(f"hook worker_exit {oldest} ")
    assert server.request().status == 200


# -- development

PAGE = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%s"})
"""


def rewrite(path: Path, text: str) -> None:
    """Replace a file at once, and in such a way that its time differs: nobody may read the half of it."""
    before = path.stat().st_mtime if path.exists() else 0.0
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.utime(fresh, (before + 10, before + 10) if before else None)
    fresh.replace(path)


def changed(server: Gunicorn, path: Path, text: str, condition: Callable[[Response], bool]) -> Response:
    """Change a file and ask until the answer is as it should be.

    The file is written again and again: a change that comes before gunicorn's reloader has looked at the file for the
    first time is not seen as one.
    """

    def answer() -> Response | None:
        rewrite(path, text)
        try:
            response = server.request()
        except (OSError, AssertionError):  # one worker is leaving, the next one is not there yet
            return None
        return response if condition(response) else None

    return server.wait_for(answer, "another answer")


def test_reload_restarts_at_once_and_shows_syntax_errors(gunicorn: Servers, tmp_path: Path) -> None:
    """A change is served though a browser keeps its connection; a mistake is a page, and mending it is noticed."""
    page = tmp_path / "page.py"
    rewrite(page, PAGE % "first")
    options = ("--reload", "--reload-engine", "poll", "--pythonpath", str(tmp_path), "--keep-alive", "300", *LONG)
    server = gunicorn("page:app", *options, *CONFIG, dirty=True)
    with server.connect() as browser:
        assert browser.request().text == "first"
        assert changed(server, page, PAGE % "second", lambda response: response.text != "first").text == "second"
        assert browser.at_end()
    broken = changed(server, page, "def app(:\n", lambda response: response.status == 500)
    assert "SyntaxError" in broken.text
    assert "page.py" in broken.text
    assert changed(server, page, PAGE % "mended", lambda response: response.status == 200).text == "mended"


@BOTH
def test_preload_survives_a_hup(gunicorn: Servers, app: str) -> None:
    """The application is the master's, the workers are new."""
    server = gunicorn(f"imported:{app}", "--preload", workers=2)
    old = server.worker_pids()
    server.signal(signal.SIGHUP)
    server.wait_workers(lambda pids: len(pids) == 2 and not set(old) & set(pids), "two other workers")
    imported, served = map(int, server.request().text.split())
    assert imported == server.pid
    assert served not in old
    assert server.log().count("imported in") == 1


# -- upgrade


class Module(Gunicorn):
    """gunicorn as ``python -m gunicorn``."""

    def __init__(self, argv: list[str], directory: Path) -> None:
        # The harness puts a prefix before the path of the console script: the shell drops that path.
        super().__init__(argv, directory, prefix=["sh", "-c", f'shift; exec "{sys.executable}" -m gunicorn "$@"', "sh"])


@pytest.mark.parametrize("how", ["console script", "module"])
@BOTH
def test_usr2_upgrades_the_master(gunicorn: Servers, app: str, how: str, tmp_path: Path) -> None:
    """A second master serves beside the first, takes over when that is told to go, and loses no listener."""
    pidfile = tmp_path / "pid"
    argv = ["-k", WORKER, "--bind", "127.0.0.1:0", "--pid", str(pidfile), "--no-control-socket"]
    argv = [word for word in argv if word != "--no-control-socket" or has_control_socket()]
    if how == "module":
        server: Gunicorn = Module([*argv, f"stuck:{app}"], gunicorn.folder())
        gunicorn.started.append(server)
    else:
        server = gunicorn.command([*argv, f"stuck:{app}"], APPS)
    server.wait_ready()
    server.dirty = True  # of two masters in one log the first leaves its pid file to the second
    (old,) = server.worker_pids()
    assert server.request().text.split()[0] == str(old)
    server.signal(signal.SIGUSR2)
    server.wait_log("Booting worker with pid", 2)
    new = booted(server)[-1]
    second = int(server.wait_log(r"\[(\d+)\] \[INFO\] Starting gunicorn", 2)[1])
    assert second != server.pid
    try:
        server.wait_log("Serving \\w+( 3)? application", 2)
        server.signal(signal.SIGWINCH)  # ignored by a master that is no daemon
        server.signal(signal.SIGTERM)
        port = server.port
        assert server.wait() == 0
        with Client(socket.create_connection(("127.0.0.1", port), DEADLINE), DEADLINE) as client:
            assert client.request().text.split()[0] == str(new)
    finally:
        os.kill(second, signal.SIGTERM)
        wait_gone(second)
    assert "Traceback" not in server.log()


# -- the process


def has_control_socket() -> bool:
    return any(setting.name == "control_socket" for setting in KNOWN_SETTINGS)


@ROOTED
@BOTH
def test_user_and_group(gunicorn: Servers, app: str) -> None:
    """The worker is somebody else, and leaves in good order."""
    folder = Path(tempfile.gettempdir())
    # The other user cannot write where the coverage of this project's own tests is collected.
    unmeasured = {"COVERAGE_PROCESS_CONFIG": None, "COVERAGE_PROCESS_START": None}
    server = gunicorn(
        f"stuck:{app}", "--user", "65534", "--group", "65534", "--chdir", str(folder), *CONFIG, env=unmeasured
    )
    (worker,) = server.worker_pids()
    _, uid, gid, *_ = server.request().text.split()
    assert (uid, gid) == ("65534", "65534")
    server.wait_log("Serving")
    assert server.stop() == 0
    assert f"hook worker_exit {worker} " in server.log()


@BOTH
def test_raw_env_and_chdir(gunicorn: Servers, app: str, tmp_path: Path) -> None:
    """Both are the application's; a variable of ours may come that way."""
    server = gunicorn(
        f"stuck:{app}", "--env", "FROM_RAW_ENV=yes", "--env", "HYBRIDWORKER_SLOW_LOOP=0", "--chdir", str(tmp_path)
    )
    _, _, _, folder, variable, _ = server.request().text.split()
    assert Path(folder) == tmp_path.resolve()
    assert variable == "yes"


def test_umask_of_a_unix_socket(gunicorn: Servers) -> None:
    """gunicorn's own business, undisturbed; the path is there until the master has gone."""
    with tempfile.TemporaryDirectory(prefix="hw-") as folder:
        path = Path(folder, "s")
        server = gunicorn("stuck:asgi", "--bind", f"unix:{path}", "--umask", "0117")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert server.request().status == 200
        assert server.stop() == 0
        assert not path.exists()


@pytest.mark.skipif(not has_control_socket(), reason="this gunicorn has none")
def test_the_control_socket_shows_and_moves_workers(gunicorn: Servers) -> None:
    """gunicorn's own client: the worker is shown with a fresh heartbeat, and another one is added."""
    from gunicorn.ctl.client import ControlClient

    with tempfile.TemporaryDirectory(prefix="hw-") as folder:
        path = f"{folder}/control"
        argv = ["-k", WORKER, "--bind", "127.0.0.1:0", "--control-socket", path, "stuck:asgi"]
        server = gunicorn.command(argv, APPS)
        server.dirty = True  # gunicorn's own thread may be ended amid its work
        # gunicorn closes the socket before each fork, and opens another one.
        server.wait_log("Control socket listening")
        with ControlClient(path, DEADLINE) as client:
            (worker,) = client.send_command("show workers")["workers"]
            assert worker["pid"] == server.worker_pids()[0]
            assert worker["last_heartbeat"] is None or worker["last_heartbeat"] < 5
            client.send_command("worker add 1")
        server.wait_workers(lambda pids: len(pids) == 2, "a second worker")
        server.wait_log("Control socket listening", 2)
        with ControlClient(path, DEADLINE) as client:
            client.send_command(f"worker kill {worker['pid']}")
        server.wait_workers(lambda pids: worker["pid"] not in pids, "the first one to leave")
        assert server.request().status == 200


# -- settings


def test_warnings_come_once_from_the_master(gunicorn: Servers, tmp_path: Path) -> None:
    """One line for a setting without effect, however many workers there are (one warning is gunicorn's own)."""
    (tmp_path / "conf.py").write_text("suppress_ragged_eofs = False\n")
    options = ("-c", str(tmp_path / "conf.py"), "--max-requests", "1")
    server = gunicorn("stuck:asgi", *options, workers=2, dirty=True)
    assert server.request().status == 200
    server.wait_log("Booting worker with pid", 3)
    line = rf"\[{server.pid}\] \[WARNING\] suppress_ragged_eofs=False has no effect with this worker: "
    assert len(re.findall(line, server.log())) == 1
    assert server.log().count("suppress_ragged_eofs=") == 1


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "HYBRIDWORKER_SLOWLOOP",
            "1",
            r"HYBRIDWORKER_SLOWLOOP is not a variable.*did you mean HYBRIDWORKER_SLOW_LOOP\?",
        ),
        ("HYBRIDWORKER_MAX_RSS", "1G", r"HYBRIDWORKER_MAX_RSS='1G' must be a whole number"),
        ("hybridworker_max_rss", "1", r"hybridworker_max_rss is not a variable.*did you mean HYBRIDWORKER_MAX_RSS\?"),
    ],
)
def test_a_variable_that_is_wrong_stops_the_boot(gunicorn: Servers, variable: str, value: str, expected: str) -> None:
    """Exit code 3, one line, in the master: no worker was forked."""
    server = gunicorn("stuck:asgi", env={variable: value}, ready=False, dirty=True)
    assert server.wait() == 3
    assert len(re.findall(rf"\[ERROR\] {expected}", server.log())) == 1
    assert "Booting worker" not in server.log()
    assert "Traceback" not in server.log()


def test_variables_of_kubernetes_are_ignored(gunicorn: Servers) -> None:
    """A service called hybridworker puts them into every pod beside it."""
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "API_PORT")
    server = gunicorn("stuck:asgi", env={f"HYBRIDWORKER_{name}": "tcp://10.0.0.1:80" for name in names})
    assert server.request().status == 200
    assert "[WARNING]" not in server.log()
