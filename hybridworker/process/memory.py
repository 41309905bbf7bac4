"""
Memory: how large this process is, what it shares, and what is said when it is too large from the beginning.

This module measures and warns. :meth:`.program.Program._tick` compares the size with ``HYBRIDWORKER_MAX_RSS`` once a
second and has the worker replaced. Event loop side, but for :func:`set_aside`, which the master calls as well.
"""

from __future__ import annotations

import gc
import os
import sys

from ..connection.context import WorkerContext

PAGE = os.sysconf("SC_PAGE_SIZE")


def set_aside(*, collect: bool = True) -> None:
    """
    Let no later garbage collection look at what there is now: it is what was loaded, and stays.

    The master calls this before each fork. A collection writes to every object that it looks at, and each
    page that is written to is copied. When only the workers called it, 14.5 MiB of one at rest were private
    to it, and 8.4 MiB are now; with ``--preload`` and a heap of 200 MiB, 172 and 6 MiB. Without ``collect``, garbage
    that refers to itself stays as well.
    """
    if collect:
        gc.collect()
    gc.freeze()


def warn_of_size(context: WorkerContext) -> None:
    """For a worker that is about to serve: warn if it is as large by now as ``HYBRIDWORKER_MAX_RSS`` lets it become."""
    limit = context.settings.max_rss
    if limit and (used := resident()) > limit:
        context.log.warning(
            "HYBRIDWORKER_MAX_RSS=%d is less than the %d MiB of a worker that has served nothing yet,"
            " so each will be replaced at once: raise it", limit, used,
        )  # fmt: skip


def resident() -> int:
    """
    Resident memory of this process in MiB.

    The largest so far where the current one is not cheaply known (macOS), and 0 where it
    cannot be known now, because no descriptor is left.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE // 2**20
    except FileNotFoundError:
        import resource  # every process that has no /proc has this

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere
    except OSError:
        return 0
