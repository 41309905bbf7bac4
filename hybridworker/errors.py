"""
Every exception of the package.

* :class:`ConfigurationError` - a setting, variable or application with which serving cannot begin
* :class:`ProtocolError` - a request that is refused; carries the HTTP ``status`` of the refusal
* :class:`UnexpectedMessage` - the application sent a message that its state does not allow
* :class:`InvalidMessage` - the application sent a message with a missing key or a wrong type
* :class:`ResponseError` - a response that contradicts itself (too many bytes, wrong length)
* :class:`ClientDisconnected` - the peer has gone; raised out of ``send()``
* :class:`LifespanFailed` - the application said, or showed, that it cannot start
* :class:`WSGIError` - the WSGI application broke a rule of PEP 3333

An exception that becomes an answer knows its status, so nobody needs to look at its type.
"""

from __future__ import annotations

import enum


class ConfigurationError(Exception):
    """Serving cannot begin as configured. The message is one line that says what to do."""


class ProtocolError(Exception):
    """
    A request that is refused and whose connection is closed afterwards.

    ``status`` is the HTTP status code of the answer; the message is the reason
    as it appears in the log, and never goes to the peer. ``logged`` says that the log has
    it already: what this server lacks is not blamed on the client.
    """

    status: int
    logged: bool

    def __init__(self, reason: str, status: int = 400, *, logged: bool = False) -> None:
        super().__init__(reason)
        self.status = status
        self.logged = logged


class UnexpectedMessage(RuntimeError):
    """A message came in a state that does not allow it (ASGI: "raise an exception")."""

    def __init__(self, kind: str, state: enum.Enum, expected: str) -> None:
        super().__init__(f"unexpected message {kind!r} in state {state.name}; expected {expected}")


class InvalidMessage(ValueError):
    """A message lacks a required key or holds a value of the wrong type."""


class ResponseError(RuntimeError):
    """A response contradicts its own head: more or fewer bytes than announced."""


class ClientDisconnected(OSError):
    """The peer closed the connection (ASGI HTTP 2.4: ``send()`` raises a subclass of OSError)."""


class LifespanFailed(Exception):
    """Application startup failed; the message is the application's own."""


class WSGIError(RuntimeError):
    """The WSGI application broke PEP 3333; the message names the rule."""


def caused_by_disconnect(exc: BaseException | None) -> bool:
    """
    Whether ``exc`` is our own :class:`ClientDisconnected`, or says that it was raised because of it.

    Frameworks wrap it: with ``raise ... from``, and task groups in a group. What was merely
    raised while it was handled is an error of its own, a NameError in ``except OSError``
    say, unless its very name tells: Starlette raises its ClientDisconnect, and its
    WebSocketDisconnect, without ``from``.
    """
    while exc is not None:
        if isinstance(exc, ClientDisconnected):
            return True
        if isinstance(exc, BaseExceptionGroup):
            return all(caused_by_disconnect(inner) for inner in exc.exceptions)
        exc = exc.__cause__ or (exc.__context__ if "Disconnect" in type(exc).__name__ else None)
    return False
