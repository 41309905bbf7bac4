"""FastAPI: a JSON view."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from tests.benchmarks.frameworks import ANSWER

app = FastAPI()


@app.get("/")
async def view() -> dict[str, Any]:
    return ANSWER
