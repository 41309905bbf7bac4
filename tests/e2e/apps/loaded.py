"""Answers with the names of the modules that its process has loaded, and accepts every WebSocket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any


def names() -> bytes:
    return "\n".join(sys.modules).encode()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": names()})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [names()]
