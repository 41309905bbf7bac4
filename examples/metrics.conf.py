"""
Metrics by gunicorn's hooks: durations of requests by status, in Prometheus' text format, without a library.

Run it:

    gunicorn -c examples/metrics.conf.py --chdir examples asgi_app:app

Try it:

    curl http://127.0.0.1:8000/                                 a few times
    curl http://127.0.0.1:8000/metrics                          the worker's own counts, of all workers
    curl http://127.0.0.1:9100/metrics                          those of the hooks below, of all workers

The worker counts requests, connections and waiting times by itself (HYBRIDWORKER_METRICS_PATH).
What only the application's owner can name is counted by ``pre_request`` and ``post_request``,
which are called for ASGI on the event loop and for WSGI in the thread of the call, and so must
not wait. The same two places are where an OpenTelemetry span would begin and end.
"""

import mmap
import os
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

worker_class = "hybridworker.Worker"
bind = "127.0.0.1:8000"
workers = 2
raw_env = ["HYBRIDWORKER_METRICS_PATH=/metrics"]

#: Upper bounds of the buckets, in seconds.
BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, float("inf"))
CLASSES = ("2xx", "3xx", "4xx", "5xx")
METRICS_ADDRESS = ("127.0.0.1", int(os.environ.get("METRICS_PORT", 9100)))

#: For each class the buckets and the sum of seconds, for each worker a row of its own: nobody writes where another
#: process does, so a lock between threads is enough. Anonymous shared memory, which the fork hands on.
ROW = struct.Struct(f"{len(CLASSES) * (len(BOUNDS) + 1)}d")
ROWS = 256
shared = mmap.mmap(-1, ROW.size * ROWS)
lock = threading.Lock()


def pre_request(worker, req):
    """A request begins. ``req`` is gunicorn's request in what matters: method, path, headers."""
    req.begun = time.monotonic()


def post_request(worker, req, environ, resp):
    """Its response has been sent. ``resp`` is None when ``pre_request`` raised."""
    group = -1 if resp is None else int(resp.status[0]) - 2
    if not 0 <= group < len(CLASSES):
        return
    seconds = time.monotonic() - req.begun
    first = group * (len(BOUNDS) + 1)
    offset = worker.age % ROWS * ROW.size
    with lock:
        row = list(ROW.unpack_from(shared, offset))
        row[first + next(index for index, bound in enumerate(BOUNDS) if seconds <= bound)] += 1
        row[first + len(BOUNDS)] += seconds
        ROW.pack_into(shared, offset, *row)


def exposition():
    """All workers in sum, also those that have ended, so that no counter falls."""
    totals = [sum(cells) for cells in zip(*ROW.iter_unpack(shared), strict=True)]
    yield "# HELP app_request_seconds Duration of requests.\n# TYPE app_request_seconds histogram\n"
    for group, name in enumerate(CLASSES):
        first, count = group * (len(BOUNDS) + 1), 0
        for bound, cell in zip(BOUNDS, totals[first:], strict=False):
            count += int(cell)
            le = "+Inf" if bound == float("inf") else bound
            yield f'app_request_seconds_bucket{{status="{name}",le="{le}"}} {count}\n'
        yield f'app_request_seconds_sum{{status="{name}"}} {totals[first + len(BOUNDS)]:.6f}\n'
        yield f'app_request_seconds_count{{status="{name}"}} {count}\n'


class Page(BaseHTTPRequestHandler):
    """The page, on a port of its own that the public does not reach."""

    def do_GET(self):
        """Whatever the path."""
        body = "".join(exposition()).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Not in the log."""


class Pages(HTTPServer):
    """One in each worker, on the same port: whichever the kernel asks answers for all, from the shared memory."""

    allow_reuse_port = True


def post_worker_init(worker):
    """After the fork, because a master with threads must not fork."""
    threading.Thread(target=Pages(METRICS_ADDRESS, Page).serve_forever, name="metrics", daemon=True).start()
