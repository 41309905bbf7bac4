"""
The Autobahn test suite against an echo application behind a real gunicorn.

``make autobahn`` calls it: ``python -m tests.autobahn PYTHON2 LIBRARY REPORT CASES``. The
suite runs on Python 2.7 only, so it has an interpreter of its own, and LIBRARY is the folder
that it was installed into. REPORT is the folder for its pages, CASES are patterns such as
``9.*``. Ends with 1 when a case failed, or when the server logged an error. The rule one
could break by accident: the suite itself ends with 0 whatever it found, so only its report
counts, and a report of an earlier run is removed first.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.harness import servers

AGENT = "hybridworker"

#: How a case may end. "Non-strict": legal, but later than it could be; "informational": there is no right or wrong.
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")

#: Seconds for the whole suite. Nearly all of it takes compression, and there the suite is the slower side.
PATIENCE = 7200


def fuzz(python: str, library: Path, report: Path, cases: list[str]) -> None:
    """Run the suite against a server that lives as long."""
    with tempfile.TemporaryDirectory(prefix="hw-") as folder, servers(lambda: Path(folder)) as start:
        server = start("sockets:app")
        url = server.url.replace("http", "ws", 1) + "/echo"
        specification = Path(folder, "fuzzingclient.json")
        specification.write_text(
            json.dumps(
                {
                    "outdir": str(report),
                    "servers": [{"agent": AGENT, "url": url}],
                    "cases": cases,
                    "exclude-cases": [],
                    "exclude-agent-cases": {},
                }
            )
        )
        program = [python, "-c", "from autobahntestsuite.wstest import run; run()"]
        subprocess.run(
            [*program, "--mode", "fuzzingclient", "--spec", str(specification)],
            cwd=folder,  # it leaves a file with its state where it runs
            env={**os.environ, "PYTHONPATH": str(library), "PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            timeout=PATIENCE,
        )


def summary(report: Path) -> bool:
    """Print what came out of it; returns whether it was good."""
    index: dict[str, dict[str, dict[str, str]]] = json.loads((report / "index.json").read_text())
    results = index.get(AGENT, {})
    counts: collections.Counter[str] = collections.Counter()
    bad = []
    for case, result in results.items():
        outcomes = {result["behavior"], result["behaviorClose"]}
        if outcomes <= set(GOOD):
            counts[result["behavior"]] += 1
        else:
            counts["FAILED"] += 1
            bad.append(f"  {case}: {', '.join(sorted(outcomes))}\n")
    figures = ", ".join(f"{counts[outcome]} {outcome.lower()}" for outcome in (*GOOD, "FAILED"))
    sys.stdout.write(f"{len(results)} cases: {figures}\n{''.join(bad)}{report / 'index.html'}\n")
    return bool(results) and not bad


def main(python: str, library: str, report: str, *cases: str) -> int:
    """Run the ``cases``; returns the exit code."""
    target = Path(report).resolve()
    shutil.rmtree(target, ignore_errors=True)
    fuzz(python, Path(library).resolve(), target, list(cases) or ["*"])
    return 0 if summary(target) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
