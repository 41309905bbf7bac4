"""Chapter H, third part: the events of a response (asgiref ``specs/www.rst`` 2.5, "Response")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .case import Case, body, length, start
from .core import logged, seen_app, usable
from .registry import NotDecidable
from .servers import Subject
from .wire import Answer, App


async def h33_app(case: Case) -> None:
    await case.send(start(200, length(2)))
    raise RuntimeError("between start and body")


def h33_an_error_before_the_body_is_a_500(subject: Subject) -> None:
    """An exception between the start and the first body is still a clean 500."""
    with subject.server.connect() as wire:
        wire.request(h33_app)
        assert wire.answer().status == 500


async def h34_length_app(case: Case) -> None:
    await case.send(start(200, [(b"transfer-encoding", b"gzip"), *length(2)]))
    await case.send(body(b"ok"))


async def h34_chunked_app(case: Case) -> None:
    await case.send(start(200, [(b"transfer-encoding", b"chunked")]))
    await case.send(body(b"ok"))


def h34_transfer_encoding_is_the_servers(subject: Subject) -> None:
    """A Transfer-Encoding header of the application's is ignored."""
    for app in (h34_length_app, h34_chunked_app):
        with subject.server.connect() as wire:
            wire.request(app)
            assert wire.answer().body == b"ok"
            assert usable(wire)
    _, answer = subject.server.call(h34_chunked_app, version="1.0")
    assert (answer.body, answer.all(b"transfer-encoding")) == (b"ok", []), "it goes to an HTTP/1.0 client"


async def h35_app(case: Case) -> None:
    await case.send(start())
    await case.send(body(b"one ", more=True))
    await case.send(body(b"", more=True))
    await case.send(body(b"two"))


def h35_framing_without_a_length(subject: Subject) -> None:
    """Without Content-Length an HTTP/1.1 response is chunked, and an HTTP/1.0 one ends with the connection."""
    with subject.server.connect() as wire:
        wire.request(h35_app)
        answer = wire.answer()
        assert (answer.one(b"transfer-encoding"), answer.body) == (b"chunked", b"one two")
        assert usable(wire)
    _, answer = subject.server.call(h35_app, version="1.0")
    assert answer.all(b"transfer-encoding") == [], "an HTTP/1.0 client gets chunks"
    assert answer.body == b"one two"


FIELDS = [(b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2"), (b"set-cookie", b"b=2"), (b"x-b", b"3")]


async def h36_app(case: Case) -> None:
    await case.answer(headers=FIELDS)


def h36_order_is_kept(subject: Subject) -> None:
    """Response headers keep their order, and repeated ones are never folded."""
    _, answer = subject.server.call(h36_app)
    assert [field for field in answer.headers if field[0] in (b"x-a", b"x-b", b"set-cookie")] == FIELDS


async def h37_none_app(case: Case) -> None:
    await case.send({"type": "http.response.start", "status": 201})
    await case.send(body(b"ok"))


async def h37_generator_app(case: Case) -> None:
    await case.send(start(201, (field for field in [(b"x-a", b"1"), (b"content-length", b"2")])))
    await case.send(body(b"ok"))


async def h37_tuple_app(case: Case) -> None:
    await case.send(start(201, ([b"x-a", b"1"], (b"content-length", b"2"))))
    await case.send(body(b"ok"))


def h37_headers_are_any_iterable(subject: Subject) -> None:
    """headers may be missing, and may be any iterable of pairs; status is an int."""
    for app in (h37_none_app, h37_generator_app, h37_tuple_app):
        run, answer = subject.server.call(app)
        assert run.ended() is None, app.__name__
        assert (answer.status, answer.body) == (201, b"ok"), app.__name__
        assert answer.all(b"x-a") == ([] if app is h37_none_app else [b"1"]), app.__name__


async def h38_app(case: Case) -> None:
    await case.send(start(200, length(0)))
    await case.send({"type": "http.response.body"})


def h38_body_is_optional(subject: Subject) -> None:
    """A body event without body and more_body ends the response."""
    with subject.server.connect() as wire:
        run = wire.request(h38_app)
        answer = wire.answer()
        assert (answer.status, answer.body, run.ended()) == (200, b"", None)
        assert usable(wire)


async def h39_app(case: Case) -> None:
    await case.answer(b"first")
    await case.refused(body(b"second"))


def h39_nothing_after_the_last_body(subject: Subject) -> None:
    """Body events behind the last one are ignored, or raise."""
    with subject.server.connect() as wire:
        run = wire.request(h39_app)
        assert wire.answer().body == b"first"
        run.ended()
        assert usable(wire)


async def h40_app(case: Case) -> None:
    case.note("body before start", await case.refused(body(b"early")))
    await case.send(start(200, length(2)))
    case.note("second start", await case.refused(start(404)))
    await case.send(body(b"ok"))


def h40_wrong_order_raises(subject: Subject) -> None:
    """A body before the start, and a second start, raise."""
    run, answer = subject.server.call(h40_app)
    assert run.wait("body before start"), "a body before the start is taken"
    assert run.wait("second start"), "a second start is taken"
    assert (answer.status, answer.body) == (200, b"ok")


async def h41_204_app(case: Case) -> None:
    await case.send(start(204))
    await case.send(body())


async def h41_304_app(case: Case) -> None:
    await case.send(start(304, length(5)))
    await case.send(body())


async def h41_200_app(case: Case) -> None:
    await case.answer(b"12345")


def h41_responses_without_a_body(subject: Subject) -> None:
    """HEAD, 204 and 304 have no body and no Transfer-Encoding; HEAD and 304 keep the Content-Length."""
    apps: list[tuple[str, App, bytes | None]] = [
        ("HEAD", h41_200_app, b"5"),
        ("GET", h41_304_app, b"5"),
        ("GET", h41_204_app, None),
    ]
    for method, app, size in apps:
        with subject.server.connect() as wire:
            run = wire.request(app, method)
            answer = wire.answer(method)
            assert run.ended() is None, f"{app.__name__}: {run.ended()}"
            assert answer.all(b"transfer-encoding") == [], app.__name__
            assert answer.one(b"content-length") == size, app.__name__
            assert usable(wire), f"{app.__name__}: the next answer is wrong"


async def h42_more_app(case: Case) -> None:
    await case.send(start(200, length(5)))
    await case.send(body(b"12345", more=True))
    await case.refused(body(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))


async def h42_fewer_app(case: Case) -> None:
    await case.send(start(200, length(5)))
    await case.send(body(b"123", more=True))
    await case.refused(body())


def h42_a_wrong_content_length(subject: Subject) -> None:
    """Bytes beyond the Content-Length never go out, and after too few the connection is closed."""
    with subject.server.connect() as wire:
        wire.request(h42_more_app)
        assert wire.answer().body == b"12345"
        assert wire.closed(), "bytes beyond the Content-Length, or a connection that goes on"
    with subject.server.connect() as wire:
        wire.request(h42_fewer_app)
        wire.sock.settimeout(3)
        try:
            data = wire.rest()
        except TimeoutError:
            raise AssertionError("too few bytes, and the connection stays open") from None
        assert data.endswith(b"123")


async def h43_nothing_app(case: Case) -> None:
    await case.receive()


async def h43_start_app(case: Case) -> None:
    await case.send(start())
    await case.send(body(b"12345", more=True))


def h43_returning_too_early(subject: Subject) -> None:
    """Returning without a response is a 500; returning amid one cuts the connection."""
    _, answer = subject.server.call(h43_nothing_app)
    assert answer.status == 500
    with subject.server.connect() as wire:
        wire.request(h43_start_app)
        wire.sock.settimeout(3)
        try:
            data = wire.rest()
        except ConnectionError:
            return
        except TimeoutError:
            raise AssertionError("the connection stays open") from None
        assert not data.endswith(b"0\r\n\r\n"), "the response ends as if it were complete"


async def h44_app(case: Case) -> None:
    await case.send(start())
    await case.send(body(b"first", more=True))
    while (await case.receive())["type"] != "http.disconnect":
        pass
    await case.refused(body(b"more", more=True))


def h44_send_after_the_client_has_gone(subject: Subject) -> None:
    """send() after a disconnect raises a subclass of OSError."""
    with subject.server.connect() as wire:
        run = wire.request(h44_app)
        wire.exactly(20)
        wire.reset()
    run.ended()
    assert run.all("refused"), "it is taken"
    assert "OSError" in run.wait("refused"), f"it raises {run.wait('refused')[0]}"


async def blocked_app(case: Case) -> None:
    """Send until a send() blocks; what wakes it escapes."""
    await case.send(start())
    await case.flood(body(b"x" * 65536, more=True))


def leave_blocked(subject: Subject) -> Any:
    """Leave an application that is blocked in send(); what ended it."""
    with subject.server.connect() as wire:
        run = wire.request(blocked_app)
        run.wait("blocked", 30)
        wire.reset()
    ended = run.ended()
    if run.all("woken"):
        raise AssertionError("send() returns as if the bytes were sent")
    return ended


def h45_a_blocked_send_is_woken(subject: Subject) -> None:
    """A send() that waits for a client that leaves wakes and raises a subclass of OSError."""
    ended = leave_blocked(subject)
    assert ended in ("ClientDisconnected", "OSError", "BrokenPipeError", "ConnectionResetError"), f"it raises {ended}"


def h46_that_exception_is_not_logged(subject: Subject) -> None:
    """The OSError out of send(), not caught by the application, is not logged as an error."""
    before = len(subject.server.log())
    try:
        ended = leave_blocked(subject)
    except AssertionError as exc:
        raise NotDecidable("send() never raised") from exc
    if ended == "CancelledError":
        raise NotDecidable("the application is cancelled instead")
    assert not logged(subject, before, blocked_app), "it is logged"


async def h47_app(case: Case) -> None:
    content = await case.read()
    if content == b"first":
        await case.released()
    await case.answer(content)


def h47_pipelined_responses_keep_their_order(subject: Subject) -> None:
    """Requests sent in one go are answered in their order, however long each takes."""
    with subject.server.connect() as wire:
        heads = [(*wire.head(h47_app, "POST", content=word), word) for word in (b"first", b"second", b"third")]
        wire.send(b"".join(head + word for _, head, word in heads))
        heads[0][0].wait("end of body")
        heads[0][0].release()
        assert [wire.answer().body for _ in range(3)] == [b"first", b"second", b"third"]


#: The case before this one, to try its receive and send once more.
earlier: list[Case] = []


async def h48_app(case: Case) -> None:
    await case.read()
    if earlier:
        old = earlier.pop()
        case.note("fresh", case.receive != old.receive and case.send != old.send and case.scope is not old.scope)
        await old.refused(body(b"from the past"))
        await old.refused(start(404))
        case.note("event", await old.receive_soon())
    else:
        earlier.append(case)
    await case.answer()


def h48_a_finished_request_is_inert(subject: Subject) -> None:
    """Each request has its own scope, receive and send; those of a finished one do nothing any more."""
    with subject.server.connect() as wire:
        wire.request(h48_app)
        assert wire.answer().body == b"ok"
        run = wire.request(h48_app)
        assert wire.answer().body == b"ok"
        assert usable(wire)
    assert run.wait("fresh")
    assert run.wait("event")["type"] == "http.disconnect", f"the old receive() returns {run.wait('event')['type']}"


async def h49_app(case: Case) -> None:
    await case.answer(headers=[(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT"), (b"server", b"mine")])


def h49_date_and_server(subject: Subject) -> None:
    """Date and Server are added, unless the application gives them."""
    _, answer = subject.server.call(seen_app)
    assert (len(answer.all(b"date")), len(answer.all(b"server"))) == (1, 1)
    _, answer = subject.server.call(h49_app)
    assert (answer.all(b"date"), answer.all(b"server")) == ([b"Thu, 01 Jan 1970 00:00:00 GMT"], [b"mine"])


def _content(kind: Callable[[bytes], Any]) -> App:
    async def app(case: Case) -> None:
        await case.send(start(200, length(2)))
        await case.refused(body(kind(b"ok")))

    return app


async def h50_bytearray_app(case: Case) -> None:
    await _content(bytearray)(case)


async def h50_memoryview_app(case: Case) -> None:
    await _content(memoryview)(case)


def h50_bytes_like_bodies(subject: Subject) -> None:
    """A bytearray or memoryview as body is taken, or refused clearly (optional)."""
    for app in (h50_bytearray_app, h50_memoryview_app):
        with subject.server.connect() as wire:
            run = wire.request(app)
            answer: Answer | None
            try:
                answer = wire.answer()
            except (OSError, AssertionError):
                answer = None
            run.ended()
            if run.all("taken"):
                assert answer is not None, app.__name__
                assert answer.body == b"ok", app.__name__
