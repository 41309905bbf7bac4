"""
What a wrapper holds: the callables in its closure and in its attributes.

A decorator or a middleware that takes ``*args`` and forgoes ``functools.wraps`` has a signature that
says nothing, but somewhere it keeps what it calls. :mod:`.detect` decides what that is. Pure, worker boot
only.

Invariant: no attribute is asked for by name, because ``__getattr__``, a property or a proxy would run
code of the application. Cells, the true ``__dict__`` and slots are read, and types are asked with
``type()``: ``isinstance`` reads ``__class__``, which a proxy may answer for another object.
"""

from __future__ import annotations

import abc
import functools
import types
from collections.abc import Iterator
from typing import Any

#: Types whose instances answer for themselves, by C code alone.
_PLAIN = (types.FunctionType, types.MethodType)

#: What a member of a class is where C code answers.
_BY_C = (types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType)


def held_by(wrapper: Any) -> list[Any]:
    """
    The callables that ``wrapper`` holds, each once.

    Each is given as :func:`plain` has it. Left out are exceptions, classes that no application is, built-in
    functions (clocks, say) and what ``super()`` needs.
    """
    found: dict[int, Any] = {}
    for value in _values(wrapper):
        if callable(value) and value is not wrapper and (view := _view(value)) is not None:
            found.setdefault(id(value), view)
    return list(found.values())


def plain(app: Any) -> Any:
    """
    ``app``, or in place of an instance whose class computes attributes its ``__call__``, as a bound method.

    That may be asked for any attribute. Returns None where it is of another kind.
    """
    kind = type(app)
    if kind is functools.partial:
        inner = plain(app.func)
        return app if inner is app.func or inner is None else functools.partial(inner, *app.args, **app.keywords)
    if kind in _PLAIN or issubclass(kind, type):
        return app
    call = _static(kind, "__call__")
    if isinstance(call, (staticmethod, classmethod)):
        return call.__get__(app)  # of these inspect.signature() leaves out one parameter
    if not _computes_attributes(kind):
        return app
    return types.MethodType(call, app) if type(call) is types.FunctionType else None


def _values(wrapper: Any) -> Iterator[Any]:
    kind = type(wrapper)
    if issubclass(kind, functools.partial):
        yield from (*wrapper.args, *wrapper.keywords.values())
    elif kind is types.FunctionType:
        yield from _cells(wrapper)
        yield from _attributes(wrapper)
    elif kind is types.MethodType:
        yield from _method(wrapper.__func__, wrapper.__self__)
    elif not issubclass(kind, type):
        yield from _method(_static(kind, "__call__"), wrapper)


def _method(function: Any, instance: Any) -> Iterator[Any]:
    """What a method and its instance hold. A decorator of the method holds the function, which is to be bound."""
    if type(function) is types.FunctionType:
        classes = {base.__qualname__ for base in type(instance).__mro__}
        for value in _cells(function):
            if type(value) is types.FunctionType and value.__qualname__.rpartition(".")[0] in classes:
                value = types.MethodType(value, instance)
            yield value
    yield from _attributes(instance)


def _cells(function: types.FunctionType) -> Iterator[Any]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            continue  # not set yet, or no more
        if name != "__class__":
            yield value


def _attributes(instance: Any) -> Iterator[Any]:
    """The values of the true ``__dict__`` and of all slots."""
    has_dict = False
    for base in type(instance).__mro__:
        for name, member in list(base.__dict__.items()):
            if name == "__dict__" and not has_dict:
                has_dict = True
                if type(member) is types.GetSetDescriptorType:  # else a class answers in its place
                    yield from list(member.__get__(instance).values())
            elif type(member) is types.MemberDescriptorType and "__slots__" in base.__dict__:
                try:
                    yield member.__get__(instance)
                except AttributeError:
                    pass  # not set


def _view(value: Any) -> Any:
    """What may be asked about ``value`` in its place; None for what is no application."""
    kind = type(value)
    if kind is types.BuiltinFunctionType:
        return None
    if issubclass(kind, type):
        return value if kind in (type, abc.ABCMeta) and _makes_an_application(value) else None
    view = plain(value)
    return _anything if view is None else view


def _anything(*args: Any, **kwargs: Any) -> Any:
    """Stands for a callable that cannot be looked at."""
    raise NotImplementedError


def _makes_an_application(kind: type) -> bool:
    """Whether instances of a class answer a request: a WSGI class is iterated over, one of ASGI 2 is called."""
    return not issubclass(kind, BaseException) and any(
        _static(kind, name) is not None for name in ("__iter__", "__next__", "__call__")
    )


def _computes_attributes(kind: type) -> bool:
    """Whether reading an attribute of an instance may run Python code whatever its name is, or deny what it is."""
    for name in ("__getattr__", "__getattribute__", "__class__"):
        member = _static(kind, name)
        if member is not None and type(member) not in _BY_C:
            return True
    return False


def _static(kind: type, name: str) -> Any:
    """The attribute of a class, as it stands there."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return None
