"""
What the kernel knows of a connection and the transport does not tell, and how the connection is ended there.

Functions of a descriptor. They also take a negative one, that of a connection that is gone. Event
loop side.

Invariant: a connection is shut down before its descriptor is closed. Closing alone does not end it
while another process has a duplicate, and a child that the application has forked has them all.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable

#: Whether this process has forked since it began: a child may then have every connection of that time open.
_forked = [False]
os.register_at_fork(
    after_in_parent=lambda: _forked.__setitem__(0, True), after_in_child=lambda: _forked.__setitem__(0, False)
)


def unacknowledged(fd: int) -> int:
    """Bytes that the kernel holds for the peer; 0 where it does not tell."""
    try:
        answer: bytes = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int(struct.unpack("i", answer)[0])


def hung_up(fd: int) -> bool:
    """
    Whether the peer has closed both directions, or has reset the connection.

    A unix socket tells a full close from a half one. On TCP the two look the same until
    the first bytes that are sent to a peer that has closed are answered with a RST.
    False where the kernel does not tell: only Linux keeps POLLHUP for this case.
    """
    return sys.platform == "linux" and _polled(fd, 0)


def ended(fd: int) -> bool:
    """
    Whether the peer has closed its side, also where bytes that came before are still unread.

    False where the kernel does not tell: only Linux has POLLRDHUP.
    """
    return sys.platform == "linux" and _polled(fd, select.POLLRDHUP)


def limit_unsent(fd: int, size: int) -> None:
    """
    Have the kernel take no more than about ``size`` bytes ahead of what it sends (tcp(7), TCP_NOTSENT_LOWAT).

    What is on its way is not limited by this. A unix socket, and a kernel without the option, go on as before.
    """
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        _call(fd, socket.SocketType.setsockopt, socket.IPPROTO_TCP, option, size)


def shut_down(fd: int) -> None:
    """
    End the connection in both directions, for every process that has it.

    What was given to the kernel is still sent. The descriptor stays open, and the caller's.
    """
    _call(fd, socket.SocketType.shutdown, socket.SHUT_RDWR)


def reset_when_closed(fd: int) -> bool:
    """
    Let the end of a TCP connection be a reset, so that the client does not take it for the end of a body.

    The connection must then be closed and not shut down. Nothing on other sockets, which know no reset. Returns
    False where that would end nothing, because a child may have the connection as well.
    """
    if _forked[0]:
        return False
    return _call(fd, socket.SocketType.setsockopt, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _call(fd: int, method: Callable[..., object], *args: object) -> bool:
    """Call ``method`` of a socket that has this descriptor; False where the peer, or the end, was faster."""
    if fd < 0:
        return False
    # Not of the transport's: uvloop does not allow it. The family does not matter here, and the base class
    # of `socket.socket`, which asks nobody for it, takes a third of the time.
    sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        method(sock, *args)
    except OSError:
        return False
    finally:
        sock.detach()
    return True


def _polled(fd: int, events: int) -> bool:
    """Whether one of ``events`` holds now, or POLLHUP or POLLERR, which come unasked."""
    if fd < 0:
        return False
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))
