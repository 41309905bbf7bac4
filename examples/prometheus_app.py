"""
prometheus_client over several workers: what the application counts, summed over all of them.

Run it:

    gunicorn -c examples/prometheus.conf.py --chdir examples prometheus_app:app

Try it:

    curl http://127.0.0.1:8000/                 a few times
    curl http://127.0.0.1:8000/metrics          whichever worker answers, the sums are those of all
    curl http://127.0.0.1:8000/workers          the worker's own metrics, beside it

``prometheus.conf.py`` sets the library's multiprocess mode up: each worker keeps its values in files of a folder, and
a page reads them all. Counters of a worker that has ended stay in the sums, gauges of it go.
"""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

ORDERS = Counter("app_orders", "Orders taken.", ["kind"])
SECONDS = Histogram("app_order_seconds", "How long an order took.")
ALIVE = Gauge("app_workers", "Workers that have taken an order and live.", multiprocess_mode="livesum")


def app(environ, start_response):
    """Take an order, or show what was counted."""
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        body, kind = generate_latest(registry), CONTENT_TYPE_LATEST
    else:
        with SECONDS.time():
            ORDERS.labels("tea").inc()
            ALIVE.set(1)
        body, kind = b"thank you\n", "text/plain"
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
