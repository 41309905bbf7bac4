"""One connection without a network: bytes in, bytes out, on a real loop with a fake transport."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop
from gunicorn.config import Config

from hybridworker.application.application import Application
from hybridworker.asgi import ASGIApp, Message, Receive, Scope, Send
from hybridworker.config.settings import Settings
from hybridworker.connection.context import WorkerContext
from hybridworker.http11.protocol import HTTPProtocol
from tests.fakes import FakeLog, FakeTransport

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def make_settings(**changes: Any) -> Settings:
    """gunicorn's defaults, with ``changes`` to the fields of :class:`Settings`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HYBRIDWORKER_")}
    return dataclasses.replace(Settings.from_gunicorn(Config(), environ), **changes)


async def settle() -> None:
    """Let every task run until it waits for something that will not come by itself."""
    for _ in range(12):
        await asyncio.sleep(0)


class Threaded(Application):
    """Stands for a WSGI application: what is asked of it is answered as by one, and ``begin`` is the double's own."""

    threaded = True
    takes_websockets = False
    reads_forwarded_client = False


def application(
    app: ASGIApp, settings: Settings | None = None, hooks: Any = None, *, is_wsgi: bool = False
) -> Application:
    """``app`` as a worker serves it."""
    made = (Threaded if is_wsgi else Application)(app, settings or make_settings(), hooks)
    if is_wsgi:
        made.context = contextvars.Context()
        made.begin = getattr(app, "begin", None)
        made.running = getattr(app, "calls", int)  # type: ignore[method-assign]
    return made


class Wire:
    """
    A connection that speaks HTTP with an application, or what the protocol class ``speaks`` says.

    ``feed`` gives it bytes and lets the application run; ``sent`` is what was written,
    without the Server and Date lines. ``now`` moves the clock of :meth:`tick`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, app: ASGIApp, *, is_wsgi: bool = False, **options: Any) -> None:
        transport_options = {
            name: options.pop(name) for name in ("peername", "sockname", "ssl_object") if name in options
        }
        context_options = {name: options.pop(name) for name in ("access", "max_requests") if name in options}
        recycle = options.pop("recycle", None)
        hooks = options.pop("hooks", None)
        protocol = options.pop("speaks", HTTPProtocol)
        self.loop = loop
        self.log = FakeLog()
        self.context = WorkerContext(
            application=application(app, make_settings(**options), hooks, is_wsgi=is_wsgi),
            settings=make_settings(**options),
            loop=loop,
            log=self.log,
            **context_options,
        )
        self.context.clock.fields = b""
        if recycle is not None:
            self.context.quota.used_up = recycle
        self.transport = FakeTransport(**transport_options)
        self.protocol: Any = protocol(self.context)
        self.protocol.connection_made(self.transport)

    @property
    def sent(self) -> bytes:
        return self.transport.sent

    def run(self) -> None:
        """Let the tasks run."""
        self.loop.run_until_complete(settle())

    def feed(self, *segments: bytes) -> bytes:
        """Give the segments to the protocol one by one; returns everything written so far."""

        async def feed(segment: bytes) -> None:
            self.protocol.data_received(segment)  # in a loop that runs: there the application may begin at once
            await settle()

        for segment in segments:
            if not self.transport.closing:
                self.loop.run_until_complete(feed(segment))
        return self.sent

    def tick(self, seconds: float) -> None:
        """Look at the timeouts as if ``seconds`` had passed."""
        self.protocol.tick(self.loop.time() + seconds)
        self.run()

    def eof(self) -> bool:
        """The peer closes its side; returns whether the protocol keeps the connection open."""
        kept: bool = self.protocol.eof_received()
        if not kept:
            self.transport.close()
        self.run()
        return kept

    def lose(self) -> None:
        """The connection is lost."""
        self.transport.closing = True
        self.protocol.connection_lost(None)
        self.run()

    def end(self) -> None:
        """Cancel what is still running."""
        if not self.transport.closing:
            self.lose()
        for task in list(self.context.tasks()):
            task.cancel()
        self.run()


@contextmanager
def wire(app: ASGIApp, **options: Any) -> Iterator[Wire]:
    """A :class:`Wire` on a loop of its own."""
    loop = uvloop.new_event_loop()
    connection = Wire(loop, app, **options)
    try:
        yield connection
        connection.end()
    finally:
        loop.close()


def responder(*messages: Message) -> ASGIApp:
    """An application that sends ``messages`` and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    """A start message."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: Any = b"", more: bool = False) -> Message:
    """A body message."""
    return {"type": "http.response.body", "body": data, "more_body": more}


HELLO = responder(start(200, (b"content-length", b"5")), body(b"hello"))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body of the request, or not at all when the client leaves."""
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        data += message["body"]
        if not message["more_body"]:
            break
    await send(start(200, (b"content-length", b"%d" % len(data))))
    await send(body(data))


class Recorder:
    """An application that keeps the scope and the events of each request, and answers 204 when asked to."""

    def __init__(self, answer: Callable[[Scope], bool] = lambda scope: True) -> None:
        self.scopes: list[Scope] = []
        self.events: list[list[Message]] = []
        self.answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        events: list[Message] = []
        self.events.append(events)
        while True:
            message = await receive()
            events.append(message)
            if message["type"] == "http.disconnect" or not message["more_body"]:
                break
        if self.answer(scope) and message["type"] != "http.disconnect":
            await send(start(204))
            await send(body())
