"""
Django both ways in one worker: pages by WSGI in threads, WebSockets and server-sent events by ASGI on the loop.

Run it:

    gunicorn -k hybridworker.Worker --threads 8 --chdir examples hybrid_django:app

Try it:

    curl http://127.0.0.1:8000/                   counts a visit, with a connection that its thread keeps
    curl -N http://127.0.0.1:8000/events          an event for each new visit
    open http://127.0.0.1:8000/ in a browser      both, and a WebSocket

Needs ``pip install '.[websockets,examples]'``. A sync page costs a third under WSGI of what it costs under plain ASGI,
and ``CONN_MAX_AGE`` works; a stream or a socket occupies no thread. ``DATABASE`` names the file of the database.
"""

import asyncio
import os
import tempfile

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connection, models
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

from hybridworker import Hybrid, is_leaving

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-the-example"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.environ.get("DATABASE", os.path.join(tempfile.gettempdir(), "hybrid_django.sqlite3")),
            "CONN_MAX_AGE": 60,
        }
    },
)
django.setup()


class Visit(models.Model):
    """Somebody has seen the page."""

    class Meta:
        app_label = "example"
        db_table = "visit"


with connection.cursor() as cursor:  # a real project has migrations
    cursor.execute("CREATE TABLE IF NOT EXISTS visit (id integer PRIMARY KEY AUTOINCREMENT)")
connection.close()

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Hybrid</title>
<p>Visits: <output>{visits}</output>, and a socket says <em>...</em></p>
<script>
  new EventSource("/events").onmessage = event => {{ document.querySelector("output").value = event.data }}
  const socket = new WebSocket(location.href.replace(/^http/, "ws") + "echo")
  socket.onopen = () => socket.send("hello")
  socket.onmessage = event => {{ document.querySelector("em").textContent = event.data }}
</script>
"""


def page(request):
    """A sync view with the database: by WSGI, in a thread of the pool."""
    Visit.objects.create()
    return HttpResponse(PAGE.format(visits=Visit.objects.count()))


async def events(request):
    """An async view: by ASGI, on the loop, for as long as the client stays."""

    async def counts():
        last = None
        while not is_leaving():  # else a stream would hold a deploy up; the browser asks again by itself
            visits = await Visit.objects.acount()
            if visits != last:
                yield f"data: {visits}\n\n"
                last = visits
            await asyncio.sleep(0.2)

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # for nginx, whose gzip would keep events
    return StreamingHttpResponse(counts(), content_type="text/event-stream", headers=headers)


class Echo(AsyncWebsocketConsumer):
    """What is said comes back."""

    async def receive(self, text_data=None, bytes_data=None):
        """One message of the client."""
        await self.send(text_data)


urlpatterns = [path("", page), path("events", events)]

channels = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("echo", Echo.as_asgi())]),
    }
)

app = Hybrid(
    get_wsgi_application(),
    websocket=channels,
    routes={"/events": channels},
)
