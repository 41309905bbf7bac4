"""
One call of the application: what a statement's own code does inside the server.

Runs in the server's process, on its loop. What it sees goes into a file of notes, one
literal per line, which the statement reads from outside (:class:`~.wire.Run`). The rule
one could break by accident: a note must be complete when it is there, so it is one
``write`` to a file opened for appending.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

Message = dict[str, Any]

#: Environment variable that names the directory of notes.
DIRECTORY = "CHECKLIST_DIRECTORY"


def plain(value: Any) -> Any:
    """``value`` as a literal; what is none becomes ``("object", name of its type)``."""
    if value is None or isinstance(value, bool | float | bytes):
        return value
    if isinstance(value, int):
        return int(value)  # the members of enums have a repr that is no literal
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([plain(item) for item in value]) if type(value) in (list, tuple) else list(map(plain, value))
    return ("object", type(value).__name__)


def lineage(exc: BaseException) -> list[str]:
    """The names of an exception's classes, most special first."""
    return [cls.__name__ for cls in type(exc).__mro__]


def start(status: Any = 200, headers: Any = (), **more: Any) -> Message:
    """A ``http.response.start`` message."""
    return {"type": "http.response.start", "status": status, "headers": headers, **more}


def body(content: Any = b"", more: bool = False) -> Message:
    """A ``http.response.body`` message."""
    return {"type": "http.response.body", "body": content, "more_body": more}


def length(size: int) -> list[tuple[bytes, bytes]]:
    """Headers that announce ``size`` bytes."""
    return [(b"content-length", b"%d" % size)]


class Case:
    """A scope with its ``receive`` and ``send``, and the notes on them."""

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
        token: str,
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.directory = Path(os.environ[DIRECTORY])
        self.token = token

    def note(self, key: str, value: Any = True) -> None:
        """Leave a note."""
        line = repr((key, plain(value))) + "\n"
        fd = os.open(self.directory / f"{self.token}.notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, line.encode("utf-8", "backslashreplace"))
        finally:
            os.close(fd)

    async def released(self, name: str = "go") -> None:
        """Wait until the statement calls :meth:`~.wire.Run.release`."""
        while not (self.directory / f"{self.token}.{name}").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.005)

    async def answer(self, content: bytes = b"ok", status: int = 200, headers: Iterable[Any] = ()) -> None:
        """A complete response with Content-Length."""
        await self.send(start(status, [*headers, *length(len(content))]))
        await self.send(body(content))

    async def refused(self, message: Message) -> bool:
        """Send ``message`` and note whether it was taken, or by which exception it was refused."""
        try:
            await self.send(message)
        except Exception as exc:
            self.note("refused", lineage(exc))
            return True
        self.note("taken", message.get("type"))
        return False

    async def read(self) -> bytes:
        """The whole body of the request; what ends it is noted as "end of body"."""
        content: list[bytes] = []
        while True:
            event = await self.receive()
            if event["type"] != "http.request":
                self.note("end of body", event["type"])
                return b"".join(content)
            content.append(event.get("body", b""))
            if not event.get("more_body", False):
                self.note("end of body", "complete")
                return b"".join(content)

    async def receive_soon(self, seconds: float = 2) -> Message:
        """``receive()``, or a message of type "nothing" if none comes in time."""
        try:
            async with asyncio.timeout(seconds):
                return await self.receive()
        except TimeoutError:
            return {"type": "nothing"}

    async def flood(self, message: Message, total: int = 96 << 20) -> None:
        """
        Send ``message`` again and again until a ``send()`` blocks, which is noted as "blocked".

        If ``total`` bytes went through without blocking, "unbounded" is noted. The blocked
        ``send()`` is waited for; what comes out of it is noted as "woken" or raised.
        """
        size = len(message.get("body") or message.get("bytes") or b"")
        for _ in range(total // size):
            sending = asyncio.ensure_future(self.send(message))
            done, _ = await asyncio.wait([sending], timeout=0.5)
            if not done:
                self.note("blocked")
            await sending
            if not done:
                self.note("woken")
                return
        self.note("unbounded")
