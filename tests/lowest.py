"""
The lowest versions that pyproject.toml allows, as constraints for pip.

``make test-oldest`` installs them. The bounds themselves stand in pyproject.toml and
nowhere else: of the dependencies and of the extras that users install.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("websockets", "http2", "examples")


def constraints(pyproject: str) -> list[str]:
    """``name==version`` for each requirement ``name>=version`` in the text of a pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    requirements = [*project["dependencies"]]
    for extra in EXTRAS:
        requirements += project["optional-dependencies"][extra]
    pins = []
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound of the form name>=version")
        pins.append(f"{match[1]}=={match[2]}")
    return pins


if __name__ == "__main__":
    sys.stdout.write("\n".join(constraints(Path("pyproject.toml").read_text(encoding="utf-8"))) + "\n")
