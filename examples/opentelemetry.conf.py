"""
OpenTelemetry: spans of Django and FastAPI from every worker, without a line in the application.

Run it, beside a collector that takes OTLP by HTTP on port 4318 (OTEL_EXPORTER_OTLP_ENDPOINT names another one; without
any a line of the log says so now and then, and nothing else happens):

    gunicorn -c examples/opentelemetry.conf.py --chdir examples fastapi_app:app

For Django the end of it is ``--chdir examples/django_project project.wsgi``. Try it; the access line shows the trace
in both cases:

    curl -i http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/ -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'

The frameworks make the spans, not the worker. Two things must happen in the right process at the right time. A
framework is instrumented before the application is imported: ``post_fork``. (With ``--preload`` that is too late: then
call ``instrument()`` at the top of the application's module.) What exports has a thread, which no fork carries over:
``post_worker_init``, which every worker calls.
"""

import importlib.util
import os

worker_class = "hybridworker.Worker"
bind = "127.0.0.1:8000"
workers = 2
threads = 4

#: The worker's own lines about a request that came with a trace name it: errors, slow calls, the table of USR2.
raw_env = ["HYBRIDWORKER_REQUEST_ID=traceparent"]

#: A request that came without one has its trace from the instrumentation, which sends it back in ``traceresponse``.
accesslog = "-"
access_log_format = '%(h)s "%(r)s" %(s)s %(D)s us, trace %({traceresponse}o)s'

FRAMEWORKS = {"django": "DjangoInstrumentor", "fastapi": "FastAPIInstrumentor"}


def instrument():
    """Whatever of the two is installed; Django needs to know its settings."""
    for name, instrumentor in FRAMEWORKS.items():
        if importlib.util.find_spec(name) and (name != "django" or "DJANGO_SETTINGS_MODULE" in os.environ):
            module = importlib.import_module(f"opentelemetry.instrumentation.{name}")
            getattr(module, instrumentor)().instrument()


def post_fork(server, worker):
    """In the worker, before it imports the application."""
    if (app := getattr(worker.app, "app_uri", None) or "").startswith("project."):
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"{app.partition('.')[0]}.settings")
    instrument()


def post_worker_init(worker):
    """In the worker, when the application is there: the exporter and its thread."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.propagators import TraceResponsePropagator, set_global_response_propagator
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME names the service.
    provider = TracerProvider(resource=Resource.create({"process.pid": os.getpid()}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    set_global_response_propagator(TraceResponsePropagator())


def worker_exit(server, worker):
    """The last spans are sent."""
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    if hasattr(provider, "shutdown"):  # not where the worker could not boot
        provider.shutdown()
