"""
RequestFields: what the fields of a request mean to the server, in any version of HTTP.

They are collected while a head is parsed. The few that decide framing, routing or trust are
noticed. Event loop side only.
"""

from __future__ import annotations

import ipaddress
import re

from ..application.application import Application
from ..asgi import PART, Headers, Scope
from ..cache import remember
from ..config.settings import Settings
from ..errors import ProtocolError
from .context import WorkerContext
from .forwarded import SCRIPT_NAME, is_special
from .peer import Peer
from .requestids import RequestIds

# What a field means, as bits: those of one request are joined, to notice repeats. Zero means nothing to the server.
HOST = 1
LENGTH = 2
TRANSFER = 4
EXPECT = 8
UPGRADE = 16
TYPE = 32
TE = 64
VERSION = 256  #: no field: the request line has a version that is shown as another
POLICY = 128  #: forwarding, schemes and names with underscores: :mod:`.forwarded` decides

#: Fields that a request may carry once only (RFC 9110 5.3, 8.3, 8.6; RFC 9112 3.2).
SINGLE = HOST | LENGTH | TYPE

MEANINGS = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"content-type": TYPE,
    b"te": TE,
}

#: uri-host [ ":" port ] (RFC 9112 3.2, RFC 3986 3.2.2): a bracketed IPv6 literal or a registered name.
_HOST = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[!$&'()*+,;=:\-._~0-9A-Za-z]+\]"
    rb"|(?:[!$&'()*+,;=\-._~0-9A-Za-z]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)

#: Hosts that were found valid in any version of HTTP. Bounded: a client must not fill memory with names.
hosts: dict[bytes, None] = {}


class RequestFields:
    """The fields of one request at a time; :meth:`begin` starts the next."""

    __slots__ = ("ended", "headers", "host", "host_at", "length", "names", "peer", "seen", "special")

    def __init__(self, peer: Peer, names: dict[bytes, tuple[bytes, int]]) -> None:
        """``names`` is shared by the connections of a worker: name as received -> what :func:`classify` says of it."""
        self.peer = peer
        self.names = names
        self.begin()

    def begin(self) -> None:
        """A new request."""
        self.headers: Headers = []
        self.seen = 0  #: the meanings of those that came
        self.special: Headers | None = None  #: those that :mod:`.forwarded` judges
        self.length = 0  #: of the body, where Content-Length gives it
        self.ended = False  #: the head is complete: what comes now are trailers

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field. Raises :class:`~.errors.ProtocolError`."""
        if self.ended:
            return  # a trailer: never a field of the request (RFC 9110 6.5.1)
        known = self.names.get(name)
        if known is None:
            known = remember(self.names, name, classify(name, self.peer.settings))
        lowered, meaning = known
        value = value.rstrip()  # the parser leaves trailing whitespace; other control characters it refuses
        if meaning:
            if meaning & self.seen & SINGLE:
                raise ProtocolError(f"repeated {lowered.decode('ascii')} (RFC 9110 5.3)")
            self.seen |= meaning
            if meaning == HOST:
                self.host = value
                self.host_at = len(self.headers)
            elif meaning == LENGTH:
                self.length = int(value)
            elif meaning == POLICY and not self.judge(lowered, value):
                return
        self.headers.append((lowered, value))

    def judge(self, name: bytes, value: bytes) -> bool:
        """Keep a field that says something about the client, if this peer may say so; False drops it."""
        if self.special is None:
            self.special = []
        self.special.append((name, value))
        if name == SCRIPT_NAME:
            self.peer.prefixed = True
        return self.peer.judge().keeps(name)

    def identify(self, scope: Scope, ids: RequestIds) -> None:
        """Give the request its id: the one that a proxy has named, if this peer is trusted about its clients."""
        ids.identify(scope, self.special or [], self.peer.judge().names_client)

    def unidentified(self, ids: RequestIds | None) -> Headers:
        """The fields without an id that :meth:`identify` has put there: what was found before a fault."""
        if ids is None or ids.traces:
            return self.headers
        return [field for field in self.headers if field[0] != ids.name]

    def joined(self, name: bytes) -> bytes:
        """The values of all lines of a field, as one list (RFC 9110 5.3)."""
        return b", ".join(value for field, value in self.headers if field == name)

    def lists(self, name: bytes, member: bytes) -> bool:
        """Whether ``member`` is in a field that is a list."""
        return any(value.strip(b" \t").lower() == member for value in self.joined(name).split(b","))

    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 (RFC 9110 10.1.1). Raises :class:`~.errors.ProtocolError` for all else."""
        if not self.seen & EXPECT:
            return False
        if any(value.strip(b" \t").lower() != b"100-continue" for value in self.joined(b"expect").split(b",")):
            raise ProtocolError("unknown expectation (RFC 9110 10.1.1)", 417)
        return True

    def complete(self, scope: Scope, context: WorkerContext, websocket: bool = False) -> Application:
        """
        Put into the scope of a request what these fields, the peer and the application say.

        ``websocket`` says that it is a handshake. Returns the application that answers. Raises
        :class:`~.errors.ProtocolError`.
        """
        peer = self.peer
        router = context.router
        application = router.single
        if application is None:
            if router.parts is None:
                application = router.default
                if scope["path"] in router.endpoints:
                    application = router.find(scope, websocket, None)
            elif websocket or peer.prefixed or (application := router.known.get(scope["path"])) is None:
                application = router.find(scope, websocket, self.special if peer.prefixed else None)
            else:
                scope[PART] = application.part.name  # type: ignore[union-attr]  # nothing but parts is known
        scope["state"] = application.state.copy()
        if self.special is not None:
            policy = peer.judge()
            scope["scheme"], scope["client"] = policy.resolve(
                self.special, scope["scheme"], scope["client"], application.forwarded_client
            )
            if context.admission is not None:
                context.admission.note_start(scope, policy, self.special)
        if context.ids is not None:
            self.identify(scope, context.ids)
        if self.length and context.admission is not None:
            context.admission.check_length(self.length)
        if peer.tls is not None:
            scope["extensions"]["tls"] = peer.tls.copy()
        if peer.proxied is not None:
            scope["hybridworker.proxy"] = peer.proxied.copy()
        return application


def classify(name: bytes, settings: Settings) -> tuple[bytes, int]:
    """The lower-case form of a field name and its meaning."""
    lowered = name.lower()
    meaning = MEANINGS.get(lowered, 0)
    return lowered, POLICY if is_special(lowered, settings) else meaning


def check_host(value: bytes) -> None:
    """Raise :class:`~.errors.ProtocolError` unless ``value`` is a valid Host field (RFC 9112 3.2)."""
    match = _HOST.fullmatch(value)
    if match is None or (match[1] is not None and not _is_ipv6(match[1])):
        raise ProtocolError("malformed Host (RFC 9112 3.2)")
    if value:  # an empty one is valid in HTTP/1.1 only
        remember(hosts, value, None)


def _is_ipv6(literal: bytes) -> bool:
    try:
        ipaddress.IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True
