"""
Handoff: a response on its way from the thread that makes it to the loop that sends it.

The half of a WSGI call that crosses the border between threads; :mod:`.wsgi.responder` is the half
that knows the application, and :mod:`.threads` runs it.

    thread side    put -> outbox, finish -> final, ended -> post;    ask -> wait
    loop side      wake -> deliver: send(start), send(body);         receive() -> answer

A response can be awaited from the start, by :meth:`Handoff.deliver`. But nearly every one
is made whole before there is anything to do for the loop: with :meth:`Handoff.begin` the
call runs while nobody waits, and only a response that is not ``whole`` needs a task.

What the client has not taken waits in ``outbox``, and beyond :data:`~.spool.MEMORY_MAX` in a file: see
:mod:`.spool`. The thread waits only where there is no disk for it.

Neither side takes a lock. Each field has one writer. The thread appends what it produces to
``outbox``; it asks for what it needs, and finds that in ``inbox``.

Invariant: what is in ``outbox`` comes before what is in ``spool``. Nothing is added to the outbox until everything that
was written to the file is sent.

Invariant: the thread fills ``outbox`` and ``spool`` before it sets ``final``, and sets ``final`` before
``ended``. The loop reads them in the opposite order, so when it sees ``ended``, everything
before it is visible.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from ..asgi import Message, Receive, Send
from ..errors import ClientDisconnected, TurnedAway, WSGIError, caused_by_disconnect
from .spool import AHEAD_MAX, MEMORY_MAX, Disk, Spool

#: Bytes of response that are joined to one message.
JOIN_MAX = 65536

#: Seconds, and how often, in which a client that reads fast may make room before the disk is used.
PATIENCE, PATIENCE_MAX = 0.001, 5

#: What a thread may ask of the loop: the next message of the request; that the outbox be emptied.
READ, ROOM = "read", "room"

_ROOM_MADE: Message = {}

_CONTINUE: Message = {"type": "http.response.informational", "status": 100, "headers": []}


class Pool(Protocol):
    """The threads, as :class:`~.threads.ThreadPool` has them."""

    loop: asyncio.AbstractEventLoop

    @property
    def queued(self) -> int:
        """Calls that wait for a thread."""

    def submit(self, call: Any) -> None:
        """Have the call run by a thread."""

    def cancel(self, call: Any) -> bool:
        """Have it not run, if no thread has begun with it."""

    def post(self, call: Any) -> None:
        """Have :meth:`Handoff.wake` called by the loop."""


class Handoff:
    """The response of one call, and what the call asks for."""

    __slots__ = (
        "pool",
        "queued_at",  # the pool's own
        # written by the thread
        "bodiless",
        "ended",
        "error",
        "file",
        "final",
        "hints",
        "length",
        "outbox",
        "sent",
        "spool",
        "start",
        "started",
        "variables",
        # written by the loop
        "begun",
        "expects",
        "future",
        "gone",
        "lost",
        "missed",
        "ready",
        "taken",
        # set by one side, cleared by the other
        "asked",
        "inbox",
        "posted",
        "unread",
    )

    queued_at: float
    bodiless: bool  #: nothing follows the head: HEAD, 204, 304
    ended: bool  #: the call is over
    error: BaseException | None
    file: Message | None  #: the message for a file that ends the body
    final: bool  #: outbox and file hold all that is left of the response
    hints: list[Message] | None  #: informational messages
    length: int | None  #: announced Content-Length
    outbox: list[bytes]
    sent: int  #: bytes of body that were handed over
    spool: Spool | None  #: those of them for which there was no room in memory
    start: Message | None  #: the head; set before anything is in the outbox
    started: bool  #: the head can no longer be changed
    variables: contextvars.Context | None  #: of a call that has failed: those that are to be seen where that is logged
    begun: bool  #: the pool has, or has had, the call
    expects: bool  #: the client waits for a 100, or for a response, before it sends its body
    future: asyncio.Future[None] | None  #: what deliver() waits for
    gone: bool  #: nobody takes anything any more
    lost: bool  #: its time is up, and the client has its 504
    missed: bool  #: wake() came while nobody waited for it
    ready: Callable[[], None] | None  #: what the first wake() calls, if begin() was given it
    taken: int  #: bytes of ``sent`` that the connection has taken
    asked: str | None
    inbox: SimpleQueue[Message | None] | None
    posted: bool
    unread: bool  #: the call may ask for more of the request's body

    def __init__(self, pool: Pool) -> None:
        # In chains, because this is done for every request.
        self.pool = pool
        self.outbox = []
        self.sent = self.taken = 0
        self.start = self.length = self.error = self.hints = self.file = self.asked = self.inbox = None
        self.spool = None
        self.future = self.ready = self.variables = None
        self.begun = self.bodiless = self.ended = self.final = self.started = self.gone = self.missed = False
        self.lost = False
        self.posted = self.expects = self.unread = False

    @property
    def label(self) -> str:
        """What the call serves, for reports."""
        raise NotImplementedError

    @property
    def disk(self) -> Disk | None:
        """Where there is room for what memory has none for."""
        return None

    # -- loop side

    def wake(self) -> None:
        """The thread has posted something, or the call is over."""
        self.posted = False
        if self.gone:
            self._dismiss()
        elif self.ready is not None:
            ready, self.ready = self.ready, None
            ready()
        elif self.future is None or self.future.done():
            self.missed = True
        else:
            self.future.set_result(None)

    def begin(self, ready: Callable[[], None] | None = None) -> None:
        """
        Have the call run. ``ready()`` is called when there is something to do for the loop, once.

        Raises RuntimeError where no thread can be started.
        """
        self.begun = True
        self.ready = ready
        try:
            self.pool.submit(self)
        except RuntimeError:
            self.cancel()
            raise

    def whole(self) -> bytes | None:
        """The body of a response that is complete with it and ``start``; None where there is more to do than that."""
        if self.ended and self.error is None and self.sent <= JOIN_MAX and self.file is None and not self.hints:
            return b"".join(self.outbox)
        return None

    def cancel(self) -> bool:
        """
        Nobody wants the response, or the rest of it, any more.

        Returns whether the call was still queued: it then never runs.
        """
        self.gone = True
        self.ready = None
        queued = self.pool.cancel(self)
        self._dismiss()
        return queued

    @property
    def abandoned(self) -> bool:
        """Whether the client has left a call that has not begun to answer."""
        return self.gone and not self.started

    def expire(self) -> None:
        """Its time is up, while a thread runs it: whatever it says from now on is too late."""
        self.gone = self.lost = True

    def drop(self) -> None:
        """It has waited too long for a thread, and never runs. Called on either side, by whichever has taken it."""
        self.error = TurnedAway("no thread was free in time")
        self.ended = True

    async def deliver(self, receive: Receive, send: Send) -> None:
        """Have the call run, send its response, answer what it asks. Raises what the call raised."""
        try:
            if not self.begun:
                self.future = self.pool.loop.create_future()
                self.begin()
                await self.future
            body = self.whole()
            if body is not None:
                await send(self.start)  # type: ignore[arg-type]  # there is one, since the call ended well
                await send({"type": "http.response.body", "body": body, "more_body": False})
            else:
                await self._relay(receive, send)
        except BaseException:
            self.cancel()
            raise
        self.gone = True
        self.spool = None
        if self.asked is not None:  # by a thread of the application's own, too late
            self._answer(None)

    async def _relay(self, receive: Receive, send: Send) -> None:
        head_sent = complete = False
        while True:
            self.missed = False
            ended = self.ended
            if self.hints and not head_sent:
                await self._send_hints(send)
            # With its last message the request is over. It waits for a call that may read on, in close() for example.
            while self._more() or (self.final and not complete and (ended or not self.unread)):
                if not head_sent:
                    if self.hints:  # there may be more of them, but none behind the head
                        await self._send_hints(send)
                    head_sent = True
                    if self.expects and not self.final:
                        await self._send_continue(send)
                    await send(self.start)  # type: ignore[arg-type]  # set before the outbox is filled
                # In this order: what is on disk was written when everything before it was in the outbox.
                if (spool := self._spooled()) is not None and not self.outbox:
                    complete = await self._send_spooled(spool, ended or not self.unread, send)
                    continue
                body = self._take()
                complete = self.final and not self._more() and (ended or not self.unread)
                if self.file is None or not complete:
                    await send({"type": "http.response.body", "body": body, "more_body": not complete})
                else:
                    await self._send_file(body, send)
                self.taken += len(body)
                if self.asked is ROOM and self.sent - self.taken <= AHEAD_MAX // 2 and self._spooled() is None:
                    self._answer(_ROOM_MADE)
            if ended:
                break
            if self.asked is READ:
                self.expects = False
                message = await receive()
                self.unread = message.get("more_body", False)
                self._answer(message)
            elif self.asked is ROOM:
                self._answer(_ROOM_MADE)
            if not self.missed:
                self.future = self.pool.loop.create_future()
                await self.future
        if self.error is not None:
            self._fail()

    async def _send_hints(self, send: Send) -> None:
        while self.hints:
            await send(self.hints.pop(0))

    async def _send_continue(self, send: Send) -> None:
        """
        Invite the request's body, which the application may read after the head of its response.

        Behind that no 100 can be sent, and a strict client would wait for one forever. Not
        where the response is an error or a redirection: it declines the body (RFC 9110 10.1.1).
        """
        self.expects = False
        if self.start is not None and self.start["status"] < 300:
            await send(_CONTINUE)

    def _take(self) -> bytes:
        """The next item of the outbox, or several that are short. The thread may be adding to it meanwhile."""
        outbox = self.outbox
        size = count = 0
        for item in outbox:
            size += len(item)
            if count and size > JOIN_MAX:
                break
            count += 1
        body = b"".join(outbox[:count])
        del outbox[:count]
        return body

    def _spooled(self) -> Spool | None:
        """What is on disk, if there is something to be sent. The thread may be exchanging it."""
        spool = self.spool
        return None if spool is None or spool.drained else spool

    def _more(self) -> bool:
        """Whether something waits to be sent, in memory or on disk."""
        return bool(self.outbox) or self._spooled() is not None

    async def _send_spooled(self, spool: Spool, may_end: bool, send: Send) -> bool:
        """Send a part of what is on disk; returns whether the response is complete with it."""
        final, size = self.final, spool.part()  # in this order: what is final has been written
        complete = final and may_end and spool.sent + size == spool.end and self.file is None
        message = {"type": "http.response.zerocopysend", "file": spool.fd, "offset": spool.sent, "count": size}
        await send({**message, "more_body": not complete})
        spool.advance(size)
        self.taken += size
        if self.asked is ROOM and spool.drained:
            self._answer(_ROOM_MADE)
        return complete

    async def _send_file(self, body: bytes, send: Send) -> None:
        message, self.file = self.file, None
        assert message is not None
        with message["file"]:
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send(message)

    def _answer(self, answer: Message | None) -> None:
        self.asked = None
        assert self.inbox is not None
        self.inbox.put(answer)

    def _fail(self) -> None:
        error, self.error, self.variables = self.error, None, None
        try:
            if isinstance(error, Exception):
                raise error
            # A SystemExit would end the worker, and a CancelledError would say that the server gave the request up.
            raise WSGIError(f"the application raised {type(error).__name__}") from error
        finally:
            del error  # breaks the reference cycle with the traceback

    def _dismiss(self) -> None:
        """The response has ended before its call: tell the thread when it asks, and let no error be lost."""
        if self.asked is not None:
            self._answer(None)
        if not self.ended:
            return
        self.spool = None  # the application may keep its environ, which refers to this call
        if self.file is not None:
            self.file["file"].close()
        error, self.error = self.error, None
        variables, self.variables = self.variables or contextvars.Context(), None
        if error is not None and not caused_by_disconnect(error) and not isinstance(error, TurnedAway):
            message = f"Error handling request {self.label}, whose client has gone"
            variables.run(self.pool.loop.call_exception_handler, {"message": message, "exception": error})

    # -- thread side

    def put(self, data: bytes) -> None:
        """Hand over ``data``, or what of it fits the announced length. Raises :class:`~.errors.ClientDisconnected`."""
        self.started = True
        if self.gone:
            raise self._too_late()
        if self.final or self.bodiless:
            self.final = True
            return
        length, size = self.length, self.sent + len(data)
        if length is not None and size > length:
            data, size = data[: length - self.sent], length
        if self.spool is None and (size - self.taken <= MEMORY_MAX or self._holds(size)):
            self.outbox.append(data)
            self.sent = size
        else:
            self._keep(data)
        if length is not None and size == length:
            self.final = True

    def _holds(self, size: int) -> bool:
        """Whether memory takes all that there is, ``size`` bytes, although that is more than MEMORY_MAX."""
        # A whole body in one piece is not taken apart, up to AHEAD_MAX.
        whole = size == self.length and not self.sent
        return (whole and size <= AHEAD_MAX) or self.disk is None or not self.disk.usable

    def _keep(self, data: bytes) -> None:
        """Let ``data`` wait for the client where there is room, in memory or on disk."""
        # What is of one piece may fit in part.
        view = memoryview(data)
        for at in range(0, len(view), JOIN_MAX):
            self._keep_piece(view[at : at + JOIN_MAX])

    def _keep_piece(self, piece: memoryview) -> None:
        """Let a short piece wait where there is room."""
        if self.spool is not None and self.spool.drained:
            self.spool = None  # the client has caught up
        written = 0
        if self.spool is None and not self._fits(len(piece)):
            self.spool = None if self.disk is None else self.disk.open()
        if self.spool is not None:
            written = self.spool.write(piece)
            self.sent += written
            if written == len(piece):
                return
            # As much waits as may. Behind it nothing may be in memory before it is sent.
            self.ask(ROOM)
            self.spool = None
        self.outbox.append(bytes(piece[written:]))
        self.sent += len(piece) - written

    def _fits(self, size: int) -> bool:
        """Whether there is room in memory, or will be soon, unless others wait for the thread meanwhile."""
        turns, taken = 0, self.taken
        while self.sent - self.taken + size > MEMORY_MAX:
            if turns == 0:
                self.post()
            if turns == PATIENCE_MAX or self.pool.queued or self.gone:
                return False
            time.sleep(PATIENCE)
            turns = 0 if self.taken != taken else turns + 1
            taken = self.taken
        return True

    def post(self) -> None:
        """Let the loop look at what was handed over."""
        if not self.posted:
            self.posted = True
            self.pool.post(self)

    def ask(self, what: str) -> Message:
        """Have the loop do ``what``, and wait for it. Raises :class:`~.errors.ClientDisconnected`."""
        if self.ended:
            raise self._too_late()
        if self.inbox is None:
            self.inbox = SimpleQueue()
        self.asked = what
        self.post()
        answer = self.inbox.get()
        if answer is None:
            raise self._too_late()
        return answer

    def _too_late(self) -> OSError:
        """Why nothing is taken or given any more. A thread of the application's own may outlive the call."""
        if self.lost:
            return ClientDisconnected("HYBRIDWORKER_REQUEST_TIMEOUT has passed, and the client has got a 504")
        return OSError("the request is over") if self.ended else ClientDisconnected("the client disconnected")
