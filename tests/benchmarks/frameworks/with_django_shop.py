"""
Django as it is used: a shop with the middleware of ``startproject``, and SQLite in a file.

``/`` is the page of a customer who is logged in: session, user and 12 products with their categories from the
database, two templates. ``/report`` computes and renders, and asks nobody: 8 threads of it are busy with the processor.
``/health`` and ``/hello`` answer at once, for those servers where only the application can.

``python -m tests.benchmarks.frameworks.with_django_shop`` makes the database.
"""

from __future__ import annotations

import os
from pathlib import Path

import django  # type: ignore[import-untyped]
from django.conf import settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.core.management import call_command  # type: ignore[import-untyped]
from django.core.wsgi import get_wsgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.shortcuts import render  # type: ignore[import-untyped]
from django.urls import path  # type: ignore[import-untyped]

from tests.benchmarks.apps import HELLO
from tests.benchmarks.frameworks import catalogue

FILE = Path(os.environ["BENCHMARK_FILES"]) / "shop.sqlite3"
SESSION = "0123456789abcdefghijklmnopqrstuv"
TEMPLATES = {
    "base.html": """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{% block title %}{% endblock %} - The shop</title></head>
<body><header><nav>{% for name in categories %}<a href="{% url 'shop' %}?category={{ name|urlencode }}">{{ name }}</a>
{% endfor %}</nav>{% if user.is_authenticated %}<p>Hello {{ user.first_name }}, {{ basket|length }} in your basket</p>
{% endif %}{% for message in messages %}<p>{{ message }}</p>{% endfor %}</header>
<main>{% block content %}{% endblock %}</main></body></html>
""",
    "shop.html": """{% extends "base.html" %}{% block title %}Products{% endblock %}{% block content %}
<form method="post">{% csrf_token %}<input name="search"><button>Search</button></form>
<table>{% for product in products %}<tr class="{% cycle 'odd' 'even' %}"><td>{{ product.name }}</td>
<td>{{ product.category.name }}</td><td>{{ product.price|floatformat:2 }}</td>
<td>{% if product.stock %}{{ product.stock }} item{{ product.stock|pluralize }}{% else %}sold out{% endif %}</td></tr>
{% endfor %}</table>{% endblock %}
""",
    "report.html": """{% extends "base.html" %}{% block title %}Report{% endblock %}{% block content %}
<table>{% for product in products %}<tr><td>{{ product.name|upper }}</td><td>{{ product.category|lower }}</td>
<td>{{ product.price|floatformat:2 }}</td><td>{{ product.stock }}</td></tr>
{% endfor %}</table>{% endblock %}
""",
}

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FILE}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    ROOT_URLCONF=__name__,
    SECRET_KEY="not a secret",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ],
                "loaders": [
                    ("django.template.loaders.cached.Loader", [("django.template.loaders.locmem.Loader", TEMPLATES)])
                ],
            },
        }
    ],
)
django.setup()

from django.db import connection, models  # type: ignore[import-untyped]  # noqa: E402 (not before the settings)


class Category(models.Model):  # type: ignore[misc]
    name = models.CharField(max_length=50)

    class Meta:
        app_label = "shop"


class Product(models.Model):  # type: ignore[misc]
    name = models.CharField(max_length=50, db_index=True)
    category = models.ForeignKey(Category, models.CASCADE)
    price = models.DecimalField(max_digits=8, decimal_places=2)
    stock = models.IntegerField()

    class Meta:
        app_label = "shop"


def shop(request: HttpRequest) -> HttpResponse:
    products = Product.objects.select_related("category").order_by("name")[:12]
    context = {
        "products": products,
        "categories": catalogue.CATEGORIES,
        "basket": request.session.get("basket", []),
    }
    return render(request, "shop.html", context)


def report(request: HttpRequest) -> HttpResponse:
    context = {"products": catalogue.products(50), "categories": catalogue.CATEGORIES}
    return render(request, "report.html", context)


def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(HELLO, content_type="text/plain")


urlpatterns = [path("", shop, name="shop"), path("report", report), path("health", health), path("hello", hello)]
asgi = get_asgi_application()
wsgi = get_wsgi_application()


def fill() -> None:
    """Make the database: the products, and a customer whose session is :data:`SESSION`."""
    from django.contrib import auth  # type: ignore[import-untyped]
    from django.contrib.auth.models import User  # type: ignore[import-untyped]
    from django.contrib.sessions.backends.db import SessionStore  # type: ignore[import-untyped]

    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Category)
        editor.create_model(Product)
    categories = {name: Category.objects.create(name=name) for name in catalogue.CATEGORIES}
    Product.objects.bulk_create(
        Product(name=one.name, category=categories[one.category], price=one.price / 100, stock=one.stock)
        for one in catalogue.products(1_000)
    )
    user = User.objects.create(username="customer", first_name="Alex")
    session = SessionStore()
    session[auth.SESSION_KEY] = str(user.pk)
    session[auth.BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[auth.HASH_SESSION_KEY] = user.get_session_auth_hash()
    session["basket"] = [3, 14, 159]
    session._session_key = SESSION
    session.save(must_create=True)


if __name__ == "__main__":
    fill()
