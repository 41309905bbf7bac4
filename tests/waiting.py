"""How the tests wait: for a condition, for a thread, and no longer than :data:`DEADLINE`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

#: Seconds after which a test gives up. Nothing that is expected takes so long.
DEADLINE = 20.0


async def until(condition: Callable[[], Any]) -> None:
    """Wait until ``condition`` is true: for what tells the loop nothing of it, like a thread."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # there is no event
            await asyncio.sleep(0.001)


def until_seen(condition: Callable[[], Any]) -> None:
    """The same in a thread without a loop."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def passes(event: threading.Event) -> None:
    """Wait, in a thread, for ``event``, which comes."""
    assert event.wait(DEADLINE)


def run(main: Coroutine[Any, Any, Any], factory: Callable[[], Any] = uvloop.new_event_loop) -> Any:
    """Run ``main`` on a new loop."""
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
