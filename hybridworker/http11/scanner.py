"""
HeadScanner and ChunkScanner: where heads and chunked bodies of requests end, and their limits.

httptools calls back only for complete fields and buffers an endless one silently, so
gunicorn's limits must be kept on the bytes themselves, before the parser sees them. The
scanners find the lines, count them, and hand on whole lines only. The parser alone judges
what is in them. The scanners also find the end of each message, so that the bytes of the
next one are never parsed early. Pure: no transport, no loop.

Invariant: the outcome depends on the bytes alone, never on how they were cut into segments.
That is why an unfinished line is never handed on.

A head that comes in one piece and is shorter than the smallest limit needs no scanner;
:mod:`.http11.protocol` makes one for the others. :func:`misdirected` says of bytes that are no
request what they are, where they are what a wrong configuration sends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httptools

from ..config.settings import Settings
from ..errors import ProtocolError

#: Fields that must not come as trailers (RFC 9110 6.5.1; the list is gunicorn's).
FORBIDDEN_TRAILERS = frozenset({b"host", b"content-length", b"transfer-encoding", b"trailer", b"authorization", b"te"})


#: ``chunk-ext`` (RFC 9112 7.1.1), without the optional whitespace that the parser refuses.
_EXTENSIONS = re.compile(
    rb"(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb'|"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?)*'
)


#: How a PROXY header begins: a line of version 1, the signature of version 2 (:mod:`.proxyheader` reads what follows).
PROXY_V1, PROXY_V2 = (b"PROXY TCP", b"PROXY UNKNOWN"), b"\r\n\r\n\0\r\nQUIT\n"

#: The preface of HTTP/2 (RFC 9113 3.4) looks like two heads: the parser takes the first, and stops at the second.
HTTP2_PREFACE = (b"PRI * HTTP/2.0\r\n", b"SM\r\n")

#: What a token consists of (RFC 9110 5.6.2), and a method that is permitted by default.
TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
METHOD_BYTES = TOKEN_BYTES - frozenset(b"#abcdefghijklmnopqrstuvwxyz")

EMPTY_LINES = "empty lines before the request line"
TLS_HANDSHAKE = 0x16  #: ContentType of a TLS record (RFC 8446 5.1); no other protocol begins with this byte


def misdirected(data: bytes | bytearray, settings: Settings) -> str:
    """What ``data``, which is no request, is instead, and so what is set wrongly; empty where it does not tell."""
    proxy = "v1" if data.startswith(PROXY_V1) else "v2" if data.startswith(PROXY_V2) else ""
    if proxy and settings.proxy_protocol in (proxy, "auto"):
        return "a PROXY header that is not the first thing on its connection"
    if proxy:
        return f"a PROXY header, and proxy_protocol is {settings.proxy_protocol}"
    if data.startswith(HTTP2_PREFACE):
        return "HTTP/2 is not served (let the proxy speak HTTP/1.1)"
    if data[:1] == bytes([TLS_HANDSHAKE]) and not settings.is_ssl:
        return "a TLS handshake on a port without certfile"
    if data[:1] == b"\0":  # the kind of a uwsgi packet that is a request
        return "a packet of uwsgi, it seems, and protocol is http"
    return ""


def body_parser(
    on_body: Callable[[bytes], None], on_message_complete: Callable[[], None], measured: bool, length: int
) -> Any:
    """A parser that stands amid a message, before its body: of ``length`` bytes, or chunked unless ``measured``."""
    parser = httptools.HttpRequestParser(SimpleNamespace(on_body=on_body, on_message_complete=on_message_complete))
    framing = b"Content-Length: %d" % length if measured else b"Transfer-Encoding: chunked"
    parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)  # a head that nobody listens to
    return parser


class LineScanner:
    """
    Lines out of segments. ``data`` holds all bytes so far, ``line`` is where the unfinished line begins.

    :meth:`feed` returns the complete lines that came with a segment and are within the
    limits; the violation of a limit is kept in ``error`` and is to be raised after those
    lines were parsed, because a fault in an earlier line comes first.
    """

    __slots__ = ("data", "error", "line", "lines", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = bytearray()
        self.line = 0
        self.lines = 0  #: complete lines, of which one that is folded counts as one
        self.error: ProtocolError | None = None

    @property
    def folds(self) -> bool:
        """Whether the line at hand continues the field before it."""
        return False

    def _field(self, size: int) -> None:
        """Check the size of one field line, with its CRLF, and how many there are by now."""
        if size > self.settings.limit_request_field_size:
            self.error = ProtocolError("a field line exceeds limit_request_field_size", 431)
        elif self.lines - self.folds > self.settings.limit_request_fields:
            self.error = ProtocolError("there are more fields than limit_request_fields", 431)
        elif self.line + size > self.settings.max_head_size:
            self.error = ProtocolError("the field section exceeds its limit", 431)


class HeadScanner(LineScanner):
    """The head of one request. ``complete`` once its empty line has come."""

    __slots__ = ("complete", "skipped")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.complete = False
        self.skipped = False  #: one empty line before the request line was dropped

    @property
    def blank(self) -> bool:
        """Whether nothing has come but the one empty line that is ignored, or the beginning of it."""
        return not self.lines and bytes(self.data) == (b"" if self.skipped else b"\r")

    @property
    def folds(self) -> bool:
        """As gunicorn, this counts fields, not the lines of one that is folded: a certificate has a hundred."""
        return self.settings.permit_obsolete_folding and self.lines > 1 and self.data[self.line] in b" \t"

    def feed(self, segment: bytes) -> tuple[bytes, bytes]:
        """Take ``segment``; returns its complete lines, with what was held back, and the bytes behind the head."""
        data = self.data
        before = self.line
        searched = len(data)
        data += segment
        while True:
            if self.skipped and not self.lines and data.startswith(b"\r\n"):
                self._second_empty_line()
                return b"", b""
            end = data.find(b"\n", max(self.line, searched))
            if end < 0:
                self._check_unfinished()
                return bytes(data[before : self.line]), b""
            size = end + 1 - self.line
            if self.lines == 0 and size <= 2:
                self._empty_line()
                if self.error is not None:
                    return b"", b""
                searched = 0
                continue
            self._check(size, finished=True)
            if self.error is not None:
                return bytes(data[before : self.line]), b""
            folds, self.line = self.folds, end + 1
            if size == 2 and data[end - 1] == 13:
                rest = bytes(data[self.line :])
                del data[self.line :]
                self.complete = True
                return bytes(data[before:]), rest
            self.lines += not folds

    def _empty_line(self) -> None:
        """RFC 9112 2.2: one empty line before the request line is ignored, and not counted. A second is an error."""
        if self.skipped or self.data[0] != 13:
            self.error = ProtocolError(EMPTY_LINES)
        self.skipped = True
        del self.data[: self.data.find(b"\n") + 1]

    def _second_empty_line(self) -> None:
        """It is refused as soon as it is clear whether a PROXY header begins with it, which the reason then says."""
        begun = b"\r\n" + self.data
        if begun == PROXY_V2 or not PROXY_V2.startswith(begun):
            self.error = ProtocolError(misdirected(begun, self.settings) or EMPTY_LINES)

    def _may_begin(self, byte: int) -> bool:
        """Whether a method may begin with it."""
        if self.settings.permit_unconventional_http_method:
            return byte in TOKEN_BYTES
        return byte in METHOD_BYTES

    def _check_unfinished(self) -> None:
        size = len(self.data) - self.line
        if size:
            self._check(size, finished=False)

    def _check(self, size: int, finished: bool) -> None:
        if self.lines:
            if size > 2 or self.data[self.line] != 13:  # the empty line, or its beginning, is no field
                self._field(size)
            return
        if not self._may_begin(self.data[0]) and (finished or self.data[0] != 13):
            # No method begins like this. Most often a TLS handshake on a plain port: it might never send a line end.
            reason = misdirected(self.data[:1], self.settings)  # all other bytes may still be on their way
            self.error = ProtocolError(reason or "the request line does not begin with a method")
            return
        # gunicorn counts the request line without its CRLF.
        ending = 2 if finished else self.data[-1] == 13
        if size - ending > self.settings.limit_request_line:
            self.error = ProtocolError("the request line exceeds limit_request_line", 414)


class ChunkScanner(LineScanner):
    """
    A chunked body: its size lines, and its trailers, which are limited as the fields of a head.

    ``data`` holds the unfinished line alone. ``complete`` once the body has ended.
    """

    __slots__ = ("complete", "remaining", "trailers")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.complete = False
        self.remaining = 0  #: bytes of the current chunk and of its CRLF that have not come
        self.trailers = False  #: the last chunk has come

    def feed(self, segment: bytes) -> tuple[bytes, bytes]:
        """Take ``segment``; returns what the parser may have of it now, and the bytes behind the body."""
        held = len(self.data)
        data = bytes(self.data) + segment if held else segment
        at = 0
        while at < len(data):
            if self.remaining:
                step = min(self.remaining, len(data) - at)
                self.remaining -= step
                at += step
                continue
            end = data.find(b"\n", max(at, held))
            line = data[at : end + 1] if end >= 0 else data[at:]
            self._check(line, finished=end >= 0)
            if self.error is not None or end < 0:
                self.data = bytearray() if self.error is not None else bytearray(line)
                return data[:at], b""
            at = end + 1
            if self.complete:
                break
        self.data.clear()
        return data[:at], data[at:]

    def _check(self, line: bytes, finished: bool) -> None:
        if not self.trailers:
            if len(line) > self.settings.limit_request_field_size:
                self.error = ProtocolError("a chunk size line exceeds limit_request_field_size", 400)
            elif finished:
                self._chunk(line)
            return
        if line == b"\r\n":
            self.complete = True
            return
        if finished:
            self.lines += 1
        self._field(len(line))
        if finished and self.error is None:
            self.line += len(line)
            if line.partition(b":")[0].lower() in FORBIDDEN_TRAILERS:
                self.error = ProtocolError("a trailer that may only be a header (RFC 9110 6.5.1)")

    def _chunk(self, line: bytes) -> None:
        size, extended, extensions = line.rstrip().partition(b";")
        if extended and _EXTENSIONS.fullmatch(extended + extensions) is None:
            self.error = ProtocolError("malformed chunk extension (RFC 9112 7.1.1)")
            return
        try:
            self.remaining = int(size, 16)
        except ValueError:
            # The parser gets the line all the same, and refuses it.
            self.remaining = 0
            return
        if self.remaining:
            self.remaining = max(0, self.remaining) + 2
        else:
            self.trailers = True
