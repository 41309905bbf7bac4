"""
Heads that llhttp refuses and settings permit, rewritten so that it takes them.

llhttp, the parser, knows a fixed list of methods and is stricter than some settings of gunicorn allow. For an unknown
method the parser is given POST in its place, and :class:`PosingParser` returns the true method. Where a setting permits
a malformed head (folded lines, spaces before a colon, an odd version), :func:`rewrite` turns it into a correct one,
after the whole head has come. Everything else is left for the parser to judge. Pure.

Invariant: no line end is made or removed but that of a folded line, so the message ends where the scanner saw its end.
"""

from __future__ import annotations

import re
from typing import Any

import httptools

from ..config.settings import Settings
from ..connection.method import is_permitted, seen_as
from ..errors import ProtocolError
from .scanner import misdirected

#: The method that the parser sees. One that says nothing of the framing (RFC 9112 6).
POSED = b"POST"

_VERSION = re.compile(rb" HTTP/([0-9])\.([0-9])\Z")


#: What llhttp says of a method of RTSP with a version of HTTP. It has seen no more than the request line then.
_RTSP_ONLY = "Invalid method for HTTP/x.x request"


class PosingParser:
    """
    An httptools parser that was given POST in place of a method it does not know; ``get_method()`` returns the true
    one.
    """

    __slots__ = ("_method", "feed_data", "should_keep_alive", "should_upgrade")

    def __init__(self, parser: Any, method: bytes) -> None:
        self._method = method
        self.feed_data = parser.feed_data
        self.should_keep_alive = parser.should_keep_alive
        self.should_upgrade = parser.should_upgrade

    def get_method(self) -> bytes:
        """The true method."""
        return self._method


def unknown_method(error: httptools.HttpParserError) -> bool:
    """Whether the parser has stopped at a method that it does not know, or knows of RTSP alone."""
    return isinstance(error, httptools.HttpParserInvalidMethodError) or str(error) == _RTSP_ONLY


def true_method(lines: bytes, settings: Settings) -> tuple[bytes, bytes]:
    """
    The method as it came, and as the application is to see it.

    ``lines`` begin with the request line. Raises :class:`~.errors.ProtocolError` for what is no method.
    """
    method, space, _ = lines.partition(b" ")
    if not space:
        method = b""  # behind the one that is shown instead there is a space as well
    if not is_permitted(method, settings) and (reason := misdirected(lines, settings)):
        raise ProtocolError(reason)
    return method, seen_as(method, settings)


def pose(target: Any, lines: bytes, settings: Settings) -> tuple[PosingParser, bytes]:
    """A parser for ``lines``, whose method llhttp does not know, with the callbacks of ``target``; and what it gets."""
    came, method = true_method(lines, settings)
    return PosingParser(httptools.HttpRequestParser(target), method), POSED + lines[len(came) :]


def rewrite(head: bytes, settings: Settings) -> tuple[bytes, str]:
    """
    ``head`` as the parser takes it, where settings permit that, and the version that it really has.

    Of a version only whether it is before HTTP/1.1 matters to framing. Raises :class:`~.errors.ProtocolError`
    for a field that is too long when it is unfolded, and for a Content-Length that is folded.
    """
    request, *lines = head.split(b"\r\n")
    version = ""
    if settings.permit_unconventional_http_version and (match := _VERSION.search(request)) is not None:
        version = f"{int(match[1])}.{int(match[2])}"
        request = request[: match.start()] + (b" HTTP/1.1" if match.groups() >= (b"1", b"1") else b" HTTP/1.0")
    fields: list[list[bytes]] = []  #: the lines of each
    size = 0  #: of the last one, as it came
    for line in lines:
        if settings.permit_obsolete_folding and fields and line[:1] in (b" ", b"\t"):
            first = fields[-1][0].rstrip(b" \t")
            if first.partition(b":")[0].lower() == b"content-length":  # others on the way may take the first line alone
                raise ProtocolError("folded Content-Length (RFC 9112 5.2)")
            size += len(line) + 2
            if size > settings.limit_request_field_size:
                raise ProtocolError("a field line exceeds limit_request_field_size", 431)
            fields[-1][0] = first
            fields[-1].append(line.strip(b" \t"))
            continue
        size = len(line) + 2
        if settings.strip_header_spaces:
            name, colon, value = line.partition(b":")
            line = name.rstrip(b" \t") + colon + value if colon else line
        fields.append([line])
    return b"\r\n".join([request, *map(b" ".join, fields)]), version
