"""The arithmetic: medians, spreads, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.scenarios import SCENARIOS, Measure, Scenario
from tests.benchmarks.servers import BASELINE

Sample = Mapping[str, Any]
Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better the one is: median over the rounds, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def values(samples: Sequence[Sample], name: str = "value") -> list[float]:
    """The values of one field, without the rounds that failed or did not have it."""
    return [sample[name] for sample in samples if sample.get(name) is not None]


def median(samples: Sequence[Sample], name: str = "value") -> float | None:
    found = values(samples, name)
    return statistics.median(found) if found else None


def ratio(
    ours: Sequence[Sample], theirs: Sequence[Sample], more_is_better: bool = True, name: str = "value"
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


def field(scenario: Scenario, measure: Measure) -> str:
    """Where the samples of a scenario have a measure."""
    return "value" if measure is scenario.measure else measure.field


def verdict(scenario: Scenario, samples: Samples, server: str) -> str:
    """The bar that this worker has set itself beside a server: met or not, or nothing where there is none."""
    bar = scenario.bars.get(server)
    found = ratio(samples.get(BASELINE, ()), samples.get(server, ()), scenario.measure.more_is_better)
    if server == BASELINE and scenario.limit is not None:
        value = median(samples.get(server, ()))
        if value is None:
            return ""
        return f"{value:.2f}, under {scenario.limit:g}: {'met' if value < scenario.limit else 'NOT MET'}"
    if bar is None or found is None:
        return ""
    return f"{found}, at least {bar:g}: {'met' if found.median >= bar else 'NOT MET'}"


def linearity(results: Mapping[str, Any]) -> str:
    """How far the ratios to the bare ceiling at 8 to 2,000 connections lie apart; empty unless all were measured."""
    ratios = []
    for scenario in SCENARIOS:
        if scenario.name.startswith("connections-"):
            samples = results.get(scenario.name, {}).get("samples", {})
            if (found := ratio(samples.get(BASELINE, ()), samples.get("bare", ()))) is None:
                return ""
            ratios.append(found.median)
    listed = ", ".join(f"{value:.2f}" for value in ratios)
    apart = max(ratios) / min(ratios) - 1
    return f"Ratio to the bare ceiling at 8, 512 and 2,000 connections: {listed}; {apart:.0%} apart."
