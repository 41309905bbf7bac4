"""
Every exception of the package.

* :class:`ConfigurationError` - a setting, variable or application with which serving cannot begin
* :class:`HybridError` - a Hybrid that cannot be made
* :class:`ProtocolError` - a request that is refused; carries the HTTP ``status`` of the refusal
* :class:`FrameError` - a WebSocket frame that ends its connection; carries the ``code`` of the close frame
* :class:`HTTP2Error` - an HTTP/2 frame that ends its connection; carries the ``code`` of the GOAWAY
* :class:`HPACKError` - a field section of HTTP/2 that cannot be decoded
* :class:`UnexpectedMessage` - the application sent a message that its state does not allow
* :class:`InvalidMessage` - the application sent a message with a missing key or a wrong type
* :class:`ResponseError` - a response that contradicts itself (too many bytes, wrong length)
* :class:`ClientDisconnected` - the peer has gone; raised out of ``send()``
* :class:`LifespanFailed` - the application said, or showed, that it cannot start
* :class:`TurnedAway` - a request that waited too long for its turn, and never runs
* :class:`WSGIError` - the WSGI application broke a rule of PEP 3333
* :class:`BootFailed` - this worker cannot serve, and says why; a SystemExit, like the next one, so that
  ``except Exception`` does not catch it
* :class:`WorkerExit` - the process is left at once

An exception that becomes an answer knows its status, so nobody needs to look at its type.
"""

from __future__ import annotations

import asyncio
import enum


class ConfigurationError(Exception):
    """Serving cannot begin as configured. The message is one line that says what to do."""


class HybridError(ConfigurationError, ValueError, RuntimeError):
    """
    A Hybrid cannot be made as it is written. The message is one line that names the key.

    It is a ValueError for the code that makes the Hybrid. It is a RuntimeError as well, because with ``--preload`` the
    Hybrid is made in the master, where gunicorn prints only the message of a RuntimeError, without a traceback.
    """


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


class FrameError(Exception):
    """
    A WebSocket client broke the protocol or a limit, and its connection is given up.

    ``code`` is that of the close frame (RFC 6455 7.4.1), and the message is its reason.
    """

    code: int

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class HTTP2Error(Exception):
    """
    An HTTP/2 client broke the protocol or a limit, and its connection is given up (RFC 9113 5.4.1).

    ``code`` is that of the GOAWAY (RFC 9113 7), and the message is its debug data.
    """

    code: int

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class HPACKError(Exception):
    """A field section cannot be decoded (RFC 7541). The message names the rule."""


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


class TurnedAway(Exception):
    """The call waited longer for a thread than HYBRIDWORKER_QUEUE_TIMEOUT allows: it never runs, and gets a 503."""


class WSGIError(RuntimeError):
    """The WSGI application broke PEP 3333; the message names the rule."""


class BootFailed(SystemExit):
    """
    This worker cannot begin to serve, and the log has the ``reason``, a line or more.

    ``code`` is the exit code with which gunicorn ends.
    """

    reason: str

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(code)
        self.reason = reason


class WorkerExit(SystemExit):
    """
    The process is left at once: QUIT, INT or ABRT.

    Raised by the signal handler, out of whatever it interrupts. It has a name of its own
    because a SystemExit of the application's ends the request that raised it, and no more.
    """


def caused_by_disconnect(exc: BaseException | None) -> bool:
    """
    Whether ``exc`` is our own :class:`ClientDisconnected`, or says that it was raised because of it.

    What was merely raised while it was handled is an error of its own, a NameError in
    ``except OSError`` say, unless its very name tells: Starlette raises its ClientDisconnect,
    and its WebSocketDisconnect, without ``from``.
    """
    return _caused_by(exc, ClientDisconnected)


def caused_by_cancellation(exc: BaseException | None) -> bool:
    """
    Whether ``exc`` is no more than the end of a call that this worker has cancelled.

    To be asked about such a call only: one that cancels itself has failed. A task group may
    hold disconnects beside the cancellations. A TimeoutError is an error of its own, although
    it is made of a CancelledError: a timer of the application has expired, in its cleaning up
    say. (``asyncio.timeout`` makes none of a cancellation that is not its own.)
    """
    return _caused_by(exc, asyncio.CancelledError, ClientDisconnected)


def passes_through(exc: BaseException) -> bool:
    """
    Whether ``exc`` is raised in a call from outside and is no fault of the application.

    The process is left, and what was raised while that was handled is no news either; or the
    interpreter closes a coroutine whose loop has ended before it. While the loop runs, a
    GeneratorExit is the application's own.
    """
    if isinstance(exc, GeneratorExit):
        return asyncio._get_running_loop() is None
    return _caused_by(exc, WorkerExit, implicit=True)


def _caused_by(
    exc: BaseException | None,
    *kinds: type[BaseException],
    implicit: bool = False,
    path: frozenset[int] = frozenset(),
) -> bool:
    """
    Whether ``exc`` is of one of the ``kinds``, or was raised because of one.

    Frameworks wrap an exception: with ``raise ... from``, and task groups in a group. With
    ``implicit``, what was raised while one was handled counts as well. ``path`` are the ids of
    those that led to ``exc``: ``raise exc from exc`` is its own cause, and a member that was
    raised while its group was handled has that group as its context.
    """
    seen = set(path)
    while exc is not None and id(exc) not in seen:
        if isinstance(exc, kinds):
            return True
        seen.add(id(exc))
        if isinstance(exc, BaseExceptionGroup):
            trail = frozenset(seen)
            return all(_caused_by(inner, *kinds, implicit=implicit, path=trail) for inner in exc.exceptions)
        cause = exc.__cause__ or (exc.__context__ if implicit or "Disconnect" in type(exc).__name__ else None)
        if isinstance(exc, TimeoutError) and isinstance(cause, asyncio.CancelledError):
            return False
        exc = cause
    return False
