"""
The corpus of requests in ``tests/requests``, and one conversation for each segmentation of a request.

The format of a file is described in ``tests/requests/README.rst``. :func:`converse` feeds
bytes to a connection with a fake transport and returns an :class:`Outcome`: all that a
client and an application see of it, and nothing of how the bytes were cut.
"""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from hybridworker.asgi import Message, Receive, Scope, Send
from hybridworker.connection.context import WorkerContext
from hybridworker.http11.protocol import HTTPProtocol
from tests.fakes import FakeLog, FakeTransport
from tests.harness import application, make_settings, settle

DIRECTORY = Path(__file__).parent / "requests"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[rnt\\])")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}


def unescape(text: bytes) -> bytes:
    """The bytes that ``text`` shows."""
    assert b"\\" not in _ESCAPE.sub(b"", text), f"a backslash that begins no escape: {text!r}"
    return _ESCAPE.sub(lambda match: _PLAIN.get(match[1]) or bytes([int(match[1][1:], 16)]), text)


# -- what a file says


@dataclasses.dataclass
class Expected:
    """A request that reaches the application."""

    method: str
    path: str
    version: str
    raw_path: bytes | None = None
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = dataclasses.field(default_factory=list)
    body: bytes = b""
    scheme: str = "http"
    client: str | None = None
    proxy: str | None = None


@dataclasses.dataclass
class Case:
    """One file of the corpus."""

    name: str
    data: bytes = b""
    rfc: str = ""
    note: str = ""
    status: int | None = None  #: of the refusal that ends the connection
    may_be_called: bool = False  #: a fault in the body: the application may have begun
    open: bool = True  #: the connection can be used again
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    peer: str = "127.0.0.1"
    wsgi: bool = False
    requests: list[Expected] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return self.name


def read_case(path: Path) -> Case:
    """The case in one file. Every line of it is understood, or it is an error."""
    head, separator, data = path.read_bytes().partition(b"---\n")
    assert separator, f"{path} has no line ---"
    case = Case(f"{path.parent.name}/{path.stem}", unescape(data.replace(b"\n", b"")))
    for line in head.decode("utf-8").splitlines():
        key, colon, text = line.partition(":")
        assert colon, f"{path}: {line!r} is no key"
        _take(case, key, text.strip())
    assert case.rfc, f"{path} names no RFC section"
    assert case.note, f"{path} has no note"
    assert (case.status is None) is (path.parent.name == "valid"), f"{path}: a status is what makes a case invalid"
    return case


def _take(case: Case, key: str, text: str) -> None:
    """Put one line of the head of a file into ``case``."""
    if key == "request":
        method, _, rest = text.partition(" ")
        path, _, version = rest.rpartition(" ")
        case.requests.append(Expected(method, path, version))
    elif key in ("rfc", "note", "peer"):
        setattr(case, key, text)
    elif key == "status":
        case.status = int(text)
        case.open = False
    elif key == "application":
        case.may_be_called = {"not called": False, "may be called": True}[text]
    elif key in ("open", "wsgi"):
        setattr(case, key, {"yes": True, "no": False}[text])
    elif key == "setting":
        name, _, value = text.partition("=")
        case.settings[name] = ast.literal_eval(value)
    elif key == "header":
        name, _, value = text.partition(":")
        case.requests[-1].headers.append((name.encode("ascii"), unescape(value.strip().encode("ascii"))))
    elif key in ("body", "query", "raw_path"):
        setattr(case.requests[-1], key, unescape(text.encode("ascii")))
    elif key in ("scheme", "client", "proxy"):
        setattr(case.requests[-1], key, text)
    else:
        raise AssertionError(f"{case.name}: unknown key {key!r}")


@functools.cache
def corpus(kind: str) -> list[Case]:
    """All cases of ``tests/requests/<kind>``."""
    return [read_case(path) for path in sorted((DIRECTORY / kind).glob("*.http"))]


# -- conversations


@dataclasses.dataclass
class Seen:
    """A request as the application saw it."""

    scope: Scope
    body: bytes = b""
    complete: bool = False


@dataclasses.dataclass
class Outcome:
    """
    What came of a conversation.

    ``sent`` is without interim 100 responses: whether one is due depends on whether the
    body was there already. ``unfinished`` are the calls whose body did not end.
    """

    sent: bytes
    open: bool
    requests: list[Seen]
    unfinished: int
    lines: list[tuple[str, str]]

    def comparable(self) -> tuple[Any, ...]:
        """What must be the same for every segmentation of the same bytes."""
        scopes = [{**seen.scope, "headers": list(seen.scope["headers"])} for seen in self.requests]
        return self.sent, self.open, scopes, [seen.body for seen in self.requests]

    def statuses(self) -> list[int]:
        """The status of each answer; an answer that is malformed, or cut short, is an error."""
        methods = [seen.scope["method"] for seen in self.requests]
        rest, statuses = self.sent, list[int]()
        while rest:
            head, blank, rest = rest.partition(b"\r\n\r\n")
            assert blank, f"half a head: {head!r}"
            line, *fields = head.split(b"\r\n")
            match = re.fullmatch(rb"HTTP/1\.1 ([2-5][0-9]{2}) [A-Za-z' -]*", line)
            assert match, line
            lengths = [int(field[16:]) for field in fields if field.lower().startswith(b"content-length: ")]
            assert len(lengths) == 1, fields
            method = methods[len(statuses)] if len(statuses) < len(methods) else "HEAD" if not rest else "GET"
            if method != "HEAD":
                assert len(rest) >= lengths[0], "a body that is cut short"
                rest = rest[lengths[0] :]
            statuses.append(int(match[1]))
        return statuses


class Echo:
    """An application that reads each request to its end and answers with the body."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = Seen(scope)
        self.seen.append(seen)
        while not seen.complete:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                return
            seen.body += message["body"]
            seen.complete = not message["more_body"]
        length = str(len(seen.body)).encode("ascii")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": seen.body})


@contextmanager
def running_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop for many conversations."""
    loop = uvloop.new_event_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    try:
        yield loop
        assert failures == []
    finally:
        loop.close()


@functools.cache
def _settings(names: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return make_settings(**dict(zip(names, values, strict=True)))


def converse(loop: asyncio.AbstractEventLoop, case: Case, segments: Iterable[bytes]) -> Outcome:
    """Feed ``segments`` to a new connection that has the settings and the peer of ``case``."""
    app, log = Echo(), FakeLog()
    settings = _settings(tuple(case.settings), tuple(case.settings.values()))
    context = WorkerContext(application=application(app, is_wsgi=case.wsgi), settings=settings, loop=loop, log=log)
    context.clock.fields = b""
    transport = FakeTransport(
        peername="" if case.peer == "unix" else (case.peer, 40000),
        sockname="/run/app.sock" if case.peer == "unix" else ("127.0.0.1", 8000),
    )
    protocol: Any = HTTPProtocol(context)
    protocol.connection_made(transport)
    for segment in segments:
        if transport.closing:
            break
        protocol.data_received(segment)
        if context.quota.served:  # before the first request nothing runs
            loop.run_until_complete(settle())
    complete = [seen for seen in app.seen if seen.complete]
    outcome = Outcome(
        sent=transport.sent.replace(CONTINUE, b""),
        open=not transport.closing and not transport.eof,
        requests=complete,
        unfinished=len(app.seen) - len(complete),
        lines=log.lines,
    )
    written = len(transport.sent)
    if not transport.closing:
        transport.closing = True
    protocol.connection_lost(None)
    loop.run_until_complete(settle())
    assert list(context.tasks()) == [], "a task that does not end with its connection"
    assert len(transport.sent) == written
    assert log.at("exception") == log.at("error") == [], log.lines
    return outcome


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """``data`` in pieces that begin at ``places``."""
    edges = [0, *sorted(set(places)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges) if start < end]


def segmentations(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and cut once at every position."""
    yield [data]
    yield cut(data, range(len(data)))
    for place in range(1, len(data)):
        yield cut(data, [place])
