"""What asks: WebSocket by hand, over HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import base64
import os
from types import TracebackType
from typing import Self

from tests.checklist.wire import frame
from tests.e2e.client import Client
from tests.e2e.http2client import HTTP2Client

from .servers import PATIENCE, Server

TEXT, CLOSE = 1, 8


class WebSocket:
    """One connection that has shaken hands; ConnectionError where the server refuses."""

    def __init__(self, server: Server, path: str = "/socket", patience: float = PATIENCE) -> None:
        self.client: Client = server.connect(patience)
        key = base64.b64encode(os.urandom(16)).decode()
        self.client.send(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        )
        status = int(self.client.until(b"\r\n\r\n").split(b" ", 2)[1])
        if status != 101:
            self.client.close()
            raise ConnectionError(f"the handshake is answered {status}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()

    def send(self, text: str) -> None:
        """One message."""
        self.client.send(frame(TEXT, text.encode(), True, True))

    def next(self) -> tuple[int, bytes]:
        """The opcode and payload of the next frame; pings are answered."""
        while True:
            first, length = self.client.exactly(2)
            if length == 126:
                length = int.from_bytes(self.client.exactly(2), "big")
            payload = self.client.exactly(length)
            if first & 15 != 9:
                return first & 15, payload
            self.client.send(frame(10, payload, True, True))

    def ask(self, text: str) -> str:
        """A message, and the one that comes back."""
        self.send(text)
        return self.next()[1].decode()


def echo_over_http2(client: HTTP2Client) -> bool:
    """Open a WebSocket on a stream (RFC 8441) and have a message come back; ConnectionError where it is refused."""
    client.request("/")  # its SETTINGS have come
    if not client.h2.remote_settings.enable_connect_protocol:
        raise ConnectionError("the server does not announce extended CONNECT")
    fields = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
    stream = client.start("/socket", "CONNECT", fields, end=False)
    answer = client.answers[stream]
    client.wait(lambda: answer.status or answer.over)
    if answer.status != 200:
        raise ConnectionError(f"the CONNECT is answered {answer.status}")
    client.send(stream, frame(TEXT, b"hello", True, True))
    client.wait(lambda: len(answer.body) >= 7 or answer.over)
    if answer.body == b"hello":
        raise ConnectionError("the CONNECT is served as an ordinary request")
    return answer.body == b"\x81\x05hello"
