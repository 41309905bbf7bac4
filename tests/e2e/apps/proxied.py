"""What stands behind a proxy: ``asgi`` is the application of the other tests with an echoing WebSocket beside it."""

import json

import asgi as asgi_app


async def asgi(scope, receive, send):
    if scope["type"] != "websocket":
        await asgi_app.app(scope, receive, send)
        return
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    about = {"scheme": scope["scheme"], "client": scope["client"], "path": scope["path"]}
    await send({"type": "websocket.send", "text": json.dumps(about)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{key: message.get(key) for key in ("bytes", "text")}})
