"""
From what was seen to what is shown: a page with every row, and the compact table of the README.

The results are one JSON document::

    {"environment": {"machine": {...}, "versions": {...}},
     "rows": {NAME: {"date": ..., "answers": {SERVER: [SIGN, DETAIL]}}}}
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.servers import version

from .peers import PEERS
from .registry import Row, Sign, rows

BEGIN, END = ".. compare: begin", ".. compare: end"
PACKAGES = (
    *("hybridworker", "gunicorn", "uvicorn", "uvicorn-worker", "zttp", "granian", "hypercorn", "aioquic"),
    *("uvloop", "httptools", "asgiref", "django", "flask"),
)

LEGEND = {
    Sign.YES: "it does",
    Sign.PARTLY: "some of it",
    Sign.NO: "it does not",
    Sign.NOT_ASKED: "the question makes no sense for it",
    Sign.UNKNOWN: "could not be tried",
}


def environment() -> dict[str, Any]:
    """The machine and the versions that results belong to."""
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    machine = {"system": system, "python": f"CPython {platform.python_version()}"}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            machine = {"cpu": " ".join(line.partition(":")[2].split()), **machine}
            break
    return {"machine": machine, "versions": {name: found for name in PACKAGES if (found := version(name))}}


def merge(stored: Mapping[str, Any] | None, current: Mapping[str, Any]) -> dict[str, Any]:
    """Add what was seen now. What belongs to another machine, other versions or a row that is gone is dropped."""
    if stored is None or stored["environment"] != current["environment"]:
        return dict(current)
    names = [row.name for row in rows()]
    merged = {name: dict(found) for name, found in stored["rows"].items() if name in names}
    for name, found in current["rows"].items():
        answers = {**merged.get(name, {}).get("answers", {}), **found["answers"]}
        merged[name] = {"date": found["date"], "answers": {peer: answers[peer] for peer in PEERS if peer in answers}}
    return {"environment": current["environment"], "rows": {name: merged[name] for name in names if name in merged}}


def about(results: Mapping[str, Any]) -> str:
    """When, where and of which versions."""
    dates = sorted({found["date"] for found in results["rows"].values()})
    machine = ", ".join(results["environment"]["machine"].values())
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"Tried {when} on {machine}: {versions(results, PACKAGES)}."


def versions(results: Mapping[str, Any], packages: Iterable[str]) -> str:
    """Names and versions of packages."""
    known = results["environment"]["versions"]
    return ", ".join(f"{name} {known[name]}" for name in packages if name in known)


def table(lines: Iterable[Sequence[str]], title: str = "") -> str:
    """A ``csv-table`` whose first row is its header."""
    texts = [", ".join(f'"{cell}"' if "," in cell or not cell else cell for cell in line) for line in lines]
    head = [f".. csv-table:: {title}".rstrip(), "   :header-rows: 1", "   :widths: 34 11 11 11 11 11 11", ""]
    return "\n".join([*head, *(f"   {text}" for text in texts)])


def sign(results: Mapping[str, Any], row: Row, peer: str) -> str:
    """What stands in the cell."""
    answer = results["rows"].get(row.name, {}).get("answers", {}).get(peer)
    found = answer[0] if answer else Sign.UNKNOWN.value
    return "\\-" if found == Sign.NOT_ASKED.value else str(found)


def summary(results: Mapping[str, Any]) -> str:
    """The compact table: the rows that have a short title, the date, and the versions of the servers."""
    date = max(found["date"] for found in results["rows"].values())
    packages = dict.fromkeys(peer.package for peer in PEERS.values())
    lines = [["", *PEERS]]
    lines += [[row.short, *(sign(results, row, peer) for peer in PEERS)] for row in rows() if row.short]
    return table(lines, f"Tried {date}: {versions(results, packages)}")


def whole(results: Mapping[str, Any]) -> str:
    """The page with every row: a table for each group, and under it what was seen."""
    legend = ", ".join(f'"{found.value}": {meaning}' for found, meaning in LEGEND.items())
    title = "Features, server by server"
    parts = [
        f"{title}\n{'=' * len(title)}",
        "Made by ``make compare``, which tries each row against each server with the server's own settings. "
        f"{legend}. A row can be tried again by its name: ``python -m tests.compare run http2 --servers granian``.",
        about(results),
    ]
    groups: dict[str, list[Row]] = {}
    for row in rows():
        groups.setdefault(row.group, []).append(row)
    for group, members in groups.items():
        parts.append(f"{group}\n{'-' * len(group)}")
        lines = [["", *PEERS]]
        lines += [[row.title, *(sign(results, row, peer) for peer in PEERS)] for row in members]
        parts.append(table(lines))
        parts += [_details(row, results) for row in members]
    return "\n\n".join(parts) + "\n"


def _details(row: Row, results: Mapping[str, Any]) -> str:
    """How a row is tried, and what was seen."""
    answers = results["rows"].get(row.name, {}).get("answers", {})
    seen = [
        f"* {peer}: {_plain(found)}" + (f" ({_plain(detail)})" if detail else "")
        for peer, (found, detail) in answers.items()
    ]
    return f"**{row.title}** (``{row.name}``). {row.how}\n\n" + "\n".join(seen)


def _plain(text: str) -> str:
    """``text`` without what reStructuredText would take for markup."""
    return "".join(f"\\{char}" if char in "\\*`_|" else char for char in text)


def insert(page: str, results: Mapping[str, Any]) -> str:
    """Put the compact table between the marker comments of a page; ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the comments {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{summary(results)}\n{END}{after}"
