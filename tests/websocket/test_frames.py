"""``frames.py``: the bytes of a peer in, messages and answers out; no transport, no loop."""

from __future__ import annotations

import enum
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("websockets", reason="the extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hybridworker.errors import InvalidMessage, ProtocolError
from hybridworker.websocket import frames
from hybridworker.websocket.frames import DEFLATE_MIN, HIGH_WATER, MessageReader

MASK = b"\x12\x34\x56\x78"
MIB = 1024 * 1024
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
    while made.messages:
        message = made.messages.popleft()
        assert message.pop("type") == "websocket.receive"
        [(key, value)] = message.items()  # exactly one of text and bytes
        assert type(value) is (str if key == "text" else bytes)
        taken.append(value)
    made.buffered = 0
    return taken


def run(made: MessageReader, segments: Iterable[bytes]) -> tuple[list[str | bytes], bytes]:
    """Feed segments to a reader; returns the messages and what is sent in answer."""
    messages: list[str | bytes] = []
    output = b""
    for segment in segments:
        answered = made.feed(segment)
        messages += take(made)
        while made.rest and not made.closed and len(made.rest) > 13:  # more than the beginning of a head
            answered |= made.feed(b"")
            messages += take(made)
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
        assert made.closed
        assert made.failed
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
    assert (made.closed, made.failed) == (True, False)
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
    """Feed a reader that ignores what comes until it has looked at everything; returns what ``feed`` did."""
    answered = False
    while made.rest and not made.closed:
        made.buffered = 0
        left = len(made.rest)
        answered |= made.feed(b"")
        if len(made.rest) == left:
            break
    return answered


def test_a_closing_reader_keeps_nothing() -> None:
    """After ``ignore`` no message comes of anything and no answer, and the close frame is still found."""
    made = reader()
    made.feed(frame(TEXT, b"kept"))
    kept = made.messages
    made.ignore()
    made.feed(frame(BINARY, bytes(10_000)) * 100 + frame(TEXT, b"\xff") + frame(PING) * 5_000 + frame(PONG) * 5_000)
    assert not drain(made)
    assert made.output() == b""
    assert made.feed(frame(CLOSE, b"\x03\xe8"))
    assert list(kept) == [{"type": "websocket.receive", "text": "kept"}]
    assert not made.messages
    assert (made.closed, made.failed) == (True, False)
    assert made.ending == (1000, "")


@pytest.mark.parametrize("begun", [False, True], ids=["whole", "amid a frame"])
@pytest.mark.parametrize("fragmented", [False, True], ids=["message", "fragment"])
def test_a_closing_reader_inflates_nothing(fragmented: bool, begun: bool) -> None:
    """But for the one frame that the core has begun: a client could hold the loop for as long as it likes."""
    made = reader(MIB, OFFER)
    bomb = deflate(bytes(MIB), zlib.compressobj(9, wbits=-12))
    first = frame(BINARY, bomb, RSV1 if fragmented else FIN | RSV1)
    assert made.deflate is not None
    made.deflate.inflater = counting = Counting(-12)  # type: ignore[assignment]  # it has what is needed
    stream = first * 500 + frame(CONT, bomb, 0) * 500 + frame(CONT) + frame(CLOSE, b"\x03\xe8")
    if begun:
        made.feed(stream[:100])
    made.ignore()
    made.feed(stream[100:] if begun else stream)
    drain(made)
    assert counting.made == (MIB if begun else 0)
    assert len(made.parts) == 0
    assert (made.closed, made.ending) == (True, (1000, ""))


def test_a_closing_reader_drops_the_message_that_has_begun() -> None:
    """It may be large, and its end may not come."""
    made = reader()
    made.feed(frame(TEXT, bytes(100_000), 0))
    assert len(made.parts) == 100_000
    made.ignore()
    assert len(made.parts) == 0


def test_a_closing_reader_gives_others_their_turn() -> None:
    """Skipping takes time, too: what was looked at counts."""
    for kind in (CONT, TEXT, BINARY, PING, PONG):
        made = reader()
        made.ignore()
        made.feed(frame(kind) * 10_000)
        assert made.buffered > HIGH_WATER
        assert len(made.rest) == (10_000 - HIGH_WATER // frames.OVERHEAD) * len(frame(kind))


@pytest.mark.parametrize("data", [frame(3), frame(TEXT, b"x", masked=False), frame(CLOSE, b"\x03"), frame(11, b"x")])
def test_a_closing_reader_still_knows_what_is_no_frame(data: bytes) -> None:
    """Where the next one begins cannot be told then."""
    made = reader()
    made.close(1000, "")
    made.ignore()
    assert made.feed(data)
    assert (made.closed, made.failed) == (True, True)


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
            made.ignore()
            for start in range(at, len(stream), size):
                made.feed(stream[start : start + size])
            assert (made.closed, made.failed, made.ending) == (True, False, (4000, "bye"))


def test_release_lets_go_of_what_is_large() -> None:
    """A reference cycle in the core would keep it until the collector comes."""
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
    assert len(made.parts) == 0
    assert len(made.core.reader.buffer) == 0
    assert not made.feed(frame(TEXT, b"x"))
    plain = reader()
    plain.release()
    assert plain.closed


def test_release_leaves_unread_messages_alone() -> None:
    """They came before the connection was lost, and the application may still ask for them."""
    made = reader()
    made.feed(frame(BINARY) * 2_000)
    made.release()
    assert len(run(made, [b""])[0]) == 2_000


# -- compression


def test_negotiation_offers_and_answers() -> None:
    """RFC 7692 7.1: windows of 12 bits where the client allows it; what cannot be had is declined, never an error."""
    answers = {
        (): b"",
        (b"permessage-deflate",): b"permessage-deflate; server_max_window_bits=12",
        (OFFER,): b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        (b"permessage-deflate; client_max_window_bits=10; server_max_window_bits=9",):
            b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
        (b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",):
            b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
        (b"x-unknown; a=1, permessage-deflate",): b"permessage-deflate; server_max_window_bits=12",
        (b"x-unknown", b"permessage-deflate"): b"permessage-deflate; server_max_window_bits=12",
        (b"permessage-deflate; server_max_window_bits=8",): b"",
        (b"permessage-deflate; unknown=1",): b"",
        (b"permessage-deflate; unknown=1, permessage-deflate",): b"permessage-deflate; server_max_window_bits=12",
        (b"x-webkit-deflate-frame",): b"",
    }  # fmt: skip
    for offers, answer in answers.items():
        made = reader()
        assert made.negotiate(offers) == answer
        assert (made.deflate is not None) == bool(answer)


@pytest.mark.parametrize("offer", [b"permessage-deflate;;", b"a=b=c", b'permessage-deflate; x="', b"\xff"])
def test_a_malformed_offer_is_refused(offer: bytes) -> None:
    """RFC 6455 9.1: a field that does not match the grammar fails the handshake."""
    with pytest.raises(ProtocolError, match="Sec-WebSocket-Extensions") as caught:
        reader().negotiate([offer])
    assert caught.value.status == 400


def test_an_offer_that_zlib_cannot_serve_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions of ``websockets`` let zlib's error out."""

    def process_extensions(core: object, headers: object) -> None:
        raise ValueError("Invalid initialization option")

    monkeypatch.setattr(ServerProtocol, "process_extensions", process_extensions)
    made = reader()
    assert made.negotiate([b"permessage-deflate; server_max_window_bits=8"]) == b""
    assert made.deflate is None


def test_an_idle_connection_has_no_zlib_objects() -> None:
    """They are made by the first message that needs them, each by its direction."""
    made = reader(offer=OFFER)
    assert made.deflate is not None
    run(made, [frame(TEXT, b"plain"), frame(PING)])
    made.encode("short", None)
    assert (made.deflate.inflater, made.deflate.deflater) == (None, None)
    run(made, [frame(TEXT, deflate(b"x"), FIN | RSV1)])
    assert made.deflate.inflater is not None
    assert made.deflate.deflater is None


def test_compressed_messages_share_their_context() -> None:
    """RFC 7692 7.2.2, and plain ones may stand between them (6)."""
    compressor = zlib.compressobj(wbits=-12)
    payload = bytes(range(256)) * 2
    first, second = deflate(payload, compressor), deflate(payload, compressor)
    assert len(second) < 30  # nothing but a reference to the first
    stream = [frame(BINARY, first, FIN | RSV1), frame(BINARY, payload), frame(BINARY, second, FIN | RSV1)]
    assert run(reader(offer=OFFER), stream)[0] == [payload] * 3


def test_compressed_messages_without_a_context() -> None:
    """``client_no_context_takeover``: each message stands for itself; a reference to an earlier one is an error."""
    compressor = zlib.compressobj(wbits=-12)
    payload = bytes(range(256)) * 2
    first, second = deflate(payload, compressor), deflate(payload, compressor)
    made = reader(offer=b"permessage-deflate; client_no_context_takeover")
    assert run(made, [frame(BINARY, first, FIN | RSV1)] * 2)[0] == [payload] * 2
    messages, output = run(made, [frame(BINARY, second, FIN | RSV1)])
    assert messages == []
    assert closing(output)[0] == 1002


def test_compressed_fragments() -> None:
    """Only the first has RSV1 (RFC 7692 6.1); one that has it again is an error, also in a plain message."""
    compressor = zlib.compressobj(wbits=-12)
    text = "grüße " * 50
    data = deflate(text.encode(), compressor)
    parts = [data[:10], data[10:11], b"", data[11:]]
    stream = [
        frame(TEXT, parts[0], RSV1),
        frame(PING, b"amid"),
        frame(CONT, parts[1], 0),
        frame(CONT, parts[2], 0),
        frame(CONT, parts[3]),
        frame(TEXT, b"plain", 0),
        frame(CONT, b" one"),
        frame(TEXT, deflate(b"next", compressor), FIN | RSV1),
    ]
    messages, output = run(reader(offer=OFFER), stream)
    assert messages == [text, "plain one", "next"]
    assert list(parse(output)) == [(FIN | PONG, b"amid")]
    for opening in (frame(TEXT, parts[0], RSV1), frame(TEXT, b"plain", 0)):
        _, output = run(reader(offer=OFFER), [opening, frame(CONT, b"x", FIN | RSV1)])
        assert closing(output)[0] == 1002


def test_a_final_block_is_legal() -> None:
    """RFC 7692 7.2.3.4, with its example; the message behind it begins afresh."""
    example = bytes.fromhex("f348cdc9c9070000")
    again = frame(TEXT, deflate(b"again"), FIN | RSV1)
    assert run(reader(offer=OFFER), [frame(TEXT, example, FIN | RSV1), again])[0] == ["Hello", "again"]


def finish(payload: bytes, window: bytes = b"") -> bytes:
    """A block that is final, behind what the receiver knows already."""
    compressor = zlib.compressobj(wbits=-12, zdict=window) if window else zlib.compressobj(wbits=-12)
    return compressor.compress(payload) + compressor.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("tail", [b"\x00", b"", deflate(b" and more")], ids=["octet", "no octet", "more"])
@pytest.mark.parametrize("fragmented", [False, True], ids=["whole", "in fragments"])
def test_what_follows_a_final_block_is_part_of_the_message(fragmented: bool, tail: bytes) -> None:
    """RFC 7692 7.2.1: any number of blocks of any type. The window is kept, also for the next message."""
    blocks = [finish(b"one "), finish(b"two "), finish(b"one two three", b"two ")]
    wanted = "one two one two three" + (" and more" if len(tail) > 1 else "")
    if fragmented:
        stream = [
            frame(TEXT, blocks[0], RSV1),
            frame(CONT, blocks[1] + blocks[2], 0),
            frame(CONT, tail or b"\x00"),
        ]
    else:
        stream = [frame(TEXT, b"".join(blocks) + tail, FIN | RSV1)]
    stream.append(frame(TEXT, deflate(b"again"), FIN | RSV1))
    for segments in (stream, [b"".join(stream)[at : at + 1] for at in range(len(b"".join(stream)))]):
        for offer in (OFFER, b"permessage-deflate; client_no_context_takeover"):
            assert run(reader(offer=offer), segments)[0] == [wanted, "again"]


def test_the_window_reaches_into_the_next_message() -> None:
    """A final block empties what the sender refers to only if the sender says so."""
    payload = bytes(range(256)) * 2
    second = zlib.compressobj(wbits=-12, zdict=payload)
    data = deflate(payload, second)
    assert len(data) < 30  # nothing but a reference to the first
    stream = [frame(BINARY, finish(payload) + b"\x00", FIN | RSV1), frame(BINARY, data, FIN | RSV1)]
    assert run(reader(offer=OFFER), stream)[0] == [payload] * 2


def test_final_blocks_do_not_escape_the_limit() -> None:
    """It runs on from one to the next, and their number is bounded: each costs an inflater."""
    for count, good in ((10, True), (11, False)):
        messages, output = run(reader(1000, OFFER), [frame(BINARY, finish(bytes(100)) * count + b"\x00", FIN | RSV1)])
        assert messages == ([bytes(1000)] if good else [])
        assert good or closing(output)[0] == 1009
    empty = finish(b"")
    for count, good in ((frames.FINAL_MAX, True), (frames.FINAL_MAX + 1, False), (100_000, False)):
        messages, output = run(reader(offer=OFFER), [frame(BINARY, empty * count + b"\x00", FIN | RSV1)])
        assert messages == ([b""] if good else [])
        assert good or closing(output)[0] == 1002


@pytest.mark.parametrize("size", [500, 1000, 1001])
def test_a_bomb_behind_a_final_block_is_never_inflated(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if the block before has just reached the limit."""
    inflaters: list[Counting] = []

    class Inflater(Counting):
        def __init__(self, wbits: int, zdict: bytes = b"") -> None:
            super().__init__(wbits, zdict)
            inflaters.append(self)

    monkeypatch.setattr(frames, "zlib", SimpleNamespace(decompressobj=Inflater, error=zlib.error))
    bomb = deflate(bytes(500_000), zlib.compressobj(9, wbits=-12))
    messages, output = run(reader(1000, OFFER), [frame(BINARY, finish(bytes(size)) + bomb, FIN | RSV1)])
    assert messages == []
    assert closing(output)[0] == 1009
    assert sum(inflater.made for inflater in inflaters) == 1001


@pytest.mark.parametrize("payload", [b"\x00", b""], ids=["octet", "nothing"])
def test_an_empty_compressed_message(payload: bytes) -> None:
    """RFC 7692 7.2.3.6. Without its octet it is malformed, and harms what follows no more than with it."""
    stream = frame(TEXT, payload, FIN | RSV1) + frame(TEXT, deflate(b"next"), FIN | RSV1)
    for segments in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        assert run(reader(offer=OFFER), segments)[0] == ["", "next"]


def test_a_window_of_8_bits() -> None:
    """A client that has its deflater of zlib takes 9, and refers to nothing that is further away than 250 bytes."""
    made = reader(offer=b"permessage-deflate; client_max_window_bits=8")
    compressor = zlib.compressobj(9, wbits=-9)
    for period in (*range(240, 270), 500, 512):
        payload = bytes(index * index % 251 for index in range(period)) * 5
        assert run(made, [frame(BINARY, deflate(payload, compressor), FIN | RSV1)])[0] == [payload]


@pytest.mark.parametrize("size", [5, 5000])
def test_malformed_compressed_data_is_1002(size: int) -> None:
    """Whole, or given to the core in pieces."""
    stream = frame(BINARY, b"\xff" * size, FIN | RSV1)
    for segments in ([stream], [stream[:50], stream[50:]]):
        _, output = run(reader(offer=OFFER), segments)
        assert closing(output)[0] == 1002


@pytest.mark.parametrize("afresh", [False, True], ids=["context", "no context"])
def test_long_messages_are_compressed_and_short_ones_are_not(afresh: bool) -> None:
    """From ``DEFLATE_MIN`` bytes on; the peer needs its window for that, or none (RFC 7692 7.1.1.1)."""
    made = reader(offer=b"permessage-deflate; server_no_context_takeover" if afresh else OFFER)
    inflater = zlib.decompressobj(-12)
    for size in (DEFLATE_MIN - 1, DEFLATE_MIN, DEFLATE_MIN, 100_000):
        payload = bytes(index * index % 251 for index in range(size))
        for text in (False, True):
            if text:
                payload = payload.hex().encode()[:size]
            head, data = made.encode(payload.decode() if text else None, None if text else payload)
            [(first, sent)] = parse(head + data)
            assert first & 15 == (TEXT if text else BINARY)
            assert bool(first & RSV1) == (size >= DEFLATE_MIN)
            if first & RSV1:
                if afresh:
                    inflater = zlib.decompressobj(-12)
                sent = inflater.decompress(sent + b"\x00\x00\xff\xff")
            assert sent == payload
    assert made.deflate is not None
    assert (made.deflate.deflater is None) == afresh


def test_the_core_sends_nothing_that_would_be_compressed() -> None:
    """Pings, pongs and close frames are not (RFC 7692 6.1)."""
    made = reader(offer=OFFER)
    assert list(parse(made.ping())) == [(FIN | PING, b"")]
    assert list(parse(made.close(1000, "x" * 120))) == [(FIN | CLOSE, b"\x03\xe8" + b"x" * 120)]


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
    if made.closed:
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
    """Whether the shortcut or the core reads a frame can not be told from outside."""
    stream = b"".join(
        frame(first & 15, deflate(payload) if squeezed else payload, first & 0xF0) for first, payload, squeezed in parts
    )
    outcomes = []
    for segments in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        made = reader(1000, OFFER if compressed else None)
        messages, output = run(made, segments)
        codes = [payload[:2] if first == FIN | CLOSE else payload for first, payload in parse(output)]
        outcomes.append((messages, codes, made.closed, made.ending[0]))
    assert outcomes[0] == outcomes[1]
