"""How long a run takes: what it says before it starts, and meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tests.benchmarks.scenarios import Measure, Scenario

#: Seconds beside those of the load, where nothing is known yet: start, check, warm-up and end.
OVERHEAD = 2.5

#: The same where servers take turns: they start and end together.
SHARED_OVERHEAD = 2.0

#: Seconds that a measurement takes by itself, whatever the load is told.
FIXED = {Measure.STARTUP: 1.2, Measure.REST: 1.2, Measure.CONNECTION: 6.0, Measure.SHARE: 3.0}

#: Seconds that those loads take longer which have an end of their own: a reload, a recovery.
LONGER = {"hup": 6.0, "overload": 30.0}


def expected(scenario: Scenario, server: str, seconds: int, results: Mapping[str, Any]) -> float:
    """Seconds of one measurement: as long as an earlier one took, if there was one, but for the load."""
    result = results.get(scenario.name, {})
    samples = [sample for sample in result.get("samples", {}).get(server, ()) if "took" in sample]
    # One that took turns took its share of the round, and says nothing of how long a server takes alone, or vice versa.
    took: list[float] = [sample["took"] for sample in samples if ("turns" in sample) == scenario.takes_turns]
    if took and (scenario.measure in FIXED or scenario.client in LONGER):
        return statistics.median(took)
    if scenario.measure in FIXED:
        return FIXED[scenario.measure]
    if took:
        return max(0.0, statistics.median(took) - float(result["seconds"])) + seconds
    overhead = SHARED_OVERHEAD if scenario.takes_turns else OVERHEAD
    return overhead + LONGER.get(scenario.client, 0.0) + seconds


def duration(seconds: float) -> str:
    """As a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Progress:
    """
    How far a run has come, by the seconds that were expected of what is done and of what is left.

    What is left is corrected by how wrong the expectation has been so far.
    """

    def __init__(self, expectations: Mapping[str, Iterable[float]]) -> None:
        """``expectations`` has for each scenario the seconds of its measurements, all rounds of all servers."""
        self.names = list(expectations)
        self.total = sum(map(sum, expectations.values()))
        self.done = 0.0
        self.begun = time.monotonic()

    def plan(self, rounds: int, seconds: int) -> str:
        """What a run says before it starts."""
        until = time.strftime("%H:%M", time.localtime(time.time() + self.total))
        count = f"{len(self.names)} scenario{'s' if len(self.names) != 1 else ''}"
        each = f"{rounds} round{'s' if rounds != 1 else ''} of {seconds} s"
        return f"{count}, {each}: about {duration(self.total)}, until {until}"

    def advance(self, seconds: float) -> None:
        """A measurement is done of which so many seconds were expected."""
        self.done += seconds

    def left(self) -> float:
        """Seconds."""
        passed = time.monotonic() - self.begun
        # A few measurements say little of the others; as more are done, they say all.
        weight = min(1.0, 4 * self.done / self.total) if self.total else 0.0
        pace = passed / self.done if self.done else 1.0
        return max(0.0, self.total - self.done) * (1 + weight * (pace - 1))

    def line(self, name: str) -> str:
        """Where the run is while it measures a scenario."""
        return f"[{self.names.index(name) + 1} of {len(self.names)}, {duration(self.left())} left]"
