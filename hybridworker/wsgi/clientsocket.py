"""
ClientSocket: what ``environ["gunicorn.socket"]`` is, one end of a socket pair.

Libraries for WebSockets over WSGI (simple-websocket, Flask-Sock, Flask-SocketIO) take the
connection of the client from there, as gunicorn's threaded worker has it. Here the connection is
the loop's: it carries the bytes between the other end and the client, see
:mod:`..http11.carrier`. Thread side, but for :func:`socket_pair`.

Invariant: the descriptor is closed by the application or with the object, never by the loop. A thread of
the application's own may be about to read, and its number would be given to another client.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Any

from ..errors import ClientDisconnected, WSGIError

#: The key of a scope under which the socket for the environ stands, and its key there.
SOCKET, ENVIRON_KEY = "hybridworker.socket", "gunicorn.socket"

#: What a socket says whose other end is gone, as gunicorn's threaded worker sees it.
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN, errno.EBADF})


#: Levels of options that a unix socket does not know.
_OF_A_NETWORK = frozenset({socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6})


class ClientSocket(socket.socket):
    """
    A blocking socket that stands for the client's.

    It names the addresses of the connection, and takes options of TCP and IP, which mean nothing to it.
    ``used`` says that something was written: the response is no more :func:`start_response`'s then.
    """

    used = False
    peer: Any = None  #: addresses as the socket of the connection has them; None: those of this one
    own: Any = None

    def __del__(self) -> None:
        # The application need not close it: the server does, as it would the connection. So this is no ResourceWarning.
        self.close()

    def getpeername(self) -> Any:
        return super().getpeername() if self.peer is None else self.peer

    def getsockname(self) -> Any:
        return super().getsockname() if self.own is None else self.own

    def dup(self) -> ClientSocket:
        copy = super().dup()
        copy.peer, copy.own = self.peer, self.own
        return copy

    def getsockopt(self, level: int, option: int, size: int = 0, /) -> Any:
        if level in _OF_A_NETWORK:
            return bytes(size) if size else 0
        return super().getsockopt(level, option, size) if size else super().getsockopt(level, option)

    def setsockopt(self, level: int, *option: Any) -> None:
        if level not in _OF_A_NETWORK:
            super().setsockopt(level, *option)

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.used = True
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        self.used = True
        super().sendall(data, flags)

    def sendmsg(self, buffers: Iterable[Any], *more: Any) -> int:
        self.used = True
        return super().sendmsg(buffers, *more)

    def excused(self, exc: BaseException) -> BaseException:
        """
        ``exc``, which the application has raised, or ClientDisconnected where it is no fault.

        Such are the StopIteration by which a library says that the socket had the response, the errors of
        a socket whose client has gone, and what PEP 3333 demands of a response, which is not sent.
        """
        if isinstance(exc, StopIteration):
            return ClientDisconnected("the application has ended its WebSocket")
        if isinstance(exc, OSError) and exc.errno in _GONE:
            return ClientDisconnected("the client disconnected")
        if isinstance(exc, WSGIError) and exc.__cause__ is None and self.used:
            return ClientDisconnected("the application has answered by its socket")
        return exc


def socket_pair(peer: Any, own: Any) -> tuple[socket.socket, ClientSocket]:
    """The loop's end, which does not block, and the application's. Raises OSError where there are no descriptors."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    client = ClientSocket(theirs.family, theirs.type, theirs.proto, theirs.detach())
    client.setblocking(True)  # an application may have called socket.setdefaulttimeout()
    client.peer, client.own = peer, own
    return ours, client
