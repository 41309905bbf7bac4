"""The exceptions of the package: what they say, and which of them mean that the client has left."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

from hybridworker import errors
from hybridworker.errors import (
    ClientDisconnected,
    InvalidMessage,
    ProtocolError,
    ResponseError,
    UnexpectedMessage,
    WorkerExit,
    WSGIError,
    caused_by_cancellation,
    caused_by_disconnect,
    passes_through,
)


class State(enum.Enum):
    WAITING = 1


def test_a_protocol_error_knows_its_status() -> None:
    """400 unless said otherwise; the message is the reason in the log, unless that has it already."""
    assert ProtocolError("why").status == 400
    error = ProtocolError("why", 431)
    assert (error.status, str(error), error.logged) == (431, "why", False)
    assert ProtocolError("why", 501, logged=True).logged


def test_an_unexpected_message_says_what_when_and_what_else() -> None:
    """Message, state, expectation."""
    text = str(UnexpectedMessage("http.response.body", State.WAITING, "http.response.start"))
    assert text == "unexpected message 'http.response.body' in state WAITING; expected http.response.start"


@pytest.mark.parametrize(
    ("error", "base"),
    [
        (ClientDisconnected, OSError),
        (UnexpectedMessage, RuntimeError),
        (ResponseError, RuntimeError),
        (WSGIError, RuntimeError),
        (InvalidMessage, ValueError),
    ],
)
def test_h44_errors_that_applications_catch_have_the_bases_they_expect(
    error: type[Exception], base: type[Exception]
) -> None:
    """ASGI HTTP 2.4 wants an OSError out of ``send()``."""
    assert issubclass(error, base)


def test_every_exception_is_named_in_the_docstring() -> None:
    """The list at the top of the module is complete."""
    names = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert len(names) >= 9
    assert [name for name in names if f":class:`{name}`" not in (errors.__doc__ or "")] == []


def raised(
    error: BaseException, cause: BaseException | None = None, context: BaseException | None = None
) -> BaseException:
    """``error`` as it looks after ``raise error from cause`` while ``context`` was handled."""
    error.__cause__, error.__context__ = cause, context
    return error


LEFT = ClientDisconnected("left")
OTHER = ZeroDivisionError()
CANCELLED = asyncio.CancelledError()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        (OTHER, False),
        (OSError("no"), False),
        (LEFT, True),
        (raised(RuntimeError(), cause=LEFT), True),
        (raised(RuntimeError(), cause=raised(ValueError(), cause=LEFT)), True),
        (raised(NameError(), context=LEFT), False),
        (raised(RuntimeError(), cause=raised(ValueError(), context=LEFT)), False),
        (raised(ClientDisconnect(), context=LEFT), True),
        (raised(ClientDisconnect(), context=OTHER), False),
        (raised(ClientDisconnect(), context=raised(NameError(), context=LEFT)), False),
        (raised(WebSocketDisconnect(1006), context=LEFT), True),
        (raised(RuntimeError(), cause=raised(ClientDisconnect(), context=LEFT)), True),
        (raised(RuntimeError(), cause=OTHER, context=LEFT), False),
        (BaseExceptionGroup("", [LEFT, raised(RuntimeError(), cause=LEFT)]), True),
        (ExceptionGroup("", [LEFT, OTHER]), False),
        (ExceptionGroup("", [ExceptionGroup("", [LEFT])]), True),
        (raised(RuntimeError(), cause=BaseExceptionGroup("", [LEFT])), True),
    ],
)
def test_h46_what_is_caused_by_a_disconnect(error: BaseException | None, expected: bool) -> None:
    """Frameworks wrap it, chain it and group it; a group with anything else in it, and a bug amid it, is an error."""
    assert caused_by_disconnect(error) is expected


def test_an_exception_may_be_its_own_cause() -> None:
    """``raise exc from exc`` is a mistake that is seen."""
    error = RuntimeError()
    assert not caused_by_disconnect(raised(error, cause=error))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OTHER, False),
        (CANCELLED, True),
        (BaseExceptionGroup("", [CANCELLED, LEFT]), True),
        (BaseExceptionGroup("", [CANCELLED, OTHER]), False),
        (raised(RuntimeError(), cause=CANCELLED), True),
        (raised(RuntimeError(), context=CANCELLED), False),
        (raised(TimeoutError(), cause=CANCELLED), False),
        (raised(RuntimeError(), cause=raised(TimeoutError(), cause=CANCELLED)), False),
        (raised(TimeoutError(), cause=LEFT), True),
    ],
)
def test_what_is_caused_by_a_cancellation(error: BaseException, expected: bool) -> None:
    """What passes it on, alone or beside disconnects; not the end of a timer, nor what fails while it cleans up."""
    assert caused_by_cancellation(error) is expected


@pytest.mark.parametrize("group", [lambda exc: exc, lambda exc: BaseExceptionGroup("", [exc])])
def test_what_passes_through(group: Callable[[BaseException], BaseException]) -> None:
    """The exit of the process, and the end of a coroutine whose loop has ended; no SystemExit of the application's."""

    async def in_loop(exc: BaseException) -> bool:
        return passes_through(exc)

    assert passes_through(group(WorkerExit(0)))
    assert asyncio.run(in_loop(group(WorkerExit(0))))
    assert passes_through(group(raised(RuntimeError(), context=WorkerExit(0))))
    assert not passes_through(group(SystemExit(0)))
    assert passes_through(GeneratorExit())
    assert not asyncio.run(in_loop(GeneratorExit()))


def test_h46_starlette_raises_without_a_cause() -> None:
    """What its StreamingResponse makes of our exception is still told from a bug in an ``except OSError``."""

    async def send(message: Any) -> None:
        raise ClientDisconnected("left")

    async def receive() -> Any:
        raise AssertionError("not needed from ASGI 2.4 on")

    async def items() -> AsyncIterator[bytes]:
        yield b"x"

    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.4"}}
    with pytest.raises(ClientDisconnect) as caught:
        asyncio.run(StreamingResponse(items())(scope, receive, send))
    assert caught.value.__cause__ is None
    assert caused_by_disconnect(caught.value)


def test_a_group_in_the_context_of_its_member_is_no_endless_circle() -> None:
    """``raise group.exceptions[0]`` makes it."""
    inner = ValueError()
    group = ExceptionGroup("", [inner])
    inner.__context__ = group
    for cause in (None, group):
        inner.__cause__ = cause
        for exc in (inner, group):
            assert not passes_through(exc)
            assert not caused_by_disconnect(exc)
            assert not caused_by_cancellation(exc)
    shared = OSError()
    shared.__cause__ = ClientDisconnected()
    both = ExceptionGroup("", [ValueError(), ValueError()])
    for member in both.exceptions:
        member.__cause__ = shared
    assert caused_by_disconnect(both)
