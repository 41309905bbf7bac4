"""``framereader.py``: a client's frames, and what it may do (RFC 9113); the ``h2`` package is the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridworker.errors import HTTP2Error
from hybridworker.http2 import wire
from hybridworker.http2.wire import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    NUMBER,
    PADDED,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    window_update,
)
from hybridworker.states import StreamState
from tests.http2.framing import (
    REQUEST,
    FakeOwner,
    block,
    connected,
    data,
    farewells,
    parse,
    priority,
    request,
    reset,
    resets,
)
from tests.http2.framing import settings as settings_frame
from tests.http2.rules import CONNECTION_ERRORS, STREAM_ERRORS, TRAILERS


def fails(owner: FakeOwner, code: int, *segments: bytes) -> None:
    """The segments end the connection with ``code``, which the GOAWAY carries with a reason; nothing more is read."""
    with pytest.raises(HTTP2Error) as caught:
        owner.feed(*segments)
    assert caught.value.code == code
    [(last, sent, reason)] = farewells(owner.reader.goaway(code, str(caught.value)))
    assert (last, sent) == (owner.reader.history.last, code)
    assert reason
    owner.events.clear()
    owner.feed(request(999))
    assert not owner.events


def opened(ended: bool = False, **local: Any) -> FakeOwner:
    """A connection whose stream 1 is open, or, ``ended``, half-closed by the client."""
    owner = connected(**local)
    owner.feed(request(1, ended))
    owner.output()
    return owner


# -- the whole of a connection


def test_a_request_with_a_body() -> None:
    """Fields, two pieces and the end, in order."""
    owner = connected()
    events = owner.feed(request(1, ended=False), data(1, b"abc"), data(1, b"", ended=True))
    assert events == [("request", 1, REQUEST, False, False), ("data", 1, b"abc", False), ("data", 1, b"", True)]
    assert owner.streams[1].state is StreamState.HALF_CLOSED_REMOTE
    owner.reader.end(owner.streams[1])
    assert not owner.reader.streams


def conversation() -> bytes:
    """One of each frame that a client may send."""
    return b"".join(
        [
            PREFACE,
            settings_frame((wire.INITIAL_WINDOW_SIZE, 100)),
            frame(SETTINGS, ACK, 0),
            window_update(0, 1000),
            request(1, ended=False),
            data(1, b"x" * 30),
            frame(DATA, PADDED, 1, b"\x04abcd" + bytes(4)),
            frame(PING, 0, 0, b"12345678"),
            frame(HEADERS, END_STREAM, 3, block()[:2]) + frame(CONTINUATION, END_HEADERS, 3, block()[2:]),
            priority(5),
            window_update(1, 7),
            wire.section(1, block(TRAILERS), END_STREAM, 16384),
            frame(
                HEADERS, END_HEADERS | END_STREAM | PADDED | WITH_PRIORITY, 5, b"\x02" + bytes(5) + block() + bytes(2)
            ),
            reset(3),
            frame(99, 255, 7, b"whatever"),
            frame(PING, ACK, 0, b"87654321"),
            frame(GOAWAY, 0, 0, bytes(8) + b"bye"),
        ]
    )


def joined(events: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Events, with the pieces of a body as one."""
    result: list[tuple[Any, ...]] = []
    for event in events:
        if event[0] == "data" and result and result[-1][:2] == event[:2]:
            event = ("data", event[1], result.pop()[2] + event[2], event[3])
        result.append(event)
    return result


WHOLE = [
    ("window", None),
    ("window", None),
    ("request", 1, REQUEST, False, False),
    ("data", 1, b"x" * 30 + b"abcd", False),
    ("request", 3, REQUEST, True, False),
    ("window", 1),
    ("data", 1, b"", True),
    ("request", 5, REQUEST, True, False),
    ("reset", 3, wire.CANCEL),
    ("pong", b"87654321"),
    ("goaway", 0),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9, 10, 13, 24, 50, 1000])
def test_every_frame_however_the_bytes_are_cut(size: int) -> None:
    """Byte by byte, and in pieces that end anywhere: the same events, answers, windows."""
    whole = conversation()
    owner = FakeOwner()
    events = owner.feed(*(whole[at : at + size] for at in range(0, len(whole), size)))
    expected = [event for event in WHOLE if event != WHOLE[0]]
    assert joined(event for event in events if event != ("window", None)) == joined(
        event for event in expected if event != ("window", None)
    )
    assert [(kind, flags) for kind, flags, _, _ in parse(owner.sent)] == [(SETTINGS, ACK), (PING, ACK)]
    assert owner.reader.window == 65535 - 30 - 9
    assert owner.reader.send_window == 65535 + 1000
    assert owner.streams[1].send_window == 107
    assert owner.streams[1].window == 65535 - 30 - 9
    assert owner.reader.waiting_since is None


@settings(deadline=None, max_examples=100, derandomize=True, database=None)
@given(cuts=st.lists(st.integers(0, len(conversation())), max_size=12))
def test_every_frame_cut_at_random(cuts: list[int]) -> None:
    """As above."""
    whole = conversation()
    places = [0, *sorted(cuts), len(whole)]
    one, other = FakeOwner(), FakeOwner()
    assert joined(one.feed(*(whole[a:b] for a, b in itertools.pairwise(places)))) == joined(other.feed(whole))
    assert one.sent == other.sent


# -- RFC 9113 3: the preface


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\n",
        b"X",
        PREFACE[:-1] + b"X",
        PREFACE + frame(PING, 0, 0, bytes(8)),
        PREFACE + frame(SETTINGS, ACK, 0),
        PREFACE + request(1),
    ],
    ids=["HTTP/1.1", "one byte", "the last byte", "PING first", "an ACK first", "HEADERS first"],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_rfc9113_3_4_the_preface(start: bytes, size: int) -> None:
    """Anything else is a PROTOCOL_ERROR at its first wrong byte, and so is a first frame that is no SETTINGS."""
    fails(FakeOwner(), PROTOCOL_ERROR, *(start[at : at + size] for at in range(0, len(start), size)))


def test_rfc9113_3_4_half_a_preface_waits() -> None:
    """Since when is known, and further bytes do not make it younger."""
    owner = FakeOwner()
    owner.now += 5
    owner.feed(PREFACE[:10])
    owner.now += 5
    owner.feed(PREFACE[10:20])
    assert owner.reader.waiting_since == 1000.0
    assert not owner.reader.ready
    owner.feed(PREFACE[20:], frame(SETTINGS, 0, 0))
    assert owner.reader.waiting_since is None
    assert owner.reader.ready


# -- RFC 9113 4: frames


def _fed(owner: FakeOwner, *segments: bytes) -> FakeOwner:
    owner.feed(*segments)
    return owner


@pytest.mark.parametrize("size", [1, 100_000], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("rule", CONNECTION_ERRORS)
def test_rfc9113_connection_errors(rule: str, size: int) -> None:
    """What no connection survives (5.4.1)."""
    options, first, sent, code = CONNECTION_ERRORS[rule]
    if size == 1 and len(sent) > 2000:
        size = 1000
    fails(_fed(connected(**options), first), code, *(sent[at : at + size] for at in range(0, len(sent), size)))


@pytest.mark.parametrize("size", [1, 100_000], ids=["byte by byte", "whole"])
@pytest.mark.parametrize("rule", STREAM_ERRORS)
def test_rfc9113_stream_errors(rule: str, size: int) -> None:
    """One RST_STREAM, and the next request is served (5.4.2); the table of HPACK has gone on."""
    options, first, sent, code = STREAM_ERRORS[rule]
    owner = _fed(connected(**options), first)
    owner.output()
    owner.events.clear()
    events = owner.feed(*(sent[at : at + size] for at in range(0, len(sent), size)))
    assert ("violation", 1, code) in events
    assert resets(owner.output()) == [(1, code)]
    assert 1 not in owner.reader.streams
    if 1 in owner.streams:
        assert owner.streams[1].state in (StreamState.RESET_SENT, StreamState.RESET_RECEIVED)
    assert owner.feed(request(3)) == [("request", 3, REQUEST, True, False)]


#: Frames that are legal, or ignored, and change nothing.
HARMLESS: dict[str, tuple[Callable[[], FakeOwner], bytes]] = {
    "4.1 undefined flags": (opened, frame(PING, 0xFE & ~ACK, 0, bytes(8))),
    "4.1 the reserved bit": (opened, frame(PING, 0, 2**31, bytes(8))),
    "5.1 closed: WINDOW_UPDATE": (lambda: _closed(opened(True)), window_update(1, 1)),
    "5.1 closed: RST_STREAM": (lambda: _closed(opened(True)), reset(1)),
    "5.1 closed: PRIORITY": (lambda: _closed(opened(True)), priority(1)),
    "5.1 reset by us: DATA": (lambda: _reset(opened()), data(1, b"x" * 100)),
    "5.1 reset by us: trailers": (lambda: _reset(opened()), wire.section(1, block(TRAILERS), END_STREAM, 16384)),
    "5.1 reset by us: RST_STREAM": (lambda: _reset(opened()), reset(1)),
    "5.1 idle: PRIORITY": (connected, priority(7)),
    "5.5 an unknown frame": (opened, frame(99, 255, 1, b"x" * 100)),
    "5.5 an unknown frame on an idle stream": (connected, frame(10, 0, 77, b"x")),
    "6.5 no parameters": (opened, frame(SETTINGS, 0, 0)),
    "6.5 an ACK that nobody waits for": (opened, frame(SETTINGS, ACK, 0)),
    "6.5.2 unknown parameters": (opened, settings_frame((99, 1), (0, 2**32 - 1))),
    "6.5.2 no push": (opened, settings_frame((2, 0))),
}


def _closed(owner: FakeOwner) -> FakeOwner:
    owner.reader.end(owner.streams[1])
    return owner


def _reset(owner: FakeOwner) -> FakeOwner:
    owner.reader.reset(1, wire.INTERNAL_ERROR)
    return owner


@pytest.mark.parametrize("rule", HARMLESS)
def test_rfc9113_what_is_ignored(rule: str) -> None:
    """Nothing but an acknowledgement is sent, and nobody is told of it."""
    make, sent = HARMLESS[rule]
    owner = make()
    owner.output()
    owner.events.clear()
    assert owner.feed(sent) == []
    assert all(flags == ACK and kind in (SETTINGS, PING) for kind, flags, _, _ in parse(owner.output()))
    assert owner.feed(request(9)) == [("request", 9, REQUEST, True, False)]


# -- RFC 9113 5.1.2: how many streams


def test_rfc9113_5_1_2_more_streams_than_allowed() -> None:
    """Each is refused by itself, those that are open go on, and the table of HPACK as well."""
    owner = connected(max_streams=2)
    owner.feed(request(1, ended=False), request(3))
    assert owner.feed(request(5), request(7)) == [("violation", 5, REFUSED_STREAM), ("violation", 7, REFUSED_STREAM)]
    assert resets(owner.output()) == [(5, REFUSED_STREAM), (7, REFUSED_STREAM)]
    owner.reader.end(owner.streams[3])
    assert owner.feed(data(1, b"x"), request(9))[-1][:2] == ("request", 9)


def test_rfc9113_6_4_a_reset_of_stream_0_behind_a_goaway() -> None:
    """HAProxy sends it for a request that the GOAWAY has overtaken. Without a GOAWAY it is an error, as 6.4 says."""
    owner = connected()
    owner.feed(request(1))
    owner.reader.leaving = True
    assert owner.feed(reset(0)) == []
    assert list(owner.reader.streams) == [1]
    with pytest.raises(HTTP2Error, match="too many"):
        owner.feed(reset(0) * 1000)


def test_as_many_resets_are_remembered_as_streams_may_be_open() -> None:
    """All of them may be reset in one moment, while their clients are sending (RFC 9113 5.1)."""
    owner = connected(max_streams=300)
    owner.feed(*(request(on, ended=False) for on in range(1, 601, 2)))
    for on in range(1, 601, 2):
        owner.reader.reset(on, wire.NO_ERROR)
    assert owner.feed(*(data(on, b"x") for on in range(1, 601, 2))) == []
    assert not owner.reader.over


def test_rfc9113_6_9_no_update_of_nothing() -> None:
    """A client has to take a WINDOW_UPDATE of 0 for an error."""
    owner = connected(window=0)
    owner.feed(frame(SETTINGS, ACK, 0), request(1, ended=False), data(1))
    owner.reader.credit(owner.streams[1], 0)
    assert owner.output() == b""


# -- RFC 9113 5.2, 6.9: windows


def test_rfc9113_5_2_padding_counts() -> None:
    """The whole payload is taken from both windows; the padding of it is given back at once."""
    owner = opened()
    padded = frame(DATA, PADDED, 1, b"\xff" + b"x" + bytes(255))
    owner.feed(padded)
    stream = owner.streams[1]
    assert owner.reader.window == 65535 - 257
    assert (stream.window, stream.owed) == (65535 - 257, 256)
    for _ in range(150):
        owner.feed(padded)
    credit = sum(NUMBER.unpack(payload)[0] for kind, _, on, payload in parse(owner.output()) if on == 1)
    assert credit + stream.owed == 151 * 256


def test_rfc9113_6_9_the_connection_is_given_back_at_once() -> None:
    """In halves of its window, whether anybody reads, and also for what is dropped."""
    owner = opened(window=2**20)
    update = window_update(0, 2**19)
    owner.feed(data(1, bytes(16384)) * 31)
    assert update not in owner.output()
    owner.feed(data(1, bytes(16384)))
    assert owner.output() == update
    owner.reader.reset(1, wire.NO_ERROR)
    owner.output()
    owner.feed(data(1, bytes(16384)) * 32)
    assert owner.output() == update
    assert owner.reader.window == 2**20


def test_rfc9113_6_9_a_stream_is_given_back_as_it_is_read() -> None:
    """In halves of its window; at once when it is empty; not behind END_STREAM."""
    owner = _fed(opened(window=1000), frame(SETTINGS, ACK, 0))
    stream = owner.streams[1]
    owner.feed(data(1, bytes(600)))
    owner.reader.credit(stream, 499)
    assert owner.output() == b""
    owner.reader.credit(stream, 1)
    assert owner.output() == window_update(1, 500)
    assert stream.window == 900
    owner.feed(data(1, bytes(900)))
    owner.reader.credit(stream, 10)
    assert owner.output() == window_update(1, 10)
    owner.feed(data(1, bytes(10), ended=True))
    owner.reader.credit(stream, 900)
    assert owner.output() == b""


@pytest.mark.parametrize("window", [0, 1, 100, 65535])
def test_rfc9113_6_5_3_our_window_holds_from_the_acknowledgement_on(window: int) -> None:
    """Until then the client may send what is the default; afterwards new and old streams have ours."""
    owner = opened(window=window)
    owner.feed(data(1, bytes(200)))
    assert owner.streams[1].window == 65535 - 200
    owner.feed(frame(SETTINGS, ACK, 0), request(3, ended=False))
    assert owner.streams[1].window == window - 200
    assert owner.streams[3].window == window
    assert not resets(owner.output())


def test_rfc9113_6_9_2_a_wider_window_needs_no_acknowledgement() -> None:
    """It is ours to give."""
    assert opened(window=2**20).streams[1].window == 2**20


def test_rfc9113_6_9_2_settings_change_the_windows_there_are() -> None:
    """Below zero too; and the owner hears of it when there is more."""
    owner = opened()
    stream = owner.streams[1]
    stream.send_window -= 60000
    assert owner.feed(settings_frame((4, 1000))) == []
    assert stream.send_window == 1000 - 60000
    assert owner.feed(settings_frame((4, 70000), (4, 61000))) == [("window", None)]
    assert stream.send_window == 1000
    assert owner.reader.send_window == 65535
    owner.feed(request(3))
    assert owner.streams[3].send_window == 61000


def test_rfc9113_6_9_the_windows_of_the_other_side() -> None:
    """Each update is told, for the stream or for all."""
    owner = opened()
    assert owner.feed(window_update(0, 5), window_update(1, 6)) == [("window", None), ("window", 1)]
    assert owner.reader.send_window == 65540
    assert owner.streams[1].send_window == 65541


def test_rfc9113_6_9_1_a_stream_error_of_flow_control_counts_on_the_connection() -> None:
    """The bytes beyond the window of a stream are still taken from the connection."""
    owner = _fed(opened(window=100), frame(SETTINGS, ACK, 0))
    owner.feed(data(1, bytes(10000)))
    assert resets(owner.output()) == [(1, FLOW_CONTROL_ERROR)]
    assert owner.reader.window == 65535 - 10000


# -- DATA as it comes


def test_a_large_frame_is_delivered_as_it_comes() -> None:
    """A frame may be as large as the window: its first bytes wait for none of the others."""
    owner = opened(window=2**24 - 1, max_frame=2**24 - 1)
    sent = data(1, bytes(range(256)) * 4096, ended=True) + request(3)
    events = owner.feed(*(sent[at : at + 50_000] for at in range(0, len(sent), 50_000)))
    pieces = [event for event in events if event[0] == "data"]
    assert len(pieces) > 20
    assert b"".join(piece for _, _, piece, _ in pieces) == bytes(range(256)) * 4096
    assert [ended for *_, ended in pieces] == [False] * (len(pieces) - 1) + [True]
    assert events[-1][:2] == ("request", 3)
    assert owner.reader.waiting_since is None


def test_the_rest_of_a_frame_whose_stream_was_reset() -> None:
    """Is dropped, and the next frame is found."""
    owner = opened()
    sent = data(1, bytes(1000), ended=True) + request(3)
    owner.feed(sent[:500])
    owner.reader.reset(1, wire.CANCEL)
    assert owner.feed(sent[500:700], sent[700:])[0][:2] == ("request", 3)
    assert owner.reader.window == 65535 - 1000


def test_a_large_frame_is_not_copied_again_with_each_piece() -> None:
    """Padded, it has to be whole: that takes time in proportion to its size."""
    owner = opened(window=2**24 - 1, max_frame=2**24 - 1)
    sent = frame(DATA, PADDED, 1, bytes(2**23))
    for at in range(0, len(sent), 16384):
        owner.reader.feed(sent[at : at + 16384])
        assert len(owner.reader.partial.pieces) == (1 + at // 16384) % 513
    assert [event[0] for event in owner.events] == ["data"]


# -- field sections


def test_rfc9113_4_3_a_section_in_pieces() -> None:
    """HEADERS with padding and priority, and CONTINUATION."""
    owner = connected()
    whole = block()
    events = owner.feed(
        frame(
            HEADERS, END_STREAM | PADDED | WITH_PRIORITY, 1, b"\x03" + NUMBER.pack(0) + b"\x10" + whole[:4] + bytes(3)
        ),
        frame(CONTINUATION, 0, 1, whole[4:5]),
        frame(CONTINUATION, 0, 1),
        frame(CONTINUATION, END_HEADERS, 1, whole[5:]),
    )
    assert events == [("request", 1, REQUEST, True, False)]


def test_rfc9113_10_5_1_a_list_beyond_the_limit_is_told() -> None:
    """The owner answers 431; what fits of the list is there, and the streams beside go on."""
    owner = connected(max_list=1000)
    fields = [*REQUEST, *[(b"a%d" % number, b"x" * 60) for number in range(20)]]
    [(_, _, received, ended, oversized)] = owner.feed(request(1, fields=fields))
    assert oversized
    assert ended
    assert received == fields[: len(received)]
    assert REQUEST == received[:4]
    assert owner.feed(request(3)) == [("request", 3, REQUEST, True, False)]


def test_a_section_that_stalls_is_known() -> None:
    """Since its first frame, whatever comes of it meanwhile."""
    owner = connected()
    owner.now += 10
    owner.feed(frame(HEADERS, END_STREAM, 1, block()[:1]))
    for _ in range(3):
        owner.now += 10
        owner.feed(frame(CONTINUATION, 0, 1))
        assert owner.reader.waiting_since == 1010.0
        owner.feed(frame(CONTINUATION, 0, 1) + frame(CONTINUATION, 0, 1)[:5], frame(CONTINUATION, 0, 1)[5:])
        assert owner.reader.waiting_since == 1010.0
    owner.feed(frame(CONTINUATION, END_HEADERS, 1, block()[1:]))
    assert owner.reader.waiting_since is None


def test_a_frame_that_stalls_is_known() -> None:
    """Since its first byte; one that follows upon another is new; DATA is nobody's wait."""
    owner = opened()
    owner.now += 10
    owner.feed(request(3)[:5])
    owner.now += 10
    owner.feed(request(3)[5:11])
    assert owner.reader.waiting_since == 1010.0
    owner.feed(request(3)[11:] + request(5)[:11])
    assert owner.reader.waiting_since == 1020.0
    owner.feed(request(5)[11:] + data(1, b"abcdef")[:12])
    assert owner.reader.waiting_since is None


# -- what is sent


def test_rfc9113_6_5_what_is_announced() -> None:
    """SETTINGS, and WINDOW_UPDATE where the connection has to be wider than at first."""
    local = wire.LocalSettings(max_streams=7, window=2**20, max_frame=20000, max_list=5000, websockets=True)
    [(kind, flags, stream_id, payload), update] = list(parse(local.frames()))
    assert (kind, flags, stream_id) == (SETTINGS, 0, 0)
    values = dict(wire.SETTING.iter_unpack(payload))
    assert values == {3: 7, 4: 2**20, 5: 20000, 6: 5000, 8: 1}
    assert update == (WINDOW_UPDATE, 0, 0, NUMBER.pack(2**20 - 65535))
    assert len(list(parse(wire.LocalSettings(window=1000).frames()))) == 1


def test_rfc9113_6_10_a_long_section_is_sent_in_pieces() -> None:
    """As large as the client takes them, END_STREAM on the first, END_HEADERS on the last."""
    owner = connected()
    long = bytes(40000)
    sent = list(parse(owner.reader.section(1, long, END_STREAM)))
    assert [(kind, flags, len(payload)) for kind, flags, _, payload in sent] == [
        (HEADERS, END_STREAM, 16384),
        (CONTINUATION, 0, 16384),
        (CONTINUATION, END_HEADERS, 7232),
    ]
    assert b"".join(payload for *_, payload in sent) == long
    owner.feed(settings_frame((5, 50000)))
    assert [len(payload) for *_, payload in parse(owner.reader.section(1, long, END_STREAM))] == [40000]


@pytest.mark.parametrize(
    ("sizes", "prefix"), [([4096], b""), ([65536], b""), ([100], b"\x20"), ([0, 4096], b"\x20")], ids=str
)
def test_rfc7541_4_2_a_smaller_table_is_answered_once(sizes: list[int], prefix: bytes) -> None:
    """One size update in front of the next section, also if the client has changed its mind meanwhile."""
    owner = connected()
    owner.feed(settings_frame(*((1, size) for size in sizes)))
    assert owner.reader.section(1, b"\x88", 0)[9:] == prefix + b"\x88"
    assert owner.reader.section(1, b"\x88", 0)[9:] == b"\x88"


def test_rfc9113_6_7_a_ping_is_answered() -> None:
    """With its own payload; the answer to ours is told."""
    owner = connected()
    assert owner.feed(frame(PING, 0, 0, b"abcdefgh"), frame(PING, ACK, 0, b"goodbye!")) == [("pong", b"goodbye!")]
    assert list(parse(owner.output())) == [(PING, ACK, 0, b"abcdefgh")]


def test_rfc9113_6_8_what_is_opened_behind_the_last_goaway() -> None:
    """Is dropped with its DATA; windows and tables go on, and what was opened before is served."""
    owner = opened()
    assert farewells(owner.reader.goaway()) == [(1, 0, "")]
    assert owner.feed(request(3, ended=False), data(3, bytes(100)), window_update(3, 5), reset(3)) == []
    assert owner.reader.window == 65535 - 100
    assert owner.feed(data(1, b"x", ended=True)) == [("data", 1, b"x", True)]
    assert owner.output() == b""
    assert farewells(owner.reader.goaway(PROTOCOL_ERROR, "no")) == [(1, PROTOCOL_ERROR, "no")]


def test_rfc9113_6_8_the_goaway_of_the_client() -> None:
    """It is told with its code."""
    assert connected().feed(frame(GOAWAY, 0, 0, NUMBER.pack(0) + NUMBER.pack(11) + b"calm")) == [("goaway", 11)]


def test_nothing_is_read_when_it_is_over() -> None:
    """The owner may end it amid a read, and nothing behind it is looked at."""
    owner = connected()

    def stop(payload: bytes) -> None:
        owner.reader.over = True

    owner.on_ping_ack = stop  # type: ignore[method-assign]
    assert owner.feed(frame(PING, ACK, 0, bytes(8)) + request(1), request(3)) == []


# -- against the oracle

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.booleans(), st.integers(0, 3)),
        st.tuples(st.just("data"), st.integers(0, 9), st.integers(0, 20000), st.booleans(), st.integers(0, 255)),
        st.tuples(st.just("reset"), st.integers(0, 9)),
        st.tuples(st.just("ping")),
        st.tuples(st.just("answer"), st.integers(0, 9), st.integers(0, 16384), st.booleans()),
        st.tuples(st.just("settings"), st.integers(0, 5000), st.integers(16384, 60000), st.integers(0, 100_000)),
        st.tuples(st.just("update"), st.integers(0, 10), st.integers(1, 5000)),
        st.tuples(st.just("trailers"), st.integers(0, 9)),
    ),
    min_size=1,
    max_size=60,
)


class Oracle:
    """A client by the ``h2`` package, and a reader whose answers it checks."""

    def __init__(self) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self.client = h2.connection.H2Connection(config)
        self.client.initiate_connection()
        self.owner = FakeOwner()
        self.expected: list[tuple[Any, ...]] = []
        self.sending: list[int] = []  #: streams that the client has not ended
        self.answering: list[int] = []  #: streams that have not been answered
        self.owner.sent = self.owner.reader.local.frames()
        self.exchange()

    def exchange(self) -> None:
        """Let both read what the other has sent, until nobody has more to say."""
        while True:
            there, back = self.client.data_to_send(), self.owner.output()
            if not there and not back:
                return
            self.owner.reader.feed(there)
            for event in self.client.receive_data(back):  # which raises if anything of it is wrong
                assert not isinstance(event, h2.events.ConnectionTerminated | h2.events.StreamReset), event

    def act(self, action: tuple[Any, ...]) -> None:
        kind, *values = action
        if kind == "open" and len(self.owner.reader.streams) < 90:
            ended, extra = values
            stream_id = self.client.get_next_available_stream_id()
            fields = [*REQUEST, *[(b"x-%d" % number, b"v%d" % stream_id) for number in range(extra)]]
            self.client.send_headers(stream_id, fields, end_stream=ended)
            self.expected.append(("request", stream_id, fields, ended, False))
            self.answering.append(stream_id)
            if not ended:
                self.sending.append(stream_id)
        elif kind == "data" and self.sending:
            self.send_data(self.sending[values[0] % len(self.sending)], *values[1:])
        elif kind == "trailers" and self.sending:
            stream_id = self.sending.pop(values[0] % len(self.sending))
            self.client.send_headers(stream_id, TRAILERS, end_stream=True)
            self.expected.append(("data", stream_id, b"", True))
        elif kind == "reset" and self.answering:
            stream_id = self.answering.pop(values[0] % len(self.answering))
            self.client.reset_stream(stream_id, 8)
            self.expected.append(("reset", stream_id, 8))
            if stream_id in self.sending:
                self.sending.remove(stream_id)
        elif kind == "ping":
            self.client.ping(b"12345678")
        elif kind == "answer" and self.answering:
            self.answer(self.answering[values[0] % len(self.answering)], *values[1:])
        elif kind == "settings":
            codes = h2.settings.SettingCodes
            keys = (codes.HEADER_TABLE_SIZE, codes.MAX_FRAME_SIZE, codes.INITIAL_WINDOW_SIZE)
            self.client.update_settings(dict(zip(keys, values, strict=True)))
        elif kind == "update":
            where, size = values
            self.client.increment_flow_control_window(
                size, None if not where or not self.answering else self.answering[0]
            )
        self.exchange()

    def send_data(self, stream_id: int, size: int, ended: bool, padding: int) -> None:
        room = min(self.client.local_flow_control_window(stream_id), 16384) - padding - 1
        if room < 0:
            return
        body = bytes(min(size, room))
        self.client.send_data(stream_id, body, end_stream=ended, pad_length=padding or None)
        self.expected.append(("data", stream_id, body, ended))
        if ended:
            self.sending.remove(stream_id)
        self.exchange()
        self.owner.reader.credit(self.owner.streams[stream_id], len(body))

    def answer(self, stream_id: int, size: int, ended: bool) -> None:
        """As an outbox does it, with a head before each piece that is legal: interim ones and the end."""
        reader, stream = self.owner.reader, self.owner.streams[stream_id]
        assert self.client.remote_flow_control_window(stream_id) == min(stream.send_window, reader.send_window)
        if not ended:
            self.owner.write(reader.section(stream_id, block([(b":status", b"103")]), 0))
            return
        size = max(0, min(size, stream.send_window, reader.send_window, reader.peer_frame))
        self.owner.write(reader.section(stream_id, block([(b":status", b"200"), (b"x", b"y")]), 0))
        self.owner.write(data(stream_id, bytes(size), ended=True))
        stream.send_window -= size
        reader.send_window -= size
        reader.end(stream)
        reader.budget.delivered += 1
        self.answering.remove(stream_id)

    def check(self) -> None:
        """Both have the same idea of everything."""
        told = [event for event in self.owner.events if event[0] != "window"]
        assert joined(told) == joined(self.expected)
        assert self.owner.reader.streams.keys() == {*self.sending, *self.answering}
        for stream_id in self.sending:
            window = self.client.local_flow_control_window(stream_id)
            assert window == min(self.owner.streams[stream_id].window, self.owner.reader.window)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(ACTIONS)
def test_whole_connections_with_a_client_by_h2(actions: list[tuple[Any, ...]]) -> None:
    """Requests, bodies with padding, trailers, resets, SETTINGS, windows and answers: no error, and the same books."""
    oracle = Oracle()
    for action in actions:
        oracle.act(action)
    oracle.check()
