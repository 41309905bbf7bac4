"""
What PEP 3333 says of values: status, response fields, and what an application returns.

No loop, no thread, no state but caches. These run in the thread that calls the application, so a mistake is raised
where it was made. Invariant: an error names a field and never its value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from ..asgi import Headers
from ..cache import remember
from ..errors import WSGIError

START_RESPONSE = 'PEP 3333, "The start_response() Callable"'

#: Three digits, then perhaps a space and a reason phrase (RFC 9112 4).
_STATUS = re.compile(r"([0-9]{3})(?: ([ \t\x21-\x7e\x80-\xff]*))?")

#: RFC 9110 5.6.2 and 5.5.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

#: The server writes these fields itself (PEP 3333, "Other HTTP Features"). An application's are dropped, as by
#: gunicorn. Connection is not among them, because its "close" is obeyed.
_HOP_BY_HOP = frozenset(
    "keep-alive proxy-authenticate proxy-authorization te trailers transfer-encoding upgrade server date".split()
)

_LENGTH = b"Content-Length"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

#: A field as a message has it, and the number that a Content-Length is.
_Encoded = tuple[tuple[bytes, bytes], int | None]

#: Bytes of the longest field that is remembered.
_FIELD_MAX = 128

# What applications give again and again.
statuses: dict[str, tuple[int, bytes | None]] = {}
_fields: dict[tuple[str, str], _Encoded] = {}
_names: dict[str, bytes] = {}  # b"" for a field that is dropped


def encode_status(status: Any) -> tuple[int, bytes | None]:
    """
    The code of a status, and its reason phrase unless that is the registered one. Raises WSGIError.

    It is in :data:`statuses` from then on.
    """
    match = _STATUS.fullmatch(status) if isinstance(status, str) else None
    if match is None:
        raise WSGIError(f"{status!r} is not a status like '200 OK' ({START_RESPONSE})")
    code, reason = int(match[1]), match[2] or ""
    if code < 200:
        # Interim responses and 101 are the server's (PEP 3333, "Other HTTP Features"). For early hints there is a
        # callable.
        raise WSGIError(f"{status!r} is not the status of a final response, 200 or more (RFC 9110 15.2)")
    return remember(statuses, status, (code, None if reason == _PHRASES.get(code) else reason.encode("latin-1")))


def encode_fields(headers: Iterable[tuple[str, str]]) -> tuple[Headers, int | None]:
    """
    The fields of a response for an ASGI message, and the Content-Length among them.

    Those that the server writes itself are left out. Raises :class:`~.errors.WSGIError`.
    """
    fields = []
    length = None
    known = _fields.get
    for pair in headers:
        try:
            entry = known(pair)
        except TypeError:  # a list, say
            entry = None
        if entry is None:
            entry = _encode_field(*pair)
            if entry is None:
                continue
        field, size = entry
        if size is not None:
            if length is not None:  # a repeat is dropped if it agrees
                if length != size:
                    raise WSGIError(f"two {pair[0]} fields disagree (RFC 9110 8.6)")
                continue
            length = size
        fields.append(field)
    return fields, length


def length_field(length: int) -> tuple[bytes, bytes]:
    """The Content-Length of a body that the application did not measure."""
    return _LENGTH, b"%d" % length


def iterate(iterable: Any) -> Iterator[Any]:
    """``iter(iterable)`` of what an application returned. Raises :class:`~.errors.WSGIError`."""
    try:
        return iter(iterable)
    except TypeError as exc:
        raise WSGIError(
            f"the application returned {type(iterable).__name__}, not an iterable of bytes"
            ' (PEP 3333, "The Application/Framework Side")'
        ) from exc


def _encode_field(name: str, value: str) -> _Encoded | None:
    """One field, checked, and the number if it is a Content-Length; None where the server writes it itself."""
    encoded = _names.get(name)
    if encoded is None:
        encoded = _encode_name(name)
    if not encoded:
        return None
    try:
        # Nearly every value is printable, and asking for that is faster than matching.
        if not value.isprintable() and _VALUE.fullmatch(value) is None:
            raise WSGIError(f"the value of {name} has control characters ({START_RESPONSE})")
        field = value.encode("latin-1")
    except UnicodeEncodeError:
        raise WSGIError(f"the value of {name} has characters beyond latin-1 ({START_RESPONSE})") from None
    except AttributeError:
        raise WSGIError(f"the value of {name} is no str ({START_RESPONSE})") from None
    size = None
    if encoded is _LENGTH:
        field = field.strip(b" \t")
        if not field.isdigit():
            raise WSGIError(f"the value of {name} is not a number ({START_RESPONSE})")
        size = int(field)
    entry = (encoded, field), size
    return entry if len(encoded) + len(field) > _FIELD_MAX else remember(_fields, (name, value), entry)


def _encode_name(name: str) -> bytes:
    if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
        raise WSGIError(f"{name!r} is not a header name ({START_RESPONSE})")
    lower = name.lower()
    encoded = b"" if lower in _HOP_BY_HOP else _LENGTH if lower == "content-length" else name.encode("ascii")
    return remember(_names, name, encoded)
