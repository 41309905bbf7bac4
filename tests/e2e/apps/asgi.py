"""
The ASGI application of the end-to-end tests: one path for each behaviour.

Lifespan events are printed to the log. ``app`` is the application; what follows the
second slash of a path is an argument of its handler.
"""

import asyncio
import hashlib
import json
import os
import sys
import threading
import time
import traceback
import weakref
from contextvars import ContextVar

import gate

CHUNK = b"x" * 65536
FLOOD = 256 * 1024 * 1024

from_startup = ContextVar("from_startup", default="unset")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
        return
    name, _, argument = scope["path"].strip("/").partition("/")
    await HANDLERS[name](scope, receive, send, argument)


async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    from_startup.set("startup")
    scope["state"]["started"] = ["startup"]
    gate.say(f"startup in {os.getpid()} on {threading.current_thread().name}")
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    gate.say(f"shutdown in {os.getpid()}")
    await send({"type": "lifespan.shutdown.complete"})


async def answer(send, body, status=200, headers=()):
    if isinstance(body, str):
        body = body.encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def body_of(receive):
    """The request's body, whole; raises when the client leaves before its end."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


async def hello(scope, receive, send, argument):
    await answer(send, "Hello from ASGI")


async def megabyte(scope, receive, send, argument):
    await answer(send, b"x" * 1_000_000)


async def pid(scope, receive, send, argument):
    await answer(send, str(os.getpid()))


async def show_scope(scope, receive, send, argument):
    await answer(send, json.dumps(scope, default=lambda value: value.decode("latin-1")))


async def context(scope, receive, send, argument):
    seen = from_startup.get()
    from_startup.set("request")
    scope["state"]["mine"] = True
    await answer(send, f"{seen} {scope['state']['started']} {sorted(scope['state'])}")


async def loop(scope, receive, send, argument):
    loop = asyncio.get_running_loop()
    await answer(send, f"{type(loop).__module__} {threading.current_thread().name}")


async def echo(scope, receive, send, argument):
    await answer(send, await body_of(receive))


async def digest(scope, receive, send, argument):
    hashed, size, messages, last = hashlib.sha256(), 0, 0, 0
    more = True
    while more:
        message = await receive()
        more = message["more_body"]
        hashed.update(message["body"])
        size += len(message["body"])
        messages += 1
        last += not more
    await answer(send, f"{size} {hashed.hexdigest()} {last}")


async def chunks(scope, receive, send, argument):
    """``/chunks/3``: three chunks and no Content-Length."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for number in range(int(argument)):
        await send({"type": "http.response.body", "body": b"chunk %d\n" % number, "more_body": True})
    await send({"type": "http.response.body"})


async def beats(scope, receive, send, argument):
    """``/beats/8``: eight chunks, half a second apart."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(int(argument)):
        await asyncio.sleep(0.5)
        await send({"type": "http.response.body", "body": b".", "more_body": True})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def status(scope, receive, send, argument):
    """``/status/204``: that status, with a body and a Content-Length whatever the status says."""
    await answer(send, "the body", int(argument))


async def at_gate(scope, receive, send, argument):
    await gate.wait(argument)
    await answer(send, f"passed {argument}")


async def head_then_gate(scope, receive, send, argument):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first ", "more_body": True})
    await gate.wait(argument)
    await send({"type": "http.response.body", "body": b"last"})


async def body_after_gate(scope, receive, send, argument):
    await gate.wait(argument)
    await digest(scope, receive, send, argument)


async def flood(scope, receive, send, argument):
    """Send 256 MiB, and print how far it came when a ``send()`` does not return for a second."""
    length = (b"content-length", str(FLOOD).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    sent, stalled = 0, False
    while sent < FLOOD:
        sent += len(CHUNK)
        sending = asyncio.ensure_future(send({"type": "http.response.body", "body": CHUNK, "more_body": sent < FLOOD}))
        await asyncio.wait([sending], timeout=1)
        if not sending.done() and not stalled:
            stalled = True
            gate.say(f"stalled after {sent} bytes")
        await sending


async def until_disconnect(scope, receive, send, argument):
    await body_of(receive)
    gate.say("waiting for the end")
    message = await receive()
    again = await receive()
    gate.say(f"received {message['type']}, then {again['type']}")


async def truncated(scope, receive, send, argument):
    """Read the body; print how it ended."""
    size = 0
    while (message := await receive())["type"] == "http.request":
        if size == 0:
            gate.say("the body has begun")
        size += len(message["body"])
        if not message["more_body"]:
            break
    gate.say(f"after {size} bytes came {message['type']}")


async def send_until_error(scope, receive, send, argument):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    gate.say("streaming")
    try:
        while True:
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    except OSError as exc:
        gate.say(f"send raised {type(exc).__name__}")
        raise


async def raises(scope, receive, send, argument):
    raise ValueError("raised before the head")


async def raises_after_start(scope, receive, send, argument):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError("raised after the start message")


async def raises_after_body(scope, receive, send, argument):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError("raised after the head")


async def returns(scope, receive, send, argument):
    return


async def returns_after_body(scope, receive, send, argument):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


async def ignores_body(scope, receive, send, argument):
    await answer(send, "not read")


async def block_loop(scope, receive, send, argument):
    gate.block(argument)
    await answer(send, "the loop was blocked")


class Thing:
    pass


async def block_callback(scope, receive, send, argument):
    """Block in the callback of a weak reference, out of which no exception gets."""
    thing = Thing()
    reference = weakref.ref(thing, lambda reference: gate.block(argument))
    del thing
    await answer(send, f"the loop was blocked, {reference() is None}")


async def block_executor(scope, receive, send, argument):
    await asyncio.get_running_loop().run_in_executor(None, gate.block, argument)
    await answer(send, "a thread was blocked")


async def stacks(scope, receive, send, argument):
    """The stacks of all threads, for whoever debugs a test."""
    frames = sys._current_frames().values()
    await answer(send, "\n".join("".join(traceback.format_stack(frame)) for frame in frames))


async def clock(scope, receive, send, argument):
    await answer(send, str(time.monotonic()))


async def deep(scope, receive, send, argument):
    """Mutates its scope, as middleware does."""
    seen = scope.get("touched", False)
    scope["touched"] = True
    scope["headers"].append((b"touched", b"1"))
    await answer(send, f"{seen} {[name.decode() for name, _ in scope['headers']].count('touched')}")


HANDLERS = {
    "": hello,
    "at-gate": at_gate,
    "beats": beats,
    "block-callback": block_callback,
    "block-executor": block_executor,
    "block-loop": block_loop,
    "body-after-gate": body_after_gate,
    "chunks": chunks,
    "clock": clock,
    "context": context,
    "deep": deep,
    "digest": digest,
    "echo": echo,
    "flood": flood,
    "head-then-gate": head_then_gate,
    "ignores-body": ignores_body,
    "loop": loop,
    "megabyte": megabyte,
    "pid": pid,
    "raises": raises,
    "raises-after-body": raises_after_body,
    "raises-after-start": raises_after_start,
    "returns": returns,
    "returns-after-body": returns_after_body,
    "scope": show_scope,
    "send-until-error": send_until_error,
    "stacks": stacks,
    "status": status,
    "truncated": truncated,
    "until-disconnect": until_disconnect,
}
