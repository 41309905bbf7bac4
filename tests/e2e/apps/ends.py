"""
Applications that end in every way there is: ``app`` (ASGI), ``wsgi_app``, ``starlette_app``.

``/KIND/POINT`` ends in the way KIND when the response has come to POINT: ``before`` it has begun,
``amid`` its body, ``after`` its end. ``/waits/KIND`` waits to be cancelled, and answers that with KIND.
"""

import asyncio

import anyio
import gate
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import StreamingResponse
from starlette.routing import Route


class Unusual(BaseException):
    """No Exception."""


class Refused(RuntimeError):
    """What a library makes of a cancellation."""


async def awaits_cancelled():
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_itself():
    asyncio.current_task().cancel()
    await asyncio.sleep(0)


async def child():
    await asyncio.sleep(0)
    raise Unusual


async def fails_in_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        await asyncio.Event().wait()


async def unwraps():
    try:
        await fails_in_group()
    except BaseExceptionGroup as group:
        raise group.exceptions[0]  # noqa: B904 (whose context is the group that holds it: a circle)


def _raises(exc):
    async def end():
        raise exc()

    return end


ENDS = {
    "unusual": _raises(Unusual),
    "generator-exit": _raises(GeneratorExit),
    "exit": _raises(lambda: SystemExit(7)),
    "interrupt": _raises(KeyboardInterrupt),
    "cancelled": _raises(asyncio.CancelledError),
    "cancelled-group": _raises(lambda: BaseExceptionGroup("", [asyncio.CancelledError()])),
    "cancelled-future": awaits_cancelled,
    "itself": cancels_itself,
    "group": fails_in_group,
    "unwrapped": unwraps,
}


# -- what is made of a cancellation


async def forever(path):
    gate.say(f"{path} waits")
    await asyncio.Event().wait()


async def nothing(path):
    await forever(path)


async def takes_back(path):
    """As libraries do that have cancelled the task as well."""
    try:
        await forever(path)
    except asyncio.CancelledError:
        asyncio.current_task().uncancel()
        raise


async def swallows(path):
    try:
        await forever(path)
    except asyncio.CancelledError:
        gate.say(f"{path} swallowed")


async def chains(path):
    try:
        await forever(path)
    except asyncio.CancelledError as exc:
        raise Refused from exc


async def groups(path):
    async with asyncio.TaskGroup() as group:
        group.create_task(chains(path))


async def shields(path):
    gate.say(f"{path} waits")
    await asyncio.shield(asyncio.get_running_loop().create_future())


async def in_timeout(path):
    async with asyncio.timeout(1000):
        await takes_back(path)


async def in_scopes(path):
    with anyio.fail_after(1000):
        async with anyio.create_task_group() as group:
            group.start_soon(forever, path)
            await anyio.sleep_forever()


async def fails(path):
    """An error of its own, while it cleans up."""
    try:
        await forever(path)
    finally:
        1 / 0  # noqa: B018


async def cleans_up_in_time(path):
    """A timer of its own expires while it cleans up."""
    try:
        await forever(path)
    finally:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def again(path):
    """It has cancelled itself before, and gone on."""
    try:
        await cancels_itself()
    except asyncio.CancelledError:
        pass
    try:
        await forever(path)
    finally:
        gate.say(f"{path} ended")


WAITS = {
    "nothing": nothing,
    "takes-back": takes_back,
    "swallows": swallows,
    "chains": chains,
    "groups": groups,
    "shields": shields,
    "in-timeout": in_timeout,
    "in-scopes": in_scopes,
    "fails": fails,
    "cleans-up-in-time": cleans_up_in_time,
    "again": again,
}


# -- ASGI


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    kind, _, point = scope["path"].strip("/").partition("/")
    if kind == "waits":
        if scope["type"] == "websocket" and "open" in scope["query_string"].decode():
            await send({"type": "websocket.accept"})
        await WAITS[point](scope["path"])
        return
    if scope["type"] == "websocket":
        if point == "amid":
            await send({"type": "websocket.accept"})
    elif point != "before":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    if point == "after" or kind == "hello":
        await send({"type": "http.response.body", "body": b"cd"})
    if kind != "hello":
        await ENDS[kind]()


async def lifespan(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def lifespan_that(kind, point):
    """``app``, whose lifespan ends in the way ``kind``: in its ``startup``, or when the gate of that name opens."""

    async def application(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        if point != "startup":
            await send({"type": "lifespan.startup.complete"})
            await gate.wait(point)
        await ENDS[kind]()

    return application


# -- WSGI


class Iterable:
    def __init__(self, kind, point):
        self.kind = kind
        self.point = point

    def __iter__(self):
        yield b"ab"
        if self.point == "amid":
            fail(self.kind)
        yield b"cd"

    def close(self):
        if self.point == "after":
            fail(self.kind)


def fail(kind):
    """As :data:`ENDS` has it, as far as there are such ends without a task."""
    if kind != "hello":
        raise FAILURES[kind]


FAILURES = {
    "unusual": Unusual,
    "generator-exit": GeneratorExit,
    "exit": SystemExit,
    "interrupt": KeyboardInterrupt,
    "cancelled": asyncio.CancelledError,
}


def wsgi_app(environ, start_response):
    kind, _, point = environ["PATH_INFO"].strip("/").partition("/")
    if point == "before":
        fail(kind)
    start_response("200 OK", [("Content-Length", "4")])
    return Iterable(kind, point)


# -- frameworks


async def dispatch(request, call_next):
    return await call_next(request)


async def endpoint(request):
    await WAITS[request.path_params["kind"]](request.url.path)


async def stream(request):
    async def items():
        with anyio.move_on_after(1000):
            await WAITS[request.path_params["kind"]](request.url.path)
        yield b""

    return StreamingResponse(items())


starlette_app = Starlette(
    routes=[Route("/waits/{kind}", endpoint), Route("/streams/{kind}", stream)],
    middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch), Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
)
