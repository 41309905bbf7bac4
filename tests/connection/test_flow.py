"""FlowControl: pauses of one transport, in both directions, and nobody left waiting."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from hybridworker.connection.flow import FlowControl
from hybridworker.errors import ClientDisconnected
from tests.fakes import FakeTransport


def test_reading_is_paused_once_and_resumed_once() -> None:
    """The transport would raise for a repeat (the fake one asserts it)."""
    transport = FakeTransport()
    flow = FlowControl(transport)
    flow.resume_reading()
    assert transport.reading
    flow.pause_reading()
    flow.pause_reading()
    assert flow.read_paused
    assert not transport.reading
    flow.resume_reading()
    flow.resume_reading()
    assert not flow.read_paused
    assert transport.reading


def test_a_lost_transport_is_not_touched() -> None:
    """It is closed, and has nothing to pause."""
    transport = FakeTransport()
    flow = FlowControl(transport)
    flow.lose()
    flow.pause_reading()
    assert transport.reading
    transport = FakeTransport()
    flow = FlowControl(transport)
    flow.pause_reading()
    flow.lose()
    flow.resume_reading()
    assert not transport.reading


def test_drain_returns_at_once_when_nothing_is_paused() -> None:
    """The common case does not wait."""

    async def main() -> None:
        flow = FlowControl(FakeTransport())
        coroutine = flow.drain()
        with pytest.raises(StopIteration):
            coroutine.send(None)

    asyncio.run(main())


def test_c16_drain_waits_for_all_who_write() -> None:
    """Every waiter goes on when the transport takes bytes again, and waits anew for the next pause."""

    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        tasks = [asyncio.create_task(flow.drain()) for _ in range(3)]
        await asyncio.sleep(0)
        assert len(flow.waiters) == 3
        flow.resume_writing()
        flow.pause_writing()  # before they have run: they are to wait again
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        assert len(flow.waiters) == 3
        flow.resume_writing()
        await asyncio.gather(*tasks)
        assert flow.waiters == []

    asyncio.run(main())


def test_h45_losing_the_transport_wakes_everyone() -> None:
    """A blocked ``send()`` raises, and so does every later one."""

    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        task = asyncio.create_task(flow.drain())
        await asyncio.sleep(0)
        flow.lose()
        with pytest.raises(ClientDisconnected):
            await task
        with pytest.raises(ClientDisconnected):
            await flow.drain()

    asyncio.run(main())


def test_a_cancelled_waiter_is_skipped() -> None:
    """A timeout around ``send()`` must not break the others."""

    async def main() -> None:
        flow = FlowControl(FakeTransport())
        flow.pause_writing()
        given_up, patient = asyncio.create_task(flow.drain()), asyncio.create_task(flow.drain())
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        flow.resume_writing()
        await patient

    asyncio.run(main())


def test_a_peer_stalls_when_it_takes_nothing_for_the_timeout() -> None:
    """Each look compares what was taken with the look before; an empty buffer is progress."""
    transport = FakeTransport()
    flow = FlowControl(transport)
    assert not flow.stalled(100.0, 60, written=0)
    transport.unsent = 500
    assert not flow.stalled(101.0, 60, written=1000)  # 500 taken
    assert not flow.stalled(150.0, 60, written=1000)
    assert flow.stalled(161.0, 60, written=1000)  # nothing since 101
    transport.unsent = 499
    assert not flow.stalled(162.0, 60, written=1000)  # one byte is progress
    assert not flow.stalled(221.0, 60, written=1000)
    assert flow.stalled(222.0, 60, written=1000)
    transport.unsent = 0
    assert not flow.stalled(300.0, 60, written=1000)


def test_writing_more_is_no_progress() -> None:
    """A buffer that grows by what is written shows that the peer takes nothing."""
    transport = FakeTransport()
    flow = FlowControl(transport)
    assert not flow.stalled(0.0, 60, written=0)
    for second in range(1, 60):
        transport.unsent = 10 * second
        assert not flow.stalled(float(second), 60, written=10 * second)
    transport.unsent = 600
    assert flow.stalled(60.0, 60, written=600)


def test_a_timeout_of_infinity_is_off() -> None:
    """Whoever switched it off waits for ever."""
    transport = FakeTransport()
    transport.unsent = 1
    assert not FlowControl(transport).stalled(1e12, float("inf"), written=1)


def test_readable_asks_the_kernel() -> None:
    """Bytes that have arrived and were not read yet."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = FakeTransport()
        transport.info["socket"] = ours
        flow = FlowControl(transport)
        assert not flow.readable()
        theirs.sendall(b"GET ")
        assert flow.readable()
        ours.recv(4)
        assert not flow.readable()


@pytest.mark.parametrize("kind", ["none", "closed", "no socket"])
def test_readable_is_false_where_nothing_can_be_asked(kind: str) -> None:
    """The transport is gone in this very moment, or was never a socket."""
    transport = FakeTransport()
    with open(os.devnull, "rb") as null, socket.socket() as closed:
        closed.close()
        transport.info["socket"] = {"none": None, "closed": closed, "no socket": null}[kind]
        assert not FlowControl(transport).readable()


def test_a_cancelled_drain_leaves_no_waiter() -> None:
    """Nobody is waited for who has gone."""
    transport = FakeTransport()

    async def main() -> None:
        flow = FlowControl(transport)
        flow.pause_writing()
        task = asyncio.create_task(flow.drain())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert flow.waiters == []
        flow.resume_writing()

    asyncio.run(main())


@pytest.fixture
def encrypted() -> Iterator[tuple[FlowControl, FakeTransport, socket.socket]]:
    """The flow of a TLS connection, its transport, and the peer's end of the socket below."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = FakeTransport(ssl_object=object())
        transport.info["socket"] = ours
        yield FlowControl(transport), transport, theirs


def test_under_tls_the_kernel_tells_what_is_unsent(
    encrypted: tuple[FlowControl, FakeTransport, socket.socket],
) -> None:
    """The transport has given everything away, to one below it that does not show what it holds."""
    flow, transport, theirs = encrypted
    assert not flow.stalled(0.0, 60, written=0)
    assert not flow.unsent()
    transport.info["socket"].send(bytes(1000))
    assert not flow.stalled(1.0, 60, written=1000)  # it came to the kernel
    assert flow.unsent()
    assert flow.stalled(61.0, 60, written=1000)
    theirs.recv(1000)
    assert not flow.stalled(62.0, 60, written=1000)
    assert flow.unsent()  # the transport below may hold more
    assert not flow.stalled(63.0, 60, written=1000)
    assert not flow.unsent()


def test_a_slow_peer_is_seen_by_the_kernel(encrypted: tuple[FlowControl, FakeTransport, socket.socket]) -> None:
    """The transport can write nothing yet, and the peer has taken something all the same."""
    _, tls, theirs = encrypted
    transport = FakeTransport()
    transport.info["socket"] = tls.info["socket"]
    transport.unsent = 500
    flow = FlowControl(transport)
    for _ in range(2):
        tls.info["socket"].send(bytes(1000))
    assert not flow.stalled(0.0, 60, written=5000)
    assert not flow.stalled(59.0, 60, written=5000)
    theirs.recv(1000)
    assert not flow.stalled(60.0, 60, written=5000)
    assert flow.stalled(120.0, 60, written=5000)


def test_a_connection_of_tls_is_shut_down_when_its_transport_is_gone(
    encrypted: tuple[FlowControl, FakeTransport, socket.socket],
) -> None:
    """The transport closes the descriptor before it says so, and a child of the application may have another."""
    flow, transport, theirs = encrypted
    ours = transport.info["socket"]
    child = ours.dup()
    with child:
        flow.close()
        flow.close()
        assert transport.closing
        ours.close()
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(1)
        flow.lose()
        assert theirs.recv(1) == b""
        assert flow.farewell == -1


@pytest.mark.parametrize("how", ["abort", "lose"])
def test_a_plain_connection_is_shut_down_before_it_is_closed(how: str) -> None:
    """Its transport has the descriptor still."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = FakeTransport()
        transport.info["socket"] = ours
        flow = FlowControl(transport)
        getattr(flow, how)()
        assert theirs.recv(1) == b""
        assert transport.aborted is (how == "abort")
        flow.lose()
        flow.abort()


def test_without_descriptors_a_connection_of_tls_is_closed_all_the_same(
    encrypted: tuple[FlowControl, FakeTransport, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not shut down then, which is of use only where a child lives."""
    flow, transport, _ = encrypted

    def exhausted(fd: int) -> int:
        raise OSError

    monkeypatch.setattr(os, "dup", exhausted)
    flow.close()
    assert transport.closing
    flow.lose()
