"""
Negotiation: which version of HTTP a new connection speaks.

Under TLS the handshake has chosen it (ALPN). Without TLS a client that ``forwarded_allow_ips`` names
may begin with the preface of HTTP/2 (RFC 9113 3.3: prior knowledge); everybody else speaks HTTP/1.
:mod:`.server` makes a :class:`Negotiation` where HTTP/2 is possible at all, and it makes the
protocol that takes its place. Event loop side only.

Invariant: nothing of the first bytes is lost; the protocol that is chosen gets them all.
"""

from __future__ import annotations

import asyncio
from typing import cast

from ..connection.accepted import Accepted
from ..connection.context import WorkerContext
from ..connection.flow import DEAF, FlowControl
from ..connection.peer import Peer
from ..errors import ProtocolError
from ..http2.protocol import HTTP2Protocol
from ..http2.wire import PREFACE
from ..http11.protocol import HTTPProtocol
from ..states import ConnectionState

#: Bytes of a request line that are looked at, for a path that is answered in any case.
LINE_MAX = 4096


class Negotiation(asyncio.Protocol):
    """The first protocol of a connection."""

    __slots__ = ("context", "data", "deadline", "flow", "peer", "plain", "sock", "state", "transport")

    transport: asyncio.Transport
    flow: FlowControl
    peer: Peer

    def __init__(self, context: WorkerContext, sock: Accepted | None = None) -> None:
        self.context = context
        self.sock = sock
        self.data = b""  #: what has come, PROXY header included
        self.plain = b""  #: the same without it
        self.deadline = 0.0  #: loop time until which it has to say what it speaks
        self.state = ConnectionState.NEW

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        context = self.context
        self.transport = transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(transport, self.sock)
        self.peer = peer = Peer(transport, context, self.sock)
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None and ssl_object.selected_alpn_protocol() == "h2":
            self._speak_http2()
        elif ssl_object is not None or not peer.judge().trusted:
            self._speak_http1()
        else:
            peer.policy = None  # a PROXY header may name a client, which the policy of the fields depends on
            self.deadline = context.loop.time() + context.settings.header_timeout
            context.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        peer = self.peer
        try:
            if peer.proxy is not None:
                data = peer.strip_proxy_header(peer.proxy, data)
        except ProtocolError:
            self._speak_http1()  # it says what is wrong
            return
        self.plain += data
        plain = self.plain
        if plain.startswith(PREFACE[: len(plain)] if len(plain) < len(PREFACE) else PREFACE):
            if len(plain) >= len(PREFACE):
                self._speak_http2()
        elif self.context.settings.cleartext == "both":
            self._speak_http1()
        elif b"\n" in plain or len(plain) > LINE_MAX:
            words = plain.split(b"\n", 1)[0].split(b" ")
            if len(words) == 3 and words[1].partition(b"?")[0].decode("latin-1") in self.context.router.endpoints:
                self._speak_http1()  # probes speak HTTP/1.1
            else:
                self._refuse()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self.state = ConnectionState.CLOSED
        self.context.connections.lost(self)

    # -- called by the server

    idle_until = None
    closing = False

    def tick(self, now: float) -> None:
        if now >= self.deadline:
            self.abort() if self.transport.is_closing() else self.transport.close()
            self.deadline = now + DEAF

    def drain(self, deadline: float) -> None:
        self.deadline = min(self.deadline, deadline)
        self.tick(self.context.loop.time())

    def abort(self) -> None:
        self.transport.abort()

    # -- the choice

    def _speak_http2(self) -> None:
        self._hand_over()
        protocol = HTTP2Protocol(self.context, self.transport, self.peer)
        self.transport.set_protocol(protocol)
        if self.plain:
            protocol.data_received(self.plain)

    def _speak_http1(self) -> HTTPProtocol:
        self._hand_over()
        protocol = HTTPProtocol(self.context, self.sock)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if self.data:
            protocol.data_received(self.data)
        return protocol

    def _hand_over(self) -> None:
        self.state = ConnectionState.UPGRADED
        self.context.connections.discard(self)

    def _refuse(self) -> None:
        """HTTP/1 where HTTP/2 was agreed on, which gunicorn refuses: a downgrade would hide the mistake."""
        data, self.data = self.data, b""
        reason = "HTTP/1 from a peer that is to speak HTTP/2 (http2_cleartext is prior-knowledge)"
        protocol = self._speak_http1()
        protocol.head.begin(data)
        protocol.refuse(ProtocolError(reason))
