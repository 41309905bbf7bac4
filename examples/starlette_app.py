"""
Starlette: a lifespan with state, JSON, a streamed response and a background task.

Run it:

    gunicorn -k hybridworker.Worker --chdir examples starlette_app:app

Try it:

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/numbers
    curl -X POST http://127.0.0.1:8000/mail
"""

import asyncio
import contextlib

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route


@contextlib.asynccontextmanager
async def lifespan(app):
    """What is yielded here is ``request.state`` in each request."""
    yield {"sent": []}


async def hello(request):
    """Answer with JSON."""
    return JSONResponse({"hello": "Starlette", "client": request.client.host, "mails": request.state.sent})


async def numbers(request):
    """Send each number as soon as it is there."""

    async def items():
        for number in range(10):
            yield f"{number}\n"
            await asyncio.sleep(0)

    return StreamingResponse(items(), media_type="text/plain")


async def mail(request):
    """Answer first, work afterwards."""

    async def deliver():
        request.state.sent.append("mail")

    return JSONResponse({"mail": "accepted"}, status_code=202, background=BackgroundTask(deliver))


app = Starlette(
    routes=[Route("/", hello), Route("/numbers", numbers), Route("/mail", mail, methods=["POST"])],
    lifespan=lifespan,
)
