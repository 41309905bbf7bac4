"""
ASGI without a framework. Shows a lifespan with state, a body that is streamed, and an answer.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples asgi_app:app

Try it:

    curl http://127.0.0.1:8000/
    curl --data-binary @README.rst http://127.0.0.1:8000/count
"""

import time


async def app(scope, receive, send):
    """The application: called once for the lifespan and once for each request."""
    if scope["type"] == "lifespan":
        await lifespan(scope, receive, send)
    elif scope["type"] == "http" and scope["path"] == "/":
        uptime = time.monotonic() - scope["state"]["started"]
        await respond(send, 200, f"Hello from ASGI. This worker has been up for {uptime:.0f} s.\n")
    elif scope["type"] == "http" and scope["path"] == "/count":
        await respond(send, 200, f"{await count(receive)} bytes\n")
    elif scope["type"] == "http":
        await respond(send, 404, "Not found\n")
    else:
        raise NotImplementedError(f"{scope['type']} is not served here")


async def lifespan(scope, receive, send):
    """Startup and shutdown of the worker. What is put into the state is there in each request."""
    await receive()  # lifespan.startup
    scope["state"]["started"] = time.monotonic()
    await send({"type": "lifespan.startup.complete"})
    await receive()  # lifespan.shutdown
    await send({"type": "lifespan.shutdown.complete"})


async def count(receive):
    """The size of the request's body, of which no more than one part is held at a time."""
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        size += len(message["body"])
        if not message["more_body"]:
            return size


async def respond(send, status, text):
    """Send a whole response."""
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
