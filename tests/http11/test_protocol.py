"""HTTPProtocol: where requests begin and end, their order, and the life of a connection."""

from __future__ import annotations

import asyncio
import builtins
import errno
import math
import socket
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.asgi import Receive, Scope, Send
from hybridworker.connection import peer as peer_module
from hybridworker.http11.connection import ACTIVE, CLOSED, CLOSING, IDLE, NEW
from hybridworker.http11.protocol import HTTPProtocol
from tests.fakes import FakeTransport
from tests.harness import GET, HELLO, Recorder, Wire, body, echo, responder, settle, start, wire

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CLOSING_ANSWER = b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that never answers."""
    await asyncio.Event().wait()


#: Before Python 3.12 every task begins in the next turn.
begins_at_once = pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin at once from Python 3.12 on")


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


# -- one request after the other


def test_a_request_is_answered_in_one_write() -> None:
    """Head and body leave in a single write."""
    with wire(HELLO) as w:
        assert w.feed(GET) == ANSWER
        assert len(w.transport.writes) == 1
        assert w.protocol.state is IDLE


@begins_at_once
def test_an_application_that_waits_for_nothing_costs_one_turn_of_the_loop() -> None:
    """It is called when the loop has read from all connections; of a pipelined row, one request in a turn."""

    async def main(w: Wire) -> None:
        w.protocol.data_received(GET + GET)
        assert w.sent == b""
        await asyncio.sleep(0)
        assert w.sent == ANSWER
        await asyncio.sleep(0)
        assert w.protocol.state is IDLE
        assert w.sent == ANSWER * 2

    with wire(HELLO) as w:
        w.loop.run_until_complete(main(w))


def test_all_of_a_response_is_out_when_send_returns() -> None:
    """The application may block behind any of its ``send()`` calls."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (start(200), body(b"a", True), body(b"b", True), body(b"")):
            before = len(w.sent)
            await send(message)
            seen.append(w.sent[before:])

    with wire(app) as w:
        w.feed(GET)
        assert seen[0] == b""  # the head waits for the first part of the body
        assert seen[1].endswith(b"\r\n\r\n1\r\na\r\n")
        assert seen[2:] == [b"1\r\nb\r\n", b"0\r\n\r\n"]


@begins_at_once
def test_a_response_does_not_wait_for_the_requests_of_others() -> None:
    """What came in the same turn of the loop and is served next may block."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(w.sent)
        await HELLO(scope, receive, send)

    async def main(w: Wire) -> None:
        other = HTTPProtocol(w.context)
        other.connection_made(FakeTransport())
        w.protocol.data_received(GET)
        other.data_received(GET)
        await asyncio.sleep(0)
        assert seen == [b"", ANSWER]

    with wire(app) as w:
        w.loop.run_until_complete(main(w))


def test_h1_keep_alive_serves_the_next_request() -> None:
    """A connection serves one request after the other."""
    with wire(HELLO) as w:
        w.feed(GET)
        assert w.feed(GET) == ANSWER * 2
        assert w.context.quota.served == 2


def test_h47_pipelined_requests_are_answered_in_order() -> None:
    """Requests that come in one segment are answered one by one, in order."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].encode()
        if path == b"/slow":
            await asyncio.sleep(0)
        await send(start(200, (b"content-length", b"%d" % len(path))))
        await send(body(path))

    with wire(app) as w:
        sent = w.feed(GET.replace(b"/ ", b"/slow ") + GET.replace(b"/ ", b"/b ") + GET.replace(b"/ ", b"/c "))
        assert [part.rpartition(b"\r\n")[2] for part in sent.split(b"HTTP/1.1 200 OK")[1:]] == [b"/slow", b"/b", b"/c"]


def test_only_one_request_of_a_pipeline_runs() -> None:
    """A pipelined request waits as bytes until the one before it is answered."""
    app = Recorder(answer=lambda scope: False)
    with wire(app) as w:
        w.feed(GET * 3)
        assert len(app.scopes) == 2 or len(app.scopes) == 1  # a return without an answer is a 500, which closes
        assert status(w.sent) == 500
        assert w.protocol.pending == b""


def test_reading_pauses_behind_a_flood_of_pipelined_requests() -> None:
    """What waits behind a request is bounded."""
    with wire(silent) as w:
        w.feed(GET, GET * 5000)
        assert not w.transport.reading
        assert len(w.protocol.pending) == len(GET) * 5000


def test_reading_resumes_when_the_pipeline_is_served() -> None:
    """After the request that held it up, the pipeline goes on."""
    event = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await event.wait()
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.feed(GET, GET * 3000)
        assert not w.transport.reading
        event.set()
        for _ in range(800):
            w.run()
        assert w.transport.reading
        assert w.sent == ANSWER * 3001


def test_an_error_behind_good_requests_is_answered_in_its_turn() -> None:
    """The 400 comes after the answers to the requests before it, and nothing behind it is parsed."""
    with wire(HELLO) as w:
        sent = w.feed(GET * 2 + b"FOO BAR\r\n\r\n" + GET)
        assert sent.startswith(ANSWER * 2 + b"HTTP/1.1 400 Bad Request\r\n")
        assert sent.count(b"HTTP/1.1 ") == 3
        assert w.protocol.state is CLOSING


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x\r\nConnection: close\r\n\r\n", False),
        (GET, True),
    ],
)
def test_keep_alive_is_what_the_request_says(head: bytes, kept: bool) -> None:
    """RFC 9112 9.3: the version and the Connection field decide, and the answer says so."""
    with wire(HELLO) as w:
        sent = w.feed(head)
        assert (b"Connection: close" not in sent) is kept
        assert w.transport.closing is not kept


def test_http10_keep_alive_is_confirmed() -> None:
    """A client of HTTP/1.0 must be told that the connection stays open."""
    with wire(HELLO) as w:
        assert b"\r\nConnection: keep-alive\r\n" in w.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")


def test_keepalive_0_closes_after_each_response() -> None:
    """``keepalive = 0`` means no kept-alive connections at all, announced."""
    with wire(HELLO, keepalive=0) as w:
        assert w.feed(GET) == CLOSING_ANSWER
        assert w.protocol.state is CLOSING


def test_what_follows_a_closing_request_is_never_parsed() -> None:
    """Bytes behind ``Connection: close`` belong to nobody."""
    app = Recorder()
    with wire(app) as w:
        w.feed(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET)
        assert len(app.scopes) == 1


def test_one_empty_line_before_a_request_is_ignored() -> None:
    """RFC 9112 2.2."""
    with wire(HELLO) as w:
        assert w.feed(b"\r\n" + GET, b"\r\n", GET) == ANSWER * 2


@pytest.mark.parametrize("cut", [[b"\r\n"], [b"\r", b"\n"]], ids=["whole", "cut"])
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["connection", "request"])
def test_an_empty_line_alone_is_no_request(cut: list[bytes], body: bytes) -> None:
    """The connection stays as idle as it was: no 408, and the next request is answered."""
    with wire(HELLO, keepalive=60) as w:
        if body:
            w.feed(POST + body + cut[0])
        else:
            w.feed(cut[0])
        w.feed(*cut[1:])
        assert w.protocol.state is IDLE
        before = w.sent
        w.tick(14)
        assert not w.transport.closing
        assert w.feed(GET) == before + ANSWER
    with wire(HELLO, keepalive=20) as w:
        w.feed(POST + b"hello", *cut)
        w.tick(16)
        assert w.sent == ANSWER
        assert not w.transport.eof
        w.tick(21)
        assert w.sent == ANSWER
        assert w.transport.eof


def test_two_empty_lines_before_a_request_are_an_error() -> None:
    """One is tolerated, an endless row of them is not."""
    with wire(HELLO) as w:
        assert status(w.feed(b"\r\n\r\n" + GET)) == 400


# -- bodies


@pytest.mark.parametrize("size", [1, 65535, 65536, 65537, 300_000])
@pytest.mark.parametrize("step", [0, 1000])
def test_h23_the_body_arrives_as_sent(size: int, step: int) -> None:
    """The body is what was sent, in one and in many segments."""
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + data
    with wire(echo) as w:
        segments = [request[i : i + step] for i in range(0, len(request), step)] if step else [request]
        assert w.feed(*segments).endswith(b"\r\n\r\n" + data)
        assert w.protocol.state is IDLE


def test_h22_chunks_arrive_without_framing_extensions_and_trailers() -> None:
    """The application sees the content of a chunked body and nothing else."""
    app = Recorder()
    with wire(app) as w:
        w.feed(CHUNKED + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n" + GET)
        assert b"".join(event["body"] for event in app.events[0]) == b"abcde"
        assert (b"x-trailer", b"t") not in app.scopes[0]["headers"]
        assert len(app.scopes) == 2


def test_h25_a_short_unread_body_is_dropped_and_the_connection_goes_on() -> None:
    """An early answer with a short rest of the body keeps the connection."""
    with wire(HELLO) as w:
        w.feed(POST)
        assert w.sent == ANSWER
        w.feed(b"ab", b"cde" + GET)
        assert w.sent == ANSWER * 2


def test_h25_a_long_unread_body_closes_the_connection() -> None:
    """An early answer to a long body says close, half-closes, and reads on so that no reset overtakes it."""
    with wire(HELLO) as w:
        assert w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n") == CLOSING_ANSWER
        assert w.transport.eof
        assert not w.transport.closing
        w.feed(b"x" * 1000)
        w.tick(3)
        assert w.transport.aborted


def test_an_unread_chunked_body_closes_the_connection() -> None:
    """Nobody knows how long a chunked body is going to be."""
    with wire(HELLO) as w:
        assert w.feed(CHUNKED + b"3\r\nabc\r\n") == CLOSING_ANSWER


def test_h29_a_malformed_chunk_ends_the_body_with_a_disconnect() -> None:
    """A broken body is a 400 for the client, and never a complete body for the application."""
    app = Recorder()
    with wire(app) as w:
        w.feed(CHUNKED + b"3\r\nabc\r\n")
        assert status(w.feed(b"zz\r\n")) == 400
        assert app.events[0][-1] == {"type": "http.disconnect"}


def test_a_body_that_is_broken_at_once_never_reaches_the_application() -> None:
    """A fault in the same segment as the head is found before the application is called."""
    app = Recorder()
    with wire(app) as w:
        assert status(w.feed(CHUNKED + b"zz\r\n")) == 400
        assert app.scopes == []


def test_a_broken_body_behind_a_started_response_cuts_it() -> None:
    """When the head of the response is out, the client must see that something is missing."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x", more=True))
        while (await receive())["type"] != "http.disconnect":
            pass

    with wire(app) as w:
        w.feed(CHUNKED, b"zz\r\n")
        assert w.transport.aborted
        assert not w.sent.endswith(b"0\r\n\r\n")


def test_h30_reading_pauses_while_the_application_does_not_receive() -> None:
    """No more than a bounded part of a body is held for an application that does not ask for it."""
    with wire(silent) as w:
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x" * 70000)
        assert not w.transport.reading


def test_h32_continue_is_sent_when_the_application_asks() -> None:
    """The 100 goes out at the first ``receive()`` that has nothing to return."""
    with wire(echo) as w:
        head = POST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")
        assert w.feed(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert w.feed(b"abcde").endswith(b"\r\n\r\nabcde")


def test_h32_no_continue_when_the_application_answers_first() -> None:
    """Without the 100 the client may or may not send its body, so the connection ends."""
    with wire(HELLO) as w:
        assert w.feed(POST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")) == CLOSING_ANSWER


def test_no_continue_for_http10() -> None:
    """RFC 9110 10.1.1: an expectation in HTTP/1.0 is ignored."""
    with wire(echo) as w:
        assert w.feed(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n") == b""
        assert w.feed(b"abcde").endswith(b"abcde")


def test_an_unknown_expectation_is_refused() -> None:
    """RFC 9110 10.1.1: 417."""
    with wire(HELLO) as w:
        assert status(w.feed(GET.replace(b"Host: x", b"Host: x\r\nExpect: coffee"))) == 417


def test_a_wsgi_call_with_a_short_body_begins_when_the_body_is_complete() -> None:
    """A slow small POST holds no thread."""
    app = Recorder()
    with wire(app, is_wsgi=True) as w:
        w.feed(POST + b"ab")
        assert app.scopes == []
        w.feed(b"cde")
        assert [event["body"] for event in app.events[0]] == [b"abcde"]
        assert status(w.sent) == 204


@pytest.mark.parametrize("end", ["eof", "lose"])
def test_a_wsgi_call_whose_client_leaves_before_the_body_is_complete_is_never_made(end: str) -> None:
    """Nobody waits for the answer, and the body is not what was meant."""
    app = Recorder()
    with wire(app, is_wsgi=True) as w:
        w.feed(POST + b"ab")
        getattr(w, end)()
        assert app.scopes == []


def test_a_wsgi_call_with_a_stalled_body_is_never_made() -> None:
    """The connection is dropped when the rest does not come."""
    app = Recorder()
    with wire(app, is_wsgi=True) as w:
        w.feed(POST + b"ab")
        w.tick(31)
        assert w.transport.aborted
        w.lose()
        assert app.scopes == []


# -- the end of input


def test_h27_a_client_that_leaves_is_seen_by_a_waiting_application() -> None:
    """``receive()`` returns ``http.disconnect`` when the connection is lost."""
    app = Recorder()
    with wire(app) as w:
        w.feed(POST + b"ab")
        w.lose()
        assert app.events[0][-1] == {"type": "http.disconnect"}


def test_a_half_closed_client_gets_its_answer() -> None:
    """A peer that has sent all it wants to send may still be reading."""
    event = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await event.wait()
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.feed(GET * 2)
        assert w.eof()
        event.set()
        w.run()
        assert w.sent == ANSWER * 2
        assert w.transport.closing


def test_an_idle_connection_ends_with_its_input() -> None:
    """Nothing is in flight: the transport closes itself."""
    with wire(HELLO) as w:
        w.feed(GET)
        assert not w.eof()


def test_after_the_grace_period_a_silent_application_is_cancelled() -> None:
    """A client that has gone for good holds no task for ever."""
    cancelled = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with wire(app, asgi_disconnect_grace_period=0.01) as w:
        w.feed(GET * 2)
        w.eof()
        w.loop.run_until_complete(asyncio.wait_for(cancelled.wait(), 10))
        w.run()
        assert w.transport.closing
        assert w.protocol.pending == b""


@pytest.mark.parametrize("writes", [True, False], ids=["writes", "waits"])
def test_a_started_response_outlives_the_grace_period_if_it_goes_on(writes: bool) -> None:
    """While writes succeed somebody may be reading; one that has nothing to say since the end of the input is cut."""
    more, event = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"one", more=True))
        await more.wait()
        await send(body(b"two", more=True))
        await event.wait()
        await send(body(b"three"))

    with wire(app, asgi_disconnect_grace_period=0.01) as w:
        w.feed(GET)
        w.eof()
        if writes:
            more.set()
            w.run()

        async def passed() -> None:
            await asyncio.sleep(0.02)

        w.loop.run_until_complete(passed())
        w.run()
        assert w.transport.aborted is not writes
        event.set()
        w.run()
        assert w.sent.endswith(b"5\r\nthree\r\n0\r\n\r\n" if writes else b"3\r\none\r\n")


def test_a_response_on_its_way_outlives_the_grace_period() -> None:
    """A half-closed client that reads slowly has not been left without a word."""
    event = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"one", more=True))
        await event.wait()
        await send(body(b"two"))

    with wire(app, asgi_disconnect_grace_period=0) as w:
        w.feed(GET)
        w.transport.unsent = 8
        w.eof()

        async def passed() -> None:
            await asyncio.sleep(0.001)

        w.loop.run_until_complete(passed())
        assert not w.transport.aborted
        event.set()
        w.run()
        assert w.sent.endswith(b"3\r\ntwo\r\n0\r\n\r\n")


def test_bytes_after_the_end_are_dropped() -> None:
    """A closing connection reads, so that no reset overtakes the answer, and parses nothing."""
    app = Recorder()
    with wire(app) as w:
        w.feed(b"BAD\r\n\r\n", GET)
        assert app.scopes == []
        assert not w.eof()


# -- timeouts


def test_a_connection_that_never_speaks_is_closed_without_a_word() -> None:
    """Nothing was asked, so nothing is answered."""
    with wire(HELLO) as w:
        w.tick(14)
        assert not w.transport.closing
        w.tick(16)
        assert w.transport.closing
        assert w.sent == b""


def test_a_head_that_trickles_is_answered_408() -> None:
    """The timeout counts from the first byte and is not moved by further ones."""
    with wire(HELLO) as w:
        w.feed(b"GET / HT")
        w.protocol.deadline -= 10
        w.feed(b"TP/1.1\r\n")
        w.tick(6)
        assert status(w.sent) == 408
        assert w.protocol.state is CLOSING


def test_header_timeout_0_is_off() -> None:
    """``HYBRIDWORKER_HEADER_TIMEOUT=0`` waits for ever."""
    with wire(HELLO, header_timeout=float("inf")) as w:
        w.feed(b"GET / HT")
        w.tick(1e6)
        assert w.sent == b""


def test_an_idle_connection_is_half_closed_after_keepalive() -> None:
    """The peer sees our end first, and has time to close."""
    with wire(HELLO, keepalive=2) as w:
        w.feed(GET)
        w.tick(1.5)
        assert not w.transport.eof
        w.tick(2.1)
        assert w.transport.eof
        w.tick(5)
        assert w.transport.aborted


def test_bytes_that_have_arrived_when_keepalive_expires_are_answered() -> None:
    """A request in the kernel's buffer is served, never reset."""
    ours, theirs = socket.socketpair()
    with ours, theirs, wire(HELLO, keepalive=2) as w:
        w.transport.info["socket"] = ours
        w.feed(GET)
        theirs.sendall(b"G")
        w.tick(3)
        assert not w.transport.eof
        ours.recv(1)
        w.tick(3)
        assert w.transport.eof


def test_a_stalled_body_is_a_disconnect_for_the_application() -> None:
    """A body that stops coming gives ``http.disconnect`` after gunicorn's ``timeout``."""
    app = Recorder()
    with wire(app, body_timeout=30) as w:
        w.feed(POST + b"ab")
        w.tick(29)
        assert app.events[0][-1]["type"] == "http.request"
        w.tick(31)
        assert app.events[0][-1] == {"type": "http.disconnect"}


def test_a_body_that_nobody_asks_for_is_not_late() -> None:
    """Reading is paused, or the 100 is not sent: the client waits for us."""
    with wire(silent) as w:
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x" * 70000)
        w.tick(1000)
        assert w.protocol.cycle is not None
        assert not w.protocol.cycle.disconnected
    with wire(silent) as w:
        w.feed(POST.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue"))
        w.tick(1000)
        assert not w.protocol.cycle.disconnected


def test_the_rest_of_a_dropped_body_that_does_not_come_ends_the_connection() -> None:
    """A short unread body is waited for as long as any other."""
    with wire(HELLO) as w:
        w.feed(POST)
        w.tick(31)
        assert (w.protocol.state, w.transport.eof, w.transport.aborted) == (CLOSING, True, False)
        w.tick(33)
        assert w.transport.aborted


def test_a_peer_that_takes_no_byte_is_dropped() -> None:
    """``HYBRIDWORKER_WRITE_TIMEOUT`` counts while nothing of what was written is taken."""
    with wire(HELLO, write_timeout=60, keepalive=1000) as w:
        w.feed(GET)
        w.tick(0)
        w.transport.unsent = 100
        w.tick(30)
        w.transport.unsent = 50
        w.tick(40)
        w.tick(99)
        assert not w.transport.closing
        w.tick(101)
        assert w.transport.aborted


def test_a_running_application_is_never_timed_out() -> None:
    """gunicorn's ``timeout`` is a heartbeat; how long an application takes is its own affair."""
    with wire(silent) as w:
        w.feed(GET)
        w.tick(1e6)
        assert not w.transport.closing


# -- leaving


def test_draining_closes_an_idle_connection_after_the_window() -> None:
    """Idle connections may still speak until the drain window is over."""
    with wire(HELLO, keepalive=100) as w:
        w.feed(GET)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(1)
        assert not w.transport.eof
        w.tick(2.5)
        assert w.transport.eof


def test_draining_without_a_window_closes_at_once() -> None:
    """With ``--reload`` nobody waits for idle connections."""
    with wire(HELLO) as w:
        w.context.persistence.end()
        w.protocol.drain(w.loop.time())
        assert w.transport.closing


@pytest.mark.parametrize(
    "data", [b"G", GET[:-2], b"\r\nG", GET + b"GET /"], ids=["a byte", "no empty line", "empty line", "the second"]
)
def test_draining_gives_half_a_head_the_time_of_a_first_request(data: bytes) -> None:
    """Not that of HYBRIDWORKER_HEADER_TIMEOUT, which may be off; and the client is told."""
    with wire(HELLO, header_timeout=math.inf) as w:
        w.feed(data)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(1)
        assert w.protocol.state is ACTIVE
        w.tick(2.5)
        assert status(w.sent.removeprefix(ANSWER)) == 408
        assert w.protocol.state is CLOSING
        assert "the request head was not complete when the worker left" in w.log.at("warning")[0]


def test_half_a_head_that_begins_during_the_drain_has_what_is_left_of_its_time() -> None:
    """Else one byte would hold the worker for as long as before."""
    with wire(HELLO, keepalive=100) as w:
        w.feed(GET)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.feed(b"G")
        w.tick(2.5)
        assert status(w.sent.removeprefix(ANSWER)) == 408


def test_a_head_whose_rest_has_come_in_time_is_not_refused() -> None:
    """It is in the kernel already."""
    ours, theirs = socket.socketpair()
    with ours, theirs, wire(HELLO) as w:
        w.transport.info["socket"] = ours
        w.feed(GET[:5])
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        theirs.sendall(GET[5:])
        w.tick(2.5)
        assert w.feed(ours.recv(100)) == CLOSING_ANSWER


def test_draining_leaves_a_first_request_its_time_whatever_keepalive_is() -> None:
    """A connection that has not had an answer yet is not idle."""
    with wire(HELLO, keepalive=0, drain_window=0) as w:
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(1)
        assert w.feed(GET) == CLOSING_ANSWER


def test_draining_gives_up_a_client_that_takes_nothing_of_a_complete_response() -> None:
    """After two seconds, which begin with the drain; one whose response goes on has its time."""
    with wire(HELLO, keepalive=100) as w:
        w.feed(GET)
        w.transport.unsent = 100
        w.tick(0)
        w.tick(30)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(30)
        assert not w.transport.aborted
        w.transport.unsent = 50
        w.tick(31.5)
        w.tick(33)
        assert not w.transport.aborted
        w.tick(33.6)
        assert w.transport.aborted
    with wire(silent) as w:
        w.feed(GET)
        w.transport.unsent = 100
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(0)
        w.tick(50)
        assert not w.transport.aborted


@pytest.mark.parametrize("works", [True, False])
def test_draining_gives_up_a_client_for_a_response_that_a_thread_has_made(works: bool) -> None:
    """What is left of it waits on disk. While the thread is at it, the worker would have to wait for that anyway."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x" * 10, True))
        await asyncio.Event().wait()

    with wire(app, is_wsgi=True, write_timeout=60) as w:
        w.context.router.default.works = lambda scope: works  # type: ignore[method-assign]
        w.feed(GET)
        w.transport.unsent = 10
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        for seconds in (0, 1, 3):
            w.tick(seconds)
        assert w.transport.aborted is not works
        if works:
            for seconds in (20, 61):
                w.tick(seconds)
            assert w.transport.aborted


def test_draining_does_not_wait_for_the_rest_of_a_body_that_is_dropped() -> None:
    """The response is out, and kept for its client."""
    with wire(HELLO) as w:
        assert w.feed(POST) == ANSWER
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        w.tick(2.5)
        assert (w.protocol.state, w.transport.eof, w.transport.aborted) == (CLOSING, True, False)


def test_a_connection_of_tls_does_not_outlive_its_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not answer the close_notify is left after a second."""
    monkeypatch.setattr(peer_module, "tls_extension", lambda ssl_object, cert: {"tls_version": 0x0304})
    monkeypatch.setattr(peer_module, "tls_environ", lambda ssl_object, extension: {"HTTPS": "on"})
    with wire(HELLO, ssl_object=object()) as w:
        w.feed(GET.replace(b"Host", b"Connection: close\r\nHost"))
        assert (w.transport.closing, w.transport.aborted) == (True, False)
        w.protocol.tick(w.loop.time() + 0.5)
        assert not w.transport.aborted
        w.protocol.tick(w.loop.time() + 1.5)
        assert w.transport.aborted


def test_under_tls_what_comes_behind_the_last_response_is_read_before_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TLS has no half-close, and takes bytes behind a close_notify for an error that resets the connection."""
    monkeypatch.setattr(peer_module, "tls_extension", lambda ssl_object, cert: {"tls_version": 0x0304})
    monkeypatch.setattr(peer_module, "tls_environ", lambda ssl_object, extension: {"HTTPS": "on"})
    with wire(HELLO, ssl_object=object()) as w:
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert b"Connection: close" in w.transport.sent
        w.feed(b"x" * 1000)
        w.protocol.tick(w.loop.time() + 0.5)
        assert not w.transport.closing
        w.protocol.tick(w.loop.time() + 1.5)
        assert (w.transport.closing, w.transport.aborted) == (True, False)
        w.protocol.tick(w.loop.time() + 2)
        w.protocol.tick(w.loop.time() + 3)
        assert w.transport.aborted


def test_an_idle_connection_of_tls_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No response has told its client, which may be about to send a request."""
    monkeypatch.setattr(peer_module, "tls_extension", lambda ssl_object, cert: {"tls_version": 0x0304})
    monkeypatch.setattr(peer_module, "tls_environ", lambda ssl_object, extension: {"HTTPS": "on"})
    with wire(HELLO, ssl_object=object(), keepalive=5) as w:
        w.feed(GET)
        w.tick(5)
        assert (w.protocol.state, w.transport.closing) == (CLOSING, True)


def test_a_request_during_the_drain_is_answered_with_close() -> None:
    """Every further request of a kept-alive connection is answered, and is its last."""
    with wire(HELLO) as w:
        w.feed(GET)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        assert w.feed(GET) == ANSWER + CLOSING_ANSWER
        assert w.protocol.state is CLOSING


def test_a_response_that_promised_keep_alive_before_the_drain_leaves_a_window() -> None:
    """What was announced is kept: the connection may speak for the drain window, no longer."""
    event = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x", more=True))
        await event.wait()
        await send(body())

    with wire(app, keepalive=100, drain_window=2) as w:
        w.feed(GET)
        w.context.persistence.end()
        w.protocol.drain(w.loop.time() + 2)
        event.set()
        w.run()
        assert w.protocol.state is IDLE
        w.tick(2.5)
        assert w.transport.eof


def test_abort_drops_the_connection() -> None:
    """The server may end a connection at once."""
    with wire(silent) as w:
        w.feed(GET)
        w.protocol.abort()
        assert w.transport.aborted


def test_max_requests_is_announced_on_the_last_response() -> None:
    """The response to request number ``max_requests`` says close."""
    recycled = []

    def recycle() -> None:
        recycled.append(1)
        connection.context.persistence.end()

    with wire(HELLO, max_requests=2, recycle=recycle) as connection:
        w = connection
        assert w.feed(GET) == ANSWER
        assert w.feed(GET) == ANSWER + CLOSING_ANSWER
        assert recycled == [1]


# -- upgrades


@pytest.mark.parametrize("protocol", [b"foo", b"h2c", b"TLS/1.0"])
def test_an_unknown_upgrade_is_ignored_and_framing_is_kept(protocol: bytes) -> None:
    """RFC 9110 7.8: the body of a refused upgrade, and what follows it, are parsed as ever."""
    upgrade = b"Host: x\r\nConnection: upgrade\r\nUpgrade: " + protocol
    with wire(echo) as w:
        sent = w.feed(POST.replace(b"Host: x", upgrade) + b"abcde" + GET + GET.replace(b"Host: x", upgrade) + GET)
        assert sent.count(b"HTTP/1.1 200 OK") == 4
        assert b"\r\n\r\nabcdeHTTP/1.1 200" in sent


def test_an_unknown_upgrade_of_a_chunked_request_keeps_framing() -> None:
    """The same for a chunked body, cut anywhere."""
    upgrade = b"Host: x\r\nConnection: upgrade\r\nUpgrade: foo"
    request = CHUNKED.replace(b"Host: x", upgrade) + b"3\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n"
    with wire(echo) as w:
        sent = w.feed(*(bytes([byte]) for byte in request + GET))
        assert sent.count(b"HTTP/1.1 200 OK") == 2
        assert b"\r\n\r\nabcdeHTTP/1.1 200" in sent


def test_a_wsgi_application_asked_for_a_websocket_is_served_plain_http() -> None:
    """WSGI knows no WebSocket, and an upgrade may be ignored."""
    app = Recorder()
    request = GET.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket")
    with wire(app, is_wsgi=True) as w:
        assert status(w.feed(request)) == 204
        assert app.scopes[0]["type"] == "http"


def test_an_upgrade_of_http10_is_ignored() -> None:
    """RFC 9110 7.8: a server must ignore it."""
    app = Recorder()
    with wire(app) as w:
        w.feed(b"GET / HTTP/1.0\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert app.scopes[0]["type"] == "http"


def test_a_websocket_handshake_without_the_extra_is_501(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning says what to install."""
    monkeypatch.setattr("hybridworker.websocket.protocol.available", lambda: False)
    request = GET.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket")
    with wire(HELLO) as w:
        assert status(w.feed(request)) == 501
        assert any("hybridworker[websockets]" in line for line in w.log.at("warning"))


def test_a_websocket_handshake_with_a_body_is_refused() -> None:
    """Its bytes would be taken for frames."""
    request = POST.replace(b"Host: x", b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket")
    with wire(HELLO) as w:
        assert status(w.feed(request + b"abcde")) == 400


# -- refusals


def test_a_refusal_is_one_warning_that_names_the_peer() -> None:
    """The log says who and why; the client gets the status alone."""
    with wire(HELLO, peername=("192.0.2.1", 5)) as w:
        w.feed(b"GET / HTTP/1.1\r\n\r\n")
        assert w.log.at("warning") == ["Invalid request from ip=192.0.2.1: no Host (RFC 9112 3.2)"]
        assert b"9112" not in w.sent


def test_a_refused_request_is_in_the_access_log_when_its_line_is_known() -> None:
    """As with gthread: a line that is no request line names nothing to log."""
    lines: list[Any] = []
    with wire(HELLO, access=lines.append) as w:
        w.feed(b"GET /a?b HTTP/1.1\r\n\r\n")
    with wire(HELLO, access=lines.append) as w:
        w.feed(b"FOO BAR\r\n\r\n")
    (line,) = lines
    assert (line.status, line.scope["method"], line.scope["hybridworker.target"]) == (400, "GET", b"/a?b")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 80\r\n" + GET, "a PROXY header, and proxy_protocol is off"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0" + GET, "a PROXY header, and proxy_protocol is off"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 is not served (let the proxy speak HTTP/1.1)"),
        (b"\x16\x03\x01hello\r\n\r\n", "a TLS handshake on a port without certfile"),
    ],
)
def test_what_a_wrong_configuration_sends_is_named_however_it_is_cut(data: bytes, reason: str) -> None:
    """In one piece, byte by byte, and in two."""
    for segments in ([data], [bytes([b]) for b in data], *([data[:i], data[i:]] for i in range(1, len(data)))):
        with wire(HELLO) as w:
            assert status(w.feed(*segments)) == 400
            assert w.log.at("warning") == [f"Invalid request from ip=127.0.0.1: {reason}"]


def test_a_refusal_over_a_unix_socket_names_it() -> None:
    """There is no address to name."""
    with wire(HELLO, peername="", sockname="/run/x.sock") as w:
        w.feed(b"GET / HTTP/1.1\r\n\r\n")
        assert "unix socket" in w.log.at("warning")[0]


def test_a_refused_head_request_gets_no_body() -> None:
    """RFC 9110 9.3.2."""
    with wire(HELLO) as w:
        assert w.feed(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_connect_is_not_implemented_and_ends_the_connection() -> None:
    """This is no proxy; nothing more of the connection is parsed."""
    app = Recorder()
    with wire(app) as w:
        assert status(w.feed(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n" + GET)) == 501
        assert app.scopes == []
        assert w.protocol.state is CLOSING


def test_an_error_of_our_own_in_a_callback_is_not_taken_for_the_clients() -> None:
    """A defect must not be answered with 400 and forgotten."""
    with wire(HELLO) as w, pytest.raises(Exception, match="callback"):
        w.protocol.head.context = BrokenContext(w.context)
        w.protocol.data_received(GET)


class BrokenContext:
    """A context whose router has no application."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.router = SimpleNamespace(default=None, single=object())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.context, name)


# -- PROXY


def test_a_proxy_header_names_the_client_for_the_whole_connection() -> None:
    """The announced address is in the scope of every request."""
    app = Recorder()
    with wire(app, proxy_protocol="v1") as w:
        header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 80\r\n"
        w.feed(*(bytes([byte]) for byte in header), GET, GET)
        assert [scope["client"] for scope in app.scopes] == [("192.0.2.7", 1111)] * 2
        assert app.scopes[1]["hybridworker.proxy"] == {
            "PROXY_PROTOCOL": "TCP4",
            "PROXY_ADDR": "192.0.2.8",
            "PROXY_PORT": "80",
        }


def test_a_proxy_header_is_optional() -> None:
    """Without one the peer is the client."""
    app = Recorder()
    with wire(app, proxy_protocol="auto") as w:
        w.feed(GET)
        assert app.scopes[0]["client"] == ("127.0.0.1", 40000)


def test_a_proxy_header_of_a_stranger_is_403() -> None:
    """``proxy_allow_ips`` decides who may send one."""
    with wire(HELLO, proxy_protocol="v1", proxy_networks=()) as w:
        assert status(w.feed(b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 80\r\n" + GET)) == 403


def test_states_of_a_connection() -> None:
    """NEW, ACTIVE, IDLE, CLOSED, in that order."""
    with wire(HELLO) as w:
        assert w.protocol.state is NEW
        w.feed(GET)
        assert w.protocol.state is IDLE
        w.lose()
        assert w.protocol.state is CLOSED
        assert w.protocol not in w.context.connections
        w.loop.run_until_complete(settle())


def test_write_pauses_reach_the_application() -> None:
    """``send()`` waits while the transport's buffer is full."""
    progress = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        progress.append(1)
        await send(body(b"x", more=True))
        progress.append(2)
        await send(body())

    with wire(app) as w:
        w.protocol.pause_writing()
        w.feed(GET)
        assert progress == []
        w.protocol.resume_writing()
        w.run()
        assert progress == [1, 2]


def test_responder_without_an_answer_is_a_500() -> None:
    """The harness's own smallest application."""
    with wire(responder()) as w:
        assert status(w.feed(GET)) == 500


# -- slow readers and clients that are gone


def test_a_slow_reader_is_not_taken_for_a_stalled_one_at_the_first_look() -> None:
    """What a connection did before the first tick is not known, and held against nobody."""
    with wire(HELLO, write_timeout=60, keepalive=1000) as w:
        w.feed(GET)
        w.transport.unsent = 100
        w.tick(0)
        w.tick(59)
        assert not w.transport.closing
        w.tick(61)
        assert w.transport.aborted


def test_a_slow_reader_gets_all_of_a_last_response() -> None:
    """A connection that is half-closed lingers for as long as bytes go out."""
    with wire(responder(start(200, (b"content-length", b"5"), (b"connection", b"close")), body(b"hello"))) as w:
        w.feed(GET)
        assert w.transport.eof
        w.transport.unsent = 100
        w.tick(5)
        w.transport.unsent = 50
        w.tick(10)
        assert not w.transport.closing
        w.transport.unsent = 0
        w.tick(20)
        assert w.transport.aborted


def test_a_wsgi_call_whose_body_never_begins_is_dropped() -> None:
    """Also where no byte of it comes."""
    app = Recorder()
    with wire(app, is_wsgi=True) as w:
        w.feed(POST)
        w.tick(29)
        assert not w.transport.closing
        w.tick(31)
        assert w.transport.aborted
        w.lose()
        assert app.scopes == []


@pytest.mark.parametrize("rest", [b"GET / HT", POST])
def test_what_is_incomplete_when_its_turn_comes_after_the_end_of_input_ends_the_connection(rest: bytes) -> None:
    """The rest of it never comes."""
    event = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await event.wait()
        await HELLO(scope, receive, send)

    with wire(app, is_wsgi=True, header_timeout=float("inf")) as w:
        w.feed(GET + rest)
        w.eof()
        event.set()
        w.run()
        assert w.sent == ANSWER
        assert w.transport.closing


def test_h28_what_comes_after_a_disconnect_is_dropped() -> None:
    """A body that stalled and went on is not taken up again, nor is the connection."""
    events: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.extend([await receive(), await receive()])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        events.append(await receive())
        await HELLO(scope, receive, send)

    with wire(app, body_timeout=30) as w:
        w.feed(POST + b"ab")
        w.protocol.tick(w.loop.time() + 31)
        w.protocol.data_received(b"cde")
        w.run()
        assert [event["type"] for event in events] == ["http.request", "http.disconnect", "http.disconnect"]
        assert w.sent == CLOSING_ANSWER


@pytest.mark.parametrize("broken", [True, False])
def test_unread_bytes_behind_a_closing_request_are_read_and_dropped(broken: bool) -> None:
    """Closing over them would reset the connection, and the reset could overtake the answer."""
    head = CHUNKED.replace(b"Host: x", b"Host: x\r\nConnection: close") + b"zz\r\n"
    with wire(HELLO) as w:
        w.feed((head if broken else GET.replace(b"Host: x", b"Host: x\r\nConnection: close")) + b"x" * 1000)
        assert w.transport.eof
        assert not w.transport.closing


def test_a_handshake_whose_code_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left to read the module: 503, and the next one tries again."""
    load = builtins.__import__

    def no_descriptors(name: str, namespace: Any = None, *rest: Any) -> Any:
        if name == "websocket" and (namespace or {}).get("__name__") == "hybridworker.http11.connection":
            raise OSError(errno.EMFILE, "Too many open files", "/somewhere")
        return load(name, namespace, *rest)

    monkeypatch.setattr(builtins, "__import__", no_descriptors)
    with wire(HELLO) as w:
        sent = w.feed(
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert sent.startswith(b"HTTP/1.1 503 ")
        ((_, line),) = w.log.lines
        assert "Too many open files" in line
