"""detect(): ASGI 3, ASGI 2 or WSGI, without calling anything."""

from __future__ import annotations

import functools
import sys
import time
import wsgiref.validate
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from asgiref.compatibility import guarantee_single_callable
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from gunicorn.util import make_fail_app

from hybridworker.application.detect import LAYERS_MAX, Interface, advice, as_asgi, detect, single_callable
from hybridworker.errors import ConfigurationError

ASGI3, ASGI2, WSGI = Interface.ASGI3, Interface.ASGI2, Interface.WSGI


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("application code ran")


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    never()


def asgi3_sync(scope: Any, receive: Any, send: Any) -> Any:
    never()


def asgi2(scope: Any) -> Any:
    never()


def wsgi(environ: Any, start_response: Any) -> Any:
    never()


def make_app(config: Any, debug: Any) -> Any:
    never()


def getApp(config: Any) -> Any:
    never()


def build_application(wsgi_environ: Any, start_response: Any) -> Any:
    never()


async def create_app(config: Any, receive: Any, send: Any) -> None:
    never()


class ASGI3Object:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        never()


class WSGIObject:
    def __call__(self, environ: Any, start_response: Any) -> Any:
        never()


class WSGIWithOptions:
    def __call__(self, environ: Any, start_response: Any, exc_info: Any = None) -> Any:
        never()


class ASGI2Class:
    def __init__(self, scope: Any) -> None:
        never()

    async def __call__(self, receive: Any, send: Any) -> None:
        never()


class WSGIClass:
    def __init__(self, environ: Any, start_response: Any) -> None:
        never()


class Slotted:
    __slots__ = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        never()


class Methods:
    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        never()

    def wsgi(self, environ: Any, start_response: Any) -> Any:
        never()

    @staticmethod
    async def static(scope: Any, receive: Any, send: Any) -> None:
        never()


async def configured(name: str, scope: Any, receive: Any, send: Any) -> None:
    never()


def configured_wsgi(name: str, environ: Any, start_response: Any) -> Any:
    never()


def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return never()

    return wrapper


def decorate_async(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return never()

    return wrapper


def bare(*args: Any) -> Any:
    never()


async def bare_async(*args: Any) -> Any:
    never()


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (asgi3, ASGI3),
        (asgi3_sync, ASGI3),
        (asgi2, ASGI2),
        (wsgi, WSGI),
        (ASGI3Object(), ASGI3),
        (Slotted(), ASGI3),
        (WSGIObject(), WSGI),
        (WSGIWithOptions(), WSGI),
        (ASGI2Class, ASGI2),
        (WSGIClass, WSGI),
        (Methods().asgi, ASGI3),
        (Methods().wsgi, WSGI),
        (Methods.static, ASGI3),
        (functools.partial(configured, "x"), ASGI3),
        (functools.partial(configured_wsgi, "x"), WSGI),
        (functools.partial(ASGI3Object()), ASGI3),
        (functools.partial(functools.partial(configured, "x")), ASGI3),
        (decorate(asgi3), ASGI3),
        (decorate_async(asgi3), ASGI3),
        (decorate(decorate(asgi3)), ASGI3),
        (decorate(wsgi), WSGI),
        (decorate(asgi2), ASGI2),
        (functools.partial(decorate(configured), "x"), ASGI3),
        (bare_async, ASGI3),
        (markcoroutinefunction(lambda scope, receive, send: never()), ASGI3),
        (lambda environ, start_response: never(), WSGI),
        (guarantee_single_callable(asgi2), ASGI3),  # type: ignore[no-untyped-call]
        (make_fail_app("a traceback"), WSGI),
    ],
)
def test_the_interface_is_found_without_running_the_application(app: Any, interface: Interface) -> None:
    """The shape of the callable decides, through partials and decorators."""
    decision = detect(app)
    assert decision.interface is interface
    assert decision.reason


def adapt(function: Callable[..., Any]) -> Callable[..., Any]:
    """To ASGI, with the name and the signature of what it adapts."""

    @functools.wraps(function)
    async def adapter(scope: Any, receive: Any, send: Any) -> None:
        never()

    return adapter


def adapt_any(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def adapter(*args: Any) -> None:
        never()

    return adapter


def adapt_back(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def adapter(environ: Any, start_response: Any) -> Any:
        never()

    return adapter


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (adapt(wsgi), ASGI3),
        (adapt_any(wsgi), ASGI3),
        (functools.partial(adapt_any(wsgi)), ASGI3),
        (adapt_back(asgi3), WSGI),
        (adapt(adapt_back(asgi3)), ASGI3),
        (decorate(adapt_back(asgi3)), WSGI),
        (decorate(adapt(wsgi)), ASGI3),
    ],
)
def test_an_adapter_is_what_it_is_itself(app: Any, interface: Interface) -> None:
    """Although functools.wraps shows the signature of what it adapts."""
    assert detect(app).interface is interface


class StaticCall:
    @staticmethod
    def __call__(environ: Any, start_response: Any) -> Any:
        never()


class ClassCall:
    @classmethod
    async def __call__(cls, scope: Any, receive: Any, send: Any) -> Any:
        never()


def test_a_call_without_an_instance() -> None:
    """inspect.signature() would leave out the first parameter."""
    assert detect(StaticCall()).interface is WSGI
    assert detect(ClassCall()).interface is ASGI3
    assert detect(forward(StaticCall())).interface is WSGI


def test_marks_of_asgiref_decide() -> None:
    """asgiref marks callables whose signature would mislead."""

    def single(*args: Any) -> None:
        never()

    def double(*args: Any) -> None:
        never()

    single._asgi_single_callable = True  # type: ignore[attr-defined]
    double._asgi_double_callable = True  # type: ignore[attr-defined]
    assert detect(single).interface is ASGI3
    assert detect(double).interface is ASGI2


def forward(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that forgoes functools.wraps."""

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def forward_async(function: Callable[..., Any]) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def measured(function: Callable[..., Any], name: str, clock: Callable[[], float], ignored: Any) -> Callable[..., Any]:
    """As agents for monitoring wrap: with names, clocks, exceptions and a class in the closure."""

    def wrapper(first: Any, *args: Any) -> Any:
        before = clock()
        try:
            return function(first, *args)
        except ignored:
            raise KeyError(name, before) from None

    return wrapper


class Forwarder:
    def __init__(self, app: Any) -> None:
        self.app = app
        self.name = "forwarder"

    def __call__(self, *args: Any) -> Any:
        return self.app(*args)


class SlottedForwarder:
    __slots__ = ("app", "unset")

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, *args: Any) -> Any:
        return self.app(*args)


class DerivedForwarder(Forwarder):
    def __call__(self, *args: Any) -> Any:
        return super().__call__(*args)


class Decorated:
    @forward
    def __call__(self, environ: Any, start_response: Any) -> Any:
        never()

    @forward
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        never()


class Delegating(Forwarder):
    """Every attribute is computed, by code of the application."""

    def __getattr__(self, name: str) -> Any:
        never()


class Proxied:
    """As a proxy of werkzeug: it has nothing of its own, not even a ``__dict__``."""

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        never()

    def __getattr__(self, name: str) -> Any:
        never()

    def __call__(self, *args: Any) -> Any:
        never()


def made_inside(app: Any) -> Any:
    class Inner:
        def __call__(self, *args: Any) -> Any:
            return app(*args)

    return Inner()


def deep(app: Any, levels: int) -> Any:
    for level in range(levels):
        app = forward(app) if level % 2 else Forwarder(app)
    return app


@pytest.mark.parametrize(
    ("app", "interface"),
    [
        (wsgiref.validate.validator(wsgi), WSGI),
        (wsgiref.validate.validator(WSGIObject()), WSGI),
        (forward(wsgi), WSGI),
        (forward(asgi3), ASGI3),
        (forward(asgi3_sync), ASGI3),
        (forward(asgi2), ASGI2),
        (forward(ASGI2Class), ASGI2),
        (forward(WSGIWithOptions()), WSGI),
        (forward(functools.partial(configured, "x")), ASGI3),
        (forward(decorate(asgi3)), ASGI3),
        (decorate(forward(asgi3)), ASGI3),
        (decorate(forward(decorate(forward(asgi3)))), ASGI3),
        (forward(bare_async), ASGI3),
        (forward_async(wsgi), ASGI3),
        (forward(Methods().asgi), ASGI3),
        (forward(guarantee_single_callable(asgi2)), ASGI3),  # type: ignore[no-untyped-call]
        (measured(asgi3, "x", time.perf_counter, ValueError), ASGI3),
        (measured(asgi3, "x", lambda: 0.0, (KeyError, ValueError)), ASGI3),
        (functools.partial(Forwarder(asgi3), *()), ASGI3),
        (functools.partial(lambda app, *args: app(*args), asgi3), ASGI3),
        (Forwarder(asgi3), ASGI3),
        (Forwarder(asgi3).__call__, ASGI3),
        (SlottedForwarder(asgi3), ASGI3),
        (DerivedForwarder(asgi3), ASGI3),
        (made_inside(asgi3), ASGI3),
        (made_inside(wsgi), WSGI),
        (Decorated(), WSGI),
        (Decorated().handle, ASGI3),
        (deep(asgi3, 9), ASGI3),
    ],
)
def test_a_wrapper_of_any_arguments_is_judged_by_what_it_holds(app: Any, interface: Interface) -> None:
    """Closures and attributes are looked through, several levels deep, and nothing is called or computed."""
    decision = detect(app)
    assert decision.interface is interface
    assert not decision.doubt


def test_objects_that_compute_their_attributes_are_not_asked() -> None:
    """Middleware that delegates, and proxies: their code runs for requests, not for the boot."""
    for app in Delegating(asgi3), forward(Delegating(asgi3)), Forwarder(Delegating(Delegating(asgi3))):
        assert detect(app).interface is ASGI3
    partial = functools.partial(Delegating(asgi3))
    for app in partial, functools.partial(partial), as_asgi(Delegating(asgi3)), as_asgi(partial):
        assert detect(app).interface is ASGI3
    for app in Proxied(), forward(Proxied()), either(Proxied(), asgi3):
        assert detect(app).reason == "it takes any arguments"
        assert detect(app, "asgi").doubt == ""


def test_the_reason_names_what_a_wrapper_holds() -> None:
    """The boot line shows what has decided."""
    assert detect(forward(wsgi)).reason == "it passes its arguments on to 'wsgi': it takes two parameters"


def test_an_override_against_a_wrapper_is_no_contradiction() -> None:
    """What a wrapper makes of its arguments is its own matter: its own signature is not clear."""
    assert detect(forward(wsgi), "asgi").doubt == ""


def either(one: Any, other: Any) -> Any:
    def wrapper(*args: Any) -> Any:
        return (one or other)(*args)

    return wrapper


def recursive() -> Any:
    def wrapper(*args: Any) -> Any:
        return wrapper(*args)

    return wrapper


def unset() -> Any:
    later: Any

    def wrapper(*args: Any) -> Any:
        return later(*args)

    if LAYERS_MAX == 0:
        later = asgi3
    return wrapper


@pytest.mark.parametrize(
    "app",
    [
        bare,
        print,
        decorate(bare),
        forward(bare),
        forward(max),
        lambda environ, *args: never(),
        either(wsgi, asgi3),
        either(asgi3, asgi3_sync),
        forward(either(asgi3, wsgi)),
        recursive(),
        unset(),
        deep(asgi3, 99),
    ],
)
def test_where_nothing_decides_a_callable_of_any_arguments_is_wsgi(app: Any) -> None:
    """As under gunicorn, with a warning that names the override; two candidates decide nothing."""
    decision = detect(app)
    assert decision.interface is WSGI
    assert decision.reason == "it takes any arguments"
    assert decision.doubt.endswith("set HYBRIDWORKER_INTERFACE=wsgi, or asgi or asgi2 if it is that")
    assert detect(app, "asgi").doubt == ""


def test_the_same_candidate_twice_is_one() -> None:
    """A wrapper may keep it under several names."""
    assert detect(either(asgi3, asgi3)).interface is ASGI3


def test_a_factory_of_any_arguments_is_told_from_its_name() -> None:
    """It is served, and one line says both what it looks like and what it is taken for."""

    def create_app(*args: Any) -> Any:
        never()

    doubt = detect(create_app, uri="shop:create_app").doubt
    assert "looks like a factory by its name" in doubt
    assert "HYBRIDWORKER_INTERFACE" in doubt


@pytest.mark.parametrize(
    "app",
    [
        lambda scope, receive=None, send=None: never(),
        lambda a, b, c, d: never(),
        lambda a, b, *, c: never(),
        lambda a, b, c, d, *args: never(),
        lambda *args, c: never(),
    ],
)
def test_where_the_signature_decides_nothing_the_boot_stops(app: Any) -> None:
    """The error names the override."""
    with pytest.raises(ConfigurationError, match="HYBRIDWORKER_INTERFACE=asgi, asgi2 or wsgi"):
        detect(app)


class CallOfTwo:
    async def __call__(self, scope: Any, receive: Any) -> None:
        never()


async def coroutine_of_one(scope: Any) -> None:
    never()


async def coroutine_of_two(request: Any, response: Any) -> None:
    never()


async def coroutine_of_four(self: Any, scope: Any, receive: Any, send: Any) -> None:
    never()


@pytest.mark.parametrize(
    ("app", "count"),
    [
        (coroutine_of_one, "one parameter"),
        (coroutine_of_two, "two parameters"),
        (CallOfTwo(), "two parameters"),
        (coroutine_of_four, "4 parameters"),
    ],
)
def test_a_coroutine_function_of_other_than_three_parameters_is_nothing_we_know(app: Any, count: str) -> None:
    """It is neither WSGI, which is not awaited, nor ASGI; and the override only makes a warning of it."""
    line = (
        f"is a coroutine function of {count}, which is neither ASGI nor WSGI:"
        " an ASGI application is app(scope, receive, send)"
    )
    with pytest.raises(ConfigurationError) as caught:
        detect(app)
    assert str(caught.value).endswith(line)
    assert detect(app, "asgi").doubt.endswith(line)


def make() -> Any:
    never()


def make_from_defaults(debug: bool = False, verbose: bool = True) -> Any:
    never()


@pytest.mark.parametrize(
    ("app", "line"),
    [
        (make, "'make' takes no arguments: if it makes the application, name it with brackets: 'shop:x()'"),
        (
            ASGI3Object,
            "'ASGI3Object' takes no arguments: if it makes the application, name it with brackets: 'shop:x()'",
        ),
        (
            make_from_defaults,
            "'make_from_defaults' can be called without arguments:"
            " if it makes the application, name it with brackets: 'shop:x()'",
        ),
    ],
)
def test_a_factory_without_its_brackets_ends_the_boot(app: Any, line: str) -> None:
    """A function, and a class of whose instances one was meant; the notation is gunicorn's."""
    with pytest.raises(ConfigurationError) as caught:
        detect(app, uri="shop:x")
    assert str(caught.value) == line
    with pytest.raises(ConfigurationError, match=r"name it with brackets: '\w+\(\)'$"):
        detect(app)


def test_the_override_is_not_believed_of_what_takes_no_argument() -> None:
    """The server would answer 500 to everything. What a decorator only seems to leave without arguments is served."""
    with pytest.raises(ConfigurationError, match="'make' takes no arguments"):
        detect(make, "wsgi")
    decision = detect(decorate(make), "wsgi")
    assert decision.interface is WSGI
    assert "takes no arguments" in decision.doubt


@pytest.mark.parametrize(
    ("app", "doubt"),
    [
        (make_app, "'make_app' looks like a factory by its name, and like WSGI because it takes two parameters:"),
        (getApp, "'getApp' looks like a factory by its name, and like ASGI 2 because it takes one parameter:"),
        (build_application, ""),
        (wsgi, ""),
        (create_app, ""),
    ],
)
def test_a_factory_with_arguments_is_served_with_a_warning(app: Any, doubt: str) -> None:
    """Its parameters may be as many as those of an application; what they are called can clear it."""
    decision = detect(app, uri="shop:x")
    if doubt:
        doubt += " if it makes the application, name it with its arguments: 'shop:x(...)'"
    assert decision.doubt == doubt


@pytest.mark.parametrize(
    ("app", "override", "doubt"),
    [
        (
            asgi3,
            "wsgi",
            "HYBRIDWORKER_INTERFACE=wsgi, but 'asgi3' looks like ASGI 3 (it is a coroutine function):"
            " unset the variable, unless that is wrong",
        ),
        (
            wsgi,
            "asgi",
            "HYBRIDWORKER_INTERFACE=asgi, but 'wsgi' looks like WSGI (it takes two parameters):"
            " unset the variable, unless that is wrong",
        ),
        (asgi2, "asgi2", ""),
        (bare, "wsgi", ""),
        (make_fail_app("a traceback"), "asgi", ""),
    ],
)
def test_an_override_that_contradicts_a_clear_signature_is_a_warning(app: Any, override: str, doubt: str) -> None:
    """It is believed all the same."""
    assert detect(app, override).doubt == doubt


@pytest.mark.parametrize("interface", list(Interface))
def test_the_override_decides_whatever_the_signature_says(interface: Interface) -> None:
    """``HYBRIDWORKER_INTERFACE`` is believed."""
    assert detect(bare, interface.value).interface is interface
    assert interface.value in detect(bare, interface.value).reason


def test_the_fail_app_is_wsgi_whatever_the_override_says() -> None:
    """gunicorn shows a syntax error through it, also to ASGI users."""
    assert detect(make_fail_app("a traceback"), "asgi").interface is WSGI


def test_an_asgi2_application_is_made_single() -> None:
    """An ASGI 3 one is left as it is."""
    assert single_callable(asgi3, ASGI3) is asgi3
    assert iscoroutinefunction(single_callable(asgi2, ASGI2))


def test_names() -> None:
    """As the boot log line shows them."""
    assert [str(interface) for interface in Interface] == ["ASGI 3", "ASGI 2", "WSGI", "Hybrid"]


@pytest.mark.parametrize(
    ("uri", "name", "line"),
    [
        ("shop:app", "shop", "shop:app: there is no module 'shop' in "),
        ("shop.web:app", "shop", "shop.web:app: there is no module 'shop' in "),
        ("shop.web", "shop.web", "shop.web: there is no module 'shop.web' in "),
        ("shop.web:app", "shop.database", None),
        ("shop.web:app", "sho", None),
        ("shop.web:app", None, None),
        (None, "shop", None),
    ],
)
def test_advice_for_a_module_that_is_missing(uri: str | None, name: str | None, line: str | None) -> None:
    """Only where it is part of the path that was given: what the application misses, its traceback tells."""
    given = advice(uri, ModuleNotFoundError("No module named ...", name=name))
    assert given is None if line is None else given is not None and given.startswith(line)


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("shop.py:app", "shop:app"),
        ("site/wsgi.py", "site.wsgi:application"),
        ("./site/wsgi.py:main", "site.wsgi:main"),
        ("site/wsgi:main", "site.wsgi:main"),
        ("site.wsgi.py", "site.wsgi:application"),
        ("./shop.py", "shop:app"),
        ("shop.py", "shop:app"),
        ("{folder}/site/wsgi.py", "--chdir {folder}/site wsgi:application"),
        ("{folder}/shop:app", "--chdir {folder} shop:app"),
        ("../{name}/shop.py:main", "--chdir ../{name} shop:main"),
    ],
)
def test_advice_for_a_file_names_the_module(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, meant: str
) -> None:
    """gunicorn's own would leave the slash in it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "shop.py").write_text("import sys\n\nasync def app(scope, receive, send):\n    application = 1\n")
    (tmp_path / "site" / "wsgi.py").touch()
    monkeypatch.chdir(tmp_path)
    uri, meant = (text.format(folder=tmp_path, name=tmp_path.name) for text in (uri, meant))
    said = f"{uri}: that is a file and no module; did you mean {meant}?"
    assert advice(uri, ImportError("Failed to find application, did you mean ...")) == said
    assert advice(uri, ModuleNotFoundError("No module named ...", name="site/wsgi")) == said
    assert advice(uri, TypeError("the 'package' argument is required to perform a relative import")) == said


def test_advice_for_a_dot_in_place_of_the_colon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Django's WSGI_APPLICATION has it; not where the module before the dot has no such name."""
    module = ModuleType("shop")
    vars(module).update(application=asgi3)
    monkeypatch.setitem(sys.modules, "shop", module)
    exc = ModuleNotFoundError("'shop' is not a package", name="shop.application")
    assert advice("shop.application", exc) == (
        "shop.application: there is no module 'shop.application'; did you mean shop:application?"
    )
    exc = ModuleNotFoundError("'shop' is not a package", name="shop.app")
    assert "--chdir names its folder" in (advice("shop.app", exc) or "")


def test_no_advice_for_what_the_application_itself_raises() -> None:
    """Its errors have a traceback."""
    assert advice("shop:app", TypeError("unsupported operand")) is None
    assert advice("shop:app()", AttributeError("no attribute", name="shelf")) is None
    assert advice("shop:app", AttributeError("no attribute", name="__code__")) is None


def test_advice_for_an_application_with_brackets() -> None:
    """It is called as a factory, refuses, and is no function that gunicorn could look at."""
    exc = AttributeError("'FastAPI' object has no attribute '__code__'", name="__code__")
    assert (
        advice("shop:app()", exc) == "shop:app(): 'app' cannot be called so: if it is the application, write shop:app"
    )


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        (":ap", "did you mean shop:app?"),
        ("", "did you mean shop:app?"),
        (":mak_app()", "did you mean shop:make_app?"),
        (":nothing_like_it", "did you mean shop:app?"),
        (":app", "name the application as module:variable"),
    ],
)
def test_advice_for_a_variable(monkeypatch: pytest.MonkeyPatch, variable: str, hint: str) -> None:
    """The nearest callable of the module, else one with a usual name; never what was given."""
    module = ModuleType("shop")
    vars(module).update(app=asgi3, make_app=never, price=1)
    if variable == ":app":
        del module.make_app
    monkeypatch.setitem(sys.modules, "shop", module)
    error = Exception("Failed to find attribute 'x' in 'shop'.")
    assert advice(f"shop{variable}", error) == f"shop{variable}: Failed to find attribute 'x' in 'shop'; {hint}"


def test_an_object_that_has_every_attribute_is_looked_at_for_a_while_only() -> None:
    """Mocks and proxies wrap themselves without end."""

    class Anything:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("_asgi"):
                return None
            return Anything()

        def __call__(self, environ: Any, start_response: Any) -> Any:
            never()

    try:
        detect(Anything())
    except ConfigurationError:
        pass  # either answer will do


def test_an_asynchronous_generator_is_no_application() -> None:
    """Nobody would iterate over it."""

    async def app(scope: Any, receive: Any, send: Any) -> Any:
        yield never()

    async def any_arguments(*args: Any) -> Any:
        yield never()

    for generator in app, any_arguments:
        with pytest.raises(ConfigurationError):
            detect(generator)
