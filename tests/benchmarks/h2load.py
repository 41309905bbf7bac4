"""
The load of the HTTP/2 scenarios: h2load, its command line and what it prints.

HTTP/1.1 has a connection for each stream, so that as many requests are under way. h2load gives no percentiles.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

PACKAGE = "Debian and Ubuntu: apt install nghttp2-client"

#: How many targets there are, and how long their queries are: none comes again while a header table remembers it.
TARGETS, QUERY = 20_000, 60

TARGET_FILE = "targets.txt"


def write_targets(directory: Path) -> None:
    """Write the file of targets that :func:`command` names where each request has a query of its own."""
    digits = random.Random(1)
    queries = (f"{digits.getrandbits(4 * (QUERY - 2)):0{QUERY - 2}x}" for _ in range(TARGETS))
    (directory / TARGET_FILE).write_text("".join(f"http://localhost/?q={query}\n" for query in queries))


def command(
    url: str, connections: int, streams: int, seconds: int, *, fields: tuple[str, ...] = (), targets: Path | None = None
) -> list[str]:
    """
    h2load for some seconds. No ``streams`` means HTTP/1.1.

    ``targets`` is a file of URLs whose paths are asked for in turn; then ``url`` only says where.
    """
    version = ["--max-concurrent-streams", str(streams)] if streams else ["--h1"]
    options = ["--threads", "1", "--clients", str(connections), *version, "--duration", str(seconds)]
    for field in fields:
        options += ["--header", field]
    where = [url] if targets is None else ["--base-uri", url, "--input-file", str(targets)]
    return ["h2load", *options, *where]


def read(output: str, seconds: int) -> dict[str, Any]:
    """
    What h2load has printed, in the terms of ``load.lua``.

    Raises ValueError for an output without results. The seconds are those of the load: h2load's own time also has
    the last answers in it, which it does not count.
    """
    counts = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output, re.M)
    codes = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output, re.M)
    data = re.search(r"^traffic: .* \((\d+)\) data", output, re.M)
    if counts is None or codes is None or data is None:
        raise ValueError("h2load has printed no results")
    succeeded, failed, errored, timeout = map(int, counts.groups())
    errors = {"failed": failed, "errored": errored, "timeout": timeout, "status": sum(map(int, codes.groups()[2:]))}
    seen = {"requests": succeeded, "seconds": seconds, "bytes": int(data[1]), "errors": errors}
    return {**seen, "p50": None, "p99": None, "max": None}
