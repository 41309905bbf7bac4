"""
hybridworker: a gunicorn worker that serves ASGI and WSGI applications.

``gunicorn -k hybridworker.Worker module:app``

Public are the names in ``__all__``, and nothing else. Each is imported when it is first asked for, so that an
application which wants one of the small ones loads neither gunicorn nor uvloop.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

# A master started as `python -m gunicorn` re-executes gunicorn/__main__.py as a script for its USR2 upgrade. Python
# then puts gunicorn's own folder first on the path, where its package `http` hides the one of the standard library.
sys.path[:] = [entry for entry in sys.path if not entry.rstrip("/").endswith("/site-packages/gunicorn")]

if TYPE_CHECKING:
    from .application.detect import Decision, Interface, as_asgi, as_wsgi
    from .application.hybrid import Hybrid
    from .identity import RequestIdFilter, request_id
    from .standing import is_leaving, leading, slot
    from .worker import Worker

__version__ = "0.2.0"
__all__ = [
    "Worker", "Hybrid", "as_asgi", "as_wsgi", "Decision", "Interface", "RequestIdFilter", "is_leaving", "leading",
    "request_id", "slot", "__version__",
]  # fmt: skip

#: Public name -> the module that has it.
_HOMES = {
    "Decision": ".application.detect",
    "Hybrid": ".application.hybrid",
    "Interface": ".application.detect",
    "RequestIdFilter": ".identity",
    "Worker": ".worker",
    "as_asgi": ".application.detect",
    "as_wsgi": ".application.detect",
    "is_leaving": ".standing",
    "leading": ".standing",
    "request_id": ".identity",
    "slot": ".standing",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(importlib.import_module(_HOMES[name], __name__), name)
        return value
    # For an AttributeError in its property `worker_class`, as for any other, gunicorn's Config falls back to the plain
    # setting and then calls that string; of a RuntimeError it prints the message and ends. All others must get the
    # AttributeError that `hasattr` lives on.
    if sys._getframe(1).f_globals.get("__name__") == "gunicorn.util":
        raise RuntimeError(f"hybridworker has no worker class {name!r}: use -k hybridworker.Worker")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
