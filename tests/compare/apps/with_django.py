"""Django by ASGI with a synchronous view and an SQLite file; ``/opened`` says how many connections were opened."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    SECRET_KEY="only for the comparison",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "compare.sqlite3", "CONN_MAX_AGE": 600}},
)
django.setup()

opened: list[Any] = []


@receiver(connection_created)
def count(**what: Any) -> None:
    """Called for each new connection."""
    opened.append(None)


def query(request: HttpRequest) -> HttpResponse:
    """A page with a query."""
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        return HttpResponse(str(cursor.fetchone()[0]))


def number(request: HttpRequest) -> HttpResponse:
    """How many connections were opened."""
    return HttpResponse(str(len(opened)))


urlpatterns = [path("", query), path("opened", number)]
app = get_asgi_application()
