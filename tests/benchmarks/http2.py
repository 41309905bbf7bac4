"""
As much of an HTTP/2 client as the benchmark needs: GET, one answer after the other, and connections that stay.

It knows no header table and decodes no fields, so that it costs nothing; a response counts as right when it has come
to its end.
"""

from __future__ import annotations

import asyncio
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame (RFC 9113 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def get(path: str, stream: int) -> bytes:
    """A request without a body: GET and http by their indices, the rest as literals (RFC 7541 6.2.2)."""
    target = path.encode()
    block = b"\x82\x86\x01\x09localhost\x04" + bytes((len(target),)) + target
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, block)


#: The first bytes of a connection: preface, and SETTINGS that leave everything as it is.
OPENING = PREFACE + frame(SETTINGS, 0, 0)


class Answers:
    """The bytes of a server; ``ended`` has the streams whose responses are complete, ``bodies`` what was in them."""

    def __init__(self) -> None:
        self.buffer = b""
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()

    def feed(self, data: bytes) -> bytes:
        """Take what has come; returns what is to be sent. ConnectionError when the server wants no more."""
        self.buffer += data
        reply = b""
        while len(self.buffer) >= 9 and len(self.buffer) >= (size := 9 + int.from_bytes(self.buffer[:3], "big")):
            head, payload, self.buffer = self.buffer[:9], self.buffer[9:size], self.buffer[size:]
            kind, flags, stream = struct.unpack_from(">BBI", head, 3)
            if kind == GOAWAY or kind == RST_STREAM:
                raise ConnectionError(f"the server has sent {'GOAWAY' if kind == GOAWAY else 'RST_STREAM'}")
            if kind == DATA:
                self.bodies[stream] = self.bodies.get(stream, b"") + payload
            if kind == DATA or kind == HEADERS:
                if flags & END_STREAM:
                    self.ended.add(stream)
            elif (kind == SETTINGS or kind == PING) and not flags & ACK:
                reply += frame(kind, ACK, 0, payload if kind == PING else b"")
        return reply


async def ask_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    """The first request of a connection; returns the body."""
    writer.write(OPENING + get(path, 1))
    answers = Answers()
    while 1 not in answers.ended:
        if not (data := await reader.read(65536)):
            raise EOFError("the server has closed the connection")
        writer.write(answers.feed(data))
    return answers.bodies.get(1, b"")
