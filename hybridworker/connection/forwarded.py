"""
Whether to trust a peer, and what its forwarding fields may then say about the client.

* :func:`trusts` - whether a peer is one of the proxies that the configuration names
* :class:`FieldPolicy` - what the request fields of one peer may say
* :func:`seconds_since` - what X-Request-Start says

Pure: no transport, no loop. Invariant: trust is decided by the address of the *socket peer*, once per connection, never
by an address that came as bytes over that connection. A peer without an address (its connection was reset early) is not
taken for one on a unix socket, so it is not trusted.
"""

from __future__ import annotations

import ipaddress
import itertools
import math
import re
from typing import TypeAlias

from ..asgi import Headers
from ..cache import remember
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

#: The field by which a forwarder names the prefix of the whole deployment.
SCRIPT_NAME = b"script_name"

#: X-Request-Start, as nginx ("t=1700000000.123"), Heroku (milliseconds) and Apache ("t=", microseconds) write it.
REQUEST_START = b"x-request-start"
_START = re.compile(rb"(?:t=)?([0-9]{1,17}(?:\.[0-9]{1,9})?)")

#: Seconds: a request that began longer ago says that a clock is wrong.
START_MAX = 3600.0


def trusts(networks: tuple[Network, ...] | None, peer: object) -> bool:
    """
    Whether ``peer``, a transport's peername, is in ``networks``; ``None`` stands for every address.

    The peer of a unix socket has a name, which is mostly empty, and is always trusted, as in gunicorn. A peername of
    ``None`` is that of a TCP peer that reset the connection before its address was asked for. Its request can still
    be read, so it must not pass for a unix socket. An IPv4 address in IPv6 form (``::ffff:192.0.2.1``, of a
    dual-stack listener) is looked up in both forms.
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
    """Whether :class:`FieldPolicy` decides about the field with this lower-case name."""
    if name == REQUEST_START:
        return settings.queue_timeout < math.inf
    return (
        b"_" in name
        or name == b"x-forwarded-for"
        or name in settings.secure_scheme_headers
        or (name == settings.id_field != b"")
    )


class FieldPolicy:
    """
    What the special fields (:func:`is_special`) of one connection may do.

    ``trusted`` is the answer of :func:`trusts` for ``forwarded_networks`` and the socket
    peer. ``announced`` is the client that a PROXY header named. A TCP proxy passes on
    what that client writes, so X-Forwarded-For is believed only if the announced address
    is trusted as well.
    """

    __slots__ = ("answer", "names_client", "question", "settings", "trusted")

    def __init__(self, settings: Settings, trusted: bool, announced: Client | None = None) -> None:
        self.settings = settings
        self.trusted = trusted
        self.names_client = trusted and (announced is None or trusts(settings.forwarded_networks, announced))
        self.question: object = None  #: what :meth:`resolve` was asked last; most requests of a connection ask the same
        self.answer: tuple[str, AnyClient] = "", None

    def keeps(self, name: bytes) -> bool:
        """
        Whether the field stays in the request; if not, the application never sees it.

        ``X-A`` and ``X_A`` are the same in CGI, so a client could pass off one for the other.
        Names with ``_`` are for forwarders, by ``forwarder_headers``. ``header_map`` decides
        about all others. Raises :class:`~.errors.ProtocolError`. The field with the id of the
        request is replaced, so no spelling of it stays.
        """
        settings = self.settings
        if name == settings.id_field:
            return False
        if b"_" not in name:
            return True
        if settings.id_field and name.replace(b"_", b"-") == settings.id_field and settings.header_map != "refuse":
            return False
        if self.trusted and (name in settings.forwarder_headers or b"*" in settings.forwarder_headers):
            return True
        if settings.header_map == "refuse":
            raise ProtocolError("a field name with an underscore (header_map)")
        return settings.header_map == "dangerous"

    def waited(self, fields: Headers, now: float) -> float:
        """
        Seconds since a trusted proxy got the request, by its X-Request-Start; 0 where nothing credible says so.

        ``fields`` are as for :meth:`resolve`, and ``now`` is in seconds since the epoch.
        """
        if not self.trusted:
            return 0.0
        starts = [value for name, value in fields if name == REQUEST_START]
        return seconds_since(starts[0], now) if len(starts) == 1 else 0.0

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
        question = fields, scheme, client, forwarded_client
        if question == self.question:
            return self.answer
        secure = self.settings.secure_scheme_headers
        said = {"https" if value == secure[name] else "http" for name, value in fields if name in secure}
        if len(said) > 1:
            raise ProtocolError("contradictory secure_scheme_headers")
        if said:
            scheme = said.pop()
        if forwarded_client and self.names_client:
            values = [value for name, value in fields if name == b"x-forwarded-for"]
            client = client_from(values, self.settings) or client
        self.question, self.answer = question, (scheme, client)
        return scheme, client


def seconds_since(value: bytes, now: float) -> float:
    """
    Seconds from an X-Request-Start, in seconds, milliseconds or microseconds since the epoch, to ``now``.

    0 for what is none of the three, lies in the future, or is more than :data:`START_MAX` ago.
    """
    match = _START.fullmatch(value)
    if match is None:
        return 0.0
    start = float(match[1])
    for unit in (1.0, 1e3, 1e6):
        if 0.0 <= (since := now - start / unit) <= START_MAX:
            return since
    return 0.0


def client_from(values: list[bytes], settings: Settings) -> Client | None:
    """
    The right-most untrusted address of the X-Forwarded-For lines ``values``, with its port or 0.

    Every proxy adds the address it saw on the right. So each entry was written by the proxy
    to its right, and the last one by the socket peer, which the caller trusts. The walk goes
    from right to left. It ends at the first address that is no trusted proxy, before
    anything that is no address (``unknown``, an obfuscated name, a bad port), or at the
    left end. The client is the address that it reached last, or ``None`` if there was none.

    So the result is always an address, in its canonical spelling, that a trusted peer
    vouches for; where the chain is broken it is that of the last known proxy.
    ``forwarded_allow_ips = *`` trusts every writer, so the walk reaches the left end, where
    any client can write what it likes. Empty entries are skipped (RFC 9110 5.6.1.2). At most
    ``ENTRIES_MAX`` entries are read, because a long line of trusted addresses is cheap to write.
    """
    networks = settings.forwarded_networks
    client = None
    entries = (entry.strip(b" \t") for value in reversed(values) for entry in reversed(value.split(b",")))
    for entry in itertools.islice(entries, ENTRIES_MAX):
        if entry:
            hop = _hops.get(entry)
            if hop is None:
                hop = _hop(entry)
            if hop is None:
                break
            address, client = hop
            if networks is not None and not _within(networks, address):
                break
    return client


def client_of(address: bytes, port: bytes) -> Client | None:
    """The client that a proxy names by these, with the port 0 where that is none; None where there is no address."""
    hop = _hops.get(address) or _hop(address)
    if hop is None:
        return None
    number = int(port) if port.isdigit() and len(port) <= 5 else 0
    return hop[1][0], number if number <= 65535 else 0


#: What :func:`_hop` has found.
_hops: dict[bytes, tuple[IPAddress, Client]] = {}


def _hop(entry: bytes) -> tuple[IPAddress, Client] | None:
    """An entry of X-Forwarded-For as an address, and as a client; ``None`` if it is not one."""
    match = _ENTRY.fullmatch(entry) if len(entry) <= _ENTRY_MAX else None
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
    return remember(_hops, entry, (address, (str(address), port)))
