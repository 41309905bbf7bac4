"""
What PEP 3333 says of values: status, response fields, the two streams, file wrapper.

The leaves of :mod:`.wsgi.middleware`: no loop, no thread, no state but two bounded caches. Runs in
the thread that calls the application, so that a mistake is raised where it was made. The
rule one could break by accident: an error names a field and never its value, which may
be a secret.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Protocol

from ..asgi import Headers, Message
from ..errors import ClientDisconnected, WSGIError

START_RESPONSE = 'PEP 3333, "The start_response() Callable"'

#: Bytes that a file, or a request body, is read by.
BLOCK = 65536

#: Three digits, then perhaps a space and a reason phrase (RFC 9112 4).
_STATUS = re.compile(r"([0-9]{3})(?: ([ \t\x21-\x7e\x80-\xff]*))?")

#: RFC 9110 5.6.2 and 5.5.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")

#: Not the application's business (PEP 3333, "Other HTTP Features"): dropped, as gunicorn does, and Date and Server
#: with them. Connection is not among them, because its "close" is obeyed; the server writes the field itself.
_HOP_BY_HOP = frozenset(
    "keep-alive proxy-authenticate proxy-authorization te trailers transfer-encoding upgrade server date".split()
)

_LENGTH = b"Content-Length"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

# What applications say again and again. Bounded, because they may also invent it at run time.
_CACHE_MAX = 1024
_statuses: dict[str, tuple[int, bytes | None]] = {}
_names: dict[str, bytes] = {}  # b"" for a field that is dropped


class ErrorStream(Protocol):
    """What ``wsgi.errors`` must offer (PEP 3333, "Input and Error Streams")."""

    def write(self, text: str, /) -> Any: ...
    def writelines(self, lines: Any, /) -> Any: ...
    def flush(self) -> Any: ...


class ErrorLog(io.TextIOBase):
    """
    ``wsgi.errors``: a stream into the handlers of a logger, wherever they write to at the moment.

    Where gunicorn's WSGIErrorsWrapper writes, so that with ``to_stderr`` the first handler
    stands for ``sys.stderr``. That one keeps the streams, which USR1 closes when it reopens
    the logs, even amid a call; here they are looked up for each write. All calls share one
    stream, so ``close()`` does nothing: PEP 3333 knows no such method, and the log stays.
    """

    def __init__(self, logger: logging.Logger, *, to_stderr: bool) -> None:
        self.logger = logger
        self.to_stderr = to_stderr

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f'wsgi.errors takes str, not {type(text).__name__} (PEP 3333, "Input and Error Streams")')
        handlers = self.logger.handlers
        if self.to_stderr:
            handlers = handlers[1:]
            _write(sys.stderr, text)
        for handler in handlers:
            if hasattr(handler, "stream"):
                handler.acquire()  # while a log is being reopened its stream is closed
                try:
                    if handler.stream is None and isinstance(handler, logging.FileHandler):
                        handler.stream = handler._open()  # with delay=True, as its first record would
                    _write(handler.stream, text)
                finally:
                    handler.release()
        return len(text)

    def close(self) -> None:
        pass


class FileWrapper:
    """``wsgi.file_wrapper``: a file as an iterable (PEP 3333, "Optional Platform-Specific File Handling")."""

    def __init__(self, filelike: Any, blksize: int = BLOCK) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration


class RequestBody(io.RawIOBase):
    """
    A request body that is still coming; an :class:`io.BufferedReader` makes ``wsgi.input`` of it.

    ``receive`` waits for the next ASGI message of the request; ``first`` is one that has
    come already.
    """

    def __init__(self, receive: Callable[[], Message], first: Message | None = None) -> None:
        self.receive = receive
        self.first = first
        self.data = memoryview(b"")
        self.more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if not self.data:
            self.data = memoryview(self._next())
        size = min(len(buffer), len(self.data))
        buffer[:size] = self.data[:size]
        self.data = self.data[size:]
        return size

    def readall(self) -> bytes:
        rest, self.data = self.data, memoryview(b"")
        return b"".join([rest, *iter(self._next, b"")])

    def _next(self) -> bytes:
        """The next bytes; none at the end. Raises ClientDisconnected, an OSError, where the body is cut."""
        while self.more:
            message, self.first = self.first or self.receive(), None
            if message["type"] != "http.request":
                raise ClientDisconnected("the client disconnected before its request was complete")
            self.more = message.get("more_body", False)
            body: bytes = message.get("body", b"")
            if body:
                return body
        return b""


def encode_status(status: str) -> tuple[int, bytes | None]:
    """The code of a status, and its reason phrase unless that is the registered one. Raises WSGIError."""
    try:
        return _statuses[status]
    except (KeyError, TypeError):
        return _parse_status(status)


def encode_fields(headers: Iterable[tuple[str, str]]) -> tuple[Headers, int | None]:
    """
    The fields of a response for an ASGI message, and the Content-Length among them.

    Those that are the server's business are left out. Raises :class:`~.errors.WSGIError`.
    """
    fields = []
    length = None
    for name, value in headers:
        encoded = _names.get(name)
        if encoded is None:
            encoded = _encode_name(name)
        if not encoded:
            continue
        try:
            # Nearly every value is printable, which is known sooner than that it matches.
            if not value.isprintable() and _VALUE.fullmatch(value) is None:
                raise WSGIError(f"the value of {name} has control characters ({START_RESPONSE})")
            field = value.encode("latin-1")
        except UnicodeEncodeError:
            raise WSGIError(f"the value of {name} has characters beyond latin-1 ({START_RESPONSE})") from None
        except AttributeError:
            raise WSGIError(f"the value of {name} is no str ({START_RESPONSE})") from None
        if encoded is _LENGTH:
            field = field.strip(b" \t")
            if not field.isdigit():
                raise WSGIError(f"the value of {name} is not a number ({START_RESPONSE})")
            if length is not None:  # a repeat is dropped if it agrees
                if length != int(field):
                    raise WSGIError(f"two {name} fields disagree (RFC 9110 8.6)")
                continue
            length = int(field)
        fields.append((encoded, field))
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


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeError:  # rather a legible log than an error about one
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _encode_name(name: str) -> bytes:
    if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
        raise WSGIError(f"{name!r} is not a header name ({START_RESPONSE})")
    lower = name.lower()
    encoded = b"" if lower in _HOP_BY_HOP else _LENGTH if lower == "content-length" else name.encode("ascii")
    if len(_names) < _CACHE_MAX:
        _names[name] = encoded
    return encoded


def _parse_status(status: Any) -> tuple[int, bytes | None]:
    match = _STATUS.fullmatch(status) if isinstance(status, str) else None
    if match is None:
        raise WSGIError(f"{status!r} is not a status like '200 OK' ({START_RESPONSE})")
    code, reason = int(match[1]), match[2] or ""
    if code < 200:
        # An interim response is no answer, and 101 would need the connection; PEP 3333, "Other HTTP Features":
        # neither is the application's. Early hints have a callable of their own.
        raise WSGIError(f"{status!r} is not the status of a final response, 200 or more (RFC 9110 15.2)")
    parsed = code, None if reason == _PHRASES.get(code) else reason.encode("latin-1")
    if len(_statuses) < _CACHE_MAX:
        _statuses[status] = parsed
    return parsed
