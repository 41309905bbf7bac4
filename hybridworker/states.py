"""
Every state and every legal transition.

Whatever affects a state machine stands in this file. The running code is an
ordered ``is`` ladder, commonest case first; the tables below are consulted on
its error path, to say what was expected, and by ``tests/test_states.py``, which
walks every (state, event) pair and checks that ladder and table agree.

The members are compared with ``is``. A table maps ``(state, event)`` to the set
of states in which the machine may be afterwards; a missing pair is illegal.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar


class ConnectionState(enum.Enum):
    """One TCP connection, as :class:`~.http11.protocol.HTTPProtocol` sees it."""

    NEW = enum.auto()  #: accepted, no byte of a request yet. Exits: ACTIVE, CLOSING, CLOSED
    #: A request has begun and its response is not complete. Exits: IDLE, UPGRADED, CLOSING, CLOSED
    ACTIVE = enum.auto()
    IDLE = enum.auto()  #: between a complete response and the next request. Exits: ACTIVE, CLOSING, CLOSED
    UPGRADED = enum.auto()  #: handed to another protocol. Terminal here
    CLOSING = enum.auto()  #: nothing more is parsed; what is written still goes out. Exit: CLOSED
    CLOSED = enum.auto()  #: the transport is gone. Terminal


class RequestState(enum.Enum):
    """What the parser may deliver next."""

    HEADERS = enum.auto()  #: a request line or header field. Exits: BODY, DONE
    BODY = enum.auto()  #: body bytes; a header field here is a trailer. Exit: DONE
    DONE = enum.auto()  #: the message is complete. Exit: HEADERS, when the connection is reused


class CallState(enum.Enum):
    """The call of the application for one request."""

    HELD = enum.auto()  #: begins when the body of the request is complete. Exits: RUNNING, OVER
    READY = enum.auto()  #: begins when the parser has had all that came. Exits: RUNNING, OVER
    RUNNING = enum.auto()  #: Exit: OVER
    OVER = enum.auto()  #: has ended, or never begins. Terminal


class ResponseState(enum.Enum):
    """What the application may send next."""

    WAITING = enum.auto()  #: nothing was sent. Exits: STARTED, ABORTED
    STARTED = enum.auto()  #: the head is known and held back. Exits: BODY, FILE, ENDING, TRAILERS, COMPLETE, ABORTED
    BODY = enum.auto()  #: the head is written. Exits: FILE, ENDING, TRAILERS, COMPLETE, ABORTED
    FILE = enum.auto()  #: a file is being sent, no message is legal. Exits: BODY, TRAILERS, COMPLETE, ABORTED
    #: The worker leaves and wants a body without a known end to end. Exits: TRAILERS, COMPLETE, ABORTED
    ENDING = enum.auto()
    TRAILERS = enum.auto()  #: the body is complete, trailers were promised. Exits: COMPLETE, ABORTED
    COMPLETE = enum.auto()  #: the last byte is written. Terminal
    ABORTED = enum.auto()  #: the peer has gone, or the response was cut. Terminal


class CarrierState(enum.Enum):
    """One connection whose WSGI call has a socket, as :class:`~.http11.carrier.SocketCarrier` sees it."""

    UNDECIDED = enum.auto()  #: nothing was written. Exits: CARRYING, ANSWERING, CLOSING, CLOSED
    CARRYING = enum.auto()  #: the application has written to its socket: the response is there. Exits: CLOSING, CLOSED
    ANSWERING = enum.auto()  #: ``start_response()`` answers. Exits: CLOSING, CLOSED
    CLOSING = enum.auto()  #: what is written still goes out. Exit: CLOSED
    CLOSED = enum.auto()  #: the transport is gone; the call may go on. Terminal


class WebSocketState(enum.Enum):
    """One WebSocket connection."""

    CONNECTING = enum.auto()  #: the handshake waits for the application. Exits: OPEN, REJECTING, CLOSED
    OPEN = enum.auto()  #: accepted. Exits: REMOTE_CLOSING, LOCAL_CLOSING, CLOSED
    REMOTE_CLOSING = enum.auto()  #: the peer's close frame came. Exit: CLOSED
    LOCAL_CLOSING = enum.auto()  #: our close frame was sent. Exit: CLOSED
    REJECTING = enum.auto()  #: a denial response is being sent. Exit: CLOSED
    CLOSED = enum.auto()  #: nothing more goes in either direction. Terminal


class ReaderState(enum.Enum):
    """What is read of a WebSocket, as :class:`~.frames.MessageReader` sees it."""

    READING = enum.auto()  #: every frame. Exits: CLOSING, CLOSED, FAILED
    CLOSING = enum.auto()  #: our close frame was sent; all but the peer's is dropped. Exits: CLOSED, FAILED
    CLOSED = enum.auto()  #: the peer's close frame came. Terminal
    FAILED = enum.auto()  #: the end without one: the peer broke the protocol, or has gone. Terminal


class LifespanState(enum.Enum):
    """The application's startup and shutdown."""

    NEW = enum.auto()  #: not asked yet. Exit: STARTING
    STARTING = enum.auto()  #: ``lifespan.startup`` was delivered. Exits: STARTED, UNSUPPORTED, FAILED
    STARTED = enum.auto()  #: ``startup.complete`` came. Exit: STOPPING
    UNSUPPORTED = enum.auto()  #: the application does not speak lifespan. Terminal
    FAILED = enum.auto()  #: ``startup.failed`` came. Terminal
    STOPPING = enum.auto()  #: ``lifespan.shutdown`` was delivered. Exit: STOPPED
    STOPPED = enum.auto()  #: the application finished. Terminal


class ProgramState(enum.Enum):
    """What one worker is doing, from the making of its loop to the end: see :class:`~.process.program.Program`."""

    STARTING = enum.auto()  #: not accepting yet. Exits: SERVING, DRAINING
    SERVING = enum.auto()  #: accepting. Exits: WISHING, HANDING_OVER, DRAINING
    WISHING = enum.auto()  #: accepting, and waiting for its turn to be replaced. Exits: HANDING_OVER, DRAINING
    #: Told to go, and accepting until a younger worker does. Exits: DRAINING, and back where none can boot
    HANDING_OVER = enum.auto()
    DRAINING = enum.auto()  #: leaving, and finishing what was begun. Exit: EXITING
    EXITING = enum.auto()  #: all requests are over; the application shuts down. Terminal


class ServerState(enum.Enum):
    """All listeners and connections of one worker."""

    STARTING = enum.auto()  #: not accepting yet. Exits: SERVING, STOPPED
    SERVING = enum.auto()  #: accepting. Exit: DRAINING
    DRAINING = enum.auto()  #: finishing what was begun. Exit: STOPPED
    STOPPED = enum.auto()  #: no listener, no connection. Terminal


_State = TypeVar("_State", bound=enum.Enum)
Table = Mapping[tuple[_State, str], frozenset[_State]]

#: ASGI HTTP: (state, message type) -> the states after it (``more_body`` and ``trailers`` decide which).
RESPONSE: Table[ResponseState] = {
    (ResponseState.WAITING, "http.response.start"): frozenset({ResponseState.STARTED}),
    (ResponseState.WAITING, "http.response.early_hint"): frozenset({ResponseState.WAITING}),
    (ResponseState.WAITING, "http.response.informational"): frozenset({ResponseState.WAITING}),
    (ResponseState.STARTED, "http.response.early_hint"): frozenset({ResponseState.STARTED}),
    (ResponseState.STARTED, "http.response.informational"): frozenset({ResponseState.STARTED}),
    (ResponseState.STARTED, "http.response.body"): frozenset(
        {ResponseState.BODY, ResponseState.TRAILERS, ResponseState.COMPLETE}
    ),
    (ResponseState.STARTED, "http.response.zerocopysend"): frozenset(
        {ResponseState.BODY, ResponseState.TRAILERS, ResponseState.COMPLETE}
    ),
    (ResponseState.STARTED, "http.response.pathsend"): frozenset({ResponseState.TRAILERS, ResponseState.COMPLETE}),
    (ResponseState.BODY, "http.response.body"): frozenset(
        {ResponseState.BODY, ResponseState.TRAILERS, ResponseState.COMPLETE}
    ),
    (ResponseState.BODY, "http.response.zerocopysend"): frozenset(
        {ResponseState.BODY, ResponseState.TRAILERS, ResponseState.COMPLETE}
    ),
    # Too late to be a hint, and harmless: ignored (checklist X15).
    (ResponseState.BODY, "http.response.early_hint"): frozenset({ResponseState.BODY}),
    (ResponseState.BODY, "http.response.informational"): frozenset({ResponseState.BODY}),
    # Only a last part; one that has more to come raises, as anything does.
    (ResponseState.ENDING, "http.response.body"): frozenset({ResponseState.TRAILERS, ResponseState.COMPLETE}),
    (ResponseState.TRAILERS, "http.response.trailers"): frozenset({ResponseState.TRAILERS, ResponseState.COMPLETE}),
}

#: ASGI WebSocket: (state, message type) -> the states after it.
WEBSOCKET: Table[WebSocketState] = {
    (WebSocketState.CONNECTING, "websocket.accept"): frozenset({WebSocketState.OPEN}),
    (WebSocketState.CONNECTING, "websocket.close"): frozenset({WebSocketState.CLOSED}),
    (WebSocketState.CONNECTING, "websocket.http.response.start"): frozenset({WebSocketState.REJECTING}),
    (WebSocketState.REJECTING, "websocket.http.response.body"): frozenset(
        {WebSocketState.REJECTING, WebSocketState.CLOSED}
    ),
    (WebSocketState.OPEN, "websocket.send"): frozenset({WebSocketState.OPEN}),
    (WebSocketState.OPEN, "websocket.close"): frozenset({WebSocketState.LOCAL_CLOSING}),
}

#: Lifespan: (state, message type) -> the states after it.
LIFESPAN: Table[LifespanState] = {
    (LifespanState.STARTING, "lifespan.startup.complete"): frozenset({LifespanState.STARTED}),
    (LifespanState.STARTING, "lifespan.startup.failed"): frozenset({LifespanState.FAILED}),
    (LifespanState.STOPPING, "lifespan.shutdown.complete"): frozenset({LifespanState.STOPPED}),
    (LifespanState.STOPPING, "lifespan.shutdown.failed"): frozenset({LifespanState.STOPPED}),
}

#: Connection: (state, event) -> the states after it. Events are those of :class:`~.http11.protocol.HTTPProtocol`.
CONNECTION: Table[ConnectionState] = {
    (ConnectionState.NEW, "request"): frozenset({ConnectionState.ACTIVE}),
    (ConnectionState.IDLE, "request"): frozenset({ConnectionState.ACTIVE}),
    (ConnectionState.ACTIVE, "complete"): frozenset(
        {ConnectionState.IDLE, ConnectionState.ACTIVE, ConnectionState.CLOSING}
    ),
    (ConnectionState.ACTIVE, "upgrade"): frozenset({ConnectionState.UPGRADED}),
    (ConnectionState.NEW, "close"): frozenset({ConnectionState.CLOSING}),
    (ConnectionState.ACTIVE, "close"): frozenset({ConnectionState.CLOSING}),
    (ConnectionState.IDLE, "close"): frozenset({ConnectionState.CLOSING}),
    (ConnectionState.CLOSING, "close"): frozenset({ConnectionState.CLOSING}),
    (ConnectionState.NEW, "lost"): frozenset({ConnectionState.CLOSED}),
    (ConnectionState.ACTIVE, "lost"): frozenset({ConnectionState.CLOSED}),
    (ConnectionState.IDLE, "lost"): frozenset({ConnectionState.CLOSED}),
    (ConnectionState.CLOSING, "lost"): frozenset({ConnectionState.CLOSED}),
}

#: Program: (state, event) -> the states after it. Events are the methods of :class:`~.process.program.Program`.
PROGRAM: Table[ProgramState] = {
    (ProgramState.STARTING, "serve"): frozenset({ProgramState.SERVING}),
    (ProgramState.STARTING, "leave"): frozenset({ProgramState.DRAINING}),
    (ProgramState.SERVING, "recycle"): frozenset({ProgramState.WISHING, ProgramState.DRAINING}),
    (ProgramState.SERVING, "leave"): frozenset({ProgramState.HANDING_OVER, ProgramState.DRAINING}),
    (ProgramState.WISHING, "recycle"): frozenset({ProgramState.WISHING, ProgramState.DRAINING}),
    (ProgramState.WISHING, "leave"): frozenset({ProgramState.HANDING_OVER, ProgramState.DRAINING}),
    (ProgramState.HANDING_OVER, "hand over"): frozenset(
        {ProgramState.DRAINING, ProgramState.SERVING, ProgramState.WISHING}
    ),
    (ProgramState.DRAINING, "drain"): frozenset({ProgramState.EXITING}),
}


def expected(table: Table[_State], state: _State) -> str:
    """Name the events that ``table`` allows in ``state``, for error messages."""
    events = [event for (origin, event) in table if origin is state]
    return " or ".join(events) if events else "no further message"
