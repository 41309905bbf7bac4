"""
Which interface an application speaks: ASGI 3, ASGI 2 or WSGI.

:func:`detect` looks at the callable that gunicorn loaded and never calls it, so the
answer is the same in the master (``--preload``) and in a worker, and no line of the
application runs. What decides is, in this order: the override of the user, the marks
that asgiref sets, a coroutine function, the number of parameters that must be given.
The rule one could break by accident: look through wrappers (``functools.partial``,
``functools.wraps``) before looking at the callable itself. Worker boot only.
"""

from __future__ import annotations

import difflib
import enum
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from asgiref.compatibility import double_to_single_callable
from asgiref.sync import iscoroutinefunction

from .asgi import ASGIApp
from .errors import ConfigurationError

#: What applications are called.
USUAL = ("app", "application", "create_app")


#: Wrappers that are looked through. Some objects have any attribute that they are asked for, for ever.
LAYERS_MAX = 32


class Interface(enum.Enum):
    """What an application speaks. The value is its name in the override variable."""

    ASGI3 = "asgi"
    ASGI2 = "asgi2"
    WSGI = "wsgi"

    def __str__(self) -> str:
        return {"asgi": "ASGI 3", "asgi2": "ASGI 2", "wsgi": "WSGI"}[self.value]


@dataclass(frozen=True, slots=True)
class Decision:
    """The interface of an application, and the observation that decided it."""

    interface: Interface
    reason: str


def detect(app: Any, override: str = "auto") -> Decision:
    """
    Decide which interface ``app`` speaks.

    ``override`` is ``auto``, ``asgi``, ``asgi2`` or ``wsgi``. Raises
    :class:`~.errors.ConfigurationError` where the signature decides nothing.
    """
    if _is_fail_app(app):
        return Decision(Interface.WSGI, "gunicorn's error page")
    if override != "auto":
        return Decision(Interface(override), f"HYBRIDWORKER_INTERFACE={override}")
    layers = list(_layers(app))
    for layer in layers:
        if getattr(layer, "_asgi_single_callable", False):
            return Decision(Interface.ASGI3, "it is marked as a single callable")
        if getattr(layer, "_asgi_double_callable", False):
            return Decision(Interface.ASGI2, "it is marked as a double callable")
    required, most = _positional(app)
    if most is None or most >= 3:
        for layer in layers:
            if iscoroutinefunction(layer):
                return Decision(Interface.ASGI3, "it is a coroutine function")
            if not inspect.isclass(layer) and iscoroutinefunction(getattr(layer, "__call__", None)):  # noqa: B004
                return Decision(Interface.ASGI3, "its __call__ is a coroutine function")
    if required == 3 and not any(inspect.isasyncgenfunction(layer) for layer in layers):
        return Decision(Interface.ASGI3, "it takes three parameters")
    if required == 2 and not any(iscoroutinefunction(layer) for layer in layers):
        return Decision(Interface.WSGI, "it takes two parameters")
    if required == 1 and most == 1 and not any(iscoroutinefunction(layer) for layer in layers):
        return Decision(Interface.ASGI2, "it takes one parameter")
    raise ConfigurationError(
        f"cannot tell whether {_name(app)} is an ASGI or a WSGI application from its signature;"
        " set HYBRIDWORKER_INTERFACE=asgi, asgi2 or wsgi"
    )


def advice(uri: str | None, exc: Exception) -> str | None:
    """
    One line for an application that is not where ``uri`` (``module:variable``) says.

    ``exc`` is what came of loading it. ``None`` where the fault is not in ``uri``.
    """
    if uri is None:
        return None
    module, _, variable = uri.partition(":")
    if isinstance(exc, ImportError):
        if exc.name is None and str(exc).startswith("Failed to find application"):  # gunicorn's, for "file.py"
            return f"{uri}: {exc}"
        if exc.name is None or not f"{module}.".startswith(f"{exc.name}."):
            return None
        return f"{uri}: there is no module {exc.name!r} in {os.getcwd()} or on Python's path; --chdir names its folder"
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    wanted = variable.partition("(")[0] or "application"
    names = [name for name, value in loaded.items() if callable(value) and not name.startswith("_")]
    near = (*difflib.get_close_matches(wanted, names, n=1), *USUAL) if variable else USUAL
    likely = [name for name in near if name in names and name != wanted]
    hint = f"did you mean {module}:{likely[0]}?" if likely else "name the application as module:variable"
    return f"{uri}: {str(exc).rstrip('.')}; {hint}"


def single_callable(app: Any, interface: Interface) -> ASGIApp:
    """The ASGI 3 form of an ASGI application."""
    adapt: Callable[[Any], ASGIApp] = double_to_single_callable if interface is Interface.ASGI2 else lambda app: app
    return adapt(app)


def _layers(app: Any) -> Iterator[Any]:
    """``app`` and what it wraps, outermost first."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen and len(seen) < LAYERS_MAX:
        seen.add(id(app))
        yield app
        app = app.func if isinstance(app, functools.partial) else getattr(app, "__wrapped__", None)


def _positional(app: Any) -> tuple[int, int | None]:
    """How many positional arguments must, and how many can be given; ``(-1, None)`` where nobody knows."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature, or something that lies about being callable
        return -1, None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
        return -1, required
    return required, None if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)


def _is_fail_app(app: Any) -> bool:
    # What gunicorn serves with --reload while the application has a syntax error.
    return (
        getattr(app, "__module__", "") == "gunicorn.util"
        and getattr(app, "__qualname__", "") == "make_fail_app.<locals>.app"
    )


def _name(app: Any) -> str:
    return repr(getattr(app, "__qualname__", None) or type(app).__qualname__)
