"""
Run the checklist against a server, or against all and write the table of the README.

    python -m tests.checklist uvicorn            a line per statement, and the sums
    python -m tests.checklist uvicorn h21 x4     some statements only
    python -m tests.checklist --rst > table.rst  every installed server, a column for each
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .registry import Statement, Verdict, judge, statements
from .servers import SERVERS, Subject

Results = dict[str, tuple[Verdict, str]]

LEGEND = {
    Verdict.PASSED: "holds",
    Verdict.FAILED: "does not hold",
    Verdict.NOT_OFFERED: "an optional extension that is not announced",
    Verdict.NOT_DECIDABLE: "not decidable from outside",
}


def run(name: str, chosen: list[Statement], tell: Callable[[str], None]) -> Results:
    """Hold a server against statements."""
    results: Results = {}
    with tempfile.TemporaryDirectory(prefix="checklist-") as directory, Subject(name, Path(directory)) as subject:
        for statement in chosen:
            verdict, why = results[statement.identifier] = judge(statement, subject)
            line = f"{statement.identifier:4} {verdict.value:4} {statement.sentence}"
            tell(line + (f"\n          {why}" if why else ""))
    return results


def sums(results: Results) -> str:
    """How many statements have which verdict."""
    verdicts = [verdict for verdict, _ in results.values()]
    return ", ".join(f"{verdicts.count(verdict)} {meaning}" for verdict, meaning in LEGEND.items())


def table(columns: dict[str, Results], chosen: list[Statement]) -> str:
    """The results as a reStructuredText list-table."""
    names = list(columns)
    lines = [".. list-table::", "   :header-rows: 1", ""]

    def row(cells: list[str]) -> None:
        lines.extend(("   * - " if at == 0 else "     - ") + cell for at, cell in enumerate(cells))

    row(["", "Statement", *names])
    for statement in chosen:
        found = [columns[name][statement.identifier][0].value for name in names]
        row([statement.identifier, statement.sentence.replace("*", "\\*"), *found])
    for verdict, meaning in LEGEND.items():
        counts = [str(sum(found is verdict for found, _ in columns[name].values())) for name in names]
        row(["", f"**{meaning}** ({verdict.value})", *counts])
    return "\n".join(lines) + "\n"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def installed(name: str) -> bool:
    """Whether what ``name`` needs can be imported."""
    needed = {"uvicorn-worker": "uvicorn_worker", "gunicorn-asgi": "gunicorn"}.get(name, name)
    return importlib.util.find_spec(needed) is not None


def main() -> int:
    """Returns 1 if a statement failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.checklist", description=__doc__.split("\n\n")[0])
    parser.add_argument("server", nargs="?", choices=list(SERVERS), default="hybridworker")
    parser.add_argument("statement", nargs="*", help="identifiers, such as h21; all of them by default")
    parser.add_argument("--rst", action="store_true", help="all installed servers, as a table for the README")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the server must not outlive us
    wanted = {identifier.upper() for identifier in options.statement}
    chosen = [statement for statement in statements() if not wanted or statement.identifier in wanted]
    if options.rst:
        columns = {}
        for name in filter(installed, SERVERS):
            sys.stderr.write(f"{name}: a minute or so\n")
            columns[name] = run(name, chosen, lambda line: None)
        sys.stdout.write(table(columns, chosen))
        return 0
    results = run(options.server, chosen, say)
    say(f"\n{options.server}: {sums(results)}")
    return int(any(verdict is Verdict.FAILED for verdict, _ in results.values()))


if __name__ == "__main__":
    raise SystemExit(main())
