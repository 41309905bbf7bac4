"""The ASGI application of the scenarios with several workers. Its import takes 3 s once there is a file ``slow``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.apps import HELLO

if Path(os.environ.get("BENCHMARK_FILES", ""), "slow").exists():
    time.sleep(3)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Hello; ``/pid`` says who answers, ``/block`` holds the loop for a second."""
    assert scope["type"] == "http"
    if scope["path"] == "/block":
        time.sleep(1)  # noqa: ASYNC251 (that is what the scenario is about)
    body = b"%d" % os.getpid() if scope["path"] == "/pid" else HELLO
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
