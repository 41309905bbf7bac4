"""Handoff: what crosses between thread and loop, in which order, and what becomes of it when one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hybridworker.asgi import Message
from hybridworker.errors import ClientDisconnected, WSGIError
from hybridworker.wsgi.handoff import JOIN_MAX, READ, ROOM, Handoff
from hybridworker.wsgi.spool import AHEAD_MAX
from hybridworker.wsgi.threads import ThreadPool
from tests.waiting import DEADLINE, passes, run, until
from tests.wsgicall import Client, without_collector

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Call(Handoff):
    """A call that does what ``script`` does, in a thread."""

    def __init__(self, pool: ThreadPool, script: Callable[[Call], None]) -> None:
        super().__init__(pool)
        self.script = script
        self.over = threading.Event()

    label = "GET /script"

    def run(self, variables: contextvars.Context) -> None:
        try:
            self.script(self)
        except BaseException as exc:
            self.error, self.variables = exc, variables.copy()
        self.ended = True
        self.over.set()

    def give(self, *items: bytes) -> None:
        for item in items:
            self.put(item)

    def head(self, *items: bytes) -> None:
        self.start = START
        self.give(*items)


@asynccontextmanager
async def calling(script: Callable[[Call], None], client: Client) -> AsyncIterator[tuple[Call, asyncio.Task[None]]]:
    """Run ``script`` for ``client``; the block sees the call and the task that delivers it."""
    pool = ThreadPool(1)
    call = Call(pool, script)
    try:
        async with asyncio.timeout(DEADLINE):
            yield call, asyncio.ensure_future(call.deliver(client.receive, client.send))
    finally:
        pool.close()


def deliver(script: Callable[[Call], None], *body: bytes | None) -> Client:
    client = Client(*body)

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await task

    run(main())
    return client


def test_whole_response_goes_out_in_two_messages() -> None:
    """A short response that is complete when the loop hears of it needs no more than head and body."""

    def script(call: Call) -> None:
        call.head(b"a", b"b")
        call.final = True

    client = deliver(script)
    assert client.messages == [START, {"type": "http.response.body", "body": b"ab", "more_body": False}]


def test_each_item_goes_out_without_waiting_for_the_next() -> None:
    """What is posted is sent while the thread goes on, and the end follows."""
    client = Client()
    seen = threading.Event()

    def script(call: Call) -> None:
        call.head(b"one")
        call.post()
        passes(seen)
        call.put(b"two")
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await client.sees(lambda: client.body == b"one")
            assert not client.complete
            seen.set()
            await task
            assert client.chunks == [b"one", b"two"]
            assert client.complete

    run(main())


def test_items_that_wait_are_joined() -> None:
    """While the client does not read, items gather, and go out together; long ones stay apart."""
    client = Client()
    go = threading.Event()
    client.reads.clear()
    big = b"x" * JOIN_MAX

    def script(call: Call) -> None:
        call.head(b"first")
        call.post()
        passes(go)
        call.give(*[b"y"] * 100, big, b"z" * 10, b"z" * 10)
        call.post()
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (call, task):
            await client.sees(lambda: client.messages)
            go.set()
            assert await asyncio.to_thread(call.over.wait, DEADLINE)
            client.reads.set()
            await task
            assert client.chunks == [b"first" + b"y" * 100, big, b"z" * 20]
            assert client.complete

    run(main())


def test_end_without_a_body() -> None:
    """A response without any item is a head and an empty, last message, also when the end comes by itself."""
    client = Client()
    go = threading.Event()

    def script(call: Call) -> None:
        call.hints = [{"type": "http.response.informational"}]
        call.post()
        passes(go)
        call.start = START
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await client.sees(lambda: client.messages)
            go.set()
            await task
            assert client.messages[1:] == [START, {"type": "http.response.body", "body": b"", "more_body": False}]

    run(main())


@pytest.mark.parametrize("body", [(), (b"one",)], ids=["no body", "a body that has been read"])
def test_response_may_be_complete_before_the_call(body: tuple[bytes, ...]) -> None:
    """The last message does not wait for what the thread does afterwards, which cannot read on; deliver() does."""
    client = Client(*body)
    go = threading.Event()

    def script(call: Call) -> None:
        if body:
            call.unread = True
            call.ask(READ)
        call.head(b"all")
        call.final = True
        call.post()
        passes(go)

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await client.sees(lambda: client.complete)
            assert not task.done()
            go.set()
            await task
            assert client.chunks == [b"all"]

    run(main())


def test_s25_thread_waits_for_a_client_that_does_not_read() -> None:
    """ROOM is given when the client has taken half of what may wait, and not before."""
    client = Client()
    client.reads.clear()
    asking, roomy = threading.Event(), threading.Event()
    part = b"x" * (AHEAD_MAX // 4)

    def script(call: Call) -> None:
        call.head(*[part] * 5)
        call.post()
        asking.set()
        call.ask(ROOM)
        roomy.set()
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (call, task):
            assert await asyncio.to_thread(asking.wait, DEADLINE)
            await client.sees(lambda: client.messages)
            assert not roomy.is_set()
            assert call.taken == 0
            client.reads.set()
            await task
            assert roomy.is_set()
            assert client.body == part * 5
            assert call.taken == call.sent

    run(main())


def test_room_where_nothing_waits() -> None:
    """A thread that asks when everything has been taken is answered as well."""
    client = Client()

    def script(call: Call) -> None:
        call.head(b"x")
        call.post()
        call.ask(ROOM)
        call.ask(ROOM)
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await task

    run(main())


def test_thread_reads_the_request() -> None:
    """READ is receive(), called when the thread asks and not before."""
    client = Client(b"one", b"two")
    go = threading.Event()
    read: list[Any] = []

    def script(call: Call) -> None:
        call.head(b"x")
        call.post()
        passes(go)
        read.extend([call.ask(READ)["body"], call.ask(READ)["body"]])
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await client.sees(lambda: client.body)
            assert client.asked == 0
            go.set()
            await task
            assert read == [b"one", b"two"]
            assert client.asked == 2

    run(main())


def test_hints_go_before_the_head() -> None:
    """Informational messages are sent at once, in order."""

    def script(call: Call) -> None:
        call.hints = [{"type": "http.response.informational", "status": 103}, {"type": "http.response.informational"}]
        call.post()
        call.head(b"x")
        call.final = True

    types = [message["type"] for message in deliver(script).messages]
    assert types == ["http.response.informational"] * 2 + ["http.response.start", "http.response.body"]


HINT: Message = {"type": "http.response.informational", "status": 103}


def test_hint_that_comes_while_the_loop_looks() -> None:
    """A hint and the head behind it, from a thread that runs between two looks of the loop: in order all the same."""
    client = Client()
    go, handed_over = threading.Event(), threading.Event()

    class Racing(list[bytes]):
        def __init__(self, call: Call) -> None:
            self.call: Call | None = call

        def __bool__(self) -> bool:
            call, self.call = self.call, None
            if call is not None:
                assert call.hints == []
                call.hints.append(HINT)
                call.head(b"x")
                handed_over.set()
            return len(self) > 0

    def script(call: Call) -> None:
        call.hints = [HINT]
        call.post()
        passes(go)
        call.post()
        passes(handed_over)
        call.final = True

    async def main() -> None:
        async with calling(script, client) as (call, task):
            await client.sees(lambda: client.messages)
            call.outbox = Racing(call)
            go.set()
            await task
            assert client.messages[:3] == [HINT, HINT, START]
            assert client.body == b"x"

    run(main())


def test_hint_behind_the_head_is_not_sent() -> None:
    """It is too late then, be the response complete or not."""

    def script(call: Call) -> None:
        call.head(b"x")
        call.post()
        call.ask(ROOM)
        call.hints = [HINT]
        call.post()
        call.put(b"y")
        call.ask(ROOM)
        call.final = True

    client = deliver(script)
    assert client.body == b"xy"
    assert HINT not in client.messages


def test_last_message_waits_for_a_call_that_may_read_on() -> None:
    """It would end the request. What there is of the body goes out, and what is asked for is answered."""
    client = Client()
    go = threading.Event()
    read: list[bytes] = []

    def script(call: Call) -> None:
        call.unread = True
        call.head(b"all")
        call.final = True
        call.post()
        passes(go)
        read.extend([call.ask(READ)["body"], call.ask(READ)["body"]])

    async def main() -> None:
        async with calling(script, client) as (_, task):
            await client.sees(lambda: client.body == b"all")
            assert not client.complete
            client.upload(b"one")
            go.set()
            await client.sees(lambda: client.asked == 2)
            assert not client.complete
            client.upload(b"two", more=False)
            await task
            assert (read, client.body, client.complete) == ([b"one", b"two"], b"all", True)

    run(main())


CONTINUE: Message = {"type": "http.response.informational", "status": 100, "headers": []}


@pytest.mark.parametrize("status", [200, 299, 302, 413])
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("final", [False, True])
def test_body_that_the_client_holds_back(status: int, read: bool, final: bool) -> None:
    """A 100 goes before the head of a call that may still read, unless it has read, or refuses the body."""

    def script(call: Call) -> None:
        call.expects = True
        if read:
            call.ask(READ)
        call.start = {**START, "status": status}
        call.put(b"x")
        call.final = final
        call.post()
        call.ask(ROOM)
        call.final = True

    client = deliver(script, b"body")
    wanted = [CONTINUE] if status < 300 and not read and not final else []
    assert client.messages[: len(wanted) + 1] == [*wanted, {**START, "status": status}]
    assert client.messages.count(CONTINUE) == len(wanted)
    assert client.body == b"x"


@pytest.mark.parametrize("what", [READ, ROOM])
def test_thread_that_outlives_the_call(what: str) -> None:
    """Whatever it asks for, or gives: the request is over, and nobody says that its client has left."""

    async def main() -> None:
        async with calling(lambda call: call.head(b"x"), Client()) as (call, task):
            call.final = True
            await task
            with pytest.raises(OSError, match="the request is over") as caught:
                call.ask(what)
            assert not isinstance(caught.value, ClientDisconnected)
            with pytest.raises(OSError, match="the request is over"):
                call.put(b"y")

    run(main())


def test_thread_that_asks_while_the_call_ends() -> None:
    """It asks before the end and is seen behind it: it is answered, for nobody else would."""
    client = Client()
    client.reads.clear()
    raised: list[BaseException] = []

    async def main() -> None:
        async with calling(lambda call: call.head(b"x"), client) as (call, task):
            await client.sees(lambda: client.messages)
            assert await asyncio.to_thread(call.over.wait, DEADLINE)
            call.ended = False

            def late() -> None:
                try:
                    call.ask(READ)
                except OSError as exc:
                    raised.append(exc)

            asking = asyncio.create_task(asyncio.to_thread(late))
            await until(lambda: call.asked is READ)
            call.ended = True
            client.reads.set()
            await task
            await asking
            assert str(raised[0]) == "the request is over"

    run(main())


def opened(path: Path) -> Message:
    path.write_bytes(b"content")
    file = open(path, "rb", buffering=0)
    return {"type": "http.response.zerocopysend", "file": file, "offset": 0, "count": 7}


@pytest.mark.parametrize("before", [b"", b"before"])
def test_file_ends_the_body(tmp_path: Path, before: bytes) -> None:
    """A file is sent behind what is in the outbox, with one message, and closed."""
    message = opened(tmp_path / "file")

    def script(call: Call) -> None:
        call.head(*[before][: len(before)])
        call.file = message
        call.final = True

    client = deliver(script)
    assert client.messages[0] == START
    assert client.messages[-1] is message
    assert client.messages[1:-1] == (
        [{"type": "http.response.body", "body": before, "more_body": True}] if before else []
    )
    assert message["file"].closed


def test_file_behind_a_long_body(tmp_path: Path) -> None:
    """All of the outbox goes out before the file."""
    message = opened(tmp_path / "file")

    def script(call: Call) -> None:
        call.head(b"x" * JOIN_MAX, b"y" * JOIN_MAX)
        call.file = message
        call.final = True

    client = deliver(script)
    assert [message["type"] for message in client.messages[1:]] == ["http.response.body"] * 2 + [message["type"]]


class Failure(Exception):
    pass


def test_error_of_the_call_is_raised() -> None:
    """What the thread raised comes out of deliver(), with its traceback, and nothing is sent before a head."""

    def script(call: Call) -> None:
        raise Failure("mine")

    client = Client()

    async def main() -> None:
        async with calling(script, client) as (call, task):
            with pytest.raises(Failure, match="mine") as caught:
                await task
            assert "script" in [entry.name for entry in caught.traceback]
            assert client.messages == []
            assert call.error is None

    run(main())


def test_what_came_before_an_error_is_sent() -> None:
    """An error after the first item comes after that item."""
    client = Client()

    def script(call: Call) -> None:
        call.head(b"x")
        call.post()
        raise Failure

    async def main() -> None:
        async with calling(script, client) as (_, task):
            with pytest.raises(Failure):
                await task
            assert client.body == b"x"
            assert not client.complete

    run(main())


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_error_that_would_end_the_loop_is_wrapped(kind: type[BaseException]) -> None:
    """What means something else to a task than that the application failed is not raised as it is."""

    def script(call: Call) -> None:
        raise kind

    async def main() -> None:
        async with calling(script, Client()) as (_, task):
            with pytest.raises(WSGIError, match=f"the application raised {kind.__name__}") as caught:
                await task
            assert isinstance(caught.value.__cause__, kind)

    run(main())


async def errors_of(script: Callable[[Call], None], end: Callable[[Client, asyncio.Task[None]], Any]) -> list[Any]:
    """What the loop is told after ``end`` has ended the response of a call that is still running."""
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    client = Client()
    client.reads.clear()
    async with calling(script, client) as (call, task):
        await client.sees(lambda: client.messages)
        end(client, task)
        with pytest.raises((ClientDisconnected, asyncio.CancelledError)):
            await task
        call.script_may_end.set()  # type: ignore[attr-defined]
        assert await asyncio.to_thread(call.over.wait, DEADLINE)
        await until(lambda: call.gone and not call.pool.busy)  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    return errors


def leave(client: Client, task: asyncio.Task[None]) -> None:
    client.leave()


def cancel(client: Client, task: asyncio.Task[None]) -> None:
    task.cancel()


def outliving(then: Callable[[Call], Any]) -> Callable[[Call], None]:
    """A script that begins a response, and does ``then`` when that has been given up."""

    def script(call: Call) -> None:
        call.script_may_end = threading.Event()  # type: ignore[attr-defined]
        call.head(b"x")
        call.post()
        passes(call.script_may_end)  # type: ignore[attr-defined]
        then(call)

    return script


@pytest.mark.parametrize("end", [leave, cancel])
@pytest.mark.parametrize("what", [READ, ROOM])
def test_s24_thread_that_asks_afterwards_is_told(end: Any, what: str) -> None:
    """A thread whose client has gone gets an OSError from whatever it asks for, and that is no error to report."""
    raised: list[BaseException] = []

    def then(call: Call) -> None:
        for _ in range(2):
            try:
                call.ask(what)
            except OSError as exc:
                raised.append(exc)
        raise ValueError from raised[0]

    assert run(errors_of(outliving(then), end)) == []
    assert [type(exc) for exc in raised] == [ClientDisconnected] * 2


@pytest.mark.parametrize("end", [leave, cancel])
def test_error_after_the_client_left_is_not_lost(end: Any) -> None:
    """An error of the application that nobody waits for goes to the loop's exception handler."""

    def then(call: Call) -> None:
        raise Failure("late")

    [context] = run(errors_of(outliving(then), end))
    assert context["message"] == "Error handling request GET /script, whose client has gone"
    assert str(context["exception"]) == "late"


def test_file_after_the_client_left_is_closed(tmp_path: Path) -> None:
    """A file that nobody will send any more is closed all the same."""
    message = opened(tmp_path / "file")

    def then(call: Call) -> None:
        call.file = message
        call.final = True

    assert run(errors_of(outliving(then), cancel)) == []
    assert message["file"].closed


@pytest.mark.parametrize("end", [leave, cancel])
def test_s24_thread_that_is_waiting_is_told(end: Any) -> None:
    """A thread that waits for a client is freed by its leaving."""
    raised: list[BaseException] = []
    client = Client()
    client.reads.clear()

    def script(call: Call) -> None:
        call.head(b"x")
        try:
            call.ask(ROOM)
        except OSError as exc:
            raised.append(exc)

    async def main() -> None:
        async with calling(script, client) as (call, task):
            await client.sees(lambda: client.messages)
            end(client, task)
            with pytest.raises((ClientDisconnected, asyncio.CancelledError)):
                await task
            assert await asyncio.to_thread(call.over.wait, DEADLINE)
            assert isinstance(raised[0], ClientDisconnected)

    run(main())


def test_error_that_was_ready_when_the_client_left(tmp_path: Path) -> None:
    """The call may be over before its response is given up: error and file are seen to at that moment."""
    errors: list[Any] = []
    message = opened(tmp_path / "file")
    client = Client()
    client.reads.clear()

    def script(call: Call) -> None:
        call.head(b"x")
        call.post()
        call.file = message
        raise Failure

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        async with calling(script, client) as (call, task):
            await client.sees(lambda: client.messages)
            assert await asyncio.to_thread(call.over.wait, DEADLINE)
            client.leave()
            with pytest.raises(ClientDisconnected):
                await task
            assert [type(error) for error in errors] == [Failure]
            assert message["file"].closed

    run(main())


def test_call_leaves_nothing_to_the_garbage_collector() -> None:
    """A call is freed when nobody refers to it: no circle, also after an error."""

    async def main() -> None:
        for failing in (False, True):

            def script(call: Call, failing: bool = failing) -> None:
                call.head(b"x")
                call.post()
                if failing:
                    raise Failure
                call.final = True

            client = Client()
            async with calling(script, client) as (call, task):
                gone = weakref.ref(call)
                with contextlib.suppress(Failure):
                    await task
                pool = call.pool
                await until(lambda pool=pool: not pool.busy)  # type: ignore[misc]
            del call, task
            await asyncio.sleep(0)
            assert gone() is None

    with without_collector():
        run(main())


def test_call_that_cannot_be_queued() -> None:
    """What submit() raises ends the call."""

    class Full(ThreadPool):
        def submit(self, call: Any) -> None:
            self._queue.append(call)
            raise RuntimeError("can't start new thread")

    async def main() -> None:
        pool = Full(1)
        client = Client()
        call = Call(pool, lambda call: None)
        with pytest.raises(RuntimeError, match="can't start"):
            await call.deliver(client.receive, client.send)
        with pytest.raises(RuntimeError, match="can't start"):
            Call(pool, lambda call: None).begin(print)
        assert call.gone
        assert pool.queued == 0

    run(main())


@asynccontextmanager
async def begun(script: Callable[[Call], None]) -> AsyncIterator[tuple[Call, asyncio.Event]]:
    """Begin ``script`` without a task; the block sees the call, and the event that is set when it is ready."""
    pool = ThreadPool(1)
    try:
        async with asyncio.timeout(DEADLINE):
            call, ready = Call(pool, script), asyncio.Event()
            call.begin(ready.set)
            yield call, ready
    finally:
        pool.close()


def test_whole_response_needs_no_task() -> None:
    """A call that was begun is ready once, when its response is whole."""

    def script(call: Call) -> None:
        call.head(b"a", b"b")
        call.final = True

    async def main() -> None:
        async with begun(script) as (call, ready):
            await ready.wait()
            assert (call.start, call.whole()) == (START, b"ab")
            ready.clear()
            call.wake()
            assert not ready.is_set()

    run(main())


@pytest.mark.parametrize("late", [False, True])
def test_response_that_is_not_whole_is_delivered_after_all(late: bool) -> None:
    """A call that has something to send before its end is ready then, and is awaited like any other."""
    go = threading.Event()
    client = Client()

    def script(call: Call) -> None:
        call.head(b"a")
        call.post()
        passes(go)
        call.give(b"b")
        call.final = True

    async def main() -> None:
        async with begun(script) as (call, ready):
            await ready.wait()
            assert call.whole() is None
            if late:  # the rest may have come before anybody awaits it
                go.set()
                assert await asyncio.to_thread(call.over.wait, DEADLINE)
            task = asyncio.ensure_future(call.deliver(client.receive, client.send))
            await client.sees(lambda: client.body)
            go.set()
            await task
            assert client.body == b"ab"
            assert client.complete

    run(main())


def test_error_of_a_call_that_was_begun() -> None:
    """An error makes the call ready, and comes out of deliver()."""

    def script(call: Call) -> None:
        raise Failure

    async def main() -> None:
        async with begun(script) as (call, ready):
            await ready.wait()
            assert call.whole() is None
            client = Client()
            with pytest.raises(Failure):
                await call.deliver(client.receive, client.send)
            assert client.messages == []

    run(main())


def test_call_that_was_begun_is_cancelled() -> None:
    """In the queue it never runs; in its thread it is told, and its error is reported. Nobody is called any more."""
    go = threading.Event()
    errors: list[Any] = []

    def script(call: Call) -> None:
        call.start = START
        passes(go)
        with pytest.raises(ClientDisconnected):
            call.put(b"x")
        raise Failure

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        async with begun(script) as (call, ready):
            await until(lambda: call.pool.busy and not call.pool.queued)  # type: ignore[attr-defined]
            queued = Call(call.pool, script)  # type: ignore[arg-type]
            queued.begin(ready.set)
            assert [queued.cancel(), queued.cancel(), call.cancel()] == [True, False, False]
            go.set()
            await until(lambda: errors)
            assert [type(error) for error in errors] == [Failure]
            assert not ready.is_set()
            assert not queued.ended
            assert call.pool.queued == 0

    run(main())


def test_s17_put_cuts_what_was_not_announced() -> None:
    """What goes beyond the announced length is dropped, and the response is complete with its last byte."""

    def script(call: Call) -> None:
        call.length = 4
        call.head(b"abc")
        assert not call.final
        call.give(b"de", b"fg")
        assert call.final
        assert (call.outbox, call.sent) == ([b"abc", b"d"], 4)

    assert deliver(script).body == b"abcd"


def test_s16_put_where_there_is_no_body() -> None:
    """A response without a body is complete with the first item that is dropped."""

    def script(call: Call) -> None:
        call.bodiless = True
        call.head(b"abc", b"def")
        assert call.final
        assert call.started

    client = deliver(script)
    assert client.body == b""
    assert client.complete


def test_s24_put_after_the_client_left() -> None:
    """Nothing more can be handed over."""

    def then(call: Call) -> None:
        with pytest.raises(ClientDisconnected):
            call.put(b"x")

    assert run(errors_of(outliving(then), cancel)) == []


def test_label_is_the_business_of_the_subclass() -> None:
    """A handoff does not know what it serves."""

    async def main() -> None:
        with pytest.raises(NotImplementedError):
            _ = Handoff(ThreadPool(1)).label

    run(main())
