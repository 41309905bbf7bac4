"""
``python -m hybridworker``: the commands beside the worker class.

``top`` shows the workers of a running gunicorn, ``check`` what would be served, ``settings`` the configuration in
force. Each is a module of :mod:`.commands`, and its ``main`` returns an exit code. Invariant: a command is imported
when it is called, because ``top`` needs nothing but the standard library.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

VERSION = sys.modules[__package__].__version__
PROGRAM = "python -m hybridworker"

USAGE = f"""\
hybridworker {VERSION}, a worker class for gunicorn:

    gunicorn -k hybridworker.Worker MODULE:APP

Commands:

    {PROGRAM} top URL                 a screen of the workers that run: load, speed, memory
    {PROGRAM} check MODULE:APP        what would be served, and how, without binding a port
    {PROGRAM} settings                every setting and variable, with the value in force

--help behind a command says more. check and settings take gunicorn's options too, such as -c CONF.
"""

COMMANDS = ("top", "check", "settings")


def main(arguments: Sequence[str]) -> int:
    """Call the command that ``arguments`` begin with; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0
    if arguments[0] in ("-v", "--version"):
        sys.stdout.write(f"hybridworker {VERSION}\n")
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in COMMANDS:
        sys.stderr.write(f"{PROGRAM}: there is no command {command!r}: {', '.join(COMMANDS)}\n")
        return 2
    try:
        code: int = importlib.import_module(f".commands.{command}", __package__).main(f"{PROGRAM} {command}", rest)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
