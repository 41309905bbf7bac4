"""
From samples to what is shown: medians, ratios, two tables in reStructuredText and a chart.

The results are one JSON document::

    {"environment": {"machine": {...}, "versions": {...}},
     "scenarios": {NAME: {"date": ..., "rounds": N, "seconds": S,
                          "samples": {SERVER: [SAMPLE or {"error": TEXT}, ...]}}}}

where position *i* of every list of samples belongs to round *i*.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.scenarios import SCENARIOS, Measure, Scenario
from tests.benchmarks.servers import BASELINE, SERVERS, version

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
PACKAGES = ("hybridworker", "gunicorn", "uvloop", "httptools", "asgiref", "websockets", "uvicorn", "uvicorn-worker",
            "granian", "hypercorn", "starlette", "fastapi", "django", "flask")  # fmt: skip
TABLES = ("asgi", "wsgi", "http/2", "hybrid")
BEGIN, END = ".. benchmarks: begin", ".. benchmarks: end"


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better the baseline is: median over the rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


# -- arithmetic


def values(samples: Sequence[Mapping[str, Any]], name: str = "value") -> list[float]:
    """The values of one field, without the rounds that failed or did not have it."""
    return [sample[name] for sample in samples if sample.get(name) is not None]


def median(samples: Sequence[Mapping[str, Any]], name: str = "value") -> float | None:
    found = values(samples, name)
    return statistics.median(found) if found else None


def ratio(
    ours: Sequence[Mapping[str, Any]],
    theirs: Sequence[Mapping[str, Any]],
    more_is_better: bool = True,
    name: str = "value",
) -> Ratio | None:
    """
    The ratio of two servers, taken within each round and only then summed up; None without a common round.

    Above 1 our server is the better one, also where less is better.
    """
    ratios = []
    for our, their in zip(ours, theirs, strict=False):
        better, worse = (our, their) if more_is_better else (their, our)
        if better.get(name) and worse.get(name):
            ratios.append(better[name] / worse[name])
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def verdict(scenario: Scenario, samples: Samples, server: str) -> str:
    """The bar of a server as text: met or not, or nothing where there is none."""
    bar = scenario.bars.get(server)
    found = ratio(samples.get(BASELINE, ()), samples.get(server, ()), scenario.measure.more_is_better)
    if server == BASELINE and scenario.limit is not None:
        value = median(samples.get(server, ()))
        return "" if value is None else f"under {scenario.limit:g}: {'met' if value < scenario.limit else 'NOT MET'}"
    if bar is None or found is None:
        return ""
    return f"{bar:g}: {'met' if found.median >= bar else 'NOT MET'}"


def linearity(scenarios: Mapping[str, Any]) -> str:
    """How far the ratios to the bare ceiling at 8 to 2,000 connections lie apart; empty unless all were measured."""
    names = [scenario.name for scenario in SCENARIOS if scenario.name.startswith("connections-")]
    ratios = []
    for name in names:
        samples = scenarios.get(name, {}).get("samples", {})
        if (found := ratio(samples.get(BASELINE, ()), samples.get("bare", ()))) is None:
            return ""
        ratios.append(found.median)
    apart = max(ratios) / min(ratios) - 1
    listed = ", ".join(f"{value:.2f}" for value in ratios)
    return f"Ratio to the bare ceiling at 8, 64, 512 and 2,000 connections: {listed}; {apart:.0%} apart (bar: 15%)."


# -- the environment and merging


def environment(server_core: int, load_core: int) -> dict[str, Any]:
    """The machine and the versions that a result belongs to."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    machine = {
        "cpu": model or platform.machine(),
        "cores": os.cpu_count(),
        "server core": server_core,
        "load core": load_core,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    return {"machine": machine, "versions": {name: found for name in PACKAGES if (found := version(name))}}


def merge(stored: Mapping[str, Any] | None, current: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was measured before in the same environment; results of another one are not comparable and go."""
    if stored is None or stored["environment"] != current["environment"]:
        return {"environment": current["environment"], "scenarios": dict(current["scenarios"])}
    return {"environment": current["environment"], "scenarios": {**stored["scenarios"], **current["scenarios"]}}


# -- tables


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


def summary(results: Mapping[str, Any]) -> str:
    """A table per interface, and one of HTTP/2: a row per scenario, our median, and its ratio to each peer."""
    parts = []
    for name in TABLES:
        shown = [s for s in SCENARIOS if s.table == name and s.name in results["scenarios"]]
        peers = [peer for peer in SERVERS if peer != BASELINE and any(peer in s.servers for s in shown)]
        rows = []
        for scenario in shown:
            samples = results["scenarios"][scenario.name]["samples"]
            ours = samples.get(BASELINE, ())
            cells = [f"{scenario.title}, {scenario.measure.value}", number(median(ours)) or _absence(ours)]
            for peer in peers:
                found = ratio(ours, samples.get(peer, ()), scenario.measure.more_is_better)
                cells.append(f"{found.median:.2f}" if found else _absence(samples.get(peer, ())))
            rows.append(cells)
        if rows:
            parts.append(table([f"{name.upper()}, times better than", BASELINE, *peers], rows))
    return "\n\n".join(parts)


def _absence(samples: Sequence[Mapping[str, Any]]) -> str:
    return "failed" if samples and not values(samples) else ""


def details(scenario: Scenario, result: Mapping[str, Any]) -> str:
    """
    One row per server with all that was measured, and the reasons of those that failed.

    The ratio stands twice, by the clock and by CPU time: on a busy machine the second is the steadier one.
    """
    header = ["server", scenario.measure.value, f"{BASELINE} is better by", "bar", "per CPU second", "better by",
              "p50 ms", "p99 ms", "max ms", "RSS MiB", "core", "load core"]  # fmt: skip
    samples = result["samples"]
    ours = samples.get(BASELINE, ())
    rows, failures = [], []
    for server in (name for name in SERVERS if name in samples):
        theirs = samples[server]
        by_clock = ratio(ours, theirs, scenario.measure.more_is_better) if server != BASELINE else None
        by_cpu = ratio(ours, theirs, name="per_cpu") if server != BASELINE else None
        rows.append([
            server, number(median(theirs)) or "failed", str(by_clock or ""), verdict(scenario, samples, server),
            number(median(theirs, "per_cpu")), str(by_cpu or ""),
            number(median(theirs, "p50"), 2), number(median(theirs, "p99"), 2), number(median(theirs, "max"), 2),
            number(median(theirs, "rss"), 1),
            share(median(theirs, "busy")), share(median(theirs, "load_busy")),
        ])  # fmt: skip
        errors = [sample["error"] for sample in theirs if "error" in sample]
        if errors:
            failures.append(f"* {server} failed in {len(errors)} of {len(theirs)} rounds: {_escaped(errors[0])}")
    streams = f" of {scenario.streams} streams" if scenario.streams > 1 else ""
    how = f"{scenario.connections} connections{streams}"
    how += f", {result['rounds']} rounds of {result['seconds']} s, {result['date']}"
    title = f"{scenario.title} ({scenario.table.upper()})"
    parts = [title, "-" * len(title), "", f"``{scenario.name}``: {how}.", "", table(header, rows)]
    if shares := [
        f"{server} {_shares_of(samples[server])}" for server in SERVERS if values(samples.get(server, ()), "most")
    ]:
        parts += ["", f"Least to greatest share of a worker: {', '.join(shares)}."]
    return "\n".join([*parts, "", *failures] if failures else parts)


def _shares_of(samples: Sequence[Mapping[str, Any]]) -> str:
    """The least and the greatest share that a worker got in any round."""
    return f"{min(values(samples, 'least')):.0f}-{max(values(samples, 'most')):.0f}"


def _escaped(text: str) -> str:
    return "".join("\\" + char if char in "\\*`_|" else char for char in text)


def about(results: Mapping[str, Any]) -> str:
    machine = results["environment"]["machine"]
    versions = ", ".join(f"{name} {found}" for name, found in results["environment"]["versions"].items())
    return (
        f"Measured on {machine['cpu']} ({machine['cores']} cores, one for the server, one for the load), "
        f"{machine['system']}, {machine['python']}: {versions}."
    )


def render(results: Mapping[str, Any]) -> tuple[str, str]:
    """The tables in summary, and the whole page."""
    parts = [about(results), summary(results)]
    if sentence := linearity(results["scenarios"]):
        parts.append(sentence)
    short = "\n\n".join(parts)
    pages = [details(s, results["scenarios"][s.name]) for s in SCENARIOS if s.name in results["scenarios"]]
    title = "Benchmark results"
    return short + "\n", "\n\n".join([f"{title}\n{'=' * len(title)}", short, *pages]) + "\n"


def insert(text: str, short: str) -> str:
    """Put ``short`` between the marker comments of a page; ValueError where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the comments {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{short}\n{END}{after}"


# -- chart


def chart(results: Mapping[str, Any], path: Path) -> bool:
    """
    Throughput of the peers as a share of this worker's, scenario by scenario, and how unfair each shares a burst.

    False without matplotlib or data.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = BASELINE  # the same results give the same file
    from matplotlib import pyplot

    panels = [(f"{name.upper()}: throughput{_per(name)}, {BASELINE} = 1", _shares(results, name)) for name in TABLES]
    panels.append(("Connections of the worker that got most, times its fair share", _bursts(results)))
    panels = [(label, shares) for label, shares in panels if shares]
    if not panels:
        return False
    heights = [len(shares) for _, shares in panels]
    figure, all_axes = pyplot.subplots(
        len(panels), figsize=(9, 1 + 0.55 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    colors = {name: f"C{index}" for index, name in enumerate(name for name in SERVERS if name != BASELINE)}
    colors[BASELINE] = "black"
    for axes, (label, shares) in zip(all_axes[:, 0], panels, strict=True):
        peers = [name for name in colors if any(name in by_peer for _, by_peer in shares)]
        height = 0.8 / len(peers)
        for index, peer in enumerate(peers):
            bars = [(row + index * height, by_peer[peer]) for row, (_, by_peer) in enumerate(shares) if peer in by_peer]
            axes.barh([y for y, _ in bars], [share for _, share in bars], height, label=peer, color=colors[peer])
        axes.set_yticks([row + 0.4 - height / 2 for row in range(len(shares))], [title for title, _ in shares])
        axes.invert_yaxis()
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_xlabel(label)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def _per(name: str) -> str:
    """How the throughput of a table is meant."""
    return " per second of processor time" if name == "http/2" else ""


def _shares(results: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, float]]]:
    shares = []
    for scenario in SCENARIOS:
        if scenario.table != name or scenario.measure not in (Measure.RATE, Measure.MESSAGES, Measure.CPU):
            continue
        samples = results["scenarios"].get(scenario.name, {}).get("samples", {})
        ratios = {
            peer: ratio(samples.get(BASELINE, ()), theirs, scenario.measure.more_is_better)
            for peer, theirs in samples.items()
            if peer != BASELINE
        }
        by_peer = {peer: 1 / found.median for peer, found in ratios.items() if found}
        if by_peer:
            shares.append((scenario.title, by_peer))
    return shares


def _bursts(results: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    bursts = []
    for scenario in SCENARIOS:
        samples = results["scenarios"].get(scenario.name, {}).get("samples", {})
        if scenario.measure is Measure.SHARE and samples:
            found = {name: median(theirs) for name, theirs in samples.items()}
            bursts.append((scenario.title, {name: value for name, value in found.items() if value is not None}))
    return bursts
