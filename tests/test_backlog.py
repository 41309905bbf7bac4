"""Backlog and Arrival: what is taken from a listening socket, and how it becomes a connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hybridworker.backlog import Arrival, Backlog

DEADLINE = 10


@pytest.fixture(params=["inet", "inet6", "unix"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A listening socket of each family."""
    match request.param:
        case "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(tmp_path / "sock"))
            sock.listen()
        case "inet6":
            try:
                sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
            except OSError as exc:
                pytest.skip(f"there is no IPv6 here: {exc}")
        case _:
            sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    with sock:
        yield sock


def client(listening: socket.socket) -> socket.socket:
    sock = socket.socket(listening.family)
    sock.connect(listening.getsockname())
    return sock


def test_who_waits_is_seen_and_taken(listening: socket.socket) -> None:
    """The first who came is the first."""
    backlog = Backlog(listening)
    assert not backlog.waiting()
    with client(listening) as first, client(listening) as second:
        for each in (first, second):
            assert backlog.waiting()
            with backlog.take() as taken:
                assert isinstance(taken, socket.socket)
                assert (taken.family, taken.type) == (listening.family, listening.type & ~socket.SOCK_NONBLOCK)
                each.send(b"hello")
                assert taken.recv(5) == b"hello"
    assert not backlog.waiting()


def test_nobody_waits(listening: socket.socket) -> None:
    """As when a sibling was faster."""
    with pytest.raises(BlockingIOError):
        Backlog(listening).take()


def on_a_loop(test: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), DEADLINE))


class Ends:
    """Keeps what ``done`` of an arrival is told."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.errors: list[BaseException | None] = []

    def __call__(self, arrival: Arrival, error: BaseException | None) -> None:
        assert isinstance(arrival, Arrival)
        self.errors.append(error)
        self.event.set()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def test_an_arrival_becomes_a_connection(listening: socket.socket) -> None:
    """And stays one when everything that made it is gone."""

    async def test() -> None:
        loop, ends = asyncio.get_running_loop(), Ends()
        with client(listening) as peer:
            peer.setblocking(False)
            arrival = Arrival(loop.connect_accepted_socket(Echo, Backlog(listening).take()), ends)
            arrival.proceed()
            assert ends.errors == []
            del arrival
            await ends.event.wait()
            assert ends.errors == [None]
            await loop.sock_sendall(peer, b"hello")
            assert await loop.sock_recv(peer, 5) == b"hello"

    on_a_loop(test)


def test_an_arrival_that_fails_at_once_tells_so() -> None:
    """Before there is anything to wait for."""

    async def test() -> None:
        async def connecting() -> Any:
            raise OSError("no")

        ends = Ends()
        Arrival(connecting(), ends).proceed()
        assert [str(error) for error in ends.errors] == ["no"]

    on_a_loop(test)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_an_arrival_that_fails_later_tells_so(end: str) -> None:
    """An error or a cancellation of what it waits for is its own."""

    async def test() -> None:
        waiter = asyncio.get_running_loop().create_future()

        async def connecting() -> Any:
            await waiter

        ends = Ends()
        arrival = Arrival(connecting(), ends)
        arrival.proceed()
        assert arrival.waiter is waiter
        if end == "failed":
            waiter.set_exception(OSError("no"))
        else:
            waiter.cancel()
        await ends.event.wait()
        (error,) = ends.errors
        assert isinstance(error, OSError if end == "failed" else asyncio.CancelledError)

    on_a_loop(test)


def test_an_arrival_may_wait_more_than_once() -> None:
    """It goes on whenever what it waits for is there."""

    async def test() -> None:
        loop, seen = asyncio.get_running_loop(), []

        async def connecting() -> Any:
            for number in range(3):
                waiter = loop.create_future()
                loop.call_soon(waiter.set_result, number)
                seen.append(await waiter)
                await asyncio.sleep(0)

        ends = Ends()
        Arrival(connecting(), ends).proceed()
        await ends.event.wait()
        assert (seen, ends.errors) == ([0, 1, 2], [None])

    on_a_loop(test)


def test_an_exit_is_not_an_error_of_the_arrival() -> None:
    """A signal may fall into it: its SystemExit goes on to the loop."""

    async def test() -> None:
        async def connecting() -> Any:
            raise SystemExit(3)

        ends = Ends()
        with pytest.raises(SystemExit):
            Arrival(connecting(), ends).proceed()
        assert ends.errors == []

    on_a_loop(test)
