"""
The opening handshake of a WebSocket, on the side of HTTP: checks, the 101, and denials.

Plain values in, bytes out; no transport, no loop, and no knowledge of frames.
:mod:`.http11.protocol` has seen to what holds for every request (HTTP/1.1, Host, Upgrade, no body);
:mod:`.websocket.protocol` writes the bytes.

Invariant: only the server sets the fields of the handshake, whatever the application sends.

Sources: RFC 6455 4.2, RFC 9110 7.8.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable

from ..asgi import Headers, Message, Scope
from ..connection.response import (
    DATE,
    SERVER,
    TOKEN,
    as_bytes,
    bodiless,
    encode_fields,
    error_response,
    field_list,
    final_status,
    server_fields,
    status_line,
    without_length,
)
from ..errors import InvalidMessage, ProtocolError, ResponseError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64

#: What a refusal must say beside its status. A 426 names the version that is spoken (RFC 6455 4.4, RFC 9110 15.5.22).
REFUSAL_FIELDS = {
    405: b"Allow: GET\r\n",
    426: b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
}


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
    headers = field_list(message)
    block, length, seen = encode_fields(headers)
    for name, _ in headers:
        if name.lower().startswith(b"sec-websocket-") or name.lower() == b"upgrade":
            raise InvalidMessage(f"the field {name!r} of a handshake is the server's; a subprotocol has its own key")
    if length is not None:  # middleware may have put one there
        block, _, _ = encode_fields(without_length(headers))
    own = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n" % accept_key(key)
    subprotocol = message.get("subprotocol")
    if subprotocol:
        # Whether it was offered is the client's to check; some do not, and must not be turned away.
        name = subprotocol.encode("utf-8", "replace") if isinstance(subprotocol, str) else b""
        if TOKEN.fullmatch(name) is None:
            raise InvalidMessage(f"subprotocol {subprotocol!r} is not a token (RFC 6455 4.1)")
        own += b"Sec-WebSocket-Protocol: %b\r\n" % name
    if extensions:
        own += b"Sec-WebSocket-Extensions: %b\r\n" % extensions
    return b"%b%b%b%b\r\n" % (status_line(101), _server_fields(fields, seen), own, block), headers


def accept_key(key: bytes) -> bytes:
    """The proof that the handshake was understood (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


class Denial:
    """
    An HTTP response instead of a WebSocket (ASGI extension ``websocket.http.response``).

    The head is held back until the first part of the body. Without a Content-Length the
    body is ended by closing: WebSocket clients need not know chunked framing, and the
    connection is closed anyway. The constructor raises :class:`~.errors.InvalidMessage`.
    """

    __slots__ = ("bodiless", "head", "headers", "remaining", "sent", "status")

    def __init__(self, message: Message, fields: bytes) -> None:
        self.status = status = final_status(message.get("status"))
        self.sent = 0  #: bytes of the body so far
        self.headers = field_list(message)
        self.bodiless = bodiless("GET", status)
        kept = self.headers if status != 204 else without_length(self.headers)
        block, self.remaining, seen = encode_fields(kept)
        fields = _server_fields(fields, seen)
        self.head = b"%b%bConnection: close\r\n%b" % (status_line(status), fields, block)

    def body(self, body: object, more: bool) -> bytes:
        """
        The bytes of one part.

        Raises :class:`~.errors.ResponseError` where another length was announced, and :class:`~.errors.InvalidMessage`.
        """
        body = as_bytes(body)
        if self.bodiless:
            body = b""
        elif self.remaining is not None:
            if len(body) > self.remaining or (len(body) < self.remaining and not more):
                raise ResponseError(f"the body has {len(body)} bytes where Content-Length leaves {self.remaining}")
            self.remaining -= len(body)
        elif self.head and not more:
            self.head += b"Content-Length: %d\r\n" % len(body)
        self.sent += len(body)
        if self.head:
            body, self.head = b"%b\r\n%b" % (self.head, body), b""
        return body


def _server_fields(fields: bytes, seen: int) -> bytes:
    """The application's own Server and Date win, and there are never two."""
    return server_fields(fields, seen) if seen & (DATE | SERVER) else fields
