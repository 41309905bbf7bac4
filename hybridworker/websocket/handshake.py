"""
The opening handshake of a WebSocket, on the side of HTTP: checks, the answer, and denials.

:class:`Upgrade` is that of HTTP/1.1, with its 101; :mod:`.http2.tunnel` has that of HTTP/2. Both are an
:class:`Opening` for :mod:`.websocket.protocol`. No loop, and no knowledge of frames.
:mod:`.http11.protocol` has seen to what holds for every request (HTTP/1.1, Host, Upgrade, no body).

Invariant: only the server sets the fields of the handshake, whatever the application sends.

Sources: RFC 6455 4.2, RFC 9110 7.8.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Protocol

from ..asgi import Headers, Message, Scope
from ..connection.context import WorkerContext
from ..connection.errorpages import REFUSAL_FIELDS, error_response
from ..connection.response import (
    DATE,
    SERVER,
    TOKEN,
    as_bytes,
    bodiless,
    encode_fields,
    field_list,
    final_status,
    server_fields,
    status_line,
    without_length,
)
from ..errors import InvalidMessage, ProtocolError, ResponseError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64


class Opening(Protocol):
    """How a version of HTTP begins a WebSocket, for :class:`~.websocket.protocol.WebSocketProtocol`."""

    accepted: int  #: the status of an acceptance
    key: bytes  #: no two connections of a moment have the same
    extensions: bytes  #: those that were negotiated
    early: bytes  #: what comes before the application accepts

    def check(self) -> None:
        """Check the handshake. Raises :class:`~.errors.ProtocolError` with the status of the refusal."""

    def accept(self, message: Message) -> Headers:
        """Write what ``websocket.accept`` asks for; returns the application's fields."""

    def refuse(self, status: int, headers: Headers) -> None:
        """Write a whole answer of the server's own, with ``headers``."""

    def begin_denial(self, message: Message) -> None:
        """Take the head of a response of the application's; nothing is written before its body."""

    def deny(self, body: object, more: bool) -> Denial:
        """Write a part of its body."""


Encode = Callable[[Iterable[tuple[bytes, bytes]]], tuple[bytes, int | None, int]]


class Upgrade:
    """The handshake of HTTP/1.1 (RFC 6455 4.2)."""

    __slots__ = ("context", "denial", "early", "extensions", "head", "key", "method", "scope", "transport")

    accepted = 101

    def __init__(self, context: WorkerContext, transport: asyncio.Transport, scope: Scope, method: bytes) -> None:
        self.context = context
        self.transport = transport
        self.scope = scope
        self.method = method
        self.key = self.extensions = self.early = b""
        self.denial: Denial | None = None
        self.head = b""  #: of a denial, until it is written

    def check(self) -> None:
        self.key = check_handshake(self.method, self.scope)

    def accept(self, message: Message) -> Headers:
        head, headers = accept_response(self.key, self.context.clock.fields, self.extensions, message)
        self.transport.write(head)
        return headers

    def refuse(self, status: int, headers: Headers) -> None:
        self.transport.write(refusal(status, self.context.clock.fields, self.method, headers))

    def begin_denial(self, message: Message) -> None:
        self.denial = denial = Denial(message)
        fields = _server_fields(self.context.clock.fields, denial.seen)
        self.head = b"%b%bConnection: close\r\n%b" % (status_line(denial.status), fields, denial.block)

    def deny(self, body: object, more: bool) -> Denial:
        """
        Write a part of a denial, the first one with the head.

        Without a Content-Length the body is ended by closing: WebSocket clients need not know
        chunked framing, and the connection is closed anyway.
        """
        denial = self.denial
        assert denial is not None
        data = denial.part(body, more)
        if self.head:
            if denial.open and not more:
                self.head += b"Content-Length: %d\r\n" % len(data)
            data, self.head = b"%b\r\n%b" % (self.head, data), b""
        self.transport.write(data)
        return denial


def check_handshake(method: bytes, scope: Scope) -> bytes:
    """
    Check a handshake and return its key (RFC 6455 4.2.1).

    Raises :class:`~.errors.ProtocolError` with the status of the refusal.
    """
    if method != b"GET":
        raise ProtocolError("a WebSocket handshake is a GET (RFC 6455 4.1)", 405)
    if values(scope, b"sec-websocket-version") != [b"13"]:
        raise ProtocolError("Sec-WebSocket-Version is not 13 (RFC 6455 4.4)", 426)
    keys = values(scope, b"sec-websocket-key")
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise ProtocolError("Sec-WebSocket-Key is not one base64 value of 16 bytes (RFC 6455 4.1)")
    return keys[0]


def refusal(status: int, fields: bytes, method: bytes = b"GET", headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The whole answer to a handshake that fails, and ``headers``. To a HEAD it has no content (RFC 9110 9.3.2)."""
    block, _, _ = encode_fields(headers)
    return error_response(status, fields, REFUSAL_FIELDS.get(status, b"") + block, method != b"HEAD")


def values(scope: Scope, name: bytes) -> list[bytes]:
    """All values of one request field, in order."""
    return [value for field, value in scope["headers"] if field == name]


def accept_response(key: bytes, fields: bytes, extensions: bytes, message: Message) -> tuple[bytes, Headers]:
    """
    The 101 that ``websocket.accept`` asks for, and the application's fields (RFC 6455 4.2.2).

    ``fields`` are the server's own lines, ``extensions`` is the value of
    Sec-WebSocket-Extensions or empty. Raises :class:`~.errors.InvalidMessage`.
    """
    headers, block, seen = accept_fields(message, encode_fields)
    own = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n" % accept_key(key)
    if name := subprotocol(message):
        own += b"Sec-WebSocket-Protocol: %b\r\n" % name
    if extensions:
        own += b"Sec-WebSocket-Extensions: %b\r\n" % extensions
    return b"%b%b%b%b\r\n" % (status_line(101), _server_fields(fields, seen), own, block), headers


def accept_fields(message: Message, encode: Encode) -> tuple[Headers, bytes, int]:
    """The application's fields of an acceptance, the same as bytes, and what they mean to the server."""
    headers = field_list(message)
    block, length, seen = encode(headers)
    for name, _ in headers:
        if name.lower().startswith(b"sec-websocket-") or name.lower() == b"upgrade":
            raise InvalidMessage(f"the field {name!r} of a handshake is the server's; a subprotocol has its own key")
    if length is not None:  # middleware may have put one there
        block, _, _ = encode(without_length(headers))
    return headers, block, seen


def subprotocol(message: Message) -> bytes:
    """The subprotocol of an acceptance, empty without one. Raises :class:`~.errors.InvalidMessage`."""
    chosen = message.get("subprotocol")
    if not chosen:
        return b""
    # Whether it was offered is the client's to check; some do not, and must not be turned away.
    name = chosen.encode("utf-8", "replace") if isinstance(chosen, str) else b""
    if TOKEN.fullmatch(name) is None:
        raise InvalidMessage(f"subprotocol {chosen!r} is not a token (RFC 6455 4.1)")
    return name


def accept_key(key: bytes) -> bytes:
    """The proof that the handshake was understood (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


class Denial:
    """
    An HTTP response instead of a WebSocket (ASGI extension ``websocket.http.response``): its checks.

    ``block`` are its fields as bytes, by ``encode``, and ``seen`` is what they mean. The
    constructor raises :class:`~.errors.InvalidMessage`.
    """

    __slots__ = ("block", "bodiless", "headers", "remaining", "seen", "sent", "status")

    def __init__(self, message: Message, encode: Encode = encode_fields) -> None:
        self.status = status = final_status(message.get("status"))
        self.sent = 0  #: bytes of the body so far
        self.headers = field_list(message)
        self.bodiless = bodiless("GET", status)
        kept = self.headers if status != 204 else without_length(self.headers)
        self.block, self.remaining, self.seen = encode(kept)

    @property
    def open(self) -> bool:
        """Whether it has content whose length was not announced."""
        return self.remaining is None and not self.bodiless

    def part(self, body: object, more: bool) -> bytes:
        """
        The content of one part.

        Raises :class:`~.errors.ResponseError` where another length was announced, and :class:`~.errors.InvalidMessage`.
        """
        data = as_bytes(body)
        if self.bodiless:
            data = b""
        elif self.remaining is not None:
            if len(data) > self.remaining or (len(data) < self.remaining and not more):
                raise ResponseError(f"the body has {len(data)} bytes where Content-Length leaves {self.remaining}")
            self.remaining -= len(data)
        self.sent += len(data)
        return data


def _server_fields(fields: bytes, seen: int) -> bytes:
    """The application's own Server and Date win, and there are never two."""
    return server_fields(fields, seen) if seen & (DATE | SERVER) else fields
