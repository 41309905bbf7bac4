"""
Applications for the ends of connections, the same paths for both interfaces.

``/silent``    one piece of a stream, and then nothing for ever (a gate, ``silent``)
``/again``     one piece, another one when gate ``again`` opens, and then nothing for ever
``/big``       a complete response that no kernel buffer can hold
``/fork``      leaves a child behind that lives until gate ``fork`` opens, and has what the worker has open
``/forked``    the same, with a big response that has no length
``/cut``       leaves a child behind as well, and raises amid the response
``/hello``     a short answer
``/pid``       the worker's
"""

import asyncio
import os
import time
import warnings

import gate

BIG = 24 * 1024 * 1024

#: One child is enough.
children = []


def leave_child():
    if children:
        return
    warnings.simplefilter("ignore")  # forking where there are threads is what is tried here
    pid = os.fork()
    if pid:
        children.append(pid)
        gate.say(f"child {pid} lives")
        return
    deadline = time.monotonic() + 60
    while not os.path.exists(os.path.join(os.environ["GATES"], "fork")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os._exit(0)


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
        return
    if scope["type"] != "http":
        raise RuntimeError("nothing to start")
    path = scope["path"]
    if path in ("/fork", "/forked", "/cut"):
        leave_child()
    if path == "/pid":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
        return
    if path == "/counts":
        count, more = 0, True
        while more:
            await asyncio.sleep(0.3)
            message = await receive()
            count, more = count + len(message.get("body", b"")), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(count).encode()})
        return
    size = BIG if path in ("/big", "/forked") else 5
    headers = [(b"content-length", str(size).encode())] if path in ("/big", "/fork", "/hello") else []
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path in ("/silent", "/again"):
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        if path == "/again":
            await gate.wait("again")
            await send({"type": "http.response.body", "body": b"again", "more_body": True})
            gate.say("said again")
        await gate.wait("silent")
        await send({"type": "http.response.body", "body": b"last"})
    elif path == "/cut":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        raise RuntimeError("amid the response")
    else:
        await send({"type": "http.response.body", "body": b"x" * size})
        gate.say(f"sent {path}")


async def websocket(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    if scope["path"] == "/fork":
        leave_child()
        await send({"type": "websocket.close"})
    else:
        gate.say("accepted")
        while (await receive())["type"] != "websocket.disconnect":
            pass


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    if path in ("/fork", "/forked", "/cut"):
        leave_child()
    if path == "/pid":
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
    size = BIG if path in ("/big", "/forked") else 5
    headers = [("Content-Length", str(size))] if path in ("/big", "/fork", "/hello") else []
    start_response("200 OK", headers)
    return stream(path) if path in ("/silent", "/again", "/cut") else whole(path, size)


def whole(path, size):
    yield b"x" * size
    gate.say(f"sent {path}")


def stream(path):
    yield b"first"
    if path == "/cut":
        raise RuntimeError("amid the response")
    if path == "/again":
        gate.block("again")
        yield b"again"
        gate.say("said again")
    gate.block("silent")
    yield b"last"
