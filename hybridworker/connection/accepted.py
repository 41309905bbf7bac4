"""
Accepted: the socket of one connection, and what is known of it without asking.

:mod:`..process.listener` makes a subclass for each listening socket, and accepts with it. :mod:`.peer` and :mod:`.flow`
use the socket instead of asking the transport, which asks the kernel again. Event loop side only.

Invariant: the transport closes the socket. Here nobody does, but it may be shut down.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar


class Accepted(socket.socket):
    """A socket that was accepted at one listening socket."""

    __slots__ = ("address",)

    address: Any  #: of the peer, as accept() said: a tuple, or what a unix socket has
    #: the address on this side, where the listening socket has one for all connections; None where each has its own
    name: ClassVar[Any] = None
    templates: ClassVar[dict[Any, dict[str, Any]]]  #: address on this side -> what scopes say there, but for the client


def shared_name(listening: socket.socket) -> Any:
    """The address on this side that all connections accepted at ``listening`` have; None where each has its own."""
    name = listening.getsockname()
    if not isinstance(name, tuple):
        return name  # of a unix socket
    if name[0] in ("0.0.0.0", "::"):  # any
        return None
    try:
        # A transparent proxy hands over connections to other addresses (ip(7)). IPv6 has the same flag.
        transparent = listening.getsockopt(socket.SOL_IP, socket.IP_TRANSPARENT)
    except (AttributeError, OSError):  # not known here
        return None
    return None if transparent else name
