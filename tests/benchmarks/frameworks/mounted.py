"""
Pages of Django and Flask by WSGI with a route of Starlette beside them, ``/hello``.

``NAME_in_hybrid`` is how this worker does it, ``NAME_in_starlette`` how one does it elsewhere: by a2wsgi. Each is made
when it is asked for: a worker loads one framework, and a2wsgi is among the peers only.
"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.frameworks import with_starlette


def __getattr__(name: str) -> Any:
    framework, _, where = name.partition("_in_")
    wsgi: Any
    if framework == "django":
        from tests.benchmarks.frameworks.with_django_shop import wsgi
    elif framework == "flask":
        from tests.benchmarks.frameworks.with_flask_shop import app as wsgi
    else:
        raise AttributeError(name)
    if where == "hybrid":
        from hybridworker import Hybrid

        return Hybrid(wsgi, routes={"/hello": with_starlette.app})
    from a2wsgi import WSGIMiddleware  # type: ignore[import-not-found]
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route

    return Starlette(routes=[Route("/hello", with_starlette.hello), Mount("/", WSGIMiddleware(wsgi, workers=8))])
