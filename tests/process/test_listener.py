"""Listener: what is accepted at a listening socket, and how it becomes a connection."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hybridworker.process.listener import Arrival, Listener

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


def test_who_waits_is_seen_and_accepted(listening: socket.socket) -> None:
    """The first who came is the first."""
    listener = Listener(listening)
    assert not listener.waiting()
    with client(listening) as first, client(listening) as second:
        for each in (first, second):
            assert listener.waiting()
            taken = listener.accept()
            assert isinstance(taken, socket.socket)
            with taken:
                assert (taken.family, taken.type) == (listening.family, listening.type & ~socket.SOCK_NONBLOCK)
                each.send(b"hello")
                assert taken.recv(5) == b"hello"
    assert not listener.waiting()


def test_nobody_waits(listening: socket.socket) -> None:
    """As when a sibling was faster."""
    assert Listener(listening).accept() is None


class Failing:
    """A listening socket whose ``accept()`` fails in some way, once."""

    family = socket.AF_INET

    def __init__(self, sock: socket.socket, error: int) -> None:
        self.sock, self.errors = sock, [error]
        self.fileno, self.getsockname, self.getsockopt = sock.fileno, sock.getsockname, sock.getsockopt

    def _accept(self) -> Any:
        if self.errors:
            error = self.errors.pop()
            raise OSError(error, os.strerror(error))
        return self.sock._accept()  # type: ignore[attr-defined]


#: accept(2): "Linux accept() passes already-pending network errors on the new socket as an error code", those that
#: should be treated like EAGAIN; and a rule of a firewall, an interrupted call, and a peer that has gone.
PASSING = (
    "EAGAIN ECONNABORTED EHOSTDOWN EHOSTUNREACH EINTR ENETDOWN ENETUNREACH ENONET ENOPROTOOPT EOPNOTSUPP EPERM EPROTO"
)


@pytest.mark.parametrize("name", PASSING.split())
def test_what_concerns_one_connection_is_no_error_of_the_socket(name: str) -> None:
    """The next one is accepted."""
    with socket.create_server(("127.0.0.1", 0)) as sock, client(sock):
        listener = Listener(Failing(sock, getattr(errno, name)))  # type: ignore[arg-type]
        assert listener.accept() is None
        taken = listener.accept()
        assert taken is not None
        taken.close()


@pytest.mark.parametrize("name", ["EBADF", "EINVAL", "EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "ENOTSOCK"])
def test_what_concerns_the_socket_or_the_process_is_an_error(name: str) -> None:
    """The server decides what to do about it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        pytest.raises(OSError, match=re.escape(os.strerror(getattr(errno, name)))),
    ):
        Listener(Failing(sock, getattr(errno, name))).accept()  # type: ignore[arg-type]


def establish(connecting: Any) -> asyncio.Future[Arrival]:
    """Begin an arrival; the future is set when it has ended."""
    arrived: asyncio.Future[Arrival] = asyncio.get_running_loop().create_future()
    Arrival(connecting, arrived.set_result).proceed()
    return arrived


def on_a_loop(test: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), DEADLINE))


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def test_an_accepted_socket_becomes_a_connection(listening: socket.socket) -> None:
    """And stays one when everything that made it is gone."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        with client(listening) as peer:
            peer.setblocking(False)
            taken = Listener(listening).accept()
            assert taken is not None
            await establish(loop.connect_accepted_socket(Echo, taken))
            del taken
            await loop.sock_sendall(peer, b"hello")
            assert await loop.sock_recv(peer, 5) == b"hello"

    on_a_loop(test)


def test_a_connection_is_begun_at_once() -> None:
    """Not in the next turn of the loop."""

    async def test() -> None:
        begun: list[bool] = []

        async def connecting() -> Any:
            begun.append(True)
            await asyncio.sleep(0)

        arrived = establish(connecting())
        assert begun == [True]
        assert (await arrived).error is None

    on_a_loop(test)


def test_what_goes_wrong_is_told() -> None:
    """Whatever was awaited when it happened."""

    async def test() -> None:
        awaited = asyncio.get_running_loop().create_future()

        async def connecting() -> Any:
            await awaited

        arrived = establish(connecting())
        awaited.set_exception(OSError("gone"))
        assert isinstance((await arrived).error, OSError)

    on_a_loop(test)


def test_an_arrival_that_is_given_up_ends() -> None:
    """The coroutine can clean up."""

    async def test() -> None:
        cleaned: list[bool] = []

        async def connecting() -> Any:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cleaned.append(True)

        arrived = asyncio.get_running_loop().create_future()
        arrival = Arrival(connecting(), arrived.set_result)
        arrival.proceed()
        arrival.cancel()
        assert isinstance((await arrived).error, asyncio.CancelledError)
        assert cleaned == [True]
        arrival.cancel()  # too late

    on_a_loop(test)
