"""FlowControl: pauses of one transport, in both directions, and nobody left waiting."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from hybridworker import flow as module
from hybridworker.errors import ClientDisconnected
from hybridworker.flow import FlowControl, Turn
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


@pytest.mark.usefixtures("timeless")
def test_writes_of_one_turn_are_joined() -> None:
    """The first goes out at once, the others together when the loop turns."""
    transport = FakeTransport()

    async def main() -> None:
        flow = FlowControl(transport)
        for part in (b"a", b"b", b"c"):
            flow.write(part)
        assert transport.writes == [b"a"]
        await asyncio.sleep(0)
        assert transport.writes == [b"a", b"bc"]
        flow.write(b"d")
        assert transport.writes[-1] == b"d"

    asyncio.run(main())


@pytest.mark.usefixtures("timeless")
def test_responses_of_one_turn_go_out_at_its_end() -> None:
    """One behind the other, so that the peer wakes once; the first at once, so that a lonely one does not wait."""
    turn = Turn()
    transports = [FakeTransport() for _ in range(4)]

    async def main() -> None:
        flows = [FlowControl(transport, turn) for transport in transports]
        for flow in flows[:3]:
            flow.finish(b"response")
        flows[3].write(b"part")  # of a stream: its first part in this turn, which goes out
        flows[3].finish(b" end")
        flows[2].finish(b" and another")
        assert [transport.sent for transport in transports] == [b"response", b"", b"", b"part"]
        await asyncio.sleep(0)
        assert [transport.sent for transport in transports] == [
            b"response", b"response", b"response and another", b"part end",
        ]  # fmt: skip
        assert [len(transport.writes) for transport in transports] == [1, 1, 1, 2]
        flows[1].finish(b" next")
        assert transports[1].sent == b"response next"

    asyncio.run(main())


def test_a_turn_that_takes_long_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one application computes, the others' responses do not wait for it."""
    turn = Turn()
    transports = [FakeTransport() for _ in range(3)]
    now = [1.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    async def main() -> None:
        flows = [FlowControl(transport, turn) for transport in transports]
        flows[0].finish(b"a")
        flows[1].finish(b"b")
        assert transports[1].sent == b""
        now[0] += 1
        flows[2].finish(b"c")
        assert [transport.sent for transport in transports] == [b"a", b"b", b"c"]

    asyncio.run(main())


@pytest.mark.usefixtures("timeless")
def test_a_large_response_is_not_held_back() -> None:
    """Memory is bounded: with many connections it would be a megabyte a turn."""
    turn = Turn()
    large = FakeTransport()

    async def main() -> None:
        FlowControl(FakeTransport(), turn).finish(b"first")
        FlowControl(large, turn).finish(b"x" * (module.CORK_MAX + 1))
        assert large.sent

    asyncio.run(main())


@pytest.mark.usefixtures("timeless")
def test_what_is_held_back_is_bounded() -> None:
    """Above the bound it goes out before the loop turns."""
    transport = FakeTransport()

    async def main() -> None:
        flow = FlowControl(transport)
        flow.write(b"a")
        flow.write(b"b" * (module.CORK_MAX + 1))
        assert len(transport.writes) == 2

    asyncio.run(main())


def test_a_stream_goes_on_while_the_loop_does_not_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that computes between its writes is not held up by them."""
    transport = FakeTransport()
    now = [1.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    async def main() -> None:
        flow = FlowControl(transport)
        flow.write(b"a")
        flow.write(b"b")
        assert transport.writes == [b"a"]
        now[0] += 1
        flow.write(b"c")
        assert transport.writes == [b"a", b"bc"]

    asyncio.run(main())


@pytest.mark.usefixtures("timeless")
def test_what_is_held_back_for_a_lost_peer_is_dropped() -> None:
    """A closed transport takes nothing."""
    transport = FakeTransport()

    async def main() -> None:
        flow = FlowControl(transport)
        flow.write(b"a")
        flow.write(b"b")
        flow.lose()
        await asyncio.sleep(0)
        assert transport.writes == [b"a"]

    asyncio.run(main())


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
