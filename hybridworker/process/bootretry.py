"""
Boot retry: a worker that could not boot, while others of its master serve.

gunicorn ends when a worker cannot boot, since the next one could not either. While older workers
serve, that would turn a bad deploy into an outage. So the worker waits and ends with a code
that lets the master try again, and the old workers stay: :mod:`..group.succession` says when.
Main thread, without a loop. Invariant: the wait lasts no longer than the master wants this worker.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from ..errors import BootFailed

#: Seconds before the first and, at most, before any other attempt. In between they are doubled.
FIRST, MOST = 1.0, 10.0

#: Seconds between two looks at what has happened meanwhile.
STEP = 0.1


def delay(failures: int) -> float:
    """Seconds before the next attempt, after so many that have failed in a row."""
    return float(min(MOST, FIRST * 2 ** min(failures - 1, 10)))


def reason(exc: BaseException) -> str:
    """Why a worker could not boot, in one line."""
    if isinstance(exc, BootFailed):
        text = exc.reason
    elif isinstance(exc, SystemExit):
        text = f"sys.exit({exc.code!r})"
    else:
        text = f"{type(exc).__name__}: {exc}"
    return text.partition("\n")[0]


def wait(seconds: float, beat: Callable[[], None], told: Callable[[], None], parent: int) -> bool:
    """
    Wait for ``seconds``, calling ``beat()`` for the heartbeat; less where nobody wants another attempt.

    ``told()`` is called when TERM comes. Returns whether it came, or the master, whose pid is
    ``parent``, has gone.
    """
    ended = False

    def on_term(number: int, frame: object) -> None:
        nonlocal ended
        ended = True
        told()

    signal.signal(signal.SIGTERM, on_term)
    until = time.monotonic() + seconds
    while not ended and os.getppid() == parent:
        left = until - time.monotonic()
        if left <= 0:
            return False
        beat()
        time.sleep(min(STEP, left))
    return True
