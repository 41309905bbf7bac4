"""What is spoken on the wire."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from tests.checklist.servers import free_port

from .clients import WebSocket, echo_over_http2
from .peers import ASGI, WSGI
from .registry import Answer, no, partly, row, yes
from .servers import Server, Subject

GROUP = "Protocols"

#: What a client sees of a server that does not speak with it.
REFUSALS = (OSError, AssertionError, ValueError)


def speaking_http2(subject: Subject, *, tls: bool, interface: str | None = None) -> Any:
    """Start with HTTP/2 switched on."""
    options = ["--http-protocols", "h2,h1"] if subject.gunicorn else []
    options += ["--http2-cleartext", "prior-knowledge"] if subject.gunicorn and not tls else []
    if subject.name == "uvicorn-worker":
        options = []
    return subject.start(
        interface,
        options=options,
        uvicorn={"http": "zttp", "http2": True},
        certificates=subject.certificates if tls else None,
        ready=None if tls else lambda server: server.answers_http2() or server.answers(patience=2),
    )


def _http2(server: Server) -> str:
    """What is wrong with its HTTP/2; empty where nothing is."""
    try:
        with server.http2() as client:
            body = client.request("/size", "POST", b"x" * 100_000).body
            return "" if body == b"100000" else f"the body comes back as {body[:40]!r}"
    except REFUSALS as exc:
        return str(exc) or type(exc).__name__


@row("HTTP/2, from browsers (TLS) and from a proxy or for gRPC (without TLS)", short="HTTP/2")
def http2(subject: Subject) -> Answer:
    """A GET and an upload of 100 kB by HTTP/2: with ALPN under TLS, and with prior knowledge without it."""
    found = {}
    for tls in (True, False):
        with speaking_http2(subject, tls=tls) as server:
            found["TLS" if tls else "without TLS"] = _http2(server)
    good = [way for way, wrong in found.items() if not wrong]
    remark = "zttp, in a subclass" if subject.name == "uvicorn-worker" else ""
    if len(good) == 2:
        return yes(remark)
    text = "; ".join(f"{way}: {wrong}" for way, wrong in found.items() if wrong)
    return partly(text) if good else no(text)


@row("HTTP/3")
def http3(subject: Subject) -> Answer:
    """A GET by QUIC, with the server's extra for it."""
    if subject.name != "hypercorn":
        return no("no setting for it")
    from . import http3 as client  # where aioquic is installed

    port = free_port("127.0.0.1")
    options = ["--quic-bind", f"127.0.0.1:{port}"]
    certificates = subject.certificates
    with subject.start(ASGI, options=options, certificates=certificates):
        body = asyncio.run(client.get(port, certificates.authority))
    return yes("its extra h3") if body == b"hello" else no(f"answered {body[:40]!r}")


def echo_of_websocket(server: Server) -> Answer:
    """Whether a WebSocket opens, and a message comes back."""
    try:
        with WebSocket(server) as client:
            return yes() if client.ask("hello") == "hello" else no("the echo is wrong")
    except REFUSALS as exc:
        return no(str(exc))


@row("WebSocket (ASGI)")
def websocket(subject: Subject) -> Answer:
    """A handshake over HTTP/1.1, and a message that comes back."""
    subject.needs(ASGI)
    with subject.start(ASGI) as server:
        return echo_of_websocket(server)


@row("WebSocket over HTTP/2 (RFC 8441)", short="WebSocket over HTTP/2")
def websocket_over_http2(subject: Subject) -> Answer:
    """An extended CONNECT on a connection of HTTP/2, and a message that comes back."""
    subject.needs(ASGI)
    with speaking_http2(subject, tls=True, interface=ASGI) as server:
        try:
            with server.http2() as client:
                return yes() if echo_over_http2(client) else no("the echo is wrong")
        except REFUSALS as exc:
            return no(str(exc) or type(exc).__name__)


@row("Trailers, for gRPC")
def trailers(subject: Subject) -> Answer:
    """A response with a trailer over HTTP/2: ASGI's extension, or gunicorn's function in the environ for WSGI."""
    with speaking_http2(subject, tls=True) as server, server.http2() as client:
        answer = client.request("/trailers", fields=[("te", "trailers")])
    if answer.trailers == [("grpc-status", "0")]:
        return yes()
    return no("the extension is not announced" if answer.body == b"not announced" else f"trailers {answer.trailers}")


@row("103 Early Hints")
def early_hints(subject: Subject) -> Answer:
    """A 103 with a Link before the response, over HTTP/1.1: ASGI's extension, or gunicorn's function for WSGI."""
    with subject.start() as server:
        if hinted(server, "/hints"):
            return yes("WSGI" if subject.interfaces == (WSGI,) else "")
        if subject.interfaces[0] == ASGI and hinted(server, "/hints?own"):
            return partly("by a message of its own, not by ASGI's extension")
    with speaking_http2(subject, tls=True) as server, server.http2() as client:
        if client.request("/hints").hints:
            return partly("over HTTP/2 only")
    return no("no 103 comes")


def hinted(server: Server, path: str) -> bool:
    """Whether a 103 with a Link comes before the response."""
    try:
        with server.connect() as client:
            first = client.request(path)
            return first.status == 103 and first.header("link") is not None and client.response().status == 200
    except REFUSALS:
        return False


@row("100 Continue only where the application wants the body")
def expect_continue(subject: Subject) -> Answer:
    """An upload with ``Expect: 100-continue``: to an application that reads it, and to one that answers without."""
    head = "POST {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with subject.start() as server:
        with server.connect(5) as client:
            client.send(head.format("/size"))
            try:
                asked = client.response().status == 100
            except REFUSALS:
                return no("no 100 comes, and the client waits")
            client.send(b"12345")
            if not asked or client.response().body != b"5":
                return no("the upload fails")
        with server.connect(5) as client:
            client.send(head.format("/refuse"))
            status = client.response().status
    if status == 100:
        return partly("a 100 comes at once, whatever the application wants")
    return yes()


@row("A client that has closed its side gets its response")
def half_closed(subject: Subject) -> Answer:
    """The client sends a request, shuts its side of the connection, and reads: a response that takes 0.5 s."""
    with subject.start() as server, server.connect(5) as client:
        client.start("/slow?0.5")
        client.socket.shutdown(socket.SHUT_WR)
        try:
            return yes() if client.response().body == b"slow" else no("another answer")
        except REFUSALS:
            return no("the connection ends without a response")


@row("Chunked uploads to WSGI applications")
def chunked_to_wsgi(subject: Subject) -> Answer:
    """A body of 1 MiB without a length: ``wsgi.input.read()`` returns all of it."""
    subject.needs(WSGI)
    with subject.start(WSGI) as server, server.connect() as client:
        chunks = b"".join(b"%x\r\n%b\r\n" % (1 << 16, b"x" * (1 << 16)) for _ in range(16))
        client.start("/size", "POST", headers="Transfer-Encoding: chunked\r\n")
        client.send(chunks + b"0\r\n\r\n")
        try:
            body = client.response().body
        except REFUSALS as exc:
            return no(f"refused: {type(exc).__name__}")
    return yes() if body == b"%d" % (1 << 20) else no(f"it reads {body.decode()} bytes")
