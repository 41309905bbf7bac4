"""Applications that take too long in every way there is. Each view says when it begins and how it ends."""

import asyncio

import gate

PLAIN = [(b"content-type", b"text/plain")]


async def asgi(scope, receive, send):
    if scope["type"] == "websocket":
        await socket(scope, receive, send)
    elif scope["type"] == "http":
        gate.say(f"begins {scope['path']}")
        await VIEWS[scope["path"].removeprefix("/asgi")](receive, send)


async def answer(send, text=b"hello", more=False):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": text, "more_body": more})


async def hello(receive, send):
    await answer(send)


async def sleep(receive, send):
    try:
        await gate.wait("sleep")
    except asyncio.CancelledError:
        gate.say("cancelled")
        raise
    await answer(send, b"slept")


async def swallow(receive, send):
    while True:
        try:
            await gate.wait("swallow")
            break
        except asyncio.CancelledError:
            gate.say("swallowed")
    await answer(send)


async def executor(receive, send):
    text = await asyncio.get_running_loop().run_in_executor(None, blocked, "executor")
    await answer(send, text)


def blocked(name):
    gate.block(name)
    gate.say(f"{name} returns")
    return b"blocked"


async def block(receive, send):
    await answer(send, blocked("block"))


async def stream(receive, send):
    await answer(send, b"a", more=True)
    await gate.wait("stream")
    await send({"type": "http.response.body", "body": b"b"})


async def started(receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await gate.wait("started")


async def upload(receive, send):
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            gate.say(f"disconnected after {size}")
            return
        size, more = size + len(message["body"]), message["more_body"]
    await answer(send, b"%d" % size)


async def echo(receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            gate.say("disconnected amid its response")
            return
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


VIEWS = {
    "/": hello,
    "/sleep": sleep,
    "/swallow": swallow,
    "/executor": executor,
    "/block": block,
    "/stream": stream,
    "/started": started,
    "/upload": upload,
    "/echo": echo,
}


async def socket(scope, receive, send):
    await receive()
    if scope["path"] == "/socket":
        await send({"type": "websocket.accept"})
    await gate.wait("socket")
    await send({"type": "websocket.close"})


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    gate.say(f"begins {path}")
    fields = [("Content-Type", "text/plain")]
    if path == "/sleep":
        gate.block("sleep")
        try:
            start_response("200 OK", fields)
        except OSError as exc:
            gate.say(f"too late: {exc}")
            raise
        return [b"slept"]
    if path == "/stream":
        return parts(start_response("200 OK", fields))
    if path == "/started":
        start_response("200 OK", fields)
        gate.block("started")
    if path == "/upload":
        text = b"%d" % len(environ["wsgi.input"].read())
        start_response("200 OK", fields)
        return [text]
    if path == "/echo":
        write = start_response("200 OK", fields)
        try:
            while data := environ["wsgi.input"].read1():
                write(data)
        except OSError:
            gate.say("disconnected amid its response")
            raise
        return []
    start_response("200 OK", fields)
    return [b"hello"]


def parts(write):
    yield b"a"
    gate.block("stream")
    yield b"b"


try:
    from hybridworker import Hybrid
except ImportError:
    pass
else:
    hybrid = Hybrid(wsgi, routes={"/asgi": asgi})
