"""Hybrids: parts that show what they are given, and parts that cannot be served."""

import threading
import time

import gate

from hybridworker import Hybrid, as_wsgi


def show(environ, start_response):
    """A WSGI application: what it was given, after a wait of ``QUERY_STRING`` seconds in its thread."""
    if environ["PATH_INFO"].endswith("/wait"):
        gate.block("wsgi")
    if environ["QUERY_STRING"]:
        time.sleep(float(environ["QUERY_STRING"]))
    size = len(environ["wsgi.input"].read())
    names = ("SCRIPT_NAME", "PATH_INFO", "RAW_URI", "REMOTE_ADDR", "hybridworker.part")
    body = "|".join(["wsgi", *(environ.get(name, "-") for name in names), str(size), threading.current_thread().name])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode("latin-1")]


class Show:
    """An ASGI application with a lifespan, of a name."""

    def __init__(self, name, fails=""):
        self.name, self.fails = name, fails

    async def __call__(self, scope, receive, send):
        await getattr(self, scope["type"])(scope, receive, send)

    async def lifespan(self, scope, receive, send):
        await receive()
        gate.say(f"{self.name} starts")
        if self.fails:
            await send({"type": "lifespan.startup.failed", "message": self.fails})
            return
        scope["state"]["name"] = self.name
        await send({"type": "lifespan.startup.complete"})
        await receive()
        gate.say(f"{self.name} stops")
        await send({"type": "lifespan.shutdown.complete"})

    async def websocket(self, scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        text = "|".join([self.name, scope["root_path"], scope["path"], scope["state"]["name"], scope["client"][0]])
        await send({"type": "websocket.send", "text": text})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def http(self, scope, receive, send):
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        if scope["path"].endswith("/stream"):
            await self.stream(receive, send)
            return
        if scope["path"].endswith("/hold"):
            time.sleep(1.5)  # noqa: ASYNC251 (it holds the loop)
        names = (scope["root_path"], scope["path"], scope["raw_path"].decode(), scope["client"][0])
        body = "|".join([self.name, *names, scope["state"]["name"], scope["hybridworker.part"], str(size)]).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"open", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        gate.say("stream ends")


everywhere, room, tools = Show("everywhere"), Show("room"), Show("tools")
app = Hybrid(
    show,
    websocket=everywhere,
    routes={"/events": everywhere, "/ws": room, "/ws/pages": show},
    mounts={"/mcp": tools, "/shop": show},
)
headless = Hybrid(routes={"/ws": room})
many = Hybrid(show, routes={f"/r{number}": room for number in range(20)})
renamed = Hybrid(room, routes={"/new": show})

failing = Hybrid(show, websocket=Show("first"), routes={"/b": Show("second", "no database")}, mounts={"/c": tools})
factory = Hybrid(show, mounts={"/x": lambda: show})


class Middleware:
    """As most are written."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope = {**scope, "state": {"name": "-"}}
        await self.app(scope, receive, send)


wrapped = Middleware(Hybrid(as_wsgi(lambda *args: [start(args[1])]), routes={"/ws": room}))


def start(start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return b"pages"


def make_sockets():
    """A factory."""
    return Show("made")


class Plain:
    """An ASGI application for any server."""

    async def __call__(self, scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "room"})
            await receive()
        elif scope["type"] == "http":
            body = f"room|{scope['root_path']}|{scope['path']}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        else:
            raise ValueError("no lifespan here")


def pages(environ, start_response):
    """A WSGI application for any server."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"wsgi|{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}".encode()]


plain = Plain()
headed = Hybrid(pages, websocket=plain, routes={"/ws": plain}, mounts={"/shop": pages})
