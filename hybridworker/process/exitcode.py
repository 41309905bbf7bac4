"""
Exit codes: with which code a worker ends, and who says why.

:meth:`.worker.Worker.init_process` asks for the code of the exception that ended it. The codes are
gunicorn's. Invariant: nothing but Exception and SystemExit leaves the worker. On
KeyboardInterrupt the arbiter, whose code surrounds the worker's after the fork, does what ends a
master: it unlinks the sockets and tells the siblings to go.
"""

from __future__ import annotations

from typing import Protocol

BOOT_ERROR = 3  #: the worker could not boot: gunicorn ends, with the same code
LOAD_ERROR = 4  #: the same, for an application that is not there
FAILED = 255  #: an exception ended a worker that had served: the next one is started


class Log(Protocol):
    """The part of gunicorn's logger that is needed here."""

    def error(self, msg: str, *args: object, exc_info: BaseException | None = None) -> object: ...


def exit_code(exc: BaseException, log: Log, *, booted: bool, booting: bool, told: int | None) -> tuple[int, bool]:
    """
    The exit code of a worker that ``exc`` has ended, and whether the reason is in the log now.

    If it is not, ``exc`` is for the arbiter. ``booted`` is gunicorn's flag; ``booting`` says
    that the worker has neither begun to accept nor been told to go: what fails then would
    fail in the next worker as well. ``told`` is the code that QUIT, INT or ABRT want.
    """
    if isinstance(exc, SystemExit):
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        if not booting or code in (0, BOOT_ERROR, LOAD_ERROR):
            return code, False
        log.error("The application ended the worker before it could serve: sys.exit(%r)", exc.code)
        return BOOT_ERROR, True
    if isinstance(exc, Exception) and not (booted and booting):
        return (FAILED if booted else BOOT_ERROR), False
    name = type(exc).__name__
    if booting:
        traceback = None if isinstance(exc, OSError) else exc  # a limit of the system needs none
        log.error("The worker could not start: %s: %s", name, exc, exc_info=traceback)
        return BOOT_ERROR, True
    log.error("The worker was ended by %s", name, exc_info=exc)
    return (FAILED if told is None else told), True
