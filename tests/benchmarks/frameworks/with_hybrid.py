"""Pages of Django and Flask by WSGI, with an ASGI application beside them."""

from __future__ import annotations

from hybridworker import Hybrid
from tests.benchmarks.frameworks import with_django, with_flask, with_starlette

django = Hybrid(with_django.wsgi, websocket=with_django.asgi)
flask = Hybrid(with_flask.app, mounts={"/new": with_starlette.app})
