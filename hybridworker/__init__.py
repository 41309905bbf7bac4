"""
hybridworker: a gunicorn worker that serves ASGI and WSGI applications.

``gunicorn -k hybridworker.Worker module:app``
"""

import sys

# A master started as `python -m gunicorn` re-executes gunicorn/__main__.py as a script for its USR2 upgrade. Python
# then puts gunicorn's own folder first on the path, where its package `http` hides the one of the standard library.
sys.path[:] = [entry for entry in sys.path if not entry.rstrip("/").endswith("/site-packages/gunicorn")]

from .worker import Worker  # noqa: E402  (the path comes first)

__version__ = "0.1.0"
__all__ = ["Worker", "__version__"]
