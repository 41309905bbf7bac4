"""
Sync and async views.

Django bridges the one that does not fit the interface: an async view works under WSGI,
a sync view under ASGI.
"""

import asyncio

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt


def interface(request):
    """How this request came in."""
    return "ASGI" if hasattr(request, "scope") else "WSGI"


def hello(request):
    """A sync view."""
    return JsonResponse({"hello": "Django", "interface": interface(request), "view": "sync"})


async def hello_async(request):
    """An async view: it can wait for two things at once."""
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
    return JsonResponse({"hello": "Django", "interface": interface(request), "view": "async"})


def numbers(request):
    """Send each number as soon as it is there."""
    if interface(request) == "WSGI":
        return StreamingHttpResponse((f"{number}\n" for number in range(10)), content_type="text/plain")

    async def items():
        for number in range(10):
            yield f"{number}\n"

    return StreamingHttpResponse(items(), content_type="text/plain")


def form(request):
    """A form, which Django takes if the site that it names is this one: see Host in ``examples/deploy/nginx.conf``."""
    if request.method == "POST":
        return HttpResponse(f"Thank you, {request.POST['name']}.\n", content_type="text/plain")
    token = f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">'
    return HttpResponse(f'<form method="post">{token}<input name="name"><button>Send</button></form>\n')


@csrf_exempt  # so that curl can send it
def upload(request):
    """The name and the size of a file in a form."""
    file = request.FILES["file"]
    return JsonResponse({"name": file.name, "size": file.size})
