"""
Server-sent events without a framework: a clock that ticks in the browser.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples sse_app:app

Try it:

    curl -N http://127.0.0.1:8000/events          or open http://127.0.0.1:8000/ in a browser
    kill -HUP $(pgrep -o -f sse_app:app)          in another terminal: a deploy, amid the stream

curl ends, because the worker that it was connected to leaves and ends its streams. The browser connects again by
itself, one second later and to the new worker, and its clock goes on. An application that does not ask
``is_leaving()`` holds the deploy up for ``--graceful-timeout``; HYBRIDWORKER_STREAM_DRAIN=5 ends its streams without a
line of code.
"""

import asyncio
import datetime

import hybridworker

PAGE = b"""<!doctype html>
<title>Server-sent events</title>
<p>It is <output>...</output></p>
<script>
  new EventSource("/events").onmessage = event => { document.querySelector("output").value = event.data }
</script>
"""


async def app(scope, receive, send):
    """The page, and the events it subscribes to."""
    if scope["type"] != "http":
        raise NotImplementedError(f"{scope['type']} is not served here")
    if scope["path"] == "/":
        await respond(send, 200, b"text/html; charset=utf-8", PAGE)
    elif scope["path"] == "/events":
        await events(send)
    else:
        await respond(send, 404, b"text/plain", b"Not found\n")


async def events(send):
    """
    One event a second, until the worker leaves or the client does.

    ``is_leaving()`` is true as soon as the worker takes no more connections: the stream ends as any response does, and
    the browser asks again after the milliseconds of ``retry``. When the client has left, ``send()`` raises an OSError.
    """
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),  # for nginx, whose gzip would keep events until it has many
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        await send({"type": "http.response.body", "body": b"retry: 1000\n\n", "more_body": True})
        while not hybridworker.is_leaving():
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            await send({"type": "http.response.body", "body": f"data: {now}\n\n".encode(), "more_body": True})
            await asyncio.sleep(1)
        await send({"type": "http.response.body"})
        print("a stream has ended, because the worker leaves", flush=True)
    except OSError:
        print("a client has left", flush=True)


async def respond(send, status, content_type, body):
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
