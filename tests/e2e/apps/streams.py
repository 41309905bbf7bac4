"""Responses without a known end, by ASGI and by WSGI; the path says of which kind."""

import asyncio
import time

import gate

from hybridworker import is_leaving

KINDS = {"events": b"text/event-stream", "lines": b"text/plain"}


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    kind, _, how = scope["path"].strip("/").partition("/")
    headers = [(b"content-type", KINDS[kind])]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: begin\n\n", "more_body": True})
    gate.say(f"stream {how} begun")
    await WAYS[how](receive, send)


async def listens(receive, send):
    """Waits for the client's leaving, as Starlette does, and returns."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gate.say("stream saw the disconnect")


async def sends(receive, send):
    """Never looks, and sends for ever."""
    try:
        while True:
            await send({"type": "http.response.body", "body": b"data: more\n\n", "more_body": True})
            await asyncio.sleep(0.02)
    except OSError:
        gate.say("stream saw an OSError")
        raise


async def idles(receive, send):
    """Waits for something that never comes."""
    try:
        await asyncio.Event().wait()
    finally:
        gate.say("stream was cancelled")


async def ends(receive, send):
    """Says goodbye by itself."""
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.body", "body": b"data: bye\n\n"})
    gate.say("stream has ended itself")


async def asks(receive, send):
    """Ends when the worker leaves, which it asks for."""
    while not is_leaving():  # noqa: ASYNC110  # there is no event
        await asyncio.sleep(0.02)
    await send({"type": "http.response.body", "body": b"data: left\n\n"})


WAYS = {"listens": listens, "sends": sends, "idles": idles, "ends": ends, "asks": asks}


def wsgi(environ, start_response):
    kind, _, how = environ["PATH_INFO"].strip("/").partition("/")
    start_response("200 OK", [("Content-Type", KINDS[kind].decode())])
    return items(how)


def items(how):
    try:
        yield b"data: begin\n\n"
        gate.say(f"stream {how} begun")
        if how == "idles":
            gate.block("held")
        while how != "asks" or not is_leaving():
            time.sleep(0.02)
            yield b"data: more\n\n"
        yield b"data: left\n\n"
    finally:
        gate.say("generator was closed")
