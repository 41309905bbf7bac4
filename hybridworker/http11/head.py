"""
RequestHead: one head of HTTP/1.1.

The request line, the framing of the body, and what the fields mean for both, checked because httptools
lets much of it through. What holds in any version of HTTP is in :mod:`.connection.fields` and
:mod:`.connection.peer`. Event loop side only.

Invariant: everything is checked before the application is called.
"""

from __future__ import annotations

import re

from ..asgi import Scope
from ..cache import remember
from ..connection.context import WorkerContext
from ..connection.fields import EXPECT, HOST, TE, TRANSFER, UPGRADE, VERSION, RequestFields, check_host, hosts
from ..connection.peer import Peer
from ..connection.response import TOKEN
from ..connection.scope import http_scope, split_target
from ..connection.vocabulary import Request
from ..errors import ProtocolError
from ..states import RequestState
from .rewriting import rewrite
from .scanner import ChunkScanner

BODY, DONE = RequestState.BODY, RequestState.DONE

#: Bytes of the longest request line that is remembered.
LINE_MAX = 256

#: Fields for which there is more to do when the head is complete.
MORE = TRANSFER | EXPECT | UPGRADE | TE

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/(1\.[01])\r\n")


class RequestHead:
    """One head at a time; :meth:`begin` starts the next."""

    __slots__ = ("application", "chunks", "context", "data", "fields", "http10", "length", "peer", "request", "version")

    chunks: ChunkScanner | None  #: of a chunked body; with the three below, of the head that was read last
    length: int  #: bytes of the body that have not come, where Content-Length gives it
    http10: bool
    version: str  #: as it came, where the parser is shown another

    def __init__(self, context: WorkerContext, peer: Peer) -> None:
        self.context = context
        self.peer = peer
        self.fields = RequestFields(peer, context.vocabulary.names)
        self.application = context.router.default  #: what answers the request
        self.request = RequestState.HEADERS
        self.data = b""

    def begin(self, data: bytes) -> None:
        """A new head is about to be parsed; ``data`` holds its bytes, and perhaps more."""
        self.data = data
        self.fields.begin()

    def rewrite(self) -> bytes:
        """The head, which is whole, as the parser is to see it: see :mod:`.rewriting`."""
        self.data, self.version = rewrite(self.data, self.context.settings)
        if self.version:
            self.fields.seen |= VERSION
        return self.data

    def read(self, method: bytes, handshake: bool = False) -> Scope:
        """
        The scope of the request whose head is complete, and in ``request``, ``length`` and ``chunks`` its framing.

        ``handshake`` says that the client asks for a WebSocket. Raises :class:`~.errors.ProtocolError`: the parser
        also takes HTTP/0.9 and 2.0, RTSP and ICE, and more than one space.
        """
        fields, context = self.fields, self.context
        seen = fields.seen
        line = self.data[: self.data.find(b"\r\n")]
        request = context.vocabulary.requests.get(line)
        if request is None:
            request = self._take_apart(method, line)
        verb, target, path, query, version = request
        self.http10 = http10 = version == "1.0"
        if seen & HOST:
            if fields.host not in hosts:
                check_host(fields.host)
        elif not http10:
            raise ProtocolError("no Host (RFC 9112 3.2)")
        if path is None:
            path, query = self._split(method, target)
        if seen & VERSION:
            version = self.version
        scope = http_scope(self.peer.template, version, verb, path, query, target, fields.headers)
        self.application = fields.complete(scope, context, handshake and not http10)
        self.chunks, self.length = None, fields.length
        self.request = BODY if fields.length else DONE
        if seen & TRANSFER:
            self._expect_chunks(http10)
        if http10:
            del scope["extensions"]["http.response.early_hint"]  # RFC 9110 15.2: it knows no 1xx
        fields.ended = True
        return scope

    def _take_apart(self, method: bytes, line: bytes) -> Request:
        """The request line. It is remembered where the same bytes say the same in each request."""
        start, end = len(method) + 1, len(line) - 9
        if not line.startswith(b" HTTP/1.", end) or end <= start or line[end - 1] == 32:
            raise ProtocolError("the request line is not one of HTTP/1.0 or HTTP/1.1 (RFC 9112 3)")
        verb, target, version = method.decode("ascii"), line[start:end], "1.0" if line[-1] == 48 else "1.1"
        if target[:1] != b"/" or b"#" in target or method == b"CONNECT":
            return verb, target, None, b"", version
        path, _, query = target.partition(b"?")
        request = verb, target, path, query, version
        return request if len(line) > LINE_MAX else remember(self.context.vocabulary.requests, line, request)

    def _expect_chunks(self, http10: bool) -> None:
        """The request has a body in chunks: check what says so."""
        self.request = BODY
        check_transfer_encoding(self.fields.joined(b"transfer-encoding"), http10)
        self.chunks = ChunkScanner(self.context.settings)

    def refused(self) -> Scope | None:
        """What is known of a request that is refused, for the access log; None without a proper request line."""
        match = _REQUEST_LINE.match(self.data)
        if match is None:
            return None
        method, target, version = match.groups()
        path, _, query = target.partition(b"?")
        ids = self.context.ids
        scope = http_scope(
            self.peer.template,
            version.decode("ascii"),
            method.decode("ascii"),
            path,
            query,
            target,
            self.fields.unidentified(ids),
        )
        if ids is not None:
            self.fields.identify(scope, ids)
        return scope

    def _split(self, method: bytes, target: bytes) -> tuple[bytes, bytes]:
        """The path and the query of a target that is no plain path; an absolute one replaces Host (RFC 9112 3.2.2)."""
        path, query, authority = split_target(method, target)
        if authority is not None:
            check_host(authority)
            if self.fields.seen & HOST:
                self.fields.headers[self.fields.host_at] = (b"host", authority)
            else:
                self.fields.headers.append((b"host", authority))
        return path, query

    def says_close(self) -> bool:
        """Whether ``close`` is among the Connection options, which the parser does not see beside keep-alive in 1.0."""
        return self.fields.lists(b"connection", b"close")

    def expects_continue(self) -> bool:
        """Whether the client waits for a 100, which HTTP/1.0 does not know. Raises for any other expectation."""
        return self.fields.expects_continue() and self.request is BODY and not self.http10

    def takes_trailers(self, scope: Scope) -> bool:
        """Whether the client asked for trailers (RFC 9110 10.1.4); the scope then says that there may be some."""
        if not self.fields.seen & TE or self.http10 or not self.fields.lists(b"te", b"trailers"):
            return False
        scope["extensions"]["http.response.trailers"] = {}
        return True

    @property
    def bodiless(self) -> bool:
        """Whether no answer to the request has a body, as far as its method is known."""
        return self.data.startswith(b"HEAD ")


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
