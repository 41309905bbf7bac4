"""Prints where it is imported, and serves that pid: under ``--preload`` it is the master's."""

import os

import gate

gate.say(f"imported in {os.getpid()}")
IMPORTED_IN = os.getpid()


async def asgi(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"{IMPORTED_IN} {os.getpid()}".encode()})


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [f"{IMPORTED_IN} {os.getpid()}".encode()]
