"""
Server: the listeners and the connections of one worker.

It accepts connections and hands each to an :class:`~.http11.protocol.HTTPProtocol`, to a
:class:`~.negotiation.Negotiation` where it may speak HTTP/2, or to a :class:`~.uwsgi.protocol.UWSGIProtocol`. It keeps
their number below ``worker_connections``, looks at their timeouts once a second, and ends them in good order when the
worker leaves. :class:`~.program.Program` decides when. Event loop side only. States: ``ServerState``.

Invariant: a listening socket belongs to the whole group of workers. It is closed here but
never shut down, and the path of a unix socket is left alone.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from ..connection import kernel
from ..connection.accepted import Accepted
from ..connection.context import Connection, WorkerContext
from ..connection.cycle import RequestResponseCycle
from ..connection.scope import address_name
from ..group.scoreboard import CONNECTIONS, TAKEN
from ..group.share import Share
from ..http11.connection import RequestConnection
from ..http11.protocol import HTTPProtocol
from ..states import ConnectionState, ServerState
from .grace import RELOAD_MAX
from .listener import Arrival, Listener
from .streams import Streams

if TYPE_CHECKING:
    from .negotiation import Negotiation

STARTING, SERVING = ServerState.STARTING, ServerState.SERVING
DRAINING, STOPPED = ServerState.DRAINING, ServerState.STOPPED
NEW = ConnectionState.NEW

#: Seconds between two looks at the connections while the worker leaves.
DRAIN_TICK = 0.1

#: Connections accepted in one turn of the loop, at most.
ACCEPT_BATCH = 16

#: Connections that are being closed and whose places have been given to newcomers, at most: so many more than
#: ``worker_connections`` there may be for a moment.
PARTING_MAX = 8

#: Seconds for which a worker that carries more than its share offers a connection to its siblings, and how often.
DEFER, DEFER_MAX = 0.001, 3

#: Seconds until the loop itself gives up a TLS connection that is being closed: never. Its own limit does not see a
#: client that reads slowly, and waits for one that reads nothing: the tick of the connection looks at both.
SSL_SHUTDOWN_TIMEOUT = 86400.0

#: ``accept()`` failed for want of a descriptor or of memory: wait, others may give some back.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class BoundSocket(Protocol):
    """What is needed of gunicorn's listening sockets."""

    sock: socket.socket


def first_protocol(context: WorkerContext) -> type[RequestConnection] | type[Negotiation]:
    """What a new connection begins with. What is seldom spoken is imported where it is; HTTP/2 is an extra."""
    if context.settings.protocol == "uwsgi":
        from ..uwsgi.protocol import UWSGIProtocol

        return UWSGIProtocol
    if not context.settings.http2:
        return HTTPProtocol
    from .negotiation import Negotiation

    return Negotiation


class Server:
    """Serves until :meth:`drain` is called."""

    __slots__ = (
        "accepting", "alone", "arrivals", "changed", "context", "deadline", "deferral", "deferred", "listeners",
        "loop", "parting", "paused_until", "protocol", "share", "size", "state", "tls",
    )  # fmt: skip

    def __init__(
        self,
        context: WorkerContext,
        sockets: Iterable[BoundSocket],
        ssl_context: ssl.SSLContext | None = None,
        share: Share | None = None,
    ) -> None:
        self.context = context
        self.loop = context.loop
        self.listeners = [Listener(bound.sock) for bound in sockets]
        self.tls: dict[str, Any] = {}  #: as the loop wants it
        if ssl_context is not None:
            self.tls = {"ssl": ssl_context, "ssl_shutdown_timeout": SSL_SHUTDOWN_TIMEOUT}
            if context.settings.header_timeout < math.inf:
                self.tls["ssl_handshake_timeout"] = context.settings.header_timeout
        # With reuse_port each worker has an accept queue of its own: no sibling can take a connection from there.
        self.share = None if context.settings.reuse_port else share
        self.alone = (
            share is not None or context.settings.reuse_port or context.settings.workers == 1
        )  #: as far as known
        self.deferred = 0  #: how often the connection at hand was offered to siblings
        self.deferral: asyncio.TimerHandle | None = None  #: ends the offer that is open now
        self.state = STARTING
        self.accepting = False
        self.paused_until = 0.0  #: loop time until which accepting rests
        #: connections accepted that are not among those of the context yet, or have just become one
        self.arrivals: dict[Arrival, tuple[RequestConnection | Negotiation, Accepted]] = {}
        #: the first protocol of a connection
        self.protocol = first_protocol(context)
        self.size = 0  #: connections, with those that are being made
        self.parting: set[Connection] = set()  #: those of them whose places were given to newcomers
        self.changed = asyncio.Event()  #: a connection or a request ended
        self.deadline = math.inf  #: loop time at which a drain ends
        context.connections.changed = self._closed
        if context.admission is not None and self.share is not None:
            context.admission.elsewhere = self.share.has_room

    def start(self) -> None:
        """Begin to accept connections."""
        self.state = SERVING
        self._resume_accepting()

    def renew(self, ssl_context: ssl.SSLContext) -> None:
        """Shake hands with another context from now on."""
        self.tls["ssl"] = ssl_context

    def tick(self, now: float) -> None:
        """Once a second: the Date field, and every timeout of every connection. ``now`` is loop time."""
        self.context.clock.tick(now)
        for connection in list(self.context.connections):
            connection.tick(now)
        if not self.arrivals:
            self.size = len(self.context.connections)  # as it is anyway: an error in counting must not last
        if self.full and not self.accepting and self.state is SERVING and self._awaited():
            self._make_room()  # a connection that was busy when they came may be idle by now
        if self.share is not None:
            self.share.tick()
        self._go_on()

    # -- accepting

    @property
    def full(self) -> bool:
        """Whether there are as many connections as ``worker_connections`` allows, without those that make room."""
        return self.size - len(self.parting) >= self.context.settings.worker_connections

    @property
    def fresh(self) -> bool:
        """Whether connections were accepted whose requests may not have come in yet."""
        return bool(self.arrivals)

    @property
    def saturated(self) -> bool:
        """Whether a connection that comes now has to wait, whoever takes it."""
        return self.full and not (self.share is not None and self.share.has_room())

    @property
    def is_tcp(self) -> bool:
        """Whether it listens on anything but unix sockets."""
        return any(listener.family != socket.AF_UNIX for listener in self.listeners)

    def _awaited(self) -> bool:
        """Whether a connection waits to be accepted."""
        return any(listener.waiting() for listener in self.listeners)

    def _resume_accepting(self) -> None:
        self.accepting = True
        for listener in self.listeners:
            self.loop.add_reader(listener.sock.fileno(), self._accept, listener)

    def _pause_accepting(self) -> None:
        if self.accepting:
            self.accepting = False
            for listener in self.listeners:
                self.loop.remove_reader(listener.sock.fileno())

    def _accept(self, listener: Listener) -> None:
        """A connection waits at ``listener``, or did when the loop looked."""
        share = self.share
        if share is not None and share.group.alone():
            share = None
        if share is not None and self._defer(share):
            return
        alone = share is None and self.alone
        # Siblings that this worker cannot see get a chance too: one connection for each turn of the loop.
        context = self.context
        limit = context.settings.worker_connections
        for taken in range(ACCEPT_BATCH if alone or share is not None else 1):
            if taken and share is not None and share.crowded(fresh=True):
                return  # the rest is for siblings
            if self.size >= limit and self.full:
                if taken:
                    return
                self._make_room()  # somebody waits for certain
                if self.full:
                    self._pause_accepting()  # the backlog keeps them
                    return
            if (taken or not alone) and not listener.waiting():
                return  # a sibling was faster
            try:
                sock = listener.accept()
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                context.log.error("Cannot accept connections: %s", exc)
                self._pause_accepting()
                self.paused_until = self.loop.time() + 1
                return
            if sock is None:
                return  # a sibling was faster still, or the peer gave up
            self.size += 1
            context.slot[TAKEN] += 1
            context.slot[CONNECTIONS] = self.size  # for the siblings
            self._connect(sock)

    def _make_room(self) -> None:
        """
        Somebody waits, and ``worker_connections`` is reached: end the kept-alive connection that is idle longest.

        Its place is free at once: it may take a second or two until its client has closed it
        as well. One whose client has not taken its last response may take far longer, and keeps its place.
        """
        connections = self.context.connections
        idle = [(until, c) for c in connections if (until := c.idle_until) is not None]
        if len(self.parting) >= PARTING_MAX:
            return
        for deaf, _, connection in sorted(((c.flow.holds(), until, c) for until, c in idle), key=lambda item: item[:2]):
            if deaf and any(c.closing and c not in self.parting for c in connections):
                return  # one of them at a time: it makes room when it has taken everything
            connection.drain(self.loop.time())
            if connection.idle_until is None:  # one that stays has bytes to read: it wants something
                if not deaf:
                    self.parting.add(connection)
                return

    def _defer(self, share: Share) -> bool:
        """Whether the connection at hand is offered to siblings that carry less, while this worker does not accept."""
        # Where every request is turned away, siblings have as long as it takes to see that they are blocked.
        if (self.deferred >= DEFER_MAX and not share.full) or not share.offer(self.fresh):
            self.deferred = 0
            return False
        self.deferred += 1
        self._pause_accepting()
        self.deferral = self.loop.call_later(DEFER, self._look_again)
        return True

    def _look_again(self) -> None:
        """The time for an offer is over: go on accepting."""
        if self.state is SERVING:
            self._end_deferral()
            self._go_on()

    def _end_deferral(self) -> None:
        assert self.deferral is not None
        self.deferral.cancel()
        self.deferral = None
        if not self._awaited():
            self.deferred = 0  # a sibling took the connection, so the next one is another

    def _connect(self, sock: Accepted) -> None:
        """Give an accepted socket its transport and protocol; under TLS, shake hands first."""
        protocol = self.protocol(self.context, sock)
        connect = self.loop.connect_accepted_socket
        connecting = connect(lambda: protocol, sock, **self.tls) if self.tls else connect(lambda: protocol, sock)
        arrival = Arrival(connecting, self._connected)
        self.arrivals[arrival] = protocol, sock
        arrival.proceed()

    def _connected(self, arrival: Arrival) -> None:
        protocol, sock = self.arrivals.pop(arrival)
        error = arrival.error
        if error is not None:
            self._complain(error, sock)
        if protocol.state is NEW and protocol not in self.context.connections:  # it never was among them
            kernel.shut_down(sock.fileno())
            sock.close()
            self._closed()

    def _complain(self, error: BaseException, sock: Accepted) -> None:
        """Log why a connection was not established."""
        if isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST":
            text = "Invalid request from ip=%s: http:// on a port that speaks TLS"
            self.context.log.warning(text, address_name(sock.address))
        elif isinstance(error, Exception):  # and not given up
            # ssl.SSLError is an OSError; a handshake that failed or took too long harms nobody else.
            level = self.context.log.debug if isinstance(error, OSError) else self.context.log.error
            level("Connection failed before it was established: %s", error)

    def _closed(self) -> None:
        """A connection is gone: there may be room for another."""
        self.size -= 1
        if self.state is DRAINING:
            self.changed.set()
        if self.parting:
            self.parting &= self.context.connections
            if self.full and not self.accepting and self.state is SERVING and self._awaited():
                self._make_room()  # for the next of those who wait
        self.context.slot[CONNECTIONS] = self.size
        if not self.accepting:
            self._go_on()

    def _go_on(self) -> None:
        """Accept again, if nothing speaks against it."""
        if self.accepting or self.state is not SERVING or self.full or self.loop.time() < self.paused_until:
            return
        if self.deferral is not None:
            if self.share is not None and self.share.crowded(self.fresh):
                return
            self._end_deferral()  # a connection of this worker has ended, so there is no reason to wait for the timer
        self._resume_accepting()

    # -- leaving

    def stop_accepting(self) -> None:
        """Close the listeners, in this process only."""
        self._pause_accepting()
        if self.context.settings.reuse_port:
            for listener in self.listeners:
                self._empty(listener)
        for listener in self.listeners:
            listener.sock.close()
        self.listeners = []

    def _empty(self, listener: Listener) -> None:
        """Take what is there: with reuse_port it is this worker's own, and lost when the socket is closed."""
        slot, taken = self.context.slot, -1
        while taken != slot[TAKEN]:
            taken = slot[TAKEN]
            self._accept(listener)

    def hurry(self, deadline: float) -> None:
        """A drain, be it under way or still to come, ends at ``deadline`` (loop time), unless it ends earlier."""
        self.deadline = min(self.deadline, deadline)
        self.changed.set()

    def unhurry(self) -> None:
        """There is no drain to come: the worker stays."""
        self.deadline = math.inf

    async def drain(self, deadline: float, stream: float = math.inf) -> int:
        """
        Stop accepting, let what was begun finish, and cut what is not finished at ``deadline`` (loop time).

        A response whose end is not known goes on for ``stream`` seconds, from now or from its
        own beginning. Returns the number of requests that were cut.
        """
        self.state = DRAINING
        self.hurry(deadline)
        self.stop_accepting()
        self.context.persistence.end()
        context, now = self.context, self.loop.time()
        silent = min(deadline, now + context.settings.first_window)
        seen: set[object] = set()
        streams = Streams(context, now, stream)
        cut = 0
        while (context.connections or context.cycles or self.arrivals or context.router.running()) and (
            now := self.loop.time()
        ) < self.deadline:
            for connection in context.connections - seen:
                connection.drain(silent)
                seen.add(connection)
            if now >= silent:
                self._cut_arrivals()
            for connection in list(context.connections):
                connection.tick(now)
            cut += streams.tick(now)
            self.changed.clear()
            try:
                async with asyncio.timeout(DRAIN_TICK):
                    await self.changed.wait()
            except TimeoutError:
                pass  # the time between two looks
            if context.settings.reload and not (context.connections or context.cycles or self.arrivals):
                self.hurry(self.loop.time() + RELOAD_MAX)  # for threads whose clients have gone
        streams.report()
        cut += await self._cut()
        self.state = STOPPED
        return cut

    def _cut_arrivals(self) -> None:
        """Drop the connections that are still shaking hands: they end in the next turn of the loop."""
        # One that has just become a connection may have its request already.
        there = self.context.connections
        shaking = {
            arrival: sock
            for arrival, (protocol, sock) in self.arrivals.items()
            if protocol.state is NEW and protocol not in there
        }
        for arrival, sock in shaking.items():
            kernel.shut_down(sock.fileno())
            arrival.cancel()

    def hang_up(self) -> None:
        """The process is being left without another turn of the loop: end every connection, whatever has it open."""
        self._cut_arrivals()
        for connection in list(self.context.connections):
            connection.abort()

    async def _cut(self) -> int:
        """Cancel and drop whatever is left."""
        self._cut_arrivals()
        tasks = list(self.context.tasks())
        cut = len(self.context.cycles)
        for cycle in list(self.context.cycles):
            if cycle.task is not None:
                cycle.cancel()
        for connection in list(self.context.connections):
            connection.abort()
        for cycle in list(self.context.cycles):
            if isinstance(cycle, RequestResponseCycle) and cycle.task is None:
                cycle.disconnect()  # its call is in a thread, where it cannot be cancelled
        if tasks:
            await asyncio.wait(tasks, timeout=1)
        else:
            await asyncio.sleep(0)  # let the transports say goodbye
        return cut
