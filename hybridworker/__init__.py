"""hybridworker: a gunicorn worker that serves ASGI and WSGI applications."""

__version__ = "0.1.0"
