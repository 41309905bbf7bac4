"""
Django: a JSON view, an async one under ASGI and a plain one under WSGI.

No middleware: under ASGI each synchronous one is a trip to a thread, and the servers would drown in it.
"""

from __future__ import annotations

from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, JsonResponse  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from tests.benchmarks.frameworks import ANSWER

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="not a secret")


async def async_view(request: HttpRequest) -> JsonResponse:
    return JsonResponse(ANSWER)


def view(request: HttpRequest) -> JsonResponse:
    return JsonResponse(ANSWER)


urlpatterns = [path("", view), path("async", async_view)]
asgi = get_asgi_application()
wsgi = get_wsgi_application()
