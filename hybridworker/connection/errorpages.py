"""
Error pages: the answers that this worker makes itself, 400 to 504, and what stands in them.

Pure. Which status it is, :mod:`.refusal`, :mod:`.admission` and the cycles decide.
"""

from __future__ import annotations

from .response import phrase, status_line


def error_page(status: int) -> bytes:
    """The small HTML body of an answer that the server makes itself."""
    name = phrase(status)
    return (
        f"<!doctype html>\n<html><head><title>{status} {name}</title></head><body><h1>{name}</h1></body></html>\n"
    ).encode("ascii")


def error_response(status: int, fields: bytes, extra: bytes = b"", body: bool = True) -> bytes:
    """
    A whole answer of the server's own that ends the connection.

    ``fields`` are the :func:`~.response.default_fields`, ``extra`` further lines with their
    CRLFs; ``body=False`` leaves the body out, as the answer to HEAD needs it.
    """
    page = error_page(status)
    return b"%bContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n%bConnection: close\r\n%b\r\n%b" % (
        status_line(status),
        len(page),
        fields,
        extra,
        page if body else b"",
    )


#: What the refusal of a WebSocket must say beside its status. A 426 names the version that is spoken (RFC 6455 4.4,
#: RFC 9110 15.5.22).
REFUSAL_FIELDS = {
    405: b"Allow: GET\r\n",
    426: b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
}
