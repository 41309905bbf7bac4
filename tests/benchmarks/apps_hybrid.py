"""Hello of either kind, as one of five parts of a Hybrid."""

from __future__ import annotations

from hybridworker import Hybrid
from hybridworker.asgi import Receive, Scope, Send
from tests.benchmarks import apps, apps_wsgi


async def other(scope: Scope, receive: Receive, send: Send) -> None:
    """A part that nobody calls."""
    raise ValueError(f"{scope['type']} is not served here")


asgi = Hybrid(apps.hello, websocket=other, routes={"/a": other, "/b": apps_wsgi.hello}, mounts={"/c": other})
wsgi = Hybrid(apps_wsgi.hello, websocket=other, routes={"/a": other, "/b": apps.hello}, mounts={"/c": other})
