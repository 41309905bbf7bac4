"""
The head of a response as HPACK: what :mod:`..connection.response` is for the lines of HTTP/1.1.

Fields are checked there. Here they are written, in lower case and without what belongs to a
connection (RFC 9113 8.2). Pure: no transport, no loop, no state but caches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..asgi import Headers
from ..cache import remember
from ..connection.response import DATE, SERVER, EncodedFields, FieldEncoder, server_fields
from .hpack import encode_field

#: Fields that are not sent, beside those that :class:`FieldEncoder` leaves out (RFC 9113 8.2.2).
_OF_THE_CONNECTION = frozenset({b"upgrade", b"proxy-connection"})

statuses: dict[int, bytes] = {}  #: what :func:`status_field` has made
defaults: dict[bytes, bytes] = {}  #: what :func:`default_block` has made: one


def _field(name: bytes, value: bytes) -> bytes:
    """A field as HPACK; nothing where it belongs to a connection. The value has no space around it (8.2.1)."""
    name = name.lower()
    return b"" if name in _OF_THE_CONNECTION else encode_field(name, value.strip(b" \t"))


#: The fields of HTTP/2.
FIELDS = FieldEncoder(_field)
encode_fields: Callable[[Iterable[tuple[bytes, bytes]]], EncodedFields] = FIELDS.encode


def status_field(status: int) -> bytes:
    """``:status`` (RFC 9113 8.3.2)."""
    known = statuses.get(status)
    return remember(statuses, status, encode_field(b":status", b"%d" % status)) if known is None else known


def default_block(fields: bytes, seen: int = 0) -> bytes:
    """The Server and Date lines ``fields`` as HPACK, without those that the application gave itself."""
    if seen & (DATE | SERVER):
        fields = server_fields(fields, seen)
    block = defaults.get(fields)
    if block is None:
        lines = (line.partition(b": ") for line in fields.split(b"\r\n") if line)
        defaults.clear()  # they change once a second
        block = defaults[fields] = b"".join(_field(name, value) for name, _, value in lines)
    return block


def head_block(status: int, fields: bytes, headers: Headers) -> bytes:
    """The head of a response of the server's own; ``fields`` are the Server and Date lines."""
    return status_field(status) + default_block(fields) + encode_fields(headers)[0]


def error_block(status: int, fields: bytes, size: int, headers: Headers) -> bytes:
    """The head of an error page of ``size`` bytes, with ``headers``."""
    content = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % size)]
    return head_block(status, fields, content + headers)
