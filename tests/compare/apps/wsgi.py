"""The WSGI application of the rows: each path is something that users do. Runs in the server's process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

Environ = dict[str, Any]

BIG = b"x" * (4 << 20)

kept: list[bytearray] = []  #: what ``/grow`` does not give back
pools: list[ProcessPoolExecutor] = []


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A WSGI application."""
    body = HANDLERS.get(environ["PATH_INFO"], hello)(environ, environ.get("QUERY_STRING", ""))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def hello(environ: Environ, query: str) -> bytes:
    return b"hello"


def pid(environ: Environ, query: str) -> bytes:
    return b"%d" % os.getpid()


def size(environ: Environ, query: str) -> bytes:
    """How many bytes the request had."""
    return b"%d" % len(environ["wsgi.input"].read())


def slow(environ: Environ, query: str) -> bytes:
    """Take so many seconds."""
    time.sleep(float(query))
    return b"slow"


def hang_in_a_call(environ: Environ, query: str) -> bytes:
    """For ever, in a function with a name that is looked for."""
    threading.Event().wait(float(query or 600))
    return b"late"


def big(environ: Environ, query: str) -> bytes:
    return BIG


def client(environ: Environ, query: str) -> bytes:
    """The address of the client, and the scheme."""
    return f"{environ.get('REMOTE_ADDR') or 'none'} {environ['wsgi.url_scheme']}".encode()


def trailers(environ: Environ, query: str) -> bytes:
    """A response with a trailer, as gunicorn's workers have it for HTTP/2."""
    if send := environ.get("gunicorn.http2.send_trailers"):
        send([("grpc-status", "0")])
        return b"with trailers"
    return b"not announced"


def hints(environ: Environ, query: str) -> bytes:
    """A 103 before the response, as gunicorn's workers have it."""
    if send := environ.get("wsgi.early_hints"):
        send([("Link", "</style.css>; rel=preload; as=style")])
    return b"after hints"


def pool(environ: Environ, query: str) -> bytes:
    """Use a process pool that the application keeps."""
    if not pools:
        pools.append(ProcessPoolExecutor(2))
    return b"%d" % pools[0].submit(os.getpid).result()


def grow(environ: Environ, query: str) -> bytes:
    """Keep so many MiB for ever."""
    kept.append(bytearray(os.urandom(1 << 20) * int(query)))
    return b"%d" % os.getpid()


HANDLERS: dict[str, Callable[[Environ, str], bytes]] = {
    "/pid": pid,
    "/size": size,
    "/slow": slow,
    "/hang": hang_in_a_call,
    "/big": big,
    "/client": client,
    "/trailers": trailers,
    "/hints": hints,
    "/pool": pool,
    "/grow": grow,
}
