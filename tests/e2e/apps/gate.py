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
    since = time.monotonic()
    while _closed(name, since):
        time.sleep(0.01)


async def wait(name: str) -> None:
    """Wait on the loop until the gate opens."""
    say(f"gate {name} reached")
    since = time.monotonic()
    while _closed(name, since):  # noqa: ASYNC110 (what is waited for happens in another process)
        await asyncio.sleep(0.01)
