"""RequestResponseCycle: receive() and send() of one request, seen from the wire."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest

from hybridworker.application.directory import Part
from hybridworker.application.parts import Parts
from hybridworker.asgi import ASGIApp, Message, Receive, Scope, Send
from hybridworker.errors import ClientDisconnected, InvalidMessage, ResponseError, UnexpectedMessage, WorkerExit
from hybridworker.group.durations import WEBSOCKETS, WIDTH
from hybridworker.group.scoreboard import THREADED
from hybridworker.log.views import ResponseView
from tests.harness import GET, HELLO, body, responder, start, wire
from tests.waiting import until

HTTP10 = b"GET / HTTP/1.0\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def answer(request: bytes, *messages: Message, **options: Any) -> bytes:
    """What an application that sends ``messages`` makes of ``request`` on the wire."""
    with wire(responder(*messages), **options) as w:
        return w.feed(request)


def failure(request: bytes, *messages: Message) -> tuple[BaseException, bytes]:
    """The exception raised by the last of ``messages``, and what was written."""
    caught: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as exc:
            caught.append(exc)
            raise

    with wire(app) as w:
        sent = w.feed(request)
        assert len(caught) == 1, "the last message was accepted"
        assert len(w.log.at("exception")) == 1
        return caught[0], sent


# -- framing


def test_h35_a_body_without_length_is_chunked() -> None:
    """HTTP/1.1 frames a body of unknown length in chunks."""
    sent = answer(GET, start(), body(b"ab", more=True), body(b"", more=True), body(b"cde"))
    assert sent == b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"


def test_h35_http10_ends_a_body_without_length_by_closing() -> None:
    """HTTP/1.0 knows no chunks."""
    with wire(responder(start(), body(b"ab", more=True), body(b"cde"))) as w:
        assert w.feed(HTTP10) == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcde"
        assert w.transport.closing


def test_h35_http10_keep_alive_without_length_closes_all_the_same() -> None:
    """The end of the connection is the end of the body."""
    with wire(responder(start(), body(b"ab"))) as w:
        sent = w.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"Connection: close" in sent
        assert w.transport.eof


def test_an_empty_body_without_length_is_chunked() -> None:
    """The application may not have known that there would be nothing."""
    assert answer(GET, start(), body()).endswith(b"\r\n\r\n0\r\n\r\n")


def test_a_large_chunk_is_not_copied() -> None:
    """Above the joining size the chunk goes out beside its framing, and is framed right."""
    data = b"x" * 70000
    sent = answer(GET, start(), body(data, more=True), body(data))
    assert sent.split(b"\r\n\r\n", 1)[1] == b"11170\r\n%b\r\n11170\r\n%b\r\n0\r\n\r\n" % (data, data)


def test_a_large_body_with_length_is_written_once() -> None:
    """Head and a large body leave in one ``writelines``."""
    data = b"x" * 70000
    with wire(responder(start(200, (b"content-length", b"70000")), body(data))) as w:
        assert w.feed(GET).endswith(b"\r\n\r\n" + data)
        assert len(w.transport.writes) == 1


@pytest.mark.parametrize("code", [200, 204, 304])
def test_h41_no_body_where_there_can_be_none(code: int) -> None:
    """HEAD, 204 and 304 carry no body and no Transfer-Encoding, and the connection goes on."""
    for request in [HEAD] if code == 200 else [GET, HEAD]:
        with wire(responder(start(code), body(b"abc", more=True), body(b"def"))) as w:
            sent = w.feed(request)
            assert sent.endswith(b"\r\n\r\n")
            assert b"ransfer" not in sent
            assert not w.transport.closing
            assert w.feed(request) == sent * 2


def test_h41_head_and_304_keep_the_content_length() -> None:
    """The length is that of the body a GET would have had."""
    length = (b"content-length", b"7")
    assert b"content-length: 7\r\n" in answer(HEAD, start(200, length), body())
    assert b"content-length: 7\r\n" in answer(GET, start(304, length), body())


def test_h41_204_has_no_content_length() -> None:
    """RFC 9110 8.6."""
    sent = answer(GET, start(204, (b"Content-Length", b"0"), (b"a", b"b")), body())
    assert sent == b"HTTP/1.1 204 No Content\r\na: b\r\n\r\n"


def test_h42_too_many_bytes_are_an_error_and_never_written() -> None:
    """What exceeds Content-Length would be read as the next response."""
    exc, sent = failure(GET, start(200, (b"content-length", b"3")), body(b"abcd"))
    assert isinstance(exc, ResponseError)
    assert status(sent) == 500
    with wire(responder(start(200, (b"content-length", b"3")), body(b"ab", more=True), body(b"cd"))) as w:
        assert w.feed(GET).endswith(b"\r\n\r\nab")
        assert w.transport.aborted


def test_h42_too_few_bytes_cut_the_connection() -> None:
    """The client waits for bytes that do not come: it must see the end."""
    with wire(responder(start(200, (b"content-length", b"3")), body(b"a", more=True), body(b"b"))) as w:
        assert w.feed(GET).endswith(b"\r\n\r\na")
        assert w.transport.aborted


def test_h34_the_applications_transfer_encoding_is_ignored() -> None:
    """The server frames; two opinions on framing would be a smuggling primitive."""
    sent = answer(GET, start(200, (b"transfer-encoding", b"gzip"), (b"content-length", b"2")), body(b"ab"))
    assert sent == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"


def test_connection_close_of_the_application_is_obeyed() -> None:
    """It is said once, and done."""
    with wire(responder(start(200, (b"Connection", b"close"), (b"content-length", b"0")), body())) as w:
        assert w.feed(GET) == b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n"
        assert w.transport.eof


def test_h36_order_and_repeats_of_fields_are_kept() -> None:
    """``Set-Cookie`` is never folded."""
    sent = answer(GET, start(200, (b"B", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b"), (b"A", b"2")), body(b""))
    assert b"B: 1\r\nset-cookie: a\r\nset-cookie: b\r\nA: 2\r\n" in sent


def test_h49_date_and_server_are_added_once() -> None:
    """The application's own win."""
    with wire(responder(start(200, (b"server", b"mine"), (b"content-length", b"0")), body())) as w:
        w.context.clock.tick(0.0)
        sent = w.feed(GET)
        assert sent.lower().count(b"server:") == 1
        assert b"server: mine" in sent
        assert sent.count(b"Date: ") == 1
    with wire(responder(start(200, (b"Date", b"now"), (b"content-length", b"0")), body())) as w:
        w.context.clock.tick(0.0)
        sent = w.feed(GET)
        assert sent.count(b"Date: ") == 1
        assert b"Server: gunicorn\r\n" in sent


def test_h37_headers_are_optional_and_any_iterable() -> None:
    """The specification asks for an iterable, no more."""
    assert status(answer(GET, {"type": "http.response.start", "status": 200}, body())) == 200
    headers = ((name, b"1") for name in (b"a", b"b"))
    assert b"a: 1\r\nb: 1\r\n" in answer(
        GET, {"type": "http.response.start", "status": 200, "headers": headers}, body()
    )


def test_h38_body_is_optional() -> None:
    """``body`` defaults to nothing, ``more_body`` to false."""
    assert answer(GET, start(200, (b"content-length", b"0")), {"type": "http.response.body"}).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc")])
def test_h50_bytes_like_bodies_are_accepted(data: Any) -> None:
    """A ``bytearray`` or ``memoryview`` will do."""
    assert answer(GET, start(200, (b"content-length", b"3")), body(data)).endswith(b"\r\n\r\nabc")


def test_a_reason_phrase_reaches_the_wire() -> None:
    """WSGI applications choose their own."""
    sent = answer(GET, start(299, **{"hybridworker.reason": b"Custom Reason"}), body())
    assert sent.startswith(b"HTTP/1.1 299 Custom Reason\r\n")


# -- wrong messages


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([body(b"x")], UnexpectedMessage),
        ([start(), start()], UnexpectedMessage),
        ([{"type": "http.response.unknown"}], UnexpectedMessage),
        ([{"type": "websocket.accept"}], UnexpectedMessage),
        ([{"type": "http.response.trailers", "headers": []}], UnexpectedMessage),
        ([{"type": "http.response.start"}], InvalidMessage),
        ([{"type": "http.response.start", "status": "200"}], InvalidMessage),
        ([{"type": "http.response.start", "status": True}], InvalidMessage),
        ([start(101)], InvalidMessage),
        ([start(200, ("a", "b"))], InvalidMessage),  # type: ignore[arg-type]
        ([start(200, (b"a", b"b\r\nc: d"))], InvalidMessage),
        ([start(200, (b"a b", b"c"))], InvalidMessage),
        ([start(200, (b"content-length", b"-1"))], InvalidMessage),
        ([start(200, (b"content-length", b"1"), (b"content-length", b"2"))], InvalidMessage),
        ([start(), body("text")], InvalidMessage),
        ([start(200, **{"hybridworker.reason": b"a\r\nb: c"})], InvalidMessage),
    ],
)
def test_c6_c7_c8_wrong_messages_raise_and_nothing_is_split(messages: list[Message], error: type[Exception]) -> None:
    """One exception at the ``send()`` that was wrong; the client gets a clean 500."""
    exc, sent = failure(GET, *messages)
    assert isinstance(exc, error)
    assert sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert sent.count(b"HTTP/1.1") == 1


def test_an_unexpected_message_names_state_and_expectation() -> None:
    """The message says what came, in which state, and what would have been right."""
    exc, _ = failure(GET, body(b"x"))
    text = str(exc)
    assert "http.response.body" in text
    assert "WAITING" in text
    assert "http.response.start" in text


def test_c9_unknown_keys_never_raise() -> None:
    """Messages may carry more than the server knows."""
    assert status(answer(GET, start(200, more=1), {**body(), "else": 2})) == 200


def test_h39_a_message_after_the_end_raises() -> None:
    """After the last body message nothing more can be sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await HELLO(scope, receive, send)
        with pytest.raises(UnexpectedMessage):
            await send(body(b"more"))

    with wire(app) as w:
        assert w.feed(GET).endswith(b"hello")
        assert w.log.at("exception") == []


# -- the application's failures


def test_c10_an_exception_before_the_head_is_a_500() -> None:
    """The client gets an answer, the log the traceback."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with wire(app) as w:
        assert status(w.feed(GET)) == 500
        assert w.log.at("exception") == ["Error handling request GET /"]


def test_h33_an_exception_between_start_and_body_is_a_clean_500() -> None:
    """The head is held back until the first body message."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        raise ZeroDivisionError

    with wire(app) as w:
        sent = w.feed(GET)
        assert status(sent) == 500
        assert sent.count(b"HTTP/1.1") == 1


def test_c10_an_exception_amid_the_body_cuts_the_connection() -> None:
    """Never a false end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"x", more=True))
        raise ZeroDivisionError

    with wire(app) as w:
        assert not w.feed(GET).endswith(b"0\r\n\r\n")
        assert w.transport.aborted


def test_h43_returning_without_a_response_is_a_500() -> None:
    """The log says what was expected."""
    with wire(responder()) as w:
        assert status(w.feed(GET)) == 500
        assert "expected http.response.start" in w.log.at("error")[0]


def test_h43_returning_amid_the_body_cuts_the_connection() -> None:
    """An unfinished body must look unfinished."""
    with wire(responder(start(200), body(b"x", more=True))) as w:
        w.feed(GET)
        assert w.transport.aborted


def test_an_application_that_cancels_itself_is_an_error() -> None:
    """Only the server's own cancellation is silent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    with wire(app) as w:
        assert status(w.feed(GET)) == 500
        assert len(w.log.at("exception")) == 1


# -- receive


def test_h21_h24_an_empty_body_is_one_event() -> None:
    """At least one event, and exactly one that says it is the last."""
    events: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.append(await receive())
        await HELLO(scope, receive, send)
        events.append(await receive())
        events.append(await receive())

    with wire(app) as w:
        w.feed(GET)
        assert events == [
            {"type": "http.request", "body": b"", "more_body": False},
            {"type": "http.disconnect"},
            {"type": "http.disconnect"},
        ]


def test_h28_disconnect_is_repeated() -> None:
    """``receive()`` never hangs after a disconnect."""
    events: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        events.extend([await receive(), await receive(), await receive()])

    with wire(app) as w:
        w.feed(GET)
        w.lose()
        assert [event["type"] for event in events] == ["http.request", "http.disconnect", "http.disconnect"]


def test_h26_a_receive_that_waits_wakes_when_the_response_is_complete() -> None:
    """A task that listens for the disconnect ends with the response."""
    events: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

        async def listen() -> None:
            events.append(await receive())

        listener = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await HELLO(scope, receive, send)
        await listener

    with wire(app) as w:
        w.feed(GET)
        assert events == [{"type": "http.disconnect"}]


def test_h31_cancellation_passes_through_receive() -> None:
    """A timeout of the application's around ``receive()`` works, and the body is still there."""
    bodies: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bodies.append((await receive())["body"])
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", b"ab")
        assert bodies == [b"ab"]


# -- the client leaves


def test_h44_send_after_the_client_left_raises_an_oserror() -> None:
    """ASGI HTTP 2.4: and it is silent if it escapes."""
    caught: list[BaseException] = []
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await left.wait()
        try:
            await send(start())
            await send(body())
        except OSError as exc:
            caught.append(exc)
            raise

    with wire(app) as w:
        w.feed(GET)
        w.lose()
        left.set()
        w.run()
        assert isinstance(caught[0], ClientDisconnected)
        assert [level for level, _ in w.log.lines] == ["debug"]


def test_h45_a_blocked_send_wakes_and_raises() -> None:
    """Also out of a full buffer."""
    caught: list[BaseException] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send(start())
            await send(body(b"x", more=True))
        except OSError as exc:
            caught.append(exc)
            raise

    with wire(app) as w:
        w.protocol.pause_writing()
        w.feed(GET)
        assert caught == []
        w.lose()
        assert isinstance(caught[0], ClientDisconnected)
        assert w.log.at("exception") == []


def test_h46_a_wrapped_disconnect_is_silent() -> None:
    """Frameworks wrap the exception, in others and in groups."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(send(start()))  # type: ignore[arg-type]
        except BaseExceptionGroup as exc:
            raise RuntimeError("wrapped") from exc

    with wire(app) as w:
        w.feed(GET)
        w.lose()
        assert w.log.at("exception") == []


def test_another_error_after_the_client_left_is_logged() -> None:
    """Only the disconnect itself is no news."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await receive()
        raise ZeroDivisionError

    with wire(app) as w:
        w.feed(GET)
        w.lose()
        assert len(w.log.at("exception")) == 1


def test_background_work_after_the_response_holds_nobody_up() -> None:
    """The next request of the connection is served while the application still runs."""
    event = asyncio.Event()
    done: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await HELLO(scope, receive, send)
        await event.wait()
        done.append(1)

    with wire(app) as w:
        w.feed(GET)
        assert w.feed(GET).count(b"hello") == 2
        assert len(w.context.cycles) == 2
        event.set()
        w.run()
        assert done == [1, 1]
        assert not w.context.cycles


def test_an_exception_in_background_work_is_logged_and_harms_nobody() -> None:
    """The response was complete; there is nothing to add to it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await HELLO(scope, receive, send)
        raise ZeroDivisionError

    with wire(app) as w:
        assert w.feed(GET, GET).count(b"hello") == 2
        assert len(w.log.at("exception")) == 2


# -- informational responses and trailers


def test_x13_an_early_hint_is_a_103_before_the_head() -> None:
    """Several are allowed, before the start message or after it."""
    hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
    sent = answer(GET, hint, start(200, (b"content-length", b"0")), hint, body())
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
    assert sent == early * 2 + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def test_a_100_that_was_sent_is_not_waited_for() -> None:
    """The client sends its body, and the connection goes on."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    head = start(200, (b"content-length", b"2"))
    with wire(responder({"type": "http.response.informational", "status": 100}, head, body(b"ok"))) as w:
        sent = w.feed(request)
        assert sent.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert b"onnection: close" not in sent
        w.feed(b"12345")
        assert w.feed(GET).count(b"HTTP/1.1 200 OK") == 2


def test_gunicorns_informational_message_is_a_1xx() -> None:
    """What applications written for gunicorn's own worker send."""
    message = {"type": "http.response.informational", "status": 103, "headers": [(b"link", b"</a>")]}
    sent = answer(GET, message, start(200, (b"content-length", b"0")), body())
    assert sent.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize("code", [101, 200, "103"])
def test_an_informational_status_is_checked(code: Any) -> None:
    """101 would end HTTP, and anything else is no 1xx."""
    exc, sent = failure(GET, {"type": "http.response.informational", "status": code})
    assert isinstance(exc, InvalidMessage)
    assert status(sent) == 500


def test_x14_no_1xx_for_http10() -> None:
    """RFC 9110 15.2."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    assert answer(HTTP10, hint, start(200), body()).startswith(b"HTTP/1.1 200 OK")


def test_x15_a_hint_after_the_head_is_ignored() -> None:
    """It never corrupts the body."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    sent = answer(GET, start(200), body(b"a", more=True), hint, body(b"b"))
    assert sent.endswith(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n")


def test_x16_link_values_are_validated() -> None:
    """CR and LF would split the response."""
    exc, sent = failure(GET, {"type": "http.response.early_hint", "links": [b"a\r\nb: c"]})
    assert isinstance(exc, InvalidMessage)
    assert status(sent) == 500


TE = GET.replace(b"Host: x", b"Host: x\r\nTE: gzip, Trailers")


def trailers(*headers: tuple[bytes, bytes], more: bool = False) -> Message:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": more}


def test_x17_x19_trailers_follow_the_body() -> None:
    """Several events accumulate; the response ends with the last."""
    sent = answer(TE, start(200, trailers=True), body(b"ab"), trailers((b"a", b"1"), more=True), trailers((b"b", b"2")))
    assert sent.endswith(b"2\r\nab\r\n0\r\na: 1\r\nb: 2\r\n\r\n")


def test_x18_no_trailers_for_a_client_that_did_not_ask() -> None:
    """The response ends correctly either way."""
    with wire(responder(start(200, trailers=True), body(b"ab"), trailers((b"a", b"1")))) as w:
        assert w.feed(GET).endswith(b"2\r\nab\r\n0\r\n\r\n")
        assert not w.transport.closing


def test_x20_trailers_with_a_content_length_are_dropped() -> None:
    """Only chunked framing has a place for them."""
    sent = answer(TE, start(200, (b"content-length", b"2"), trailers=True), body(b"ab"), trailers((b"a", b"1")))
    assert sent.endswith(b"\r\n\r\nab")


def test_trailers_may_not_frame() -> None:
    """RFC 9110 6.5.1."""
    with wire(responder(start(200, trailers=True), body(b"ab"), trailers((b"content-length", b"1")))) as w:
        w.feed(TE)
        assert w.transport.aborted


# -- context


variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_requests_share_no_context_variables() -> None:
    """Nothing set by one request is seen by another, pipelined or not."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        variable.set(1)
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.feed(GET * 3, GET)
        assert seen == [0] * 4


def test_requests_start_from_the_base_context() -> None:
    """What startup set is seen by every request."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.context.router.default.context.run(variable.set, 7)
        w.feed(GET, GET)
        assert seen == [7, 7]


@pytest.mark.parametrize("ending", ["answers", "fails", "leaves"])
def test_the_access_log_is_written_in_a_copy_of_the_context_of_the_task(ending: str) -> None:
    """Also from outside of the task, and by another one; it leaves nothing in there."""
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set(7)
        if ending == "answers":
            hello: Any = HELLO(scope, receive, send)
            await asyncio.get_running_loop().create_task(hello, context=contextvars.Context())
        elif ending == "leaves":
            await asyncio.Event().wait()
        seen.append(variable.get())

    def access(exchange: Any) -> None:
        seen.append(variable.get())
        variable.set(8)

    with wire(app, access=access, asgi_disconnect_grace_period=0) as w:
        w.feed(GET)
        if ending == "leaves":
            w.lose()
            w.end()
    assert seen == ([7] if ending == "leaves" else [7, 7])


def test_what_is_refused_behind_a_request_is_logged_outside_of_its_context() -> None:
    """It is parsed when the response before it is complete, which is amid the other's call."""
    seen: list[tuple[int, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set(7)
        await asyncio.sleep(0)
        await HELLO(scope, receive, send)

    with wire(app, access=lambda exchange: seen.append((exchange.status, variable.get()))) as w:
        w.feed(GET + b"GET / HTTP/1.1\r\n\r\n")
    assert seen == [(200, 7), (400, 0)]


def test_c14_h19_scopes_are_not_shared_and_state_is_a_shallow_copy() -> None:
    """A mutation by one request is invisible to the next; the objects in ``state`` are the same."""
    scopes: list[Scope] = []
    shared = object()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(dict(scope, state=dict(scope["state"]), extensions=dict(scope["extensions"])))
        scope["state"]["mine"] = scope["mine"] = scope["extensions"]["mine"] = 1
        await HELLO(scope, receive, send)

    with wire(app) as w:
        w.context.router.default.state["shared"] = shared
        w.feed(GET, GET)
        for scope in scopes:
            assert scope["state"] == {"shared": shared}
            assert "mine" not in scope
            assert "mine" not in scope["extensions"]


# -- the access log and hooks


class Hooks:
    """Records what gunicorn's hooks would get."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def before(self, scope: Scope) -> str:
        if scope["path"] == "/refused":
            raise PermissionError
        self.calls.append(scope["path"])
        return "view"

    def after(self, view: Any, environ: dict[str, Any] | None, answer: Any) -> None:
        self.calls.append((view, environ, ResponseView(answer).status))


def test_hooks_run_around_the_application() -> None:
    """``pre_request`` before it, ``post_request`` when the response is complete."""
    hooks = Hooks()
    with wire(HELLO, hooks=hooks) as w:
        w.feed(GET)
        assert hooks.calls == ["/", ("view", None, "200 OK")]


def test_post_request_sees_the_500_of_a_failed_application() -> None:
    """It is called behind the error page."""
    hooks = Hooks()
    with wire(responder(), hooks=hooks) as w:
        w.feed(GET)
        assert hooks.calls == ["/", ("view", None, "500 Internal Server Error")]


def test_a_pre_request_hook_that_raises_is_a_500() -> None:
    """The application is not called."""
    hooks = Hooks()
    with wire(HELLO, hooks=hooks) as w:
        assert status(w.feed(GET.replace(b"/ ", b"/refused "))) == 500
        assert hooks.calls == []


def test_every_request_is_logged_once() -> None:
    """Answered, failed or abandoned: one access line each."""
    lines: list[tuple[int, int | None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/wait":
            await receive()
            return
        if scope["path"] == "/fail":
            raise ZeroDivisionError
        await HELLO(scope, receive, send)

    with wire(app, access=lambda cycle: lines.append((cycle.status, cycle.sent))) as w:
        w.feed(GET, GET.replace(b"/ ", b"/wait "))
        w.lose()
    with wire(app, access=lambda cycle: lines.append((cycle.status, cycle.sent))) as w:
        w.feed(GET.replace(b"/ ", b"/fail "))
    assert lines == [(200, 5), (499, 0), (500, 0)]


def test_headers_are_kept_for_the_access_log() -> None:
    """``%({x}o)s`` shows them, also where the application gave a generator."""
    kept: list[Any] = []
    headers = ((name, b"1") for name in (b"a", b"b"))
    with wire(
        responder({"type": "http.response.start", "status": 200, "headers": headers}, body()),
        access=lambda cycle: kept.append(cycle.headers),
    ) as w:
        assert b"a: 1\r\nb: 1\r\n" in w.feed(GET)
    assert kept == [[(b"a", b"1"), (b"b", b"1")]]


def test_a_client_is_seen_to_leave_after_a_long_body() -> None:
    """Reading goes on when the body has been received, or a disconnect would go unnoticed."""
    events: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["more_body"]:
            pass
        events.append(message)
        events.append(await receive())

    with wire(app) as w:
        w.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert w.transport.reading
        assert events[-1]["type"] == "http.request"
        w.lose()
        assert events[-1]["type"] == "http.disconnect"


class Unusual(BaseException):
    """No Exception."""


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(7),
        KeyboardInterrupt(),
        GeneratorExit(),
        Unusual(),
        asyncio.CancelledError(),
        BaseExceptionGroup("", [asyncio.CancelledError()]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_c10_whatever_an_application_raises_ends_its_request_alone(error: BaseException, at_once: bool) -> None:
    """One line with the request, at once; the task itself has nothing to complain of. The worker goes on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if not at_once:
            await asyncio.sleep(0)
        raise error

    complaints: list[Any] = []
    with wire(app) as w:
        w.loop.set_exception_handler(lambda loop, context: complaints.append(context))
        assert status(w.feed(GET)) == 500
        assert w.log.lines == [("exception", "Error handling request GET /")]
        assert not w.context.cycles
    assert complaints == []


def test_a_coroutine_that_is_thrown_away_is_not_logged() -> None:
    """The interpreter closes those whose loop has ended before them."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await w.loop.create_future()

    with wire(app) as w:
        w.feed(GET)
        cycle = w.protocol.cycle
        thrown = cycle.run(app)
        thrown.send(None)
        thrown.close()
        assert w.log.lines == []
        w.context.cycles[cycle] = None  # there still is the other


# -- cancellations


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def test_a_request_that_cancels_its_own_task_is_an_error() -> None:
    """The task counts a cancellation, but it is not the server's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await cancel_itself()

    with wire(app) as w:
        assert status(w.feed(GET)) == 500
        assert w.log.lines == [("exception", "Error handling request GET /")]


@pytest.mark.parametrize("gone", [True, False])
def test_one_that_has_cancelled_itself_before_is_given_up_all_the_same(gone: bool) -> None:
    """After the grace period, whether the client has gone or has closed its side; once."""
    events: list[str] = []
    clean = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(asyncio.CancelledError):
            await cancel_itself()
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")
            await clean.wait()
            events.append("clean")

    with wire(app, asgi_disconnect_grace_period=0) as w:
        w.feed(GET)
        assert events == ["began"]
        cycle = w.protocol.cycle
        if gone:
            w.lose()
        else:
            w.eof()
        w.loop.run_until_complete(until(lambda: len(events) == 2))
        cycle.give_up()
        cycle.cancel()
        w.run()
        assert events == ["began", "cancelled"]
        clean.set()
        w.run()
        assert events == ["began", "cancelled", "clean"]
        assert w.log.lines == [("debug", "Request cancelled: GET /")]


async def take_back(wait: Callable[[], Awaitable[Any]]) -> None:
    try:
        await wait()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
        raise


async def return_early(wait: Callable[[], Awaitable[Any]]) -> None:
    with suppress(asyncio.CancelledError):
        await wait()


async def chain(wait: Callable[[], Awaitable[Any]]) -> None:
    try:
        await wait()
    except asyncio.CancelledError as exc:
        raise RuntimeError("the connection to the database is gone") from exc


async def group(wait: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(chain(wait))


async def fail(wait: Callable[[], Awaitable[Any]]) -> None:
    try:
        await wait()
    finally:
        raise ZeroDivisionError


async def fail_in_group(wait: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail(wait))
        tasks.create_task(chain(wait))


async def time_out(wait: Callable[[], Awaitable[Any]]) -> None:
    try:
        await wait()
    finally:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("end", "excused"),
    [
        (take_back, True),
        (return_early, True),
        (chain, True),
        (group, True),
        (fail, False),
        (fail_in_group, False),
        pytest.param(
            time_out,
            False,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11, 3), reason="asyncio.timeout() says nothing of it amid a cancellation"
            ),
        ),
    ],
)
def test_what_an_application_makes_of_being_cancelled_is_no_error(end: Any, excused: bool) -> None:
    """Unless it is an error of its own, in its cleaning up. The client is still there: it gets its 500."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await end(asyncio.Event().wait)

    with wire(app) as w:
        w.feed(GET)
        w.protocol.cycle.cancel()
        w.loop.run_until_complete(until(lambda: w.sent))
        assert status(w.sent) == 500
        if excused:
            assert w.log.lines == [("debug", "Request cancelled: GET /")]
        else:
            assert w.log.lines == [("exception", "Error handling request GET /")]


@contextmanager
def scope_of_anyio() -> Iterator[Callable[[], None]]:
    with anyio.CancelScope() as scope:
        yield scope.cancel


@pytest.mark.parametrize("first", ["worker", "application"])
@pytest.mark.parametrize("how", ["asyncio.timeout", "anyio", "itself"])
def test_both_may_cancel_in_the_same_moment(how: str, first: str) -> None:
    """A timer of the application's expires as the worker ends it: it does end, and is no error."""
    expire: list[Callable[[], object]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if how == "asyncio.timeout":
            async with asyncio.timeout(None) as timeout:
                expire.append(lambda: timeout.reschedule(0))
                await asyncio.Event().wait()
        elif how == "anyio":
            with scope_of_anyio() as cancel:
                expire.append(cancel)
                await asyncio.Event().wait()
        else:
            task = asyncio.current_task()
            assert task is not None
            expire.append(task.cancel)
        await asyncio.Event().wait()

    with wire(app) as w:
        w.feed(GET)
        acts = [w.protocol.cycle.cancel, *expire]

        async def act() -> None:
            for each in acts if first == "worker" else reversed(acts):
                each()

        w.loop.run_until_complete(act())
        w.loop.run_until_complete(until(lambda: w.sent))
        assert w.log.lines == [("debug", "Request cancelled: GET /")]


def test_the_exit_of_the_process_passes_through_a_request() -> None:
    """QUIT, INT and ABRT are raised inside of whatever they interrupt; they stop the loop as well, and are no error."""
    error = WorkerExit(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    with wire(app) as w:
        if sys.version_info >= (3, 12):  # nobody has the task: it would complain of an exception of its own
            w.feed(GET)
        else:
            w.loop.set_exception_handler(lambda loop, context: None)  # as the worker does: it is nobody's news
            with pytest.raises(WorkerExit):
                w.feed(GET)
        assert w.log.lines == []


class Call:
    """A WSGI call that is queued or runs, and its application."""

    gone = False
    start = None

    def __init__(self) -> None:
        self.cancelled = 0

    def begin(self, scope: Scope, body: bytes, ready: Any) -> Call:
        return self

    def cancel(self) -> None:
        self.cancelled += 1

    def whole(self) -> None:
        return None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Any:
        raise AssertionError("it is begun without a task")


def test_a_call_loses_its_request_with_the_connection() -> None:
    """At once: where it is queued, it never runs. It has its line in the access log."""
    call, lines = Call(), []
    with wire(call, is_wsgi=True, access=lambda cycle: lines.append(cycle.status)) as w:
        w.feed(GET)
        before = call.cancelled
        w.lose()
        assert (before, call.cancelled) == (0, 1)
        assert not w.context.cycles
        assert lines == [499]


def test_a_call_counts_once_whether_its_response_is_whole_or_not() -> None:
    """Siblings give a worker no connection for as long as it seems to have more calls than threads."""

    class Streaming(Call):
        error = None
        ready: Any

        def begin(self, scope: Scope, body: bytes, ready: Any) -> Call:
            self.ready = ready
            return self

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await send(start(200))
            await send(body(b"x"))

    call = Streaming()
    with wire(call, is_wsgi=True) as w:
        whole = w.context.router.default
        whole.part = Part("default", "default", HELLO)
        w.context.router.parts = Parts.of([whole], w.context.settings)
        w.feed(GET)
        assert w.context.slot[THREADED] == 1
        call.ready()
        w.run()
        assert status(w.sent) == 200
        assert w.context.slot[THREADED] == 0


def test_a_call_whose_client_has_closed_its_side_goes_on() -> None:
    """It cannot be stopped, so it may as well answer (asgi_disconnect_grace_period is for tasks)."""
    call = Call()
    with wire(call, is_wsgi=True, asgi_disconnect_grace_period=0) as w:
        w.feed(GET)
        assert w.eof()
        w.run()
        assert not call.cancelled
        assert w.context.cycles


def test_a_status_may_be_an_enum_of_the_application() -> None:
    """It is an int."""

    class Status(enum.IntEnum):
        OK = 200

    assert answer(GET, start(Status.OK), body()).startswith(b"HTTP/1.1 200 OK\r\n")


def test_hints_go_out_before_an_error_page() -> None:
    """Whatever was written before it stays before it."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    sent = answer(GET, hint, hint, hint)
    assert [part.split(b" ")[0] for part in sent.split(b"HTTP/1.1 ")[1:]] == [b"103", b"103", b"103", b"500"]


@pytest.mark.parametrize(
    ("request_", "head", "streams"),
    [
        (GET, start(), [True, True]),
        (HTTP10, start(), [True, True]),
        (GET, start(200, (b"content-length", b"5")), [False, False]),
        (HEAD, start(), [False, True]),
        (GET, start(304), [False, True]),
    ],
    ids=["chunked", "HTTP/1.0", "length", "HEAD", "304"],
)
def test_a_response_that_has_begun_without_a_length_is_a_stream(
    request_: bytes, head: Message, streams: list[bool]
) -> None:
    """From its head on, which is held back, to its end. What has no body is one when the application makes one."""
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        (cycle,) = w.context.cycles
        seen.append(cycle.streaming)
        for message in (head, body(b"he", more=True), body(b"llo")):
            await send(message)
            seen.append(cycle.streaming)

    with wire(app) as w:
        w.feed(request_)
        assert seen == [False, *streams, False]


# -- durations


def timed(connection: Any) -> list[int]:
    """How many requests were timed, by status class."""
    counts = connection.context.durations.take()
    return [sum(counts[at : at + WIDTH - 1]) for at in range(0, WEBSOCKETS, WIDTH)]


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        (HELLO, [1, 0, 0, 0]),
        (responder(start(404), body(b"a", more=True)), [0, 0, 1, 0]),
        (responder(start(200), body(b"a", more=True), body(b"b", more=True), body()), [1, 0, 0, 0]),
        (responder(start(200, trailers=True), body(b"a"), {"type": "http.response.trailers"}), [1, 0, 0, 0]),
        (responder(start(304), body()), [0, 1, 0, 0]),
        (responder(), [0, 0, 0, 1]),
    ],
    ids=["whole", "cut", "stream", "trailers", "empty", "error page"],
)
def test_a_request_is_timed_once(app: ASGIApp, expected: list[int]) -> None:
    """Whatever its response looks like."""
    with wire(app, metrics_path="/metrics") as connection:
        connection.feed(GET)
        assert timed(connection) == expected


def test_a_request_is_timed_to_the_first_byte() -> None:
    """A stream that goes on for long was fast all the same."""
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start(200))
        await send(body(b"a", more=True))
        await gone.wait()

    with wire(app, metrics_path="/metrics") as connection:
        connection.feed(GET)
        assert timed(connection) == [1, 0, 0, 0]


def test_a_client_that_has_gone_was_not_answered() -> None:
    """There is no first byte."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    with wire(app, metrics_path="/metrics") as connection:
        connection.feed(GET)
        connection.lose()
        assert timed(connection) == [0, 0, 0, 0]
