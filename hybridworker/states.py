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
    """One TCP connection, as :class:`~.http11.connection.RequestConnection` sees it."""

    NEW = enum.auto()  #: accepted, no byte of a request yet. Exits: ACTIVE, CLOSING, CLOSED
    #: A request has begun and its response is not complete. Exits: IDLE, UPGRADED, CLOSING, CLOSED
    ACTIVE = enum.auto()
    IDLE = enum.auto()  #: between a complete response and the next request. Exits: ACTIVE, CLOSING, CLOSED
    UPGRADED = enum.auto()  #: handed to another protocol. Terminal here
    CLOSING = enum.auto()  #: nothing more is parsed; what is written still goes out. Exit: CLOSED
    CLOSED = enum.auto()  #: the transport is gone. Terminal


class HTTP2State(enum.Enum):
    """One HTTP/2 connection, as :class:`~.http2.protocol.HTTP2Protocol` sees it, and how it is left (RFC 9113 6.8)."""

    OPEN = enum.auto()  #: the client opens streams. Exits: LEAVING, LAST, CLOSING, CLOSED
    LEAVING = enum.auto()  #: it was told to open no more; those under way are taken. Exits: LAST, CLOSING, CLOSED
    LAST = enum.auto()  #: it was told which stream is the last, and those are finished. Exits: CLOSING, CLOSED
    CLOSING = enum.auto()  #: nothing more is read; what is written still goes out. Exit: CLOSED
    CLOSED = enum.auto()  #: the transport is gone. Terminal


class PaceState(enum.Enum):
    """How quickly the applications of a worker return to the loop: :class:`~.connection.pace.Pace`."""

    BRISK = enum.auto()  #: a response may wait behind the code of other requests. Exit: SLOW
    SLOW = enum.auto()  #: one took long of late: each response goes out at once. Exit: BRISK


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


class StreamState(enum.Enum):
    """One HTTP/2 stream, as a server sees it (RFC 9113 5.1), for :class:`~.http2.framereader.FrameReader`."""

    IDLE = enum.auto()  #: the client has not used it. Exits: OPEN, HALF_CLOSED_REMOTE, RESET_SENT
    OPEN = enum.auto()  #: the request is not complete. Exits: both HALF_CLOSED, both RESET, CLOSED
    HALF_CLOSED_REMOTE = enum.auto()  #: the request is complete. Exits: CLOSED, both RESET
    HALF_CLOSED_LOCAL = enum.auto()  #: the response is complete, the request is not. Exits: CLOSED, both RESET
    RESET_SENT = enum.auto()  #: ended by this worker: frames of the client may be on their way. Left for CLOSED in time
    RESET_RECEIVED = enum.auto()  #: ended by the client. Left for CLOSED in time
    CLOSED = enum.auto()  #: both are complete, or the reset is long ago. Terminal


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

#: Connection: (state, event) -> the states after it, as :class:`~.http11.connection.RequestConnection` has them.
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

#: HTTP/2 connection: (state, event) -> the states after it. Events are those of its class.
HTTP2: Table[HTTP2State] = {
    (HTTP2State.OPEN, "retire"): frozenset({HTTP2State.LEAVING}),
    (HTTP2State.OPEN, "last"): frozenset({HTTP2State.LAST, HTTP2State.CLOSING}),
    (HTTP2State.LEAVING, "last"): frozenset({HTTP2State.LAST, HTTP2State.CLOSING}),
    (HTTP2State.OPEN, "close"): frozenset({HTTP2State.CLOSING}),
    (HTTP2State.LEAVING, "close"): frozenset({HTTP2State.CLOSING}),
    (HTTP2State.LAST, "close"): frozenset({HTTP2State.CLOSING}),
    (HTTP2State.OPEN, "lost"): frozenset({HTTP2State.CLOSED}),
    (HTTP2State.LEAVING, "lost"): frozenset({HTTP2State.CLOSED}),
    (HTTP2State.LAST, "lost"): frozenset({HTTP2State.CLOSED}),
    (HTTP2State.CLOSING, "lost"): frozenset({HTTP2State.CLOSED}),
}

#: HTTP/2 stream: (state, event) -> the states after it (RFC 9113 5.1). Events are frames that come, and what is sent
#: to end a side. RESET_SENT is also the answer to a frame that breaks a rule; one without a pair always does.
STREAM: Table[StreamState] = {
    (StreamState.IDLE, "HEADERS"): frozenset(
        {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE, StreamState.RESET_SENT}
    ),
    (StreamState.IDLE, "PRIORITY"): frozenset({StreamState.IDLE}),
    (StreamState.OPEN, "HEADERS"): frozenset({StreamState.HALF_CLOSED_REMOTE, StreamState.RESET_SENT}),
    (StreamState.OPEN, "DATA"): frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE, StreamState.RESET_SENT}),
    (StreamState.OPEN, "PRIORITY"): frozenset({StreamState.OPEN, StreamState.RESET_SENT}),
    (StreamState.OPEN, "RST_STREAM"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.OPEN, "WINDOW_UPDATE"): frozenset({StreamState.OPEN, StreamState.RESET_SENT}),
    (StreamState.OPEN, "send END_STREAM"): frozenset({StreamState.HALF_CLOSED_LOCAL}),
    (StreamState.OPEN, "send RST_STREAM"): frozenset({StreamState.RESET_SENT}),
    (StreamState.HALF_CLOSED_LOCAL, "HEADERS"): frozenset({StreamState.CLOSED, StreamState.RESET_SENT}),
    (StreamState.HALF_CLOSED_LOCAL, "DATA"): frozenset(
        {StreamState.HALF_CLOSED_LOCAL, StreamState.CLOSED, StreamState.RESET_SENT}
    ),
    (StreamState.HALF_CLOSED_LOCAL, "PRIORITY"): frozenset({StreamState.HALF_CLOSED_LOCAL, StreamState.RESET_SENT}),
    (StreamState.HALF_CLOSED_LOCAL, "RST_STREAM"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.HALF_CLOSED_LOCAL, "WINDOW_UPDATE"): frozenset(
        {StreamState.HALF_CLOSED_LOCAL, StreamState.RESET_SENT}
    ),
    (StreamState.HALF_CLOSED_LOCAL, "send RST_STREAM"): frozenset({StreamState.RESET_SENT}),
    (StreamState.HALF_CLOSED_REMOTE, "PRIORITY"): frozenset({StreamState.HALF_CLOSED_REMOTE, StreamState.RESET_SENT}),
    (StreamState.HALF_CLOSED_REMOTE, "RST_STREAM"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.HALF_CLOSED_REMOTE, "WINDOW_UPDATE"): frozenset(
        {StreamState.HALF_CLOSED_REMOTE, StreamState.RESET_SENT}
    ),
    (StreamState.HALF_CLOSED_REMOTE, "send END_STREAM"): frozenset({StreamState.CLOSED}),
    (StreamState.HALF_CLOSED_REMOTE, "send RST_STREAM"): frozenset({StreamState.RESET_SENT}),
    # The client had sent them before it knew.
    (StreamState.RESET_SENT, "HEADERS"): frozenset({StreamState.RESET_SENT}),
    (StreamState.RESET_SENT, "DATA"): frozenset({StreamState.RESET_SENT}),
    (StreamState.RESET_SENT, "PRIORITY"): frozenset({StreamState.RESET_SENT}),
    (StreamState.RESET_SENT, "RST_STREAM"): frozenset({StreamState.RESET_SENT}),
    (StreamState.RESET_SENT, "WINDOW_UPDATE"): frozenset({StreamState.RESET_SENT}),
    (StreamState.RESET_RECEIVED, "PRIORITY"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.RESET_RECEIVED, "RST_STREAM"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.RESET_RECEIVED, "WINDOW_UPDATE"): frozenset({StreamState.RESET_RECEIVED}),
    (StreamState.CLOSED, "PRIORITY"): frozenset({StreamState.CLOSED}),
    (StreamState.CLOSED, "RST_STREAM"): frozenset({StreamState.CLOSED}),
    (StreamState.CLOSED, "WINDOW_UPDATE"): frozenset({StreamState.CLOSED}),
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
