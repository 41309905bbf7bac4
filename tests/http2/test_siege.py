"""
Attacks on whole connections: what the reader does not decide alone, with its bound.

At most 0.15 s of processor time for 200,000 frames, and 10 MB beside what the application itself has handed over.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Callable

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.http2 import wire
from hybridworker.http2.budget import FAULTS, FAULTS_RATE
from hybridworker.http2.wire import CANCEL, END_STREAM, ENHANCE_YOUR_CALM, PING, SETTINGS, frame, window_update
from hybridworker.states import HTTP2State
from tests.harness import HELLO, body, start
from tests.http2.framing import FakeOwner, block, data, request, reset
from tests.http2.framing import settings as settings_frame
from tests.http2.multiplexed import H2Wire, Site, multiplexed
from tests.http2.test_attacks import FLOODS, READ, RESETS, SECONDS
from tests.http2.test_rfc9113 import page
from tests.processor import at_most

COUNT = 200_000


def flood(connection: H2Wire, frames: bytes, count: int = COUNT) -> None:
    """Send ``frames`` so many times, as fast as they are taken. The processor time is bounded."""
    each = max(1, READ // len(frames))
    read = frames * each

    async def send() -> None:
        for _ in range(count // each):
            if connection.protocol.state is HTTP2State.CLOSING or not connection.transport.reading:
                return
            connection.protocol.data_received(read)

    with at_most(SECONDS):
        connection.loop.run_until_complete(send())


#: Those for which nothing of this worker's own comes first, but for GOAWAY: it ends the connection in order.
COMING = [
    kind for kind, (make, _) in FLOODS.items() if make.__name__ in ("connected", "with_stream") and kind != "GOAWAY"
]


@pytest.mark.parametrize("kind", COMING)
def test_a_flood_of_what_carries_nothing(kind: str) -> None:
    """ENHANCE_YOUR_CALM soon behind the 1,000th; the request under way loses its client."""
    make, frames = FLOODS[kind]
    site = Site()
    with multiplexed(site) as connection:
        if make.__name__ == "with_stream":
            connection.feed(wire.section(1, block(page(b"/wait")), 0, 16384))
        flood(connection, frames)
        connection.run()
        assert [code for _, code, _ in connection.farewells] == [ENHANCE_YOUR_CALM]
        assert site.left == site.calls
        assert len(connection.sent) < 100_000


@pytest.mark.parametrize("kind", RESETS)
def test_resets_call_the_application_no_more_than_the_budget(kind: str) -> None:
    """2,000 streams in reads of their own: rapid reset and MadeYouReset (CVE-2023-44487, CVE-2025-8671)."""
    ended, behind = RESETS[kind]
    site = Site()
    began = time.monotonic()
    with at_most(1.5), multiplexed(site) as connection:
        for stream_id in range(1, 4001, 2):
            if connection.open:
                connection.feed(request(stream_id, ended, page(b"/wait")))
                connection.feed(behind(stream_id))
        assert len(site.calls) <= FAULTS + FAULTS_RATE * (time.monotonic() - began) + 2
        assert [code for _, code, _ in connection.farewells] == [ENHANCE_YOUR_CALM]


def test_resets_in_the_same_read_never_call() -> None:
    """And the connection that goes too far is ended."""
    site = Site()
    with multiplexed(site) as connection:
        attack = b"".join(request(on, fields=page(b"/hello")) + reset(on) for on in range(1, 4001, 2))
        with at_most(SECONDS):
            connection.feed(attack)
        assert site.calls == []
        assert [code for _, code, _ in connection.farewells] == [ENHANCE_YOUR_CALM]


def test_streams_beyond_the_limit_cost_no_call() -> None:
    """REFUSED_STREAM until the budget ends the connection."""
    site = Site()
    with multiplexed(site) as connection:
        connection.feed(b"".join(request(on, fields=page(b"/wait")) for on in range(1, 4001, 2)))
        assert [code for _, code, _ in connection.farewells] == [ENHANCE_YOUR_CALM]
        assert FAULTS <= len(connection.resets) < FAULTS + FAULTS_RATE
        assert site.calls == []  # the read that went too far


@pytest.mark.parametrize(
    "frames",
    [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0), request(1, fields=page(b"/hello"))],
    ids=["PING (CVE-2019-9512)", "SETTINGS (CVE-2019-9515)", "requests (CVE-2019-9517)"],
)
def test_a_client_that_reads_nothing_is_not_read(frames: bytes) -> None:
    """Answers are held in the transport; while it is full, reading pauses, and goes on when it is not."""
    with multiplexed(Site()) as connection:
        connection.protocol.pause_writing()
        connection.feed(frames)
        assert not connection.transport.reading
        connection.protocol.resume_writing()
        assert connection.transport.reading
        assert connection.open


class Large:
    """An application that sends a megabyte in pieces of 100 KB; ``given`` counts those that ``send()`` took."""

    def __init__(self) -> None:
        self.given = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        for _ in range(10):
            await send(body(bytes(100_000), more=True))
            self.given += 1
        await send(body(b""))


def test_a_window_of_zero_holds_one_message_of_each_stream() -> None:
    """CVE-2019-9511, slow read: ``send()`` waits, and there is no buffer but the message that it was given."""
    app = Large()
    with multiplexed(app) as connection:
        connection.feed(settings_frame((wire.INITIAL_WINDOW_SIZE, 0)))
        tracemalloc.start()
        connection.feed(*(request(on) for on in range(1, 201, 2)))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert app.given == 0
        assert len(connection.protocol.reader.streams) == 100
        assert held < 10_000_000 + 100 * 100_000


def test_a_window_of_a_byte_at_a_time() -> None:
    """Each byte costs an update, and they are counted: soon the connection ends."""
    with multiplexed(Large()) as connection:
        connection.feed(settings_frame((wire.INITIAL_WINDOW_SIZE, 0)), request(1))
        flood(connection, window_update(1, 1), 100_000)
        assert [code for _, code, _ in connection.farewells] == [ENHANCE_YOUR_CALM]


def test_windows_that_are_updated_for_each_segment_are_no_attack() -> None:
    """HAProxy does so for both windows; here 1,000 bytes are what it reads at once."""
    with multiplexed(Large()) as connection:
        connection.feed(request(1))
        for _ in range(1000):
            connection.feed(window_update(0, 1000) + window_update(1, 1000))
        assert connection.open, connection.farewells
        assert len(connection.answers[1].body) == 1_000_000


def test_a_client_that_takes_nothing_of_a_response() -> None:
    """CANCEL on its stream behind WRITE_TIMEOUT; the others go on."""
    with multiplexed(Large(), write_timeout=30.0) as connection:
        connection.feed(settings_frame((wire.INITIAL_WINDOW_SIZE, 0)), request(1), request(3))
        connection.feed(window_update(3, 10))
        connection.tick(29)
        assert not connection.resets
        connection.tick(31)
        assert connection.resets == [(1, CANCEL), (3, CANCEL)]
        assert connection.open


@pytest.mark.parametrize(
    "first",
    [
        request(1)[:5],
        request(1)[:12],
        frame(wire.HEADERS, END_STREAM, 1, b"\x82"),
        frame(wire.HEADERS, END_STREAM, 1, b"\x82") + frame(wire.CONTINUATION, 0, 1, b"\x86"),
        frame(SETTINGS, 0, 0, bytes(6))[:12],
        b"",
    ],
    ids=["half a head", "half a frame", "half a section", "a section in pieces", "half of SETTINGS", "silence"],
)
def test_what_does_not_go_on(first: bytes) -> None:
    """HEADER_TIMEOUT, or ``keepalive`` where nothing was begun: GOAWAY, and the end."""
    with multiplexed(HELLO, header_timeout=10.0) as connection:
        connection.feed(first)
        connection.tick(9)
        assert connection.open
        connection.tick(11)
        assert [code for _, code, _ in connection.farewells] == [0]
        assert not connection.open


def test_a_section_that_trickles_has_no_more_time() -> None:
    """A byte now and then makes it no younger."""
    with multiplexed(HELLO, header_timeout=10.0) as connection:
        connection.feed(frame(wire.HEADERS, END_STREAM, 1, b"\x82"))
        began = connection.protocol.reader.waiting_since
        for _ in range(10):
            connection.feed(frame(wire.CONTINUATION, 0, 1, b""))
        assert connection.protocol.reader.waiting_since == began


def test_uploads_that_nobody_reads() -> None:
    """At most streams times window is held."""

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    with multiplexed(deaf) as connection:
        connection.feed(frame(SETTINGS, wire.ACK, 0))
        connection.feed(*(request(on, False, page(b"/", b"POST")) for on in range(1, 201, 2)))
        for on in range(1, 201, 2):
            connection.feed(*[data(on, bytes(16383))] * 4)
        held = sum(stream.cycle.buffered for stream in connection.protocol.reader.streams.values())
        assert held == 100 * 4 * 16383
        connection.feed(data(1, bytes(16384)))
        assert connection.resets == [(1, wire.FLOW_CONTROL_ERROR)]


@pytest.mark.parametrize(
    "make",
    [lambda on: request(on, fields=page(b"/hello")), lambda on: request(on, False) + reset(on)],
    ids=["answered", "reset"],
)
def test_memory_does_not_grow_with_requests(make: Callable[[int], bytes]) -> None:
    """500 more leave nothing behind."""
    with multiplexed(Site()) as connection:

        def run(first: int) -> None:
            for on in range(first, first + 1000, 2):
                connection.protocol.reader.budget.faults = FAULTS
                connection.feed(make(on))
                connection.answers.clear()
                connection.frames.clear()
                connection.transport.writes.clear()
                connection.read = 0
            connection.protocol.context.log.lines.clear()  # type: ignore[attr-defined]

        run(1)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        run(1001)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 50_000


def test_the_owner_of_the_unit_tests_and_the_protocol_agree() -> None:
    """Both are owners of a reader: they have the same methods."""
    from hybridworker.http2.owner import FrameOwner
    from hybridworker.http2.protocol import HTTP2Protocol

    methods = {name for name in vars(FrameOwner) if name.startswith("on_")}
    assert methods
    for owner in (FakeOwner, HTTP2Protocol):
        assert methods == {name for name in vars(owner) if name.startswith("on_")}
