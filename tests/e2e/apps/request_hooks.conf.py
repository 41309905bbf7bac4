"""
A configuration whose hooks print what they were given, and fail when the request says so.

``POST_REQUEST`` in the environment chooses how many parameters ``post_request`` takes.
"""

import asyncio
import os
import threading

from gate import say
from hooked import seen


def where():
    """On which loop's thread, and in which request's context, this is called."""
    try:
        asyncio.get_running_loop()
        place = "loop"
    except RuntimeError:
        place = "main thread" if threading.current_thread() is threading.main_thread() else "thread"
    return f"{place} {seen.get()}"


def pre_request(worker, req):
    shown = [value for name, value in req.headers if name == "X-IN"]
    say(
        f"pre {req.method} {req.uri} {req.path} {req.query!r} {req.version} {req.scheme} {shown}"
        f" {req.remote_addr[0] == req.peer_addr[0] == '127.0.0.1'} {worker.pid == os.getpid()} {where()}"
    )
    seen.set("pre")
    if req.path == "/pre-raises":
        raise ValueError("raised in pre_request")
    if req.path == "/changed":
        req.headers.append(("X-ADDED", "by the hook"))


def two(worker, req):
    say(f"post2 {req.uri}")


def three(worker, req, environ):
    say(f"post3 {req.uri} {environ['REQUEST_METHOD']} {environ['PATH_INFO']}")


def four(worker, req, environ, resp):
    say(f"where {where()}")
    if resp is None:
        say(f"post4 {req.uri} {environ} None")
    else:
        shown = [value for name, value in resp.headers if name.lower() == "x-out"]
        code = getattr(resp, "status_code", None)  # gunicorn has none before start_response()
        answer = f"{resp.status} {code} {shown} {resp.sent}"
        say(f"post4 {req.uri} {environ['PATH_INFO']} {environ['HTTP_HOST']} {answer}")
    if req.path == "/post-raises":
        raise ValueError("raised in post_request")


post_request = {"2": two, "3": three, "4": four}[os.environ.get("POST_REQUEST", "4")]


def post_worker_init(worker):
    say(f"post_worker_init {worker.pid} {worker.wsgi is not None} {worker.alive} {worker.booted} {worker.nr}")
    say(
        f"worker has {worker.age} {worker.ppid == os.getppid()} {len(worker.sockets)} {worker.cfg.workers}"
        f" {worker.timeout}"
    )


def worker_int(worker):
    say(f"worker_int {worker.pid}")
    if os.environ.get("RAISE"):
        raise ValueError("raised in worker_int")


def worker_abort(worker):
    say(f"worker_abort {worker.pid}")
    if os.environ.get("RAISE"):
        raise ValueError("raised in worker_abort")


def worker_exit(server, worker):
    say(f"worker_exit {worker.pid} {worker.nr} {type(server).__name__}")
    if os.environ.get("RAISE"):
        raise ValueError("raised in worker_exit")
