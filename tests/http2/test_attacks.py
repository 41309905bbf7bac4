"""
What a client may do that is no request: each attack with its bound, as far as the reader decides (http2 has the rest).

The bound is 0.15 s of processor time for 200,000 frames, and no memory that grows with them.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("h2", reason="the extra is not installed")


from hybridworker.errors import HTTP2Error
from hybridworker.http2 import partial, wire
from hybridworker.http2.budget import BYTES_PER_FRAME, FAULTS, FAULTS_RATE, FRAMES, FRAMES_RATE, PER_MESSAGE, Budget
from hybridworker.http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    SETTINGS,
    WITH_PRIORITY,
    frame,
    window_update,
)
from tests.http2.framing import (
    REQUEST,
    FakeOwner,
    block,
    connected,
    data,
    priority,
    request,
    reset,
    resets,
)
from tests.http2.framing import settings as settings_frame
from tests.processor import at_most

COUNT = 200_000
SECONDS = 0.15  #: of processor time
READ = 65536


def attack(owner: FakeOwner, frames: bytes, count: int = COUNT) -> tuple[int, HTTP2Error | None]:
    """
    Send ``count`` times ``frames``, in reads; returns how many were sent, and what ended the connection.

    The time is bounded, and so is what is kept.
    """
    each = max(1, READ // len(frames))
    read = frames * each
    sent, error = 0, None
    with at_most(SECONDS):
        try:
            while sent < count:
                owner.feed(read)
                owner.sent = b""
                sent += each
        except HTTP2Error as exc:
            error = exc
    assert error is None or error.code == ENHANCE_YOUR_CALM
    return sent, error


def with_stream(**local: int) -> FakeOwner:
    """A connection with the open stream 1."""
    owner = connected(**local)
    owner.feed(request(1, ended=False))
    return owner


def reset_by_us() -> FakeOwner:
    owner = with_stream()
    owner.reader.reset(1, wire.NO_ERROR)
    return owner


def leaving() -> FakeOwner:
    owner = with_stream()
    owner.reader.goaway()
    return owner


FLOODS: dict[str, tuple[Callable[[], FakeOwner], bytes]] = {
    "PING (CVE-2019-9512)": (connected, frame(PING, 0, 0, bytes(8))),
    "PING ACK": (connected, frame(PING, ACK, 0, bytes(8))),
    "SETTINGS (CVE-2019-9515)": (connected, frame(SETTINGS, 0, 0)),
    "SETTINGS, a window that changes": (with_stream, settings_frame((4, 1)) + settings_frame((4, 2))),
    "SETTINGS ACK": (connected, frame(SETTINGS, ACK, 0)),
    "SETTINGS of 16 KB": (connected, settings_frame(*[(99, 1)] * 2730)),
    "PRIORITY (CVE-2019-9513)": (with_stream, priority(1)),
    "PRIORITY, idle": (connected, priority(99)),
    "WINDOW_UPDATE": (connected, window_update(0, 1)),
    "WINDOW_UPDATE of a stream": (with_stream, window_update(1, 1)),
    "WINDOW_UPDATE of a closed stream": (reset_by_us, window_update(1, 1)),
    "GOAWAY": (connected, frame(GOAWAY, 0, 0, bytes(8))),
    "unknown": (connected, frame(99, 0, 0)),
    "unknown, on a stream": (with_stream, frame(99, 0, 1, b"x")),
    "empty DATA (CVE-2019-9518)": (with_stream, data(1)),
    "DATA of padding": (with_stream, frame(DATA, PADDED, 1, b"\x00")),
    "DATA of 255 bytes of padding": (with_stream, frame(DATA, PADDED, 1, b"\xff" + bytes(255))),
    "DATA of a stream that was reset": (reset_by_us, data(1, b"x")),
    "RST_STREAM of a closed stream": (reset_by_us, reset(1)),
    "trailers of a stream that was reset": (reset_by_us, request(1)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_what_carries_nothing(flood: str) -> None:
    """One budget for all kinds, which ends the connection soon behind its 1,000th frame."""
    make, frames = FLOODS[flood]
    owner = make()
    sent, error = attack(owner, frames)
    assert error is not None
    assert sent <= FRAMES + READ


@pytest.mark.parametrize("count", [FRAMES, 10 * FRAMES])
def test_the_budget_is_one(count: int) -> None:
    """Different kinds are counted together."""
    owner = connected()
    kinds = [frame(PING, 0, 0, bytes(8)), frame(99, 0, 0), priority(1), window_update(0, 1)]
    frames = b"".join(kinds) * (count // len(kinds))
    if count == FRAMES:
        owner.feed(frames[: -len(kinds[-1])])  # the SETTINGS of the preface was the first
    else:
        with pytest.raises(HTTP2Error, match="carry nothing"):
            owner.feed(frames)


def requests(ended: bool, *behind: Callable[[int], bytes], first: int = 1) -> Iterator[bytes]:
    """Requests without end, with frames behind each."""
    for stream_id in range(first, wire.LARGEST, 2):
        yield request(stream_id, ended) + b"".join(make(stream_id) for make in behind)


RESETS: dict[str, tuple[bool, Callable[[int], bytes]]] = {
    "rapid reset (CVE-2023-44487)": (True, reset),
    "MadeYouReset: WINDOW_UPDATE of 0 (CVE-2025-8671)": (True, lambda on: window_update(on, 0)),
    "MadeYouReset: a window beyond 2^31-1": (True, lambda on: window_update(on, wire.LARGEST)),
    "MadeYouReset: DATA behind END_STREAM": (True, lambda on: data(on, b"x")),
    "MadeYouReset: HEADERS behind END_STREAM": (True, lambda on: request(on)),
    "MadeYouReset: a stream that depends on itself": (True, lambda on: priority(on, on)),
    "MadeYouReset: PRIORITY of 4 bytes": (True, lambda on: frame(PRIORITY, 0, on, bytes(4))),
    "MadeYouReset: trailers without END_STREAM": (False, lambda on: request(on, False)),
    "RST_STREAM, and frames behind it": (False, lambda on: reset(on) + data(on, b"x")),
}


@pytest.mark.parametrize("kind", RESETS)
def test_resets_and_what_provokes_them(kind: str) -> None:
    """One budget of 200, whoever sends the RST_STREAM; each stream would be a call of the application."""
    ended, behind = RESETS[kind]
    owner = connected()
    source = requests(ended, behind)
    frames = b"".join(next(source) for _ in range(5000))
    with at_most(SECONDS), pytest.raises(HTTP2Error, match="reset, or refused") as caught:
        owner.feed(frames)
    assert caught.value.code == ENHANCE_YOUR_CALM
    assert len(owner.streams) <= FAULTS + 1


def test_rapid_reset_within_one_read_is_told_before_it_ends() -> None:
    """The owner begins requests behind a read: those that were reset in it are gone by then."""
    owner = connected()
    owner.feed(b"".join(request(on) + reset(on) for on in range(1, 2 * FAULTS, 2)))
    assert not owner.reader.streams


def test_more_streams_than_allowed_are_refused_from_the_budget() -> None:
    """Each by itself, until there were too many; those that run go on until then."""
    owner = connected(max_streams=10)
    source = requests(True)
    owner.feed(*(next(source) for _ in range(10 + FAULTS)))
    assert len(resets(owner.output())) == FAULTS
    assert len(owner.reader.streams) == 10
    with pytest.raises(HTTP2Error, match="reset, or refused"):
        owner.feed(next(source))


def test_streams_that_depend_on_themselves() -> None:
    """From HEADERS: the section is decoded, the stream is reset, from the budget."""
    owner = connected()
    made = [
        frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, on, wire.NUMBER.pack(on) + b"\x00" + block())
        for on in range(1, 2 * FAULTS + 3, 2)
    ]
    owner.feed(*made[:-1])
    assert not owner.streams
    with pytest.raises(HTTP2Error, match="reset, or refused"):
        owner.feed(made[-1])


# -- field sections


@pytest.mark.parametrize("piece", [b"", b"\x00\x01a\x00", bytes(16384)], ids=["empty", "small", "16 KB"])
def test_continuation_flood(piece: bytes) -> None:
    """CVE-2024-27316: 16 frames, or twice the list, and nothing was decoded."""
    owner = connected()
    owner.feed(frame(HEADERS, END_STREAM, 1, block()))
    _, error = attack(owner, frame(CONTINUATION, 0, 1, piece), COUNT if len(piece) < 100 else 100)
    assert error is not None
    assert "several times the limit" in str(error)
    assert owner.reader.decoder.table == []
    section = owner.reader.partial.section
    assert section is not None
    assert section.frames <= partial.CONTINUATIONS + 1
    assert section.size <= 3 * 65536


def test_a_list_that_was_allowed_to_be_long_may_come_in_more_frames() -> None:
    """What ``http2_max_header_list_size`` allows arrives, in frames of 16 KB."""
    owner = connected(max_list=2**20)
    fields = [*REQUEST, *[(b"x", bytes(8000)) for _ in range(100)]]
    [event] = owner.feed(wire.section(1, block(fields), END_STREAM, 16384))
    assert event[2] == fields
    assert not event[4]


def test_continuation_of_many_requests() -> None:
    """Sections in needless pieces are counted; those that are answered pay for them."""
    owner = connected()

    def pieces(on: int) -> bytes:
        return frame(HEADERS, END_STREAM, on, block()) + frame(CONTINUATION, 0, on) * 14 + frame(CONTINUATION, 4, on)

    with pytest.raises(HTTP2Error, match="carry nothing"):
        for on in range(1, 2000, 2):
            owner.feed(pieces(on))
            owner.reader.end(owner.streams[on])
    assert on < 200
    owner = connected()
    for on in range(1, 20_000, 2):
        owner.feed(frame(HEADERS, END_STREAM, on, block()) + frame(CONTINUATION, 4, on))
        owner.reader.end(owner.streams[on])
        owner.reader.budget.delivered += 1


def bomb(stream_id: int, times: int) -> bytes:
    """A field of 4,000 bytes, named so many times."""
    indexed = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, block() + indexed + b"\xbe" * times)


def test_hpack_bombs() -> None:
    """Those that are answered come from the budget of resets, larger ones end the connection at once."""
    owner = connected()
    with pytest.raises(HTTP2Error, match="several times"):
        owner.feed(bomb(1, 2000))
    owner = connected()
    with at_most(SECONDS), pytest.raises(HTTP2Error, match="reset, or refused"):
        for on in range(1, 1000, 2):
            owner.feed(bomb(on, 40))
            owner.reader.end(owner.streams[on])
    assert len(owner.streams) <= FAULTS


def test_a_section_in_a_frame_larger_than_any_list() -> None:
    """It is refused when its head comes, not when the rest does."""
    owner = connected(max_frame=2**24 - 1)
    with pytest.raises(HTTP2Error, match="several times"):
        owner.feed(frame(HEADERS, END_HEADERS, 1, bytes(2**23))[:100])


def test_table_flips() -> None:
    """A table that is emptied and filled in each request takes no more time than one that is not."""
    owner = connected()
    flip = b"\x20\x3f\xe1\x1f" + block() + b"".join(b"\x40\x01%c\x01v" % name for name in b"abcdefghijkl" * 8)
    with at_most(SECONDS):
        for on in range(1, 400, 2):
            owner.feed(frame(HEADERS, END_HEADERS | END_STREAM, on, flip))
            owner.reader.end(owner.streams[on])


# -- memory


@pytest.mark.parametrize(
    "make",
    [
        lambda on: request(on) + reset(on),
        lambda on: request(on, False) + data(on, b"x" * 100, True),
        lambda on: frame(HEADERS, 5, on, block() + b"\x40\x02ab\x7f\x81\x01" + b"%0256d" % on),
    ],
    ids=["resets", "bodies", "tables"],
)
def test_memory_does_not_grow_with_requests(make: Callable[[int], bytes]) -> None:
    """10,000 streams leave nothing behind but 128 ids and a table of 4 KB."""
    owner = connected()

    def run(first: int) -> None:
        for on in range(first, first + 20_000, 2):
            owner.feed(make(on))
            owner.now += 1
            if on in owner.reader.streams:
                owner.reader.end(owner.streams[on])
            owner.streams.clear()
            owner.sent = b""

    run(1)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    run(20_001)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20_000
    assert peak - before < 200_000


# -- the budget


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def spend(made: Budget, count: int, sent: int = 0) -> None:
    for _ in range(count):
        made.frames -= 1
        if made.frames < 0:
            made.refill(sent)


def test_frames_come_back_with_time() -> None:
    """100 a second, and never more than 1,000 at once."""
    clock = Clock()
    made = Budget(clock)
    spend(made, FRAMES)
    clock.now += 2
    spend(made, 2 * FRAMES_RATE)
    with pytest.raises(HTTP2Error):
        spend(made, 1)
    made = Budget(clock)
    clock.now += 10_000
    spend(made, 2 * FRAMES)
    with pytest.raises(HTTP2Error):
        spend(made, 1)


def test_frames_come_back_with_what_is_sent() -> None:
    """Three for each message, and one for 4 KB: nobody who reads what he gets is cut."""
    made = Budget(Clock())
    spend(made, FRAMES)
    made.delivered = 10
    spend(made, 10 * PER_MESSAGE + 5, sent=5 * BYTES_PER_FRAME)
    with pytest.raises(HTTP2Error):
        spend(made, 1, sent=5 * BYTES_PER_FRAME)


def test_faults_come_back_with_time() -> None:
    """20 a second."""
    clock = Clock()
    made = Budget(clock)
    for _ in range(FAULTS):
        made.blame()
    clock.now += 1
    for _ in range(FAULTS_RATE):
        made.blame()
    with pytest.raises(HTTP2Error):
        made.blame()


def test_no_more_than_200_faults_come_back_at_once() -> None:
    """However long nothing was wrong."""
    clock = Clock()
    made = Budget(clock)
    clock.now += 10_000
    for _ in range(2 * FAULTS):
        made.blame()
    with pytest.raises(HTTP2Error):
        made.blame()


@pytest.mark.parametrize("size", [1000, 16384, 1_000_000])
@pytest.mark.parametrize("updates", [1, 2])
def test_a_client_that_updates_its_windows_with_each_frame_is_never_cut(size: int, updates: int) -> None:
    """For stream and connection, whatever the size of messages, at once or when all has come."""
    owner = with_stream()
    reader = owner.reader
    for _ in range(20_000_000 // size if size > 1000 else 5000):
        for at in range(0, size, 16384):
            piece = min(16384, size - at)
            reader.send_window -= piece
            owner.feed(window_update(0, piece), *[window_update(1, 1)] * (updates - 1))
        reader.budget.delivered += 1


def test_the_figures() -> None:
    """As they are documented."""
    assert (FRAMES, FRAMES_RATE, FAULTS, FAULTS_RATE) == (1000, 100, 200, 20)
    assert (PER_MESSAGE, BYTES_PER_FRAME) == (3, 256)
