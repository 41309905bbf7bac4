"""
``python -m hybridworker check MODULE:APP``: what a boot would serve, or why it would fail.

The lines are those of a boot, because they are made by the same code: the master's look at the configuration, and
:meth:`.worker.Worker.load_wsgi` in a worker that is never forked. The application is imported, as every boot does;
nothing is bound, no hook is called, and lifespan startup is not run.

Invariant: the exit code is the one with which gunicorn would end.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, TextIO

from ..config.commandline import CommandLine
from ..errors import ConfigurationError
from ..process.exit import LOAD_ERROR, exit_code, leave_without_threads
from ..worker import Worker, is_load_error

#: Exit code of a gunicorn whose master fails.
MASTER_ERROR = 1


class Lines:
    """A log as the worker calls one, on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Nothing: a screen is enough."""

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Print a line."""
        self._write("", msg, args, kwargs)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Print a line that says that it is a warning."""
        self._write("warning: ", msg, args, kwargs)

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Print a line that says that it is an error."""
        self._write("error: ", msg, args, kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Print a line and the traceback of the exception that is handled, or of ``exc_info``."""
        self._write("error: ", msg, args, {"exc_info": True, **kwargs})

    def _write(self, prefix: str, msg: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        text = str(msg) % args if args else str(msg)
        cause = kwargs.get("exc_info")
        exc = sys.exc_info()[1] if cause is True else cause
        if isinstance(exc, BaseException):
            text += "\n" + "".join(traceback.format_exception(exc)).rstrip()
        self.stream.write(f"{prefix}{text}\n")


def main(program: str, arguments: Sequence[str]) -> int:
    """Print what would be served; returns 0, or 3 or 4 as the boot would, or 1 where it ends in the master."""
    loaded = CommandLine(program, arguments)
    log = Lines(sys.stdout)
    try:
        kind, remark = loaded.worker_class(Worker)
    except ConfigurationError as exc:
        log.error("%s", exc)
        code = MASTER_ERROR
    else:
        code = prepare(kind, loaded, log) or boot(kind, loaded, log)
        if code == 0 and remark:
            log.warning("%s", remark)
    log.info("%s", loaded.summary())
    log.info(
        "%s", f"gunicorn would end with exit code {code}" if code else "It would boot. (Lifespan startup was not run.)"
    )
    leave_without_threads(code)  # those that the application has started at import
    return code


def prepare(kind: Any, loaded: CommandLine, log: Lines) -> int:
    """Do what the master does before it forks, but for binding; returns the exit code."""
    try:
        loaded.preload()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # whatever an import may raise
        log.error("The application cannot be loaded, and preload_app has the master do it", exc_info=exc)
        return exc.code if isinstance(exc, SystemExit) and isinstance(exc.code, int) else MASTER_ERROR
    try:
        kind.check_config(loaded.cfg, log)
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else MASTER_ERROR
    if line := loaded.missing():
        log.error("%s", line)
        return MASTER_ERROR
    return 0


def boot(kind: Any, loaded: CommandLine, log: Lines) -> int:
    """Load the application, as a worker would; returns the exit code."""
    try:
        worker = kind.__new__(kind)  # not its constructor, which takes a place among the workers
        worker.app, worker.cfg, worker.log, worker.reloader = loaded, loaded.cfg, log, None
        worker.load_wsgi()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # whatever an import may raise
        code, logged = exit_code(exc, log, booted=False, booting=True, told=None)
        if is_load_error(exc):
            code = LOAD_ERROR
        if not logged and not isinstance(exc, SystemExit):
            log.error("Exception in worker process", exc_info=exc)
        return code
    return 0
