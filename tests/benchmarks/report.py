"""
From results to what is shown: pages of tables in reStructuredText.

Throughput stands in tables of ratios, one per interface; what is in ms, MiB or connections stands as it is, in tables
of its own. What failed has its reason at the table's foot, what is older than the code is named at the top.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Sample, Samples, field, linearity, median, ratio, values
from tests.benchmarks.scenarios import SCENARIOS, Measure, Scenario
from tests.benchmarks.servers import BASE, BASELINE, SERVERS, version
from tests.benchmarks.store import Result, outdated

PACKAGES = ("hybridworker", "gunicorn", "uvloop", "httptools", "asgiref", "websockets", "uvicorn", "uvicorn-worker",
            "granian", "hypercorn", "starlette", "fastapi", "django", "flask")  # fmt: skip
#: The tables of throughput.
TABLES = ("asgi", "wsgi", "applications", "hybrid", "http/2")
#: The tables of what stands as it is.
PLAIN = {
    "Latencies and times, ms": (Measure.P50, Measure.P99, Measure.MAX, Measure.RECOVERY, Measure.STARTUP),
    "Memory": (Measure.REST, Measure.CONNECTION),
    "Connections of the worker that got most": (Measure.SHARE,),
}
BEGIN, END = ".. benchmarks: begin", ".. benchmarks: end"


def environment(server_cores: Sequence[int], load_core: int) -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    machine = {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "server cores": list(server_cores),
        "load core": load_core,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    return {"machine": machine, "versions": {name: found for name in PACKAGES if (found := version(name))}}


# -- text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A simple table of reStructuredText, the form that GitHub and PyPI both show."""
    # An empty first cell would continue the row above, an empty row is none: the backslash is rst's empty text.
    filled = [[cell or "\\" for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *filled]) for column in range(len(header))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in filled]
    title = "  ".join(cell.ljust(width) for cell, width in zip(header, widths, strict=True)).rstrip()
    return "\n".join([rule, title, rule, *lines, rule])


def number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return ""
    if digits is None:
        digits = 0 if value >= 100 else 1
    return f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _absence(samples: Sequence[Sample]) -> str:
    return "failed" if samples and all("error" in sample for sample in samples) else ""


def _escaped(text: str) -> str:
    return "".join("\\" + char if char in "\\*`_|" else char for char in text)


def _heading(title: str, line: str) -> str:
    return f"{title}\n{line * len(title)}"


# -- tables


def _chosen(results: Mapping[str, Result], shown: Callable[[Scenario], bool]) -> list[Scenario]:
    return [scenario for scenario in SCENARIOS if scenario.name in results and shown(scenario)]


def _columns(results: Mapping[str, Result], scenarios: Iterable[Scenario]) -> list[str]:
    """The servers that were measured in any of these scenarios, without an earlier revision."""
    measured = {server for scenario in scenarios for server in results[scenario.name]["samples"]}
    return [server for server in SERVERS if server in measured and server != BASE]


def _throughput(results: Mapping[str, Result], name: str) -> str:
    """A row per scenario, our median, and its ratio to each peer."""
    scenarios = _chosen(results, lambda scenario: scenario.table == name and scenario.measure.relative)
    peers = [server for server in _columns(results, scenarios) if server != BASELINE]
    rows = []
    for scenario in scenarios:
        samples: Samples = results[scenario.name]["samples"]
        ours = samples.get(BASELINE, ())
        cells = [f"{scenario.title}, {scenario.measure.value}", number(median(ours)) or _absence(ours)]
        for peer in peers:
            found = ratio(ours, samples.get(peer, ()), scenario.measure.more_is_better)
            cells.append(f"{found.median:.2f}" if found else _absence(samples.get(peer, ())))
        rows.append(cells)
    return _footed([f"{name.upper()}, times better than", BASELINE, *peers], rows, results, scenarios)


def _plain(results: Mapping[str, Result], title: str, measures: Sequence[Measure]) -> str:
    """A row per scenario and measure, the median of each server; less is better."""
    scenarios = _chosen(results, lambda scenario: any(measure in measures for measure in scenario.measures))
    servers = _columns(results, scenarios)
    rows = []
    for scenario in scenarios:
        for measure in (measure for measure in scenario.measures if measure in measures):
            name, samples = field(scenario, measure), results[scenario.name]["samples"]
            of_servers = [samples.get(server, ()) for server in servers]
            unit = measure.value.removeprefix("ms, ").removeprefix("ms")
            title_of_row = ", ".join(part for part in (scenario.title, unit.strip()) if part)
            rows.append([title_of_row, *(number(median(own, name)) or _absence(own) for own in of_servers)])
    return _footed([title, *servers], rows, results, scenarios)


def _footed(
    header: Sequence[str], rows: Sequence[Sequence[str]], results: Mapping[str, Result], scenarios: Iterable[Scenario]
) -> str:
    """A table with the reasons of what failed; nothing without rows."""
    if not rows:
        return ""
    shown = [
        f"* {scenario.title}: {reason}"
        for scenario in scenarios
        for reason in failures(results[scenario.name]["samples"], whole=True)
    ]
    return "\n\n".join([table(header, rows), *(["\n".join(shown)] if shown else [])])


def failures(samples: Samples, whole: bool = False) -> list[str]:
    """A line for each server that failed in some rounds, or in all of them where only the ``whole`` is of interest."""
    lines = []
    for server in (server for server in SERVERS if server in samples):
        errors = [sample["error"] for sample in samples[server] if "error" in sample]
        if errors and not (whole and values(samples[server])):
            many = f"in {len(errors)} of {len(samples[server])} rounds"
            lines.append(f"{server} failed {many}: {_escaped(errors[0])}")
    return lines


def summary(results: Mapping[str, Result]) -> str:
    """All the tables of an overview."""
    tables = [_throughput(results, name) for name in TABLES]
    if shared := _chosen(results, lambda scenario: scenario.cores > 1):
        tables.append(f"The applications with 2 workers have 2 cores, {_load_of(results[shared[0].name])}.")
    tables += [_plain(results, title, measures) for title, measures in PLAIN.items()]
    return "\n\n".join(filter(None, tables))


def _spread(samples: Sequence[Sample], name: str = "value") -> str:
    """The median, and the least and the greatest of the rounds."""
    if not (found := values(samples, name)):
        return "failed"
    low, high = number(min(found)), number(max(found))
    return number(median(samples, name)) + (f" ({low}-{high})" if len(found) > 1 else "")


def details(scenario: Scenario, result: Mapping[str, Any]) -> str:
    """
    One row per server with all that was measured, and the reasons of those that failed.

    The ratio stands twice, by the clock and by CPU time: on a busy machine the second is the steadier one.
    """
    header = ["server", scenario.measure.value, f"{BASELINE} is better by", "per CPU second", "better by",
              "p50 ms", "p99 ms", "max ms", "RSS MiB", "core", "load core"]  # fmt: skip
    samples: Samples = result["samples"]
    ours = samples.get(BASELINE, ())
    rows = []
    for server in (name for name in SERVERS if name in samples):
        theirs = samples[server]
        by_clock = ratio(ours, theirs, scenario.measure.more_is_better) if server != BASELINE else None
        by_cpu = ratio(ours, theirs, name="per_cpu") if server != BASELINE else None
        rows.append([
            server, _spread(theirs), str(by_clock or ""),
            number(median(theirs, "per_cpu")), str(by_cpu or ""),
            number(median(theirs, "p50"), 2), number(median(theirs, "p99"), 2), number(median(theirs, "max"), 2),
            number(median(theirs, "rss"), 1),
            share(median(theirs, "busy")), share(median(theirs, "load_busy")),
        ])  # fmt: skip
    parts = [_heading(f"{scenario.title} ({scenario.table.upper()})", "-"), "", _how(scenario, result), ""]
    parts.append(table(header, rows))
    if reasons := failures(samples):
        parts += ["", *(f"* {reason}" for reason in reasons)]
    for title, name, text in (
        ("Least to greatest share of a worker", "most", _shares_of),
        ("Pages beside, per second", "pages", lambda samples: number(median(samples, "pages"))),
    ):
        if shown := [
            f"{server} {text(samples[server])}" for server in SERVERS if values(samples.get(server, ()), name)
        ]:
            parts += ["", f"{title}: {', '.join(shown)}."]
    return "\n".join(parts)


def _how(scenario: Scenario, result: Mapping[str, Any]) -> str:
    """What the load of a scenario was, where it ran, and which code it met."""
    streams = f" of {scenario.streams} streams" if scenario.streams > 1 else ""
    words = [f"{scenario.connections} connections{streams}"]
    if scenario.cores > 1:
        words.append(f"{scenario.workers} workers on {scenario.cores} cores, {_load_of(result)}")
    elif scenario.workers > 1:
        words.append(f"{scenario.workers} workers on one core")
    many = "round" if result["rounds"] == 1 else "rounds"
    words += [f"{result['rounds']} {many} of {result['seconds']} s", result["date"]]
    commit = f", revision {result['commit']}" if result.get("commit") else ""
    return f"``{scenario.name}``: {', '.join(words)}{commit}."


def _load_of(result: Mapping[str, Any]) -> str:
    """Where the load is when the server has two cores."""
    machine = result["environment"]["machine"]
    shared = machine["load core"] in machine["server cores"]
    return "the load on the second of them" if shared else "the load on a third"


def _shares_of(samples: Sequence[Sample]) -> str:
    """The least and the greatest share that a worker got in any round."""
    return f"{min(values(samples, 'least')):.0f}-{max(values(samples, 'most')):.0f}"


# -- before and after


def before_after(results: Mapping[str, Result]) -> str:
    """How the code compares with the earlier revision that was measured beside it; above 1 the code is better."""
    rows, without = [], []
    for scenario in _chosen(results, lambda scenario: bool(results[scenario.name].get("base"))):
        result = results[scenario.name]
        before, after = result["samples"].get(BASE, ()), result["samples"].get(BASELINE, ())
        if reason := result["base"]["lacks"]:
            without.append(f"* {scenario.name}: {reason}")
            continue
        without += [f"* {scenario.name}: {reason}" for reason in failures({BASE: before, BASELINE: after})]
        for measure in scenario.measures:
            name, main = field(scenario, measure), measure is scenario.measure
            times = ratio(after, before, measure.more_is_better, name)
            by_cpu = ratio(after, before, name="per_cpu") if main else None
            cells = [number(median(samples, name)) or _absence(samples) for samples in (before, after)]
            if by_cpu:
                per_cpu = [number(median(samples, "per_cpu")) for samples in (before, after)]
            else:
                per_cpu = ["", ""]
            rows.append([f"{scenario.name}, {measure.value}", *cells, str(times or ""), *per_cpu, str(by_cpu or "")])
    header = ["scenario", "before", "after", "times better", "per CPU second, before", "after", "times better"]
    return "\n\n".join([*([table(header, rows)] if rows else []), *(["\n".join(without)] if without else [])])


def comparison(results: Mapping[str, Result], code: str) -> str:
    """The page of a comparison with an earlier revision."""
    latest = _latest(results)
    parts = [f"Before: revision {latest['base']['commit']}. After: revision {latest['commit']}.", about(results)]
    return "\n\n".join([*parts, *_warnings(results, code), before_after(results)]) + "\n"


# -- pages


def _latest(results: Mapping[str, Result]) -> Result:
    return max(results.values(), key=lambda result: result["date"])


def about(results: Mapping[str, Result]) -> str:
    """The machine, and the versions."""
    found = _latest(results)["environment"]
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"Measured on {machine['cpu']} ({machine['cores']} cores, one for the server, one for the load), "
        f"{machine['system']}, {machine['python']}: {versions}."
    )


def _warnings(results: Mapping[str, Result], code: str) -> list[str]:
    """What is not of this code, or not of one machine and one set of versions."""
    newest = _latest(results)["environment"]
    others = [name for name, result in results.items() if result["environment"] != newest]
    named = {
        "Older than the code of this worker, and to be measured again": outdated(results, code),
        "From another machine or with other versions": others,
    }
    every = "all of them" if len(results) > 1 else ""
    return [
        f"{title}: {every if every and len(names) == len(results) else ', '.join(names)}."
        for title, names in named.items()
        if names
    ]


def render(results: Mapping[str, Result], code: str) -> tuple[str, str]:
    """The tables in summary, and the whole page. ``code`` is that of the worker as it is now."""
    parts = [about(results), *_warnings(results, code), summary(results)]
    if sentence := linearity(results):
        parts.append(sentence)
    short = "\n\n".join(parts)
    pages = [details(scenario, results[scenario.name]) for scenario in _chosen(results, lambda scenario: True)]
    return short + "\n", "\n\n".join([_heading("Benchmark results", "="), short, *pages]) + "\n"


def insert(text: str, short: str) -> str:
    """Put ``short`` between the marker comments of a page; ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the comments {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{short}\n{END}{after}"
