"""
UWSGIProtocol: a connection on which a proxy sends requests as packets of uwsgi.

It cuts the bytes of the peer into packets and bodies, and hands a scope to a :class:`~..http11.cycle.HTTP11Cycle`. The
order of requests, and the life of the connection, are those of every :class:`~..http11.connection.RequestConnection`.
The response is HTTP/1.1 without chunks: a body without a length ends with its connection. WebSockets begin as in
HTTP/1.1.

    data_received -> _packet -> RequestHead -> cycle
                  -> _body ------------------> cycle

Event loop side only. States: ``states.CONNECTION``.

Invariant: nothing that a peer says is looked at unless it is in ``uwsgi_allow_ips``.
"""

from __future__ import annotations

from ..connection.forwarded import trusts
from ..errors import ProtocolError
from ..http11.connection import ACTIVE, BODY, DONE, HEADERS, HELD, NEVER, RequestConnection
from ..http11.cycle import HTTP11Cycle
from ..wsgi.streams import WHOLE_BODY_MAX
from .head import RequestHead
from .packet import HEADER, packet_size


class UWSGIProtocol(RequestConnection):
    """A connection that speaks uwsgi."""

    __slots__ = ("allowed", "packet")

    head: RequestHead

    # -- called by the transport

    def _made(self) -> None:
        self.packet = bytearray()  #: as much of one as has come
        self.head = RequestHead(self.context, self.peer)
        self.allowed = trusts(self.context.settings.uwsgi_networks, self.peer.address)

    # -- cutting bytes into packets

    def _parse(self, data: bytes) -> None:
        try:
            if self.peer.proxy is not None:
                data = self.peer.strip_proxy_header(self.peer.proxy, data)
            while data:
                request = self.head.request
                if request is HEADERS:
                    data = self._packet(data)
                elif request is BODY:
                    data = self._body(data)
                else:
                    self.hold(data)
                    break
                if self.state is not ACTIVE:
                    return
        except ProtocolError as exc:
            self.refuse(exc)
        else:
            self.begin()

    def _packet(self, data: bytes) -> bytes:
        """Take as much of one packet as has come; returns the bytes behind it."""
        if not self.allowed:
            raise ProtocolError("uwsgi_allow_ips does not name this peer", 403)
        packet = self.packet
        if not packet:
            self.head_begins()
        packet += data
        size = packet_size(packet, self.context.settings)
        if size is None or len(packet) < size:
            return b""
        self.packet = bytearray()
        rest = bytes(packet[size:])
        scope = self.head.read(bytes(packet[HEADER:size]))
        self.persistent = not self.head.says_close()
        self.deadline = NEVER
        successor = self.successor(scope, self.head.method) if self.head.websocket else None
        if successor is not None:
            self.hand_over(successor, rest)
            return b""
        application = self.head.application
        self.cycle = cycle = HTTP11Cycle(self, application, scope)
        if application.counted:
            self.context.quota.count()
        if application.threaded and self.head.request is BODY and self.head.length <= WHOLE_BODY_MAX:
            cycle.call_state = HELD
            self.body_wanted()
        return rest

    def _body(self, data: bytes) -> bytes:
        """Take bytes of the body; returns those behind it."""
        head, cycle = self.head, self.cycle
        piece, rest = data[: head.length], data[head.length :]
        head.length -= len(piece)
        if cycle is not None:
            cycle.feed(piece)
            if self.state is not ACTIVE:
                return b""  # the body was too long
        if head.length:
            self.deadline = self.loop.time() + self.context.settings.body_timeout
            return b""
        head.request, self.deadline = DONE, NEVER
        if cycle is not None and cycle is self.cycle:
            cycle.feed_eof()
        else:  # the rest of a body that was dropped
            self.pending = rest
            self._next()
            return b""
        return rest
