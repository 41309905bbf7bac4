"""The long chart: every throughput beside this worker's, and how unfair each server shares a burst."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import median, ratio
from tests.benchmarks.report import TABLES
from tests.benchmarks.scenarios import SCENARIOS, Measure
from tests.benchmarks.servers import BASELINE, SERVERS


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
        samples = results.get(scenario.name, {}).get("samples", {})
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
        samples = results.get(scenario.name, {}).get("samples", {})
        if scenario.measure is Measure.SHARE and samples:
            found = {name: median(theirs) for name, theirs in samples.items()}
            bursts.append((scenario.title, {name: value for name, value in found.items() if value is not None}))
    return bursts
