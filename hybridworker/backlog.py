"""
Backlog and Arrival: how a connection gets from a listening socket to its protocol.

:mod:`.server` decides when one is taken; this is how, in as few steps as there can be: with
a connection for each request they are half of the work. Event loop side only. The rule one
could break by accident: the listening socket is shared with other processes, so that what
waited a moment ago may be gone.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any

#: ``connect_accepted_socket()`` of a loop, called.
Connecting = Coroutine[Any, Any, tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]


class Backlog:
    """The connections that wait at one listening socket."""

    __slots__ = ("_accept", "accepted", "family", "poll", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.family = sock.family
        # The properties of a socket make a member of an enum each time; uvloop asks for three.
        names = {"__slots__": (), "family": sock.family, "type": socket.SOCK_STREAM}
        self.accepted: type[socket.socket] = type("Accepted", (socket.socket,), names)
        # What socket.accept() calls, before it makes a socket in its slower way.
        self._accept = sock._accept  # type: ignore[attr-defined]
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self.poll = poll.poll

    def waiting(self) -> bool:
        """Whether somebody waits now: ten times as quick as to find out by ``accept()`` that nobody does."""
        return bool(self.poll(0))

    def take(self) -> socket.socket:
        """The connection that waits longest. Raises OSError, BlockingIOError if there is none."""
        fd, _ = self._accept()
        # Nothing is asked of the socket but its number: the loop makes it non-blocking, in its own way.
        return self.accepted(self.family, socket.SOCK_STREAM, 0, fd)


class Arrival:
    """
    A connection that is being established: ``connect_accepted_socket()`` of the loop, without a task.

    Of what a coroutine may do this one waits for a future, once. A task would begin it a
    turn of the loop later, and cost as much as the rest. ``done`` is called with this, and what went wrong if
    anything did.
    """

    __slots__ = ("coroutine", "done", "waiter")

    def __init__(self, coroutine: Connecting, done: Callable[[Arrival, BaseException | None], None]) -> None:
        self.coroutine = coroutine
        self.done = done
        self.waiter: asyncio.Future[Any] | None = None  #: what it waits for

    def proceed(self, _: object = None) -> None:
        """Go on, as far as there is nothing to wait for."""
        try:
            waiter = self.waiter = self.coroutine.send(None)
        except StopIteration:
            self.done(self, None)
        except (Exception, asyncio.CancelledError) as exc:
            self.done(self, exc)
        else:
            if waiter is None:  # `sleep(0)`: a turn of the loop
                asyncio.get_running_loop().call_soon(self.proceed)
            else:
                waiter.add_done_callback(self.proceed)
