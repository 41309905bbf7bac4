"""Chapter C, the core of ASGI (asgiref ``specs/asgi.rst`` 3.0)."""

from __future__ import annotations

import asyncio
from typing import Any

from .case import Case, body, start
from .registry import NotDecidable
from .servers import Options, Subject
from .wire import TEXT, App, Wire


async def seen_app(case: Case) -> None:
    """Note the scope and its types; answer, or accept and close."""
    case.note("types", (type(case.scope) is dict, type(case.scope["type"]) is str))
    case.note("scope", case.scope)
    case.note("event", await case.receive())
    if case.scope["type"] == "websocket":
        await case.send({"type": "websocket.accept"})
        await case.send({"type": "websocket.close"})
    else:
        await case.answer()


def scopes(subject: Subject) -> list[tuple[tuple[bool, bool], dict[str, Any], dict[str, Any]]]:
    """What :func:`seen_app` notes of a request and of a WebSocket: types, scope, first event."""
    runs = [subject.server.call(seen_app, "POST", "/a?b", content=b"x")[0]]
    with subject.server.websocket() as ws:
        runs.append(ws.open(seen_app, "/a?b"))
        ws.close_code()
    return [(run.wait("types"), run.wait("scope"), run.wait("event")) for run in runs]


def c1_called_once_with_three_arguments(subject: Subject) -> None:
    """The application is called as app(scope, receive, send), once per request, WebSocket and lifespan."""
    run, _ = subject.server.call(seen_app)
    assert run.all("call") == ["http"]
    with subject.server.websocket() as ws:
        ws.open(seen_app)
        ws.close_code()
        ws.run.ended()
        assert ws.run.all("call") == ["websocket"]
    assert subject.server.lifespan.all("call") == ["lifespan"]


def c2_scope_is_a_dict_of_version_3(subject: Subject) -> None:
    """A scope is a dict, its type a str, and its ASGI version is "3.0"."""
    for types, scope, _ in scopes(subject):
        assert types == (True, True)
        assert scope["asgi"]["version"] == "3.0"


def c3_spec_version_is_named(subject: Subject) -> None:
    """A scope names the version of its own specification: 2.5 for HTTP and WebSocket, 2.0 for lifespan."""
    versions = [scope["asgi"].get("spec_version") for _, scope, _ in scopes(subject)]
    versions += [scope["asgi"].get("spec_version") for scope in subject.server.lifespan.all("scope")]
    assert versions == ["2.5", "2.5", "2.0"], f"it names {versions}"


def c4_only_plain_values(subject: Subject) -> None:
    """Keys of scopes and events are str, and values are bytes, str, numbers, lists, dicts, True, False or None."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                assert isinstance(key, str), f"the key {key!r} of {where}"
                if (where, key) != ("scope", "state"):  # what is in there is the application's
                    check(item, key)
        elif isinstance(value, list | tuple):
            assert value[:1] != ("object",), f"{where} holds a {value[1]}"
            for item in value:
                check(item, where)

    for _, scope, event in scopes(subject):
        check(scope, "scope")
        check(event, "event")


def c5_asgi_2_is_served(subject: Subject) -> None:
    """An application in the two-step form of ASGI 2 is served (should)."""
    with subject.start(Options(app="Asgi2")) as server:
        run, answer = server.call(seen_app)
        assert answer.body == b"ok"
        assert run.wait("scope")["type"] == "http"


async def c6_app(case: Case) -> None:
    if case.scope["type"] == "websocket":
        await case.receive()
        await case.refused({"type": "websocket.nonsense"})
        await case.send({"type": "websocket.accept"})
        await case.refused({"type": "websocket.nonsense"})
        await case.send({"type": "websocket.close"})
        return
    await case.refused({"type": "http.response.nonsense"})
    await case.send(start(200, [(b"content-length", b"2")]))
    await case.refused({"type": "http.response.nonsense"})
    await case.send(body(b"ok"))


def c6_unknown_events_are_refused(subject: Subject) -> None:
    """An event of an unknown type raises out of send()."""
    run, _ = subject.server.call(c6_app)
    assert len(run.all("refused")) == 2, f"taken: {run.all('taken')}"
    with subject.server.websocket() as ws:
        run = ws.ask(c6_app)
        run.ended()
        assert len(run.all("refused")) == 2, f"taken: {run.all('taken')}"


async def c7_app(case: Case) -> None:
    await case.refused({"type": "http.response.start"})
    await case.refused({})


def c7_missing_keys_are_refused(subject: Subject) -> None:
    """An event that lacks a required key raises out of send()."""
    with subject.server.connect() as wire:
        run = wire.request(c7_app)
        run.ended()
    assert len(run.all("refused")) == 2, f"taken: {run.all('taken')}"


async def c8_headers_app(case: Case) -> None:
    if not await case.refused(start(200, [("x-a", "b")])):
        await case.refused(body(b"ok"))


async def c8_status_app(case: Case) -> None:
    if not await case.refused(start("200")):
        await case.refused(body(b"ok"))


async def c8_body_app(case: Case) -> None:
    await case.send(start(200, [(b"content-length", b"2")]))
    await case.refused(body("ok"))


def c8_wrong_types_are_refused(subject: Subject) -> None:
    """An event with a value of the wrong type raises out of send()."""
    for app in (c8_headers_app, c8_status_app, c8_body_app):
        with subject.server.connect() as wire:
            run = wire.request(app)
            run.ended()
            assert run.all("refused"), f"{app.__name__}: taken"


async def c9_app(case: Case) -> None:
    if case.scope["type"] == "websocket":
        await case.receive()
        await case.send({"type": "websocket.accept", "more": 1})
        await case.send({"type": "websocket.send", "text": "ok", "more": 1})
        await case.send({"type": "websocket.close", "more": 1})
        return
    await case.send(start(200, [(b"content-length", b"2")], more=object()))
    await case.send({**body(b"ok"), "more": object()})


def c9_unknown_keys_are_ignored(subject: Subject) -> None:
    """Additional keys in an event never raise."""
    run, answer = subject.server.call(c9_app)
    assert (answer.body, run.ended()) == (b"ok", None)
    with subject.server.websocket() as ws:
        ws.open(c9_app)
        assert ws.message() == (TEXT, b"ok")
        ws.close_code()
        assert ws.run.ended() is None


async def c10_before_app(case: Case) -> None:
    raise RuntimeError("nothing was started")


async def c10_after_app(case: Case) -> None:
    await case.send(start(200, [(b"content-length", b"10")]))
    await case.send(body(b"five.", more=True))
    await case.released()
    raise RuntimeError("amid a response")


def c10_an_exception_ends_only_its_own_connection(subject: Subject) -> None:
    """An exception is a 500, or an aborted connection once the response has begun, and harms nobody else."""
    with subject.server.connect() as other, subject.server.connect() as wire:
        other.request(seen_app)
        assert other.answer().body == b"ok"
        _, answer = subject.server.call(c10_before_app)
        assert answer.status == 500
        run = wire.request(c10_after_app)
        assert wire.line().startswith(b"HTTP/1.1 200")
        wire.fields()
        assert wire.exactly(5) == b"five."
        run.release()
        assert wire.closed(), "the connection goes on after a response that was cut"
        other.request(seen_app)
        assert other.answer().body == b"ok"


async def c11_app(case: Case) -> None:
    await case.send(start())
    await case.send(body(b"first", more=True))
    while (await case.receive())["type"] != "http.disconnect":
        pass
    for _ in range(100):
        await case.send(body(b"x" * 1000, more=True))


async def loud_app(case: Case) -> None:
    """Raise something that every server logs."""
    raise RuntimeError(f"loud {case.token}")


def logged(subject: Subject, before: int, app: App) -> bool:
    """Whether the log speaks, behind position ``before``, of an exception out of ``app``."""
    run, _ = subject.server.call(loud_app)
    subject.server.wait_for_log(f"loud {run.token}")  # what came earlier is in the log by now
    since = subject.server.log()[before:]
    return app.__name__ in since or "Disconnected" in since


def c11_its_own_exception_is_not_an_error(subject: Subject) -> None:
    """What send() raises on a closed connection is not logged as an error when the application lets it escape."""
    before = len(subject.server.log())
    with subject.server.connect() as wire:
        run = wire.request(c11_app)
        wire.exactly(20)
        wire.reset()
    if run.ended() is None:
        raise NotDecidable("send() never raised")
    assert not logged(subject, before, c11_app), "it is logged"


def usable(wire: Wire) -> bool:
    """Whether another request on the connection is answered rightly, or refused by closing without a stray byte."""
    try:
        wire.request(seen_app)
        if not wire.peek():
            return True
        answer = wire.answer()
    except ConnectionError:
        return True
    except (TimeoutError, AssertionError):
        return False
    return (answer.status, answer.body) == (200, b"ok")


async def c12_app(case: Case) -> None:
    await case.answer(b"first")
    await case.refused(body(b"late"))
    await case.refused(start())
    case.note("done")


def c12_late_messages_do_nothing(subject: Subject) -> None:
    """Messages behind the end of a response put nothing on the wire."""
    with subject.server.connect() as wire:
        run = wire.request(c12_app)
        assert wire.answer().body == b"first"
        run.wait("done")
        assert usable(wire)


def c13_extensions_are_dicts(subject: Subject) -> None:
    """scope["extensions"], where present, maps names to dicts."""
    for _, scope, _ in scopes(subject):
        for name, value in (scope.get("extensions") or {}).items():
            assert isinstance(name, str)
            assert isinstance(value, dict), f"{name} is {value!r}"


async def c14_app(case: Case) -> None:
    case.note("scope", case.scope)
    case.scope["leak"] = 1
    case.scope["asgi"]["leak"] = 1
    if isinstance(case.scope["headers"], list):
        case.scope["headers"].append((b"leak", b"1"))
    for name in ("state", "extensions"):
        if name in case.scope:
            case.scope[name]["leak"] = {}
    for value in (case.scope.get("extensions") or {}).values():
        value["leak"] = 1
    await case.answer()


def c14_scopes_are_not_shared(subject: Subject) -> None:
    """What a request changes in its scope is not there in the next one on the same connection."""
    with subject.server.connect() as wire:
        wire.request(c14_app)
        wire.answer()
        run = wire.request(c14_app)
        wire.answer()
        assert "leak" not in repr(run.wait("scope"))


async def c15_app(case: Case) -> None:
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def reading() -> None:
        more = True
        while more:
            event = await case.receive()
            await pieces.put(event.get("body", b""))
            more = event.get("more_body", False)
        await pieces.put(None)

    async def writing() -> None:
        await case.send(start())
        while (piece := await pieces.get()) is not None:
            await case.send(body(piece, more=True))
        await case.send(body())

    await asyncio.gather(reading(), writing())


def c15_receive_and_send_at_the_same_time(subject: Subject) -> None:
    """receive() and send() can be awaited by two tasks at once."""
    pieces = [bytes([index]) * 4096 for index in range(64)]
    with subject.server.connect() as wire:
        run, head = wire.head(c15_app, "POST", headers=[(b"Content-Length", b"%d" % (4096 * 64))])
        wire.send(head)
        for piece in pieces:
            wire.send(piece)
        assert wire.answer().body == b"".join(pieces)
        assert run.ended() is None


async def c16_app(case: Case) -> None:
    await case.send(start())
    await case.flood(body(b"x" * 65536, more=True))


def c16_send_waits_for_the_client(subject: Subject) -> None:
    """send() waits while the client does not read."""
    with subject.server.connect() as wire:
        run = wire.request(c16_app)
        run.wait("blocked", 30)
        assert not run.all("unbounded")
