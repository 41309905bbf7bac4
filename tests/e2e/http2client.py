"""A client of HTTP/2 for the end-to-end tests: the h2 package on a blocking socket."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from tests.e2e.harness import DEADLINE, Gunicorn

PING, GOAWAY = 6, 7

Pairs = list[tuple[str, str]]


@dataclass
class Answer:
    """What has come on one stream."""

    status: int = 0
    headers: Pairs = field(default_factory=list)
    hints: list[Pairs] = field(default_factory=list)  #: interim responses
    body: bytes = b""
    trailers: Pairs = field(default_factory=list)
    ended: bool = False
    reset: int | None = None  #: the error code of a RST_STREAM

    @property
    def text(self) -> str:
        return self.body.decode()

    def __getitem__(self, name: str) -> str:
        return dict(self.headers)[name]

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.reset is not None


def pairs(event: Any) -> Pairs:
    """The fields of an event, which are text here."""
    return [(name, value) for name, value in event.headers]


class HTTP2Client:
    """
    One connection. ``answers`` has what came, by stream; ``goaways`` the (last stream, error code) of each GOAWAY.

    ``credit`` says whether what was read is given back to the windows at once.
    """

    def __init__(self, sock: socket.socket, scheme: str = "http", *, credit: bool = True) -> None:
        self.sock = sock
        self.scheme = scheme
        self.credit = credit
        # What the server has to refuse must get out.
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        self.rest = b""  #: of a frame whose end has not come
        self.pings: list[bytes] = []
        self.wait_silently = False  #: PINGs are not answered
        self.closed = False
        self.h2.initiate_connection()
        self.flush()

    @classmethod
    def to(cls, server: Gunicorn, context: ssl.SSLContext | None = None, **options: Any) -> HTTP2Client:
        """Connect to a server, under TLS with a ``context``."""
        sock = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
        if context is None:
            return cls(sock, **options)
        context.set_alpn_protocols(["h2"])
        encrypted = context.wrap_socket(sock, server_hostname="localhost")
        assert encrypted.selected_alpn_protocol() == "h2"
        return cls(encrypted, "https", **options)

    def __enter__(self) -> HTTP2Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.sock.close()

    def flush(self) -> None:
        """Send what h2 has to say."""
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def start(self, path: str = "/", method: str = "GET", fields: Pairs | None = None, *, end: bool = True) -> int:
        """Send the head of a request; returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        head = [(":method", method), (":scheme", self.scheme), (":authority", "localhost"), (":path", path)]
        self.h2.send_headers(stream, [*head, *(fields or [])], end_stream=end)  # further pseudo fields come first
        self.flush()
        return stream

    def send(self, stream: int, data: bytes = b"", *, end: bool = False) -> None:
        """Send a part of a body, waiting for credit."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if not room:
                self.wait(lambda: self.h2.local_flow_control_window(stream) > 0 or self.answers[stream].over)
                if self.answers[stream].over:
                    return
                continue
            self.h2.send_data(stream, data[:room], end_stream=end and room >= len(data))
            self.flush()
            data = data[room:]
            if not data and end:
                return
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def request(
        self, path: str = "/", method: str = "GET", body: bytes | None = None, fields: Pairs | None = None
    ) -> Answer:
        """One request and its whole answer."""
        stream = self.start(path, method, fields, end=body is None)
        if body is not None:
            self.send(stream, body, end=True)
        return self.finish(stream)

    def finish(self, stream: int) -> Answer:
        """Wait for the end of a stream."""
        answer = self.answers[stream]
        self.wait(lambda: answer.over)
        return answer

    def wait(self, condition: Callable[[], object]) -> None:
        """Read until ``condition()`` holds; fails when the connection ends before, or the deadline."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert not self.closed, f"the server has closed the connection: {self.goaways}"
            assert time.monotonic() < deadline, "the deadline has passed"
            self.read()

    def wait_closed(self) -> None:
        """Read until the server closes the connection."""
        while not self.closed:
            self.read()

    def read(self) -> None:
        """Take what comes next."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        self.rest += data
        while len(self.rest) >= 9 and len(self.rest) >= (size := 9 + int.from_bytes(self.rest[:3], "big")):
            frame, self.rest = self.rest[:size], self.rest[size:]
            if frame[3] == GOAWAY:  # h2 would take the connection for closed
                last, code = int.from_bytes(frame[9:13], "big"), int.from_bytes(frame[13:17], "big")
                self.goaways.append((last, code))
                continue
            if frame[3] == PING and not frame[4]:
                self.pings.append(frame[9:])
                if self.wait_silently:
                    continue
            for event in self.h2.receive_data(frame):
                self._take(event)
        self.flush()

    def answer_pings(self) -> None:
        """Answer those that were not."""
        for payload in self.pings:
            self.sock.sendall(b"\0\0\x08\x06\x01\0\0\0\0" + payload)

    def _take(self, event: Any) -> None:
        answer = self.answers.setdefault(getattr(event, "stream_id", 0) or 0, Answer())
        if isinstance(event, h2.events.InformationalResponseReceived):
            answer.hints.append(pairs(event))
        elif isinstance(event, h2.events.ResponseReceived):
            headers = pairs(event)
            answer.status, answer.headers = int(headers[0][1]), headers[1:]
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.credit and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = pairs(event)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)
