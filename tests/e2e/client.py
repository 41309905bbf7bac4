"""
A raw HTTP/1.1 client for the end-to-end tests.

It sends exactly the bytes it is given, and reads with a deadline. Nothing is hidden
that a server could do wrong: header fields stay a list of pairs in order, the framing
that was used is kept beside the body, and an end of the connection in the middle of a
response is an error.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Response:
    """One response as it stood on the wire. ``framing`` is none, length, chunked or close."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    framing: str
    trailers: list[tuple[str, str]]

    def header(self, name: str) -> str | None:
        """The one value of a field, or None; two of them are an error."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        """All values of a field, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")


class Truncated(AssertionError):
    """The connection ended in the middle of a response; the arguments say where and with which bytes."""


class Client:
    """One connection. Every wait ends with ``deadline`` seconds at most."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self.socket = connection
        self.deadline = deadline
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def reset(self) -> None:
        """Close the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        """Send all of ``data``."""
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    # -- reading

    def _more(self) -> bool:
        """Read once; False at the end of the connection."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def until(self, marker: bytes) -> bytes:
        """The bytes up to ``marker`` and with it."""
        deadline = time.monotonic() + self.deadline
        while marker not in self.buffer:
            if time.monotonic() > deadline or not self._more():
                raise Truncated(f"no {marker!r}", self.buffer)
        head, _, self.buffer = self.buffer.partition(marker)
        return head + marker

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        parts = [self.buffer[:size]]
        missing = size - len(parts[0])
        self.buffer = self.buffer[size:]
        while missing:
            try:
                data = self.socket.recv(min(missing, 1 << 20))
            except ConnectionResetError:
                data = b""
            if not data:
                raise Truncated(f"{missing} of {size} bytes are missing", b"".join(parts)[-200:])
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def at_end(self) -> bool:
        """Whether the server has closed the connection and sent nothing more; waits for either."""
        return not self.buffer and not self._more()

    def response(self, method: str = "GET") -> Response:
        """The next response, informational ones included."""
        status, reason, headers = self.head()
        fields = [(name.lower(), value) for name, value in headers]
        lengths = [value for name, value in fields if name == "content-length"]
        chunked = ("transfer-encoding", "chunked") in fields
        assert len(lengths) + chunked <= 1, f"contradictory framing in {headers}"
        trailers: list[tuple[str, str]] = []
        if status < 200 or status in (204, 304) or method == "HEAD":
            framing, body = "none", b""
        elif chunked:
            framing, body = "chunked", b"".join(iter(self.chunk, b""))
            trailers = self.fields()
        elif lengths:
            framing, body = "length", self.exactly(int(lengths[0]))
        else:
            framing, body = "close", self.rest()
        return Response(status, reason, headers, body, framing, trailers)

    def head(self) -> tuple[int, str, list[tuple[str, str]]]:
        """The status, reason and fields of the next response."""
        line = self.until(b"\r\n").decode("latin-1")
        version, status, reason = line.rstrip("\r\n").split(" ", 2)
        assert version == "HTTP/1.1", f"unexpected status line {line!r}"
        return int(status), reason, self.fields()

    def fields(self) -> list[tuple[str, str]]:
        """Header or trailer fields, up to the empty line and with it."""
        fields = []
        while (line := self.until(b"\r\n")) != b"\r\n":
            name, colon, value = line.decode("latin-1").rstrip("\r\n").partition(":")
            assert colon, f"{line!r} is no header field"
            fields.append((name, value.strip(" ")))
        return fields

    def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty for the last one, whose trailers then follow."""
        size = int(self.until(b"\r\n"), 16)
        data = self.exactly(size)
        if size:
            assert self.exactly(2) == b"\r\n"
        return data

    # -- requests

    def request(self, path: str = "/", method: str = "GET", body: bytes = b"", headers: str = "") -> Response:
        """Send a request and read its response. ``headers`` are further lines, each with its CRLF."""
        self.start(path, method, body, headers)
        return self.response(method)

    def start(self, path: str = "/", method: str = "GET", body: bytes = b"", headers: str = "") -> None:
        """Send a request."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}\r\n".encode("latin-1") + body)
