"""Frameworks as parts of Hybrids, mounted and routed: each makes URLs, redirects to a slash, and serves a file."""

import os
from pathlib import Path

import django
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import include, path, reverse
from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from flask import Flask
from flask import url_for as flask_url_for
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hybridworker import Hybrid

FILES = Path(__file__).parent


# -- Starlette and FastAPI: routes for a part that is mounted, and the same below a prefix for one that is routed


def starlette(prefix=""):
    async def where(request):
        return PlainTextResponse(f"{request.url_for('where')} {request.url_for('static', path='gate.py')}")

    inner = [
        Route("/where/", where, name="where"),
        Mount("/static", StaticFiles(directory=FILES), name="static"),
    ]
    return Starlette(routes=[Mount(prefix, routes=inner)] if prefix else inner)


def named_starlette(prefix):
    async def where(request):
        return PlainTextResponse(f"{request.url_for('all:where')} {request.url_for('all:static', path='gate.py')}")

    inner = [Route("/where/", where, name="where"), Mount("/static", StaticFiles(directory=FILES), name="static")]
    return Starlette(routes=[Mount(prefix, routes=inner, name="all")])


def fastapi(prefix=""):
    made = FastAPI()

    @made.get(f"{prefix}/where/")
    def where(request: FastAPIRequest):
        return PlainTextResponse(f"{request.url_for('where')} {request.url_for('static', path='gate.py')}")

    made.mount(f"{prefix}/static", StaticFiles(directory=FILES), name="static")
    return made


# -- Flask


def flask(prefix=""):
    made = Flask(__name__, static_folder=str(FILES), static_url_path=f"{prefix}/static")

    @made.get(f"{prefix}/where/")
    def where():
        return f"{flask_url_for('where', _external=True)} {flask_url_for('static', filename='gate.py', _external=True)}"

    return made


# -- Django: one project, whose URLs stand at the root and below the prefixes of its routes


def where(request):
    name = "routed:" if request.path_info.startswith(("/rd", "/ra")) else "root:"
    prefix = request.path_info.partition("/where")[0].strip("/") or "x"
    arguments = [prefix] if name == "routed:" else []
    return HttpResponse(
        f"{request.build_absolute_uri(reverse(name + 'where', args=arguments))}"
        f" {request.build_absolute_uri(reverse(name + 'static', args=[*arguments, 'gate.py']))}"
    )


def at_root(request, **kwargs):
    return where(request)


def static(request, file, prefix=""):
    return HttpResponse((FILES / file).read_bytes())  # by ASGI `serve` warns


root = ([path("where/", at_root, name="where"), path("static/<path:file>", static, name="static")], "root")
routed = (
    [path("<prefix>/where/", at_root, name="where"), path("<prefix>/static/<path:file>", static, name="static")],
    "routed",
)
urlpatterns = [path("", include(root)), path("", include(routed))]

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["localhost"],
        FORCE_SCRIPT_NAME=None,
        INSTALLED_APPS=["channels"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=__name__,
        SECRET_KEY="of the tests",
    )
    django.setup(set_prefix=False)


class Echo(WebsocketConsumer):
    """Says which path it sees."""

    def connect(self):
        self.accept()
        self.send(text_data=f"{self.scope['root_path']} {self.scope['path']} {self.scope['url_route']['kwargs']}")


asgi = get_asgi_application()
channels = ProtocolTypeRouter({"http": asgi, "websocket": URLRouter([path("room/<name>", Echo.as_asgi())])})
routed_channels = URLRouter([path("rc/room/<name>", Echo.as_asgi())])

mounts = {
    "/ms": starlette(),
    "/mf": fastapi(),
    "/ml": flask(),
    "/md": get_wsgi_application(),
    "/ma": asgi,
    "/mc": channels,
}
routes = {
    "/rs": named_starlette("/rs"),
    "/rf": fastapi("/rf"),
    "/rl": flask("/rl"),
    "/rd": get_wsgi_application(),
    "/ra": asgi,
    "/rc": ProtocolTypeRouter({"http": asgi, "websocket": routed_channels}),
}

if os.environ.get("WITH_MCP"):
    from fastmcp import FastMCP

    server = FastMCP("tools")

    @server.tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    mounts["/mm"] = server.http_app(path="/mcp")
    routes["/rm"] = server.http_app(path="/rm/mcp")

app = Hybrid(routes=routes, mounts=mounts)
