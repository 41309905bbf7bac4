"""
``python -m hybridworker settings``: the configuration in force.

Every setting of gunicorn and every variable of this package, a line each, with its value and its remark.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..config.commandline import CommandLine
from ..config.inventory import inventory
from ..config.settings import check
from ..errors import ConfigurationError

#: Exit code for a configuration with which no worker boots: gunicorn's for that.
BOOT_ERROR = 3

#: The widest name or value that others are aligned with.
WIDTH = 34


def main(program: str, arguments: Sequence[str]) -> int:
    """Print them; returns the exit code."""
    loaded = CommandLine(program, arguments, needs_app=False)
    lines = ["* marks a value that is not the default. A setting is one of gunicorn's configuration file."]
    for heading, entries in inventory(loaded.cfg, os.environ):
        lines += ["", heading, ""]
        for entry in entries:
            left = f"{'*' if entry.changed else ' '} {entry.name} = {entry.value}"
            lines.append(f"{left:<{WIDTH}}  # {entry.remark}")
    sys.stdout.write("\n".join(lines) + "\n")
    try:
        check(loaded.cfg, os.environ)
    except ConfigurationError as exc:
        sys.stdout.flush()
        sys.stderr.write(f"{program}: {exc}\n")
        return BOOT_ERROR
    return 0
