"""Chapter H, second part: the events of a request (asgiref ``specs/www.rst`` 2.5, "Request" and "Disconnect")."""

from __future__ import annotations

import asyncio
import hashlib
import select

from .case import Case
from .core import usable
from .servers import Subject
from .wire import Run, Wire


async def events_app(case: Case) -> None:
    """Note every event up to the end of the body, and answer."""
    case.note("headers", case.scope["headers"])
    while True:
        event = await case.receive()
        case.note("event", event)
        if event["type"] != "http.request" or not event.get("more_body", False):
            break
    await case.answer()


async def digest_app(case: Case) -> None:
    """Answer with the size and the SHA-256 of the body."""
    content = await case.read()
    await case.answer(f"{len(content)} {hashlib.sha256(content).hexdigest()}".encode())


def h21_an_empty_body_is_one_event(subject: Subject) -> None:
    """Without a body there is one http.request event, empty and the last."""
    run, _ = subject.server.call(events_app)
    (event,) = run.all("event")
    assert event["type"] == "http.request"
    assert event.get("body", b"") == b""
    assert event.get("more_body", False) is False


def h22_chunked_bodies_are_decoded(subject: Subject) -> None:
    """Of a chunked body the application sees the content: no chunk extensions, no trailers."""
    with subject.server.connect() as wire:
        run, head = wire.head(events_app, "POST", headers=[(b"Transfer-Encoding", b"chunked")])
        wire.send(head + b'5;a=b\r\nfirst\r\n6;c="d"\r\nsecond\r\n0\r\nX-Trailer: late\r\n\r\n')
        assert wire.answer().status == 200
    assert b"".join(event.get("body", b"") for event in run.all("event")) == b"firstsecond"
    assert b"x-trailer" not in [name.lower() for name, _ in run.wait("headers")]


def h23_bodies_arrive_whole(subject: Subject) -> None:
    """A body of any size, in one segment or many, arrives byte by byte."""
    pattern = bytes(range(256)) * 40961
    for size in (0, 1, 65535, 65536, 65537, 10 << 20):
        content = pattern[:size]
        for piece in (size or 1, max(1, size // 7)):
            with subject.server.connect() as wire:
                _, head = wire.head(digest_app, "POST", content=content)
                wire.send(head)
                for at in range(0, size, piece):
                    wire.send(content[at : at + piece])
                expected = f"{size} {hashlib.sha256(content).hexdigest()}".encode()
                assert wire.answer().body == expected, f"{size} bytes in pieces of {piece}"


async def h24_app(case: Case) -> None:
    case.note("content", await case.read())
    await case.answer()
    while (event := await case.receive())["type"] == "http.request":
        case.note("another", event)


def h24_one_last_event(subject: Subject) -> None:
    """Exactly one event says that no more is to come."""
    with subject.server.connect() as wire:
        run = wire.request(h24_app, "POST", content=b"x" * 100_000)
        assert wire.answer().status == 200
    run.ended()
    assert run.wait("content") == b"x" * 100_000
    assert run.all("another") == []


async def h25_app(case: Case) -> None:
    await case.answer(b"early")


def h25_answer_before_the_body_is_read(subject: Subject) -> None:
    """An answer that does not wait for the body arrives, and what follows it on the connection is right."""
    for size in (1000, 4 << 20):
        with subject.server.connect() as wire:
            _, head = wire.head(h25_app, "POST", content=b"x" * size)
            try:
                wire.send(head + b"x" * size)
            except ConnectionError:  # the server has closed, as it may; its answer may still be read
                pass
            assert wire.answer().body == b"early"
            assert usable(wire), f"after an early answer to {size} bytes"


async def h26_app(case: Case) -> None:
    await case.read()
    await case.answer()
    case.note("event", await case.receive_soon())


def h26_disconnect_after_the_response(subject: Subject) -> None:
    """After a complete response receive() returns http.disconnect, even if the client is still there."""
    with subject.server.connect() as wire:
        run = wire.request(h26_app)
        assert wire.answer().body == b"ok"
        event = run.wait("event")
    assert event["type"] == "http.disconnect", f"it returns {event['type']}"


async def disconnect_app(case: Case) -> None:
    """Read the body, wait for the client to leave, and ask again."""
    case.note("content", await case.read())
    case.note("waiting")
    case.note("event", await case.receive_soon(6))
    for _ in range(2):
        case.note("again", await case.receive_soon())


def leave(subject: Subject) -> Run:
    """A client that goes while the application waits."""
    with subject.server.connect() as wire:
        run = wire.request(disconnect_app)
        run.wait("waiting")
    run.ended()
    return run


def h27_disconnect_when_the_client_leaves(subject: Subject) -> None:
    """A client that closes gives http.disconnect, also while receive() is awaited."""
    assert leave(subject).wait("event")["type"] == "http.disconnect"


def h28_disconnect_is_repeated(subject: Subject) -> None:
    """After http.disconnect receive() returns it again and does not hang."""
    run = leave(subject)
    events = [run.wait("event"), *run.all("again")]
    assert [event["type"] for event in events] == ["http.disconnect"] * 3


async def h29_app(case: Case) -> None:
    case.note("content", await case.read())


def h29_a_cut_body_is_no_complete_one(subject: Subject) -> None:
    """A body that is cut ends in http.disconnect, never as if it were complete."""
    for framing, piece in (
        ((b"Content-Length", b"100"), b"ten bytes."),
        ((b"Transfer-Encoding", b"chunked"), b"a\r\nten bytes.\r\n"),
    ):
        with subject.server.connect() as wire:
            run, head = wire.head(h29_app, "POST", headers=[framing])
            wire.send(head + piece)
            wait_for_call(wire, run)
        if run.all("call"):
            assert run.wait("end of body") == "http.disconnect"


def wait_for_call(wire: Wire, run: Run) -> None:
    """Wait until the application is called, or for a moment if the server waits for the whole body."""
    for _ in range(50):
        if run.all("call"):
            return
        select.select([wire.sock], [], [], 0.02)


async def h30_app(case: Case) -> None:
    await case.released()
    await case.answer()


def h30_reading_pauses(subject: Subject) -> None:
    """While the application does not ask for the body, the server does not take all of it."""
    with subject.server.connect() as wire:
        run, head = wire.head(h30_app, "POST", headers=[(b"Content-Length", b"%d" % (1 << 30))])
        wire.send(head)
        assert wire.write_until_blocked(b"x" * 65536), "it took 96 MiB"
        run.release()


async def h31_app(case: Case) -> None:
    await case.read()
    waiting = asyncio.ensure_future(case.receive())
    await asyncio.sleep(0.01)  # let it begin to wait
    waiting.cancel()
    done, _ = await asyncio.wait([waiting], timeout=2)
    case.note("cancelled", bool(done) and waiting.cancelled())
    await case.answer()


def h31_receive_can_be_cancelled(subject: Subject) -> None:
    """Cancelling a receive() raises CancelledError out of it."""
    run, _ = subject.server.call(h31_app)
    assert run.wait("cancelled")


async def h32_reading_app(case: Case) -> None:
    await case.answer(await case.read())


async def h32_refusing_app(case: Case) -> None:
    await case.answer(b"no", 403)


def h32_expect_100_continue(subject: Subject) -> None:
    """100 Continue comes when the application asks for the body, and not when it answers without."""
    expect = [(b"Expect", b"100-continue")]
    with subject.server.connect() as wire:
        _, head = wire.head(h32_reading_app, "POST", headers=expect, content=b"hello")
        wire.send(head)
        assert wire.line().startswith(b"HTTP/1.1 100")
        assert wire.fields() is not None
        wire.send(b"hello")
        assert wire.answer().body == b"hello"
    with subject.server.connect() as wire:
        _, head = wire.head(h32_refusing_app, "POST", headers=expect, content=b"hello")
        wire.send(head)
        answer = wire.answer()
        assert answer.status == 403
        assert answer.informational == []
