"""
The lines of README.rst's "By log line" are lines that are really logged.

Every text of the package, and of gunicorn for the lines that are its own, is read from the
source, with ``...`` for what varies; each line of the table must be in one of them.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import gunicorn

import hybridworker
from tests.oracle import of_gunicorn_27

ROOT = Path(__file__).resolve().parents[1]
HEADING = "By log line"
GUNICORN = Path(gunicorn.__file__).parent
SOURCES = [
    *Path(hybridworker.__file__).parent.rglob("*.py"),
    *(GUNICORN / name for name in ("arbiter.py", "config.py", "sock.py")),
]


def lines() -> list[str]:
    """The first column of the table."""
    _, _, section = (ROOT / "README.rst").read_text(encoding="utf-8").partition(f"\n{HEADING}\n")
    table = section.partition("   Line, ")[2].partition("\n\n")[0]
    rows = csv.reader(io.StringIO(table), skipinitialspace=True)
    return [line for row in [*rows][1:] for line in row[0].strip("`").split("``, ``")]


def texts() -> Iterator[str]:
    """Every string of the sources, with ``...`` for what is put into it."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = ""
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
            elif isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
            yield re.sub(r"%[-.\d]*[sdrf]", "...", text)


@of_gunicorn_27
def test_every_line_of_the_table_is_logged() -> None:
    """Whoever changes a line changes the README."""
    known = set(texts())
    assert len(lines()) > 20
    unknown = [line for line in lines() if not any(line in text for text in known)]
    assert unknown == []
