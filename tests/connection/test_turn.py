"""Turn: requests that begin when the loop has read from all connections."""

from __future__ import annotations

import asyncio

import pytest

from hybridworker.connection.turn import Turn


class Waiting:
    """A connection with a request, which fails if it is told to."""

    def __init__(self, begun: list[Waiting], error: BaseException | None = None) -> None:
        self.begun = begun
        self.error = error

    def start(self) -> None:
        self.begun.append(self)
        if self.error is not None:
            raise self.error


def test_all_that_came_in_a_turn_begin_in_the_next_in_their_order() -> None:
    """Not before, and each once."""
    begun: list[Waiting] = []
    connections = [Waiting(begun) for _ in range(3)]

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        for connection in connections:
            turn.add(connection)
        assert begun == []
        await asyncio.sleep(0)
        assert begun == connections
        turn.add(connections[0])
        await asyncio.sleep(0)
        assert begun == [*connections, connections[0]]

    asyncio.run(main())


def test_what_leaves_the_process_in_one_request_loses_no_other() -> None:
    """QUIT may be raised inside of any of them."""
    begun: list[Waiting] = []
    connections = [Waiting(begun), Waiting(begun, KeyboardInterrupt()), Waiting(begun)]

    async def main() -> None:
        turn = Turn(asyncio.get_running_loop())
        for connection in connections:
            turn.add(connection)
        await asyncio.sleep(60)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(asyncio.sleep(0))
    assert begun == connections
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
