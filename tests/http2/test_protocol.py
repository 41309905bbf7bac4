"""``http2/protocol.py``: one connection and its streams; beginning together, timeouts, the two GOAWAYs."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

pytest.importorskip("hpack", reason="the extra is not installed")

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.connection import peer as peer_module
from hybridworker.connection.flow import DEAF
from hybridworker.connection.pace import PENALTY, STEP_MAX, Pace
from hybridworker.http2 import wire
from hybridworker.http2.protocol import GOODBYE
from hybridworker.states import HTTP2, HTTP2State, PaceState
from tests.harness import body, start
from tests.http2.framing import data, request, reset
from tests.http2.multiplexed import Site, multiplexed

LARGEST = 2**31 - 1
PONG = wire.frame(wire.PING, wire.ACK, 0, GOODBYE)
eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin in the next turn of the loop")

HELLO = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"x"), (b":path", b"/hello")]


def hello(stream_id: int) -> bytes:
    return request(stream_id, fields=HELLO)


def page(stream_id: int, path: bytes, ended: bool = True, *fields: tuple[bytes, bytes]) -> bytes:
    return request(stream_id, ended, [*HELLO[:3], (b":path", path), *fields])


# -- who begins, and what is joined


@eager
def test_the_responses_of_one_read_are_one_write() -> None:
    """Each send() of a last message is suspended until the outbox is written."""
    with multiplexed(Site()) as there:
        before = len(there.transport.writes)
        there.feed(b"".join(hello(stream) for stream in (1, 3, 5, 7)))
        assert all(there.answers[stream].body == b"hello" for stream in (1, 3, 5, 7))
        assert len(there.transport.writes) == before + 1


@eager
def test_large_bodies_are_written_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several responses of one read, large and small: one write of the bodies themselves, in order."""
    large = bytes(range(256)) * 40
    pieces: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"small" if scope["path"] == "/small" else large))

    with multiplexed(app) as there:
        writelines = there.transport.writelines

        def record(data: Any) -> None:
            pieces.append(list(data))
            writelines(data)

        monkeypatch.setattr(there.transport, "writelines", record)
        before = len(there.transport.writes)
        there.feed(hello(1) + page(3, b"/small") + page(5, b"/small") + hello(7) + page(9, b"/small"))
        assert len(there.transport.writes) == before + 1
        assert [there.answers[stream].body for stream in (1, 3, 5, 7, 9)] == [
            large,
            b"small",
            b"small",
            large,
            b"small",
        ]
        assert [any(piece is large for piece in row) for row in pieces] == [True]
        assert [len(piece) for piece in pieces[0]][1::2] == [len(large)] * 2
        assert len(pieces[0]) == 5
        assert there.protocol.outbox.sent == len(there.transport.sent)
        there.feed(page(11, b"/small"))
        assert len(pieces) == 1


@eager
def test_no_code_runs_between_a_last_message_and_its_writing() -> None:
    """What an application does behind its last send() finds the response written, whatever else is begun."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x"))
        seen.append(there.transport.sent.count(b"x"))

    with multiplexed(app) as there:
        there.feed(b"".join(hello(stream) for stream in (1, 3, 5)))
    assert seen == [3, 3, 3]


@eager
def test_a_message_of_a_task_of_the_application_is_not_held() -> None:
    """The task that has made it may run on."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        loop: Any = asyncio.get_running_loop()
        options: Any = {"eager_start": True}
        task: Any = asyncio.Task(send(body(b"of-a-task")), loop=loop, **options)  # type: ignore[arg-type]
        seen.append(there.transport.sent)
        await task

    with multiplexed(app) as there:
        there.feed(hello(1) + hello(3))
    assert seen[0].endswith(b"of-a-task")


def compute() -> None:
    end = time.thread_time() + 2 * STEP_MAX
    while time.thread_time() < end:
        pass


@eager
@pytest.mark.parametrize("hold", [compute, lambda: time.sleep(2 * STEP_MAX)], ids=["computes", "waits"])
def test_a_slow_step_ends_the_joining_for_a_while(hold: Callable[[], None]) -> None:
    """The responses before it go out at once, those behind it each by itself; the reason is kept."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        hold()
        await send(start(200))
        await send(body(b"x"))

    with multiplexed(app) as there:
        before = len(there.transport.writes)
        there.feed(hello(1) + hello(3) + hello(5))
        assert len(there.transport.writes) == before + 3
        assert there.context.pace.state is PaceState.SLOW
        assert re.fullmatch(r"GET /hello held the loop for [0-9.]+ ms", there.context.pace.reason)


@eager
def test_a_step_that_others_took_the_processor_from_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine time goes by although the application neither computes nor waits."""
    with multiplexed(Site()) as there:
        clock = iter(float(number) for number in range(1000))
        monkeypatch.setattr("hybridworker.http2.protocol.time.perf_counter", lambda: next(clock))
        before = len(there.transport.writes)
        there.feed(hello(1) + hello(3) + hello(5))
        assert len(there.transport.writes) == before + 1
        assert there.context.pace.state is PaceState.BRISK


def test_the_pace_is_forgiven() -> None:
    """SLOW lasts for a while."""
    pace = Pace()
    assert pace.brisk(0.0)
    pace.slow(10.0, f"more than {STEP_MAX} s")
    assert not pace.brisk(10.0 + PENALTY / 2)
    assert pace.brisk(10.0 + PENALTY)
    assert (pace.state, pace.reason) == (PaceState.BRISK, "")


def test_what_is_reset_in_the_same_read_never_begins() -> None:
    """CVE-2023-44487."""
    site = Site()
    with multiplexed(site) as there:
        there.feed(hello(1) + reset(1) + hello(3))
    assert site.calls == ["/hello"]


def test_requests_wait_for_the_end_of_calls_whose_streams_are_closed() -> None:
    """Calls, not open streams, are held against http2_max_concurrent_streams, and the client has done no wrong."""

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        began.append(scope["path"])
        await send(start(200))
        await send(body(b"done"))
        await gates[scope["path"]].wait()  # as a background task does

    gates = {f"/{number}": asyncio.Event() for number in range(1, 9, 2)}
    began: list[str] = []
    with multiplexed(busy, http2_max_concurrent_streams=2) as there:
        there.feed(*(page(on, b"/%d" % on) for on in (1, 3, 5, 7)))
        assert began == ["/1", "/3"]
        assert there.protocol.lingering == 2
        assert (there.answers[3].body, there.resets) == (b"done", [])
        gates["/1"].set()
        there.run()
        assert began == ["/1", "/3", "/5"]
        there.feed(reset(7))
        gates["/3"].set()
        gates["/5"].set()
        there.run()
        assert began == ["/1", "/3", "/5"]
        assert there.protocol.lingering == 0


def test_a_call_that_fails_makes_room() -> None:
    """Also while others go on behind their responses."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.append(scope["path"])
        if scope["path"] == "/3":
            await gate.wait()
            raise ValueError
        await send(start(200))
        await send(body(b"done"))
        if scope["path"] == "/1":
            await there.loop.create_future()

    gate = asyncio.Event()
    began: list[str] = []
    with multiplexed(app, http2_max_concurrent_streams=2) as there:
        there.feed(*(page(on, b"/%d" % on) for on in (1, 3, 5)))
        assert began == ["/1", "/3"]
        gate.set()
        there.run()
        assert (there.answers[3].status, there.answers[5].body) == (500, b"done")


# -- the end


def test_the_first_goaway_names_no_last_stream() -> None:
    """RFC 9113 6.8: with a PING; what still comes is served; at its answer the true last one is named."""
    with multiplexed(Site()) as there:
        there.feed(page(1, b"/wait"))
        there.protocol.drain(there.loop.time() + 10)
        there.take()
        assert there.farewells == [(LARGEST, 0, "")]
        there.feed(hello(3))
        assert there.answers[3].body == b"hello"
        there.feed(PONG + hello(5))
        assert there.farewells[1:] == [(3, 0, "")]
        assert 5 not in there.answers
        assert there.open
        there.feed(reset(1))
        assert not there.open
        assert there.transport.eof


def test_under_tls_the_client_closes_behind_the_last_goaway(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it still sends, a WINDOW_UPDATE for example, would be an error behind a close_notify, and cut the rest."""
    monkeypatch.setattr(peer_module, "tls_extension", lambda ssl_object, cert: {"tls_version": 0x0304})
    monkeypatch.setattr(peer_module, "tls_environ", lambda ssl_object, extension: {"HTTPS": "on"})
    with multiplexed(Site(), ssl_object=object()) as there:
        there.feed(hello(1))
        there.protocol.drain(there.loop.time() + 10)
        there.feed(PONG)
        assert there.farewells == [(LARGEST, 0, ""), (1, 0, "")]
        there.protocol.data_received(PONG)
        assert not there.transport.closing
        there.tick(1.5)
        assert (there.transport.closing, there.transport.aborted) == (True, False)


def test_a_reset_of_stream_0_behind_the_first_goaway_harms_nobody() -> None:
    """As HAProxy sends it for a request that the GOAWAY has overtaken (RFC 9113 6.4)."""
    with multiplexed(Site()) as there:
        there.feed(page(1, b"/wait", False))
        there.protocol.retire()
        there.feed(reset(0))
        assert there.open
        assert 1 in there.protocol.reader.streams
        there.feed(reset(1))


def test_without_an_answer_to_the_ping_the_last_stream_is_named_later() -> None:
    """After two seconds, or less where the drain is short."""
    with multiplexed(Site()) as there:
        there.feed(hello(1))
        there.protocol.drain(there.loop.time() + 10)
        there.tick(1.0)
        assert len(there.farewells) == 1
        there.tick(2.1)
        assert [last for last, _, _ in there.farewells] == [LARGEST, 1]
        assert not there.open


def test_an_idle_connection_gives_back_the_room_of_its_streams() -> None:
    """A dict keeps its size: 4 KiB after 100 streams. The next requests are served as the first."""
    with multiplexed(Site()) as there:
        reader = there.protocol.reader
        empty = sys.getsizeof({})
        there.feed(b"".join(hello(stream) for stream in range(1, 201, 2)))
        there.feed(hello(201), page(203, b"/wait"))
        assert sys.getsizeof(reader.streams) > 4000
        there.tick(1.0)
        assert list(reader.streams) == [203]
        there.feed(reset(203))
        there.tick(1.0)
        assert sys.getsizeof(reader.streams) == empty
        there.feed(hello(205))
        assert there.answers[205].body == b"hello"


def test_an_idle_connection_ends_in_good_order() -> None:
    """After ``keepalive``, with the true last stream; not one that has a stream."""
    with multiplexed(Site(), keepalive=5.0) as there:
        there.feed(hello(1))
        there.tick(4.0)
        assert there.open
        there.tick(5.1)
        assert there.farewells == [(1, 0, "")]
    with multiplexed(Site(), keepalive=5.0) as there:
        there.feed(page(1, b"/wait"))
        there.tick(50.0)
        assert there.open


def test_the_clients_goaway_ends_the_connection_behind_its_streams() -> None:
    """RFC 9113 6.8."""
    with multiplexed(Site()) as there:
        there.feed(page(1, b"/echo", False) + wire.goaway(0, 0))
        assert there.open
        there.feed(data(1, b"x", True))
        assert there.answers[1].body == b"x"
        assert not there.open


def test_what_waits_for_credit_is_written_before_the_end_of_the_connection() -> None:
    """The end of the last stream closes it, and nothing can be written behind that."""
    with multiplexed(Site()) as there:
        no_window = wire.frame(wire.SETTINGS, 0, 0, b"\x00\x04" + wire.NUMBER.pack(0))
        there.feed(no_window + hello(1) + wire.goaway(0, 0))
        assert there.open
        there.feed(wire.frame(wire.WINDOW_UPDATE, 0, 1, wire.NUMBER.pack(100)))
        assert there.answers[1].body == b"hello"
        assert not there.open


def test_a_silent_client_is_left() -> None:
    """Half a preface, or half a field section, for longer than HEADER_TIMEOUT."""
    with multiplexed(Site(), header_timeout=3.0) as there:
        there.feed(hello(1)[:12])
        there.tick(2.0)
        assert there.open
        there.tick(3.1)
        assert there.farewells[0][1] == 0
        assert "HEADER_TIMEOUT" in there.farewells[0][2]


def test_a_client_that_takes_nothing_of_a_response_loses_it() -> None:
    """WRITE_TIMEOUT for a stream whose window is exhausted: CANCEL, and the others go on."""
    with multiplexed(Site(), write_timeout=5.0) as there:
        there.feed(page(1, b"/big"))
        there.context.clock.now = there.loop.time()
        there.tick(4.0)
        assert there.resets == []
        there.tick(6.0)
        assert there.resets == [(1, wire.CANCEL)]
        assert there.open


def test_a_client_that_stops_amid_a_body_is_gone_for_the_application() -> None:
    """After ``timeout``; a 400, as over HTTP/1.1."""
    site = Site()
    with multiplexed(site, body_timeout=5.0) as there:
        there.feed(page(1, b"/echo", False) + data(1, b"half"))
        there.tick(4.0)
        assert site.left == []
        there.tick(5.1)
        assert site.left == ["/echo"]
        assert there.answers[1].status == 400


def test_a_body_that_awaits_a_100_has_no_time_behind_its_response() -> None:
    """RFC 9110 10.1.1: the client may send it all the same, or end the stream; it must not keep it open for ever."""
    with multiplexed(Site()) as there:
        there.feed(page(1, b"/hello", False, (b"expect", b"100-continue"), (b"content-length", b"5")))
        assert there.answers[1].ended
        there.tick(there.context.settings.body_timeout + 1)
        assert there.resets == [(1, wire.NO_ERROR)]


@pytest.mark.parametrize(("window", "length"), [(65535, 65536), (16384, 20_000), (0, 5)])
def test_a_body_that_is_larger_than_the_window_is_not_waited_for(window: int, length: int) -> None:
    """No more than a window comes before a WSGI application has read some of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send(start(200))
        await send(body(b"%d" % size))

    with multiplexed(app, is_wsgi=True, http2_initial_window_size=window) as there:
        there.feed(wire.frame(wire.SETTINGS, wire.ACK, 0))
        there.feed(page(1, b"/", False, (b"content-length", b"%d" % length)))
        left = length
        while left:
            room = min(left, there.protocol.reader.streams[1].window, wire.DEFAULT_FRAME)
            assert room, "the client may not go on"
            left -= room
            there.feed(data(1, bytes(room), not left))
        assert there.answers[1].body == b"%d" % length


@pytest.mark.parametrize(
    ("is_wsgi", "complete", "works", "gone"),
    [(False, True, True, True), (False, False, True, False), (True, False, False, True), (True, False, True, False)],
)
def test_a_deaf_client_does_not_hold_up_a_worker_that_leaves(
    is_wsgi: bool, complete: bool, works: bool, gone: bool
) -> None:
    """A response that is complete, or that a thread has made, and waits for credit: as over HTTP/1.1."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(bytes(100_000), more=not complete))
        await there.loop.create_future()

    with multiplexed(app, is_wsgi=is_wsgi) as there:
        there.context.router.default.works = lambda scope: works  # type: ignore[method-assign]
        there.feed(hello(1))
        there.protocol.tick(there.loop.time() + DEAF + 1)
        assert not there.resets
        there.context.persistence.end()
        there.protocol.drain(there.loop.time() + 30)
        there.protocol.tick(there.loop.time() + DEAF + 1)  # the second GOAWAY
        there.protocol.tick(there.loop.time() + DEAF + 1)
        assert there.resets == ([(1, wire.CANCEL)] if gone else [])


@pytest.mark.parametrize("before", [True, False])
def test_the_rest_of_an_upload_does_not_hold_up_a_worker_that_leaves(before: bool) -> None:
    """Its response is complete, ``before`` the worker was told to go or behind it: NO_ERROR (RFC 9113 8.1)."""
    with multiplexed(Site()) as there:
        feeds = page(1, b"/hello", False)
        there.feed(feeds if before else b"")
        there.context.persistence.end()
        there.protocol.drain(there.loop.time() + 30)
        there.feed(b"" if before else feeds)
        assert there.answers[1].ended
        there.protocol.tick(there.loop.time() + DEAF + 1)  # the second GOAWAY
        there.protocol.tick(there.loop.time() + DEAF + 1)
        assert there.resets == [(1, wire.NO_ERROR)]
        assert not there.open


def test_as_many_requests_as_allowed_begin_in_a_read() -> None:
    """HYBRIDWORKER_REQUESTS_MAX, also where tasks begin in the next turn of the loop (Python 3.11)."""
    site = Site()
    with multiplexed(site, requests_max=2) as there:
        there.feed(b"".join(page(on, b"/wait") for on in range(1, 11, 2)))
        assert site.calls == ["/wait"] * 2
        assert [there.answers[on].status for on in (5, 7, 9)] == [503] * 3


def test_a_full_transport_pauses_reading() -> None:
    """A client that asks for answers and takes none is not heard meanwhile (CVE-2019-9512, 9517)."""
    with multiplexed(Site()) as there:
        there.protocol.pause_writing()
        there.feed(wire.frame(wire.PING, 0, 0, b"12345678"))
        assert not there.transport.reading
        there.protocol.resume_writing()
        assert there.transport.reading


def test_a_full_transport_holds_up_who_sends() -> None:
    """Each stream of its connection, those that come then as well, until it takes bytes again."""
    past: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send(start(200))
        await send(body(b"one", more=True))
        past.append(scope["path"])
        await send(body(b"two"))

    with multiplexed(app) as there:
        there.feed(page(1, b"/before", False))
        there.protocol.pause_writing()
        there.feed(data(1, b"", True) + page(3, b"/behind"))
        assert past == []
        there.protocol.resume_writing()
        there.run()
        assert sorted(past) == ["/before", "/behind"]
        assert there.answers[1].body == there.answers[3].body == b"onetwo"


@eager
def test_requests_that_are_answered_count_no_more_in_the_next_read() -> None:
    """Although their tasks go on in the next turn of the loop only."""
    with multiplexed(Site(), http2_max_concurrent_streams=4) as there:
        for number in range(8):
            there.feed(b"".join(hello(8 * number + place) for place in (1, 3, 5, 7)))
        assert not there.resets
        assert all(answer.body == b"hello" for answer in there.answers.values())
        assert len(there.answers) == 32


def test_a_lost_connection_is_the_disconnect_of_its_streams() -> None:
    """All of them are told."""
    site = Site()
    with multiplexed(site) as there:
        there.feed(page(1, b"/wait") + page(3, b"/wait"))
        there.protocol.connection_lost(None)
        there.run()
        assert site.left == ["/wait", "/wait"]


# -- the table of states


EVENTS = ("close", "last", "lost", "retire")


@pytest.mark.parametrize(("state", "event"), list(product(HTTP2State, EVENTS)), ids=str)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_every_pair_of_state_and_event(state: HTTP2State, event: str, busy: bool) -> None:
    """What the table allows leads where it says; anything else changes nothing."""
    with multiplexed(Site()) as there:
        protocol = there.protocol
        if busy:
            there.feed(page(1, b"/wait"))
        protocol.state = state
        allowed = HTTP2.get((state, event))
        if event == "lost" and state is not HTTP2State.CLOSED:
            protocol.connection_lost(None)
        elif event == "retire":
            protocol.retire()
        elif event == "close":
            protocol.close()
        elif event == "last" and state in (HTTP2State.OPEN, HTTP2State.LEAVING):
            protocol.on_goaway(0)
        if allowed is None:
            assert protocol.state is state
        else:
            assert protocol.state in allowed
        if state is HTTP2State.CLOSED and protocol in there.context.connections:
            there.context.connections.discard(protocol)
            protocol.abort()
