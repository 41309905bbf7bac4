"""
What was measured, as one file of JSON, and which of it still holds.

A result is stored as soon as its scenario is complete, with all that it belongs to::

    {"scenarios": {NAME: {"date": ..., "rounds": N, "seconds": S, "commit": ..., "code": ...,
                          "environment": {"machine": {...}, "versions": {...}},
                          "base": {"commit": ..., "code": ..., "lacks": TEXT or null},
                          "samples": {SERVER: [SAMPLE or {"error": TEXT}, ...]}}}}

where position *i* of every list of samples belongs to round *i*, and ``base`` is there only where an earlier revision
was measured, too, or could not be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Result = dict[str, Any]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Store:
    """The file of the results."""

    path: Path = RESULTS / "results.json"

    @classmethod
    def beside(cls, base: str) -> Store:
        """That of a comparison with an earlier revision; the others are no part of the published figures."""
        return cls(RESULTS / f"base-{base}.json")

    def load(self) -> dict[str, Result]:
        """Scenario -> its result."""
        if not self.path.exists():
            return {}
        results: dict[str, Result] = json.loads(self.path.read_text())["scenarios"]
        return results

    def save(self, name: str, result: Result) -> None:
        """Add the result of a scenario, or renew it. Whenever this is interrupted, the file is whole."""
        self.path.parent.mkdir(exist_ok=True)
        fresh = self.path.with_suffix(".json.new")
        fresh.write_text(json.dumps({"scenarios": {**self.load(), name: result}}, indent=1) + "\n")
        fresh.replace(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a result has to be for a run to do without measuring again."""

    rounds: int
    seconds: int
    code: str
    environment: Mapping[str, Any]
    base: str | None = None

    def missing(self, result: Mapping[str, Any] | None, servers: Sequence[str]) -> str | None:
        """Why a scenario has to be measured (again) with these servers, or nothing."""
        if result is None:
            return "not measured yet"
        if result["code"] != self.code:
            return "older than the code"
        if result["environment"]["machine"] != self.environment["machine"]:
            return "from another machine"
        if result["environment"]["versions"] != self.environment["versions"]:
            return "other versions"
        if (result.get("base") or {}).get("code") != self.base:
            return "beside another revision"
        if result["rounds"] < self.rounds or result["seconds"] < self.seconds:
            return f"only {result['rounds']} rounds of {result['seconds']} s"
        if absent := [server for server in servers if server not in result["samples"]]:
            return f"without {', '.join(absent)}"
        return None


def outdated(results: Mapping[str, Result], code: str) -> list[str]:
    """The scenarios whose figures are older than the code."""
    return [name for name, result in results.items() if result["code"] != code]
