"""WebSockets by Starlette (``starlette_app``) and FastAPI (``fastapi_app``), as their manuals show them."""

from typing import Annotated

import gate
from fastapi import Depends, FastAPI, Query, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute


class Shout(WebSocketEndpoint):
    """A class with a method for each event."""

    encoding = "json"

    async def on_connect(self, websocket):
        await websocket.accept(subprotocol="shout" if "shout" in websocket.scope["subprotocols"] else None)

    async def on_receive(self, websocket, data):
        await websocket.send_json({"text": data["text"].upper()})

    async def on_disconnect(self, websocket, close_code):
        gate.say(f"starlette disconnected {close_code}")


async def denies(websocket):
    await websocket.send_denial_response(JSONResponse({"detail": "no seat"}, 409, headers={"retry-after": "7"}))


async def closes(websocket):
    await websocket.close(1008)


async def iterates(websocket):
    """Bytes, until the client leaves."""
    await websocket.accept()
    async for data in websocket.iter_bytes():
        await websocket.send_bytes(data[::-1])
    gate.say("starlette iterated to the end")


async def fails(websocket):
    await websocket.accept()
    raise ValueError("raised under Starlette")


starlette_app = Starlette(
    routes=[
        WebSocketRoute("/shout", Shout),
        WebSocketRoute("/denies", denies),
        WebSocketRoute("/closes", closes),
        WebSocketRoute("/iterates", iterates),
        WebSocketRoute("/fails", fails),
    ]
)

fastapi_app = FastAPI()


async def known(token: Annotated[str | None, Query()] = None):
    """A dependency that lets nobody in without the token."""
    if token != "secret":
        raise WebSocketException(code=1008, reason="unknown")
    return token


@fastapi_app.websocket("/items/{item}")
async def items(websocket: WebSocket, item: int, token: Annotated[str, Depends(known)]):
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"item {item} {token}: {await websocket.receive_text()}")
    except WebSocketDisconnect as exc:
        gate.say(f"fastapi disconnected {exc.code} {exc.reason!r}")
