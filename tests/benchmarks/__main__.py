"""
The command line: ``python -m tests.benchmarks run | profile | report | bars | list``.

``run`` stores each scenario as soon as it is complete; stopped by Ctrl-C or SIGTERM it ends every process that it has
started, and ``run --resume`` goes on with what is missing or older than the code.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.benchmarks import chart, figures, overview, report
from tests.benchmarks.profile import profile
from tests.benchmarks.revision import RevisionError, code_of
from tests.benchmarks.run import Options, UsageError, run, with_load, workplace
from tests.benchmarks.scenarios import SCENARIOS, chosen
from tests.benchmarks.servers import BASE, BASELINE, SERVERS, ServerError
from tests.benchmarks.store import RESULTS, Store, outdated


def write_report(store: Store, page: Path | None = None) -> None:
    """
    Write the tables and the charts from the stored results, and the overview into a page with the markers.

    Those of a comparison with an earlier revision are one page, which is printed.
    """
    if not (results := store.load()):
        raise UsageError("there are no results yet: run first")
    code = code_of()
    if old := outdated(results, code):
        print(f"warning: older than the code: {', '.join(old)} (run --resume renews them)", file=sys.stderr)
    folder = store.path.parent
    if any(result.get("base") for result in results.values()):
        text = report.comparison(results, code)
        store.path.with_suffix(".rst").write_text(text)
        print(text)
    else:
        short, whole = report.render(results, code)
        (folder / "summary.rst").write_text(short)
        (folder / "results.rst").write_text(whole)
        if rows := overview.throughput(results):
            (folder / "overview.svg").write_text(overview.picture(rows))
        if not chart.chart(results, folder / "chart.svg"):
            print("no chart: it needs matplotlib, and rates of this worker and a peer", file=sys.stderr)
        if page is not None:
            picture = (folder / "overview.svg").relative_to(page.resolve().parent)
            page.write_text(report.insert(page.read_text(), overview.overview(results, str(picture))))
    print(f"written to {folder}", file=sys.stderr)


def show_bars(store: Store) -> None:
    """What this worker has set itself, and whether it holds by the stored results."""
    results = store.load()
    for scenario in SCENARIOS:
        samples: figures.Samples = results.get(scenario.name, {}).get("samples", {})
        for server in (BASELINE, *scenario.bars):
            if text := figures.verdict(scenario, samples, server):
                print(f"{scenario.name:22} {'' if server == BASELINE else server:20} {text}")


def show_profile(name: str, server: str, seconds: int, native: bool) -> None:
    scenarios = with_load(chosen([name]))
    with workplace(scenarios) as place:
        for scenario in scenarios:
            core = place.server_cores[0]
            print(profile(scenario, SERVERS[server], seconds, place.directory, core, native))


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Compare servers, one worker each.")
    commands = root.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="measure, and write tables and charts")
    run_parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="names or shell patterns (default: all)")
    run_parser.add_argument("--rounds", type=int, default=3)
    run_parser.add_argument("--seconds", type=int, default=2, help="of load per round and server")
    run_parser.add_argument("--servers", help=f"comma-separated: {', '.join(name for name in SERVERS if name != BASE)}")
    run_parser.add_argument("--base", metavar="REV", help="measure the package of an earlier revision, too")
    run_parser.add_argument("--resume", action="store_true", help="only what is missing or older than the code")
    profile_parser = commands.add_parser("profile", help="show where a worker spends its time")
    profile_parser.add_argument("scenario", metavar="SCENARIO")
    profile_parser.add_argument("--server", default=BASELINE, choices=SERVERS)
    profile_parser.add_argument("--seconds", type=int, default=5)
    profile_parser.add_argument("--native", action="store_true", help="show C functions too (py-spy only)")
    report_parser = commands.add_parser("report", help="write tables and charts again from stored results")
    report_parser.add_argument("--into", type=Path, metavar="PAGE", help="also between the markers of this page")
    bars_parser = commands.add_parser("bars", help="show which bars hold by the stored results")
    for command in (run_parser, report_parser, bars_parser):
        file = f"of the results (default: {RESULTS.name}/results.json, or that of the revision after --base)"
        command.add_argument("--file", type=Path, metavar="JSON", help=file)
    commands.add_parser("list", help="show the scenarios")
    return root


def main() -> int:
    arguments = parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    store = Store(arguments.file.resolve()) if getattr(arguments, "file", None) else None
    try:
        match arguments.command:
            case "run":
                names = arguments.servers.split(",") if arguments.servers else None
                if unknown := set(names or ()) - set(SERVERS):
                    raise UsageError(f"no server {', '.join(sorted(unknown))}; there are: {', '.join(SERVERS)}")
                options = Options(
                    rounds=max(1, arguments.rounds),
                    seconds=max(1, arguments.seconds),
                    names=names,
                    base=arguments.base,
                    resume=arguments.resume,
                )
                write_report(run(chosen(arguments.scenarios), options, store))
            case "profile":
                show_profile(arguments.scenario, arguments.server, max(1, arguments.seconds), arguments.native)
            case "report":
                write_report(store or Store(), arguments.into)
            case "bars":
                show_bars(store or Store())
            case "list":
                for scenario in SCENARIOS:
                    print(f"{scenario.name:22} {scenario.title} ({scenario.interface}): {', '.join(scenario.servers)}")
    except (UsageError, ValueError, ServerError, RevisionError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; what was complete is kept; run --resume (make bench RESUME=1) goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
