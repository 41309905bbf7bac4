"""``frames.py``: the bytes of a peer in, messages and answers out; no transport, no loop."""

from __future__ import annotations

import enum
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from hybridworker.errors import InvalidMessage
from hybridworker.states import ReaderState
from hybridworker.websocket import frames
from hybridworker.websocket.frames import HIGH_WATER, MessageReader

MASK = b"\x12\x34\x56\x78"
MIB = 1024 * 1024
CLOSED, FAILED = ReaderState.CLOSED, ReaderState.FAILED
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
OFFER = b"permessage-deflate; client_max_window_bits"


def mask(payload: bytes) -> bytes:
    return bytes(byte ^ key for byte, key in zip(payload, itertools.cycle(MASK), strict=False))


def frame(opcode: int, payload: bytes = b"", bits: int = FIN, masked: bool = True) -> bytes:
    """A frame as a client sends it."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((bits | opcode, bit | size))
    elif size < 65536:
        head = bytes((bits | opcode, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((bits | opcode, bit | 127)) + size.to_bytes(8, "big")
    return head + (MASK + mask(payload) if masked else payload)


def parse(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames of a server: first byte and payload."""
    while data:
        first, size, start = data[0], data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        yield first, data[start : start + size]
        data = data[start + size :]


def reader(max_size: int | None = MIB, offer: bytes | None = None) -> MessageReader:
    made = MessageReader(max_size)
    if offer is not None:
        assert made.negotiate([offer])
    return made


def take(made: MessageReader) -> list[str | bytes]:
    """The payloads of the messages so far, which are consumed as an application would."""
    taken = []
    while not made.idle:
        message = made.take()
        assert message.pop("type") == "websocket.receive"
        [(key, value)] = message.items()  # exactly one of text and bytes
        assert type(value) is (str if key == "text" else bytes)
        taken.append(value)
    return taken


def run(made: MessageReader, segments: Iterable[bytes]) -> tuple[list[str | bytes], bytes]:
    """Feed segments to a reader; returns the messages and what is sent in answer."""
    messages: list[str | bytes] = []
    output = b""
    for segment in segments:
        answered = made.feed(segment)
        full = True
        while full:
            full = made.full
            messages += take(made)
            if full:
                answered |= made.resume()
        if answered:
            output += made.output()
    return messages, output


def closing(output: bytes) -> tuple[int, str]:
    """Code and reason of the close frame at the end of ``output``."""
    *_, (first, payload) = parse(output)
    assert first == FIN | CLOSE
    return int.from_bytes(payload[:2], "big"), payload[2:].decode()


def deflate(payload: bytes, compressor: Any = None) -> bytes:
    compressor = compressor or zlib.compressobj(wbits=-12)
    data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


# -- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 300_000])
def test_w10_text_and_binary_of_every_length(size: int) -> None:
    """A text message is a str, a binary one bytes, whichever of the three lengths its frame has."""
    text, data = "x" * size, bytes(size)
    messages, output = run(reader(), [frame(TEXT, text.encode()) + frame(BINARY, data)])
    assert messages == [text, data]
    assert output == b""


def test_w11_fragments_are_joined_and_control_frames_amid_them_answered() -> None:
    """RFC 6455 5.4."""
    made = reader()
    stream = [
        frame(TEXT, b"one ", 0),
        frame(PING, b"a"),
        frame(CONT, b"", 0),
        frame(CONT, b"two ", 0),
        frame(PONG, b"b"),
        frame(CONT, b"three"),
        frame(TEXT, b"four"),
    ]
    messages, output = run(made, [b"".join(stream)])
    assert messages == ["one two three", "four"]
    assert list(parse(output)) == [(FIN | PONG, b"a")]


def test_w12_pings_are_answered_and_pongs_are_not() -> None:
    """With the payload of the ping, and in order; no message comes of either."""
    messages, output = run(reader(), [frame(PING, b"x" * 125) + frame(PONG, b"y") + frame(PING)])
    assert messages == []
    assert list(parse(output)) == [(FIN | PONG, b"x" * 125), (FIN | PONG, b"")]


def test_a_character_may_be_cut_by_fragments() -> None:
    """UTF-8 is checked over the whole message, not for each fragment."""
    euro = "€".encode()
    messages, _ = run(reader(), [frame(TEXT, euro[:1], 0) + frame(CONT, euro[1:2], 0) + frame(CONT, euro[2:])])
    assert messages == ["€"]


# -- violations


VIOLATIONS = {
    "bad UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "UTF-8 that ends too early": (frame(TEXT, "€".encode()[:2]), 1007),
    "a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a first fragment": (frame(TEXT, b"ok\xff", 0), 1007),
    "bad UTF-8 in a later fragment": (frame(TEXT, b"ok", 0) + frame(CONT, b"\xff", 0), 1007),
    "fragmented UTF-8 that ends too early": (frame(TEXT, b"ok", 0) + frame(CONT, b"\xe2\x82"), 1007),
    "RSV1 where it means nothing": (frame(TEXT, b"\xff", FIN | RSV1), 1002),
    "RSV2": (frame(TEXT, b"x", FIN | RSV2), 1002),
    "RSV3": (frame(BINARY, b"x", FIN | RSV3), 1002),
    "RSV1 in a ping": (frame(PING, b"x", FIN | RSV1), 1002),
    "an unmasked message": (frame(TEXT, b"x", masked=False), 1002),
    "an unmasked ping": (frame(PING, b"x", masked=False), 1002),
    "a fragmented ping": (frame(PING, b"x", 0), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a close frame of 126 bytes": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "a continuation of nothing": (frame(CONT, b"x"), 1002),
    "a first fragment of a continuation of nothing": (frame(CONT, b"x", 0), 1002),
    "a continuation of a finished message": (frame(TEXT, b"x", 0) + frame(CONT) + frame(CONT, b"x"), 1002),
    "a message amid another": (frame(TEXT, b"x", 0) + frame(TEXT, b"y"), 1002),
    "a fragmented message amid another": (frame(TEXT, b"x", 0) + frame(BINARY, b"y", 0), 1002),
    "a close frame of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close reason that is not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    **{f"opcode {code}": (frame(code, b"x"), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{
        f"close code {code}": (frame(CLOSE, code.to_bytes(2, "big")), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
@pytest.mark.parametrize("what", VIOLATIONS)
def test_w23_violations_have_their_codes(what: str, compressed: bool) -> None:
    """
    Bad UTF-8 is 1007, what breaks the protocol 1002; what came before is delivered, what comes after is not read.

    The same whether the stream comes whole or byte by byte.
    """
    data, code = VIOLATIONS[what]
    stream = frame(TEXT, b"before") + data + frame(TEXT, b"after")
    for segments in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        made = reader(offer=OFFER if compressed else None)
        messages, output = run(made, segments)
        assert messages[0] == "before"
        assert "after" not in messages
        assert closing(output)[0] == code
        assert made.state is FAILED
        assert made.ending[0] == code
        assert not made.feed(frame(TEXT, b"later still"))
        assert take(made) == []


def test_w23_bad_utf8_is_found_before_the_message_is_complete() -> None:
    """RFC 6455 8.1: the connection fails with the first fragment that is not UTF-8."""
    made = reader()
    assert made.feed(frame(TEXT, b"good", 0) + frame(CONT, b"\xff", 0))
    assert closing(made.output())[0] == 1007


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999])
def test_w16_a_close_frame_is_echoed(code: int) -> None:
    """RFC 6455 5.5.1. The application is told its code and reason."""
    made = reader()
    payload = code.to_bytes(2, "big") + "grüße".encode()
    messages, output = run(made, [frame(TEXT, b"x") + frame(CLOSE, payload) + frame(TEXT, b"late")])
    assert messages == ["x"]
    assert list(parse(output)) == [(FIN | CLOSE, payload)]
    assert made.state is CLOSED
    assert made.ending == (code, "grüße")


def test_w16_a_close_frame_without_code_is_1005() -> None:
    """RFC 6455 7.1.5: a number for the application, never sent."""
    made = reader()
    _, output = run(made, [frame(CLOSE)])
    assert list(parse(output)) == [(FIN | CLOSE, b"")]
    assert made.ending == (1005, "")


@pytest.mark.parametrize(
    "first",
    [frame(TEXT, b"begun", 0), frame(TEXT, deflate(b"begun"), RSV1), frame(TEXT, b"\x00\x01", RSV1)],
    ids=["plain", "deflate", "amid a block"],
)
def test_a_close_frame_amid_a_fragmented_message_is_echoed(first: bytes) -> None:
    """RFC 6455 5.4: control frames may stand there; the message that will not be finished is dropped."""
    made = reader(offer=OFFER)
    messages, output = run(made, [first, frame(CLOSE, b"\x03\xe8")])
    assert messages == []
    assert list(parse(output)) == [(FIN | CLOSE, b"\x03\xe8")]
    assert made.ending == (1000, "")


def test_an_end_without_any_close_frame_is_1006() -> None:
    """As the application is told when the connection is lost."""
    assert reader().ending == (1006, "")


# -- frames that come in pieces


@pytest.mark.parametrize("kind", [TEXT, BINARY])
@pytest.mark.parametrize("step", [1, 2, 3, 5, 1000, 4099])
def test_a_long_frame_is_unmasked_piece_by_piece(kind: int, step: int) -> None:
    """Wherever the pieces are cut, with frames before and behind, and without a copy of the whole frame."""
    payload = "".join(f"{number:x} € " for number in range(1500)).encode()
    stream = frame(PING, b"1") + frame(kind, payload) + frame(kind, b"next")
    made = reader()
    messages, output = run(made, [stream[at : at + step] for at in range(0, len(stream), step)])
    assert messages == ([payload.decode(), "next"] if kind == TEXT else [payload, b"next"])
    assert list(parse(output)) == [(FIN | PONG, b"1")]
    assert (made.rest, made.parts.tell()) == (b"", 0)


def test_bad_utf8_is_found_before_its_frame_is_complete() -> None:
    """RFC 6455 8.1: what is missing of the frame need not come."""
    made = reader()
    data = frame(TEXT, b"good \xff" + bytes(1000))
    assert not made.feed(data[:10])
    assert made.feed(data[10:20])
    assert closing(made.output())[0] == 1007


@pytest.mark.parametrize("what", [key for key in VIOLATIONS if key.startswith(("RSV", "an unm", "opcode", "a cont"))])
def test_a_head_that_is_wrong_needs_no_payload(what: str) -> None:
    """A frame that nobody may send is refused when its first two bytes have come."""
    data, code = VIOLATIONS[what]
    made = reader()
    before = data[:-7] if what == "a continuation of a finished message" else b""
    made.feed(before)
    assert made.feed(data[len(before) :][:2])
    assert closing(made.output())[0] == code


def test_a_frame_that_came_in_part_is_dropped_after_close() -> None:
    """Nothing of the message is kept, and the close frame behind it is found."""
    made = reader()
    data = frame(BINARY, bytes(1000))
    made.feed(data[:500])
    made.close(1000, "")
    assert made.parts.tell() == 0
    assert not made.feed(data[500:800])
    assert made.feed(data[800:] + frame(CLOSE, b"\x03\xe8"))
    assert made.state is CLOSED
    assert take(made) == []


# -- the application's turn


def test_a_full_reader_reads_on_when_all_is_taken() -> None:
    """Not while there are messages, and not of itself."""
    made = reader()
    assert (made.idle, made.full) == (True, False)
    made.feed(frame(BINARY, bytes(40_000)) * 3)
    assert (made.idle, made.full) == (False, True)
    made.resume()
    assert len(made.messages) == 2
    made.take()
    made.resume()
    assert (made.idle, made.full, len(made.messages)) == (False, True, 1)
    made.take()
    assert (made.idle, made.full) == (True, False)
    made.resume()
    assert (made.idle, made.full, len(made.messages)) == (False, False, 1)


def test_a_closing_reader_waits_for_no_application() -> None:
    """Messages that nobody takes do not keep the close frame from being found."""
    made = reader()
    made.feed(frame(BINARY, bytes(40_000)) * 3 + frame(CLOSE, b"\x03\xe8"))
    assert made.full
    made.close(1000, "")
    assert made.resume()
    assert (made.state, made.full) == (CLOSED, False)
    assert take(made) == [bytes(40_000)] * 2


# -- limits


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
def test_a_message_of_the_greatest_size_is_taken_and_one_byte_more_is_1009(compressed: bool) -> None:
    """``websocket_max_message_size`` counts what the application would get, whole or in fragments."""
    for size, good in ((1000, True), (1001, False)):
        payload = b"x" * size
        compressor = zlib.compressobj(wbits=-12)
        if compressed:
            whole = frame(BINARY, deflate(payload), FIN | RSV1)
            parts = [compressor.compress(payload[:600]) + compressor.flush(zlib.Z_SYNC_FLUSH)]
            fragments = frame(BINARY, parts[0], RSV1) + frame(CONT, deflate(payload[600:], compressor))
        else:
            whole = frame(BINARY, payload)
            fragments = frame(BINARY, payload[:600], 0) + frame(CONT, payload[600:])
        for stream in (whole, fragments):
            made = reader(1000, OFFER if compressed else None)
            messages, output = run(made, [stream])
            if good:
                assert messages == [payload]
            else:
                assert messages == []
                assert closing(output)[0] == 1009


def test_a_frame_that_says_it_is_too_long_is_refused_at_once() -> None:
    """Nothing of it needs to come."""
    made = reader()
    assert made.feed(bytes((FIN | BINARY, 0xFF)) + (1 << 40).to_bytes(8, "big") + MASK)
    assert closing(made.output())[0] == 1009


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
def test_the_limit_is_none_of_a_control_frames_business(compressed: bool, cut: bool) -> None:
    """RFC 6455 5.5: at most 125 bytes, amid a message that has reached the limit and with one below that."""
    ping = frame(PING, b"p" * 125)
    close = frame(CLOSE, b"\x03\xe8" + b"x" * 123)
    parts = [frame(TEXT, b"a" * 100, 0), ping, frame(CONT), frame(TEXT, b"b" * 100, 0), close]
    stream = b"".join(parts)
    made = reader(100, OFFER if compressed else None)
    messages, output = run(made, [stream[at : at + 1] for at in range(len(stream))] if cut else [stream])
    assert messages == ["a" * 100]
    assert list(parse(output)) == [(FIN | PONG, b"p" * 125), (FIN | CLOSE, b"\x03\xe8" + b"x" * 123)]


def test_a_control_frame_that_says_it_is_too_long_is_refused_at_once() -> None:
    """With no limit for messages it could be of any length."""
    for opcode in (CLOSE, PING, PONG):
        made = reader(None)
        assert made.feed(bytes((FIN | opcode, 0xFF)) + (1 << 40).to_bytes(8, "big") + MASK)
        assert closing(made.output())[0] == 1002


def test_no_limit() -> None:
    """``websocket_max_message_size`` 0."""
    data = bytes(3 * MIB)
    assert run(reader(None), [frame(BINARY, data)])[0] == [data]
    assert run(reader(None, OFFER), [frame(BINARY, deflate(data), FIN | RSV1)])[0] == [data]


class Counting:
    """A decompressor that counts what it makes."""

    def __init__(self, wbits: int, zdict: bytes = b"") -> None:
        self.inner = zlib.decompressobj(wbits, zdict)
        self.made = 0

    @property
    def eof(self) -> bool:
        return self.inner.eof

    @property
    def unused_data(self) -> bytes:
        return self.inner.unused_data

    def decompress(self, data: bytes, limit: int) -> bytes:
        out = self.inner.decompress(data, limit)
        self.made += len(out)
        return out


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "in fragments"])
def test_a_decompression_bomb_is_1009_and_never_inflated(cut: bool) -> None:
    """At most one byte more than ``websocket_max_message_size`` is made of it."""
    bomb = deflate(bytes(200 * MIB), zlib.compressobj(9, wbits=-15))
    made = reader(MIB, b"permessage-deflate")
    assert made.deflate is not None
    made.deflate.inflater = counting = Counting(-15)  # type: ignore[assignment]  # it has what is needed
    if cut:
        stream = frame(BINARY, bomb[:1000], RSV1) + frame(CONT, bomb[1000:])
    else:
        stream = frame(BINARY, bomb, FIN | RSV1)
    messages, output = run(made, [stream])
    assert messages == []
    assert closing(output)[0] == 1009
    assert counting.made <= MIB + 1


def test_w24_the_queue_is_bounded_by_bytes() -> None:
    """What does not fit stays unread, and comes when the queue is emptied."""
    made = reader()
    payload = b"x" * 10_000
    made.feed(frame(BINARY, payload) * 30)
    assert len(made.messages) == 7
    assert made.buffered > HIGH_WATER
    assert len(made.rest) == 23 * len(frame(BINARY, payload))
    messages = take(made)
    while made.rest:
        made.feed(b"")
        messages += take(made)
    assert messages == [payload] * 30


def test_w24_the_queue_is_bounded_by_number() -> None:
    """Empty messages take memory, too."""
    made = reader()
    made.feed(frame(BINARY) * 10_000)
    assert len(made.messages) == HIGH_WATER // frames.OVERHEAD + 1
    assert len(run(made, [b""])[0]) == 10_000 - 0


def test_w24_a_bomb_of_small_frames_is_bounded() -> None:
    """What counts is what a message is inflated to."""
    made = reader(MIB, OFFER)
    made.feed(frame(BINARY, deflate(bytes(MIB)), FIN | RSV1) * 50)
    assert len(made.messages) == 1


def test_frames_without_a_message_count_as_well() -> None:
    """A flood of pings gives others their turn."""
    made = reader()
    made.feed(frame(PING) * 10_000)
    assert made.buffered > HIGH_WATER
    assert len(made.rest) > 8_000 * len(frame(PING))
    assert len(list(parse(made.output()))) == HIGH_WATER // frames.OVERHEAD + 1


def drain(made: MessageReader) -> bool:
    """Let a closing reader look at everything that has come; returns what ``resume`` did."""
    answered = False
    while made.full and not made.over:
        answered |= made.resume()
    return answered


def test_a_closing_reader_keeps_nothing() -> None:
    """After ``close`` no message comes of anything and no answer, and the close frame is still found."""
    made = reader()
    made.feed(frame(TEXT, b"kept"))
    made.close(1000, "")
    made.feed(frame(BINARY, bytes(10_000)) * 100 + frame(TEXT, b"\xff") + frame(PING) * 5_000 + frame(PONG) * 5_000)
    assert not drain(made)
    assert made.output() == b""
    assert made.feed(frame(CLOSE, b"\x03\xe8"))
    assert made.output() == b""
    assert take(made) == ["kept"]
    assert made.state is CLOSED
    assert made.ending == (1000, "")


@pytest.mark.parametrize("begun", [False, True], ids=["whole", "amid a frame"])
@pytest.mark.parametrize("fragmented", [False, True], ids=["message", "fragment"])
def test_a_closing_reader_inflates_nothing(fragmented: bool, begun: bool) -> None:
    """Else a client could hold the loop for as long as it likes. Of a frame that has begun the rest is dropped."""
    made = reader(MIB, OFFER)
    bomb = deflate(bytes(MIB), zlib.compressobj(9, wbits=-12))
    first = frame(BINARY, bomb, RSV1 if fragmented else FIN | RSV1)
    assert made.deflate is not None
    made.deflate.inflater = counting = Counting(-12)  # type: ignore[assignment]  # it has what is needed
    stream = first * 500 + frame(CONT, bomb, 0) * 500 + frame(CONT) + frame(CLOSE, b"\x03\xe8")
    if begun:
        made.feed(stream[:100])
    made.close(1000, "")
    made.feed(stream[100:] if begun else stream)
    drain(made)
    assert counting.made == 0
    assert made.parts.tell() == 0
    assert (made.state, made.ending) == (CLOSED, (1000, ""))


def test_a_closing_reader_drops_the_message_that_has_begun() -> None:
    """It may be large, and its end may not come."""
    made = reader()
    made.feed(frame(TEXT, bytes(100_000), 0))
    assert made.parts.tell() == 100_000
    made.close(1000, "")
    assert made.parts.tell() == 0


def test_a_closing_reader_gives_others_their_turn() -> None:
    """Skipping takes time, too: what was looked at counts."""
    for kind in (CONT, TEXT, BINARY, PING, PONG):
        made = reader()
        made.close(1000, "")
        made.feed(frame(kind) * 10_000)
        assert made.full
        assert len(made.rest) == (10_000 - HIGH_WATER // frames.OVERHEAD - 1) * len(frame(kind))


@pytest.mark.parametrize("data", [frame(3), frame(TEXT, b"x", masked=False), frame(CLOSE, b"\x03"), frame(11, b"x")])
def test_a_closing_reader_still_knows_what_is_no_frame(data: bytes) -> None:
    """Where the next one begins cannot be told then."""
    made = reader()
    made.close(1000, "")
    assert made.feed(data)
    assert made.state is FAILED
    assert made.output() == b""


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
def test_a_closing_reader_finds_the_close_frame_however_the_stream_is_cut(compressed: bool) -> None:
    """Also when it has begun to ignore in the midst of a frame, a character or a fragmented message."""
    rsv = RSV1 if compressed else 0
    squeeze = deflate if compressed else bytes
    first = frame(TEXT, squeeze("€".encode()[:2]) + (b"\x00\x00\xff\xff" if compressed else b""), rsv)
    stream = b"".join([
        first,
        frame(PING, b"x"),
        frame(CONT, squeeze(b"\xff" * 200)),
        frame(BINARY, squeeze(bytes(300)), FIN | rsv),
        frame(TEXT, b"never ended", 0),
        frame(CLOSE, b"\x0f\xa0bye"),
    ])  # fmt: skip
    for at in range(len(first) + 10):
        for size in (1, 1000):
            made = reader(offer=OFFER if compressed else None)
            made.feed(stream[:at])
            made.close(1000, "")
            for start in range(at, len(stream), size):
                made.feed(stream[start : start + size])
            assert (made.state, made.ending) == (CLOSED, (4000, "bye"))


def test_release_lets_go_of_what_is_large() -> None:
    """The application may go on for long without its client."""
    made = reader(MIB, OFFER)
    made.feed(
        frame(BINARY, deflate(b"x"), FIN | RSV1) + frame(BINARY, bytes(200_000), 0) + frame(CONT, bytes(999))[:-1]
    )
    made.encode(None, bytes(1000))
    assert made.deflate is not None
    assert made.deflate.inflater is not None
    assert made.deflate.deflater is not None
    made.release()
    assert made.deflate.inflater is None
    assert made.deflate.deflater is None
    assert made.parts.tell() == 0
    assert len(made.rest) == 0
    assert not made.feed(frame(TEXT, b"x"))
    plain = reader()
    plain.release()
    assert plain.state is FAILED


def test_release_leaves_unread_messages_alone() -> None:
    """They came before the connection was lost, and the application may still ask for them."""
    made = reader()
    made.feed(frame(BINARY) * 2_000)
    made.release()
    assert len(run(made, [b""])[0]) == 2_000


# -- sending


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_w14_what_is_sent(size: int) -> None:
    """Unmasked frames of the three lengths."""
    assert list(parse(b"".join(reader().encode("x" * size, None)))) == [(FIN | TEXT, b"x" * size)]
    assert list(parse(b"".join(reader().encode(None, bytes(size))))) == [(FIN | BINARY, bytes(size))]


def test_w14_bytes_like_objects_are_taken() -> None:
    """They are copied, since the caller may change them."""
    assert reader().encode(None, bytearray(b"x")) == (b"\x82\x01", b"x")
    assert reader().encode(None, memoryview(b"x")) == (b"\x82\x01", b"x")
    assert reader().encode(None, type("Bytes", (bytes,), {})(b"x")) == (b"\x82\x01", b"x")


class Markup(str):
    """As Django's SafeString or MarkupSafe's Markup, with methods of its own."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        raise AssertionError("not the text itself")


class Word(enum.StrEnum):
    """A member is a str, and no plain one."""

    HELLO = "hello"


@pytest.mark.parametrize("text", [Markup("hello"), Word.HELLO], ids=["markup", "enumeration"])
def test_w14_text_may_be_of_a_subclass(text: str) -> None:
    """It is the text that is sent."""
    assert reader().encode(text, None) == (b"\x81\x05", b"hello")


@pytest.mark.parametrize(
    ("text", "data"),
    [(None, None), ("a", b"b"), (b"a", None), (1, None), (None, "b"), (None, 1), ("\ud800", None)],
)
def test_w14_neither_both_and_wrong_types_raise(text: object, data: object) -> None:
    """And nothing is sent."""
    made = reader()
    with pytest.raises(InvalidMessage):
        made.encode(text, data)
    assert made.output() == b""


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (1004, ""), (1005, ""), (1006, ""), (1015, ""), (5000, ""), (1000, "x" * 124),
                         (1000, "\ud800")]
)  # fmt: skip
def test_w15_close_frames_that_cannot_be_sent_raise(code: int, reason: str) -> None:
    """Reserved codes, and reasons longer than a control frame; the stream stays open."""
    made = reader()
    with pytest.raises(InvalidMessage, match=str(code)):
        made.close(code, reason)
    assert list(parse(made.close(1000, "grüße"))) == [(FIN | CLOSE, b"\x03\xe8" + "grüße".encode())]


# -- however the stream is cut


def mixed(compressed: bool) -> tuple[bytes, list[str | bytes], bytes]:
    """A stream of everything, its messages, and what is to be answered."""
    compressor = zlib.compressobj(wbits=-12)
    stream = [
        frame(TEXT, "grüße".encode()),
        frame(PING, b"1"),
        frame(BINARY, bytes(130)),
        frame(TEXT, b"frag", 0),
        frame(PING, b"2"),
        frame(CONT, b"mented"),
        frame(PONG),
        frame(BINARY),
    ]
    messages: list[str | bytes] = ["grüße", bytes(130), "fragmented", b""]
    if compressed:
        data = deflate(b"compressed " * 3, compressor)
        stream += [
            frame(TEXT, data, FIN | RSV1),
            frame(BINARY, deflate(b"again " * 30, compressor), RSV1),
            frame(CONT, b""),
        ]
        messages += ["compressed " * 3, b"again " * 30]
    stream.append(frame(CLOSE, b"\x03\xe8bye"))
    answers = bytes((FIN | PONG, 1)) + b"1" + bytes((FIN | PONG, 1)) + b"2" + bytes((FIN | CLOSE, 5)) + b"\x03\xe8bye"
    return b"".join(stream), messages, answers


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
def test_a_stream_cut_at_every_byte_gives_the_same(compressed: bool) -> None:
    """Whole, in two at every position, and byte by byte."""
    stream, messages, answers = mixed(compressed)
    cuts = [[stream[:at], stream[at:]] for at in range(len(stream) + 1)]
    cuts.append([stream[at : at + 1] for at in range(len(stream))])
    for segments in cuts:
        assert run(reader(offer=OFFER if compressed else None), segments) == (messages, answers)


payloads = st.one_of(st.text(max_size=200), st.binary(max_size=200), st.binary(min_size=600, max_size=2000))


def client(compressed: bool) -> tuple[ClientProtocol, MessageReader]:
    """A client of the ``websockets`` package, behind its handshake, and the reader of its server."""
    other = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN)
    made = reader()
    if compressed:
        factory = ClientPerMessageDeflateFactory(client_max_window_bits=True)
        offer = "; ".join(name if value is None else f"{name}={value}" for name, value in factory.get_request_params())
        answer = made.negotiate([f"permessage-deflate; {offer}".encode()]).decode()
        params = [tuple(param.strip().partition("=")[::2]) for param in answer.split(";")[1:]]
        other.extensions = [factory.process_response_params([(name, value or None) for name, value in params], [])]
    return other, made


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.tuples(payloads, st.integers(1, 4)), max_size=6),
    step=st.integers(1, 500),
    compressed=st.booleans(),
)
def test_round_trip_with_the_websockets_client(
    messages: Sequence[tuple[str | bytes, int]], step: int, compressed: bool
) -> None:
    """What the client sends, in fragments and segments of any size, arrives; sent back, the client reads the same."""
    other, made = client(compressed)
    for message, pieces in messages:
        data = message.encode() if isinstance(message, str) else message
        size = len(data) // pieces + 1
        fragments = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        send = other.send_text if isinstance(message, str) else other.send_binary
        for index, fragment in enumerate(fragments):
            fin = index == len(fragments) - 1
            if index:
                other.send_continuation(fragment, fin)
            else:
                send(fragment, fin)
            other.send_ping(b"amid")
    stream = b"".join(other.data_to_send())
    received, output = run(made, [stream[at : at + step] for at in range(0, len(stream), step)])
    assert received == [message for message, _ in messages]
    for message in received:
        head, data = made.encode(*((message, None) if isinstance(message, str) else (None, message)))
        output += head + data
    other.receive_data(output)
    events = [event for event in other.events_received() if isinstance(event, Frame)]
    assert {event.opcode for event in events} <= {Opcode.TEXT, Opcode.BINARY, Opcode.PONG}
    back = [bytes(event.data) for event in events if event.opcode != Opcode.PONG]
    assert back == [message.encode() if isinstance(message, str) else message for message in received]


@settings(max_examples=200, deadline=None)
@given(data=st.lists(st.binary(max_size=60), max_size=8), compressed=st.booleans())
def test_no_bytes_make_the_reader_raise(data: Sequence[bytes], compressed: bool) -> None:
    """Whatever comes ends in messages or in a close code."""
    made = reader(1000, OFFER if compressed else None)
    run(made, [frame(TEXT, b"x"), *data])
    if made.over:
        assert made.ending[0] in range(1000, 5000)


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(
        st.tuples(st.integers(0, 255), st.binary(max_size=40), st.booleans()),
        max_size=8,
    ),
    compressed=st.booleans(),
)
def test_the_outcome_of_any_frames_does_not_depend_on_their_cuts(
    parts: Sequence[tuple[int, bytes, bool]], compressed: bool
) -> None:
    """However they come: messages, answers and the end are the same."""
    stream = b"".join(
        frame(first & 15, deflate(payload) if squeezed else payload, first & 0xF0) for first, payload, squeezed in parts
    )
    outcomes = []
    for segments in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        made = reader(1000, OFFER if compressed else None)
        messages, output = run(made, segments)
        codes = [payload[:2] if first == FIN | CLOSE else payload for first, payload in parse(output)]
        outcomes.append((messages, codes, made.state, made.ending[0]))
    assert outcomes[0] == outcomes[1]
