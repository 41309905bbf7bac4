"""``states.STREAM`` walked completely: every state and every event, against the reader that runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

pytest.importorskip("h2", reason="the extra is not installed")


from hybridworker.errors import HTTP2Error
from hybridworker.http2 import history, wire
from hybridworker.states import STREAM, StreamState
from tests.http2.framing import FakeOwner, block, connected, data, priority, request, reset

IDLE, OPEN, CLOSED = StreamState.IDLE, StreamState.OPEN, StreamState.CLOSED
LOCAL, REMOTE = StreamState.HALF_CLOSED_LOCAL, StreamState.HALF_CLOSED_REMOTE
RESET_SENT, RESET_RECEIVED = StreamState.RESET_SENT, StreamState.RESET_RECEIVED

EVENTS = ["HEADERS", "DATA", "PRIORITY", "RST_STREAM", "WINDOW_UPDATE", "PUSH_PROMISE", "CONTINUATION"]
SENDING = ["send END_STREAM", "send RST_STREAM"]
STREAM_ID = 5
WINDOW = 100


def variants(event: str, state: StreamState) -> list[bytes]:
    """The forms of a frame that may lead into different states."""
    update = wire.window_update
    trailers = block([(b"grpc-status", b"0")])
    forms: dict[str, list[bytes]] = {
        "HEADERS": [wire.section(STREAM_ID, trailers, flags, 16384) for flags in (0, wire.END_STREAM)]
        + [
            wire.frame(wire.HEADERS, wire.END_HEADERS | wire.WITH_PRIORITY, STREAM_ID, bytes((0, 0, 0, 5, 0)) + block())
        ],
        "DATA": [data(STREAM_ID, b"x", ended) for ended in (False, True)] + [data(STREAM_ID, bytes(WINDOW + 1))],
        "PRIORITY": [priority(STREAM_ID)] if state is IDLE else [priority(STREAM_ID), priority(STREAM_ID, STREAM_ID)],
        "RST_STREAM": [reset(STREAM_ID)],
        "WINDOW_UPDATE": [update(STREAM_ID, 1)] if state is IDLE else [update(STREAM_ID, 1), update(STREAM_ID, 0)],
        "PUSH_PROMISE": [wire.frame(wire.PUSH_PROMISE, wire.END_HEADERS, STREAM_ID, bytes(4) + block())],
        "CONTINUATION": [wire.frame(wire.CONTINUATION, wire.END_HEADERS, STREAM_ID, block())],
    }
    return forms[event]


def bring_to(state: StreamState) -> FakeOwner:
    """A connection with the stream in ``state``."""
    owner = connected()
    if state is IDLE:
        return owner
    owner.feed(request(STREAM_ID, ended=state in (REMOTE, CLOSED)))
    stream = owner.streams[STREAM_ID]
    if state in (LOCAL, CLOSED):
        owner.reader.end(stream)
    elif state is RESET_SENT:
        owner.reader.reset(STREAM_ID, wire.CANCEL)
    elif state is RESET_RECEIVED:
        owner.feed(reset(STREAM_ID))
    assert state_of(owner) is state is stream.state
    stream.window = WINDOW
    owner.output()
    owner.events.clear()
    return owner


def state_of(owner: FakeOwner) -> StreamState:
    """The state of the stream, as the reader knows it."""
    stream = owner.reader.streams.get(STREAM_ID)
    return owner.reader.history.state_of(STREAM_ID) if stream is None else stream.state


def outcome(state: StreamState, event: str, variant: bytes) -> StreamState | None:
    """The state behind the frame; None if the connection failed."""
    owner = bring_to(state)
    try:
        owner.feed(variant)
    except HTTP2Error:
        return None
    return state_of(owner)


@pytest.mark.parametrize(
    ("state", "event"), list(product(StreamState, EVENTS)), ids=lambda value: getattr(value, "name", value)
)
def test_rfc9113_5_1_every_frame_in_every_state(state: StreamState, event: str) -> None:
    """A pair of the table leads into exactly its states; one that it lacks ends the stream or the connection."""
    outcomes = {outcome(state, event, variant) for variant in variants(event, state)}
    expected = STREAM.get((state, event))
    if expected is None:
        assert outcomes <= {None, RESET_SENT}
    else:
        assert outcomes == expected


SENT: dict[str, Callable[[FakeOwner], None]] = {
    "send END_STREAM": lambda owner: owner.reader.end(owner.streams[STREAM_ID]),
    "send RST_STREAM": lambda owner: owner.reader.reset(STREAM_ID, wire.INTERNAL_ERROR),
}


@pytest.mark.parametrize(("state", "event"), [pair for pair in STREAM if pair[1] in SENDING], ids=str)
def test_rfc9113_5_1_what_is_sent_ends_a_side(state: StreamState, event: str) -> None:
    """The pairs of the table whose event is this worker's own."""
    owner = bring_to(state)
    SENT[event](owner)
    assert {state_of(owner)} == STREAM[state, event]


def test_the_table_has_no_other_event() -> None:
    """What this file walks is all there is."""
    assert {event for _, event in STREAM} <= {*EVENTS, *SENDING}


def test_a_reset_is_forgotten_in_time() -> None:
    """The ids of 128 streams are kept, not of all that there ever were."""
    owner = bring_to(RESET_SENT)
    for number in range(history.REMEMBERED):
        assert state_of(owner) is RESET_SENT
        owner.feed(request(7 + 2 * number))
        owner.reader.reset(7 + 2 * number, wire.CANCEL)
    assert state_of(owner) is CLOSED
    assert len(owner.reader.history.recent) == history.REMEMBERED
