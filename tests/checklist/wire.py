"""
The client: HTTP/1.1 and WebSocket over a blocking socket, byte by byte where it matters.

Every wait has a deadline of :data:`PATIENCE` seconds. Reading is strict: a response that is
framed wrongly raises :class:`ProtocolViolation`, a connection that ends too early
:class:`Truncated`.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import os
import socket
import ssl
import struct
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .case import Case

#: Seconds after which something that should happen is taken not to happen.
PATIENCE = 8.0

App = Callable[[Case], Any]
Fields = Iterable[tuple[bytes, bytes]]


class ProtocolViolation(AssertionError):
    """The server wrote something that is not HTTP/1.1 or WebSocket."""


class Truncated(AssertionError):
    """The connection ended amid a message."""


class Run:
    """One call of a case's application: its notes, as they come."""

    def __init__(self, directory: Path, token: str) -> None:
        self.directory = directory
        self.token = token

    def release(self, name: str = "go") -> None:
        """Let the application's ``released()`` return."""
        (self.directory / f"{self.token}.{name}").touch()

    def all(self, key: str) -> list[Any]:
        """The values noted so far under ``key``."""
        return [value for noted, value in self._notes() if noted == key]

    def keys(self) -> list[str]:
        """The keys of all notes so far, in order."""
        return [key for key, _ in self._notes()]

    def wait(self, key: str, patience: float = PATIENCE) -> Any:
        """The first value noted under ``key``."""
        deadline = time.monotonic() + patience
        while not (found := self.all(key)):
            if time.monotonic() > deadline:
                raise AssertionError(f"the application did not get to {key!r}; notes: {list(self._notes())!r:.150}")
            time.sleep(0.005)
        return found[0]

    def ended(self, patience: float = PATIENCE) -> Any:
        """Wait for the application to end; returns the name of the exception that ended it, or None."""
        return self.wait("end", patience)

    def _notes(self) -> list[tuple[str, Any]]:
        try:
            lines = (self.directory / f"{self.token}.notes").read_text("utf-8").split("\n")
        except FileNotFoundError:
            return []
        return [ast.literal_eval(line) for line in lines[:-1]]


class Answer:
    """A final response, with the informational ones before it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.trailers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.informational: list[tuple[int, list[tuple[bytes, bytes]]]] = []

    def all(self, name: bytes) -> list[bytes]:
        """The values of a field, in order."""
        return [value for key, value in self.headers if key == name]

    def one(self, name: bytes) -> bytes | None:
        """The value of a field that may come once at most."""
        values = self.all(name)
        assert len(values) < 2, f"{name.decode()} came {len(values)} times"
        return values[0] if values else None


class Wire:
    """One connection."""

    def __init__(self, sock: socket.socket, directory: Path) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError):  # a unix socket
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.directory = directory
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Write all of ``data``."""
        self.sock.sendall(data)

    def request(
        self,
        app: App,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        content: bytes | None = None,
        version: str = "1.1",
    ) -> Run:
        """Write a request that ``app`` will answer; with ``content`` comes its Content-Length."""
        run, head = self.head(app, method, target, headers, version, content)
        self.send(head + (content or b""))
        return run

    def head(
        self,
        app: App,
        method: str = "GET",
        target: str = "/",
        headers: Fields = (),
        version: str = "1.1",
        content: bytes | None = None,
    ) -> tuple[Run, bytes]:
        """The bytes of a request's head, and the run it will be."""
        run = Run(self.directory, uuid.uuid4().hex)
        case = f"{app.__module__}:{app.__name__} {run.token}".encode()
        fields = [(b"Host", b"checklist"), (b"X-Case", case), *headers]
        if content is not None:
            fields.append((b"Content-Length", b"%d" % len(content)))
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        return run, f"{method} {target} HTTP/{version}\r\n".encode("latin-1") + lines + b"\r\n"

    # -- reading

    def _fill(self) -> bool:
        data = self.sock.recv(262144)
        self.buffer += data
        return bool(data)

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        pieces, have = [self.buffer], len(self.buffer)
        while have < size:
            piece = self.sock.recv(262144)
            if not piece:
                raise Truncated(f"the connection ended after {have} of {size} bytes")
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        self.buffer = data[size:]
        return data[:size]

    def line(self) -> bytes:
        """The next line, without its CRLF."""
        while b"\r\n" not in self.buffer:
            if not self._fill():
                raise Truncated(f"the connection ended amid a line: {self.buffer[:60]!r}")
        found, _, self.buffer = self.buffer.partition(b"\r\n")
        return found

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while self._fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def silent(self) -> bool:
        """Whether nothing has come yet."""
        self.sock.setblocking(False)
        try:
            self._fill()
        except BlockingIOError:
            pass
        finally:
            self.sock.settimeout(PATIENCE)
        return not self.buffer

    def peek(self) -> bool:
        """Wait for the next byte; False when the connection ends instead."""
        return bool(self.buffer) or self._fill()

    def closed(self) -> bool:
        """Whether the server closes, or resets, the connection without another byte."""
        try:
            return self.rest() == b""
        except ConnectionError:
            return True

    def fields(self) -> list[tuple[bytes, bytes]]:
        """Field lines up to the empty line; names in lower case."""
        found = []
        while line := self.line():
            name, colon, value = line.partition(b":")
            if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
                raise ProtocolViolation(f"not a field line: {line[:60]!r}")
            found.append((name.lower(), value.strip()))
        return found

    def answer(self, method: str = "GET") -> Answer:
        """The next final response."""
        answer = Answer()
        while True:
            line = self.line()
            version, _, rest = line.partition(b" ")
            if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit():
                raise ProtocolViolation(f"not a status line: {line[:60]!r}")
            answer.status, answer.headers = int(rest[:3]), self.fields()
            if answer.status >= 200 or answer.status == 101:
                break
            answer.informational.append((answer.status, answer.headers))
        coding, size = answer.one(b"transfer-encoding"), answer.one(b"content-length")
        if coding is not None and size is not None:
            raise ProtocolViolation("Content-Length together with Transfer-Encoding")
        if method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        if coding is not None:
            if coding.lower() != b"chunked":
                raise ProtocolViolation(f"Transfer-Encoding {coding!r}")
            self._chunked(answer)
        elif size is not None:
            answer.body = self.exactly(int(size))
        else:
            answer.body = self.rest()
        return answer

    def _chunked(self, answer: Answer) -> None:
        while True:
            digits = self.line().partition(b";")[0]
            if not digits or digits.strip(b"0123456789abcdefABCDEF"):
                raise ProtocolViolation(f"not a chunk size: {digits[:60]!r}")
            if not int(digits, 16):
                break
            answer.chunks.append(self.exactly(int(digits, 16)))
            if self.exactly(2) != b"\r\n":
                raise ProtocolViolation("a chunk that is longer than its size")
        answer.trailers = self.fields()
        answer.body = b"".join(answer.chunks)

    # -- leaving

    def reset(self) -> None:
        """Close so that the server gets a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def write_until_blocked(self, piece: bytes, total: int = 96 << 20) -> bool:
        """Write ``piece`` over and over; whether the server stopped taking it before ``total`` bytes."""
        self.sock.settimeout(1)
        try:
            for _ in range(total // len(piece)):
                self.sock.sendall(piece)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE)
        return False


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket(Wire):
    """A connection that asks for, and speaks, WebSocket (RFC 6455)."""

    run: Run
    handshake: Answer

    def ask(
        self,
        app: App,
        target: str = "/",
        headers: Fields = (),
        method: str = "GET",
        change: Mapping[str, bytes | None] | None = None,
    ) -> Run:
        """
        Write the handshake.

        ``change`` gives the fields ``key``, ``version``, ``upgrade`` and ``connection``
        other values, or leaves them out.
        """
        key = base64.b64encode(os.urandom(16))
        usual = {"upgrade": b"websocket", "connection": b"Upgrade", "version": b"13", "key": key, **(change or {})}
        names = {"version": b"Sec-WebSocket-Version", "key": b"Sec-WebSocket-Key"}
        fields = [(names.get(name, name.encode()), value) for name, value in usual.items() if value is not None]
        self.run, head = self.head(app, method, target, [*fields, *headers])
        self.send(head)
        return self.run

    def open(self, app: App, target: str = "/", headers: Fields = ()) -> Run:
        """Shake hands, and expect the server to agree."""
        run = self.ask(app, target, headers)
        self.handshake = self.answer()
        assert self.handshake.status == 101, f"the handshake was answered with {self.handshake.status}"
        return run

    def frame(self, opcode: int, payload: bytes = b"", fin: bool = True, masked: bool = True, rsv: int = 0) -> None:
        """Write one frame."""
        self.send(frame(opcode, payload, fin, masked, rsv))

    def next(self) -> tuple[int, bytes]:
        """The opcode and payload of the next frame."""
        first, second = self.exactly(2)
        if second & 0x80:
            raise ProtocolViolation("a masked frame from the server")
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(self.exactly(2 if size == 126 else 8), "big")
        if not first & 0x80:
            raise ProtocolViolation("a fragmented message, which this client does not ask for")
        return first & 0x0F, self.exactly(size)

    def message(self) -> tuple[int, bytes]:
        """The next frame that is no ping or pong; pings are answered."""
        while True:
            opcode, payload = self.next()
            if opcode == PING:
                self.frame(PONG, payload)
            elif opcode != PONG:
                return opcode, payload

    def close_code(self) -> tuple[int, str]:
        """Read up to the close frame; its code (1005 without one) and reason. Answers it."""
        while True:
            opcode, payload = self.message()
            if opcode == CLOSE:
                with contextlib.suppress(OSError):  # the server may have gone already
                    self.frame(CLOSE, payload)
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                return code, payload[2:].decode()

    def leave(self, code: int | None = 1000, reason: str = "") -> None:
        """Write a close frame."""
        self.frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


def frame(opcode: int, payload: bytes, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """The bytes of one frame."""
    size = len(payload)
    head = bytes([(fin << 7) | (rsv << 4) | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    # A mask of zeros is a legal mask, and leaves the payload readable here.
    return head + (bytes(4) if masked else b"") + payload


def tls(sock: socket.socket, context: ssl.SSLContext) -> socket.socket:
    """Shake hands as a TLS client."""
    sock.settimeout(PATIENCE)
    return context.wrap_socket(sock, server_hostname="localhost")
