"""
The command line.

    python -m tests.compare list                      the rows
    python -m tests.compare run                       every row against every server, a quarter of an hour
    python -m tests.compare run reload --servers granian,asgi
    python -m tests.compare report --into README.rst  the tables again, from the stored results
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.servers import version

from . import report
from .peers import PEERS
from .registry import Sign, chosen, judge, rows
from .servers import Subject

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.json", HERE / "results.rst"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load() -> dict[str, Any] | None:
    """What is stored."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else None


def save(row: str, answers: dict[str, list[str]], environment: dict[str, Any]) -> None:
    """Store what a row has found; what is stored of other rows stays."""
    found = {"date": f"{datetime.date.today()}", "answers": answers}
    merged = report.merge(load(), {"environment": environment, "rows": {row: found}})
    fresh = RESULTS.with_suffix(".json.new")
    fresh.write_text(json.dumps(merged, indent=1) + "\n")
    fresh.replace(RESULTS)


def run(names: Iterable[str], servers: Sequence[str], store: bool = True) -> int:
    """Try rows; returns how many could not be tried."""
    wanted, environment, unknown = chosen(names), report.environment(), 0
    for peer in PEERS.values():
        if peer.name in servers and version(peer.package) is None:
            raise ValueError(
                f"{peer.package} is not installed here: make compare makes an environment with all of them"
            )
    begun = time.monotonic()
    for row in wanted:
        answers = {}
        for name in servers:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="compare-", ignore_cleanup_errors=True) as directory:
                answer = judge(row, Subject(name, Path(directory)))
            answers[name] = [answer.sign.value, answer.detail]
            unknown += answer.sign is Sign.UNKNOWN
            seconds = time.monotonic() - started
            say(f"{row.name:26} {name:15} {answer.sign.value:7} {seconds:5.1f} s  {answer.detail}")
        if store:
            save(row.name, answers, environment)
    say(f"{len(wanted)} rows in {(time.monotonic() - begun) / 60:.1f} minutes; {unknown} answers could not be had")
    return unknown


def write_report(into: Path | None) -> None:
    """The page with all rows, and the compact table into a page with the markers."""
    if (results := load()) is None:
        raise ValueError("there are no results yet: run first")
    PAGE.write_text(report.whole(results))
    if into is not None:
        into.write_text(report.insert(into.read_text(), results))


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.compare", description="Try features against servers.")
    commands = root.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show the rows")
    run_parser = commands.add_parser("run", help="try rows, store what they find and write the page")
    run_parser.add_argument("rows", nargs="*", metavar="ROW", help="names from the list (default: all)")
    run_parser.add_argument("--servers", default=",".join(PEERS), help="comma-separated (default: all)")
    run_parser.add_argument("--dry", action="store_true", help="store nothing")
    report_parser = commands.add_parser("report", help="write the page again from what is stored")
    report_parser.add_argument("--into", type=Path, metavar="PAGE", help="the compact table, between its markers")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if something could not be tried, 2 for a mistake on the command line."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers must not outlive us
    try:
        if options.command == "list":
            for row in rows():
                say(f"{row.name:26} {row.group}: {row.title}")
        elif options.command == "report":
            write_report(options.into)
        else:
            servers = options.servers.split(",")
            if wrong := set(servers) - set(PEERS):
                raise ValueError(f"no server {', '.join(sorted(wrong))}; there are: {', '.join(PEERS)}")
            unknown = run(options.rows, servers, store=not options.dry)
            if not options.dry:
                write_report(None)
            return int(unknown > 0)
    except ValueError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was finished is kept\n")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
