"""
Whom to believe about the client: trusted peers, forwarding fields, the PROXY protocol.

* :func:`trusts` - whether a peer is one of the proxies that the configuration names
* :class:`FieldPolicy` - what the request fields of one peer may say
* :class:`ProxyHeader` - the header that a TCP proxy writes before the first request

:mod:`.http11.protocol` asks; pure, no transport, no loop. The rule one could break by accident:
trust is decided by the address of the *socket peer*, once per connection, and never by
an address that came as bytes over that connection. A peer whose address is unknown is
no unix socket, and is not trusted.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
import socket
import struct
from typing import TypeAlias

from ..asgi import Headers
from ..config.settings import Network, Settings
from ..errors import ProtocolError

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Client: TypeAlias = tuple[str, int]
AnyClient: TypeAlias = Client | tuple[str, None] | None

#: One entry of X-Forwarded-For. Zone identifiers (``fe80::1%eth0``) mean nothing outside of their host: not matched.
_ENTRY = re.compile(rb"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})|([0-9A-Fa-f:.]+)")
_ENTRY_MAX = 53  #: bytes of the longest: IPv6 in brackets, ending in dotted IPv4, with a port

#: How many entries of X-Forwarded-For are looked at, from the right.
ENTRIES_MAX = 100

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


def trusts(networks: tuple[Network, ...] | None, peer: object) -> bool:
    """
    Whether ``peer``, a transport's peername, is in ``networks``; ``None`` stands for every address.

    The peer of a unix socket has a name, mostly empty, and is always trusted, as in
    gunicorn. A peername of ``None`` is something else: a TCP peer that had reset the
    connection before anyone asked for its address. Its request can still be read, so it
    must not pass for a unix socket. An IPv4 address in IPv6 form
    (``::ffff:192.0.2.1``, of a dual-stack listener) is looked up in both forms.
    """
    if networks is None or isinstance(peer, (str, bytes)):
        return True
    if not isinstance(peer, tuple) or not peer or not isinstance(peer[0], str):
        return False
    try:
        address = ipaddress.ip_address(peer[0])
    except ValueError:
        return False
    return _within(networks, address)


def _within(networks: tuple[Network, ...], address: IPAddress) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any(address in network or (mapped is not None and mapped in network) for network in networks)


# -- request fields


def is_special(name: bytes, settings: Settings) -> bool:
    """Whether a field with this lower-case name is a matter for :class:`FieldPolicy`; no other ever is."""
    return b"_" in name or name == b"x-forwarded-for" or name in settings.secure_scheme_headers


class FieldPolicy:
    """
    What the special fields (:func:`is_special`) of one connection may do.

    ``trusted`` is the answer of :func:`trusts` for ``forwarded_networks`` and the socket
    peer. ``announced`` is the client that a PROXY header named: it stands between the
    peer and whoever wrote X-Forwarded-For, so the field is believed only if the
    announced address is trusted as well. (A TCP proxy passes on what any client writes.)
    """

    __slots__ = ("names_client", "settings", "trusted")

    def __init__(self, settings: Settings, trusted: bool, announced: Client | None = None) -> None:
        self.settings = settings
        self.trusted = trusted
        self.names_client = trusted and (announced is None or trusts(settings.forwarded_networks, announced))

    def keeps(self, name: bytes) -> bool:
        """
        Whether the field stays in the request; ``False`` means that it never was there.

        In CGI names ``X-A`` and ``X_A`` are the same, so a client could pass off one for
        the other: names with ``_`` are for forwarders, by ``forwarder_headers``; what
        happens to all others is ``header_map``. Raises :class:`~.errors.ProtocolError`.
        """
        if b"_" not in name:
            return True
        settings = self.settings
        if self.trusted and (name in settings.forwarder_headers or b"*" in settings.forwarder_headers):
            return True
        if settings.header_map == "refuse":
            raise ProtocolError("a field name with an underscore (header_map)")
        return settings.header_map == "dangerous"

    def resolve(self, fields: Headers, scheme: str, client: AnyClient, forwarded_client: bool) -> tuple[str, AnyClient]:
        """
        The scheme and the client of a request with these special ``fields``.

        ``fields`` holds all of them, in order, values stripped, also those that
        :meth:`keeps` dropped. ``forwarded_client`` says whether the application is to see the
        client that X-Forwarded-For names. ``scheme`` and ``client`` are those of the connection, and
        the result where the fields say nothing. Raises :class:`~.errors.ProtocolError`
        for secure_scheme_headers that contradict each other.
        """
        if not self.trusted:
            return scheme, client
        secure = self.settings.secure_scheme_headers
        said = {"https" if value == secure[name] else "http" for name, value in fields if name in secure}
        if len(said) > 1:
            raise ProtocolError("contradictory secure_scheme_headers")
        if said:
            scheme = said.pop()
        if forwarded_client and self.names_client:
            values = [value for name, value in fields if name == b"x-forwarded-for"]
            client = client_from(values, self.settings) or client
        return scheme, client


def client_from(values: list[bytes], settings: Settings) -> Client | None:
    """
    The right-most untrusted address of the X-Forwarded-For lines ``values``, with its port or 0.

    Every proxy adds the address it saw on the right, so from the right each entry is the
    word of the one before, beginning with the socket peer, which the caller trusts. The
    walk ends at the first address that is no trusted proxy, at anything that is no
    address (``unknown``, an obfuscated name, a bad port), or with the line; the address
    it reached last is the client. ``None`` if it reached none. So the result is always
    an address, in its one canonical spelling, that a trusted peer vouches for; where the
    chain is torn it is that of the last known proxy. ``forwarded_allow_ips = *`` trusts
    every writer, and so reaches the left end, where any client can write what it likes.
    Empty entries are skipped (RFC 9110 5.6.1.2); no chain is followed for more than
    ``ENTRIES_MAX`` of them, because a long line of trusted addresses is cheap to write.
    """
    networks = settings.forwarded_networks
    client = None
    entries = (entry.strip(b" \t") for value in reversed(values) for entry in reversed(value.split(b",")))
    for entry in itertools.islice(entries, ENTRIES_MAX):
        if entry:
            hop = _hop(entry) if len(entry) <= _ENTRY_MAX else None
            if hop is None:
                break
            address, client = hop
            if networks is not None and not _within(networks, address):
                break
    return client


@functools.lru_cache(maxsize=1024)
def _hop(entry: bytes) -> tuple[IPAddress, Client] | None:
    """An entry of X-Forwarded-For as an address, and as a client; ``None`` if it is not one."""
    match = _ENTRY.fullmatch(entry)
    if match is None:
        return None
    bracketed, bracketed_port, ipv4, ipv4_port, bare = match.groups()
    port = int(bracketed_port or ipv4_port or 0)
    try:
        address: IPAddress = ipaddress.ip_address((bracketed or ipv4 or bare).decode("ascii"))
    except ValueError:
        return None
    if port > 65535:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address, (str(address), port)


# -- the PROXY protocol


class ProxyHeader:
    """
    The optional PROXY header before the first request of a connection.

    :meth:`feed` takes segments until it returns the bytes behind the header; afterwards
    the attributes hold for the whole connection. LOCAL, UNKNOWN and UNSPEC name nobody:
    ``client`` and ``proxy`` stay ``None``, ``environ`` empty, and the socket peer is the
    client (gunicorn sets the string ``None`` for addresses and ports there). Source:
    haproxy.org, ``proxy-protocol.txt``, 2.1 and 2.2.
    """

    __slots__ = ("buffer", "client", "environ", "found", "peer", "proxy", "settings")

    def __init__(self, settings: Settings, peer: object) -> None:
        self.settings = settings
        self.peer = peer  #: of the socket, as for :func:`trusts`
        self.buffer = bytearray()
        self.found = False
        self.client: Client | None = None
        self.proxy: Client | None = None  #: where the client connected to
        self.environ: dict[str, str] = {}

    def feed(self, data: bytes) -> bytes | None:
        """
        Take the next bytes; returns those behind the header, or ``None`` while they may belong to it.

        Bytes that cannot begin a header of an enabled version are HTTP, and come back
        whole. Raises :class:`~.errors.ProtocolError`: 403 for a header from a peer that
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
        """Where the header ends: 0 if there is none, ``None`` while that is open."""
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
