"""
Leaving the process although threads and processes are still busy.

The interpreter waits at exit for the threads of every ``ThreadPoolExecutor``, also of those
that asgiref and ``run_in_executor`` make: one blocked call would hold the worker for as long
as it blocks. :mod:`.worker` calls :func:`leave_without_threads` as its last act in the main
thread; what deserved to be waited for, :mod:`.background` has waited for.

Two kinds of functions run at exit, in this order: those of ``threading``, among them the
one with which ``concurrent.futures`` ends its process pools, and those of ``atexit``,
among them the one with which ``multiprocessing`` waits for processes. Invariant: all of
them run, and logs are flushed, before ``os._exit``, which does none of it; and the order
is kept, because nothing else tells the processes of a pool to end.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..wsgi.threads import patched

#: Seconds for the exit functions of ``threading``; those who are not done then have their processes killed.
PATIENCE = 2.0


def leave_without_threads(code: int) -> None:
    """
    Let the process end with ``code``, whatever its threads are doing.

    What is registered here runs before the interpreter waits for them. Where there are
    none it does nothing, and the interpreter ends as always. A child that is forked
    later ends as always, too.
    """
    pid = os.getpid()
    callbacks: list[Callable[[], Any]] = threading._threading_atexits  # type: ignore[attr-defined]
    before = len(callbacks)  # what is registered later has run when leave() does

    def leave() -> None:
        if os.getpid() != pid or all(thread is threading.main_thread() for thread in threading.enumerate()):
            return
        if patched("threading") is None:  # else there is no thread that could do it, and the boot has failed
            _end_pools(callbacks[:before])
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


def _end_pools(callbacks: Sequence[Callable[[], Any]]) -> None:
    """
    Have the other exit functions of ``threading`` run, which end process pools, for :data:`PATIENCE` at most.

    The pool of a call that has not ended would wait for it: its processes are killed.
    """
    for manager in _managers():
        if manager.pending_work_items:
            _kill(manager)
    # Among the functions is the one that joins every thread of an executor: it finds none.
    executors = sys.modules.get("concurrent.futures.thread")
    if executors is not None:
        executors._threads_queues.clear()

    def run() -> None:
        for callback in reversed(callbacks):
            try:
                callback()
            except Exception:
                logging.getLogger("gunicorn.error").exception("Exception in an exit function of threading")

    thread = threading.Thread(target=run, name="hybridworker-exit", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system has none to give
        run()
        return
    thread.join(PATIENCE)
    if thread.is_alive():
        for manager in _managers():
            _kill(manager)
        thread.join(PATIENCE)


def _managers() -> list[Any]:
    """The thread of each ``ProcessPoolExecutor`` that manages its processes."""
    module = sys.modules.get("concurrent.futures.process")
    return [] if module is None else [thread for ref in module._threads_wakeups.keyrefs() if (thread := ref())]


def _kill(manager: Any) -> None:
    """End the processes of a pool. Those of ``fork`` may have a handler for TERM that they inherited."""
    for process in list((manager.processes or {}).values()):
        try:
            process.kill()
        except ValueError:  # it has ended, and was closed
            pass
