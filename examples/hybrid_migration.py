"""
From Flask to FastAPI one path at a time: both in one worker, on one port.

Run it:

    gunicorn -k hybridworker.Worker --threads 8 --chdir examples hybrid_migration:app

Try it:

    curl http://127.0.0.1:8000/                   Flask, as ever
    curl http://127.0.0.1:8000/api/v2/items       FastAPI, mounted
    curl http://127.0.0.1:8000/api/v2/docs        its pages know where they are

What has moved gets a prefix in ``mounts``; what has not is still Flask's, at Flask's own price.
"""

import contextlib

from fastapi import FastAPI, Request
from flask import Flask, jsonify, url_for

from hybridworker import Hybrid

old = Flask(__name__)


@old.get("/")
def hello():
    """Where the old API is, and where the new one."""
    return jsonify(hello="Flask", old=url_for("items"), new="/api/v2/items")


@old.get("/api/v1/items")
def items():
    """Not moved yet."""
    return jsonify(["tea"])


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    """Runs once in each worker, beside Flask, which has none."""
    yield {"items": ["tea", "coffee"]}


new = FastAPI(title="Version 2", lifespan=lifespan)


@new.get("/items")
async def items_2(request: Request) -> list[str]:
    """Moved."""
    return request.state.items


@new.get("/self")
async def itself(request: Request) -> dict[str, str]:
    """A URL that is made with the mount point."""
    return {"items": str(request.url_for("items_2"))}


app = Hybrid(old, mounts={"/api/v2": new})
