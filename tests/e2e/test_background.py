"""
What becomes of the work that an application has left behind when its worker leaves.

In threads, executors and process pools it is finished within the graceful timeout; tasks
are cancelled; what is cut is named.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Gunicorn, Servers, processes
from tests.process.test_endpoints import parse, value

pytestmark = pytest.mark.e2e

#: Far beyond the deadline of the harness: a worker that waits for it makes the test fail.
LONG = ("--graceful-timeout", "300", "--timeout", "300")

BOTH = pytest.mark.parametrize("interface", ["asgi", "wsgi"])
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def term(server: Gunicorn, worker: int) -> None:
    server.signal(signal.SIGTERM, worker)


def hup(server: Gunicorn, worker: int) -> None:
    server.signal(signal.SIGHUP)
    server.wait_for(lambda: pid(server.request("/nothing").text) != worker, "the next worker to answer")


def recycle(server: Gunicorn, worker: int) -> None:
    """With ``--max-requests 2``."""
    assert pid(server.request("/nothing").text) == worker


def pid(text: str) -> int:
    return int(text.removeprefix("left in "))


def gone(server: Gunicorn, worker: int) -> None:
    """Wait until another worker serves in the place of ``worker``, which was not killed."""
    server.wait_log(rf"Worker exiting \(pid: {worker}\)")
    server.wait_workers(lambda pids: worker not in pids and len(pids) == 1, "the worker to be replaced")
    assert pid(server.request("/nothing").text) != worker
    assert "WORKER TIMEOUT" not in server.log()


def seconds_to_shut_down(server: Gunicorn) -> float:
    return float(server.wait_log(r"Served .* ([\d.]+) s to shut down")[1])


def no_orphans(server: Gunicorn, pids: set[int]) -> None:
    server.wait_for(lambda: not pids & {one for one, process in processes().items() if process.alive}, "their end")


# -- work in threads and processes

WORK = [
    ("asgi", "thread", term),
    ("asgi", "executor", hup),
    ("asgi", "run-in-executor", term),
    ("asgi", "run-in-executor", recycle),
    ("wsgi", "thread", recycle),
    ("wsgi", "queued", term),
    ("wsgi", "process", recycle),
]


@pytest.mark.parametrize(("interface", "where", "replace"), WORK, ids=[f"{a}-{b}-{c.__name__}" for a, b, c in WORK])
def test_work_that_was_left_behind_is_finished(
    gunicorn: Servers, interface: str, where: str, replace: Callable[[Gunicorn, int], None]
) -> None:
    """By whatever it is done, and for whatever reason the worker leaves."""
    limit = ("--max-requests", "2") if replace is recycle else ()
    server = gunicorn(f"leftover:{interface}", "--threads", "2", *limit, *LONG)
    worker = pid(server.request(f"/{where}").text)
    server.wait_log(f"gate {'first' if where == 'queued' else where} reached")
    replace(server, worker)
    server.open("first")
    server.open(where)
    server.wait_log(rf"Worker exiting \(pid: {worker}\)")
    assert f"job {where} done in " in server.log()
    assert "was cut" not in server.log()
    gone(server, worker)


@BOTH
def test_what_is_not_finished_in_time_is_named(gunicorn: Servers, interface: str) -> None:
    """One line has the names of the threads, what they do, and where they are."""
    server = gunicorn(f"leftover:{interface}", "--threads", "2", "--graceful-timeout", "1", dirty=True)
    worker = pid(server.request("/thread").text)
    server.request("/queued")
    server.request("/process")
    for gate in ("thread", "first", "process"):
        server.wait_log(f"gate {gate} reached")
    children = {one for one, process in processes().items() if process.parent == worker}
    server.signal(signal.SIGTERM, worker)
    line = server.wait_log(r"\[WARNING\] Background work was cut: (.*)$")[1]
    assert re.search(r"thread of a request in block \(gate\.py:\d+\)", line)
    assert re.search(r"thread of-the-module_0 \(job\) in block \(gate\.py:\d+\)", line)
    assert "a process pool with 1 call" in line
    assert server.log().count("was cut") == 1
    gone(server, worker)
    no_orphans(server, children)


def test_the_metrics_count_what_was_left(gunicorn: Servers) -> None:
    """Tasks and jobs, those that came to an end and those that were cut, after the worker is gone."""
    env = {"HYBRIDWORKER_METRICS_PATH": "/metrics"}
    server = gunicorn("leftover:asgi", "--graceful-timeout", "2", env=env, workers=2, dirty=True)
    with server.connect() as client:  # all of it is left in one worker
        worker = pid(client.request("/task").text)
        for path in ("stubborn", "thread"):
            assert pid(client.request(f"/{path}").text) == worker
    server.wait_log("task stubborn begins")
    server.wait_log("gate thread reached")
    server.signal(signal.SIGTERM, worker)
    server.wait_log(rf"Worker exiting \(pid: {worker}\)")
    families = parse(server.request("/metrics").text)
    name = "hybridworker_leftovers_total"
    assert value(families, name, kind="task", outcome="finished") == 1
    assert value(families, name, kind="task", outcome="cut") == 1
    assert value(families, name, kind="job", outcome="cut") == 1
    assert value(families, name, kind="job", outcome="finished") == 0


@BOTH
def test_nothing_idle_is_waited_for(gunicorn: Servers, interface: str) -> None:
    """Neither threads and processes of pools without work, nor daemons, nor a thread that waits for orders."""
    server = gunicorn(f"leftover:{interface}", "--threads", "2", *LONG)
    server.request("/daemon")
    server.wait_log("gate daemon reached")
    server.request("/idle")
    if interface == "asgi":
        server.request("/anyio")
    assert server.stop() == 0
    assert seconds_to_shut_down(server) < 10
    assert "was cut" not in server.log()


@BOTH
def test_with_reload_background_work_delays_the_restart_by_a_second_at_most(
    gunicorn: Servers, tmp_path: Path, interface: str
) -> None:
    """It is cut then, and named."""
    watched = tmp_path / "watched"
    watched.touch()
    options = ("--reload", "--reload-engine", "poll", "--reload-extra-file", str(watched))
    server = gunicorn(f"leftover:{interface}", "--threads", "2", *options, *LONG, dirty=True)
    worker = pid(server.request("/thread").text)
    server.wait_log("gate thread reached")
    server.touch(watched)
    server.wait_log(rf"Worker exiting \(pid: {worker}\)")
    server.wait_log("Background work was cut: thread of a request in block")
    assert seconds_to_shut_down(server) < 10
    gone(server, worker)


@BOTH
def test_quit_waits_for_no_work(gunicorn: Servers, interface: str) -> None:
    """It leaves at once, and leaves no process of a pool behind."""
    server = gunicorn(f"leftover:{interface}", "--threads", "2", *LONG, dirty=True)
    worker = pid(server.request("/thread").text)
    server.request("/queued")
    server.request("/process")
    for gate in ("thread", "first", "process"):
        server.wait_log(f"gate {gate} reached")
    children = {one for one, process in processes().items() if process.parent == worker}
    assert server.stop(signal.SIGQUIT) == 0
    no_orphans(server, children)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@BOTH
def test_a_worker_that_has_used_a_process_pool_leaves(gunicorn: Servers, interface: str, method: str) -> None:
    """The pool of a module, however it starts its processes: it ends when the worker is replaced, and on TERM."""
    # Python itself warns of a fork amid threads.
    environment = {"METHOD": method, "PYTHONWARNINGS": "default,ignore:This process:DeprecationWarning"}
    server = gunicorn(f"leftover:{interface}", "--threads", "2", "--max-requests", "2", *LONG, env=environment)
    first, again, second = (int(server.request("/pid-in-pool").text) for _ in range(3))
    assert first == again != second
    no_orphans(server, {first})
    assert "WORKER TIMEOUT" not in server.log()
    assert server.stop() == 0
    no_orphans(server, {second})


# -- tasks


@LOOPS
def test_tasks_of_the_application_are_cancelled_and_awaited(gunicorn: Servers, loop: str) -> None:
    """After lifespan shutdown, and asynchronous generators are closed after them."""
    server = gunicorn("leftover:asgi", "--asgi-loop", loop, *LONG)
    for path in ("task", "generator"):
        server.request(f"/{path}")
    server.wait_log("task task begins")
    assert server.stop() == 0
    lines = ["lifespan shutdown", "task task has cleaned up", "generator closed"]
    found = re.findall("|".join(lines), server.log())
    assert found == lines


@LOOPS
def test_a_task_that_goes_on_is_named(gunicorn: Servers, loop: str) -> None:
    """It is left at the graceful timeout. Its name cannot forge a line of the log."""
    server = gunicorn("leftover:asgi", "--asgi-loop", loop, "--graceful-timeout", "1", dirty=True)
    worker = pid(server.request("/stubborn").text)
    server.wait_log("task stubborn begins")
    server.signal(signal.SIGTERM, worker)
    server.wait_log(r"Background work was cut: task forged\\nname in stubborn \(leftover\.py:\d+\)$")
    assert server.log().count("not now") == 1
    gone(server, worker)


@LOOPS
def test_an_exception_in_a_task_says_which_it_was(gunicorn: Servers, loop: str) -> None:
    """One that nobody awaited, while serving, and one that is raised in the end."""
    server = gunicorn("leftover:asgi", "--asgi-loop", loop, *LONG, dirty=True)
    server.request("/fails")
    server.wait_log(r"\[ERROR\] Task exception was never retrieved \(task lonely in fails \(leftover\.py:\d+\)\)$")
    server.request("/fails-when-cancelled")
    assert server.stop() == 0
    assert re.search(r"\[ERROR\] .* \(task unclean in fails_when_cancelled \(leftover\.py:\d+\)\)$", server.log(), re.M)
    assert "LookupError: raised in cleaning up" in server.log()
