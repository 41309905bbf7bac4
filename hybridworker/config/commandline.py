"""
CommandLine: gunicorn's configuration from a command line, without gunicorn.

For the commands of ``python -m hybridworker``. The files, variables and options are read by gunicorn's own code, in its
order, and what a master does to its process before it loads an application is done here too. Nothing is bound, forked
or logged. Synchronous; once in a process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from gunicorn import __version__
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.errors import ConfigError

from ..errors import ConfigurationError


class CommandLine(WSGIApplication):  # type: ignore[misc]  # gunicorn has no types
    """
    gunicorn's application object, as ``gunicorn`` itself makes one of ``arguments``.

    ``program`` is the name in messages. Without ``needs_app`` no application need be named. Ends the process, as
    gunicorn does, with exit code 2 for wrong options and 1 for a configuration file that cannot be read.
    """

    def __init__(self, program: str, arguments: Sequence[str], *, needs_app: bool = True) -> None:
        self.needs_app = needs_app
        before, sys.argv = sys.argv, [program, *arguments]  # gunicorn's parser reads it
        try:
            super().__init__(f"{program} [OPTIONS of gunicorn] {'MODULE:APP' if needs_app else ''}".rstrip(), program)
        finally:
            sys.argv = before
        os.environ.update(self.cfg.env)
        for path in (self.cfg.pythonpath or "").split(","):
            if path and (absolute := os.path.abspath(path)) not in sys.path:
                sys.path.insert(0, absolute)

    def load_config(self) -> None:
        """Read everything. A command that serves nothing does without an application."""
        try:
            super().load_config()
        except ConfigError:
            if self.needs_app or self.app_uri is not None:
                raise

    def worker_class(self, ours: type) -> tuple[type, str]:
        """
        The class whose boot is looked at, and a remark.

        That is the configured one if it is ``ours`` or made of it, else ``ours``, which ``-k`` would name. Raises
        :class:`~.errors.ConfigurationError` for one that gunicorn cannot load.
        """
        name = self.cfg.worker_class_str
        try:
            configured: Any = self.cfg.worker_class
        except (RuntimeError, TypeError, ImportError) as exc:
            reason = str(exc).partition("\n")[0].rstrip(": ")  # gunicorn puts a traceback behind it
            raise ConfigurationError(f"worker_class={name!r} cannot be loaded: {reason}") from None
        if isinstance(configured, type) and issubclass(configured, ours):
            return configured, ""
        return ours, f"worker_class is {name!r} here: this is what -k hybridworker.Worker would serve"

    def preload(self) -> None:
        """Load the application where the master would do it; raises what that raises."""
        if self.cfg.preload_app:
            self.wsgi()

    def missing(self) -> str:
        """One line about a file of TLS that is not there, for which gunicorn looks before it binds; else empty."""
        for name, path in (("certfile", self.cfg.certfile), ("keyfile", self.cfg.keyfile)):
            if path and not os.path.exists(path):
                return f"{name} {path!r} does not exist"
        return ""

    def summary(self) -> str:
        """One line: the version, the processes and the addresses."""
        addresses = ", ".join(bind(address) for address in self.cfg.address)
        return f"gunicorn {__version__}: workers={self.cfg.workers}, at {addresses} (nothing is bound now)"


def bind(address: Any) -> str:
    """An address as ``--bind`` has it."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{address}" if isinstance(address, str) else f"fd://{address}"
