"""
The command line: ``python -m tests.benchmarks run | profile | report | list``.

``run`` writes its results after every scenario, so that what was finished is kept when it is stopped. Ctrl-C and
SIGTERM end every process that was started.
"""

from __future__ import annotations

import argparse
import compileall
import datetime
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import h2load, overview, report
from tests.benchmarks.measure import measure, prepare, to_json
from tests.benchmarks.profile import profile
from tests.benchmarks.scenarios import SCENARIOS, Scenario, chosen
from tests.benchmarks.servers import BASELINE, ROOT, SERVERS, Server, ServerError, version

RESULTS = Path(__file__).parent / "results"


class UsageError(Exception):
    """Something that the user has to change."""


def with_load(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Those scenarios whose load can be made here; a line on the others. :class:`UsageError` where none is left."""
    if shutil.which("h2load"):
        return list(scenarios)
    left = [scenario for scenario in scenarios if scenario.client != "h2load"]
    if len(left) < len(scenarios):
        names = ", ".join(scenario.name for scenario in scenarios if scenario not in left)
        line = f"{names}: the load comes from h2load, which is not installed ({h2load.PACKAGE})"
        if not left:
            raise UsageError(line)
        print(f"left out are {line}", file=sys.stderr)
    return left


@contextmanager
def workplace(scenarios: Sequence[Scenario]) -> Iterator[tuple[Path, int, int]]:
    """Check what is needed, take the load's core, and give a directory that is removed at the end."""
    if not hasattr(os, "sched_setaffinity") or not Path("/proc/self/smaps_rollup").exists():
        raise UsageError("the benchmark needs Linux: it pins processes to cores and reads /proc")
    if any(scenario.client in ("wrk", "overload") for scenario in scenarios) and not shutil.which("wrk"):
        raise UsageError("the load comes from wrk, which is not installed (Debian and Ubuntu: apt install wrk)")
    tls = any(scenario.tls for scenario in scenarios)
    if tls and not shutil.which("openssl"):
        raise UsageError("a TLS scenario needs the openssl program for its certificate (apt install openssl)")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise UsageError("the benchmark needs two cores, one for the server and one for the load")
    needed = 2 * max(scenario.connections * max(1, scenario.streams) for scenario in scenarios) + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UsageError(f"{needed} open files are needed and {hard} allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    if os.getloadavg()[0] > 0.5:
        print("warning: something else is running on this machine; wait, or trust the ratios only", file=sys.stderr)
    os.sched_setaffinity(0, {cores[1]})
    # As every package that pip installed is: no start is to be measured with the compiler.
    compileall.compile_dir(ROOT / BASELINE, quiet=1)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        prepare(Path(directory), tls)
        yield Path(directory), cores[0], cores[1]


def participants(scenario: Scenario, names: Sequence[str] | None) -> list[Server]:
    """The servers of a scenario that were asked for and are installed."""
    servers = [SERVERS[name] for name in scenario.servers if names is None or name in names]
    return [server for server in servers if version(server.package) is not None]


def run(patterns: Sequence[str], rounds: int, seconds: int, names: Sequence[str] | None) -> None:
    scenarios = with_load(chosen(patterns))
    for missing in (server for server in SERVERS.values() if version(server.package) is None):
        print(f"{missing.name} is left out: {missing.package} is not installed", file=sys.stderr)
    with workplace(scenarios) as (directory, server_core, load_core):
        environment = report.environment(server_core, load_core)
        for scenario in scenarios:
            if not (servers := participants(scenario, names)):
                continue
            samples: dict[str, list[dict[str, Any]]] = {server.name: [] for server in servers}
            for number in range(rounds):
                # Each round begins with another server: what the machine does after a pause hits them all in turn.
                first = number % len(servers)
                for server in servers[first:] + servers[:first]:
                    samples[server.name].append(_sample(scenario, server, seconds, directory, server_core))
                    _progress(scenario, server, number, rounds, samples[server.name][-1])
            result = {"date": f"{datetime.date.today()}", "rounds": rounds, "seconds": seconds, "samples": samples}
            save({"environment": environment, "scenarios": {scenario.name: result}})
            print(report.details(scenario, result), end="\n\n", flush=True)
    write_report(None)


def _sample(scenario: Scenario, server: Server, seconds: int, directory: Path, core: int) -> dict[str, Any]:
    try:
        return to_json(measure(scenario, server, seconds, directory, core))
    except ServerError as exc:
        return {"error": str(exc)}


def _progress(scenario: Scenario, server: Server, number: int, rounds: int, sample: dict[str, Any]) -> None:
    value = sample.get("error") or f"{report.number(sample['value'])} {scenario.measure.value}"
    print(f"{scenario.name}, round {number + 1} of {rounds}, {server.name}: {value}", file=sys.stderr, flush=True)


def load_results() -> dict[str, Any] | None:
    path = RESULTS / "results.json"
    return json.loads(path.read_text()) if path.exists() else None


def save(current: dict[str, Any]) -> None:
    RESULTS.mkdir(exist_ok=True)
    merged = report.merge(load_results(), current)
    fresh = RESULTS / "results.json.new"
    fresh.write_text(json.dumps(merged, indent=1) + "\n")
    fresh.replace(RESULTS / "results.json")


def write_report(page: Path | None) -> None:
    """Write the tables and the charts from the stored results, and the overview into a page with the markers."""
    if (results := load_results()) is None:
        raise UsageError("there are no results yet: run first")
    short, whole = report.render(results)
    (RESULTS / "summary.rst").write_text(short)
    (RESULTS / "results.rst").write_text(whole)
    if rows := overview.throughput(results):
        (RESULTS / "overview.svg").write_text(overview.picture(rows))
    if not report.chart(results, RESULTS / "chart.svg"):
        print("no chart: it needs matplotlib, and rates of this worker and a peer", file=sys.stderr)
    if page is not None:
        picture = (RESULTS / "overview.svg").relative_to(page.resolve().parent)
        page.write_text(report.insert(page.read_text(), overview.overview(results, str(picture))))
    print(f"written to {RESULTS}", file=sys.stderr)


def show_profile(name: str, server: str, seconds: int, native: bool) -> None:
    scenarios = with_load(chosen([name]))
    with workplace(scenarios) as (directory, core, _):
        for scenario in scenarios:
            print(profile(scenario, SERVERS[server], seconds, directory, core, native))


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare servers, one worker each.")
    commands = root.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="measure, and write tables and chart")
    run_parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="names or shell patterns (default: all)")
    run_parser.add_argument("--rounds", type=int, default=5)
    run_parser.add_argument("--seconds", type=int, default=3, help="of load per round and server")
    run_parser.add_argument("--servers", help=f"comma-separated: {', '.join(SERVERS)}")
    profile_parser = commands.add_parser("profile", help="show where a worker spends its time")
    profile_parser.add_argument("scenario", metavar="SCENARIO")
    profile_parser.add_argument("--server", default=BASELINE, choices=SERVERS)
    profile_parser.add_argument("--seconds", type=int, default=5)
    profile_parser.add_argument("--native", action="store_true", help="show C functions too (py-spy only)")
    report_parser = commands.add_parser("report", help="write tables and chart again from stored results")
    report_parser.add_argument("--into", type=Path, metavar="PAGE", help="also between the markers of this page")
    commands.add_parser("list", help="show the scenarios")
    return root


def main() -> int:
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        match arguments.command:
            case "run":
                names = arguments.servers.split(",") if arguments.servers else None
                if unknown := set(names or ()) - set(SERVERS):
                    raise UsageError(f"no server {', '.join(sorted(unknown))}; there are: {', '.join(SERVERS)}")
                run(arguments.scenarios, max(1, arguments.rounds), max(1, arguments.seconds), names)
            case "profile":
                show_profile(arguments.scenario, arguments.server, max(1, arguments.seconds), arguments.native)
            case "report":
                write_report(arguments.into)
            case "list":
                for scenario in SCENARIOS:
                    print(f"{scenario.name:22} {scenario.title} ({scenario.interface}): {', '.join(scenario.servers)}")
    except (UsageError, ValueError, ServerError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was finished is kept", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
