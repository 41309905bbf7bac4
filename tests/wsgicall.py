"""One call of a WSGI application through WSGIMiddleware, on a real loop, without a server."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from wsgiref.validate import validator

from gunicorn.config import Config

from hybridworker.asgi import Headers, Message, Scope
from hybridworker.config.settings import Settings
from hybridworker.errors import ClientDisconnected
from hybridworker.wsgi.middleware import WSGIMiddleware
from hybridworker.wsgi.threads import ThreadPool
from tests.waiting import DEADLINE, run


def make_settings(**changes: Any) -> Settings:
    """gunicorn's defaults, with ``changes`` to the fields of :class:`Settings`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDWORKER_")}
    return dataclasses.replace(Settings.from_gunicorn(Config(), environ), **changes)


def make_scope(target: bytes = b"/", headers: Headers | None = None, **changes: Any) -> Scope:
    """The scope of a GET for ``target`` over TCP, with ``changes``."""
    path, _, query = target.partition(b"?")
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.decode("latin-1"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"example.org")] if headers is None else headers,
        "client": ("127.0.0.1", 40000),
        "server": ("127.0.0.1", 8000),
        "state": {},
        "extensions": {},
        "hybridworker.target": target,
    }
    scope.update(changes)
    return scope


def post(length: int | None, *headers: tuple[bytes, bytes]) -> Scope:
    """The scope of a POST with ``headers`` whose body has ``length`` bytes, or is chunked if that is None."""
    framing = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    return make_scope(method="POST", headers=[(b"host", b"x"), *headers, framing])


class Client:
    """
    The other end: ``receive()`` and ``send()``, and what came through them.

    ``body`` is what the client sends, message by message; None is a client that leaves.
    While ``reads`` is not set, ``send()`` waits, as it does while a client does not read.
    """

    def __init__(self, *body: bytes | None) -> None:
        self.messages: list[Message] = []
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.asked = 0  #: calls of receive()
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = False
        self.changed = asyncio.Event()
        for number, part in enumerate(body, 1):
            self.upload(part, more=number < len(body))

    def upload(self, part: bytes | None, *, more: bool = True) -> None:
        self.incoming.put_nowait(
            {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": more}
        )

    async def receive(self) -> Message:
        self.asked += 1
        self.changed.set()
        return await self.incoming.get()

    async def send(self, message: Message) -> None:
        if self.gone:
            raise ClientDisconnected("the client disconnected")
        self.messages.append(message)
        self.changed.set()
        await self.reads.wait()
        if self.gone:
            raise ClientDisconnected("the client disconnected")

    def leave(self) -> None:
        """From now on every send() fails, also one that waits."""
        self.gone = True
        self.reads.set()

    async def sees(self, condition: Callable[[], Any]) -> None:
        """Wait until ``condition`` is true; it is looked at whenever a message is sent or asked for."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @property
    def start(self) -> Message:
        return next(message for message in self.messages if message["type"] == "http.response.start")

    @property
    def status(self) -> int:
        status: int = self.start["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode("latin-1") for name, value in self.start["headers"]}

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def complete(self) -> bool:
        """Whether the last message is the last of a response."""
        return bool(self.messages) and self.messages[-1].get("more_body", True) is False


class Bridge:
    """A WSGIMiddleware with its pool, on the running loop."""

    def __init__(self, app: Any, *, hooks: Any = None, validate: bool = True, **settings: Any) -> None:
        self.settings = make_settings(**settings)
        self.pool = ThreadPool(self.settings.threads)
        self.errors = io.StringIO()
        self.loop_errors: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.loop_errors.append(context))
        self.middleware = WSGIMiddleware(
            validator(app) if validate else app,
            self.settings,
            self.pool,
            errors=self.errors,
            server_software="gunicorn/test",
            hooks=hooks,
        )

    def begin(self, client: Client, scope: Scope | None = None) -> asyncio.Task[None]:
        """Start a call."""
        scope = make_scope() if scope is None else scope
        return asyncio.ensure_future(self.middleware(scope, client.receive, client.send))

    async def call(self, scope: Scope | None = None, *body: bytes | None) -> Client:
        """Do a call, and return its client when it is over."""
        client = Client(*body)
        async with asyncio.timeout(DEADLINE):
            await self.begin(client, scope)
        return client


@asynccontextmanager
async def bridge(app: Any, **options: Any) -> AsyncIterator[Bridge]:
    """A :class:`Bridge` whose threads end with the block."""
    made = Bridge(app, **options)
    try:
        yield made
    finally:
        made.pool.close()


@contextmanager
def without_collector() -> Iterator[None]:
    """Whatever is not freed by its reference count stays."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def serve(app: Any, scope: Scope | None = None, *body: bytes | None, **options: Any) -> Client:
    """One call of ``app``; the client that made it."""

    async def main() -> Client:
        async with bridge(app, **options) as made:
            return await made.call(scope, *body)

    client: Client = run(main())
    return client


def environ_of(scope: Scope | None = None, *body: bytes, **options: Any) -> dict[str, Any]:
    """The environ that an application gets."""
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        start_response("200 OK", [])
        return []

    serve(app, scope, *body, validate=False, **options)
    return seen[0]


def answer(body: Iterable[bytes], *headers: tuple[str, str], status: str = "200 OK") -> Callable[..., Any]:
    """An application that always answers the same."""

    def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "text/plain"), *headers])
        return body

    return app
