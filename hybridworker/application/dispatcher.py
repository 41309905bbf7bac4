"""
Dispatcher: a Hybrid as an ASGI 3 application, for any server.

    http        the part of the path; a WSGI part through asgiref's ``WsgiToAsgi``
    websocket   the part of the path, or a denial
    lifespan    fanned out to every ASGI part

:class:`~.hybrid.Hybrid` calls it where it is called itself: by Starlette's TestClient, httpx's ASGITransport,
uvicorn, or behind a middleware. This worker serves the parts by itself (:mod:`.parts`). Event loop side, of any server.

Source: asgiref ``specs/www.rst`` 2.5 and ``specs/lifespan.rst`` 2.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from asgiref.wsgi import WsgiToAsgi

from ..asgi import ASGIApp, Message, Receive, Scope, Send
from ..errors import HybridError
from .detect import SAY_IN_CODE, Interface, detect, single_callable, undeclared
from .directory import Directory, Part, enter_mount, normal_prefix, outer_prefix


class Member:
    """One part as an ASGI application. Parts that name one ASGI object share its lifespan ``state``."""

    def __init__(self, part: Part, app: ASGIApp, interface: Interface, state: dict[str, Any]) -> None:
        self.part = part
        self.app = app
        self.interface = interface
        self.state = state

    @property
    def is_asgi(self) -> bool:
        """Whether it speaks WebSocket and lifespan."""
        return self.interface is not Interface.WSGI


def members(parts: Iterable[Part]) -> list[Member]:
    """Find out what each part speaks. Raises :class:`~.errors.HybridError` for what speaks neither."""
    made: list[Member] = []
    known: dict[int, Member] = {}
    for part in parts:
        inner = undeclared(part.app)
        if id(inner) in known:
            same = known[id(inner)]
            made.append(Member(part, same.app, same.interface, same.state))
            continue
        try:
            interface = detect(part.app, hint=SAY_IN_CODE).interface
        except Exception as exc:
            raise HybridError(f"Hybrid: {part.key}: {exc}") from exc
        app = _threaded(inner) if interface is Interface.WSGI else single_callable(inner, interface)
        known[id(inner)] = Member(part, app, interface, {})
        made.append(known[id(inner)])
    return made


def _threaded(app: Any) -> ASGIApp:
    """A WSGI application whose calls run in a thread each: by itself asgiref has one thread for all of them."""
    adapted = WsgiToAsgi(app)  # type: ignore[no-untyped-call]  # asgiref has no types here

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async with ThreadSensitiveContext():
            await adapted(scope, receive, send)

    return call


class Dispatcher:
    """The ASGI 3 application that the parts of a Hybrid make together."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self.members = members(parts)
        self.directory = Directory([(m.part, m) for m in self.members], lambda member: member.is_asgi)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await LifespanFanout(self.members)(scope, receive, send)
        elif kind == "http" or kind == "websocket":
            await self._dispatch(scope, receive, send)
        else:
            raise ValueError(f"a Hybrid serves http, websocket and lifespan, not {kind}")

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_websocket = scope["type"] == "websocket"
        outer = normal_prefix(scope.get("root_path", ""))
        taken = outer_prefix(scope["path"], [outer])
        below = scope["path"] if taken is None else taken[1]
        member = self.directory.find_for_websocket(below) if is_websocket else self.directory.find(below)
        if member is None or (is_websocket and not member.is_asgi):
            await (_deny_websocket if is_websocket else not_found)(scope, receive, send)
            return
        scope = dict(scope)
        if member.is_asgi and (member.state or "state" in scope):
            scope["state"] = member.state.copy()
        if member.part.mounted:
            enter_mount(scope, outer, member.part.prefix, stripped=taken is None)
        await member.app(scope, receive, send)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no part claims."""
    body = b"Not Found\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _deny_websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a handshake: with 404 where the server can say that, else in its own way."""
    await receive()  # websocket.connect
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return

    async def deny(message: Message) -> None:
        await send({**message, "type": f"websocket.{message['type']}"})

    await not_found(scope, receive, deny)


# -- lifespan


#: Seconds in which an application may raise what its startup has failed with, after it has said that it failed.
RAISE_MAX = 1.0


class LifespanFanout:
    """The lifespans of all parts as one: started in the order named, stopped in reverse."""

    def __init__(self, every: Iterable[Member]) -> None:
        distinct = {id(member.state): member for member in reversed(list(every)) if member.is_asgi}
        self.lifespans = [PartLifespan(member) for member in reversed(distinct.values())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._run(scope, receive, send)
        finally:
            for lifespan in self.lifespans:
                lifespan.cancel()  # what is still there: the server has given up

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        started: list[PartLifespan] = []
        for lifespan in self.lifespans:
            trouble = await lifespan.start(scope)
            if trouble is not None:
                await self._stop(started)
                await send({"type": "lifespan.startup.failed", "message": f"{lifespan.key}: {trouble}"})
                if lifespan.error is not None:
                    raise lifespan.error  # as it would without the Hybrid: some test clients wait for it
                return
            started.append(lifespan)
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        troubles = await self._stop(started)
        if troubles:
            await send({"type": "lifespan.shutdown.failed", "message": "; ".join(troubles)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _stop(self, started: list[PartLifespan]) -> list[str]:
        """Stop them all, the last first, whatever one of them says; returns what they say."""
        said = [(lifespan.key, await lifespan.stop()) for lifespan in reversed(started)]
        return [f"{key}: {trouble}" for key, trouble in said if trouble is not None]


class PartLifespan:
    """
    The lifespan of one part, from startup to shutdown in one task of its own, because a context manager (an anyio task
    group, say) must be left in the task that entered it.
    """

    def __init__(self, member: Member) -> None:
        self.key = member.part.key
        self.member = member
        self.answers: asyncio.Queue[Message] = asyncio.Queue()
        self.events: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None  #: what the application has raised after it said that it failed

    async def start(self, scope: Scope) -> str | None:
        """Start up; returns what went wrong. An application that does not know lifespan is served without it."""
        self.member.state.clear()
        own = {**scope, "state": self.member.state}
        self.task = asyncio.ensure_future(self.member.app(own, self.events.get, self.answers.put))
        trouble = _failure(await self._ask("lifespan.startup"))
        if trouble is not None:
            await asyncio.wait([self.task], timeout=RAISE_MAX)
            if self.task.done() and not self.task.cancelled():
                self.error = self.task.exception()
            self.cancel()
            await asyncio.wait([self.task])
        return trouble

    async def stop(self) -> str | None:
        """Shut down; returns what went wrong."""
        if self.task is None or self.task.done():
            return None
        trouble = _failure(await self._ask("lifespan.shutdown"))
        await asyncio.wait([self.task])
        return trouble

    def cancel(self) -> None:
        """End the task, and take its exception: an application that does not know lifespan raises one."""
        if self.task is not None and not self.task.done():
            self.task.cancel()
        elif self.task is not None and not self.task.cancelled():
            self.task.exception()

    async def _ask(self, kind: str) -> Message | None:
        """Send an event and wait for the answer; None where the application ends without one."""
        assert self.task is not None
        self.events.put_nowait({"type": kind})
        answering = asyncio.ensure_future(self.answers.get())
        try:
            await asyncio.wait([answering, self.task], return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
        return answering.result() if answering.done() and not answering.cancelled() else None


def _failure(answer: Message | None) -> str | None:
    """What an answer says that something has failed with; None where it says nothing of the kind."""
    if answer is None or not answer["type"].endswith(".failed"):
        return None
    return str(answer.get("message", "")) or "the application gave no reason"
