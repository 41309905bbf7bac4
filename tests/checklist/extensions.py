"""Chapter X, first part: denial response, early hints, trailers (asgiref ``docs/extensions.rst``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .case import Case, body, length, start
from .core import usable
from .registry import NotOffered
from .servers import Server, Subject
from .websocket_scope import handshake

#: What a client says that takes trailers. Their extension may be announced to nobody else.
TE = [(b"TE", b"trailers")]


async def extensions_app(case: Case) -> None:
    """Note the extensions, and refuse or answer."""
    case.note("extensions", case.scope.get("extensions"))
    if case.scope["type"] == "websocket":
        await case.receive()
        await case.send({"type": "websocket.close"})
    else:
        await case.answer()


def offered(server: Server, version: str = "1.1") -> dict[str, Any]:
    """The extensions of a request that would take trailers."""
    run, _ = server.call(extensions_app, headers=TE, version=version)
    return run.wait("extensions") or {}


def require(subject: Subject, name: str) -> None:
    """Give up where the extension is not offered."""
    if name not in offered(subject.server):
        raise NotOffered(name)


# -- websocket.http.response


def require_denial(subject: Subject) -> None:
    run, _ = handshake(subject, extensions_app)
    if "websocket.http.response" not in (run.wait("extensions") or {}):
        raise NotOffered("websocket.http.response")


def deny_start(status: int, headers: Any = ()) -> dict[str, Any]:
    return {"type": "websocket.http.response.start", "status": status, "headers": headers}


def deny_body(content: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "websocket.http.response.body", "body": content, "more_body": more}


async def x1_app(case: Case) -> None:
    await case.receive()
    await case.send(deny_start(401, [(b"x-a", b"1"), *length(4)]))
    await case.send(deny_body(b"nope"))
    case.note("accept", await case.refused({"type": "websocket.accept"}))
    case.note("send", await case.refused({"type": "websocket.send", "text": "x"}))


def x1_denial_response(subject: Subject) -> None:
    """The events of a denial response give exactly that HTTP response; WebSocket events raise afterwards."""
    require_denial(subject)
    run, answer = handshake(subject, x1_app)
    assert (answer.status, answer.body, answer.all(b"x-a")) == (401, b"nope", [b"1"])
    assert run.wait("accept"), "accept is taken after a denial"
    assert run.wait("send"), "a message is taken after a denial"


async def x2_length_app(case: Case) -> None:
    await case.receive()
    await case.send(deny_start(403, length(6)))
    await case.send(deny_body(b"one", more=True))
    await case.send(deny_body(b"two"))


async def x2_chunked_app(case: Case) -> None:
    await case.receive()
    await case.send(deny_start(403))
    await case.send(deny_body(b"one", more=True))
    await case.send(deny_body(b"two"))


def x2_denial_in_parts(subject: Subject) -> None:
    """A denial may have several body parts, with and without Content-Length; then the connection is closed."""
    require_denial(subject)
    for app in (x2_length_app, x2_chunked_app):
        with subject.server.websocket() as ws:
            ws.ask(app)
            answer = ws.answer()
            assert (answer.status, answer.body) == (403, b"onetwo")
            assert ws.closed(), "the connection stays open"


async def x3_app(case: Case) -> None:
    await case.receive()
    await case.send({"type": "websocket.accept"})
    await case.refused(deny_start(403))
    await case.send({"type": "websocket.close"})


def x3_denial_after_accept(subject: Subject) -> None:
    """A denial response after accept raises."""
    require_denial(subject)
    with subject.server.websocket() as ws:
        run = ws.open(x3_app)
        ws.close_code()
        assert run.all("refused"), "it is taken"


# -- http.response.early_hint


def hint(*links: bytes) -> dict[str, Any]:
    return {"type": "http.response.early_hint", "links": links}


async def x13_app(case: Case) -> None:
    await case.send(hint(b"</early.css>; rel=preload"))
    await case.send(start(200, length(2)))
    await case.send(hint(b"</a.css>; rel=preload", b"</b.js>; rel=preload"))
    await case.send(hint(b"</c.js>; rel=preload"))
    await case.send(body(b"ok"))


def x13_early_hints(subject: Subject) -> None:
    """Each early hint is a 103 with its links, before the final head, also when it is sent before the start."""
    require(subject, "http.response.early_hint")
    with subject.server.connect() as wire:
        wire.request(x13_app)
        answer = wire.answer()
        assert [status for status, _ in answer.informational] == [103] * 3
        assert [[value for name, value in fields if name == b"link"] for _, fields in answer.informational] == [
            [b"</early.css>; rel=preload"],
            [b"</a.css>; rel=preload", b"</b.js>; rel=preload"],
            [b"</c.js>; rel=preload"],
        ]
        assert answer.body == b"ok"
        assert usable(wire)


def x14_no_informational_responses_for_http_10(subject: Subject) -> None:
    """An HTTP/1.0 client gets no 1xx."""
    require(subject, "http.response.early_hint")
    _, answer = subject.server.call(x13_app, version="1.0")
    assert (answer.informational, answer.body) == ([], b"ok")


async def x15_app(case: Case) -> None:
    await case.send(start(200, length(4)))
    await case.send(body(b"ab", more=True))
    await case.refused(hint(b"</late.css>"))
    await case.send(body(b"cd"))


def x15_late_hints(subject: Subject) -> None:
    """A hint behind the head is ignored, and never gets into the response."""
    require(subject, "http.response.early_hint")
    with subject.server.connect() as wire:
        wire.request(x15_app)
        assert wire.answer().body == b"abcd"
        assert usable(wire)


async def x16_app(case: Case) -> None:
    await case.refused(hint(b"</a>\r\nSet-Cookie: evil=1"))
    await case.refused(hint(b"</a>\nevil: 1"))
    await case.answer()


def x16_links_are_validated(subject: Subject) -> None:
    """A link with CR or LF in it is refused."""
    require(subject, "http.response.early_hint")
    run, answer = subject.server.call(x16_app)
    assert answer.body == b"ok"
    for _, fields in answer.informational:
        assert not {name for name, _ in fields} & {b"set-cookie", b"evil"}
    assert len(run.all("refused")) == 2, "it is taken"


# -- http.response.trailers


def trailers(headers: Sequence[tuple[bytes, bytes]], more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": more}


async def x17_app(case: Case) -> None:
    await case.send(start(200, [(b"trailer", b"x-sum, x-end")], trailers=True))
    await case.send(body(b"one ", more=True))
    await case.send(body(b"two"))
    await case.released()
    await case.send(trailers([(b"x-sum", b"1"), (b"x-end", b"2")]))


def x17_trailers(subject: Subject) -> None:
    """With trailers promised the response ends when they have come, and they follow the body."""
    require(subject, "http.response.trailers")
    with subject.server.connect() as wire:
        run = wire.request(x17_app, headers=TE)
        run.release()
        answer = wire.answer()
        assert (answer.body, answer.trailers) == (b"one two", [(b"x-sum", b"1"), (b"x-end", b"2")])
        assert usable(wire)


def x18_trailers_only_on_demand(subject: Subject) -> None:
    """Trailers go out only to a client that sent "TE: trailers"; the response ends rightly either way."""
    require(subject, "http.response.trailers")
    cases: list[tuple[list[tuple[bytes, bytes]], str]] = [([], "1.1"), (TE, "1.0"), ([(b"TE", b"gzip")], "1.1")]
    for headers, version in cases:
        with subject.server.connect() as wire:
            wire.request(x17_app, headers=headers, version=version).release()
            answer = wire.answer()
            assert (answer.body, answer.trailers) == (b"one two", [])
            assert version == "1.0" or usable(wire)


async def x19_app(case: Case) -> None:
    await case.send(start(200, trailers=True))
    await case.send(body(b"ok"))
    await case.send(trailers([(b"x-a", b"1")], more=True))
    await case.send(trailers([(b"x-b", b"2")], more=True))
    await case.send(trailers([(b"x-c", b"3")]))


def x19_trailers_in_parts(subject: Subject) -> None:
    """Several trailers events add up while more_trailers is True."""
    require(subject, "http.response.trailers")
    _, answer = subject.server.call(x19_app, headers=TE)
    assert answer.trailers == [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]


async def x20_app(case: Case) -> None:
    await case.send(start(200, length(2), trailers=True))
    await case.send(body(b"ok"))
    await case.refused(trailers([(b"x-a", b"1")]))


def x20_trailers_with_a_content_length(subject: Subject) -> None:
    """With Content-Length there is no place for trailers: they are refused or dropped."""
    require(subject, "http.response.trailers")
    with subject.server.connect() as wire:
        wire.request(x20_app, headers=TE)
        assert wire.answer().body == b"ok"
        assert usable(wire)


# -- what HTTP/1.1 cannot carry, and what must not be there


def x21_no_push(subject: Subject) -> None:
    """Server push is not announced on HTTP/1.1."""
    assert "http.response.push" not in offered(subject.server)


def x22_no_debug(subject: Subject) -> None:
    """The debug extension is never announced."""
    assert "http.response.debug" not in offered(subject.server)
