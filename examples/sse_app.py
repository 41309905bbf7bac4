"""
Server-sent events without a framework: a clock that ticks in the browser.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples sse_app:app

Try it:

    curl -N http://127.0.0.1:8000/events          or open http://127.0.0.1:8000/ in a browser
"""

import asyncio
import datetime

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
    """One event a second. ``send()`` raises an OSError when the client has left, which ends the loop."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    try:
        while True:
            now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
            await send({"type": "http.response.body", "body": f"data: {now}\n\n".encode(), "more_body": True})
            await asyncio.sleep(1)
    except OSError:
        print("a client has left", flush=True)


async def respond(send, status, content_type, body):
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
