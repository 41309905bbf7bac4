"""A client of HTTP/3, by aioquic, which hypercorn's extra for it installs."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived
from aioquic.quic.configuration import QuicConfiguration

from .servers import PATIENCE


class HTTP3(QuicConnectionProtocol):  # type: ignore[misc, unused-ignore]  # not every environment has it
    """A connection with one request."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic)
        self.body = b""
        self.ended = asyncio.Event()

    def quic_event_received(self, event: Any) -> None:
        """Called by aioquic with what has come."""
        for found in self.http.handle_event(event):
            self.body += found.data if isinstance(found, DataReceived) else b""
            if getattr(found, "stream_ended", False):
                self.ended.set()

    async def get(self, path: bytes) -> bytes:
        """The body of an answer."""
        stream = self._quic.get_next_available_stream_id()
        head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", path)]
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        await self.ended.wait()
        return self.body


async def get(port: int, authority: str) -> bytes:
    """One request by HTTP/3; returns the body."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_REQUIRED)
    configuration.load_verify_locations(cafile=authority)
    configuration.server_name = "localhost"
    async with asyncio.timeout(PATIENCE):
        async with connect("127.0.0.1", port, configuration=configuration, create_protocol=HTTP3) as client:
            assert isinstance(client, HTTP3)
            return await client.get(b"/")
