"""
Gates: where an application waits until its test lets it pass.

An application that reaches a gate prints ``gate NAME reached`` and waits for a file of
that name in the folder ``$GATES``; a test waits for the line, does what it is about, and
calls ``server.open(NAME)``. No gate is waited at for ever.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

PATIENCE = 120.0


def say(text: str) -> None:
    """Print a whole line to the log, in one write."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _closed(name: str, since: float) -> bool:
    return not Path(os.environ["GATES"], name).exists() and time.monotonic() - since < PATIENCE


def block(name: str) -> None:
    """Block this thread until the gate opens."""
    say(f"gate {name} reached")
    since, path = time.monotonic(), os.path.join(os.environ["GATES"], name)
    # By functions in C alone: whenever the worker looks where this thread is, it is here.
    while not os.access(path, os.F_OK) and time.monotonic() - since < PATIENCE:
        time.sleep(0.01)


async def wait(name: str) -> None:
    """Wait on the loop until the gate opens. The line comes when the caller waits, and it does not run before."""
    loop, since = asyncio.get_running_loop(), time.monotonic()
    opened = loop.create_future()

    def look() -> None:
        if opened.cancelled():
            return
        if _closed(name, since):
            loop.call_later(0.01, look)
        else:
            opened.set_result(None)

    loop.call_soon(say, f"gate {name} reached")
    loop.call_soon(look)
    await opened
