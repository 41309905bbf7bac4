"""
``asgi`` and ``wsgi`` answer at once and leave work behind: the path says where.

The work waits at a gate of the same name and says when it is done, a little later than its
gate opens: a worker that does not wait for it is gone by then. Its pools are of the module,
as many applications have them.
"""

import asyncio
import concurrent.futures
import multiprocessing
import os
import sys
import threading
import time

import gate

executor = concurrent.futures.ThreadPoolExecutor(1, "of-the-module")
processes = None
kept = []


def job(name):
    gate.block(name)
    time.sleep(0.3)
    gate.say(f"job {name} done in {os.getpid()}")


def pool():
    """The process pool of the module. Made late, because those who are spawned import this module as well."""
    global processes
    if processes is None:
        context = multiprocessing.get_context(os.environ.get("METHOD", "spawn"))
        processes = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
    return processes


def pid_in_pool():
    return str(pool().submit(os.getpid).result())


def leave(name):
    """Leave work behind; returns what to answer."""
    if name == "thread":
        threading.Thread(target=job, args=(name,), name="of a request").start()
    elif name == "daemon":
        threading.Thread(target=job, args=(name,), daemon=True).start()
    elif name == "executor":
        executor.submit(job, name)
    elif name == "queued":
        executor.submit(job, "first")
        executor.submit(job, name)
    elif name == "process":
        pool().submit(job, name)
    elif name == "pid-in-pool":
        return pid_in_pool()
    elif name == "idle":
        executor.submit(gate.say, "executor used").result()
        pid_in_pool()
    return f"left in {os.getpid()}"


# -- asyncio only


async def forever(name):
    """A task that takes its time to clean up."""
    try:
        gate.say(f"task {name} begins")
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0.05)
        gate.say(f"task {name} has cleaned up")


async def stubborn():
    gate.say("task stubborn begins")
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            gate.say("not now")


async def fails():
    raise LookupError("nobody awaits this")


async def fails_when_cancelled():
    try:
        await asyncio.Event().wait()
    finally:
        raise LookupError("raised in cleaning up")


async def generator():
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        gate.say("generator closed")


async def leave_to_loop(name):
    loop = asyncio.get_running_loop()
    if name == "run-in-executor":
        loop.run_in_executor(None, job, name)
    elif name == "task":
        kept.append(asyncio.create_task(forever(name)))
    elif name == "stubborn":
        kept.append(asyncio.create_task(stubborn(), name="forged\nname"))
    elif name == "fails":
        asyncio.ensure_future(fails()).set_name("lonely")
    elif name == "fails-when-cancelled":
        kept.append(asyncio.create_task(fails_when_cancelled(), name="unclean"))
    elif name == "generator":
        kept.append(generator())
        await anext(kept[-1])
    elif name == "anyio":
        import anyio.to_thread

        await anyio.to_thread.run_sync(gate.say, "anyio used")
    else:
        return await loop.run_in_executor(None, leave, name)
    return f"left in {os.getpid()}"


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        gate.say("lifespan shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = (await leave_to_loop(scope["path"].strip("/"))).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    body = leave(environ["PATH_INFO"].strip("/")).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


if sys.argv[0].endswith("gunicorn"):
    # Nobody asks this thread for anything any more: it must not be taken for work.
    import queue

    orders = queue.Queue()
    threading.Thread(target=orders.get, name="waits for orders").start()
