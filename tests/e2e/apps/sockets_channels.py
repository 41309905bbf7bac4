"""WebSockets by Django Channels: an async and a sync consumer, groups, and the check of the origin."""

import threading

import django
import gate
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        INSTALLED_APPS=["channels"],
        LOGGING_CONFIG=None,
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
    )
    django.setup(set_prefix=False)


class Room(AsyncJsonWebsocketConsumer):
    """What anybody says goes to everybody in the room of the path."""

    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)

    async def receive_json(self, content):
        await self.channel_layer.group_send(self.room, {"type": "said", "text": content["text"]})

    async def said(self, event):
        await self.send_json({"text": event["text"]})

    async def disconnect(self, code):
        gate.say(f"channels disconnected {code}")
        await self.channel_layer.group_discard(self.room, self.channel_name)


class Sync(WebsocketConsumer):
    """Runs in asgiref's thread."""

    def receive(self, text_data=None, bytes_data=None):
        main = threading.current_thread() is threading.main_thread()
        self.send(text_data=f"{main} {text_data}") if text_data else self.send(bytes_data=bytes_data)

    def disconnect(self, code):
        gate.say(f"channels sync disconnected {code}")


def page(request):
    return HttpResponse("Hello from Channels")


urlpatterns = [path("", page)]

app = ProtocolTypeRouter(
    {
        "http": get_asgi_application(),
        "websocket": AllowedHostsOriginValidator(
            URLRouter([path("rooms/<room>", Room.as_asgi()), path("sync", Sync.as_asgi())])
        ),
    }
)
