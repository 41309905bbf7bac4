"""RequestIds: what becomes of the field with the id of a request, seen from the wire and by the application."""

from __future__ import annotations

import logging
import random
import re
from typing import Any

import pytest

from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.requestids import RequestIds
from hybridworker.identity import REQUEST_ID, RequestIdFilter, request_id
from tests.fakes import FakeTransport
from tests.harness import HELLO, Wire, body, responder, start, wire

NAME = b"x-request-id"
TRUSTED, STRANGER = ("127.0.0.1", 40000), ("192.0.2.1", 40000)
MADE = re.compile(r"[0-9a-f]{32}")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Seen:
    """An application that keeps its scope, and the id that it knows."""

    def __init__(self) -> None:
        self.scope: Scope = {}
        self.id: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.id = scope, request_id()
        await HELLO(scope, receive, send)

    def values(self, name: bytes = NAME) -> list[str]:
        return [value.decode() for field, value in self.scope["headers"] if field == name]


def ask(fields: str = "", name: bytes = NAME, **options: Any) -> tuple[Seen, dict[str, list[str]]]:
    """What the application has seen of a request with ``fields``, and the fields of the response."""
    seen = Seen()
    with wire(seen, request_id=name, **options) as connection:
        sent = connection.feed(f"GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode("latin-1"))
    return seen, fields_of(sent)


def fields_of(sent: bytes) -> dict[str, list[str]]:
    """The fields of the first response, by their names in lower case."""
    found: dict[str, list[str]] = {}
    for line in sent.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        name, _, value = line.decode("latin-1").partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found


@pytest.mark.parametrize("value", ["a", "!~" * 64, "Root=1-67891233-abcdef012345678912345678", '"quoted\\"'])
def test_the_id_of_a_trusted_proxy_is_taken(value: str) -> None:
    """It is in the scope, in its headers once, in the response, and known to the code that runs."""
    seen, sent = ask(f"X-Request-ID: {value}\r\n")
    assert seen.scope[REQUEST_ID] == seen.id == value
    assert seen.values() == [value]
    assert sent["x-request-id"] == [value]


@pytest.mark.parametrize(
    ("fields", "peername"),
    [
        ("", TRUSTED),
        ("X-Request-Id: abc\r\n", STRANGER),
        ("X-Request-Id: abc\r\nX-Request-Id: abc\r\n", TRUSTED),
        ("X-Request-Id:\r\n", TRUSTED),
        ("X-Request-Id: a b\r\n", TRUSTED),
        ("X-Request-Id: \xe9\r\n", TRUSTED),
        (f"X-Request-Id: {'a' * 129}\r\n", TRUSTED),
    ],
    ids=["none", "stranger", "two", "empty", "space", "not ascii", "long"],
)
def test_any_other_is_replaced(fields: str, peername: Any) -> None:
    """By one of 32 hexadecimal digits; what was received is gone."""
    seen, sent = ask(fields, peername=peername)
    assert seen.id is not None and MADE.fullmatch(seen.id)
    assert seen.values() == [seen.id]
    assert sent["x-request-id"] == [seen.id]


@pytest.mark.parametrize("header_map", ["drop", "dangerous"])
def test_no_other_spelling_stays(header_map: str) -> None:
    """``X_Request_Id`` is the same in an environ; it neither doubles the id nor spoils a good one."""
    options: dict[str, Any] = {"header_map": header_map, "forwarder_headers": frozenset({b"*"})}
    seen, _ = ask("X_Request_ID: forged\r\nX-Request-Id: good\r\nX_Request-Id: forged\r\n", **options)
    assert seen.id == "good"
    assert [name for name, _ in seen.scope["headers"] if b"request" in name] == [NAME]


def test_behind_a_proxy_header_the_client_behind_it_must_be_trusted() -> None:
    """A TCP proxy passes on what its client writes."""
    for client, taken in (("192.0.2.9", False), ("127.0.0.1", True)):
        seen = Seen()
        with wire(seen, request_id=NAME, proxy_protocol="v1") as connection:
            connection.feed(
                f"PROXY TCP4 {client} 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\n\r\n".encode()
            )
        assert (seen.id == "a") is taken


def test_each_request_of_a_connection_has_its_own() -> None:
    """Kept alive and pipelined."""
    ids: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ids.append(request_id())
        await HELLO(scope, receive, send)

    with wire(app, request_id=NAME) as connection:
        one = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        sent = connection.feed(one + one, one)
    assert len(set(ids)) == 3 and None not in ids
    assert re.findall(rb"x-request-id: (\w+)", sent) == [(one or "").encode() for one in ids]
    assert request_id() is None


def test_a_seeded_application_gets_no_ids_twice() -> None:
    """The generator is not the one of the module."""
    made = set()
    for _ in range(2):
        random.seed(1)
        made |= {RequestIds(NAME).make() for _ in range(3)}
    assert len(made) == 6


def test_the_field_of_the_application_wins() -> None:
    """Whatever its case; the id stays what it is."""
    app = responder(start(200, (b"X-Request-ID", b"mine"), (b"content-length", b"0")), body())
    with wire(app, request_id=NAME) as connection:
        assert fields_of(connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))["x-request-id"] == ["mine"]


def test_the_message_of_the_application_stays_as_it_is() -> None:
    """It may be a constant; and its headers may be any iterable, or missing."""
    message: Message = {"type": "http.response.start", "status": 200}
    with wire(responder(message, body(b"a")), request_id=NAME) as connection:
        sent = connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: i\r\n\r\n")
        assert fields_of(sent)["x-request-id"] == ["i"]
    assert message == {"type": "http.response.start", "status": 200}
    lazy = {"type": "http.response.start", "status": 200, "headers": iter([(b"a", b"b")])}
    with wire(responder(lazy, body(b"a")), request_id=NAME) as connection:
        assert fields_of(connection.feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))["a"] == ["b"]


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError


def test_an_error_page_has_it_and_so_has_the_line() -> None:
    """The application has failed."""
    with wire(fails, request_id=NAME) as connection:
        sent = connection.feed(b"GET /a HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc\r\n\r\n")
        assert fields_of(sent)["x-request-id"] == ["abc"]
        assert connection.log.at("exception") == ["Error handling request GET /a [abc]"]


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        (b"GET / HTTP/1.1\r\nX-Request-Id: abc\r\n\r\n", True),  # no Host
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc\r\nHost: y\r\n\r\n", True),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Ssl: off\r\n\r\n",
            True,
        ),
        (b"nonsense\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", True),
    ],
    ids=["no host", "two hosts", "contradiction", "nonsense", "body"],
)
def test_a_request_that_is_refused_has_one(request_: bytes, known: bool) -> None:
    """In the page, in the line that says why, and once in the access log."""
    exchanges: list[Any] = []
    with wire(HELLO, request_id=NAME, access=exchanges.append) as connection:
        sent = connection.feed(request_)
        (line,) = connection.log.at("warning")
    (value,) = fields_of(sent)["x-request-id"]
    assert line.endswith(f" [{value}]")
    assert (value == "abc") is known
    for exchange in exchanges:
        assert exchange.scope[REQUEST_ID] == value
        assert [v for n, v in exchange.scope["headers"] if n == NAME] == [value.encode()]
        assert (NAME, value.encode()) in exchange.headers
    assert len(exchanges) == int(known)


# -- traceparent


@pytest.mark.parametrize("peername", [TRUSTED, STRANGER])
def test_a_trace_is_only_read(peername: Any) -> None:
    """Neither request nor response is changed, and whoever sent it is believed, as tracing libraries believe it."""
    seen, sent = ask(f"traceparent: {PARENT}\r\n", b"traceparent", peername=peername)
    assert seen.id == TRACE
    assert seen.values(b"traceparent") == [PARENT]
    assert "traceparent" not in sent


@pytest.mark.parametrize(
    "fields",
    [
        "",
        f"traceparent: {PARENT}\r\ntraceparent: {PARENT}\r\n",
        f"traceparent: {PARENT.upper()}\r\n",
        f"traceparent: ff{PARENT[2:]}\r\n",
        f"traceparent: {PARENT}-more\r\n",
        f"traceparent: 00-{'0' * 32}-00f067aa0ba902b7-01\r\n",
        f"traceparent: 00-{TRACE}-{'0' * 16}-01\r\n",
        f"traceparent: 00-{TRACE}\r\n",
    ],
    ids=["none", "two", "capitals", "ff", "more", "no trace", "no parent", "short"],
)
def test_what_names_no_trace(fields: str) -> None:
    """Then there is no id, and none is made."""
    seen, _ = ask(fields, b"traceparent")
    assert seen.id is None
    assert REQUEST_ID not in seen.scope


def test_a_later_version_may_have_more() -> None:
    """The trace id stands where it stood."""
    assert ask(f"traceparent: 01{PARENT[2:]}-more\r\n", b"traceparent")[0].id == TRACE


def test_an_error_page_of_a_trace_has_no_field() -> None:
    """And the line has the trace."""
    with wire(fails, request_id=b"traceparent") as connection:
        sent = connection.feed(f"GET / HTTP/1.1\r\nHost: x\r\ntraceparent: {PARENT}\r\n\r\n".encode())
        assert "traceparent" not in fields_of(sent)
        assert connection.log.at("exception") == [f"Error handling request GET / [{TRACE}]"]


# -- off


def test_without_the_variable_nothing_changes() -> None:
    """The field is one like any other."""
    seen, sent = ask("X-Request-Id: a b\r\nX-Request-Id: c\r\n", b"")
    assert seen.values() == ["a b", "c"]
    assert seen.id is None and REQUEST_ID not in seen.scope
    assert "x-request-id" not in sent


# -- WebSockets

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: %d\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Request-Id: abc\r\n\r\n"
)
DENIAL = [
    {"type": "websocket.http.response.start", "status": 401, "headers": []},
    {"type": "websocket.http.response.body", "body": b"no"},
]


@pytest.mark.parametrize(
    ("messages", "version", "status"),
    [
        ([{"type": "websocket.accept"}], 13, 101),
        ([{"type": "websocket.close"}], 13, 403),
        (DENIAL, 13, 401),
        ([], 13, 500),
        ([], 12, 426),
    ],
    ids=["accepted", "closed", "denied", "failed", "refused"],
)
def test_the_answer_to_a_handshake_has_it(messages: list[Message], version: int, status: int) -> None:
    """Whichever it is; and the application knows it."""
    seen: list[str | None] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(request_id())
        await receive()
        for message in messages:
            await send(message)

    connection: Wire
    with wire(app, request_id=NAME) as connection:
        connection.feed(HANDSHAKE % version)
        protocol = connection.transport.protocol
        connection.run()
        transport = connection.transport
        assert isinstance(transport, FakeTransport)
        sent = transport.sent
        connection.protocol = protocol
    assert int(sent.split(b" ")[1]) == status
    assert fields_of(sent)["x-request-id"] == ["abc"]
    assert seen == (["abc"] if version == 13 else [])


# -- the filter


def test_the_filter_lets_every_record_through() -> None:
    """With the id, or a dash."""
    record = logging.makeLogRecord({})
    assert RequestIdFilter().filter(record) is True
    assert vars(record)["request_id"] == "-"
