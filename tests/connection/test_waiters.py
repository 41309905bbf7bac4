"""Waiters: the tasks that wait for one thing."""

from __future__ import annotations

import asyncio

from hybridworker.connection.waiters import Waiters


def test_all_who_wait_go_on_and_who_was_cancelled_is_forgotten() -> None:
    """Once each: what begins to wait later is not concerned. To wake nobody does nothing."""

    async def main() -> None:
        waiters, loop = Waiters(), asyncio.get_running_loop()
        waiters.wake()
        tasks = [asyncio.ensure_future(waiters.wait(loop)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert len(waiters) == 2
        waiters.wake()
        assert waiters == []
        later = asyncio.ensure_future(waiters.wait(loop))
        await asyncio.gather(tasks[0], tasks[2])
        assert not later.done()
        waiters.wake()
        await later

    asyncio.run(main())


def test_a_future_that_was_cancelled_in_that_moment_does_no_harm() -> None:
    """The others are woken all the same."""

    async def main() -> None:
        waiters, loop = Waiters(), asyncio.get_running_loop()
        gone = loop.create_future()
        waiters.append(gone)
        task = asyncio.ensure_future(waiters.wait(loop))
        await asyncio.sleep(0)
        gone.cancel()
        waiters.wake()
        await task

    asyncio.run(main())
