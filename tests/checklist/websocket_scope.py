"""Chapter W, first part: the handshake and its scope (asgiref ``specs/www.rst`` 2.5, "WebSocket Connection Scope")."""

from __future__ import annotations

from typing import Any

from .case import Case
from .http_scope import h19_app
from .servers import Subject
from .wire import Answer, App, Fields, Run, Truncated


async def scope_app(case: Case) -> None:
    """Note the scope and the first event; accept, and close."""
    case.note("scope", case.scope)
    case.note("event", await case.receive())
    await case.send({"type": "websocket.accept"})
    await case.send({"type": "websocket.close"})


def scope_of(subject: Subject, target: str = "/", headers: Fields = ()) -> dict[str, Any]:
    """The scope that a handshake gives."""
    with subject.server.websocket() as ws:
        ws.open(scope_app, target, headers)
        ws.close_code()
        scope: dict[str, Any] = ws.run.wait("scope")
        return scope


def handshake(subject: Subject, app: App, headers: Fields = ()) -> tuple[Run, Answer]:
    """The answer to a handshake."""
    with subject.server.websocket() as ws:
        run = ws.ask(app, headers=headers)
        answer = ws.answer()
    return run, answer


def w1_type_scheme_version(subject: Subject) -> None:
    """The type is "websocket", the scheme "ws", the HTTP version "1.1"."""
    scope = scope_of(subject)
    assert (scope["type"], scope["scheme"], scope["http_version"]) == ("websocket", "ws", "1.1")


def w2_the_rest_is_as_for_http(subject: Subject) -> None:
    """path, raw_path, query_string, root_path, headers, client, server and state are as for HTTP."""
    with subject.server.websocket() as ws:
        ws.open(scope_app, "/caf%C3%A9?x=%20", [(b"X-A", b"1"), (b"X-A", b"2")])
        ws.close_code()
        scope = ws.run.wait("scope")
        assert list(scope["client"]) == list(ws.sock.getsockname())
        assert list(scope["server"]) == list(subject.server.address)
    assert (scope["path"], scope["raw_path"]) == ("/café", b"/caf%C3%A9")
    assert (scope["query_string"], scope["root_path"]) == (b"x=%20", "")
    assert [value for name, value in scope["headers"] if name == b"x-a"] == [b"1", b"2"]
    assert scope["state"]["text"] == "from startup"


def w3_subprotocols(subject: Subject) -> None:
    """subprotocols are all offers, in order, over all their headers; an empty list without one."""
    name = b"Sec-WebSocket-Protocol"
    offers = [(name, b"one,  two"), (name, b"three")]
    found = list(scope_of(subject, headers=offers)["subprotocols"])
    assert found == ["one", "two", "three"], f"they are {found}"
    assert list(scope_of(subject)["subprotocols"]) == []


async def w4_app(case: Case) -> None:
    case.note("event", await case.receive())
    await case.released()
    await case.send({"type": "websocket.accept"})
    await case.send({"type": "websocket.close"})


def w4_connect_comes_first(subject: Subject) -> None:
    """The first event is websocket.connect, and the handshake waits for the application."""
    with subject.server.websocket() as ws:
        run = ws.ask(w4_app)
        assert run.wait("event")["type"] == "websocket.connect"
        assert ws.silent(), "the handshake was answered before the application did"
        run.release()
        assert ws.answer().status == 101


async def w5_app(case: Case) -> None:
    await case.receive()
    headers = [(b"x-a", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2")]
    await case.send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
    await case.send({"type": "websocket.close"})


def w5_accept_with_subprotocol_and_headers(subject: Subject) -> None:
    """websocket.accept completes the handshake, with its subprotocol and its headers in order."""
    _, answer = handshake(subject, w5_app, [(b"Sec-WebSocket-Protocol", b"one, two")])
    assert answer.status == 101
    assert answer.all(b"sec-websocket-protocol") == [b"two"]
    own = [field for field in answer.headers if field[0] in (b"x-a", b"set-cookie")]
    assert own == [(b"x-a", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2")]


async def w6_app(case: Case) -> None:
    await case.receive()
    await case.refused({"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"smuggled")]})


def w6_subprotocol_among_the_headers(subject: Subject) -> None:
    """A Sec-WebSocket-Protocol among the headers of websocket.accept is refused or dropped."""
    try:
        _, answer = handshake(subject, w6_app, [(b"Sec-WebSocket-Protocol", b"one")])
    except Truncated:  # refused, and the handshake with it
        return
    assert b"smuggled" not in answer.all(b"sec-websocket-protocol"), "it is sent"


async def w7_app(case: Case) -> None:
    await case.receive()
    await case.send({"type": "websocket.close"})


def w7_close_before_accept(subject: Subject) -> None:
    """websocket.close instead of accept is an HTTP 403."""
    _, answer = handshake(subject, w7_app)
    assert answer.status == 403, f"it is {answer.status}"


async def w8_app(case: Case) -> None:
    await case.receive()
    raise RuntimeError("before accept")


def w8_exception_before_accept(subject: Subject) -> None:
    """An exception before accept is an HTTP 500 (should)."""
    _, answer = handshake(subject, w8_app)
    assert answer.status == 500, f"it is {answer.status}"


async def w9_app(case: Case) -> None:
    await case.receive()


def w9_return_before_accept(subject: Subject) -> None:
    """An application that returns without an answer refuses the handshake; nothing hangs."""
    _, answer = handshake(subject, w9_app)
    assert answer.status in (403, 500), f"it is {answer.status}"


def w26_bad_handshakes(subject: Subject) -> None:
    """A wrong version is a 426 that names the right one; a missing or bad key or another method is a 400."""
    changes: list[tuple[str, dict[str, bytes | None], tuple[int, ...]]] = [
        ("GET", {"version": b"12"}, (426,)),
        ("GET", {"version": None}, (400, 426)),
        ("GET", {"key": None}, (400,)),
        ("GET", {"key": b"short"}, (400,)),
        ("POST", {}, (400, 405)),
    ]
    for method, change, expected in changes:
        with subject.server.websocket() as ws:
            run = ws.ask(scope_app, method=method, change=change)
            answer = ws.answer()
            called = [scope["type"] for scope in run.all("scope")]
            if "websocket" not in called and answer.status == 200:
                continue  # taken as an ordinary request, as RFC 9110 7.8 allows
            assert answer.status in expected, f"{method} {change}: {answer.status}"
            assert called == [], f"{method} {change}: the application is called"
            if answer.status == 426:
                assert answer.one(b"sec-websocket-version") == b"13"


def w28_state_is_a_shallow_copy(subject: Subject) -> None:
    """state is a shallow copy of the lifespan's, as for HTTP."""
    states = []
    for _ in range(2):
        run, _ = handshake(subject, h19_app)
        states.append(run.wait("state"))
    first, second = states
    assert first is not None, "there is no state"
    assert "own" not in second
    assert len(second["shared"]) == len(first["shared"]) + 1
