"""
The tables of ``states.py`` walked completely.

Every pair of a state and an event is tried against the code that runs: a pair that the
table has leads into exactly the states that it names, one that it lacks is refused, or
ignored, and changes nothing. So the ladders cannot drift from the specification.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.ending import end_stream
from hybridworker.connection.flow import FlowControl
from hybridworker.connection.sendfile import POOL
from hybridworker.errors import ClientDisconnected, UnexpectedMessage
from hybridworker.http11.cycle import HTTP11Cycle
from hybridworker.process.lifespan import Lifespan
from hybridworker.states import (
    CONNECTION,
    LIFESPAN,
    PROGRAM,
    RESPONSE,
    STREAM,
    WEBSOCKET,
    ConnectionState,
    LifespanState,
    ProgramState,
    RequestState,
    ResponseState,
    ServerState,
    Table,
    WebSocketState,
    expected,
)
from tests.fakes import FakeLog, FakeTransport
from tests.harness import HELLO, Wire, application, make_settings, settle, wire


def events(table: Table[Any], *more: str) -> list[str]:
    """Every event of a table, and some that are in none."""
    return sorted({event for _, event in table} | {"unknown", *more})


# -- what the tables say of themselves


@pytest.mark.parametrize("table", [RESPONSE, WEBSOCKET, LIFESPAN, CONNECTION, PROGRAM, STREAM])
def test_a_table_leads_somewhere(table: Table[Any]) -> None:
    """No pair without an outcome, and both sides are states of the same machine."""
    for (origin, _), outcomes in table.items():
        assert outcomes
        assert {type(outcome) for outcome in outcomes} == {type(origin)}


@pytest.mark.parametrize(
    ("table", "terminal"),
    [
        (RESPONSE, {ResponseState.COMPLETE, ResponseState.ABORTED}),
        (WEBSOCKET, {WebSocketState.CLOSED}),
        (LIFESPAN, {LifespanState.UNSUPPORTED, LifespanState.FAILED, LifespanState.STOPPED}),
        (CONNECTION, {ConnectionState.UPGRADED, ConnectionState.CLOSED}),
        (PROGRAM, {ProgramState.EXITING}),
    ],
)
def test_nothing_leaves_a_terminal_state(table: Table[Any], terminal: set[enum.Enum]) -> None:
    """What the comments of the members call terminal has no exit in the table."""
    assert terminal & {origin for origin, _ in table} == set()


def test_expected_names_the_events_of_a_state() -> None:
    """The message of an illegal transition says what would have been legal."""
    assert expected(LIFESPAN, LifespanState.STARTING) == "lifespan.startup.complete or lifespan.startup.failed"
    assert expected(RESPONSE, ResponseState.COMPLETE) == "no further message"


def test_every_state_has_a_name_of_its_own() -> None:
    """Log lines show names; two machines may share one, a machine may not."""
    for machine in (ConnectionState, LifespanState, ResponseState, ProgramState, ServerState, WebSocketState):
        assert len({member.value for member in machine}) == len(list(machine))


# -- RESPONSE: HTTP11Cycle.send


class Connection:
    """The connection of a cycle that is alone."""

    head: Any = SimpleNamespace(request=RequestState.DONE, http10=False)
    persistent = True
    deadline = 0.0

    def __init__(self, context: WorkerContext, flow: FlowControl) -> None:
        self.context, self.flow, self.transport = context, flow, flow.transport

    def cycle_complete(self, cycle: HTTP11Cycle) -> None:
        pass

    def body_wanted(self) -> None:
        pass

    def drainable(self) -> bool:
        return True

    def abort(self) -> None:
        pass


class Files:
    """A small file, which becomes an ordinary body, and one that is sent piece by piece."""

    def __init__(self, folder: Path) -> None:
        self.small = folder / "small"
        self.small.write_bytes(b"small")
        self.large = folder / "large"
        self.large.write_bytes(b"l" * 300_000)
        self.opened = [path.open("rb") for path in (self.small, self.large)]

    def close(self) -> None:
        for file in self.opened:
            file.close()
        POOL.close()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    made = Files(tmp_path)
    yield made
    made.close()


def variants(kind: str, files: Files) -> list[Message]:
    """The forms of a message that may lead into different states."""
    more: list[dict[str, Any]] = [{"more_body": False}, {"more_body": True}]
    forms: dict[str, list[dict[str, Any]]] = {
        "http.response.start": [{"status": 200}],
        "http.response.body": [{"body": b"x", **form} for form in more],
        "http.response.zerocopysend": [
            {"file": file, "offset": 0, **form} for file, form in product(files.opened, more)
        ],
        "http.response.pathsend": [{"path": str(path)} for path in (files.small, files.large)],
        "http.response.trailers": [{"headers": [], "more_trailers": flag} for flag in (False, True)],
        "http.response.early_hint": [{"links": [b"</style.css>; rel=preload"]}],
        "http.response.informational": [{"status": 103, "headers": []}],
    }
    return [{"type": kind, **form} for form in forms.get(kind, [{}])]


def request_scope() -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": [], "extensions": {}}


@asynccontextmanager
async def response_in(state: ResponseState, trailers: bool, files: Files) -> AsyncIterator[HTTP11Cycle]:
    """A cycle that has come into ``state`` by legal means."""
    loop = asyncio.get_running_loop()
    context = WorkerContext(application=application(HELLO), settings=make_settings(), loop=loop, log=FakeLog())
    flow = FlowControl(FakeTransport())
    cycle = HTTP11Cycle(Connection(context, flow), context.router.default, request_scope())
    cycle.takes_trailers = True
    start = {"type": "http.response.start", "status": 200, "trailers": trailers or state is ResponseState.TRAILERS}
    path: dict[ResponseState, list[Message]] = {
        ResponseState.WAITING: [],
        ResponseState.STARTED: [start],
        ResponseState.BODY: [start, {"type": "http.response.body", "body": b"x", "more_body": True}],
        ResponseState.FILE: [start],
        ResponseState.ENDING: [start, {"type": "http.response.body", "body": b"x", "more_body": True}],
        ResponseState.TRAILERS: [start, {"type": "http.response.body", "body": b"x"}],
        ResponseState.COMPLETE: [{**start, "trailers": False}, {"type": "http.response.body", "body": b"x"}],
        ResponseState.ABORTED: [start],
    }
    for message in path[state]:
        await cycle.send(message)
    sending: asyncio.Task[None] | None = None
    if state is ResponseState.FILE:
        sending = loop.create_task(cycle.send({"type": "http.response.pathsend", "path": str(files.large)}))
        await asyncio.sleep(0)
    elif state is ResponseState.ENDING:
        assert end_stream(cycle)
    elif state is ResponseState.ABORTED:
        cycle.disconnect()
    assert cycle.state is state
    yield cycle
    if sending is not None:
        await sending


async def outcome(
    state: ResponseState, trailers: bool, message: Message, files: Files
) -> tuple[ResponseState, Exception | None]:
    """The state after ``message``, and what ``send()`` raised."""
    async with response_in(state, trailers, files) as cycle:
        try:
            await cycle.send(message)
        except Exception as exc:
            return cycle.state, exc
        return cycle.state, None


@pytest.mark.parametrize("kind", events(RESPONSE, "http.response.push", "websocket.send"))
@pytest.mark.parametrize("state", ResponseState, ids=lambda state: state.name)
def test_response(state: ResponseState, kind: str, files: Files) -> None:
    """``HTTP11Cycle.send`` against ``RESPONSE``."""
    outcomes = uvloop.run(_outcomes(state, kind, files))
    legal = RESPONSE.get((state, kind))
    if legal is not None:
        assert [error for _, error in outcomes if error is not None] == []
        assert {after for after, _ in outcomes} == legal
        return
    for after, error in outcomes:
        assert after is state
        if state is ResponseState.ABORTED or state is ResponseState.ENDING:  # nobody is there to take it
            assert isinstance(error, ClientDisconnected)
        else:
            assert isinstance(error, UnexpectedMessage)
            assert repr(kind) in str(error)
            assert state.name in str(error)
            assert expected(RESPONSE, state) in str(error)


async def _outcomes(state: ResponseState, kind: str, files: Files) -> list[tuple[ResponseState, Exception | None]]:
    return [
        await outcome(state, trailers, message, files)
        for trailers in (False, True)
        for message in variants(kind, files)
        if state is not ResponseState.ENDING or not message.get("more_body", False)
    ]


# -- LIFESPAN: Lifespan


class LifespanApp:
    """An application that hands out its ``send``, and ends when it is told to."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.ended = asyncio.Event()
        self.receive: Receive
        self.send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.receive, self.send = receive, send
        await receive()
        self.called.set()
        await self.ended.wait()


async def lifespan_outcome(state: LifespanState, kind: str) -> tuple[LifespanState, Exception | None]:
    """Bring a lifespan into ``state`` by legal means, send one message, and look where it is."""
    app = LifespanApp()
    context = WorkerContext(
        application=application(app), settings=make_settings(), loop=asyncio.get_running_loop(), log=FakeLog()
    )
    lifespan = Lifespan(context, context.router.default)
    tasks: list[asyncio.Task[None]] = []
    send: Send = lifespan._send
    if state is not LifespanState.NEW:
        tasks.append(asyncio.create_task(lifespan.startup()))
        await app.called.wait()
        send = app.send
    if state is LifespanState.UNSUPPORTED:
        app.ended.set()
        await settle()
    elif state is LifespanState.FAILED:
        await send({"type": "lifespan.startup.failed", "message": "no"})
    elif state not in (LifespanState.NEW, LifespanState.STARTING):
        await send({"type": "lifespan.startup.complete"})
    if state in (LifespanState.STOPPING, LifespanState.STOPPED):
        await tasks[0]
        tasks.append(asyncio.create_task(lifespan.shutdown(30)))
        await app.receive()
    if state is LifespanState.STOPPED:
        await send({"type": "lifespan.shutdown.complete"})
    assert lifespan.state is state
    error: Exception | None = None
    try:
        await send({"type": kind, "message": "why"})
    except Exception as exc:
        error = exc
    after = lifespan.state
    app.ended.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if lifespan.task is not None:
        await asyncio.wait([lifespan.task])
    return after, error


@pytest.mark.parametrize("kind", events(LIFESPAN, "lifespan.startup", "http.response.start"))
@pytest.mark.parametrize("state", LifespanState, ids=lambda state: state.name)
def test_lifespan(state: LifespanState, kind: str) -> None:
    """``Lifespan`` against ``LIFESPAN``."""
    after, error = uvloop.run(lifespan_outcome(state, kind))
    legal = LIFESPAN.get((state, kind))
    if legal is not None:
        assert error is None
        assert {after} == legal
    else:
        assert after is state
        assert isinstance(error, UnexpectedMessage)
        assert repr(kind) in str(error)
        assert state.name in str(error)


# -- CONNECTION: HTTPProtocol

WITHOUT_EXTRA = "the extra hybridworker[websockets] is not installed"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def upgrade(connection: Wire) -> Any:
    """Feed a handshake; returns the protocol that the connection has afterwards."""
    connection.feed(HANDSHAKE)
    connection.protocol = connection.transport.protocol
    return connection.protocol


class Held:
    """An application that answers when it is told to; each request is one call."""

    def __init__(self) -> None:
        self.sends: list[Send] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.sends.append(send)
        while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
            pass

    async def answer(self) -> None:
        """Answer the last request."""
        await self.sends[-1]({"type": "http.response.start", "status": 204, "headers": []})
        await self.sends[-1]({"type": "http.response.body"})


@contextmanager
def connection_in(state: ConnectionState, request: bytes) -> Iterator[tuple[Wire, Any, Held]]:
    """A connection that has come into ``state`` by legal means; ``request`` is what it is, or was, busy with."""
    app = Held()
    with wire(app) as connection:
        protocol = connection.protocol
        if state is ConnectionState.UPGRADED:
            upgrade(connection)
        elif state is not ConnectionState.NEW:
            connection.feed(request)
        if state is ConnectionState.IDLE or state is ConnectionState.CLOSING:
            connection.loop.run_until_complete(app.answer())
        elif state is ConnectionState.CLOSED:
            connection.lose()
        connection.run()
        assert protocol.state is state
        yield connection, protocol, app


def _request(connection: Wire, protocol: Any, app: Held) -> None:
    protocol.data_received(GET)


def _complete(connection: Wire, protocol: Any, app: Held) -> None:
    """The last response is complete; in a state that is not ACTIVE, one of a request that is over."""
    if protocol.cycle is not None:
        connection.loop.run_until_complete(app.answer())
    else:
        protocol.cycle_complete(object())


def _complete_with_a_successor(connection: Wire, protocol: Any, app: Held) -> None:
    protocol.data_received(GET)
    _complete(connection, protocol, app)


def _close(connection: Wire, protocol: Any, app: Held) -> None:
    protocol.close()


def _lost(connection: Wire, protocol: Any, app: Held) -> None:
    connection.transport.closing = True
    protocol.connection_lost(None)


Event = Callable[[Wire, Any, Held], None]

#: Event -> (what happens, the request that the connection was busy with before)
CONNECTION_EVENTS: dict[str, list[tuple[Event, bytes]]] = {
    "request": [(_request, GET)],
    "complete": [(_complete, GET), (_complete, GET_AND_CLOSE), (_complete_with_a_successor, GET)],
    "close": [(_close, GET)],
    "lost": [(_lost, GET)],
}


@pytest.mark.parametrize("event", CONNECTION_EVENTS)
@pytest.mark.parametrize("state", ConnectionState, ids=lambda state: state.name)
def test_connection(state: ConnectionState, event: str) -> None:
    """``HTTPProtocol`` against ``CONNECTION``: what the table lacks is ignored."""
    if state is ConnectionState.UPGRADED:
        pytest.importorskip("websockets", reason=WITHOUT_EXTRA)
        if event != "complete":
            return  # the transport has another protocol: nobody calls this one any more
    if state is ConnectionState.CLOSED and event == "lost":
        return  # the transport says it once
    if event == "request" and state is ConnectionState.ACTIVE:
        return  # what is pipelined is no request yet: see "complete"
    reached = set()
    for happens, request in CONNECTION_EVENTS[event]:
        if event == "complete" and state is not ConnectionState.ACTIVE and (happens, request) != (_complete, GET):
            continue  # only a busy connection has variants
        if state is ConnectionState.IDLE or state is ConnectionState.CLOSING:
            request = GET if state is ConnectionState.IDLE else GET_AND_CLOSE
        with connection_in(state, request) as (connection, protocol, app):
            happens(connection, protocol, app)
            connection.run()
            reached.add(protocol.state)
            if protocol.state is not ConnectionState.CLOSED:
                connection.lose()
    assert reached == CONNECTION.get((state, event), {state})


@pytest.mark.parametrize("state", [ConnectionState.NEW, ConnectionState.IDLE], ids=lambda state: state.name)
def test_connection_upgrade(state: ConnectionState) -> None:
    """A handshake passes through ACTIVE into UPGRADED, from wherever a request may begin."""
    pytest.importorskip("websockets", reason=WITHOUT_EXTRA)
    assert (state, "upgrade") not in CONNECTION
    with connection_in(state, GET) as (connection, protocol, _):
        assert upgrade(connection) is not protocol
        assert {protocol.state} == CONNECTION[ConnectionState.ACTIVE, "upgrade"]


# -- WEBSOCKET: WebSocketProtocol.send

CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"  # 1000, masked with zeros

WEBSOCKET_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "websocket.send": [{"text": "x"}, {"bytes": b"x"}],
    "websocket.close": [{}, {"code": 4000, "reason": "x"}],
    "websocket.http.response.start": [{"status": 401, "headers": []}],
    "websocket.http.response.body": [{"body": b"x", "more_body": more} for more in (False, True)],
}

WEBSOCKET_PATHS: dict[WebSocketState, list[Message]] = {
    WebSocketState.CONNECTING: [],
    WebSocketState.OPEN: [{"type": "websocket.accept"}],
    WebSocketState.REMOTE_CLOSING: [{"type": "websocket.accept"}],
    WebSocketState.LOCAL_CLOSING: [{"type": "websocket.accept"}, {"type": "websocket.close"}],
    WebSocketState.REJECTING: [{"type": "websocket.http.response.start", "status": 401}],
    WebSocketState.CLOSED: [{"type": "websocket.close"}],
}


def websocket_outcome(state: WebSocketState, message: Message) -> tuple[WebSocketState, Exception | None]:
    """Bring a WebSocket into ``state`` by legal means, send one message, and look where it is."""
    app = Held()
    with wire(app) as connection:
        protocol = upgrade(connection)
        send = app.sends[-1]
        for step in WEBSOCKET_PATHS[state]:
            connection.loop.run_until_complete(send(step))
        if state is WebSocketState.REMOTE_CLOSING:
            protocol.data_received(CLOSE_FRAME)
        assert protocol.state is state
        error: Exception | None = None
        try:
            connection.loop.run_until_complete(send(message))
        except Exception as exc:
            error = exc
        return protocol.state, error


@pytest.mark.parametrize("kind", events(WEBSOCKET, "websocket.receive", "http.response.start"))
@pytest.mark.parametrize("state", WebSocketState, ids=lambda state: state.name)
def test_websocket(state: WebSocketState, kind: str) -> None:
    """``WebSocketProtocol.send`` against ``WEBSOCKET``."""
    pytest.importorskip("websockets", reason=WITHOUT_EXTRA)
    forms = WEBSOCKET_VARIANTS.get(kind, [{}])
    outcomes = [websocket_outcome(state, {"type": kind, **form}) for form in forms]
    legal = WEBSOCKET.get((state, kind))
    if legal is not None:
        assert [error for _, error in outcomes if error is not None] == []
        assert {after for after, _ in outcomes} == legal
        return
    for after, error in outcomes:
        assert after is state
        if state in (WebSocketState.CONNECTING, WebSocketState.OPEN, WebSocketState.REJECTING):
            assert isinstance(error, UnexpectedMessage)
            assert repr(kind) in str(error)
            assert state.name in str(error)
            assert expected(WEBSOCKET, state) in str(error)
        else:  # whatever it is: nobody is there to take it
            assert isinstance(error, ClientDisconnected)
