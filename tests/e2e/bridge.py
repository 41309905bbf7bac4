"""
A bridge for the tests: clients that speak WebSocket over HTTP/1.1 reach a server over HTTP/2.

Each handshake becomes an extended CONNECT (RFC 8441), all of them on one connection, and from then on bytes go both
ways as they are. So whatever tests a WebSocket over HTTP/1.1 tests one over HTTP/2. It runs on a
loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import threading
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events

from tests.e2e.client import Client
from tests.e2e.harness import DEADLINE, Gunicorn
from tests.e2e.http2client import pairs

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: Fields of the handshake that HTTP/2 has no use for.
DROPPED = {"host", "connection", "upgrade", "sec-websocket-key"}


class Bridge:
    """Listens at ``port`` while it is entered; else it poses as ``server``."""

    def __init__(self, server: Gunicorn) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def __enter__(self) -> Bridge:
        self.thread.start()
        self._call(self._start())
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._call(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def connect(self) -> Client:
        """A raw client."""
        return Client(socket.create_connection(("127.0.0.1", self.port), DEADLINE), DEADLINE)

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE)

    async def _start(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(2**30)
        self.flush()
        self.enabled = asyncio.Event()
        self.tasks.add(self.loop.create_task(self._read()))
        await self.enabled.wait()
        self.listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self.listener.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self.listener.close()
        for task in [*self.tasks, *(stream.task for stream in self.streams.values())]:
            task.cancel()
        self.writer.close()
        await asyncio.sleep(0)

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def _read(self) -> None:
        while data := await self.reader.read(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.RemoteSettingsChanged):
                    assert self.h2.remote_settings.enable_connect_protocol, "WebSocket is not announced"
                    self.enabled.set()
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
                if stream is not None:
                    stream.take(event)
                for one in list(self.streams.values()):
                    one.room.set()
            self.flush()
        for stream in list(self.streams.values()):
            stream.client.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            stream = Stream(self, writer, head)
            await stream.run(reader)


class Stream:
    """One WebSocket: its client, and its stream."""

    def __init__(self, bridge: Bridge, client: asyncio.StreamWriter, head: str) -> None:
        self.bridge = bridge
        self.client = client
        lines = head.split("\r\n")
        self.fields = [
            (name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:-2])
        ]
        pseudo = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": lines[0].split(" ")[1]}
        pseudo[":authority"] = dict(self.fields)["host"]
        self.room = asyncio.Event()
        self.ends = 0  #: how many sides have ended
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.id = bridge.h2.get_next_available_stream_id()
        bridge.streams[self.id] = self
        bridge.h2.send_headers(
            self.id, [*pseudo.items(), *((name, value) for name, value in self.fields if name not in DROPPED)]
        )
        bridge.h2.increment_flow_control_window(2**30, self.id)
        bridge.flush()

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Send what the client sends, as the windows allow."""
        connection = self.bridge.h2
        while data := await reader.read(65536):
            while data and self.id in self.bridge.streams:
                room = min(connection.local_flow_control_window(self.id), connection.max_outbound_frame_size)
                if room > 0:
                    connection.send_data(self.id, data[:room])
                    self.bridge.flush()
                    data = data[room:]
                else:
                    self.room.clear()
                    await self.room.wait()
        # Either the client has ended, or the server, whose end was passed on to the client: now both have.
        if self.id in self.bridge.streams:
            connection.end_stream(self.id)
            self.bridge.flush()
            self._end()

    def _end(self) -> None:
        """One side has ended."""
        self.ends += 1
        if self.ends == 2:
            del self.bridge.streams[self.id]

    def take(self, event: Any) -> None:
        """Something has come on the stream."""
        client = self.client
        if isinstance(event, h2.events.ResponseReceived):
            self._answer(pairs(event))
        elif isinstance(event, h2.events.DataReceived):
            client.write(event.data)
        elif isinstance(event, h2.events.StreamEnded):
            self._end()
            client.close()
        elif isinstance(event, h2.events.StreamReset):
            self.bridge.streams.pop(self.id, None)
            self.room.set()
            client.close()

    def _answer(self, headers: list[tuple[str, str]]) -> None:
        status = headers[0][1]
        fields = headers[1:]
        line = f"HTTP/1.1 {status} \r\n"
        if status == "200":
            key = dict(self.fields).get("sec-websocket-key", "").encode()
            accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
            line = "HTTP/1.1 101 Switching Protocols\r\n"
            fields += [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]
        self.client.write((line + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n").encode("latin-1"))
