"""Django with a cache that says when it is made: Django keeps its caches in a ``Local`` of asgiref's."""

import django
import gate
from django.conf import settings
from django.core.cache import cache
from django.core.cache.backends.locmem import LocMemCache
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


class Counting(LocMemCache):
    """Stands for one that makes a connection."""

    def __init__(self, name, params):
        super().__init__(name, params)
        gate.say("a cache was made")


if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        CACHES={"default": {"BACKEND": f"{__name__}.Counting"}},
        LOGGING_CONFIG=None,
        MIDDLEWARE=[],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
    )
    django.setup(set_prefix=False)


def count(request):
    cache.add("count", 0)
    return HttpResponse(str(cache.incr("count")))


urlpatterns = [path("count", count)]

app = get_wsgi_application()
