"""
Applications for the tests of HTTP/2: trailers, hints, files, and what a connection is asked for.

``app`` is ASGI, ``wsgi`` is WSGI; one path for each behaviour.
"""

import asyncio
import os
import time

import gate

FILE = os.environ.get("FILE", __file__)
SIZE = os.path.getsize(FILE)


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(f"{scope['type']} is not served here")
    name, _, argument = scope["path"].strip("/").partition("/")
    await HANDLERS[name](scope, receive, send, argument)


async def start(send, status=200, headers=(), **more):
    await send({"type": "http.response.start", "status": status, "headers": list(headers), **more})


async def trailers(scope, receive, send, argument):
    """``/trailers/empty`` promises some and sends none."""
    assert "http.response.trailers" in scope["extensions"]
    await start(send, trailers=True)
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})
    fields = [] if argument == "empty" else [(b"Grpc-Status", b"0"), (b"grpc-message", b"fine")]
    await send({"type": "http.response.trailers", "headers": fields})


async def hints(scope, receive, send, argument):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await send({"type": "http.response.informational", "status": 103, "headers": [(b"x-informal", b"1")]})
    await start(send)
    await send({"type": "http.response.body", "body": b"hinted"})


async def path(scope, receive, send, argument):
    """A file by its name, with its length or without."""
    length = [(b"content-length", b"%d" % SIZE)] if argument == "length" else []
    await start(send, headers=length)
    await send({"type": "http.response.pathsend", "path": FILE})


async def descriptor(scope, receive, send, argument):
    """A file between two parts of a body, and trailers behind."""
    await start(send, trailers=True)
    await send({"type": "http.response.body", "body": b"<", "more_body": True})
    with open(FILE, "rb") as file:  # noqa: ASYNC230
        await send({"type": "http.response.zerocopysend", "file": file, "more_body": True})
    await send({"type": "http.response.body", "body": b">"})
    await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})


async def closes(scope, receive, send, argument):
    """The application wants the connection to end."""
    await start(send, headers=[(b"connection", b"close"), (b"keep-alive", b"timeout=5"), (b"upgrade", b"x")])
    await send({"type": "http.response.body", "body": b"bye"})


async def waits(scope, receive, send, argument):
    """Answers when the gate opens."""
    await gate.wait(argument)
    await start(send)
    await send({"type": "http.response.body", "body": argument.encode()})


async def sleeps(scope, receive, send, argument):
    """Answers after so many milliseconds."""
    await asyncio.sleep(int(argument or 20) / 1000)
    await start(send)
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})


async def blocks_behind(scope, receive, send, argument):
    """Keeps the loop busy as soon as its last message was taken."""
    await start(send)
    await send({"type": "http.response.body", "body": b"early"})
    time.sleep(1.0)  # noqa: ASYNC251  # it holds the loop on purpose
    gate.say("blocked")


async def leaves(scope, receive, send, argument):
    """Tells when the client has gone."""
    gate.say("begun")
    while (await receive())["type"] != "http.disconnect":
        pass
    gate.say("disconnected")


async def big(scope, receive, send, argument):
    """So many KiB in one message."""
    await start(send)
    await send({"type": "http.response.body", "body": b"x" * 1024 * int(argument)})
    gate.say(f"sent {argument}")


async def broken(scope, receive, send, argument):
    """Less than it has announced."""
    await start(send, headers=[(b"content-length", b"10")])
    await send({"type": "http.response.body", "body": b"short", "more_body": True})


HANDLERS = {
    "": sleeps,
    "big": big,
    "blocks-behind": blocks_behind,
    "broken": broken,
    "closes": closes,
    "descriptor": descriptor,
    "hints": hints,
    "leaves": leaves,
    "path": path,
    "sleeps": sleeps,
    "trailers": trailers,
    "waits": waits,
}


def wsgi(environ, start_response):
    name = environ["PATH_INFO"].strip("/")
    send_trailers = environ.get("gunicorn.http2.send_trailers")
    if name == "sleeps":
        time.sleep(0.02)
    if name == "hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
    start_response("200 OK", [("Content-Type", "text/plain")])
    if name == "file":
        return environ["wsgi.file_wrapper"](open(FILE, "rb"))
    if name == "trailers":
        send_trailers([("Grpc-Status", "0")])
        return [b"body"]
    if name == "late-trailers":
        return late_trailers(send_trailers)
    return [f"{environ['SERVER_PROTOCOL']} {os.getpid()}".encode()]


def late_trailers(send_trailers):
    yield b"one"
    yield b"two"
    send_trailers([("X-Checksum", "abc")])
