"""
Workers that do a job again and again, of which one may do it at a time.

Each time that a worker does the job it writes its pid and the time into ``$GATES/jobs``.
"""

import json
import os
import threading
import time
from pathlib import Path

import gate

from hybridworker import is_leaving, leading, slot

gate.say(f"at import: {leading()} {slot()} {is_leaving()}")


def work():
    """Every ten milliseconds, as a scheduler would ask."""
    with Path(os.environ["GATES"], "jobs").open("a", buffering=1) as jobs:
        while True:
            if leading():
                jobs.write(f"{os.getpid()} {time.monotonic()}\n")
            time.sleep(0.01)


def in_a_child():
    """What a child that is forked here says."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, json.dumps([leading(), slot(), is_leaving()]).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader) as answer:
        return answer.read()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        gate.say(f"at startup: {leading()}")
        threading.Thread(target=work, daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        gate.say(f"at shutdown: {leading()} {is_leaving()}")
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["path"] == "/child":
        body = in_a_child().encode()
    else:
        body = json.dumps([os.getpid(), leading(), slot()]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
