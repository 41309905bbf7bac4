"""
What fails before a worker accepts is a failed boot: exit code 3, and one line that says why.

It would fail in the next worker as well, so gunicorn ends instead of booting for ever. And what
is made at import, on an event loop that nobody runs, is said once.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.e2e.harness import Gunicorn, Servers

pytestmark = pytest.mark.e2e

BOTH = pytest.mark.parametrize("app", ["asgi", "wsgi"])
LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def refused(server: Gunicorn, line: str, boots: int) -> None:
    """The one line, exit code 3, and no boot more."""
    assert server.wait() == 3
    lines = [text for text in server.log().splitlines() if re.search(line, text)]
    assert len(lines) == 1, server.log()
    assert server.log().count("Booting worker with pid") == boots


# -- gevent


LIBRARIES = [
    "patched",
    pytest.param(
        "gevent.monkey",
        marks=pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed"),
    ),
]


@pytest.mark.parametrize("library", LIBRARIES)
@BOTH
def test_threads_that_the_configuration_has_patched(gunicorn: Servers, tmp_path: Path, app: str, library: str) -> None:
    """The master names the library before it makes any worker."""
    config = tmp_path / "conf.py"
    config.write_text(f"import {library}\n{library}.patch_all()\n")
    server = gunicorn(f"failing:{app}", "--config", str(config), ready=False, dirty=True)
    refused(server, rf"\[ERROR\] {library.split('.')[0]} has patched threading, and this worker", boots=0)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("hook", ["post_fork(server, worker)", "post_worker_init(worker)"])
def test_threads_that_a_hook_has_patched(gunicorn: Servers, tmp_path: Path, hook: str, library: str) -> None:
    """The first worker names the library, and gunicorn ends."""
    config = tmp_path / "conf.py"
    config.write_text(f"import {library}\ndef {hook}:\n    {library}.patch_all()\n")
    server = gunicorn("failing:asgi", "--config", str(config), ready=False, dirty=True)
    refused(server, rf"\[ERROR\] {library.split('.')[0]} has patched threading, and this worker", boots=1)


@pytest.mark.parametrize("library", LIBRARIES)
@BOTH
def test_threads_that_the_application_has_patched(gunicorn: Servers, tmp_path: Path, app: str, library: str) -> None:
    """While it was imported, as gevent's documentation has it."""
    (tmp_path / "patches.py").write_text(f"import {library}\n{library}.patch_all()\nfrom failing import asgi, wsgi\n")
    server = gunicorn(f"patches:{app}", "--pythonpath", str(tmp_path), ready=False, dirty=True)
    refused(server, rf"\[ERROR\] {library.split('.')[0]} has patched threading, and this worker", boots=1)


# -- before the worker accepts


@BOTH
@LOOPS
def test_no_descriptor_left_for_the_loop(gunicorn: Servers, tmp_path: Path, app: str, loop: str) -> None:
    """After ``post_worker_init``, which is where gunicorn takes the worker for booted."""
    config = tmp_path / "conf.py"
    config.write_text(
        "import os, resource\n"
        "def post_worker_init(worker):\n"
        "    free = os.dup(0)\n"
        "    os.close(free)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\n"
    )
    server = gunicorn(f"failing:{app}", "--asgi-loop", loop, "--config", str(config), ready=False, dirty=True)
    refused(server, r"\[ERROR\] The worker could not start: OSError: ", boots=1)


@BOTH
@pytest.mark.parametrize(
    ("fail", "line"),
    [
        ("exits", r"before it could serve: sys\.exit\('the configuration is not complete'\)$"),
        ("interrupts", r"\[ERROR\] The worker could not start: KeyboardInterrupt"),
    ],
)
def test_an_application_that_ends_its_import(gunicorn: Servers, app: str, fail: str, line: str) -> None:
    """By what is no Exception."""
    server = gunicorn(f"failing:{app}", env={"FAIL": fail}, ready=False, dirty=True)
    refused(server, line, boots=1)


# -- loops and tasks that were made at import

TASKS = r"\[WARNING\] Made at import, on an event loop that never runs: polls \(\S+failing\.py:\d+\)\. Make tasks in"
LOOP = r"\[WARNING\] The application keeps an event loop from its import\. This worker runs another one"


@pytest.mark.parametrize(
    ("app", "loop", "fail", "line"),
    [
        ("asgi", "uvloop", "task", TASKS),
        ("wsgi", "asyncio", "task", TASKS),
        ("wsgi", "uvloop", "own", TASKS),
        ("asgi", "asyncio", "loop", LOOP),
        ("wsgi", "uvloop", "loop", LOOP),
    ],
)
def test_what_never_runs_is_said_once(gunicorn: Servers, app: str, loop: str, fail: str, line: str) -> None:
    """A task, or a loop that the application keeps."""
    server = gunicorn(f"failing:{app}", "--asgi-loop", loop, env={"FAIL": fail}, dirty=True)
    server.wait_log(line)
    assert server.request().text == "served"
    assert server.log().count("[WARNING]") == 1
    assert "the task has run" not in server.log()


@pytest.mark.parametrize(("app", "fail"), [("asgi", "thread"), ("wsgi", "used")])
def test_what_runs_elsewhere_is_left_in_peace(gunicorn: Servers, app: str, fail: str) -> None:
    """A loop in a thread of the application, and one that has done its work; the warning would come within a second."""
    server = gunicorn(f"failing:{app}", env={"FAIL": fail, "PYTHONWARNINGS": "ignore"})
    assert server.request("/later").text == "served"
    assert "[WARNING]" not in server.log()
