"""What the application made at import, on another loop: each case in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHECK = """
import asyncio, gc, warnings
from hybridworker.process.foreignloops import ForeignLoops

class Log:
    def warning(self, message, *args):
        print(message % args)

foreign = ForeignLoops()
asyncio.set_event_loop(asyncio.new_event_loop())
warnings.simplefilter("ignore")  # a loop that nobody has closed is the application's affair
gc.collect()
foreign.warn(Log())
foreign.warn(Log())
"""


def said(application: str) -> str:
    """What is printed after the import of ``application``."""
    program = f"import asyncio, sys, threading, time\nasync def job(): await asyncio.sleep(60)\n{application}\n{CHECK}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize(
    "application",
    [
        "loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.create_task(job())",
        "asyncio.set_event_loop(asyncio.new_event_loop()); asyncio.get_event_loop().create_task(job())",
        "loop = asyncio.new_event_loop(); task = loop.create_task(job())",
        "import uvloop; loop = uvloop.new_event_loop(); asyncio.set_event_loop(loop); loop.create_task(job())",
        "asyncio.set_event_loop(asyncio.new_event_loop()); loop = asyncio.get_event_loop()\n"
        "async def init(): asyncio.ensure_future(job())\nloop.run_until_complete(init())",
    ],
)
def test_a_task_that_never_runs_is_named(application: str) -> None:
    """Whichever loop it waits on, kept or not; and where its coroutine is."""
    assert said(application).startswith(
        "Made at import, on an event loop that never runs: job (<string>:2). Make tasks"
    )
    assert said(application).count("\n") == 1


def test_many_tasks_are_counted() -> None:
    """The line stays readable."""
    line = said("loop = asyncio.new_event_loop(); tasks = [loop.create_task(job()) for _ in range(8)]")
    assert line.count("job (") == 5
    assert " and 3 more. " in line


@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_a_loop_that_is_kept_is_said(module: str) -> None:
    """It is set, and the application can still give it something."""
    line = said(f"import {module}; loop = {module}.new_event_loop(); asyncio.set_event_loop(loop)")
    assert line.startswith("The application keeps an event loop from its import.")
    assert line.count("\n") == 1


THREAD = "threading.Thread(target=loop.run_forever, daemon=True).start()\nwhile not loop.is_running(): time.sleep(0.01)"


@pytest.mark.parametrize(
    "application",
    [
        "",
        "asyncio.run(asyncio.sleep(0))",
        "import uvloop; uvloop.install()",
        "asyncio.set_event_loop(asyncio.new_event_loop())",
        "asyncio.set_event_loop(asyncio.new_event_loop())\n"
        "asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))",
        "loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.close()",
        "loop = asyncio.new_event_loop(); loop.run_until_complete(asyncio.sleep(0))",
        f"loop = asyncio.new_event_loop(); asyncio.set_event_loop(loop); loop.create_task(job())\n{THREAD}",
        "loop = asyncio.new_event_loop(); task = loop.create_task(asyncio.sleep(0)); loop.run_until_complete(task)",
        "import django.core.asgi, django.core.wsgi, asgiref.sync",
        "import starlette.applications, starlette.routing; app = starlette.applications.Starlette()",
        "import fastapi; app = fastapi.FastAPI()",
        "import flask; app = flask.Flask('app')",
        "import channels.layers, channels.routing, channels.consumer, redis.asyncio; redis.asyncio.Redis()",
        "import asgiref.sync\nasync def nothing(): pass\nasgiref.sync.async_to_sync(nothing)()",
    ],
)
def test_ordinary_applications_are_left_in_peace(application: str) -> None:
    """Nothing waits on another loop, or it runs."""
    assert said(application) == ""


def test_nest_asyncio_is_left_in_peace() -> None:
    """It asks asyncio for a loop in order to patch its class."""
    pytest.importorskip("nest_asyncio")
    assert said("asyncio.set_event_loop(asyncio.new_event_loop()); import nest_asyncio; nest_asyncio.apply()") == ""
