"""
Exit: how the process ends, with which code, and although threads and processes are still busy.

:meth:`.worker.Worker.init_process` asks for the code of the exception that ended the worker.
Invariant: only Exception and SystemExit leave the worker. The arbiter's code surrounds the
worker's after the fork, and on KeyboardInterrupt it does what ends a master: it unlinks the
sockets and tells the siblings to go.

The interpreter waits at exit for the threads of every ``ThreadPoolExecutor``, also for those of
asgiref and ``run_in_executor``: one blocked call would hold the worker for as long as it blocks.
So :func:`leave_without_threads` is the worker's last act in the main thread. :mod:`.leftovers`
has waited before for what deserved it.

Two kinds of functions run at exit, in this order: those of ``threading``, and those of
``atexit``. ``concurrent.futures`` ends its process pools with one of the former,
``multiprocessing`` waits for processes with one of the latter. Invariant: all of them run in
this order, because nothing else ends the processes of a pool, and the logs are flushed, before
``os._exit``, which does none of it.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..connection.context import Log
from .patches import patched

BOOT_ERROR = 3  #: the worker could not boot: gunicorn ends, with the same code
LOAD_ERROR = 4  #: the same, for an application that is not there
FAILED = 255  #: an exception ended a worker that had served: the next one is started

#: Seconds for the exit functions of ``threading``. Then the processes of the pools that are not done are killed.
PATIENCE = 2.0


def exit_code(exc: BaseException, log: Log, *, booted: bool, booting: bool, told: int | None) -> tuple[int, bool]:
    """
    The exit code of a worker that ``exc`` has ended, and whether the reason is in the log now.

    If it is not, ``exc`` is for the arbiter to log. ``booted`` is gunicorn's flag. ``booting``
    says that the worker has neither begun to accept nor been told to go: what fails then would
    fail in the next worker as well. ``told`` is the code that QUIT, INT or ABRT want.
    """
    if isinstance(exc, SystemExit):
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        if booting and code not in (BOOT_ERROR, LOAD_ERROR):
            log.error("The application ended the worker before it could serve: sys.exit(%r)", exc.code)
            return BOOT_ERROR, True
        if not booting and code in (BOOT_ERROR, LOAD_ERROR):  # with these the master would end all of gunicorn
            log.error("The application ended the worker: sys.exit(%r)", exc.code)
            return FAILED, True
        return code, False
    if isinstance(exc, Exception) and booted != booting:
        return (FAILED if booted else BOOT_ERROR), False
    name = type(exc).__name__
    if booting:
        traceback = None if isinstance(exc, OSError) else exc  # a limit of the system needs none
        log.error("The worker could not start: %s: %s", name, exc, exc_info=traceback)
        return BOOT_ERROR, True
    log.error("The worker was ended by %s", name, exc_info=exc)
    return (FAILED if told is None else told), True


def leave_without_threads(code: int) -> None:
    """
    Let the process end with ``code``, whatever its threads are doing.

    This registers a function that runs before the interpreter waits for the threads. Where
    there are none, and in a child that is forked later, the interpreter ends as always.
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
    Run the other exit functions of ``threading``, which end process pools, for :data:`PATIENCE` at most.

    A pool waits for its calls. Where one has not ended, the processes of the pool are killed.
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

    if patched("threading") is not None:  # a thread might never run
        run()
        return
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
    """Kill the processes of a pool. TERM may not end them: after a fork they have inherited its handler."""
    for process in list((manager.processes or {}).values()):
        try:
            process.kill()
        except ValueError:  # it has ended, and was closed
            pass
