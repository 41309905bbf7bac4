"""
hybridworker: a gunicorn worker that serves ASGI and WSGI applications.

``gunicorn -k hybridworker.Worker module:app``
"""

import sys

# A master started as `python -m gunicorn` re-executes gunicorn/__main__.py as a script for its USR2 upgrade. Python
# then puts gunicorn's own folder first on the path, where its package `http` hides the one of the standard library.
sys.path[:] = [entry for entry in sys.path if not entry.rstrip("/").endswith("/site-packages/gunicorn")]

from typing import NoReturn  # noqa: E402  (the path comes first)

from .application.detect import Decision, Interface  # noqa: E402
from .worker import Worker  # noqa: E402

__version__ = "0.1.0"
__all__ = ["Worker", "Decision", "Interface", "__version__"]


def __getattr__(name: str) -> NoReturn:
    # For an AttributeError in its property `worker_class`, as for any other, gunicorn's Config falls back to the plain
    # setting and then calls that string; of a RuntimeError it prints the message and ends. All others must get the
    # AttributeError that `hasattr` lives on.
    if sys._getframe(1).f_globals.get("__name__") == "gunicorn.util":
        raise RuntimeError(f"hybridworker has no worker class {name!r}: use -k hybridworker.Worker")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
