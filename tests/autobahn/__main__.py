"""
The Autobahn test suite against an echo application behind a real gunicorn.

``make autobahn`` calls it: ``python -m tests.autobahn PYTHON2 LIBRARY REPORT VERSION CASES``. The
suite runs on Python 2.7 only, so it has an interpreter of its own, and LIBRARY is the folder
that it was installed into. REPORT is the folder for its pages, VERSION that of HTTP, CASES are patterns
such as ``9.*``. The suite speaks HTTP/1.1 only: for version 2 the tests' bridge makes each handshake an extended
CONNECT (RFC 8441) and carries the bytes as they are, all cases on one connection. Ends with 1 when a case failed, or
when the server logged an error. The rule one could break by accident: the suite itself ends with 0
whatever it found, so only its report counts, and a report of an earlier run is removed first.
"""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import servers

AGENT = "hybridworker"

VERSIONS = ("1.1", "2")

#: How a case may end. "Non-strict": legal, but later than it could be; "informational": there is no right or wrong.
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")

#: Seconds for the whole suite. Nearly all of it takes compression, and there the suite is the slower side.
PATIENCE = 7200


@contextmanager
def echo(folder: str, version: str) -> Iterator[str]:
    """A server that speaks this version of HTTP; its echo as a URL for clients that speak HTTP/1.1."""
    with servers(lambda: Path(folder)) as start:
        if version == "2":
            from tests.e2e.bridge import Bridge  # needs the package h2

            options = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
            with Bridge(start("sockets:app", *options)) as bridge:
                yield f"ws://127.0.0.1:{bridge.port}/echo"
        else:
            yield start("sockets:app").url.replace("http", "ws", 1) + "/echo"


def fuzz(python: str, library: Path, report: Path, version: str, cases: list[str]) -> None:
    """Run the suite against a server that lives as long."""
    with tempfile.TemporaryDirectory(prefix="hw-") as folder, echo(folder, version) as url:
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


def main(python: str, library: str, report: str, version: str, *cases: str) -> int:
    """Run the ``cases``; returns the exit code."""
    if version not in VERSIONS:
        sys.stderr.write(f"{version} is no version of HTTP that has WebSockets: {' or '.join(VERSIONS)}\n")
        return 2
    target = Path(report).resolve()
    shutil.rmtree(target, ignore_errors=True)
    fuzz(python, Path(library).resolve(), target, version, list(cases) or ["*"])
    return 0 if summary(target) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
