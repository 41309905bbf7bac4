"""
Server: the listeners and the connections of one worker.

Accepts connections and hands each to an :class:`~.http11.protocol.HTTPProtocol`, keeps their
number below ``worker_connections``, looks at their timeouts once a second, and ends
them in good order when the worker leaves. :mod:`.worker` decides when. Event loop side
only. States: ``ServerState``. The rule one could break by accident: a listening socket
belongs to the whole group of workers, so it is closed here and never shut down, and the
path of a unix socket is left alone.
"""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any, Protocol

from .backlog import Arrival, Backlog
from .connection import kernel
from .connection.context import Connection, Cycle, WorkerContext
from .fleet import CONNECTIONS, TAKEN, Fleet
from .http11.cycle import RequestResponseCycle
from .http11.protocol import HTTPProtocol
from .states import ConnectionState, ServerState

STARTING, SERVING = ServerState.STARTING, ServerState.SERVING
DRAINING, STOPPED = ServerState.DRAINING, ServerState.STOPPED
NEW, IDLE, CLOSING = ConnectionState.NEW, ConnectionState.IDLE, ConnectionState.CLOSING

#: Seconds between two looks at the connections while the worker leaves.
DRAIN_TICK = 0.1

#: Connections accepted in one turn of the loop, at most.
ACCEPT_BATCH = 16

#: Connections that are being closed and whose places have been given to newcomers, at most: so many more than
#: ``worker_connections`` there may be for a moment.
PARTING_MAX = 8

#: Seconds for which a worker that carries more than its share leaves a connection to its siblings, and how often.
#: A sibling that is blocked, or dying, delays it no longer, and soon counts no more: see :meth:`Fleet.left_for`.
DEFER, DEFER_MAX = 0.001, 3

#: Seconds until the loop itself gives up a TLS connection that is being closed: never. Its own limit does not see a
#: client that reads slowly, and waits for one that reads nothing: the tick of the connection looks at both.
SSL_SHUTDOWN_TIMEOUT = 86400.0

#: ``accept()`` failed for want of a descriptor or of memory: wait, others may give some back.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener(Protocol):
    """What is needed of gunicorn's listening sockets."""

    sock: socket.socket


class Server:
    """Serves until :meth:`drain` is called."""

    __slots__ = (
        "accepting", "alone", "arrivals", "backlogs", "changed", "context", "deadline", "deferral", "deferred", "fleet",
        "left_at", "listeners", "loop", "parting", "paused_until", "size", "state", "tls",
    )  # fmt: skip

    def __init__(
        self,
        context: WorkerContext,
        listeners: Iterable[Listener],
        ssl_context: ssl.SSLContext | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self.context = context
        self.loop = context.loop
        self.listeners = list(listeners)
        self.tls: dict[str, Any] = {}  #: as the loop wants it
        if ssl_context is not None:
            self.tls = {"ssl": ssl_context, "ssl_shutdown_timeout": SSL_SHUTDOWN_TIMEOUT}
            if context.settings.header_timeout < math.inf:
                self.tls["ssl_handshake_timeout"] = context.settings.header_timeout
        # With reuse_port each worker has an accept queue of its own: a connection left there is nobody else's.
        self.fleet = None if context.settings.reuse_port else fleet
        self.alone = (
            fleet is not None or context.settings.reuse_port or context.settings.workers == 1
        )  #: as far as known
        self.backlogs = [Backlog(listener.sock) for listener in self.listeners]
        self.deferred = 0  #: how often the connection at hand was left to others
        self.deferral: asyncio.TimerHandle | None = None  #: it is left to them now, until then at most
        self.left_at = 0.0  #: since when; not loop time, which stands still meanwhile
        self.state = STARTING
        self.accepting = False
        self.paused_until = 0.0  #: loop time until which accepting rests
        #: connections accepted that are not among those of the context yet, or have just become one
        self.arrivals: dict[Arrival, tuple[HTTPProtocol, socket.socket]] = {}
        self.size = 0  #: connections, with those that are being made
        self.parting: set[Connection] = set()  #: those of them whose places were given to newcomers
        self.changed = asyncio.Event()  #: a connection or a request ended
        self.deadline = math.inf  #: loop time at which a drain ends
        context.closed = self._closed

    def start(self) -> None:
        """Begin to accept connections."""
        self.state = SERVING
        self._resume_accepting()

    def tick(self, now: float) -> None:
        """Once a second: the Date field, and every timeout of every connection. ``now`` is loop time."""
        self.context.tick(now)
        for connection in list(self.context.connections):
            connection.tick(now)
        if not self.arrivals:
            self.size = len(self.context.connections)  # as it is anyway: an error in counting must not last
        if self.full and not self.accepting and self.state is SERVING and self._awaited():
            self._make_room()  # a connection that was busy when they came may be idle by now
        self._go_on()

    # -- accepting

    @property
    def full(self) -> bool:
        """Whether there are as many connections as ``worker_connections`` allows, without those that make room."""
        return self.size - len(self.parting) >= self.context.settings.worker_connections

    @property
    def fresh(self) -> bool:
        """Whether connections were taken whose requests may not have come in yet."""
        return bool(self.arrivals)

    @property
    def saturated(self) -> bool:
        """Whether a connection that comes now has to wait, whoever takes it."""
        return self.full and not (self.fleet is not None and self.fleet.has_room())

    @property
    def is_tcp(self) -> bool:
        """Whether it listens on anything but unix sockets."""
        return any(listener.sock.family != socket.AF_UNIX for listener in self.listeners)

    def _awaited(self) -> bool:
        """Whether somebody waits for being accepted."""
        return any(backlog.waiting() for backlog in self.backlogs)

    def _resume_accepting(self) -> None:
        self.accepting = True
        for backlog in self.backlogs:
            self.loop.add_reader(backlog.sock.fileno(), self._accept, backlog)

    def _pause_accepting(self) -> None:
        if self.accepting:
            self.accepting = False
            for backlog in self.backlogs:
                self.loop.remove_reader(backlog.sock.fileno())

    def _accept(self, backlog: Backlog) -> None:
        """Somebody waits in ``backlog``, or did when the loop looked."""
        fleet = self.fleet
        if fleet is not None and fleet.alone():
            fleet = None
        if fleet is not None and self._defer(fleet):
            return
        alone = fleet is None and self.alone
        # Where there are siblings of whom nothing is known, they had better get some.
        for taken in range(ACCEPT_BATCH if alone or fleet is not None else 1):
            if taken and fleet is not None and fleet.crowded(fresh=True):
                return  # the rest is for others
            if self.full:
                if taken:
                    return
                self._make_room()  # somebody waits for certain
                if self.full:
                    self._pause_accepting()  # the backlog keeps them
                    return
            if (taken or not alone) and not backlog.waiting():
                return  # a sibling was faster
            try:
                sock = backlog.take()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # a sibling was faster still, or the peer gave up
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                self.context.log.error("Cannot accept connections: %s", exc)
                self._pause_accepting()
                self.paused_until = self.loop.time() + 1
                return
            self.size += 1
            self.context.slot[TAKEN] += 1
            self._count()
            self._connect(sock)

    def _make_room(self) -> None:
        """
        Somebody waits, and ``worker_connections`` is reached: end the kept-alive connection that is idle longest.

        Its place is free at once: it may take a second or two until its client has closed it
        as well. One whose client has not taken its last response may take far longer, and keeps its place.
        """
        connections = [c for c in self.context.connections if isinstance(c, HTTPProtocol)]
        idle = [connection for connection in connections if connection.state is IDLE]
        deaf = {connection for connection in idle if connection.flow.holds()}
        if len(self.parting) >= PARTING_MAX:
            return
        for connection in sorted(idle, key=lambda connection: (connection in deaf, connection.deadline)):
            if connection in deaf and any(c.state is CLOSING and c not in self.parting for c in connections):
                return  # one of them at a time: it makes room when it has taken everything
            connection.drain(self.loop.time())
            if connection.state is not IDLE:  # one that stays has bytes to read: it wants something
                if connection not in deaf:
                    self.parting.add(connection)
                return

    def _defer(self, fleet: Fleet) -> bool:
        """Whether the connection at hand is left to a sibling that carries less, for the moment."""
        if self.deferred == DEFER_MAX or not fleet.crowded(self.fresh):
            self.deferred = 0
            return False
        self.deferred += 1
        self._pause_accepting()
        fleet.leave(self.fresh)
        self.left_at = time.monotonic()
        self.deferral = self.loop.call_later(DEFER, self._look_again)
        return True

    def _look_again(self) -> None:
        """Connections were left to others for a while: see what has become of them."""
        if self.state is SERVING:
            self._end_deferral()
            self._go_on()

    def _end_deferral(self) -> None:
        fleet = self.fleet
        assert fleet is not None and self.deferral is not None
        self.deferral.cancel()
        self.deferral = None
        waiting = self._awaited()
        # No more than it was meant to be: that the timer came late says as much of this worker as of the others.
        fleet.left_for(min(DEFER, time.monotonic() - self.left_at), waiting)
        if not waiting:
            self.deferred = 0  # they were taken: the next to come is another one

    def _connect(self, sock: socket.socket) -> None:
        """Give an accepted socket its transport and protocol; under TLS, shake hands first."""
        protocol = HTTPProtocol(self.context)
        connecting = self.loop.connect_accepted_socket(lambda: protocol, sock, **self.tls)
        arrival = Arrival(connecting, self._connected)
        self.arrivals[arrival] = protocol, sock
        arrival.proceed()

    def _connected(self, arrival: Arrival, exc: BaseException | None) -> None:
        protocol, sock = self.arrivals.pop(arrival)
        if isinstance(exc, Exception):
            # ssl.SSLError is an OSError; a handshake that failed or took too long harms nobody else.
            level = self.context.log.debug if isinstance(exc, OSError) else self.context.log.error
            level("Connection failed before it was established: %s", exc)
        if protocol.state is NEW and protocol not in self.context.connections:  # it never was among them
            kernel.shut_down(sock.fileno())
            sock.close()
            self._closed()

    def _closed(self) -> None:
        """A connection is gone: there may be room for another."""
        self.changed.set()
        self.size -= 1
        if self.parting:
            self.parting &= self.context.connections
            if self.full and not self.accepting and self.state is SERVING and self._awaited():
                self._make_room()  # for the next of those who wait
        self._count()
        self._go_on()

    def _count(self) -> None:
        """Show the siblings how many connections there are."""
        self.context.slot[CONNECTIONS] = self.size

    def _go_on(self) -> None:
        """Accept again, if nothing speaks against it."""
        if self.accepting or self.state is not SERVING or self.full or self.loop.time() < self.paused_until:
            return
        if self.deferral is not None:
            if self.fleet is not None and self.fleet.crowded(self.fresh):
                return
            self._end_deferral()  # a connection has ended meanwhile: it would be a waste to wait for the timer
        self._resume_accepting()

    # -- leaving

    def stop_accepting(self) -> None:
        """Close the listeners, in this process only."""
        self._pause_accepting()
        if self.context.settings.reuse_port:
            for backlog in self.backlogs:
                self._empty(backlog)
        for listener in self.listeners:
            listener.sock.close()
        self.listeners = []
        self.backlogs = []

    def _empty(self, backlog: Backlog) -> None:
        """Take what is there: with reuse_port it is this worker's own, and lost when the socket is closed."""
        slot, taken = self.context.slot, -1
        while taken != slot[TAKEN]:
            taken = slot[TAKEN]
            self._accept(backlog)

    def hurry(self, deadline: float) -> None:
        """A drain, be it under way or still to come, ends at ``deadline`` (loop time), unless it ends earlier."""
        self.deadline = min(self.deadline, deadline)
        self.changed.set()

    async def drain(self, deadline: float, stream: float = math.inf) -> int:
        """
        Stop accepting, let what was begun finish, and cut what is not finished at ``deadline`` (loop time).

        A response whose end is not known goes on for ``stream`` seconds, from now or from its
        own beginning. Returns the number of requests that were cut.
        """
        self.state = DRAINING
        self.hurry(deadline)
        self.stop_accepting()
        self.context.leave()
        context, now = self.context, self.loop.time()
        silent = min(deadline, now + context.settings.first_window)
        seen: set[object] = set()
        streams: dict[Cycle, float] = {}  #: since when each was seen to be one
        cut = 0
        while (context.connections or context.cycles or self.arrivals or context.application.running()) and (
            now := self.loop.time()
        ) < self.deadline:
            for connection in context.connections - seen:
                connection.drain(silent)
                seen.add(connection)
            if now >= silent:
                self._cut_arrivals()
            for connection in list(context.connections):
                connection.tick(now)
            if stream < math.inf:
                streams = {cycle: streams.get(cycle, now) for cycle in context.cycles if cycle.streaming}
                late = [cycle for cycle, since in streams.items() if now >= since + stream]
                self._cancel(late)
                cut += len(late)
            self.changed.clear()
            try:
                async with asyncio.timeout(DRAIN_TICK):
                    await self.changed.wait()
            except TimeoutError:
                pass  # the time between two looks
        cut += await self._cut()
        self.state = STOPPED
        return cut

    def _cancel(self, cycles: Iterable[Cycle]) -> None:
        """Cancel calls of the application, and drop their connections."""
        for cycle in cycles:
            if cycle.task is not None:
                cycle.cancel()
            cycle.abort()

    def _cut_arrivals(self) -> list[asyncio.Future[Any]]:
        """Drop the connections that are still shaking hands; returns what has been cancelled."""
        waiters = [arrival.waiter for arrival in self.arrivals if arrival.waiter is not None]
        for _, sock in self.arrivals.values():
            kernel.shut_down(sock.fileno())
        for waiter in waiters:
            waiter.cancel()
        return waiters

    def hang_up(self) -> None:
        """The process is being left without another turn of the loop: end every connection, whatever has it open."""
        self._cut_arrivals()
        for connection in list(self.context.connections):
            connection.abort()

    async def _cut(self) -> int:
        """Cancel and drop whatever is left."""
        tasks: list[asyncio.Future[Any]] = [*self.context.tasks(), *self._cut_arrivals()]
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
