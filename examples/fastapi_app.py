"""
FastAPI: a lifespan with state, a validated body, and an endpoint that runs in a thread.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples fastapi_app:app

Try it:

    curl http://127.0.0.1:8000/
    curl --json '{"name": "tea", "price": 2.5}' http://127.0.0.1:8000/items
    curl http://127.0.0.1:8000/docs
"""

import contextlib

from fastapi import FastAPI, Request
from pydantic import BaseModel


class Item(BaseModel):
    """Something with a price."""

    name: str
    price: float


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    """What is yielded here is ``request.state`` in each request."""
    yield {"items": []}


app = FastAPI(title="hybridworker example", lifespan=lifespan)


@app.get("/")
async def hello(request: Request) -> dict[str, str | int]:
    """Count what was posted."""
    return {"hello": "FastAPI", "items": len(request.state.items)}


@app.post("/items", status_code=201)
async def create(item: Item, request: Request) -> Item:
    """Take an item; what is no item is refused with 422."""
    request.state.items.append(item)
    return item


@app.get("/blocking")
def blocking() -> dict[str, str]:
    """A plain function: FastAPI calls it in a thread, so it may block."""
    return {"hello": "thread"}
