"""
The overview: six rows that say most, as one small chart and the few lines beside it in the README.

The chart is written as SVG by hand, so that it needs nothing, and its colours follow the reader's light or dark page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from tests.benchmarks.figures import Samples, ratio
from tests.benchmarks.report import about
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.servers import BASELINE

#: Scenario -> what its row is called.
ROWS = {
    "shop-fastapi": "FastAPI",
    "starlette": "Starlette",
    "shop-django-wsgi": "Django, WSGI",
    "shop-flask": "Flask, WSGI",
    "websocket-echo": "WebSocket echo",
    "http2-hello": "HTTP/2",
}

#: The servers that it shows, and their colours.
COLOURS = {
    BASELINE: "#1a7f37",
    "uvicorn-worker": "#8250df",
    "gunicorn-asgi": "#bf8700",
    "gunicorn-gthread": "#bf8700",
    "granian": "#0969da",
}

LABEL, SCALE, BAR, GAP = 130, 300, 15, 12  #: pixels: of the labels, of a throughput of 1, of a bar, between two rows

STYLE = """text { font: 12px sans-serif; fill: #1f2328 } .axis { stroke: #59636e }
@media (prefers-color-scheme: dark) { text { fill: #f0f6fc } .axis { stroke: #9198a1 } }"""


def throughput(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Row -> server -> its throughput where this worker has 1; rows and servers that were measured."""
    shown: dict[str, dict[str, float]] = {}
    for scenario in SCENARIOS:
        samples: Samples = results.get(scenario.name, {}).get("samples", {})
        if scenario.name not in ROWS:
            continue
        found = {
            server: ratio(samples.get(BASELINE, ()), samples[server], scenario.measure.more_is_better)
            for server in COLOURS
            if server in samples
        }
        bars = {server: 1 / better.median for server, better in found.items() if better}
        if len(bars) > 1:
            shown[ROWS[scenario.name]] = bars
    return {name: shown[name] for name in ROWS.values() if name in shown}


def picture(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The chart, as SVG: longer is better, and each bar has its value at its end."""
    top, parts = 0, []
    for name, bars in rows.items():
        middle = top + len(bars) * BAR / 2 + 4
        parts.append(f'<text x="{LABEL - 8}" y="{middle:g}" text-anchor="end">{escape(name)}</text>')
        for server, value in bars.items():
            width = value * SCALE
            parts.append(
                f'<rect x="{LABEL}" y="{top}" width="{width:.1f}" height="{BAR - 3}" fill="{COLOURS[server]}"/>'
            )
            text = f"{value:.2f} {escape(server)}"
            parts.append(f'<text x="{LABEL + width + 5:.1f}" y="{top + BAR - 5}">{text}</text>')
            top += BAR
        top += GAP
    parts.append(f'<line class="axis" x1="{LABEL}" y1="0" x2="{LABEL}" y2="{top - GAP}"/>')
    longest = max(value for bars in rows.values() for value in bars.values())
    width = LABEL + longest * SCALE + 140
    size = f'width="{width:.0f}" height="{top}" viewBox="0 0 {width:.0f} {top}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def overview(results: Mapping[str, Any], path: str) -> str:
    """What the README shows: the machine, and the chart that is at ``path``, with its values as text."""
    described = (
        f"{name}: " + ", ".join(f"{server} {value:.2f}" for server, value in bars.items() if server != BASELINE)
        for name, bars in throughput(results).items()
    )
    return (
        f"{about(results)} Throughput of one worker on one core, where this one has 1; longer is better.\n\n"
        f".. image:: {path}\n   :alt: {'; '.join(described)}\n"
    )
