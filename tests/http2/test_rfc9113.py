"""The rules of RFC 9113 over whole connections: a raw client, the protocol, and an application; no network."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

import h2.config
import h2.connection
import h2.events

from hybridworker.asgi import Headers, Receive, Scope, Send
from hybridworker.connection.fields import check_host
from hybridworker.http2 import wire
from hybridworker.http2.wire import ACK, END_STREAM, PING, PROTOCOL_ERROR, SETTINGS, frame, window_update
from hybridworker.states import HTTP2State
from tests.harness import HELLO, body, responder, start
from tests.http2.framing import REQUEST, block, data, request, reset
from tests.http2.framing import settings as settings_frame
from tests.http2.multiplexed import Site, multiplexed
from tests.http2.rules import CONNECTION_ERRORS, STREAM_ERRORS
from tests.http2.test_head import GET, MALFORMED

#: The names of what is announced, as settings of this worker.
NAMES = {
    "max_streams": "http2_max_concurrent_streams",
    "window": "http2_initial_window_size",
    "max_frame": "http2_max_frame_size",
    "max_list": "http2_max_header_list_size",
}


def page(path: bytes, method: bytes = b"GET", *more: tuple[bytes, bytes]) -> Headers:
    """The fields of a request."""
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"x"), (b":path", path), *more]


def options(announced: dict[str, int]) -> dict[str, Any]:
    return {NAMES[name]: value for name, value in announced.items()}


@pytest.mark.parametrize("rule", CONNECTION_ERRORS)
def test_rfc9113_5_4_1_connection_errors(rule: str) -> None:
    """GOAWAY with the code, the last stream and a reason; the requests under way lose their client; one line."""
    announced, first, sent, code = CONNECTION_ERRORS[rule]
    site = Site()
    with multiplexed(site, **options(announced)) as connection:
        connection.feed(first)
        connection.feed(sent)
        [(last, given, reason)] = connection.farewells
        assert given == code
        assert last == connection.protocol.reader.history.last
        assert reason
        assert not connection.open
        assert connection.transport.eof
        connection.feed(request(99, fields=page(b"/hello")))
        assert "/hello" not in site.calls
        assert site.left == site.calls
        [(level, line)] = connection.log.lines
        assert level == "warning"
        assert reason in line


@pytest.mark.parametrize("rule", STREAM_ERRORS)
def test_rfc9113_5_4_2_stream_errors(rule: str) -> None:
    """RST_STREAM with the code; its request loses its client, one beside it and one behind it are served; one line."""
    announced, first, sent, code = STREAM_ERRORS[rule]
    site = Site()
    with multiplexed(site, **options(announced)) as connection:
        connection.feed(first)
        beside = wire.section(3, block(page(b"/echo")), 0, 16384)
        connection.feed(beside)
        connection.feed(sent)
        assert connection.resets == [(1, code)]
        assert connection.open
        assert not connection.farewells
        assert site.left == [path for path in site.calls if path == "/"]
        connection.feed(data(3, b"still here", ended=True))
        connection.feed(request(5, fields=page(b"/hello")))
        assert connection.answers[3].body == b"still here"
        assert connection.answers[5].body == b"hello"
        assert [level for level, _ in connection.log.lines] == ["warning"]


@pytest.mark.parametrize("rule", ["8.3.1 an empty authority", "8.3.1 an empty Host"])
def test_an_empty_host_of_http11_changes_nothing(rule: str) -> None:
    """It is valid there (RFC 9112 3.2), and the valid ones are remembered for both."""
    check_host(b"")
    with multiplexed(Site()) as connection:
        connection.feed(wire.section(1, block(MALFORMED[rule]), END_STREAM, 16384))
        assert connection.resets == [(1, PROTOCOL_ERROR)]


@pytest.mark.parametrize("rule", MALFORMED)
def test_rfc9113_8_1_1_malformed_requests(rule: str) -> None:
    """PROTOCOL_ERROR on their stream, no call of the application, one line; the others go on."""
    site = Site()
    with multiplexed(site) as connection:
        connection.feed(wire.section(1, block(page(b"/echo")), 0, 16384))
        connection.feed(wire.section(3, block(MALFORMED[rule]), END_STREAM, 16384))
        assert connection.resets == [(3, PROTOCOL_ERROR)]
        assert site.calls == ["/echo"]
        assert [level for level, _ in connection.log.lines] == ["warning"]
        assert "\n" not in connection.log.lines[0][1]
        connection.feed(data(1, b"abc", ended=True))
        assert connection.answers[1].body == b"abc"
        assert connection.open


@pytest.mark.parametrize("size", [1, 5, 100])
def test_rfc9113_4_1_a_connection_byte_by_byte(size: int) -> None:
    """The same answers however it is cut."""
    sent = request(1, fields=page(b"/hello")) + request(3, False, page(b"/echo", b"POST")) + data(3, b"a" * 300, True)
    with multiplexed(Site()) as connection:
        connection.feed(*(sent[at : at + size] for at in range(0, len(sent), size)))
        assert [(answer.status, answer.body) for answer in connection.answers.values()] == [
            (200, b"hello"),
            (200, b"a" * 300),
        ]


def test_rfc9113_3_4_the_server_speaks_first() -> None:
    """SETTINGS is its first frame, and the client's is acknowledged."""
    with multiplexed(HELLO) as connection:
        first, answer = connection.frames[:2]
        assert first[:3] == (SETTINGS, 0, 0)
        assert answer[:3] == (SETTINGS, ACK, 0)


def test_rfc9113_5_1_2_too_many_streams() -> None:
    """REFUSED_STREAM for each; calls that go on without their stream count."""
    site = Site()
    with multiplexed(site, http2_max_concurrent_streams=2) as connection:
        connection.feed(*(wire.section(on, block(page(b"/wait")), 0, 16384) for on in (1, 3, 5, 7)))
        assert connection.resets == [(5, wire.REFUSED_STREAM), (7, wire.REFUSED_STREAM)]
        assert site.calls == ["/wait", "/wait"]
        connection.feed(reset(1))
        connection.feed(request(9, fields=page(b"/hello")))
        assert connection.answers[9].body == b"hello"


def test_a_call_that_does_not_end_makes_no_room() -> None:
    """CVE-2023-44487: the stream is gone, and its call is not. What comes meanwhile has to wait."""
    calls = 0

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        while (await receive())["type"] != "http.disconnect":
            pass
        await connection.loop.create_future()

    with multiplexed(stubborn, http2_max_concurrent_streams=2) as connection:
        connection.feed(request(1), request(3), reset(1), request(5), reset(3), request(7))
        assert calls == 2
        assert connection.protocol.lingering == 2
        connection.feed(request(9), reset(5), reset(7))
        assert connection.resets == [(9, wire.REFUSED_STREAM)]
        assert calls == 2


def test_rapid_reset_within_a_read_calls_nothing() -> None:
    """A request begins behind the whole read that it came with."""
    site = Site()
    with multiplexed(site) as connection:
        connection.feed(b"".join(request(on, fields=page(b"/hello")) + reset(on) for on in range(1, 200, 2)))
        assert site.calls == []
        connection.feed(request(201, fields=page(b"/hello")))
        assert connection.answers[201].body == b"hello"


# -- RFC 9113 5.2, 6.9


@pytest.mark.parametrize("window", [0, 1, 1000, 70_000])
def test_rfc9113_5_2_no_more_than_the_windows_is_sent(window: int) -> None:
    """Of a stream and of the connection; what is given is used, to the last byte."""
    with multiplexed(Site()) as connection:
        connection.feed(settings_frame((wire.INITIAL_WINDOW_SIZE, window)))
        connection.feed(request(1, fields=page(b"/big")))
        answer, given = connection.answers[1], window
        assert len(answer.body) == min(given, 65535)
        connection.feed(window_update(0, 1_000_000))
        assert len(answer.body) == given
        for step in (1, 10_000, 100_000):
            connection.feed(window_update(1, step))
            given += step
            assert len(answer.body) == min(given, 320_000)
            assert not answer.ended
        connection.feed(window_update(1, 320_000))
        assert answer.body == bytes(320_000)
        assert answer.ended


def test_rfc9113_6_9_2_a_window_below_zero() -> None:
    """SETTINGS may take back what was used already; nothing is sent until it is above zero again."""
    with multiplexed(Site()) as connection:
        connection.feed(request(1, fields=page(b"/big")))
        answer = connection.answers[1]
        assert len(answer.body) == 65535
        connection.feed(settings_frame((wire.INITIAL_WINDOW_SIZE, 1000)), window_update(0, 500_000))
        connection.feed(window_update(1, 64_535))
        assert len(answer.body) == 65535
        connection.feed(window_update(1, 10))
        assert len(answer.body) == 65545


def test_rfc9113_4_2_frames_are_as_large_as_the_client_takes_them() -> None:
    """16,384 bytes, until SETTINGS_MAX_FRAME_SIZE allows more."""
    with multiplexed(Site()) as connection:
        connection.feed(window_update(0, 2**20), settings_frame((wire.INITIAL_WINDOW_SIZE, 2**20)))
        frames = connection.feed(request(1, fields=page(b"/big")))
        assert max(len(payload) for kind, *_, payload in frames if kind == wire.DATA) == 16384
        frames = connection.feed(settings_frame((wire.MAX_FRAME_SIZE, 30_000)), request(3, fields=page(b"/big")))
        assert max(len(payload) for kind, *_, payload in frames if kind == wire.DATA) == 30_000


def test_rfc9113_6_9_an_upload_is_given_credit_as_it_is_read() -> None:
    """At most a window of it is held; the whole of it arrives."""
    total = 0

    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal total
        more = True
        while more:
            message = await receive()
            total += len(message["body"])
            more = message["more_body"]
        await send(start(200))
        await send(body(b"%d" % total))

    with multiplexed(reads) as connection:
        connection.feed(wire.section(1, block(page(b"/", b"POST")), 0, 16384))
        room = {0: 65535, 1: 65535}
        for _ in range(60):
            for kind, _, stream_id, payload in connection.feed(data(1, bytes(16384))):
                if kind == wire.WINDOW_UPDATE:
                    room[stream_id] += wire.NUMBER.unpack(payload)[0]
            for stream_id in room:
                room[stream_id] -= 16384
                assert room[stream_id] >= 16384
        connection.feed(data(1, b"", ended=True))
        assert connection.answers[1].body == b"%d" % (60 * 16384)


def test_rfc9113_6_9_an_upload_that_nobody_reads_stays_within_its_window() -> None:
    """More of it is a FLOW_CONTROL_ERROR on the stream."""

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        await connection.loop.create_future()

    with multiplexed(deaf, http2_initial_window_size=100_000) as connection:
        connection.feed(frame(SETTINGS, ACK, 0), wire.section(1, block(page(b"/", b"POST")), 0, 16384))
        connection.feed(*[data(1, bytes(16384))] * 6)
        assert not connection.resets
        connection.feed(data(1, bytes(16384)))
        assert connection.resets == [(1, wire.FLOW_CONTROL_ERROR)]
        assert connection.open


# -- RFC 9113 6.7, 6.8


def test_rfc9113_6_7_pings_are_answered_beside_requests() -> None:
    """With the payload."""
    with multiplexed(Site()) as connection:
        connection.feed(wire.section(1, block(page(b"/wait")), 0, 16384))
        assert connection.feed(frame(PING, 0, 0, b"abcdefgh")) == [(PING, ACK, 0, b"abcdefgh")]


def test_rfc9113_6_8_the_goaway_of_the_client() -> None:
    """Its streams are finished; then the connection ends with the true last id."""
    with multiplexed(Site()) as connection:
        connection.feed(wire.section(1, block(page(b"/echo")), 0, 16384), frame(wire.GOAWAY, 0, 0, bytes(8)))
        assert connection.open
        connection.feed(data(1, b"abc", ended=True))
        assert connection.answers[1].body == b"abc"
        assert [(last, code) for last, code, _ in connection.farewells] == [(1, 0)]
        assert connection.protocol.state is HTTP2State.CLOSING


# -- RFC 9113 8.1: responses, read by the h2 package, which refuses what is malformed


async def extraordinary(scope: Scope, receive: Receive, send: Send) -> None:
    """Responses of all kinds."""
    path = scope["path"]
    if path == "/hints":
        await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
    status = {"/204": 204, "/304": 304}.get(path, 200)
    fields = [(b"Content-Type", b"text/plain"), (b"Connection", b"keep-alive"), (b"X-Value", b" padded ")]
    await send(start(status, *fields, trailers=path == "/trailers"))
    if path == "/pieces":
        for _ in range(5):
            await send(body(b"x" * 30_000, more=True))
    await send(body(b"" if status != 200 else b"end"))
    if path == "/trailers":
        await send({"type": "http.response.trailers", "headers": [(b"Grpc-Status", b"0")]})


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", ["/", "/hints", "/204", "/304", "/pieces", "/trailers"])
def test_rfc9113_8_1_responses(path: str, method: str) -> None:
    """Interim responses, fields in lower case, none of a connection, trailers, and an end to each."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    with multiplexed(extraordinary) as connection:
        events: list[Any] = []
        at = 0

        def exchange() -> None:
            nonlocal at
            while True:
                outgoing = client.data_to_send().removeprefix(wire.PREFACE)
                new, at = connection.sent[at:], len(connection.sent)
                if not outgoing and not new:
                    return
                for event in client.receive_data(new):
                    events.append(event)
                    if isinstance(event, h2.events.DataReceived):
                        client.acknowledge_received_data(event.flow_controlled_length, 1)
                connection.feed(outgoing)

        exchange()
        fields = [(":method", method), (":scheme", "http"), (":authority", "x"), (":path", path)]
        client.send_headers(1, fields, end_stream=method != "POST")
        if method == "POST":
            client.send_data(1, b"body", end_stream=True)
        exchange()
        kinds = [type(event).__name__ for event in events]
        assert kinds.count("StreamEnded") == 1
        assert ("InformationalResponseReceived" in kinds) is (path == "/hints")
        assert ("TrailersReceived" in kinds) is (path == "/trailers" and method != "HEAD")
        [head] = [event.headers for event in events if isinstance(event, h2.events.ResponseReceived)]
        assert (b"x-value", b"padded") in head
        assert {b"date", b"server"} <= {name for name, _ in head}
        assert b"connection" not in dict(head)
        length = sum(len(event.data) for event in events if isinstance(event, h2.events.DataReceived))
        expected = 0 if method == "HEAD" or path in ("/204", "/304") else 150_003 if path == "/pieces" else 3
        assert length == expected


def test_rfc9113_8_1_a_response_before_the_request_is_complete() -> None:
    """The rest of the body is dropped, then the client is told to stop with NO_ERROR."""
    with multiplexed(HELLO) as connection:
        connection.feed(wire.section(1, block(page(b"/", b"POST")), 0, 16384))
        assert connection.answers[1].ended
        connection.feed(*[data(1, bytes(16384))] * 6)
        assert connection.resets == [(1, wire.NO_ERROR)]
        connection.feed(request(3))
        assert connection.answers[3].body == b"hello"


def test_rfc9113_8_1_a_response_that_is_cut() -> None:
    """INTERNAL_ERROR on its stream, and no END_STREAM."""

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"abc", more=True))
        if scope["path"] == "/fail":
            raise ValueError("on purpose")
        await send(body(b""))

    with multiplexed(fails) as connection:
        connection.feed(request(1, fields=page(b"/fail")), request(3, fields=page(b"/")))
        assert connection.resets == [(1, wire.INTERNAL_ERROR)]
        assert not connection.answers[1].ended
        assert connection.answers[3].ended


def test_rfc9113_8_1_1_a_response_shorter_than_its_length() -> None:
    """The application is told, the client sees a reset."""
    short = responder(start(200, (b"content-length", b"10")), body(b"abc", more=True), body(b""))
    with multiplexed(short) as connection:
        connection.feed(request(1))
        assert connection.resets == [(1, wire.INTERNAL_ERROR)]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (page(b"/" + b"a" * 5000), 414),
        ([*REQUEST, *[(b"x", b"")] * 100], 431),
        ([*REQUEST, (b"x", b"v" * 9000)], 431),
        ([*REQUEST, *[(b"x", b"v" * 5000)] * 14], 431),
        ([*GET, (b"expect", b"something")], 417),
        ([(b":method", b"CONNECT"), (b":authority", b"x:443")], 501),
    ],
    ids=["414", "431 fields", "431 a field", "431 a list", "417", "501"],
)
def test_rfc9113_8_1_1_what_is_refused_is_answered(fields: Headers, status: int) -> None:
    """With END_STREAM, and the application is not called."""
    site = Site()
    with multiplexed(site) as connection:
        connection.feed(wire.section(1, block(fields), END_STREAM, 16384))
        assert connection.answers[1].status == status
        assert connection.answers[1].ended
        assert site.calls == []
        connection.feed(request(3, fields=page(b"/hello")))
        assert connection.answers[3].body == b"hello"


def test_rfc9110_10_1_1_continue_when_the_body_is_asked_for() -> None:
    """An interim response, once."""
    with multiplexed(Site()) as connection:
        connection.feed(wire.section(1, block(page(b"/echo", b"POST", (b"expect", b"100-continue"))), 0, 16384))
        assert connection.answers[1].status == 100
        connection.feed(data(1, b"abc", ended=True))
        assert [dict(fields)[b":status"] for fields in connection.answers[1].sections] == [b"100", b"200"]
        assert connection.answers[1].body == b"abc"
