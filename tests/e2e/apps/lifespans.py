"""Applications that differ in what they do with the lifespan scope. All answer HTTP requests."""

import asyncio
import threading
import traceback

import gate


async def _http(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"served"})


def application(handler):
    """An ASGI application that leaves its lifespan to ``handler(scope, receive, send)``."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await handler(scope, receive, send)
        else:
            await _http(scope, receive, send)

    return app


@application
async def failed(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "the database is not there"})


@application
async def failed_with_traceback(scope, receive, send):
    await receive()
    try:
        raise LookupError("the database is not there")
    except LookupError:
        await send({"type": "lifespan.startup.failed", "message": traceback.format_exc()})


@application
async def failed_silently(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed"})


@application
async def refuses(scope, receive, send):
    raise NotImplementedError("no lifespan here")


@application
async def raises_in_startup(scope, receive, send):
    await receive()
    raise ValueError("raised in startup")


@application
async def returns(scope, receive, send):
    return


@application
async def returns_after_startup(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})


@application
async def slow(scope, receive, send):
    """Startup takes four seconds, on the loop."""
    await receive()
    for _ in range(8):
        await asyncio.sleep(0.5)
    await send({"type": "lifespan.startup.complete"})
    gate.say("slow startup done")
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@application
async def at_gate(scope, receive, send):
    await receive()
    await gate.wait("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@application
async def slow_shutdown(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await gate.wait("shutdown")
    gate.say("shutdown done")
    await send({"type": "lifespan.shutdown.complete"})


@application
async def shutdown_failed(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "the queue was not flushed"})


@application
async def records(scope, receive, send):
    gate.say(f"lifespan scope {sorted(scope)} {scope['asgi']['spec_version']} state {scope['state']}")
    gate.say(f"lifespan event {await receive()}")
    gate.say(f"lifespan thread is main: {threading.current_thread() is threading.main_thread()}")
    await send({"type": "lifespan.startup.complete"})
    gate.say(f"lifespan event {await receive()}")
    await send({"type": "lifespan.shutdown.complete"})
