"""Starlette: a JSON view, and files by ``FileResponse`` (which uses ``http.response.pathsend`` where it is offered)."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.benchmarks.frameworks import ANSWER

FILES = Path(os.environ["BENCHMARK_FILES"])


async def view(request: Request) -> Response:
    return JSONResponse(ANSWER)


async def hello(request: Request) -> Response:
    return PlainTextResponse("Hello, world!")


async def small_file(request: Request) -> Response:
    return FileResponse(FILES / "50k.bin")


async def large_file(request: Request) -> Response:
    return FileResponse(FILES / "100m.bin")


app = Starlette(
    routes=[Route("/", view), Route("/hello", hello), Route("/50k", small_file), Route("/100m", large_file)]
)
