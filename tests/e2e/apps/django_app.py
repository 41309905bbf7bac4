"""
A Django project in one file, for what is special about Django: views of either colour.

``asgi`` and ``wsgi`` are the same project. A sync view under ASGI runs in asgiref's
thread, an async view under WSGI on a loop of its own in the calling thread.
"""

import asyncio
import threading

import django
import gate
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        LOGGING_CONFIG=None,
    )
    django.setup(set_prefix=False)


def sync_view(request):
    return HttpResponse(f"sync {request.method} {request.body.decode()} {request.scheme}")


async def async_view(request):
    await asyncio.sleep(0)
    return HttpResponse(f"async {request.method} {request.body.decode()} {request.scheme}")


def sync_blocks(request, name):
    gate.block(name)
    return HttpResponse(f"passed {name}")


async def async_blocks(request, name):
    gate.block(name)
    return HttpResponse(f"passed {name}")


def upload(request):
    file = request.FILES["file"]
    return HttpResponse(f"{file.name} {file.size} {sum(len(part) for part in file.chunks())}")


def stream(request):
    return StreamingHttpResponse(b"part %d\n" % number for number in range(3))


def thread(request):
    return HttpResponse(str(threading.current_thread() is threading.main_thread()))


urlpatterns = [
    path("sync", sync_view),
    path("async", async_view),
    path("sync-blocks/<name>", sync_blocks),
    path("async-blocks/<name>", async_blocks),
    path("upload", upload),
    path("stream", stream),
    path("thread", thread),
]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
