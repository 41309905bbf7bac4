"""
A loop whose clock jumps, and the applications of the end-to-end tests with ``/jump`` beside them.

``/jump/20`` puts the clock of the worker's loop 20 seconds ahead and answers when the worker
has looked at every timeout. Deadlines are read off that clock, so they pass as they would have
by waiting; timers of the loop itself keep to the time that passes. The look is due every
``TICK`` seconds of the latter, far more often than usual, so that no test waits for it.
"""

import asyncio
import time

import asgi as asgi_app
import uvloop
import wsgi as wsgi_app

import hybridworker.process.program

TICK = 0.05
PATIENCE = 60.0


class JumpingLoop(uvloop.Loop):
    ahead = 0.0

    def time(self):
        return super().time() + self.ahead


class State:
    loop = None
    beats = 0


def install(worker):
    """For the hook ``post_worker_init``, which runs before the worker makes its loop."""
    hybridworker.process.program.TICK = TICK
    notify = worker.notify

    def counted():
        State.beats += 1
        notify()

    def new_event_loop():
        State.loop = JumpingLoop()
        return State.loop

    worker.notify = counted
    uvloop.new_event_loop = new_event_loop


def looks(seconds):
    """Jump; then yields until the worker has looked at every timeout."""
    State.loop.ahead += seconds
    # The beat at hand may be half over, and the look comes after the beat's count.
    last, since = State.beats + 2, time.monotonic()
    while State.beats < last and time.monotonic() - since < PATIENCE:
        yield


async def asgi(scope, receive, send):
    name, _, argument = scope.get("path", "").strip("/").partition("/")
    if name != "jump":
        await asgi_app.app(scope, receive, send)
        return
    for _ in looks(float(argument)):
        await asyncio.sleep(0.01)
    await asgi_app.answer(send, "jumped")


def wsgi(environ, start_response):
    name, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    if name != "jump":
        return wsgi_app.app(environ, start_response)
    for _ in looks(float(argument)):
        time.sleep(0.01)
    return wsgi_app.answer(start_response, "jumped")
