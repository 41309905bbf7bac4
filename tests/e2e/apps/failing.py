"""Applications that fail, or leave something behind, while they are imported: ``$FAIL`` says how."""

import asyncio
import os
import sys
import threading
import time

import gate

kept = []


async def polls():
    gate.say("the task has run")
    await asyncio.Event().wait()


def task():
    """On the loop that asyncio makes for whoever asks."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    kept.append(loop.create_task(polls()))


def task_of_a_loop_of_its_own():
    kept.append(asyncio.new_event_loop().create_task(polls()))


def loop():
    kept.append(asyncio.new_event_loop())
    asyncio.set_event_loop(kept[0])


def thread():
    """A loop that runs in a thread, with a task."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    kept.append(loop)
    kept.append(loop.create_task(polls()))
    threading.Thread(target=loop.run_forever, daemon=True).start()


def used():
    """A loop that has done what it was made for, and one that nobody has kept."""
    asyncio.run(asyncio.sleep(0))
    asyncio.set_event_loop(asyncio.new_event_loop())
    asyncio.get_event_loop().run_until_complete(asyncio.sleep(0))


def exits():
    sys.exit("the configuration is not complete")


def interrupts():
    raise KeyboardInterrupt


FAILURES = {function.__name__: function for function in (exits, interrupts, task, loop, thread, used)}
FAILURES["own"] = task_of_a_loop_of_its_own

if "FAIL" in os.environ:
    FAILURES[os.environ["FAIL"]]()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/later":
        await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"served"})


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/later":
        time.sleep(2)
    start_response("200 OK", [("Content-Length", "6")])
    return [b"served"]
