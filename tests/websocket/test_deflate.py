"""``deflate.py``: what is negotiated, and compressed messages as the reader of frames takes and sends them."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import pytest

pytest.importorskip("websockets", reason="the extra is not installed")

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from hybridworker.errors import ProtocolError
from hybridworker.websocket import deflate as deflate_module
from hybridworker.websocket.frames import DEFLATE_MIN
from tests.websocket.test_frames import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    OFFER,
    PING,
    PONG,
    RSV1,
    TEXT,
    Counting,
    closing,
    deflate,
    frame,
    parse,
    reader,
    run,
)  # fmt: skip


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

    def process_request_params(factory: object, params: object, accepted: object) -> None:
        raise ValueError("Invalid initialization option")

    monkeypatch.setattr(ServerPerMessageDeflateFactory, "process_request_params", process_request_params)
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
    first = finish(payload) + b"\x00"
    again = frame(BINARY, data, FIN | RSV1)
    assert run(reader(offer=OFFER), [frame(BINARY, first, FIN | RSV1), again])[0] == [payload] * 2
    for cut in range(1, len(first)):  # also where the last fragment gives only the end of the window
        stream = [frame(BINARY, first[:cut], RSV1), frame(CONT, first[cut:]), again]
        assert run(reader(offer=OFFER), stream)[0] == [payload] * 2


def test_final_blocks_do_not_escape_the_limit() -> None:
    """It runs on from one to the next, and their number is bounded: each costs an inflater."""
    for count, good in ((10, True), (11, False)):
        messages, output = run(reader(1000, OFFER), [frame(BINARY, finish(bytes(100)) * count + b"\x00", FIN | RSV1)])
        assert messages == ([bytes(1000)] if good else [])
        assert good or closing(output)[0] == 1009
    empty = finish(b"")
    for count, good in ((deflate_module.FINAL_MAX, True), (deflate_module.FINAL_MAX + 1, False), (100_000, False)):
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

    monkeypatch.setattr(deflate_module, "zlib", SimpleNamespace(decompressobj=Inflater, error=zlib.error))
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
    """Whole, or in pieces."""
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


def test_control_frames_are_not_compressed() -> None:
    """Pings, pongs and close frames are not (RFC 7692 6.1)."""
    made = reader(offer=OFFER)
    assert list(parse(made.ping())) == [(FIN | PING, b"")]
    assert list(parse(made.close(1000, "x" * 120))) == [(FIN | CLOSE, b"\x03\xe8" + b"x" * 120)]
