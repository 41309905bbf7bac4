"""A configuration whose hooks print that they ran, and that counts heartbeats."""

from gate import say


def post_worker_init(worker):
    worker.beats = 0
    notify = worker.notify

    def counted():
        worker.beats += 1
        notify()

    worker.notify = counted


def worker_exit(server, worker):
    say(f"hook worker_exit {worker.pid} after {getattr(worker, 'beats', 0)} heartbeats")


def worker_int(worker):
    say(f"hook worker_int {worker.pid}")


def worker_abort(worker):
    say(f"hook worker_abort {worker.pid}")


def ssl_context(config, default_ssl_context_factory):
    say("hook ssl_context")
    return default_ssl_context_factory()
