"""Hybrid: what it refuses, what is found inside of a middleware, and what it is on any ASGI server."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import hybridworker
from hybridworker import Hybrid, as_asgi, as_wsgi
from hybridworker.application.hybrid import hybrid_within
from hybridworker.asgi import ASGIApp, Message, Receive, Scope, Send
from hybridworker.errors import ConfigurationError

ROOT = Path(hybridworker.__file__).parents[1]


def pages(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A WSGI application that shows where it is mounted."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]


class Part:
    """An ASGI application that writes down what it is called with. ``fails`` is the event that it fails at."""

    def __init__(self, name: str, events: list[str], fails: str = "", lifespan: bool = True) -> None:
        self.name, self.events, self.fails, self.lifespan = name, events, fails, lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            if not self.lifespan:
                raise ValueError("no lifespan here")
            for event in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{event}"
                self.events.append(f"{self.name} {event}")
                if self.fails == event:
                    await send({"type": f"lifespan.{event}.failed", "message": "no luck"})
                    return
                scope["state"]["name"] = self.name
                await send({"type": f"lifespan.{event}.complete"})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept", "subprotocol": self.name})
        else:
            body = f"{self.name}|{scope['root_path']}|{scope['path']}|{scope.get('state')}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})


def call(app: ASGIApp, scope: dict[str, Any], *events: str) -> list[Message]:
    """Call ``app`` once; returns what it sends."""
    sent: list[Message] = []
    waiting: list[Message] = [{"type": event} for event in events]

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        await app(scope, receive, send)

    asyncio.run(main())
    return sent


def http(path: str, root_path: str = "") -> dict[str, Any]:
    """The scope of a GET."""
    return {
        "type": "http", "method": "GET", "http_version": "1.1", "path": path, "raw_path": path.encode(),
        "query_string": b"", "root_path": root_path, "headers": [],
    }  # fmt: skip


def body(messages: list[Message]) -> str:
    return b"".join(message.get("body", b"") for message in messages).decode()


async def other(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that is never called."""


# -- construction


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"routes": {"ws": other}}, r"routes\['ws'\]: a prefix begins with a slash: '/ws'"),
        ({"mounts": {"/ws/": other}}, r"mounts\['/ws/'\]: a prefix does not end with a slash: '/ws'"),
        ({"routes": {"/": other}}, r"routes\['/'\]: .* the first argument"),
        ({"routes": {"": other}}, r"routes\[''\]: a prefix begins with a slash"),
        ({"routes": {"/a": other}, "mounts": {"/a": other}}, r"mounts\['/a'\] and routes\['/a'\] claim the same"),
        ({"routes": {b"/a": other}}, r"routes\[b'/a'\]: a prefix is a string"),
        ({"routes": {"/a\n": other}}, r"routes\['/a\\n'\]: a prefix is printable"),
        ({"routes": {"/%77s": other}}, r"routes\['/%77s'\]: .* the decoded path, without its query: '/ws'"),
        ({"mounts": {"/ws?a=/": other}}, r"mounts\['/ws\?a=/'\]: a prefix does not end with a slash"),
        ({"mounts": {"/ws?a=1": other}}, r"mounts\['/ws\?a=1'\]: .* the decoded path, without its query: '/ws'"),
        ({"websocket": Hybrid(other)}, "websocket is a Hybrid: a Hybrid may not contain another one"),
        ({"websocket": functools.partial(Hybrid(other))}, "websocket wraps a Hybrid: a Hybrid may not contain another"),
        ({"routes": [("/x", other)]}, "routes is of type list: it maps prefixes to applications"),
        ({"mounts": {"/x": as_asgi(Hybrid(other))}}, r"mounts\['/x'\] is a Hybrid"),
        ({"mounts": {"/x": "shop:app"}}, r"mounts\['/x'\] is the string 'shop:app': import the application"),
        ({"mounts": {"/x": 5}}, r"mounts\['/x'\] is of type int, and no application"),
        ({"mounts": {"/x": None}}, r"mounts\['/x'\] is of type NoneType"),
        ({}, "there is no application in it"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_key(arguments: dict[str, Any], line: str) -> None:
    """One line, when the Hybrid is made; a ValueError to the code that makes it."""
    with pytest.raises(ValueError, match=line) as info:
        Hybrid(**arguments)
    assert isinstance(info.value, ConfigurationError)
    assert "\n" not in str(info.value)


def test_the_parts_stand_in_the_order_named() -> None:
    """Keys as in the code, names for logs."""
    app = Hybrid(pages, mounts={"/mcp": other}, websocket=other, routes={"/b": other, "/a": other})
    assert [part.key for part in app.parts] == [
        "default",
        "websocket",
        "routes['/b']",
        "routes['/a']",
        "mounts['/mcp']",
    ]
    assert [part.name for part in app.parts] == ["default", "websocket", "/b", "/a", "/mcp"]
    assert repr(app) == "<Hybrid of default, websocket, routes['/b'], routes['/a'], mounts['/mcp']>"


def test_importing_it_imports_neither_gunicorn_nor_a_loop() -> None:
    """The worker class comes when it is asked for."""
    program = (
        "import sys\n"
        "from hybridworker import Hybrid, as_asgi, as_wsgi\n"
        "assert not {'gunicorn', 'uvloop', 'httptools'} & set(sys.modules), sys.modules\n"
        "import hybridworker\n"
        "assert hybridworker.Worker.__name__ == 'Worker'\n"
        "assert 'gunicorn' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


# -- inside of a middleware


class Middleware:
    """As most are written."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Hostile:
    """Runs code for whatever it is asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"asked for {name}")


def test_a_hybrid_is_found_inside_of_what_wraps_it() -> None:
    """Attributes, closures, partials, methods, lists; no code of the application runs."""
    app = Hybrid(pages)

    def wrapped(inner: Any) -> Any:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)

        return call

    holder = Middleware(None)
    holder.routes = [Hostile(), (Middleware(app),)]  # type: ignore[attr-defined]
    for outer in (app, Middleware(Middleware(app)), wrapped(app), functools.partial(wrapped(app)), holder,
                  Middleware(app).__call__):  # fmt: skip
        assert hybrid_within(outer) is app
    for outer in (pages, Middleware(pages), Hostile(), Hybrid, None):
        assert hybrid_within(outer) is None


# -- on any server


def test_each_path_reaches_its_part() -> None:
    """WSGI through asgiref; a mount has its prefix in root_path, and its path whole."""
    events: list[str] = []
    app = Hybrid(pages, routes={"/events": Part("e", events)}, mounts={"/mcp": Part("m", events), "/shop": pages})
    assert body(call(app, http("/x"))) == "|/x"
    assert body(call(app, http("/shop/y"))) == "/shop|/y"
    assert body(call(app, http("/events/1"))) == "e||/events/1|None"
    assert body(call(app, http("/mcp/1"))) == "m|/mcp|/mcp/1|None"
    assert body(call(app, http("/api/mcp/1", "/api"))) == "m|/api/mcp|/api/mcp/1|None"
    assert body(call(app, http("/mcp/1", "/api"))) == "m|/api/mcp|/api/mcp/1|None"
    assert body(call(app, http("/api/shop/1", "/api"))) == "/api/shop|/1"


def test_what_nothing_claims_is_answered_with_404() -> None:
    """WebSockets with a denial response where the server knows those."""
    app = Hybrid(routes={"/a": pages})
    assert call(app, http("/b"))[0]["status"] == 404
    scope = {**http("/b"), "type": "websocket"}
    assert call(app, scope, "websocket.connect") == [{"type": "websocket.close"}]
    scope["extensions"] = {"websocket.http.response": {}}
    start, end = call(app, scope, "websocket.connect")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 404)
    assert end["type"] == "websocket.http.response.body"


def test_a_websocket_reaches_the_part_that_takes_it() -> None:
    """By type, and by path."""
    app = Hybrid(pages, websocket=Part("all", []), routes={"/one": Part("one", [])})
    for path, name in (("/x", "all"), ("/one/x", "one")):
        sent = call(app, {**http(path), "type": "websocket"}, "websocket.connect")
        assert sent == [{"type": "websocket.accept", "subprotocol": name}]


def test_lifespan_is_fanned_out_in_order_and_stopped_in_reverse() -> None:
    """One for each object, with a state of its own; what does not know it is served without."""
    events: list[str] = []
    a, b, none = Part("a", events), Part("b", events), Part("none", events, lifespan=False)
    app = Hybrid(pages, websocket=a, routes={"/a": a, "/b": b}, mounts={"/none": none})
    sent = call(app, {"type": "lifespan", "state": {}}, "lifespan.startup", "lifespan.shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert events == ["a startup", "b startup", "b shutdown", "a shutdown"]
    assert body(call(app, {**http("/b"), "state": {}})).endswith("{'name': 'b'}")


def test_a_failure_stops_those_that_have_started() -> None:
    """And the server is told which part it was."""
    events: list[str] = []
    app = Hybrid(Part("a", events), routes={"/b": Part("b", events, "startup")}, mounts={"/c": Part("c", events)})
    sent = call(app, {"type": "lifespan", "state": {}}, "lifespan.startup")
    assert sent == [{"type": "lifespan.startup.failed", "message": "routes['/b']: no luck"}]
    assert events == ["a startup", "b startup", "a shutdown"]


def test_what_a_part_raises_after_its_failure_reaches_the_server() -> None:
    """As it would from the part alone: Starlette raises, and its test client waits for that."""

    async def starlette(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        call(Hybrid(pages, routes={"/x": starlette}), {"type": "lifespan"}, "lifespan.startup")


def test_a_shutdown_that_fails_does_not_keep_the_others_from_theirs() -> None:
    """All are named that failed."""
    events: list[str] = []
    app = Hybrid(Part("a", events, "shutdown"), routes={"/b": Part("b", events, "shutdown")})
    sent = call(app, {"type": "lifespan", "state": {}}, "lifespan.startup", "lifespan.shutdown")
    assert sent[-1] == {
        "type": "lifespan.shutdown.failed",
        "message": "routes['/b']: no luck; default: no luck",
    }
    assert events[-2:] == ["b shutdown", "a shutdown"]


def test_a_part_that_is_neither_fails_the_startup_with_its_key() -> None:
    """A server that takes an exception for "no lifespan" would serve errors."""

    def factory() -> None:
        raise AssertionError("called")

    app = Hybrid(pages, routes={"/x": factory})
    (failed,) = call(app, {"type": "lifespan"}, "lifespan.startup")
    assert failed["type"] == "lifespan.startup.failed"
    assert "routes['/x']: " in failed["message"] and "brackets" in failed["message"]
    with pytest.raises(ValueError, match="brackets"):
        call(app, http("/"))


def test_the_user_s_word_is_obeyed_where_the_signature_does_not_tell() -> None:
    """On any server."""

    def asgi(*args: Any) -> Any:
        return other(*args)

    def wsgi(*args: Any) -> Any:
        return pages(*args)

    app = Hybrid(as_wsgi(wsgi), routes={"/a": as_asgi(asgi)})
    assert body(call(app, http("/x"))) == "|/x"
    assert call(app, http("/a")) == []
    with pytest.raises(ValueError, match=r"say hybridworker\.as_asgi"):
        call(Hybrid(lambda a, b, c, d: None), http("/"))
