"""Flask as it is mounted in an ASGI application today: by a2wsgi, in Starlette."""

from __future__ import annotations

from a2wsgi import WSGIMiddleware  # type: ignore[import-not-found]  # among the peers only
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.benchmarks.frameworks import with_flask

app = Starlette(routes=[Mount("/", WSGIMiddleware(with_flask.app, workers=8))])
