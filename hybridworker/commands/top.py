"""
``python -m hybridworker top URL``: the workers of a running gunicorn, once a second.

A row for each worker, from its metrics page, and a line of sums. :mod:`.source` gets the page, :mod:`.samples`
reads it, :mod:`.screen` draws. Synchronous, on the standard library alone. It survives a group that restarts under it.

Invariant: what the page says is printed as text; no byte of it reaches the terminal as a command.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Sequence

from .samples import Page, Rates, Worker, between, quantile, total
from .screen import Screen
from .source import Source, Unavailable

#: Seconds between two screens.
PERIOD = 1.0

HEADINGS = (
    "SLOT", "PID", "STATE", "AGE", "REQ/S", "5XX/S", "P50", "P99", "FLIGHT", "BUSY", "QUEUE", "WAIT", "LAG", "MEM",
    "RECYCLED",
)  # fmt: skip

#: The columns that are text, not numbers.
LEFT = frozenset({"STATE", "RECYCLED"})

LEGEND = """\
columns:
  SLOT       the place of the worker in the group; its counters go on when the worker is replaced
  AGE        since the worker has started
  REQ/S      responses per second, and 5XX/S those with a status from 500 on
  P50, P99   half of the requests, and all but a hundredth, began to be answered within this time since the last screen
  FLIGHT     requests and WebSockets in flight; the one that asks for this page is among them
  BUSY       threads that run WSGI calls, of those there may be
  QUEUE      WSGI calls that wait for a thread, and WAIT how long the oldest of them has
  LAG        how late the event loop was, at most, in the last second
  MEM        resident memory
  RECYCLED   why the last worker of this slot was replaced; below, why the last one of all was

q and Ctrl-C end it. The page is that of HYBRIDWORKER_METRICS_PATH, and any worker answers for all.
"""


def main(program: str, arguments: Sequence[str]) -> int:
    """Show the screen until it is left; returns the exit code."""
    parser = argparse.ArgumentParser(
        program,
        description="The workers of a running gunicorn, once a second.",
        epilog=LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", help="the metrics page: http://127.0.0.1:8000/metrics or unix:/run/app.sock:/metrics")
    parser.add_argument("--once", action="store_true", help="print one screen, of one second, for scripts and reports")
    options = parser.parse_args(arguments)
    try:
        source = Source(options.url)
    except ValueError:
        parser.error(f"{options.url!r} is neither http://HOST:PORT/PATH nor unix:SOCKET:PATH")
    try:
        first = source.page()
        if options.once or not sys.stdout.isatty():
            time.sleep(PERIOD)
            sys.stdout.write("\n".join(picture(source.url, first, source.page())) + "\n")
            return 0
    except Unavailable as exc:
        sys.stderr.write(f"{program}: {source.url}: {printable(str(exc))}\n")
        return 1
    watch(source, first)
    return 0


def watch(source: Source, page: Page) -> None:
    """Draw a screen each :data:`PERIOD` until ``q`` or Ctrl-C."""
    before: Page | None = None
    trouble = ""
    with Screen() as screen:
        try:
            while True:
                lines = picture(source.url, before, page)
                screen.show([lines[0] + trouble, *lines[1:]])
                due = time.monotonic() + PERIOD
                while (left := due - time.monotonic()) > 0:
                    if screen.key(left) in ("q", "Q"):
                        return
                try:
                    fresh = source.page()
                except Unavailable as exc:  # the last screen stays; the group may be restarting
                    trouble = f"  ({printable(str(exc))}; trying again)"
                else:
                    before, page, trouble = page, fresh, ""
        except KeyboardInterrupt:
            return


def picture(url: str, before: Page | None, page: Page) -> list[str]:
    """The lines of one screen: a title, the headings, the workers, the sums."""
    rates = between(before, page)
    living = [worker for _, worker in sorted(page.workers.items()) if worker.pid is not None]
    rows = [row(worker, rates.get(worker.slot), page.threads) for worker in living]
    last = max(page.workers.values(), key=lambda worker: worker.recycled, default=None)
    rows.append(sums(living, total(rates.values()) if rates else None, page.threads, last))
    title = f"{printable(url)}  {time.strftime('%H:%M:%S')}  {len(living)} worker{'' if len(living) == 1 else 's'}"
    return [title, "", *table(rows)]


def row(worker: Worker, rates: Rates | None, threads: int) -> list[str]:
    """The cells of one worker."""
    age = "-" if worker.started is None else duration(max(0.0, time.time() - worker.started))
    return [
        f"{worker.slot}",
        f"{worker.pid}",
        printable(worker.state),
        age,
        *speeds(rates),
        f"{worker.in_flight:.0f}",
        f"{worker.busy:.0f}/{threads}" if threads else "-",
        f"{worker.queued:.0f}" if threads else "-",
        seconds(worker.queue_age) if threads and worker.queued else "-",
        seconds(worker.lag),
        size(worker.memory),
        printable(worker.reason) or "-",
    ]


def sums(living: Sequence[Worker], rates: Rates | None, threads: int, last: Worker | None) -> list[str]:
    """The cells of all workers. Of what cannot be added up the worst is shown, and of recycles the ``last``."""

    def add(values: Iterable[float]) -> str:
        return f"{sum(values):.0f}"

    waiting = [worker.queue_age for worker in living if worker.queued]
    return [
        "all",
        "",
        "",
        "",
        *speeds(rates),
        add(worker.in_flight for worker in living),
        f"{add(worker.busy for worker in living)}/{threads * len(living)}" if threads else "-",
        add(worker.queued for worker in living) if threads else "-",
        seconds(max(waiting)) if threads and waiting else "-",
        seconds(max((worker.lag for worker in living), default=0.0)),
        size(sum(worker.memory for worker in living)),
        (printable(last.reason) if last is not None else "") or "-",
    ]


def speeds(rates: Rates | None) -> list[str]:
    """Requests and 5xx per second, and the two quantiles."""
    if rates is None:
        return ["-"] * 4
    return [
        f"{rates.requests:.1f}",
        f"{rates.errors:.1f}",
        *("-" if (value := quantile(rates.buckets, share)) is None else seconds(value) for share in (0.5, 0.99)),
    ]


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The headings and the rows, in columns as wide as they must be."""
    widths = [max(len(cell) for cell in column) for column in zip(HEADINGS, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if heading in LEFT else cell.rjust(width)
            for cell, width, heading in zip(cells, widths, HEADINGS, strict=True)
        ).rstrip()
        for cells in [HEADINGS, *rows]
    ]


# -- numbers as text


def seconds(value: float) -> str:
    """A short time, with two digits that count."""
    if math.isinf(value):
        return ">max"
    if value < 0.0995:
        return f"{value * 1000:.1f}ms" if value < 0.00995 else f"{value * 1000:.0f}ms"
    return f"{value * 1000:.0f}ms" if value < 0.9995 else f"{value:.1f}s" if value < 99.95 else duration(value)


def duration(value: float) -> str:
    """A long time, by its two largest units."""
    whole = int(value)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{unit}{whole % length // part:02}{smaller}"
    return f"{whole}s"


def size(value: float) -> str:
    """Bytes, in MiB or GiB."""
    return f"{value / 2**20:.0f}M" if value < 10 * 2**30 else f"{value / 2**30:.1f}G"


def printable(text: str) -> str:
    """``text`` without what would be a command for a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
