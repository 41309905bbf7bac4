"""
The WebSocket application of the end-to-end tests: one path for each behaviour.

What a connection received last is printed, so that a test can see how it ended for the
application. HTTP requests are answered with the number of the process.
"""

import asyncio
import json
import os

import gate

CHUNK = b"x" * 65536
FLOOD = 128 * 1024 * 1024


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
    elif scope["type"] == "websocket":
        name, _, argument = scope["path"].strip("/").partition("/")
        assert (await receive())["type"] == "websocket.connect"
        await HANDLERS[name](scope, receive, send, argument)
    else:
        raise NotImplementedError(f"{scope['type']} is not served here")


async def received(receive):
    """The next message, or None at the end, which is printed."""
    message = await receive()
    if message["type"] == "websocket.receive":
        return message
    gate.say(f"disconnected {message['code']} {message['reason']!r}")
    return None


async def echo(scope, receive, send, argument):
    """Whatever comes goes back; ``/echo/chat`` chooses a subprotocol."""
    await send({"type": "websocket.accept", "subprotocol": argument or None})
    while (message := await received(receive)) is not None:
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def show_scope(scope, receive, send, argument):
    await send({"type": "websocket.accept", "headers": [(b"x-one", b"1"), (b"x-two", b"a"), (b"x-two", b"b")]})
    text = json.dumps(scope, default=lambda value: value.decode("latin-1"))
    await send({"type": "websocket.send", "text": text})
    await received(receive)


async def denies(scope, receive, send, argument):
    """``/denies/length``: a response instead of a WebSocket, with a Content-Length or without."""
    headers = [(b"content-type", b"text/plain"), (b"x-reason", b"full")]
    if argument == "length":
        headers.append((b"content-length", b"12"))
    await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"come ", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"later.\n"})


async def refuses(scope, receive, send, argument):
    await send({"type": "websocket.close"})


async def raises(scope, receive, send, argument):
    raise ValueError("raised before accept")


async def returns(scope, receive, send, argument):
    return


async def raises_later(scope, receive, send, argument):
    await send({"type": "websocket.accept"})
    await receive()
    raise ValueError("raised after accept")


async def returns_later(scope, receive, send, argument):
    await send({"type": "websocket.accept"})
    await receive()


async def closes(scope, receive, send, argument):
    """``/closes/4001``: closes with that code, and then does what is too late."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.close", "code": int(argument), "reason": "enough \u2713"})
    await received(receive)
    try:
        await send({"type": "websocket.send", "text": "too late"})
    except OSError as exc:
        gate.say(f"send raised {type(exc).__name__}")
        raise


async def at_gate(scope, receive, send, argument):
    """Receive nothing until the gate opens; then count what comes."""
    await send({"type": "websocket.accept"})
    await gate.wait(argument)
    size = 0
    while (message := await received(receive)) is not None:
        size += len(message.get("bytes") or b"")
        if message.get("text") == "how many":
            await send({"type": "websocket.send", "text": str(size)})


async def flood(scope, receive, send, argument):
    """Send 128 MiB, and print how far it came when a ``send()`` does not return for a second."""
    await send({"type": "websocket.accept"})
    sent, stalled = 0, False
    while sent < FLOOD:
        sent += len(CHUNK)
        sending = asyncio.ensure_future(send({"type": "websocket.send", "bytes": CHUNK}))
        await asyncio.wait([sending], timeout=1)
        if not sending.done() and not stalled:
            stalled = True
            gate.say(f"stalled after {sent} bytes")
        await sending


async def works_on(scope, receive, send, argument):
    """``/works-on/closes``, ``/works-on/denies``: end the connection, and do something for which it is not needed."""
    if argument == "closes":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    else:
        await denies(scope, receive, send, argument)
    await gate.wait("works")
    gate.say("worked on")


HANDLERS = {
    "at-gate": at_gate,
    "closes": closes,
    "denies": denies,
    "echo": echo,
    "flood": flood,
    "raises": raises,
    "raises-later": raises_later,
    "refuses": refuses,
    "returns": returns,
    "returns-later": returns_later,
    "scope": show_scope,
    "works-on": works_on,
}
