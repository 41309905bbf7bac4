"""WSGI applications of the scenarios, without a framework."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from tests.benchmarks.apps import BODY_1M, BODY_10K, CHUNK, HELLO

Environ = dict[str, Any]


def _start(start_response: Any, length: int) -> None:
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(length))]
    start_response("200 OK", headers)


def hello(environ: Environ, start_response: Any) -> Iterable[bytes]:
    _start(start_response, len(HELLO))
    return [HELLO]


def get_10k(environ: Environ, start_response: Any) -> Iterable[bytes]:
    _start(start_response, len(BODY_10K))
    return [BODY_10K]


def download_1m(environ: Environ, start_response: Any) -> Iterable[bytes]:
    _start(start_response, len(BODY_1M))
    return [BODY_1M]


def echo(environ: Environ, start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    _start(start_response, len(body))
    return [body]


def generator(environ: Environ, start_response: Any) -> Iterator[bytes]:
    """100 items of 100 bytes, without a length: chunked on the wire."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(100):
        yield CHUNK


def sleep_50(environ: Environ, start_response: Any) -> Iterable[bytes]:
    time.sleep(0.05)
    _start(start_response, len(HELLO))
    return [HELLO]


def sleep(environ: Environ, start_response: Any) -> Iterable[bytes]:
    time.sleep(0.01)
    _start(start_response, len(HELLO))
    return [HELLO]
