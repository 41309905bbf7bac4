"""
The PROXY protocol: the header that a TCP proxy writes before the first request.

Pure: no transport, no loop. Source: haproxy.org, ``proxy-protocol.txt``, 2.1 and 2.2.
"""

from __future__ import annotations

import socket
import struct

from ..config.settings import Settings
from ..errors import ProtocolError
from .forwarded import Client, trusts

V1_START = b"PROXY "
V1_MAX = 107  #: bytes of the longest line of version 1, with its CRLF
V1_FAMILIES = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}

V2_START = b"\r\n\r\n\0\r\nQUIT\n"
V2_HEAD = 16
V2_LOCAL, V2_PROXY = 0x20, 0x21
V2_UNSPECIFIED = (0x00, 0x01)  #: gunicorn takes the one, proxy-protocol.txt names the other
#: Family and transport -> address family, name, layout.
V2_FAMILIES = {
    0x11: (socket.AF_INET, "TCP4", struct.Struct("!4s4sHH")),
    0x21: (socket.AF_INET6, "TCP6", struct.Struct("!16s16sHH")),
}

#: proxy_protocol -> what a header may begin with.
STARTS = {"off": (), "v1": (V1_START,), "v2": (V2_START,), "auto": (V1_START, V2_START)}


class ProxyHeader:
    """
    The optional PROXY header before the first request of a connection.

    :meth:`feed` takes segments until it returns the bytes behind the header. From then on
    the attributes hold for the whole connection. LOCAL, UNKNOWN and UNSPEC name no client:
    ``client`` and ``proxy`` stay ``None``, ``environ`` stays empty, and the socket peer is
    the client (gunicorn has the string ``None`` for addresses and ports there).
    """

    __slots__ = ("buffer", "client", "environ", "found", "peer", "proxy", "settings")

    def __init__(self, settings: Settings, peer: object) -> None:
        self.settings = settings
        self.peer = peer  #: of the socket, as for :func:`~.forwarded.trusts`
        self.buffer = bytearray()
        self.found = False
        self.client: Client | None = None
        self.proxy: Client | None = None  #: where the client connected to
        self.environ: dict[str, str] = {}

    def feed(self, data: bytes) -> bytes | None:
        """
        Take the next bytes. Returns those behind the header, or ``None`` while they may belong to it.

        Bytes that cannot begin a header of an enabled version are HTTP; all of them are
        returned. Raises :class:`~.errors.ProtocolError`: 403 for a header from a peer that
        ``proxy_allow_ips`` does not name, 400 for a malformed one.
        """
        self.buffer += data
        end = self._end()
        if end is None:
            return None
        rest = bytes(self.buffer[end:])
        self.buffer.clear()
        return rest

    def _end(self) -> int | None:
        """Where the header ends: 0 if there is none, ``None`` while that is not known."""
        buffer = self.buffer
        if not self.found:
            starts = STARTS[self.settings.proxy_protocol]
            if not buffer.startswith(starts):
                return None if any(start.startswith(buffer) for start in starts) else 0
            if not trusts(self.settings.proxy_networks, self.peer):
                raise ProtocolError("a PROXY header from a peer that is not in proxy_allow_ips", 403)
            self.found = True
        return self._version1() if buffer[0] == V1_START[0] else self._version2()

    def _version1(self) -> int | None:
        """Parse the line of version 1; returns where it ends."""
        end = self.buffer.find(b"\n", 0, V1_MAX) + 1
        if not end:
            if len(self.buffer) >= V1_MAX:
                raise ProtocolError("PROXY v1: the line is too long")
            return None
        line = bytes(self.buffer[:end])
        if not line.endswith(b"\r\n"):
            raise ProtocolError("PROXY v1: the line does not end with CRLF")
        _, protocol, *rest = line[:-2].split(b" ")
        if protocol == b"UNKNOWN":
            return end  # whatever the sender adds is to be ignored
        family = V1_FAMILIES.get(protocol)
        if family is None or len(rest) != 4:
            raise ProtocolError("PROXY v1: neither UNKNOWN nor TCP4 or TCP6 with four fields")
        try:
            source, destination = (socket.inet_pton(family, field.decode("ascii")) for field in rest[:2])
        except (OSError, ValueError) as exc:  # ValueError: a byte that is not ASCII, or NUL
            raise ProtocolError(f"PROXY v1: malformed {protocol.decode()} address") from exc
        if not all(port.isdigit() and len(port) <= 5 and int(port) <= 65535 for port in rest[2:]):
            raise ProtocolError("PROXY v1: malformed port")
        self._announce(family, protocol.decode(), source, destination, int(rest[2]), int(rest[3]))
        return end

    def _version2(self) -> int | None:
        """Parse the block of version 2; returns where it ends."""
        if len(self.buffer) < V2_HEAD:
            return None
        command, kind = self.buffer[12:14]
        end = V2_HEAD + int.from_bytes(self.buffer[14:V2_HEAD], "big")
        if command not in (V2_LOCAL, V2_PROXY):
            raise ProtocolError("PROXY v2: unknown version or command")
        if command == V2_LOCAL or kind in V2_UNSPECIFIED:  # LOCAL: a health check; its address family is to be ignored
            return end if len(self.buffer) >= end else None
        if kind not in V2_FAMILIES:
            raise ProtocolError("PROXY v2: neither TCP over IPv4 nor over IPv6")
        family, protocol, layout = V2_FAMILIES[kind]
        if end - V2_HEAD < layout.size:
            raise ProtocolError("PROXY v2: the address block is too short")
        if len(self.buffer) < end:
            return None
        self._announce(family, protocol, *layout.unpack_from(self.buffer, V2_HEAD))
        return end  # between the addresses and here there may be TLVs, of no use to us

    def _announce(
        self, family: int, protocol: str, source: bytes, destination: bytes, source_port: int, destination_port: int
    ) -> None:
        self.client = (socket.inet_ntop(family, source), source_port)
        self.proxy = host, port = (socket.inet_ntop(family, destination), destination_port)
        self.environ = {"PROXY_PROTOCOL": protocol, "PROXY_ADDR": host, "PROXY_PORT": str(port)}
