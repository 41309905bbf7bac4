"""
Leaving the process although threads are still busy.

The interpreter waits at exit for the threads of every ``ThreadPoolExecutor``, also of those
that asgiref and ``run_in_executor`` make: one blocked call would hold the worker for as long
as it blocks. :mod:`.worker` calls :func:`leave_without_threads` as its last act in the main
thread. The rule one could break by accident: exit functions run and logs are flushed before
``os._exit``, which does neither.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading


def leave_without_threads(code: int) -> None:
    """
    Let the process end with ``code``, whatever its threads are doing.

    What is registered here runs before the interpreter waits for them. Where there are
    none it does nothing, and the interpreter ends as always.
    """

    def leave() -> None:
        if all(thread is threading.main_thread() for thread in threading.enumerate()):
            return
        atexit._run_exitfuncs()
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # closed, or nobody reads it
                pass
        os._exit(code)

    # The only way to be called before the wait; its callbacks run in reverse order of registration.
    threading._register_atexit(leave)  # type: ignore[attr-defined]
