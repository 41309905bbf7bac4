"""WSGIResponder: PEP 3333, statement by statement; wsgiref.validate is around every well-behaved application."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gzip
import io
import logging
import os
import socket
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.wsgi import WsgiToAsgiInstance
from gunicorn import SERVER_SOFTWARE
from gunicorn.config import Config
from gunicorn.http import wsgi as gunicorn_wsgi

from hybridworker.asgi import Scope
from hybridworker.callcontext import variables_of
from hybridworker.errors import ClientDisconnected, ConfigurationError, WSGIError
from hybridworker.log.views import ResponseView
from hybridworker.wsgi.handoff import JOIN_MAX
from hybridworker.wsgi.responder import WSGIResponder
from hybridworker.wsgi.spool import AHEAD_MAX
from hybridworker.wsgi.streams import WHOLE_BODY_MAX
from tests.waiting import DEADLINE, passes, run, until
from tests.wsgicall import Bridge, Client, answer, bridge, environ_of, make_scope, post, serve, without_collector

HEADERS = [("Content-Type", "text/plain")]

#: What an application may do wrong here is the point of the test.
INVALID: dict[str, Any] = {"validate": False}


class Items:
    """An iterable that remembers who iterated, and who closed it, how often."""

    def __init__(self, *items: Any) -> None:
        self.items = iter(items)
        self.threads: set[int] = set()
        self.closed: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.threads.add(threading.get_ident())
        item = next(self.items)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self.closed.append(threading.get_ident())

    def closed_once_by_its_thread(self) -> bool:
        return self.closed == list(self.threads)


class Failure(Exception):
    pass


# -- environ


def test_it_is_what_it_says() -> None:
    """The responder is asgiref's, subclassed."""
    assert issubclass(WSGIResponder, WsgiToAsgiInstance)
    assert "__dict__" not in WSGIResponder.__slots__


def test_environ_has_the_keys_of_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that gunicorn's threaded worker puts there is there, but for gunicorn.socket."""
    monkeypatch.delenv("SCRIPT_NAME", raising=False)
    request = SimpleNamespace(
        method="GET",
        query="x=1",
        uri="/a?x=1",
        path="/a",
        version=(1, 1),
        headers=[("HOST", "example.org")],
        scheme="http",
        proxy_protocol_info=None,
        _expected_100_continue=False,
        body=None,
    )
    _, theirs = gunicorn_wsgi.create(request, None, ("127.0.0.1", 40000), ("127.0.0.1", 8000), Config())
    theirs["wsgi.multithread"] = True
    ours = environ_of(make_scope(b"/a?x=1"), threads=4)
    assert theirs.keys() - ours.keys() == {"gunicorn.socket"}
    assert ours.keys() - theirs.keys() == set()
    objects = {"wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.early_hints", "gunicorn.socket"}
    plain = theirs.keys() - objects - {"SERVER_SOFTWARE"}
    assert {key: ours[key] for key in plain} == {key: theirs[key] for key in plain}
    assert ours["SERVER_SOFTWARE"] == "gunicorn/test"
    assert SERVER_SOFTWARE == theirs["SERVER_SOFTWARE"]


def test_s2_url_scheme() -> None:
    """wsgi.url_scheme is the scheme of the scope."""
    assert environ_of(make_scope(scheme="https"))["wsgi.url_scheme"] == "https"


def test_access_log_sees_the_environ_of_the_application() -> None:
    """What the application writes into its environ can be logged."""
    scope = make_scope()
    environ = environ_of(scope)
    assert scope["hybridworker.environ"] is environ


def test_script_name_of_the_settings() -> None:
    """The configured mount point is taken off the path."""
    environ = environ_of(make_scope(b"/mount/x"), script_name="/mount")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mount", "/x")


@pytest.mark.parametrize("headers", [[], [(b"script_name", b"/mount")]])
def test_path_outside_of_the_mount_point_is_an_error(headers: Any) -> None:
    """A request that the application cannot be asked about is a 500, and says why."""
    with pytest.raises(ConfigurationError, match="the path b'/x' is not below SCRIPT_NAME '/mount'"):
        serve(answer([b"x"]), make_scope(b"/x", headers=headers), script_name="" if headers else "/mount")


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_other_scopes_are_refused(kind: str) -> None:
    """WSGI has neither lifespan nor WebSockets."""
    with pytest.raises(ValueError, match=f"serves http, not {kind}"):
        serve(answer([]), {"type": kind})


# -- wsgi.input


def reader(how: Callable[[Any], Any]) -> tuple[Callable[..., Any], list[Any]]:
    """An application that reads its input, and what it has read."""
    read: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        read.append(how(environ["wsgi.input"]))
        start_response("200 OK", HEADERS)
        return [b"x"]

    return app, read


def test_s7_no_body() -> None:
    """A request without a body has an empty input, and receive() is not called for it."""
    app, read = reader(lambda file: [file.read(1), file.readline(), *file])
    client = serve(app, make_scope(headers=[(b"host", b"x"), (b"expect", b"100-continue")]))
    assert read == [[b"", b""]]
    assert client.asked == 0


@pytest.mark.parametrize("length", [3, None], ids=["content-length", "chunked"])
@pytest.mark.parametrize(
    "how",
    [
        lambda file: file.read(10),
        lambda file: file.read(-1) if isinstance(file, io.IOBase) else file.read(10),
        lambda file: b"".join(file),
        lambda file: b"".join(file.readlines()),
        lambda file: file.readline() + file.readline(1) + file.read(5) + file.read(5),
    ],
)
def test_s7_body(how: Any, length: int | None) -> None:
    """The body can be read in every way, whatever its framing, and ends."""
    app, read = reader(how)
    serve(app, post(length), b"a\nb")
    assert read == [b"a\nb"]


def test_small_body_is_complete_before_the_call() -> None:
    """A body of up to 64 KiB is waited for on the loop, where a slow client holds no thread."""
    app, read = reader(lambda file: file.read(10))

    async def main() -> None:
        client = Client()
        async with bridge(app) as made:
            task = made.begin(client, post(4))
            await client.sees(lambda: client.asked == 1)
            assert made.pool.busy == made.pool.queued == 0
            client.upload(b"abcd", more=False)
            await task
            assert client.asked == 1

    run(main())
    assert read == [b"abcd"]


def test_body_that_comes_in_parts_after_all() -> None:
    """Another server may give a short body in parts; the rest is read on demand."""
    app, read = reader(lambda file: file.read(10))
    serve(app, post(4), b"ab", b"cd")
    assert read == [b"abcd"]


def test_small_body_whose_client_leaves() -> None:
    """The application is told by an OSError when it reads."""
    app, _ = reader(lambda file: file.read(10))
    with pytest.raises(ClientDisconnected):
        serve(app, post(4), None)


@pytest.mark.parametrize(
    "scope",
    [post(WHOLE_BODY_MAX + 1), post(None), post(3, (b"expect", b"100-continue"))],
    ids=["large", "chunked", "expect"],
)
def test_body_is_asked_for_when_it_is_read(scope: Any) -> None:
    """A large body, and one that the client holds back, is received when the application reads, and not before."""
    client = Client()
    started, go = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        started.set()
        passes(go)
        start_response("200 OK", HEADERS)
        return [environ["wsgi.input"].read(1), environ["wsgi.input"].read(2)]

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(client, scope)
            assert await asyncio.to_thread(started.wait, DEADLINE)
            assert client.asked == 0
            go.set()
            await client.sees(lambda: client.asked == 1)
            client.upload(b"a")
            await client.sees(lambda: client.asked == 2)
            client.upload(b"bc", more=False)
            await task
            assert client.body == b"abc"
            assert client.asked == 2

    run(main())


def test_upload_is_read_only_as_far_as_it_is_wanted() -> None:
    """What the application does not ask for is not received."""
    app, read = reader(lambda file: file.read(10))
    client = serve(app, post(None), *[b"x" * JOIN_MAX] * 20)
    assert read == [b"x" * 10]
    assert client.asked == 1


def test_client_that_leaves_amid_the_body() -> None:
    """A body that is cut is an OSError in the thread, and never a shorter body."""
    raised: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            environ["wsgi.input"].read(10)
        except OSError as exc:
            raised.append(exc)
            raise
        return []

    with pytest.raises(ClientDisconnected, match="before its request was complete"):
        serve(app, post(None), b"abc", None)
    assert len(raised) == 1


def test_reading_after_the_call() -> None:
    """A thread that the application has left behind gets an OSError, which does not blame the client."""
    files: list[Any] = []
    app, _ = reader(files.append)

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            await made.call(post(None), b"abc")
            with pytest.raises(OSError, match="the request is over"):
                await asyncio.to_thread(files[0].read)

    run(main())


@pytest.mark.parametrize("announced", [True, False])
def test_reading_in_close(announced: bool) -> None:
    """A body that nobody has read yet can be drained when the response is out, also one of announced length."""
    client = Client()
    read: list[bytes] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        class Draining(Items):
            def close(self) -> None:
                read.append(environ["wsgi.input"].read())

        start_response("200 OK", [("Content-Length", "2")] if announced else [])
        return Draining(b"ok")

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            task = made.begin(client, post(None))
            await client.sees(lambda: client.asked and client.body)
            assert not client.complete  # it would end the request, and no more of that could be received
            client.upload(b"abc")
            client.upload(b"def", more=False)
            await task

    run(main())
    assert read == [b"abcdef"]
    assert (client.body, client.complete) == (b"ok", True)


@pytest.mark.parametrize(("status", "invited"), [("200 OK", True), ("413 Too Large", False)])
def test_reading_behind_the_first_item_a_body_that_is_held_back(status: str, invited: bool) -> None:
    """The client gets its 100 before the head, or would wait for ever; not with a refusal."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(status, HEADERS)
        yield b"x"
        if invited:
            yield environ["wsgi.input"].read(3)

    client = serve(app, post(3, (b"expect", b"100-continue")), b"abc")
    assert [message["status"] for message in client.messages if "status" in message][:-1] == [100] * invited
    assert client.body == (b"xabc" if invited else b"x")
    assert client.asked == invited


# -- the response


def test_list_of_one_item() -> None:
    """The commonest response is two messages, and the status without a phrase of its own."""
    client = serve(answer([b"hello"], ("Content-Length", "5")))
    assert client.messages == [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"Content-Type", b"text/plain"), (b"Content-Length", b"5")],
        },
        {"type": "http.response.body", "body": b"hello", "more_body": False},
    ]


@pytest.mark.parametrize(("body", "length"), [([b"hello"], "5"), ((b"a", b"", b"bc"), "3"), ([], "0"), ([b""], "0")])
def test_s15_length_of_a_list_is_computed(body: Any, length: str) -> None:
    """A sequence is complete, so its length is announced, and it goes out as one chunk."""
    client = serve(answer(body), **INVALID)
    assert client.headers["content-length"] == length
    assert client.chunks == [b"".join(body)]


def test_s15_length_of_an_empty_iterable() -> None:
    """An iterable that ends without an item has length 0; of one with items nothing is known."""
    assert serve(answer(iter([b""]))).headers["content-length"] == "0"
    assert "content-length" not in serve(answer(iter([b"x"]))).headers


def test_long_list_goes_out_in_pieces() -> None:
    """A list that is longer than a message is sent in several, however slow its client, without holding its thread."""
    client = Client()
    client.reads.clear()
    items = [b"x" * JOIN_MAX] * 40
    assert sum(map(len, items)) > AHEAD_MAX

    async def main() -> None:
        async with bridge(answer(items), **INVALID) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            await until(lambda: not made.pool.busy)
            client.reads.set()
            await task
            assert client.chunks == items
            assert client.headers["content-length"] == str(len(items) * JOIN_MAX)

    run(main())


def test_each_item_of_a_generator_goes_out_at_once() -> None:
    """No item waits for the next (PEP 3333, "Buffering and Streaming")."""
    client = Client()
    seen = [threading.Event() for _ in range(3)]

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        for number, event in enumerate(seen):
            yield b"%d" % number
            passes(event)

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(client)
            for number, event in enumerate(seen):
                await client.sees(lambda number=number: len(client.chunks) == number + 1)  # type: ignore[misc]
                event.set()
            await task
            assert client.chunks == [b"0", b"1", b"2", b""]

    run(main())


def test_s10_head_is_sent_with_the_first_item_that_is_not_empty() -> None:
    """Until then the head may be replaced, and start_response() may even be called late (S11)."""
    client = Client()
    go = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        yield b""
        start_response("200 OK", HEADERS)
        yield b""
        passes(go)
        yield b"x"

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            task = made.begin(client)
            await until(lambda: made.pool.snapshot())
            assert client.messages == []
            go.set()
            await task
            assert client.body == b"x"

    run(main())


def test_s12_exc_info_before_the_head_replaces_it() -> None:
    """An error page takes the place of a response that has not begun."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        try:
            raise Failure
        except Failure:
            start_response("503 Service Unavailable", HEADERS, sys.exc_info())
        return [b"sorry"]

    client = serve(app)
    assert (client.status, client.body) == (503, b"sorry")


def test_s12_exc_info_after_the_head_is_raised_again() -> None:
    """An error page that comes too late is the error that it was about."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", HEADERS)
        yield b"x"
        try:
            raise Failure("mine")
        except Failure:
            start_response("503 Service Unavailable", HEADERS, sys.exc_info())

    client = Client()

    async def main() -> None:
        async with bridge(app) as made:
            with pytest.raises(Failure, match="mine"):
                await made.begin(client)
            assert (client.status, client.body, client.complete) == (200, b"x", False)

    run(main())


def test_s12_second_start_response_without_exc_info() -> None:
    """A second call without exc_info is an error of the application."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", HEADERS)
        start_response("200 OK", HEADERS)
        return []

    with pytest.raises(WSGIError, match=r"called again without exc_info \(PEP 3333"):
        serve(app, **INVALID)


def test_s13_write_and_items() -> None:
    """write() sends, also before items, and an empty write() does not send the head (S11)."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", HEADERS)
        write(b"")
        write(b"one ")
        write(b"two ")
        return [b"three"]

    client = serve(app)
    assert client.body == b"one two three"
    assert "content-length" not in client.headers


def test_s13_write_goes_out_before_the_application_returns() -> None:
    """What is written is sent while the application goes on."""
    client = Client()
    go = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", HEADERS)(b"x")
        passes(go)
        return []

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(client)
            await client.sees(lambda: client.body == b"x")
            go.set()
            await task
            assert client.complete

    run(main())


@pytest.mark.parametrize(
    ("items", "end"),
    [
        pytest.param((b"a", b"b"), None, id="success"),
        pytest.param((), None, id="empty"),
        pytest.param((b"a", Failure()), Failure, id="error"),
        pytest.param((Failure(),), Failure, id="error before the head"),
        pytest.param((SystemExit(),), WSGIError, id="exit"),
        pytest.param(("text",), WSGIError, id="no bytes"),
    ],
)
@pytest.mark.parametrize("hooks", [False, True])
def test_s14_close_is_called_once(items: Any, end: Any, hooks: bool) -> None:
    """close() is called exactly once, by the thread that iterated, however the iteration ends."""
    body = Items(*items)
    options: dict[str, Any] = {"hooks": Hooks()} if hooks else {}
    if end is None:
        serve(answer(body), **options)
    else:
        with pytest.raises(end):
            serve(answer(body), **INVALID, **options)
    assert body.closed_once_by_its_thread()


def test_s14_error_of_close() -> None:
    """An error in close() comes after a complete response."""

    class Closing(Items):
        def close(self) -> None:
            raise Failure

    client = Client()

    async def main() -> None:
        async with bridge(answer(Closing(b"x"))) as made:
            with pytest.raises(Failure):
                await made.begin(client)

    run(main())
    assert client.complete


def test_s14_error_of_the_items_and_of_close() -> None:
    """Both are told where both are errors; a disconnect in close() does not hide the first."""

    class Closing(Items):
        def __init__(self, error: BaseException) -> None:
            super().__init__(Failure("items"))
            self.error = error

        def close(self) -> None:
            raise self.error

    with pytest.raises(ZeroDivisionError) as caught:
        serve(answer(Closing(ZeroDivisionError())), **INVALID)
    assert isinstance(caught.value.__context__, Failure)
    with pytest.raises(Failure, match="items"):
        serve(answer(Closing(ClientDisconnected("left"))), **INVALID)


def test_end_of_the_response_does_not_wait_for_close() -> None:
    """What an application does in close() comes after the response."""
    client = Client()
    go = threading.Event()

    class Closing(Items):
        def close(self) -> None:
            passes(go)

    async def main() -> None:
        async with bridge(answer(Closing(b"x"))) as made:
            task = made.begin(client)
            await client.sees(lambda: client.complete)
            assert not task.done()
            go.set()
            await task

    run(main())


@pytest.mark.parametrize("kind", [list, iter, Items], ids=["list", "iterator", "closing"])
@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_s16_no_body_where_there_must_be_none(method: str, status: str, kind: Any) -> None:
    """HEAD, 204 and 304 have a head as soon as there is an item, no body, no length of ours, and a close()."""
    body: Any = Items(b"", b"x", b"never") if kind is Items else kind([b"", b"x", b"never"])

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, [])
        return body  # type: ignore[no-any-return]

    client = serve(app, make_scope(method=method), **INVALID)
    assert client.chunks == [b""]
    assert client.complete
    assert client.headers == {}
    if kind is Items:
        assert list(body.items) == []
        assert body.closed_once_by_its_thread()


def test_s16_replaced_status_has_a_body_again() -> None:
    """Whether there is a body depends on the head that is sent."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        start_response("500 Internal Server Error", HEADERS, (None, None, None))
        return [b"x"]

    assert serve(app, **INVALID).body == b"x"


@pytest.mark.parametrize("kind", [list, iter, Items])
def test_s17_too_much_is_cut(kind: Any) -> None:
    """No byte behind the announced length is sent, and iteration stops at the first item that does not fit."""
    items = [b"abc", b"", b"def", b"", b"ghi", b"jkl"]
    body: Any = Items(*items) if kind is Items else kind(items)
    client = serve(answer(body, ("Content-Length", "5")), **INVALID)
    assert client.body == b"abcde"
    assert client.complete
    if kind is Items:
        assert list(body.items) == [b"jkl"]
        assert body.closed_once_by_its_thread()


def test_s17_code_behind_the_last_item_runs() -> None:
    """A response is complete with its last byte, and its generator still runs to its end."""
    ran: list[bool] = []

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [*HEADERS, ("Content-Length", "3")])
        yield b"abc"
        ran.append(True)

    client = serve(app)
    assert ran == [True]
    assert client.body == b"abc"


def test_s17_write_beyond_the_length() -> None:
    """write() is cut as well, and what follows a complete response is dropped."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [*HEADERS, ("Content-Length", "4")])
        for item in (b"abc", b"def", b"ghi"):
            write(item)
        return [b"jkl"]

    client = serve(app)
    assert client.body == b"abcd"
    assert client.complete


def test_s17_nothing_fits_a_length_of_zero() -> None:
    """A body where none was announced is dropped."""
    client = serve(answer(iter([b"abc", b"def"]), ("Content-Length", "0")))
    assert client.body == b""
    assert client.complete


def test_s17_too_little_is_left_to_send() -> None:
    """A short body ends as it is: send() knows the announced length, and cuts the connection."""
    client = serve(answer([b"abc"], ("Content-Length", "5")))
    assert (client.headers["content-length"], client.body) == ("5", b"abc")


def test_error_of_send_is_raised() -> None:
    """What the server says of a bad response ends the call, and the thread learns of it with its next item."""
    go = threading.Event()
    raised: list[BaseException] = []

    class Strict(Client):
        async def send(self, message: Any) -> None:
            raise Failure

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", HEADERS)
        write(b"x")
        passes(go)
        with pytest.raises(OSError) as caught:
            write(b"x")
        raised.append(caught.value)
        raise caught.value

    async def main() -> None:
        async with bridge(app) as made:
            with pytest.raises(Failure):
                await made.begin(Strict())
            go.set()
            await idle(made)
            assert made.loop_errors == []

    run(main())
    assert len(raised) == 1


def test_s18_hop_by_hop_fields_are_dropped() -> None:
    """What belongs to the connection is the server's; a wish to close it is passed on."""
    client = serve(
        answer([b"x"], ("Transfer-Encoding", "chunked"), ("Upgrade", "websocket"), ("Connection", "close")), **INVALID
    )
    assert client.headers.keys() == {"content-type", "connection", "content-length"}


def test_s19_fields_are_latin1() -> None:
    """Values are sent as latin-1; a line break in one is refused where start_response() is called."""
    assert serve(answer([b"x"], ("X-A", "caf\xe9"))).headers["x-a"] == "caf\xe9"
    with pytest.raises(WSGIError, match="the value of X-A"):
        serve(answer([b"x"], ("X-A", "a\r\nX-B: b")), **INVALID)


def test_s20_reason_phrase() -> None:
    """A phrase of the application's own reaches the server, also none; a registered one need not."""
    assert serve(answer([b"x"], status="299 My Own")).start["hybridworker.reason"] == b"My Own"
    assert serve(answer([b"x"], status="200"), **INVALID).start["hybridworker.reason"] == b""
    assert "hybridworker.reason" not in serve(answer([b"x"])).start


def test_s22_error_before_the_head() -> None:
    """Nothing has been sent, so that the server can answer with an error page."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", HEADERS)
        raise Failure("mine")

    client = Client()

    async def main() -> None:
        async with bridge(app) as made:
            with pytest.raises(Failure, match="mine"):
                await made.begin(client)

    run(main())
    assert client.messages == []


@pytest.mark.parametrize(
    ("app", "message"),
    [
        (lambda environ, start_response: start_response("200 OK", []) and None, "returned NoneType, not an iterable"),
        (lambda environ, start_response: start_response("200 OK", []) and "text", "produced str, not bytes"),
        (lambda environ, start_response: start_response("200 OK", []) and ["text"], "produced str, not bytes"),
        (lambda environ, start_response: start_response("200 OK", []) and b"bytes", "produced int, not bytes"),
        (lambda environ, start_response: [b"x"], "before start_response"),
        (lambda environ, start_response: [], "never called"),
        (lambda environ, start_response: iter([]), "never called"),
        (lambda environ, start_response: iter([b"x"]), "before start_response"),
        (lambda environ, start_response: start_response("OK", []), "not a status"),
        (lambda environ, start_response: start_response("200 OK", [("a b", "")]), "not a header name"),
    ],
)
def test_application_that_is_not_wsgi(app: Any, message: str) -> None:
    """An application that breaks PEP 3333 gets an error that names the rule."""
    with pytest.raises(WSGIError, match=message + ".*PEP 3333"):
        serve(app, **INVALID)


def test_coroutine_function_is_no_application() -> None:
    """An ASGI application that was taken for WSGI gives an error, and no warning of a coroutine left behind."""

    async def app(environ: dict[str, Any], start_response: Any) -> None:
        pass

    with pytest.raises(WSGIError, match="returned coroutine"):
        serve(app, **INVALID)


# -- early hints


def test_early_hints_go_out_before_the_head() -> None:
    """wsgi.early_hints sends a 103 at once, from str or bytes."""
    client = Client()
    go = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a>"), (b"X-A", b"caf\xe9")])
        environ["wsgi.early_hints"]([("Link", "</b>")])
        passes(go)
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(client)
            await client.sees(lambda: len(client.messages) == 2)
            assert client.messages == [
                {"type": "http.response.informational", "status": 103, "headers": headers}
                for headers in ([(b"Link", b"</a>"), (b"X-A", b"caf\xe9")], [(b"Link", b"</b>")])
            ]
            go.set()
            await task
            assert client.body == b"x"

    run(main())


def test_early_hints_that_are_none() -> None:
    """HTTP/1.0 gets no hint, and after the head it is too late; neither is an error."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            environ["wsgi.early_hints"]([("Link", "</a>")])
        start_response("200 OK", HEADERS)
        yield b"x"
        environ["wsgi.early_hints"]([("Link", "</a>")])

    for version in ("1.0", "1.1"):
        types = {message["type"] for message in serve(app, make_scope(http_version=version)).messages}
        assert types == {"http.response.start", "http.response.body"}


@pytest.mark.parametrize("error", [None, Failure])
def test_early_hints_after_the_call(error: type[BaseException] | None) -> None:
    """A thread that outlives the call hints in vain, however it has ended; that is no error."""
    seen: list[Any] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(environ["wsgi.early_hints"])
        if error is not None:
            raise error
        start_response("200 OK", HEADERS)
        return [b"x"]

    with contextlib.suppress(Failure):
        serve(app, **INVALID)
    seen[0]([("Link", "</a>")])
    assert not seen[0].__self__.hints


def test_early_hints_are_checked() -> None:
    """A line break in a hint is refused where it was made."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.early_hints"]([("Link", "</a>\r\nX: y")])
        return []

    with pytest.raises(WSGIError, match="the value of Link"):
        serve(app, **INVALID)


# -- files


def wrapping(file: Any, *headers: tuple[str, str], before: bytes = b"", start: bool = True) -> Callable[..., Any]:
    """An application that answers with ``file`` in a wsgi.file_wrapper."""

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if start:
            write = start_response("200 OK", [("Content-Type", "text/plain"), *headers])
            if before:
                write(before)
        return environ["wsgi.file_wrapper"](file, 4)

    return app


class Sending(Client):
    """A client that reads files as they are sent, and remembers how."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.files = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.zerocopysend":
            self.files += 1
            self.received += os.pread(message["file"].fileno(), message["count"], message["offset"])
            assert not message.get("more_body", False)
        else:
            self.received += message.get("body", b"")
        await super().send(message)


def send_file(app: Any, scope: Any = None, **settings: Any) -> Sending:
    client = Sending()

    async def main() -> None:
        async with bridge(app, **INVALID, **settings) as made:
            await made.begin(client, scope)

    run(main())
    return client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    return file


@pytest.mark.parametrize("buffering", [0, -1])
def test_s21_real_file_is_sent_by_its_descriptor(path: Path, buffering: int) -> None:
    """A real file is handed over, with its length, from where it stands, and closed."""
    file = path.open("rb", buffering)
    file.read(2)
    client = send_file(wrapping(file))
    assert (client.received, client.files) == (b"23456789", 1)
    assert client.headers["content-length"] == "8"
    assert file.closed


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
def test_s21_temporary_file(make: Any) -> None:
    """Wrappers around a real file are real files."""
    with make() as file:
        file.write(b"0123")
        file.seek(1)
        client = send_file(wrapping(file))
    assert (client.received, client.files) == (b"123", 1)


@pytest.mark.parametrize(("length", "sent"), [("3", b"234"), ("8", b"23456789"), ("100", b"23456789"), ("0", b"")])
def test_s21_announced_length(path: Path, length: str, sent: bytes) -> None:
    """No more than the announced length is sent, and no more than there is."""
    file = path.open("rb")
    file.seek(2)
    client = send_file(wrapping(file, ("Content-Length", length)))
    assert client.received == sent
    assert client.headers["content-length"] == length


def test_s21_empty_file(tmp_path: Path) -> None:
    """An empty file is an empty body of known length."""
    (tmp_path / "empty").touch()
    client = send_file(wrapping((tmp_path / "empty").open("rb")))
    assert (client.received, client.headers["content-length"]) == (b"", "0")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_s21_file_that_does_not_know_its_size() -> None:
    """A regular file of /proc has no size, and content."""
    with open("/proc/self/cmdline", "rb") as file:
        client = send_file(wrapping(file))
    assert client.files == 0
    assert b"python" in client.received


def test_s21_file_after_write(path: Path) -> None:
    """What was written goes before the file, and counts."""
    client = send_file(wrapping(path.open("rb"), before=b"ab"))
    assert (client.received, client.files) == (b"ab0123456789", 1)
    assert "content-length" not in client.headers
    client = send_file(wrapping(path.open("rb"), ("Content-Length", "5"), before=b"ab"))
    assert (client.received, client.files) == (b"ab012", 1)
    client = send_file(wrapping(path.open("rb"), ("Content-Length", "2"), before=b"ab"))
    assert (client.received, client.files) == (b"ab", 0)


class Duck:
    """A file-like object that has a descriptor, and is no file of Python's."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        return data

    def fileno(self) -> int:
        number: int = self.file.fileno()
        return number


class TellingDuck(Duck):
    def tell(self) -> int:
        position: int = self.file.tell()
        return position


def test_s21_object_with_a_descriptor(path: Path) -> None:
    """What says that it has a descriptor and a position is believed; without a position it is read."""
    with path.open("rb") as file:
        assert send_file(wrapping(TellingDuck(file))).files == 1
        client = send_file(wrapping(Duck(file)))
    assert (client.received, client.files) == (b"0123456789", 0)


def test_s21_file_that_is_not_what_its_descriptor_reads(tmp_path: Path) -> None:
    """A decompressing file has a descriptor, too: what it reads is sent, and not what is on the disk."""
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(b"0123456789"))
    for file in (gzip.open(path), io.BufferedReader(gzip.open(path))):
        client = send_file(wrapping(file))
        assert (client.received, client.files) == (b"0123456789", 0)


def test_s21_file_like_object_is_read() -> None:
    """What has no descriptor is read in blocks, and closed."""
    file = io.BytesIO(b"0123456789")
    client = serve(wrapping(file))
    assert client.body == b"0123456789"
    assert file.closed


def test_s21_pipe_and_socket_are_read() -> None:
    """A descriptor that is no regular file is read."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"0123456789")
        theirs.shutdown(socket.SHUT_WR)
        client = send_file(wrapping(ours.makefile("rb")))
    assert (client.received, client.files) == (b"0123456789", 0)
    with open("/dev/null", "rb", buffering=0) as file:
        client = send_file(wrapping(file))
    assert (client.received, client.files) == (b"", 0)


@pytest.mark.parametrize("settings", [{"sendfile": False}, {"is_ssl": True}])
def test_s21_without_sendfile(path: Path, settings: Any) -> None:
    """With sendfile turned off, and under TLS, files are read."""
    client = send_file(wrapping(path.open("rb")), **settings)
    assert (client.received, client.files) == (b"0123456789", 0)


def test_s16_head_of_a_file(path: Path) -> None:
    """HEAD sends no byte of a file, and closes it."""
    file = path.open("rb")
    client = send_file(wrapping(file), make_scope(method="HEAD"))
    assert (client.received, client.files) == (b"", 0)
    assert file.closed


def test_file_without_start_response(path: Path) -> None:
    """A file does not make up for a start_response() that was forgotten."""
    file = path.open("rb")
    with pytest.raises(WSGIError, match="before start_response"):
        serve(wrapping(file, start=False), **INVALID)
    assert file.closed


def test_file_is_closed_before_its_client_has_it(path: Path) -> None:
    """A slow reader of a file holds neither a thread nor the application's file."""
    file = path.open("rb")
    client = Sending()
    client.reads.clear()

    async def main() -> None:
        async with bridge(wrapping(file), **INVALID) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            await until(lambda: not made.pool.busy)
            assert file.closed
            client.reads.set()
            await task
            assert client.received == b"0123456789"

    run(main())


# -- threads, contexts, asgiref


def test_s23_two_calls_run_at_once_in_contexts_of_their_own() -> None:
    """
    With two threads two calls run at once, and neither sees the variables of the other, nor those of the loop.

    What a call leaves set is seen by the next one of its thread.
    """
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    both = threading.Barrier(2)
    seen: list[tuple[int, str, str]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        before = variable.get()
        variable.set(environ["PATH_INFO"])
        both.wait(DEADLINE)
        seen.append((threading.get_ident(), before, variable.get()))
        start_response("200 OK", HEADERS)
        return [variable.get().encode()]

    async def main() -> None:
        variable.set("loop")
        async with bridge(app, threads=2) as made:
            for _ in range(3):
                clients = await asyncio.gather(made.call(make_scope(b"/a")), made.call(make_scope(b"/b")))
                assert [client.body for client in clients] == [b"/a", b"/b"]
        assert variable.get() == "loop"

    run(main())
    left: dict[int, str] = {}
    for thread, before, after in seen:
        assert before == left.get(thread, "unset")
        left[thread] = after
    assert len(left) == 2


def test_local_of_asgiref_is_of_the_thread() -> None:
    """Django keeps its caches in one: a thread makes its connections once, not for each request."""
    local = Local()
    made_in: list[int] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if not hasattr(local, "connection"):
            made_in.append(threading.get_ident())
            local.connection = object()
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        local.connection = "of the loop"
        async with bridge(app, threads=2) as made:
            for _ in range(5):
                await asyncio.gather(*(made.call() for _ in range(4)))

    run(main())
    assert made_in
    assert len(made_in) == len(set(made_in)) <= 2


@pytest.mark.parametrize("kind", ["list", "iterator", "fails", "fails amid", "fails in close"])
def test_what_the_loop_logs_of_a_call_sees_its_variables(kind: str) -> None:
    """Those of the moment before close() and post_request, whatever the next call of the thread sets."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    class Items:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            variable.set("amid")
            if kind == "fails amid":
                raise Failure

        def close(self) -> None:
            variable.set("closed")
            if kind == "fails in close":
                raise Failure

    class Hooks:
        def before(self, scope: Scope) -> None:
            variable.set("pre_request")

        def after(self, view: Any, environ: Any, response: Any) -> None:
            variable.set("post_request")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        assert variable.get() == "pre_request"
        variable.set("called")
        start_response("200 OK", HEADERS)
        if kind == "fails" and environ["PATH_INFO"] == "/":
            raise Failure
        return [b"x"] if kind in ("list", "fails") or environ["PATH_INFO"] != "/" else Items()

    async def main() -> str:
        async with bridge(app, hooks=Hooks(), **INVALID) as made:
            scope = make_scope()
            try:
                await made.call(scope)
            except Failure:
                assert kind.startswith("fails")
            await idle(made)
            await made.call(make_scope(b"/next"))
            return variables_of(scope, contextvars.Context()).run(variable.get)

    # gunicorn's own threaded worker logs a call that has failed before it has returned behind post_request.
    expected = {"list": "called", "fails": "post_request"}.get(kind, "amid")
    assert run(main()) == expected


def test_async_code_of_the_application_runs_beside_the_loop() -> None:
    """async_to_sync never uses the worker's loop, and what is thread-sensitive comes back to the call's thread."""
    result: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        result["thread"] = threading.get_ident()

        async def view() -> bytes:
            result["loop"] = asyncio.get_running_loop()
            result["sensitive"] = await sync_to_async(threading.get_ident, thread_sensitive=True)()
            result["other"] = await sync_to_async(threading.get_ident, thread_sensitive=False)()
            await asyncio.sleep(0)
            return b"view"

        start_response("200 OK", HEADERS)
        return [async_to_sync(view)()]

    async def main() -> asyncio.AbstractEventLoop:
        async with bridge(app) as made:
            assert (await made.call()).body == b"view"
            return asyncio.get_running_loop()

    loop = run(main())
    assert result["loop"] is not loop
    assert result["sensitive"] == result["thread"]
    assert result["other"] != result["thread"]


# -- hooks


class Hooks:
    """Request hooks that remember their calls."""

    def __init__(self, before: Callable[[Any], Any] = lambda scope: None) -> None:
        self.change = before
        self.calls: list[Any] = []

    def before(self, scope: Any) -> str:
        self.calls.append(("before", threading.get_ident(), scope["path"]))
        self.change(scope)
        return "view"

    def after(self, view: Any, environ: Any, answer: Any) -> None:
        path, response = None if environ is None else environ["PATH_INFO"], ResponseView(answer)
        self.calls.append(
            ("after", threading.get_ident(), view, path, response.status, response.headers, response.sent)
        )


@pytest.mark.parametrize("kind", [list, iter])
def test_hooks_run_around_the_call_in_its_thread(kind: Any) -> None:
    """The hooks see the scope before anything is made of it, and the response when it has been sent."""
    client = Client()
    waiting, go = threading.Event(), threading.Event()

    class Waiting(Hooks):
        def after(self, *args: Any) -> None:
            waiting.set()
            passes(go)
            super().after(*args)

    hooks = Waiting(lambda scope: scope.update(raw_path=b"/changed"))

    async def main() -> None:
        async with bridge(answer(kind([b"abc"]), status="201 Created"), hooks=hooks, **INVALID) as made:
            task = made.begin(client)
            await client.sees(lambda: client.complete)
            assert await asyncio.to_thread(waiting.wait, DEADLINE)
            assert not task.done()
            go.set()
            await task

    run(main())
    before, after = hooks.calls
    thread = before[1]
    fields = [("Content-Type", "text/plain")] + ([("Content-Length", "3")] if kind is list else [])
    assert thread != threading.get_ident()
    assert before == ("before", thread, "/")
    assert after == ("after", thread, "view", "/changed", "201 Created", fields, 3)


def test_end_of_the_response_does_not_wait_for_a_hook() -> None:
    """Also where the application has left a part of the request unread."""
    client = Client()
    go = threading.Event()

    class Waiting(Hooks):
        def after(self, *args: Any) -> None:
            passes(go)

    async def main() -> None:
        async with bridge(answer(iter([b"x"])), hooks=Waiting(), **INVALID) as made:
            task = made.begin(client, post(None))
            await client.sees(lambda: client.complete)
            go.set()
            await task

    run(main())
    assert client.asked == 0


def test_hook_after_an_error() -> None:
    """post_request is called after errors, with what there is of a response."""
    hooks = Hooks()
    with pytest.raises(WSGIError):
        serve(answer(None), hooks=hooks, **INVALID)  # type: ignore[arg-type]
    assert hooks.calls[1][2:] == ("view", "/", "200 OK", HEADERS, 0)


def test_hook_after_an_environ_that_could_not_be_made() -> None:
    """Without an environ the hook gets none, and a response without a status."""
    hooks = Hooks()
    with pytest.raises(ConfigurationError):
        serve(answer([]), make_scope(b"/x"), hooks=hooks, script_name="/mount")
    assert hooks.calls[1][2:] == ("view", None, None, [], 0)


#: Of gunicorn's response, what a hook does not find: it comes after the response.
NOT_SHOWN = {
    "sock": "the loop's",
    "cfg": "the worker's",
    "req": "a parameter of the hook",
    "start_response write write_file sendfile can_sendfile send_headers": "they write",
    "process_headers default_headers close": "they prepare and end what is written",
    "headers_sent chunked is_chunked upgrade": "how it was written",
    "must_close should_close force_close": "whether the connection ends with it",
}


class Responses(Hooks):
    """Hooks that keep the response."""

    def after(self, view: Any, environ: Any, answer: Any) -> None:
        self.response = ResponseView(answer)


def gunicorns(method: str, version: tuple[int, int], status: str, headers: Any) -> Any:
    """gunicorn's response object when it has sent ``hello``."""
    req = SimpleNamespace(method=method, version=version, should_close=lambda: False)
    response = gunicorn_wsgi.Response(req, SimpleNamespace(sendall=lambda data: None), Config())
    response.start_response(status, headers)
    response.write(b"hello")
    response.close()
    return response


def public(response: Any) -> set[str]:
    return {name for name in dir(response) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("method", "version", "status", "headers", "length"),
    [
        ("GET", (1, 1), "200 OK", [("X", "y")], None),
        ("GET", (1, 1), "200", [("X", "y")], None),
        ("GET", (1, 1), "200 OK", [("Content-Length", "5")], 5),
        ("GET", (1, 1), "299 Own", [("Content-Length", "5")], 5),
        ("GET", (1, 0), "200 OK", [("X", "y")], None),
        ("HEAD", (1, 1), "200 OK", [("Content-Length", "5")], 5),
        ("HEAD", (1, 1), "200 OK", [], None),
        ("GET", (1, 1), "204 No Content", [("Content-Length", "5"), ("X", "y")], None),
        ("GET", (1, 1), "304 Not Modified", [("Content-Length", "5")], 5),
    ],
)
def test_hook_sees_what_gunicorns_response_shows(
    method: str, version: tuple[int, int], status: str, headers: Any, length: int | None
) -> None:
    """Attribute by attribute, but for those that say how it was written, or would write."""
    hooks = Responses()
    scope = make_scope(method=method, http_version=f"{version[0]}.{version[1]}")
    serve(answer(iter([b"hello"]), *headers, status=status), scope, hooks=hooks, **INVALID)
    theirs = gunicorns(method, version, status, [*HEADERS, *headers])
    shown = hooks.response
    assert public(theirs) - public(shown) == set(" ".join(NOT_SHOWN).split())
    assert shown.response_length == length
    if shown.sent == 0 and not hasattr(theirs, "_omits_body"):
        return  # an older gunicorn sends a body where there must be none
    names = public(shown)
    assert names == {"status", "status_code", "headers", "sent", "response_length", "version"}
    assert {name: getattr(shown, name) for name in names} == {name: getattr(theirs, name) for name in names}


def test_hook_sees_a_length_that_the_server_has_added() -> None:
    """What is on the wire, where gunicorn would have sent a chunk; and nothing where there is no head."""
    hooks = Responses()
    serve(answer([b"hello"]), hooks=hooks, **INVALID)
    assert hooks.response.response_length == 5
    with pytest.raises(WSGIError):
        serve(lambda environ, start_response: None, hooks=hooks, **INVALID)
    assert (hooks.response.status, hooks.response.status_code, hooks.response.headers) == (None, None, [])


def test_hook_that_refuses() -> None:
    """An exception in pre_request is the end of the request: neither application nor post_request is called."""

    def refuse(scope: Any) -> None:
        raise Failure("no")

    hooks = Hooks(refuse)
    with pytest.raises(Failure, match="no"):
        serve(answer(None), hooks=hooks)  # type: ignore[arg-type]
    assert len(hooks.calls) == 1


# -- clients that leave, or do not read


async def idle(made: Bridge) -> None:
    """Wait until every call has ended."""
    await until(lambda: not made.pool.busy)
    await asyncio.sleep(0)


def test_queued_call_of_a_client_that_left_is_never_started() -> None:
    """Cancelling the task takes the call out of the queue."""
    go = threading.Event()
    called: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        called.append(environ["PATH_INFO"])
        passes(go)
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        async with bridge(app, threads=1) as made:
            first, second = made.begin(Client(), make_scope(b"/1")), made.begin(Client(), make_scope(b"/2"))
            await until(lambda: made.pool.queued == 1 and called)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert made.pool.queued == 0
            go.set()
            await first
            await idle(made)

    run(main())
    assert called == ["/1"]


@pytest.mark.parametrize("how", ["leave", "cancel"])
def test_s24_next_item_fails_when_the_client_has_left(how: str) -> None:
    """The thread of a client that left gets an OSError out of its next item, and close() is called (S14)."""
    client = Client()
    go = threading.Event()
    client.reads.clear()
    raised: list[BaseException] = []
    body = Items(*[b"x"] * 10)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", HEADERS)
        write(b"x")
        passes(go)
        try:
            write(b"x")
        except OSError as exc:
            raised.append(exc)
        return body

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            if how == "leave":
                client.leave()
            else:
                task.cancel()
            with pytest.raises((ClientDisconnected, asyncio.CancelledError)):
                await task
            go.set()
            await idle(made)
            assert made.loop_errors == []

    run(main())
    assert isinstance(raised[0], ClientDisconnected)
    assert body.closed_once_by_its_thread()
    assert next(body.items) == b"x"


def test_error_after_the_client_left_is_reported() -> None:
    """An error that nobody waits for any more names its request."""
    go = threading.Event()
    started = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        started.set()
        passes(go)
        raise Failure

    async def main() -> None:
        async with bridge(app) as made:
            task = made.begin(Client(), make_scope(b"/late"))
            assert await asyncio.to_thread(started.wait, DEADLINE)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            await idle(made)
            [context] = made.loop_errors
            assert "GET /late" in context["message"]
            assert isinstance(context["exception"], Failure)

    run(main())


def bug_in_close(write: Any, go: threading.Event) -> Any:
    class Closing(Items):
        def close(self) -> None:
            raise Failure("bug")

    passes(go)
    return Closing(b"x")


def bug_in_except(write: Any, go: threading.Event) -> Any:
    passes(go)
    try:
        write(b"x")
    except OSError:
        raise Failure("bug")  # noqa: B904  # as a NameError would be


@pytest.mark.parametrize("bug", [bug_in_close, bug_in_except])
def test_bug_amid_a_disconnect_is_reported(bug: Callable[..., Any]) -> None:
    """An error of the application's own is none of the client's, although it was raised amid one."""
    client = Client()
    go = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", HEADERS)
        write(b"x")
        return bug(write, go)

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            await until(lambda: made.loop_errors)
            [context] = made.loop_errors
            assert isinstance(context["exception"], Failure)
            assert isinstance(context["exception"].__context__, ClientDisconnected)

    run(main())


def test_s25_slow_client_bounds_the_generator() -> None:
    """A generator runs ahead of its client by a mebibyte and an item, and no more; then it waits, and goes on."""
    client = Client()
    client.reads.clear()
    size = AHEAD_MAX // 8
    body = Items(*[b"x" * size] * 100)

    async def main() -> None:
        async with bridge(answer(body)) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            [worker] = made.pool._workers
            await until(lambda: getattr(worker.call, "asked", None))
            assert len(list(body.items)) == 100 - 9
            client.reads.set()
            await task
            assert client.body == b"x" * size * 9
            assert client.complete

    run(main())


def test_slow_reader_of_a_short_body_holds_no_thread() -> None:
    """A body under 1 MiB is out of the thread's hands at once."""
    client = Client()
    client.reads.clear()
    items = [b"x" * 1000] * 1000

    async def main() -> None:
        async with bridge(answer(iter(items))) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            await idle(made)
            client.reads.set()
            await task
            assert client.body == b"".join(items)

    run(main())


def test_last_item_does_not_wait_for_its_client() -> None:
    """A response that is complete holds no thread, however long its last item is."""
    client = Client()
    client.reads.clear()
    length = 2 * AHEAD_MAX

    async def main() -> None:
        async with bridge(answer(iter([b"x" * length]), ("Content-Length", str(length)))) as made:
            task = made.begin(client)
            await client.sees(lambda: client.messages)
            await idle(made)
            client.reads.set()
            await task
            assert len(client.body) == length

    run(main())


def test_call_leaves_nothing_to_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environ, scope, context, body and responder do not keep each other alive, also after an error."""
    responders: list[weakref.ref[Any]] = []
    made_by = WSGIResponder.__init__

    def init(self: WSGIResponder, middleware: Any) -> None:
        responders.append(weakref.ref(self))
        made_by(self, middleware)

    monkeypatch.setattr(WSGIResponder, "__init__", init)
    variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        variable.set(None if environ["PATH_INFO"] == "/reset" else environ)
        start_response("200 OK", HEADERS)
        if environ["PATH_INFO"] == "/error":
            raise Failure
        return iter([b"x"]) if environ["PATH_INFO"] == "/iterator" else [b"x"]

    async def main() -> None:
        async with bridge(app, **INVALID) as made:
            for path in (b"/list", b"/iterator", b"/error"):
                scope = make_scope(path, headers=[(b"transfer-encoding", b"chunked")])
                try:
                    await made.call(scope, b"abc")
                except Failure:
                    pass
                await idle(made)
                del scope
                await made.call(make_scope(b"/reset"))  # what a call leaves set lives until then
                await idle(made)
                await asyncio.sleep(0)
                assert [responder() for responder in responders] == [None, None]
                responders.clear()

    with without_collector():
        run(main())


def test_call_that_never_ran_leaves_nothing_to_the_garbage_collector() -> None:
    """A call whose client left while it was queued is freed as well, with the body that would ask it for more."""
    go, started = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        started.set()
        passes(go)
        start_response("200 OK", HEADERS)
        return [b"x"]

    async def main() -> None:
        async with bridge(app, threads=1) as made:
            first = made.begin(Client())
            assert await asyncio.to_thread(started.wait, DEADLINE)
            client = Client()
            responder = WSGIResponder(made.middleware)
            second = asyncio.ensure_future(responder(post(None), client.receive, client.send))
            gone = weakref.ref(responder)
            del responder
            await until(lambda: made.pool.queued)
            second.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await second
            del second
            await asyncio.sleep(0)
            assert gone() is None
            go.set()
            await first

    with without_collector():
        run(main())


# -- all together


def test_s26_validator_is_content(caplog: pytest.LogCaptureFixture) -> None:
    """An application that uses everything passes wsgiref.validate, and so does the server."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        data = environ["wsgi.input"].readline(1) + environ["wsgi.input"].read(100)
        environ["wsgi.errors"].write("said\n")
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")])
        yield data
        yield b"".join(environ["wsgi.input"])

    with caplog.at_level(logging.WARNING):
        client = serve(app, post(None), b"a\nb", b"c")
    assert client.body == b"a\nbc"
    assert caplog.records == []
