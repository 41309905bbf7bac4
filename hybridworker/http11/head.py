"""
RequestHead: what the fields of a request head mean to the server.

The half of :class:`~.http11.protocol.HTTPProtocol` that listens to the parser while a head is
parsed: it collects the fields, notices the few that decide framing, routing or trust,
and checks them, because httptools lets much of it through. Event loop side only.

Invariant: everything is checked before the application is called.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re

from ..asgi import Headers, Scope
from ..cache import remember
from ..config.settings import Settings
from ..connection.context import WorkerContext
from ..connection.forwarded import FieldPolicy, is_special, trusts
from ..connection.proxyheader import ProxyHeader
from ..connection.response import TOKEN
from ..connection.scope import http_scope, http_template, normal_address, split_target
from ..connection.tls import tls_extension
from ..errors import ProtocolError
from ..states import RequestState
from .framing import ChunkScanner

# What a field means, as bits: those of one request are joined, to notice repeats. Zero means nothing to the server.
HOST = 1
LENGTH = 2
TRANSFER = 4
EXPECT = 8
UPGRADE = 16
TYPE = 32
TE = 64
POLICY = 128  #: forwarding, schemes and names with underscores: :mod:`.forwarded` decides

BODY, DONE = RequestState.BODY, RequestState.DONE

#: Fields for which there is more to do when the head is complete.
MORE = TRANSFER | EXPECT | UPGRADE | TE

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

_REQUEST_LINE = re.compile(rb"([A-Z-]+) ([\x21-\x7e]+) HTTP/(1\.[01])\r\n")

#: Hosts that were found valid. Bounded: a client must not fill memory with names.
_hosts: dict[bytes, None] = {}


class RequestHead:
    """One head at a time; :meth:`begin` starts the next."""

    __slots__ = (
        # the connection
        "announced",
        "context",
        "names",
        "peer",
        "policy",
        "proxied",
        "proxy",
        "template",
        "tls",
        # the request
        "application",
        "chunks",
        "head",
        "headers",
        "host",
        "host_at",
        "http10",
        "length",
        "request",
        "seen",
        "special",
    )

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.names = context.names
        self.proxy: ProxyHeader | None = None  #: until its end has come
        self.announced: tuple[str, int] | None = None  #: the client that a PROXY header named
        self.proxied: dict[str, str] | None = None  #: what else it said, for environ
        self.application = context.application  #: what answers the request
        self.policy: FieldPolicy | None = None  #: one decision for the whole connection, when first asked for
        self.request = RequestState.HEADERS
        self.chunks: ChunkScanner | None = None  #: of a chunked body
        self.begin(b"")

    def connect(self, transport: asyncio.Transport) -> None:
        """Read from the transport what all scopes of the connection say."""
        self.peer = transport.get_extra_info("peername")
        ssl_object = transport.get_extra_info("ssl_object")
        self.tls = None if ssl_object is None else tls_extension(ssl_object, self.context.server_cert)
        settings = self.context.settings
        self.template = http_template(
            "http" if ssl_object is None else "https",
            normal_address(self.peer),
            normal_address(transport.get_extra_info("sockname"), server=True),
            settings.root_path,
        )
        if settings.proxy_protocol != "off":
            self.proxy = ProxyHeader(settings, self.peer)

    def strip_proxy_header(self, proxy: ProxyHeader, data: bytes) -> bytes:
        """Take the PROXY header off the first bytes; returns those behind it, or none while it is incomplete."""
        rest = proxy.feed(data)
        if rest is None:
            return b""
        self.proxy = None
        if proxy.client is not None:
            self.template["client"] = self.announced = proxy.client
            self.proxied = proxy.environ
        return rest

    def begin(self, head: bytes) -> None:
        """A new head is about to be parsed; ``head`` holds its bytes, and perhaps more."""
        self.head = head
        self.headers: Headers = []
        self.seen = 0
        self.special: Headers | None = None  #: the fields that :mod:`.forwarded` judges
        self.length = 0  #: of the body, where Content-Length gives it

    # -- called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.request is BODY:
            return  # a trailer: never a field of the request (RFC 9110 6.5.1)
        known = self.names.get(name)
        if known is None:
            known = self._classify(name)
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
            elif meaning == POLICY and not self._judge(lowered, value):
                return
        self.headers.append((lowered, value))

    # -- the fields

    def _classify(self, name: bytes) -> tuple[bytes, int]:
        known = classify(name, self.context.settings)
        remember(self.names, name, known)
        return known

    def _judge(self, name: bytes, value: bytes) -> bool:
        """Keep a field that says something about the client, if this peer may say so; False drops it."""
        if self.policy is None:
            settings = self.context.settings
            trusted = trusts(settings.forwarded_networks, self.peer)
            self.policy = FieldPolicy(settings, trusted, self.announced)
        if self.special is None:
            self.special = []
        self.special.append((name, value))
        return self.policy.keeps(name)

    def _joined(self, name: bytes) -> bytes:
        """The values of all lines of a field, as one list (RFC 9110 5.3)."""
        return b", ".join(value for field, value in self.headers if field == name)

    def _lists(self, name: bytes, member: bytes) -> bool:
        """Whether ``member`` is in a field that is a list."""
        return any(value.strip(b" \t").lower() == member for value in self._joined(name).split(b","))

    # -- the whole

    def read(self, method: bytes) -> Scope:
        """
        The scope of the request whose head is complete, and in ``request``, ``length`` and ``chunks`` its framing.

        Raises :class:`~.errors.ProtocolError`.

        The parser also takes HTTP/0.9 and 2.0, RTSP and ICE, and more than one space.
        """
        head = self.head
        start = len(method) + 1
        end = head.find(b"\r\n", start) - 9
        if not head.startswith(b" HTTP/1.", end) or end <= start or head[end - 1] == 32:
            raise ProtocolError("the request line is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 3)")
        target = head[start:end]
        self.http10 = http10 = head[end + 8] == 48
        if self.seen & HOST:
            if self.host not in _hosts:
                check_host(self.host)
        elif not http10:
            raise ProtocolError("no Host (RFC 9112 3.2)")
        # Bytes are looked for as numbers: for `b"#" in target` CPython raises and clears an exception first.
        if head[start] == 47 and 35 not in target and method != b"CONNECT":
            path, query = target, b""
            if 63 in target:
                path, _, query = target.partition(b"?")
        else:
            path, query = self._split(method, target)
        context = self.context
        scope = http_scope(
            self.template,
            "1.0" if http10 else "1.1",
            method.decode("ascii"),
            path,
            query,
            target,
            self.headers,
        )
        application = context.application
        if context.endpoints:
            application = context.find(scope["method"], scope["path"])
        self.application = application
        scope["state"] = application.state.copy()
        if self.special is not None and self.policy is not None:
            scope["scheme"], scope["client"] = self.policy.resolve(
                self.special, scope["scheme"], scope["client"], application.forwarded_client
            )
        self.chunks = None
        self.request = BODY if self.length else DONE
        if self.seen & TRANSFER:
            check_transfer_encoding(self._joined(b"transfer-encoding"), http10)
            self.chunks = ChunkScanner(context.settings)
            self.request = BODY
        if http10:
            del scope["extensions"]["http.response.early_hint"]  # RFC 9110 15.2: it knows no 1xx
        if self.tls is not None:
            scope["extensions"]["tls"] = self.tls.copy()
        if self.proxied is not None:
            scope["hybridworker.proxy"] = self.proxied.copy()
        return scope

    def refused(self) -> Scope | None:
        """What is known of a request that is refused, for the access log; None without a proper request line."""
        match = _REQUEST_LINE.match(self.head)
        if match is None:
            return None
        method, target, version = match.groups()
        path, _, query = target.partition(b"?")
        return http_scope(
            self.template, version.decode("ascii"), method.decode("ascii"), path, query, target, self.headers
        )

    def _split(self, method: bytes, target: bytes) -> tuple[bytes, bytes]:
        """The path and the query of a target that is no plain path; an absolute one replaces Host (RFC 9112 3.2.2)."""
        path, query, authority = split_target(method, target)
        if authority is not None:
            check_host(authority)
            if self.seen & HOST:
                self.headers[self.host_at] = (b"host", authority)
            else:
                self.headers.append((b"host", authority))
        return path, query

    def says_close(self) -> bool:
        """Whether ``close`` is among the Connection options, which the parser does not see beside keep-alive in 1.0."""
        return self._lists(b"connection", b"close")

    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 (RFC 9110 10.1.1), which HTTP/1.0 does not know; all else is a 417."""
        if not self.seen & EXPECT:
            return False
        if any(value.strip(b" \t").lower() != b"100-continue" for value in self._joined(b"expect").split(b",")):
            raise ProtocolError("unknown expectation (RFC 9110 10.1.1)", 417)
        return self.request is BODY and not self.http10

    def takes_trailers(self, scope: Scope) -> bool:
        """Whether the client asked for trailers (RFC 9110 10.1.4); the scope then says that there may be some."""
        if not self.seen & TE or self.http10 or not self._lists(b"te", b"trailers"):
            return False
        scope["extensions"]["http.response.trailers"] = {}
        return True

    def leaves_http(self, available: bool) -> bool:
        """
        Whether the request is a WebSocket handshake that will be taken (RFC 6455 4.2.1).

        Raises :class:`~.errors.ProtocolError` for one that cannot be. Any other upgrade may
        be ignored (RFC 9110 7.8).
        """
        context = self.context
        if not context.application.takes_websockets or not self._lists(b"upgrade", b"websocket"):
            return False
        if self.request is BODY:
            raise ProtocolError("a WebSocket handshake with a body (RFC 6455 4.1)")
        if not available:
            context.warn_once(
                "A WebSocket handshake was refused: install hybridworker[websockets] to serve WebSocket connections"
            )
            raise ProtocolError("WebSocket is not installed", 501, logged=True)
        return True


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
    remember(_hosts, value, None)


def check_transfer_encoding(value: bytes, http10: bool) -> None:
    """
    Accept ``chunked``, the only transfer coding of this server (RFC 9112 6.1 and 7).

    Raises :class:`~.errors.ProtocolError`: 501 for a coding that it does not know, 400
    for anything malformed or applied twice, and for HTTP/1.0, where the field is a sign
    of smuggling.
    """
    if http10:
        raise ProtocolError("Transfer-Encoding in HTTP/1.0 (RFC 9112 6.1)")
    if value.lower() == b"chunked":
        return
    codings = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    if not all(TOKEN.fullmatch(coding) for coding in codings):
        raise ProtocolError("malformed Transfer-Encoding (RFC 9112 6.1)")
    if codings.count(b"chunked") > 1 or b"chunked" in codings[:-1]:
        raise ProtocolError("chunked is not the one last transfer coding (RFC 9112 6.1)")
    raise ProtocolError("unknown transfer coding (RFC 9112 6.1)", 501)


def _is_ipv6(literal: bytes) -> bool:
    try:
        ipaddress.IPv6Address(literal.decode("ascii"))
    except ValueError:
        return False
    return True
