"""
Listener: one listening socket, and how a connection that waits there is accepted.

:mod:`.server` decides when a connection is accepted. This module does it in as few steps as
possible, because without keep-alive, accepting costs half of the CPU time of a request.
Event loop side only.

Invariant: the socket is shared with other processes, so a connection that waited a moment
ago may be gone.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from ..connection.accepted import Accepted, shared_name

#: What ``connect_accepted_socket()`` of a loop returns.
Connecting = Coroutine[Any, Any, tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]

#: Errors of ``accept()`` that concern one connection, not the socket: a sibling was faster, or the peer gave up.
#: accept(2): Linux passes on errors that are pending at the new socket, and a program should treat them as EAGAIN.
TRY_AGAIN = frozenset(
    getattr(errno, name)
    for name in (
        "EAGAIN", "EWOULDBLOCK", "EINTR", "ECONNABORTED", "EPERM", "EPROTO", "ENOPROTOOPT", "EOPNOTSUPP",
        "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENONET",
    )
    if hasattr(errno, name)  # ENONET is Linux's alone
)  # fmt: skip


class Listener:
    """
    One listening socket.

    To ask ``poll`` before ``_accept()``, and to make the socket by a class of its own, takes
    6.1 us for a connection, where ``socket.accept()`` takes 9.9: a request on a connection of
    its own gains 4 %.
    """

    __slots__ = ("_accept", "_accepted", "_poll", "family", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.family = sock.family
        # The properties of a socket make a member of an enum each time; uvloop asks for three.
        names = {"__slots__": (), "family": sock.family, "type": socket.SOCK_STREAM, "name": shared_name(sock)}
        self._accepted: type[Accepted] = type("Accepted", (Accepted,), names | {"templates": {}})
        # What socket.accept() calls, before it makes a socket in its slower way.
        self._accept = sock._accept  # type: ignore[attr-defined]
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        self._poll = poll.poll

    def waiting(self) -> bool:
        """Whether a connection waits now. This takes 0.6 us, an ``accept()`` that finds none ten times as long."""
        return bool(self._poll(0))

    def accept(self) -> Accepted | None:
        """
        The connection that waits longest; None when there is none any more.

        Raises OSError when the socket, or this process, cannot accept.
        """
        try:
            fd, address = self._accept()
        except OSError as exc:
            if exc.errno in TRY_AGAIN:
                return None
            raise
        # Only the number of the socket is used: the loop makes it non-blocking in its own way.
        accepted = self._accepted(self.family, socket.SOCK_STREAM, 0, fd)
        accepted.address = address
        return accepted


class Arrival:
    """
    A connection that is being established: ``connect_accepted_socket()`` of the loop, without a task.

    Of all that a coroutine may do, this one awaits futures. A task for it, with what asyncio keeps of each task, took
    4 % of the instructions of a request on a connection of its own. ``ended`` is called with this at the end;
    ``error`` then says what went wrong, if anything did.
    """

    __slots__ = ("_connecting", "_ended", "_waiter", "error")

    def __init__(self, connecting: Connecting, ended: Callable[[Arrival], None]) -> None:
        self._connecting = connecting
        self._ended = ended
        self._waiter: asyncio.Future[Any] | None = None  #: what is awaited
        self.error: BaseException | None = None

    def proceed(self, _: object = None) -> None:
        """Begin, or go on when what was awaited has come."""
        try:
            waiter = self._waiter = self._connecting.send(None)
        except StopIteration:
            self._ended(self)
        except (Exception, asyncio.CancelledError) as exc:
            self.error = exc
            self._ended(self)
        else:
            if waiter is None:  # `sleep(0)`: a turn of the loop
                asyncio.get_running_loop().call_soon(self.proceed)
            else:
                waiter.add_done_callback(self.proceed)

    def cancel(self) -> None:
        """Give it up, unless what is awaited has come: it ends in the next turn of the loop."""
        if self._waiter is not None:
            self._waiter.cancel()
