"""
The streams of PEP 3333: ``wsgi.errors``, ``wsgi.input`` and the file wrapper.

They run in the thread that calls the application.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from ..asgi import Message
from ..errors import ClientDisconnected

#: Files and request bodies are read in pieces of so many bytes.
BLOCK = 65536

#: A request body of at most this many bytes is complete before the application is called: slow clients hold no thread.
WHOLE_BODY_MAX = 65536


class ErrorStream(Protocol):
    """What ``wsgi.errors`` must offer (PEP 3333, "Input and Error Streams")."""

    def write(self, text: str, /) -> Any: ...
    def writelines(self, lines: Any, /) -> Any: ...
    def flush(self) -> Any: ...


class ErrorLog(io.TextIOBase):
    """
    ``wsgi.errors``: a stream into the handlers of a logger, wherever they write to at the moment.

    It writes where gunicorn's WSGIErrorsWrapper writes: with ``to_stderr`` to ``sys.stderr``
    instead of the first handler. USR1 closes the handlers' streams when it reopens the logs,
    even during a call, so they are looked up for each write. All calls share one stream, so
    ``close()`` does nothing; PEP 3333 knows no such method.
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
                handler.acquire()  # the stream is closed while the log is being reopened
                try:
                    if handler.stream is None and isinstance(handler, logging.FileHandler):
                        handler.stream = handler._open()  # delay=True: the first record opens it
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
    already come.
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


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeError:  # the text is readable with escapes as well
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
