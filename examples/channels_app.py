"""
Django Channels: a chat over two workers, which a Redis channel layer ties together.

Run it:

    gunicorn -k hybridworker.Worker --workers 2 --chdir examples channels_app:app

Try it:

    redis-server --bind 127.0.0.1 --save ""       in another terminal
    open http://127.0.0.1:8000/ in two windows of a browser

Needs ``pip install '.[websockets,examples]'``. Each window shows which process it is connected
to; what is said reaches all windows, whichever process they are at. ``REDIS_URL`` names another
Redis.
"""

import json
import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY=os.environ.get("SECRET_KEY", "only-for-the-example"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["channels"],
    USE_TZ=True,
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")]},
        }
    },
)
django.setup()

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Chat</title>
<ol id="messages"></ol>
<form><input id="text" placeholder="Say something" autocomplete="off" autofocus></form>
<script>
  const socket = new WebSocket(location.href.replace(/^http/, "ws") + "chat")
  socket.onmessage = event => {
    const { pid, text } = JSON.parse(event.data)
    document.querySelector("#messages").appendChild(document.createElement("li")).textContent = `${text} (${pid})`
  }
  document.querySelector("form").onsubmit = event => {
    event.preventDefault()
    socket.send(document.querySelector("#text").value)
    document.querySelector("#text").value = ""
  }
</script>
"""


class Chat(AsyncWebsocketConsumer):
    """One person in the room. The room is a group of the channel layer, so it spans processes and machines."""

    groups = ("room",)

    async def connect(self):
        """Say hello in this window alone, with the number of the process that it is connected to."""
        await self.accept()
        await self.send(json.dumps({"pid": os.getpid(), "text": "welcome"}))

    async def receive(self, text_data=None, bytes_data=None):
        """What this one says goes to the group."""
        message = {"type": "chat.message", "pid": os.getpid(), "text": text_data or ""}
        await self.channel_layer.group_send("room", message)

    async def chat_message(self, event):
        """What anybody in the group said goes to this window."""
        await self.send(json.dumps({"pid": event["pid"], "text": event["text"]}))


def page(request):
    """The page that opens the socket."""
    return HttpResponse(PAGE)


urlpatterns = [path("", page)]

app = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": URLRouter([path("chat", Chat.as_asgi())]),
    }
)
