"""
Which interface an application speaks: ASGI 3, ASGI 2 or WSGI.

:func:`detect` looks at the callable that gunicorn loaded and never calls it, so the
answer is the same in the master (``--preload``) and in a worker, and no line of the
application runs. What decides is, in this order: the override of the user, the marks
that asgiref sets, a coroutine function, the number of parameters that must be given.
What cannot be an application, such as a factory without its brackets, ends the boot.
Worker boot only.

A wrapper that takes ``*args`` is judged by the one callable that it holds: see :mod:`.wrappers`.

Invariant: wrappers (``functools.partial``, ``functools.wraps``) are looked through before the
callable itself is looked at.
"""

from __future__ import annotations

import enum
import functools
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from asgiref.compatibility import double_to_single_callable
from asgiref.sync import iscoroutinefunction

from ..asgi import ASGIApp, Receive, Scope, Send
from ..errors import ConfigurationError
from .wrappers import held_by, plain

#: What applications are called.
USUAL = ("app", "application", "create_app")

#: A line that makes one, in the text of a module that is not to be imported for a hint.
USUAL_LINE = re.compile(r"(?:async )?(?:def )?(app|application)\b\s*[(:=]")

#: What functions are called that make one.
FACTORY = re.compile(r"(create|make|get|build)_?(app|asgi|wsgi)\w*|\w*factory", re.IGNORECASE)

#: What the first parameter of an application is called, as a part of its name.
USUAL_FIRST = ("env", "scope")


#: Wrappers that are looked through. Some objects have any attribute that they are asked for, for ever.
LAYERS_MAX = 32


class Interface(enum.Enum):
    """What an application speaks. The value is its name in the override variable."""

    ASGI3 = "asgi"
    ASGI2 = "asgi2"
    WSGI = "wsgi"
    HYBRID = "hybrid"  #: several applications, each with an interface of its own

    def __str__(self) -> str:
        return {"asgi": "ASGI 3", "asgi2": "ASGI 2", "wsgi": "WSGI", "hybrid": "Hybrid"}[self.value]


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The interface of an application, the ``reason`` why it was chosen, and a warning (``doubt``) if the choice may be
    wrong; empty if not.
    """

    interface: Interface
    reason: str
    doubt: str = ""


class Declared:
    """An application of which its user says what it is: see :func:`as_asgi` and :func:`as_wsgi`."""

    says = ""  #: the word of the user, for messages

    def __init__(self, app: Any) -> None:
        self.app: Any = app.app if isinstance(app, Declared) else app

    def interface(self) -> Interface:
        """What it is to be served as."""
        raise NotImplementedError


class DeclaredASGI(Declared):
    """An ASGI application, for any server."""

    says = "as_asgi()"

    def interface(self) -> Interface:
        found = _found(plain(self.app) or self.app)
        return Interface.ASGI3 if found is None or found.interface is not Interface.ASGI2 else Interface.ASGI2

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await single_callable(self.app, self.interface())(scope, receive, send)


class DeclaredWSGI(Declared):
    """A WSGI application, for any server."""

    says = "as_wsgi()"

    def interface(self) -> Interface:
        return Interface.WSGI

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        iterable: Iterable[bytes] = self.app(environ, start_response)
        return iterable


def as_asgi(app: Callable[..., Any]) -> DeclaredASGI:
    """Say that ``app`` is an ASGI application, where its signature does not tell. For the parts of a Hybrid."""
    return DeclaredASGI(app)


def as_wsgi(app: Callable[..., Any]) -> DeclaredWSGI:
    """Say that ``app`` is a WSGI application, where its signature does not tell. For the parts of a Hybrid."""
    return DeclaredWSGI(app)


def undeclared(app: Any) -> Any:
    """The application itself, without what its user says of it."""
    return app.app if isinstance(app, Declared) else app


#: What a user may do about a signature that does not tell: for the one application, and for a part of a Hybrid.
SET_VARIABLE = "set HYBRIDWORKER_INTERFACE=asgi, asgi2 or wsgi"
SAY_IN_CODE = "say hybridworker.as_asgi(...) or hybridworker.as_wsgi(...) of it"


def detect(app: Any, override: str = "auto", uri: str | None = None, hint: str = SET_VARIABLE) -> Decision:
    """
    Decide which interface ``app`` speaks.

    ``override`` is ``auto``, ``asgi``, ``asgi2`` or ``wsgi``; ``uri`` is where ``app`` was
    found, ``module:variable``; ``hint`` says what to do where the signature does not tell.
    Raises :class:`~.errors.ConfigurationError` where the signature decides nothing, or says
    that this is no application.
    """
    app = plain(app) or app
    if _is_fail_app(app):
        return Decision(Interface.WSGI, "gunicorn's error page")
    inner = plain(undeclared(app)) or undeclared(app)
    found = _found(inner)
    if override != "auto":
        says = f"HYBRIDWORKER_INTERFACE={override}"
        return _overridden(inner, Interface(override), found, uri, says, "unset the variable, unless that is wrong")
    if isinstance(app, Declared):
        return _overridden(inner, app.interface(), found, uri, app.says, "leave it out, unless that is wrong")
    if found is None:
        found = _forwarded(app) or _guessed(app, hint)
    if found is None:
        raise ConfigurationError(
            _objection(app, uri)
            or f"cannot tell whether {_name(app)} is an ASGI or a WSGI application from its signature; {hint}"
        )
    if found.interface is not Interface.ASGI3 and _is_called_like_a_factory(app):
        doubt = (
            f"{_name(app)} looks like a factory by its name, and like {found.interface} because {found.reason}:"
            f" if it makes the application, name it with its arguments: {_call(app, uri, '...')}"
        )
        return replace(found, doubt=f"{doubt}; {found.doubt}" if found.doubt else doubt)
    return found


def _found(app: Any) -> Decision | None:
    """What the marks and the signature say; None where they do not tell."""
    layers = list(_layers(app))
    for layer in layers:
        if getattr(layer, "_asgi_single_callable", False):
            return Decision(Interface.ASGI3, "it is marked as a single callable")
        if getattr(layer, "_asgi_double_callable", False):
            return Decision(Interface.ASGI2, "it is marked as a double callable")
    required, most = _positional(app)
    # What functools.wraps says that it wraps need not be one. Behind a partial is what that calls.
    outermost = next((at for at, layer in enumerate(layers) if not isinstance(layer, functools.partial)), 0) + 1
    for asked, called in (_positional(app, follow_wrapped=False), layers[:outermost]), ((required, most), layers):
        if _takes_three(*asked):
            for layer in called:
                if iscoroutinefunction(layer):
                    return Decision(Interface.ASGI3, "it is a coroutine function")
                if _is_coroutine(layer):
                    return Decision(Interface.ASGI3, "its __call__ is a coroutine function")
    if required == 3 and not any(inspect.isasyncgenfunction(layer) for layer in layers):
        return Decision(Interface.ASGI3, "it takes three parameters")
    if any(_is_coroutine(layer) for layer in layers):
        return None
    if required == 2:
        return Decision(Interface.WSGI, "it takes two parameters")
    if required == 1 and most == 1:
        return Decision(Interface.ASGI2, "it takes one parameter")
    return None


def _forwarded(app: Any) -> Decision | None:
    """What the one callable is that a wrapper of ``*args`` holds, however deep; None where there is none, or two."""
    seen: set[int] = set()
    while _forwards(app) and len(seen) < LAYERS_MAX:
        layers = list(_layers(app))
        seen.update(map(id, layers))
        # What functools.wraps says that it wraps is not to be guessed from what that wrapper holds besides.
        judged = [layer for layer in layers[:-1] if isinstance(layer, functools.partial)] + layers[-1:]
        held = [inner for layer in judged for inner in held_by(layer) if _may_be_an_application(inner)]
        held = [inner for inner in held if id(inner) not in seen]
        if len(held) != 1:
            return None
        app = held[0]
        if (found := _found(app)) is not None:
            return Decision(found.interface, f"it passes its arguments on to {_name(app)}: {found.reason}")
    return None


def _guessed(app: Any, hint: str) -> Decision | None:
    """WSGI, of a callable of ``*args``: that is what gunicorn's own workers would take it for."""
    required, most = _positional(app)
    if not 0 <= required <= 2 or most is not None or any(inspect.isasyncgenfunction(layer) for layer in _layers(app)):
        return None
    doubt = (
        f"{_name(app)} takes any arguments and is served as WSGI, because nothing tells what it passes them on to:"
        f" {'set HYBRIDWORKER_INTERFACE=wsgi, or asgi or asgi2 if it is that' if hint is SET_VARIABLE else hint}"
    )
    return Decision(Interface.WSGI, "it takes any arguments", doubt)


def _forwards(app: Any) -> bool:
    """Whether it takes ``*args``, or its signature is not to be had."""
    return _positional(app)[1] is None


def _may_be_an_application(inner: Any) -> bool:
    """Whether what a wrapper holds can be called as an application is."""
    required, most = _positional(inner)
    fewest = 3 if any(_is_coroutine(layer) for layer in _layers(inner)) else 1
    return required <= 3 and (most is None or (required >= 0 and most >= fewest))


def _overridden(
    app: Any, interface: Interface, found: Decision | None, uri: str | None, says: str, remedy: str
) -> Decision:
    """The user's word, with what speaks against it. It cannot make anything of what takes no argument at all."""
    doubt = ""
    if found is None:
        doubt = _objection(app, uri) or ""
        # A decorator may have changed the parameters that the signature still shows.
        if doubt and _positional(app, follow_wrapped=False)[1] == 0:
            raise ConfigurationError(doubt)
    elif found.interface is not interface:
        doubt = f"{says}, but {_name(app)} looks like {found.interface} ({found.reason}): {remedy}"
    return Decision(interface, says, doubt)


def _objection(app: Any, uri: str | None) -> str | None:
    """Why ``app`` is no application, and what was meant; None where that cannot be told."""
    name, (required, most) = _name(app), _positional(app)
    if required >= 0 and any(_is_coroutine(layer) for layer in _layers(app)):
        count = required if most is None else most
        parameters = {0: "no parameters", 1: "one parameter", 2: "two parameters"}.get(count, f"{count} parameters")
        return (
            f"{name} is a coroutine function of {parameters}, which is neither ASGI nor WSGI:"
            " an ASGI application is app(scope, receive, send)"
        )
    if required == 0 and most is not None:
        takes = "can be called without arguments" if most else "takes no arguments"
        return f"{name} {takes}: if it makes the application, name it with brackets: {_call(app, uri)}"
    return None


def _is_coroutine(layer: Any) -> bool:
    """Whether calling it gives a coroutine."""
    if iscoroutinefunction(layer):
        return True
    return not inspect.isclass(layer) and iscoroutinefunction(getattr(layer, "__call__", None))  # noqa: B004


def _is_called_like_a_factory(app: Any) -> bool:
    """Unless its parameters are called like those of an application."""
    if not inspect.isfunction(app) or FACTORY.fullmatch(app.__name__) is None:
        return False
    return not any(word in name.lower() for name in list(inspect.signature(app).parameters)[:1] for word in USUAL_FIRST)


def _call(app: Any, uri: str | None, arguments: str = "") -> str:
    """How gunicorn is told to call it."""
    return repr(f"{uri or getattr(app, '__qualname__', type(app).__qualname__)}({arguments})")


def advice(uri: str | None, exc: Exception) -> str | None:
    """
    One line for an application that is not where ``uri`` (``module:variable``) says.

    ``exc`` is what came of loading it. ``None`` where the fault is not in ``uri``.
    """
    if uri is None:
        return None
    module, _, variable = uri.partition(":")
    if isinstance(exc, (ImportError, TypeError)):  # the latter for ./shop.py, which looks like a relative import
        if meant := _module_of_file(module, variable):
            return f"{uri}: that is a file and no module; did you mean {meant}?"
        name = getattr(exc, "name", None)
        if name is None or not f"{module}.".startswith(f"{name}."):
            return None
        package, _, attribute = module.rpartition(".")
        if name == module and hasattr(sys.modules.get(package), attribute):  # as Django's WSGI_APPLICATION has it
            return f"{uri}: there is no module {name!r}; did you mean {package}:{attribute}?"
        return f"{uri}: there is no module {name!r} in {os.getcwd()} or on Python's path; --chdir names its folder"
    if isinstance(exc, AttributeError):
        if exc.name != "__code__" or not variable.endswith(")"):  # what gunicorn looks for in a factory that refuses
            return None
        name = variable.partition("(")[0]
        return f"{uri}: {name!r} cannot be called so: if it is the application, write {module}:{name}"
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    wanted = variable.partition("(")[0] or "application"
    names = [name for name, value in loaded.items() if callable(value) and not name.startswith("_")]
    import difflib  # for mistakes only

    near = (*difflib.get_close_matches(wanted, names, n=1), *USUAL) if variable else USUAL
    likely = [name for name in near if name in names and name != wanted]
    hint = f"did you mean {module}:{likely[0]}?" if likely else "name the application as module:variable"
    return f"{uri}: {str(exc).rstrip('.')}; {hint}"


def _module_of_file(path: str, variable: str) -> str | None:
    """What to write for ``path``, where it is one of a file (``shop/wsgi.py``, ``shop.wsgi.py``, ``/srv/shop.py``)."""
    stem = path.removeprefix("./").removesuffix(".py")
    if stem == path:
        return None if os.sep not in path else _module_of_file(f"{path}.py", variable)
    file = next((name for name in (f"{stem}.py", f"{stem.replace('.', os.sep)}.py") if os.path.isfile(name)), None)
    if file is None:
        return None
    if not variable:
        with open(file, encoding="utf-8", errors="replace") as lines:
            usual = {match[1] for line in lines if (match := USUAL_LINE.match(line))}
        variable = "app" if usual == {"app"} else "application"
    folder, name = os.path.split(stem) if stem.startswith((os.sep, "..")) else ("", stem.replace(os.sep, "."))
    return f"--chdir {folder} {name}:{variable}" if folder else f"{name}:{variable}"


def single_callable(app: Any, interface: Interface) -> ASGIApp:
    """The ASGI 3 form of an ASGI application."""
    adapt: Callable[[Any], ASGIApp] = double_to_single_callable if interface is Interface.ASGI2 else lambda app: app
    return adapt(app)


def _layers(app: Any) -> Iterator[Any]:
    """``app`` and what ``functools`` has wrapped it around, outermost first, down to what names its parameters."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen and len(seen) < LAYERS_MAX:
        seen.add(id(app))
        yield app
        if isinstance(app, functools.partial):
            app = app.func
        else:
            forwards = _positional(app, follow_wrapped=False)[1] is None
            app = getattr(app, "__wrapped__", None) if forwards else None


def _takes_three(required: int, most: int | None) -> bool:
    return required <= 3 and (most is None or most >= 3)


def _positional(app: Any, *, follow_wrapped: bool = True) -> tuple[int, int | None]:
    """
    How many positional arguments must, and how many can be given; ``(-1, None)`` where nobody knows.

    What ``functools.wraps`` names is asked, with ``follow_wrapped``, where ``app`` itself takes ``*args``.
    """
    try:
        if type(app) is types.FunctionType and follow_wrapped:
            app = inspect.unwrap(app, stop=lambda layer: _positional(layer, follow_wrapped=False)[1] is not None)
        if follow_wrapped and (own := _positional(app, follow_wrapped=False))[1] is not None:
            return own
        parameters = inspect.signature(app, follow_wrapped=follow_wrapped).parameters.values()
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
    if isinstance(app, types.MethodType) and app.__func__.__name__ == "__call__":
        return repr(type(app.__self__).__qualname__)
    return repr(getattr(app, "__qualname__", None) or type(app).__qualname__)
