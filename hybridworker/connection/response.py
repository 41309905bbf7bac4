"""
The bytes of a response head: status lines and fields, checked.

Plain values in and out; no transport, no loop, no state but the caches of fields. Fields are
checked in one way for every version of HTTP and written by each in its own: a
:class:`FieldEncoder` joins the two. :mod:`..http11.cycle` and :mod:`..http2.cycle` decide when
these bytes are written. Invariant: every name and value is validated here, because no other
module does it.
"""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Iterable
from email.utils import formatdate

from ..asgi import Headers, Message
from ..cache import remember
from ..errors import InvalidMessage, ResponseError

#: RFC 9110 5.6.2.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

#: Control characters that no field value may carry (RFC 9110 5.5). CR and LF are
#: not among them: they are counted, because the line ends around values are legal.
CONTROLS = bytes([*range(9), 11, 12, *range(14, 32), 127])

#: The status that the access log shows for a client that left before there was a response. No client ever sees it.
CLIENT_LEFT = 499

#: Chunked framing of the end of a body without trailers (RFC 9112 7.1).
LAST_CHUNK = b"0\r\n\r\n"


# What a response field means for the server, as bits; those of one response are joined. Plain ints: an enum.IntFlag
# costs a call of Python code for each operation. Zero is a field that means nothing to the server.
LENGTH = 1
TRANSFER = 2
CONNECTION = 4
DATE = 8
SERVER = 16
CLOSE = 32

#: Fields that the server writes where the application gives none.
SERVER_OWN = DATE | SERVER

_MEANINGS = {
    b"content-length": LENGTH,
    b"transfer-encoding": TRANSFER,
    b"connection": CONNECTION,
    b"keep-alive": TRANSFER,
    b"date": DATE,
    b"server": SERVER,
}

#: A field as bytes, what it means to the server (a flag such as DATE or SERVER), and the number that a length is.
Encoded = tuple[bytes, int, int | None]

_NO_PAIRS = "headers must be an iterable of (name, value) pairs of bytes"

#: All fields of a response as bytes, the length that the application announced, and what they mean, joined.
EncodedFields = tuple[bytes, int | None, int]

#: Bytes of the longest encoded field that a cache keeps, and of all fields of a response together.
FIELD_MAX, FIELDS_MAX = 128, 512


def final_status(status: object) -> int:
    """The ``status`` of a start message, which may be an enum's. Raises :class:`~.errors.InvalidMessage`."""
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 999:
        raise InvalidMessage(f"status must be an int from 200 to 999, not {status!r}")
    return int(status)


def wrong_length(size: int, remaining: int) -> ResponseError:
    """The error of a part of a body with ``size`` bytes, where ``remaining`` are those that Content-Length leaves."""
    relation = "more" if size > remaining else "fewer"
    return ResponseError(f"the body has {relation} bytes than its Content-Length: {size} where {remaining} remain")


def status_line(status: int, reason: bytes | None = None) -> bytes:
    """
    The status line with its CRLF.

    Always HTTP/1.1, whatever the request said: the version is the server's own
    (RFC 9110 2.5). ``reason`` is a phrase of the application's (PEP 3333).
    """
    if reason is None:
        line = _STATUS_LINES.get(status)
        return line if line is not None else b"HTTP/1.1 %d \r\n" % status
    if reason.translate(None, CONTROLS + b"\r\n") != reason:
        raise InvalidMessage(f"the reason phrase {reason!r} holds control characters")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def default_fields(server: bytes, timestamp: float) -> bytes:
    """The Server and Date lines, made once a second (RFC 9110 6.6.1 and 10.2.4)."""
    return b"Server: %b\r\nDate: %b\r\n" % (server, formatdate(timestamp, usegmt=True).encode("ascii"))


def server_fields(fields: bytes, seen: int) -> bytes:
    """The :func:`default_fields` without those that the application gave itself."""
    server, date, _ = fields.split(b"\r\n")
    kept = [line for line, flag in ((server, SERVER), (date, DATE)) if not seen & flag]
    return b"".join(b"%b\r\n" % line for line in kept)


class FieldEncoder:
    """
    The fields of responses, validated, as one version of HTTP writes them.

    ``write`` makes the bytes of one field of a name and a value that are valid. ``known`` is a cache, because most
    responses repeat fields of earlier ones. Key: name and value as the application gave them. ``repeated`` is the same
    for all fields of a response together. If one of them is new, they are not kept, as they may never come again.
    """

    __slots__ = ("known", "repeated", "write")

    def __init__(self, write: Callable[[bytes, bytes], bytes]) -> None:
        self.write = write
        self.known: dict[tuple[bytes, bytes], Encoded] = {}
        self.repeated: dict[tuple[tuple[bytes, bytes], ...], EncodedFields] = {}

    def encode(self, headers: Iterable[tuple[bytes, bytes]]) -> EncodedFields:
        """
        Validate and encode the application's header fields.

        Returns ``(block, content_length, seen)``: the fields as bytes, without
        Transfer-Encoding and Connection, which the server writes itself; the length that
        the application announced; and the meanings that were seen, joined.
        Order and repeats are kept (checklist H36). Raises :class:`~.errors.InvalidMessage`.
        """
        try:
            fields = tuple(headers)
        except TypeError as exc:
            raise InvalidMessage(_NO_PAIRS) from exc
        try:
            repeated = self.repeated.get(fields)
        except TypeError:  # a field is a list, say
            repeated = None
        return self._encode_all(fields) if repeated is None else repeated

    def _encode_all(self, fields: tuple[tuple[bytes, bytes], ...]) -> EncodedFields:
        """As :meth:`encode`, for what is not ``repeated``; it is from now on, if each field was known."""
        parts = []
        length: int | None = None
        seen = 0
        fresh = False
        try:
            for field in fields:
                try:
                    entry = self.known.get(field)
                except TypeError:
                    entry = None
                if entry is None:
                    entry = self._encode(field)
                    fresh = True
                data, meaning, size = entry
                if meaning:
                    seen |= meaning
                    if size is not None:
                        if length is not None:  # RFC 9110 8.6: a repeat is dropped if it agrees
                            if length != size:
                                raise InvalidMessage("two Content-Length fields disagree")
                            continue
                        length = size
                parts.append(data)
        except TypeError as exc:  # name or value is a bytearray, say
            raise InvalidMessage(_NO_PAIRS) from exc
        encoded = b"".join(parts), length, seen
        return encoded if fresh or len(encoded[0]) > FIELDS_MAX else remember(self.repeated, fields, encoded)

    def _encode(self, field: Iterable[bytes]) -> Encoded:
        """One field, checked; no bytes where the server writes it itself."""
        name, value, meaning = check_field(field)
        data = b"" if meaning & (CONNECTION | TRANSFER) else self.write(name, value)
        entry = data, meaning, int(value) if meaning == LENGTH else None
        return entry if len(data) > FIELD_MAX else remember(self.known, (name, value), entry)


def line(name: bytes, value: bytes) -> bytes:
    """A field in HTTP/1.1."""
    return b"%b: %b\r\n" % (name, value)


#: The fields of HTTP/1.1.
LINES = FieldEncoder(line)
encode_fields = LINES.encode


def field_list(message: Message) -> Headers:
    """The ``headers`` of a message, which may be any iterable, as a list. Raises :class:`~.errors.InvalidMessage`."""
    try:
        return [(name, value) for name, value in message.get("headers") or ()]
    except (TypeError, ValueError) as exc:
        raise InvalidMessage(_NO_PAIRS) from exc


def without_length(headers: Headers) -> Headers:
    """The fields without Content-Length, which a 1xx or a 204 must not have (RFC 9110 8.6)."""
    return [field for field in headers if field[0].lower() != b"content-length"]


def check_field(field: Iterable[bytes]) -> tuple[bytes, bytes, int]:
    """The name and the value of a field, and what it means. Raises :class:`~.errors.InvalidMessage`."""
    try:
        name, value = field
        data = b"%b%b" % (name, value)
    except (TypeError, ValueError) as exc:
        raise InvalidMessage(_NO_PAIRS) from exc
    if type(name) is not bytes or TOKEN.fullmatch(name) is None:
        raise InvalidMessage(f"{name!r} is not a header name (bytes, RFC 9110 5.6.2 token)")
    if len(data.translate(None, CONTROLS + b"\r\n")) != len(data):
        raise InvalidMessage(f"the value of {name!r} holds CR, LF, NUL or another control character")
    meaning = _MEANINGS.get(name.lower(), 0)
    if meaning == LENGTH and not value.isdigit():
        raise InvalidMessage(f"Content-Length {value!r} is not a number")
    if meaning == CONNECTION and b"close" in value.lower():  # obeyed, then written by the server
        meaning |= CLOSE
    return name, value, meaning


def encode_trailers(
    headers: Iterable[tuple[bytes, bytes]],
    encode: Callable[[Iterable[tuple[bytes, bytes]]], EncodedFields] = encode_fields,
) -> bytes:
    """The trailers of a response (RFC 9110 6.5), in HTTP/1.1 its lines. Framing fields are refused there."""
    block, _, seen = encode(headers)
    if seen & (LENGTH | TRANSFER):
        raise InvalidMessage("framing fields cannot be trailers (RFC 9110 6.5.1)")
    return block


def interim(kind: str, message: Message) -> tuple[int, Headers]:
    """
    The status and the fields of an interim response: a hint, or gunicorn's own informational message (RFC 8297).

    Raises :class:`~.errors.InvalidMessage`.
    """
    if kind == "http.response.early_hint":
        return 103, [(b"link", link) for link in message.get("links", ())]
    status, headers = message.get("status", 103), without_length(field_list(message))
    if not isinstance(status, int) or not 100 <= status < 200 or status == 101:
        raise InvalidMessage(f"an informational status is 100 or from 102 to 199, not {status!r}")
    return status, headers


def as_bytes(body: object) -> bytes:
    """Accept any bytes-like body (checklist H50). Raises :class:`~.errors.InvalidMessage`."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise InvalidMessage(f"body must be bytes, not {type(body).__name__}")


def bodiless(method: str, status: int) -> bool:
    """Whether the answer carries no content whatever its fields say (RFC 9110 6.4.1)."""
    return method == "HEAD" or status == 204 or status == 304


def phrase(status: int) -> str:
    """The registered reason phrase; empty where there is none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:  # a status that has no registered phrase
        return ""


_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("ascii") for s in http.HTTPStatus}

#: The status lines of responses, by status, where that has a registered phrase.
FINAL_LINES = {status: line for status, line in _STATUS_LINES.items() if status >= 200}
