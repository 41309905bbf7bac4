"""``asgi`` and ``wsgi`` get stuck, ``polling`` has a task, each in a function whose name is looked for in a report."""

import asyncio
import os
import sys
import threading
import time

import gate

kept = []


def stuck_for_a_while(seconds):
    time.sleep(seconds)


def block_when(event):
    event.wait()
    gate.block("stuck")


async def waits_for_a_gate():
    await gate.wait("stuck")


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    what, _, argument = scope["path"].strip("/").partition("/")
    if what == "sleep":
        stuck_for_a_while(float(argument))
    elif what == "wait":
        await waits_for_a_gate()
    elif what == "grow":
        kept.append(b"x" * (int(argument) << 20))
    elif what == "executor":
        loop, waits = asyncio.get_running_loop(), threading.Event()
        loop.call_soon(waits.set)  # when this coroutine waits, and no longer runs
        await loop.run_in_executor(None, block_when, waits)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": describe().encode()})


async def polls():
    await asyncio.Event().wait()


async def polling(scope, receive, send):
    await receive()
    task = asyncio.create_task(polls(), name="poller")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    task.cancel()
    await send({"type": "lifespan.shutdown.complete"})


def wsgi(environ, start_response):
    what, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    if what == "wait":
        gate.block("stuck")
    elif what == "grow":
        kept.append(b"x" * (int(argument) << 20))
    start_response("200 OK", [])
    return [describe().encode()]


def describe():
    """pid, uid, gid, folder, a variable of ``--env``, and whether the interpreter's own folders come first."""
    return f"{os.getpid()} {os.getuid()} {os.getgid()} {os.getcwd()} {os.environ.get('FROM_RAW_ENV')} {len(sys.path)}"
