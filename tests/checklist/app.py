"""
The application that a server under test serves.

A request says in its field ``x-case`` which coroutine of the checklist answers it, and
under which token it leaves its notes: ``tests.checklist.core:c6_app 0123abcd``. The
lifespan is played by :func:`lifespan`, or by the coroutine that the environment variable
``CHECKLIST_LIFESPAN`` names. Runs in the server's process.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .case import DIRECTORY, Case, lineage

#: Environment variable that names the coroutine which plays the lifespan.
LIFESPAN = "CHECKLIST_LIFESPAN"

#: Set in startup, to be seen in requests.
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("checklist", default="unset")


def find(name: str) -> Callable[[Case], Awaitable[None]]:
    """The coroutine function ``module:name``."""
    module, _, attribute = name.partition(":")
    found: Callable[[Case], Awaitable[None]] = getattr(importlib.import_module(module), attribute)
    return found


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An ASGI 3 application: whoever calls it otherwise than with these three gets a TypeError."""
    if scope["type"] == "lifespan":
        case, name = Case(scope, receive, send, "lifespan"), os.environ.get(LIFESPAN) or f"{__name__}:lifespan"
    else:
        field = next((value for key, value in scope["headers"] if key.lower() == b"x-case"), b"")
        name, _, token = field.decode().partition(" ")
        case = Case(scope, receive, send, token or "unknown")
    case.note("call", scope["type"])
    try:
        await find(name or f"{__name__}:ready")(case)
    except asyncio.CancelledError:
        case.note("end", "CancelledError")
        raise
    except Exception as exc:
        case.note("end", lineage(exc)[0])
        raise
    case.note("end", None)


async def ready(case: Case) -> None:
    """Answer a request that names no case: the server is there."""
    await case.answer(b"ready")


async def lifespan(case: Case) -> None:
    """Complete startup and shutdown; share a list and a string in the state, and set a context variable."""
    case.note("scope", case.scope)
    case.note("place", (id(asyncio.get_running_loop()), threading.get_ident()))
    case.note("pid", os.getpid())
    case.note("event", await case.receive())
    if "state" in case.scope:
        case.scope["state"].update(shared=[], text="from startup")
    VARIABLE.set("from startup")
    await case.send({"type": "lifespan.startup.complete"})
    case.note("event", await case.receive())
    await case.send({"type": "lifespan.shutdown.complete"})
    case.note("completed")


class Asgi2:
    """An application in the two-step form of ASGI 2."""

    def __init__(self, scope: dict[str, Any]) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await app(self.scope, receive, send)


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application that notes how it is called."""
    with open(os.path.join(os.environ[DIRECTORY], "wsgi.notes"), "a") as notes:
        notes.write(repr(("call", environ.get("PATH_INFO"))) + "\n")
    start_response("200 OK", [("Content-Length", "5")])
    return [b"ready"]
