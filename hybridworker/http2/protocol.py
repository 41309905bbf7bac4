"""
HTTP2Protocol: one connection of HTTP/2 and its streams (RFC 9113).

    data_received -> FrameReader.feed -> on_request -> RequestHead -> Stream, HTTP2Cycle
                                      -> on_data, on_reset, on_window
                  -> the requests of the read are begun -> Outbox.flush

Here are the streams, the order in which requests begin, the timeouts, and the end: :mod:`.framereader` knows the
protocol, :mod:`.outbox` sends, :mod:`.cycle` serves one request. Event loop side only. States: ``states.HTTP2``.

Requests start after all bytes of one read have been parsed, so one that is reset within the same read never starts. A
call that goes on without its stream counts against http2_max_concurrent_streams, so new requests may wait for its end.

Invariant: what is wrong with one request ends its stream alone.
"""

from __future__ import annotations

import asyncio
import math
import time

from ..asgi import Headers
from ..connection import kernel
from ..connection.context import WorkerContext
from ..connection.cycle import DRAIN_MAX
from ..connection.errorpages import error_page
from ..connection.flow import DEAF, LINGER, FlowControl
from ..connection.pace import STEP_MAX
from ..connection.peer import Peer
from ..connection.refusal import note_refusal
from ..connection.scope import address_name, websocket_scope
from ..errors import HTTP2Error, ProtocolError
from ..group.scoreboard import RESET, RESETS
from ..states import CallState, HTTP2State, RequestState, ResponseState, StreamState
from ..wsgi.streams import WHOLE_BODY_MAX
from . import tunnel, wire
from .cycle import HTTP2Cycle, label
from .framereader import FrameReader
from .head import RequestHead
from .outbox import Outbox
from .response import error_block
from .stream import Stream, opened
from .wire import CANCEL, LARGEST, NO_ERROR, PING, PROTOCOL_ERROR, REFUSED_STREAM, LocalSettings

OPEN, LEAVING, LAST = HTTP2State.OPEN, HTTP2State.LEAVING, HTTP2State.LAST
CLOSING, CLOSED = HTTP2State.CLOSING, HTTP2State.CLOSED
HELD, READY, RUNNING, OVER = CallState.HELD, CallState.READY, CallState.RUNNING, CallState.OVER
BODY, DONE = RequestState.BODY, RequestState.DONE
COMPLETE = ResponseState.COMPLETE
HALF_CLOSED_LOCAL, ENDED = StreamState.HALF_CLOSED_LOCAL, StreamState.CLOSED

NEVER = math.inf

#: The PING behind the first GOAWAY. Its answer comes behind every stream that the client had opened before it knew.
GOODBYE = b"goodbye!"


class HTTP2Protocol(asyncio.Protocol):
    """One TCP or unix connection, or the inside of a TLS one, that speaks HTTP/2."""

    __slots__ = (
        "context", "deadline", "flow", "loop", "peer", "state", "transport",
        "begun", "head", "lingering", "outbox", "reader",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, transport: asyncio.Transport, peer: Peer) -> None:
        self.context = context
        self.loop = context.loop
        self.transport = transport
        self.peer = peer
        self.flow = FlowControl(transport)
        self.state = OPEN
        local = local_settings(context)
        self.reader = FrameReader(self, local, self.loop.time)
        self.outbox = Outbox(context, self.flow, self.reader, self._sent)
        self.head = RequestHead(context, peer)
        self.begun: list[Stream] = []  #: those whose requests begin behind this read, or when there is room
        self.lingering = 0  #: calls of the application whose streams are closed
        #: loop time: until a first stream, the end of idling, of the answer to the PING, or of CLOSING
        self.deadline = self.loop.time() + context.settings.header_timeout
        context.connections.add(self)
        self.outbox.write(local.frames())

    # -- called by the transport

    def data_received(self, data: bytes) -> None:
        if self.state is CLOSING or self.state is CLOSED:
            return  # the rest is dropped, so that no RST overtakes the last frames
        outbox = self.outbox
        outbox.holding = True
        try:
            if self.peer.proxy is not None:
                data = self.peer.strip_proxy_header(self.peer.proxy, data)
            self.reader.feed(data)
            if self.begun:
                self._begin()
        except HTTP2Error as exc:
            self._fail(exc)
        except ProtocolError as exc:  # the PROXY header
            self._fail(HTTP2Error(PROTOCOL_ERROR, str(exc)))
        finally:
            outbox.flush()
        if self.flow.write_paused:
            self.flow.pause_reading()  # a client that asks for answers and takes none

    def eof_received(self) -> bool:
        self.reader.over = True
        self.flow.ending()
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = CLOSED
        self.reader.over = True
        self.flow.lose()
        self._lose_all()
        self.context.connections.lost(self)

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        for stream in self.reader.streams.values():
            stream.write_paused = True

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        for stream in self.reader.streams.values():
            stream.write_paused = stream.size > 0
        self.outbox.pump()
        if not self.flow.write_paused:
            self.flow.resume_reading()

    # -- called by the server

    @property
    def idle_until(self) -> float | None:
        """Loop time at which the connection ends for being idle; None where it is not."""
        idle = self.state is OPEN and self.reader.ready and not self.reader.streams
        return self.deadline if idle else None

    @property
    def closing(self) -> bool:
        """Whether nothing more is read, and the client has not closed its side yet."""
        return self.state is CLOSING

    def tick(self, now: float) -> None:
        reader, settings, state = self.reader, self.context.settings, self.state
        timeout = settings.write_timeout
        if self.context.persistence.draining and not reader.streams:
            timeout = min(timeout, DEAF)  # everything is answered, and it holds up the worker
        if self.flow.stalled(now, timeout, self.outbox.sent):
            self.context.log.debug("Peer %s takes no bytes, connection dropped", self.peer.address)
            self.abort()
        elif self.flow.read_paused and kernel.hung_up(self.flow.fileno()):
            self.abort()  # the transport does not see it while reading is paused
        elif state is CLOSING:
            if now >= self.deadline:
                if self.flow.unsent():  # a slow reader has its time
                    self.deadline = now + LINGER
                elif self.flow.settled():
                    self.abort()
        elif reader.waiting_since is not None and now - reader.waiting_since >= settings.header_timeout:
            self._fail(HTTP2Error(NO_ERROR, "a frame took longer than HYBRIDWORKER_HEADER_TIMEOUT"))
        elif now >= self.deadline and (state is LEAVING or not reader.streams):
            if state is LEAVING or not self.flow.readable():  # what has arrived is a request that deserves its answer
                self._last()
        else:
            for stream in opened(reader.streams):
                self._look(stream, now)

    def drain(self, deadline: float) -> None:
        self.flow.progress = None  # a client that takes no bytes has its time from now on
        now = self.loop.time()
        for stream in opened(self.reader.streams):
            stream.progress = now
            if stream.tunnel is not None:
                stream.tunnel.drain(deadline)
            elif stream.state is HALF_CLOSED_LOCAL:
                stream.deadline = min(stream.deadline, now + DEAF)
        if self.state is not OPEN:
            return
        if self.idle_until is not None and deadline <= now:
            if not self.flow.readable():
                self._last()
        elif self.reader.ready:
            self.retire()
        else:
            self.deadline = min(self.deadline, deadline)
            if self.deadline <= now:
                self._last()

    def abort(self) -> None:
        self._lose_all()
        self.flow.abort()

    # -- called by a cycle

    def answered(self, stream: Stream) -> None:
        """The last message of a response was taken: what is left of the request's body is dropped."""
        cycle = stream.cycle
        if cycle is not None and cycle.buffered:
            self._drop(stream, cycle.buffered)

    def body_wanted(self, stream: Stream) -> None:
        """The application waits for bytes of the body: from now on the client may be late."""
        stream.deadline = self.loop.time() + self.context.settings.body_timeout
        reader = self.reader
        if not reader.local.window and stream.window <= reader.initial and not stream.owed:
            # http2_initial_window_size is 0, and perhaps the client is still to hear of it.
            reader.credit(stream, wire.DEFAULT_WINDOW)

    def call_over(self, stream: Stream) -> None:
        """The call of the application has ended, and counts no more."""
        if stream.lingers:
            stream.lingers = False
            stream.cycle = None  # a circle of references less
            self.lingering -= 1
        elif stream.lost:
            stream.cycle = None
        if self.begun:
            self.loop.call_soon(self._begin)

    def cut(self, stream: Stream, code: int) -> None:
        """Reset the stream, so that the client sees that something is missing, or is not wanted."""
        if self.reader.streams.get(stream.id) is stream:
            self._count(code)
            self.reader.reset(stream.id, code)
            self._lose(stream)

    def retire(self) -> None:
        """Ask the client to open no further streams. Those that it has opened meanwhile are served."""
        if self.state is OPEN:
            self.state = LEAVING
            self.deadline = self.loop.time() + self.context.settings.first_window
            self.reader.leaving = True
            self.outbox.write(wire.goaway(LARGEST, NO_ERROR) + wire.frame(PING, 0, 0, GOODBYE))

    # -- called by the reader

    def write(self, data: bytes) -> None:
        self.outbox.write(data)

    def on_request(self, stream_id: int, fields: Headers, ended: bool, oversized: bool) -> None:
        head, stream = self.head, Stream(stream_id, self.flow)
        try:
            scope = head.read(fields, ended, oversized)
        except ProtocolError as exc:
            self._refuse(stream, ended, exc)
            return
        stream.expected = head.length
        self.reader.begin(stream, ended)
        if head.websocket:
            tunnel.open_websocket(self, head.application, stream, websocket_scope(scope))
            return
        application = head.application
        stream.cycle = cycle = HTTP2Cycle(self, application, stream, scope, DONE if ended else BODY)
        if head.expects_continue:
            cycle.expect_continue = True
        if application.counted:
            quota = self.context.quota
            quota.served += 1  # `count()`, without the call
            if quota.served == quota.limit:
                quota.used_up()
        if application.threaded and not ended and not head.expects_continue and head.length is not None:
            if head.length <= min(WHOLE_BODY_MAX, self.reader.local.window):  # more does not come before some is read
                cycle.call_state = HELD
                self.body_wanted(stream)
                return
        self.begun.append(stream)

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        cycle = stream.cycle
        if stream.tunnel is not None:
            stream.tunnel.receive(data, ended)
            if ended:
                self._sent(stream)
        elif cycle is None or cycle.state is COMPLETE or cycle.disconnected:
            self._drop(stream, len(data))
            if ended:
                self._sent(stream)
        else:
            if data:
                cycle.feed(data)
                if cycle.disconnected:  # the body is too long, and was refused
                    self._drop(stream, len(data))
            if not ended:
                stream.deadline = self.loop.time() + self.context.settings.body_timeout
                return
            stream.deadline = NEVER
            cycle.feed_eof()
            if cycle.call_state is HELD:
                cycle.call_state = READY
                self.begun.append(stream)

    def on_window(self, stream: Stream | None) -> None:
        if self.outbox.blocked:
            self.outbox.pump()

    def on_reset(self, stream: Stream, code: int) -> None:
        self.context.slot[RESET] += 1
        self._lose(stream)

    def on_violation(self, stream_id: int, stream: Stream | None, code: int, reason: str) -> None:
        self._count(code)
        say = self.context.log.debug if code == REFUSED_STREAM else self.context.log.warning
        say("Invalid request from ip=%s: %s", address_name(self.peer.address), reason)
        if stream is not None:
            self._lose(stream)

    def on_ping_ack(self, payload: bytes) -> None:
        if self.state is LEAVING and payload == GOODBYE:
            self._last()

    def on_goaway(self, code: int) -> None:
        if self.state is OPEN or self.state is LEAVING:
            self._last()

    # -- beginning

    def _begin(self) -> None:
        """Begin the requests that have come with this read, or as many as there is room for."""
        begun, self.begun = self.begun, []
        if self.lingering:
            begun = [stream for stream in begun if not stream.lost]
            room = max(0, self.reader.local.max_streams - self.lingering - self._running())
            begun, self.begun = begun[:room], begun[room:]
        outbox, pace, clock = self.outbox, self.context.pace, time.perf_counter
        last = len(begun) - 1
        joining = last > 0 and pace.brisk(self.loop.time())
        before = pace.begin() if joining else 0.0
        for number, stream in enumerate(begun):
            cycle = stream.cycle
            if cycle is None or stream.lost or cycle.call_state is not READY:
                continue
            # The last one need not wait for others: it takes along what waits for it.
            outbox.joining = joining and number < last
            cycle.start()
            if joining:
                now = clock()
                if now - before > STEP_MAX and pace.at_fault(before):
                    joining = False
                    pace.slow(self.loop.time(), f"{label(cycle)} held the loop for {(now - before) * 1000:.1f} ms")
                    outbox.flush()
                before = now
        outbox.joining = False

    def _running(self) -> int:
        """How many calls there are for streams that are open."""
        cycles = (stream.cycle for stream in self.reader.streams.values())
        return sum(cycle is not None and cycle.call_state is RUNNING for cycle in cycles)

    def _refuse(self, stream: Stream, ended: bool, error: ProtocolError) -> None:
        """Answer a request that cannot be served, or reset its stream, and log why."""
        context, malformed = self.context, error.status == 400
        headers = note_refusal(context, self.peer, error, self.head.refused(), answer=not malformed)
        if malformed:
            self._count(PROTOCOL_ERROR)
            self.reader.reset(stream.id, PROTOCOL_ERROR, provoked=True)
            return
        self.reader.begin(stream, ended)
        page = error_page(error.status)
        block = error_block(error.status, context.clock.fields, len(page), headers)
        body = b"" if self.head.method == b"HEAD" else page
        self.outbox.send(stream, block, body, True, True)

    # -- the streams

    def _look(self, stream: Stream, now: float) -> None:
        """See whether the client is late with a body, or in taking a response."""
        cycle = stream.cycle
        if stream.tunnel is not None:
            stream.tunnel.tick(now)
        elif stream.stalled(now, self.context.settings.write_timeout, self.context.persistence.draining):
            self.context.log.debug("Peer %s takes nothing of a response, stream reset", self.peer.address)
            self.cut(stream, CANCEL)
        elif now >= stream.deadline:
            if cycle is None or cycle.state is COMPLETE or stream.state is HALF_CLOSED_LOCAL:
                self.cut(stream, NO_ERROR)  # the rest of a body that is dropped
            elif stream.window <= 0 or cycle.expect_continue:
                stream.deadline = now + self.context.settings.body_timeout  # it may not go on
            elif cycle.call_state is HELD:
                self.cut(stream, CANCEL)  # the rest of a body that no application waits for
            else:
                stream.deadline = NEVER
                cycle.end_of_input()

    def _drop(self, stream: Stream, size: int) -> None:
        """Nobody reads this part of a body."""
        stream.dropped += size
        if stream.dropped <= DRAIN_MAX:
            self.reader.credit(stream, size)
        elif stream.state is HALF_CLOSED_LOCAL:
            self.cut(stream, NO_ERROR)  # RFC 9113 8.1: the response is complete, and the client may stop

    def _sent(self, stream: Stream) -> None:
        """One side of the stream has ended, or both: see whether it is over."""
        if stream.state is ENDED:
            cycle = stream.cycle
            if cycle is not None and cycle.call_state is RUNNING:  # `_leave_call()`, without the call
                stream.lingers = True
                self.lingering += 1
            else:
                self._leave_call(stream)
            if not self.reader.streams:
                self._idle()
        elif stream.state is HALF_CLOSED_LOCAL:
            context = self.context
            wait = DEAF if context.persistence.draining else context.settings.body_timeout
            stream.deadline = self.loop.time() + wait
            if stream.dropped > DRAIN_MAX:
                self.cut(stream, NO_ERROR)

    def _leave_call(self, stream: Stream) -> None:
        """The stream is closed. Its call counts until it is over (CVE-2023-44487), and never begins if it has not."""
        cycle = stream.cycle
        if cycle is None:
            return
        if cycle.call_state is RUNNING:
            stream.lingers = True
            self.lingering += 1
        else:
            cycle.call_state = OVER
            stream.cycle = None

    def _lose(self, stream: Stream) -> None:
        """The stream was reset, or its connection is gone: the application has lost its client."""
        stream.lose()
        cycle = stream.cycle
        if stream.tunnel is not None:
            stream.tunnel.lose()
        elif cycle is not None:
            self._leave_call(stream)
            cycle.disconnect()
            if cycle.task is not None and cycle.call_state is RUNNING:
                self.loop.call_later(self.context.settings.asgi_disconnect_grace_period, cycle.give_up)
        if not self.reader.streams:
            self._idle()

    def _lose_all(self) -> None:
        streams = opened(self.reader.streams)
        self.reader.streams.clear()
        for stream in streams:
            self._lose(stream)

    # -- the end

    def _idle(self) -> None:
        """The last stream has ended."""
        if self.state is OPEN:
            self.deadline = self.loop.time() + self.context.persistence.idle_time
        elif self.state is LAST:
            self.close()

    def _last(self) -> None:
        """Tell the client which stream is the last that is served, and close behind it."""
        self.state = LAST
        self.outbox.write(self.reader.goaway())
        if not self.reader.streams:
            self.close()

    def _fail(self, error: HTTP2Error) -> None:
        """The connection cannot go on (RFC 9113 5.4.1)."""
        level = self.context.log.debug if error.code == NO_ERROR else self.context.log.warning
        level("HTTP/2 connection from ip=%s ended: %s", address_name(self.peer.address), error)
        if error.code:
            self._count(error.code)
        self.outbox.write(self.reader.goaway(error.code, str(error)))
        self.begun = []
        self.reader.over = True
        self._lose_all()
        self.close()

    def close(self) -> None:
        """Close after everything written has been sent. The client sees our end first, and its bytes are dropped."""
        if self.state is CLOSING or self.state is CLOSED:
            return
        self.state = CLOSING
        self.reader.over = True
        self.deadline = self.loop.time() + LINGER
        self.outbox.flush()
        self.flow.linger()

    def _count(self, code: int) -> None:
        """Count a stream that this worker has reset, or the connection."""
        self.context.slot[RESETS + code] += 1


def local_settings(context: WorkerContext) -> LocalSettings:
    """What this worker announces."""
    settings = context.settings
    return LocalSettings(
        max_streams=settings.http2_max_concurrent_streams,
        window=settings.http2_initial_window_size,
        max_frame=settings.http2_max_frame_size,
        max_list=settings.http2_max_header_list_size,
        websockets=tunnel.available() and any(app.takes_websockets for app in context.router.applications),
    )
