"""
The ceiling: uvloop, httptools, one task and one write per request, and nothing else.

``python -m tests.benchmarks.bare MODULE:APP PORT`` serves an ASGI application over plain HTTP with no limits, no
timeouts, no flow control, no validation, no request bodies and no log: what is left is what no server in pure Python
on this loop and this parser can do without. Not for anything but comparison.
"""

from __future__ import annotations

import asyncio
import importlib
import signal
import sys
from typing import Any

import httptools
import uvloop


class BareProtocol(asyncio.Protocol):
    __slots__ = ("app", "closing", "head", "headers", "loop", "parser", "path", "peer", "transport")

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.parser: Any = httptools.HttpRequestParser(self)
        self.closing = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.peer = transport.get_extra_info("peername")

    def connection_lost(self, exc: Exception | None) -> None:
        self.parser = None

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.path = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": self.parser.get_method().decode(),
            "scheme": "http",
            "path": self.path.decode(),
            "raw_path": self.path,
            "query_string": b"",
            "root_path": "",
            "headers": self.headers,
            "client": self.peer,
            "server": None,
            "state": {},
        }
        self.closing = not self.parser.should_keep_alive()
        self.loop.create_task(self.app(scope, self.receive, self.send))

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            lines = [b"HTTP/1.1 200 OK\r\n"]
            for name, value in message["headers"]:
                lines += (name, b": ", value, b"\r\n")
            lines.append(b"connection: close\r\n\r\n" if self.closing else b"\r\n")
            self.head = b"".join(lines)
        else:
            self.transport.write(self.head + message["body"])
            if self.closing:
                self.transport.close()


async def serve(app: Any, port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: BareProtocol(app, loop), "127.0.0.1", port, backlog=2048)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    module, _, attribute = sys.argv[1].partition(":")
    uvloop.run(serve(getattr(importlib.import_module(module), attribute), int(sys.argv[2])))
