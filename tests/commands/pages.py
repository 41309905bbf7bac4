"""Metrics pages by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridworker.commands.samples import Page, read, workers

GAUGES = (
    "start_time_seconds",
    "requests_in_flight",
    "threads_busy",
    "calls_queued",
    "queue_age_seconds",
    "loop_lag_seconds",
    "resident_memory_bytes",
)


def text(*rows: Mapping[str, Any], threads: int = 8) -> str:
    """A page with a row for each worker: slot, pid, state and the values of its gauges and counters, by name."""
    lines = ["# HELP other_total Not ours.", "other_total 7", f"hybridworker_worker_threads {threads}"]
    for row in rows:
        slot = f'slot="{row["slot"]}"'
        if "pid" in row:
            state = row.get("state", "ready")
            lines.append(f'hybridworker_worker_info{{{slot},pid="{row["pid"]}",state="{state}"}} 1')
        lines += [f"hybridworker_worker_{name}{{{slot}}} {row.get(name, 0)}" for name in GAUGES]
        requests = "hybridworker_worker_requests_total"
        lines += [f'{requests}{{{slot},status="{status}"}} {row.get(status, 0)}' for status in ("2xx", "5xx")]
        if "reason" in row:
            labels, when = f'{slot},reason="{row["reason"]}"', row.get("recycled", 1)
            lines.append(f"hybridworker_worker_last_recycle_timestamp_seconds{{{labels}}} {when}")
        for bound, count in row.get("buckets", {}).items():
            labels = f'{slot},status="2xx",le="{bound}"'
            lines.append(f"hybridworker_worker_request_seconds_bucket{{{labels}}} {count}")
    return "\n".join(lines) + "\n"


def page(time: float, *rows: Mapping[str, Any], threads: int = 8) -> Page:
    """The same, read at ``time``."""
    found = workers(read(text(*rows, threads=threads)), time)
    assert found is not None
    return found
