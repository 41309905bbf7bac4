"""A configuration whose hooks install handlers, tell the worker to go, and print that it went."""

import os

import gate


def post_worker_init(worker):
    import signalled  # here and not above: the master must not import it

    signalled.workers.append(worker)
    signalled.install("hook")
    if os.environ.get("LEAVE") == "post_worker_init" and worker.age == 1:
        worker.alive = False


def pre_request(worker, req):
    if os.environ.get("LEAVE") == "pre_request" and req.path == "/unused":
        worker.alive = False


def worker_exit(server, worker):
    gate.say(f"worker_exit {worker.pid}")
    if "HOLD" in os.environ:
        gate.block("worker_exit")
        gate.say("worker_exit is over")
