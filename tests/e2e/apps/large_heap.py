"""An application with a heap of about 200 MiB that the garbage collector knows, ASGI and WSGI."""

HEAP = [[number, [number]] for number in range(1_300_000)]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    rows = [HEAP[at][0] for at in range(0, 1000, 100)]
    body = b"%d" % sum(rows)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    body = b"%d" % sum(HEAP[at][0] for at in range(0, 1000, 100))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
