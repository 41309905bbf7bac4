"""Applications that block the loop when they have sent everything: what they sent must be on its way."""

import gate
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute

PLAIN = [(b"content-type", b"text/plain")]


async def app(scope, receive, send):
    if scope["type"] == "http":
        await HANDLERS[scope["path"]](send)
        gate.block("sent")
    else:
        await framework(scope, receive, send)


async def hints(send):
    await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"end"})


async def chunks(send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    for part in (b"a", b"b", b"end"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def pieces(send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})


async def trailers(send):
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN, "trailers": True})
    await send({"type": "http.response.body", "body": b"end"})
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})


HANDLERS = {"/hints": hints, "/chunks": chunks, "/pieces": pieces, "/trailers": trailers}


async def stream(request):
    return StreamingResponse(iterate(), background=BackgroundTask(block))


async def iterate():
    yield "a"
    yield "end"


async def block():
    gate.block("sent")


async def socket(websocket):
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.send_text(await websocket.receive_text())
    gate.block("sent")
    await websocket.close()


framework = Starlette(routes=[Route("/stream", stream), WebSocketRoute("/socket", socket)])


def wsgi(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"a")
    write(b"end")
    gate.block("sent")
    return []
