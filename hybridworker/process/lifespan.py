"""
Lifespan: startup, state and shutdown of an ASGI application.

One task calls the application with the lifespan scope; :class:`~.lifespans.Lifespans` calls :meth:`Lifespan.start`
before the worker accepts its first connection, and :meth:`Lifespan.shutdown` after it has drained. The line in the log
of a failed startup is written by :mod:`.worker`, from the message of LifespanFailed. Event loop side only. States:
``states.LIFESPAN``.

Invariant: what startup put into its context is there in every request, because
:attr:`Application.context` is replaced by a copy of the lifespan task's context when startup is
complete.

Source: asgiref ``specs/lifespan.rst`` 2.0.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

from ..application.application import Application
from ..asgi import ASGI_VERSION, LIFESPAN_SPEC_VERSION, Message, Scope
from ..connection.context import WorkerContext
from ..errors import InvalidMessage, LifespanFailed, UnexpectedMessage, caused_by_cancellation, passes_through
from ..states import LIFESPAN, LifespanState, expected

NEW, STARTING, STARTED = LifespanState.NEW, LifespanState.STARTING, LifespanState.STARTED
UNSUPPORTED, FAILED = LifespanState.UNSUPPORTED, LifespanState.FAILED
STOPPING, STOPPED = LifespanState.STOPPING, LifespanState.STOPPED

#: Seconds between two warnings about a startup that does not end. It has no limit of its own.
REMINDER = 30.0


class Lifespan:
    """
    The lifespan of one application in one worker. ``others`` are further parts of a Hybrid with the same callable.

    ``mode`` is gunicorn's ``asgi_lifespan``: with ``auto`` an application that does
    not know the scope is served all the same, with ``on`` that is a failure.
    """

    __slots__ = (
        "abandoned",
        "answered",
        "asked",
        "application",
        "context",
        "leaving",
        "message",
        "mode",
        "others",
        "state",
        "task",
        "variables",
        "which",
    )

    def __init__(
        self, context: WorkerContext, application: Application, mode: str = "auto", others: Sequence[Application] = ()
    ) -> None:
        self.context = context
        self.application = application
        self.others = others
        #: the key of its part in a Hybrid, before the lines of the log
        self.which = "" if application.part is None else f"{application.part.key}: "
        for other in others:
            other.state = application.state
        self.mode = mode
        self.state = NEW
        self.message = ""  #: the application's reason for a failure
        self.asked = False  #: the application received ``lifespan.startup``
        self.abandoned = False  #: this worker has cancelled the task
        self.answered = asyncio.Event()  #: set for the worker: the state changed, or the task ended
        self.leaving = asyncio.Event()  #: set for the application: ``lifespan.shutdown`` is due
        self.variables = contextvars.copy_context()
        self.task: asyncio.Task[None] | None = None

    async def start(self, stop: asyncio.Event) -> None:
        """:meth:`startup`, unless the worker is told to ``stop`` meanwhile."""
        starting, stopped = asyncio.ensure_future(self.startup()), asyncio.ensure_future(stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            starting.result()
        else:
            starting.cancel()
            await self.abandon()

    async def startup(self) -> None:
        """
        Send ``lifespan.startup`` and wait for the answer, however long it takes.

        Raises :class:`~.errors.LifespanFailed` when the application failed.
        """
        context = self.context
        self.state = STARTING
        self.task = context.loop.create_task(self._run(), context=self.variables)
        begun, waited = context.loop.time(), 0.0
        while self.state is STARTING and not self.task.done():
            try:
                async with asyncio.timeout(REMINDER):
                    await self.answered.wait()
            except TimeoutError:
                waited += REMINDER
                context.log.warning("%sApplication startup is still not complete after %d s", self.which, waited)
        self.answered.clear()
        if self.state is FAILED:
            await self.abandon()
            raise LifespanFailed(_headed(self.message) or "the application gave no reason")
        if self.state is STARTED:
            for application in (self.application, *self.others):
                application.context = self.variables.copy()
            seconds = context.loop.time() - begun
            context.log.info("%sApplication startup is complete after %.1f s", self.which, seconds)

    async def shutdown(self, seconds: float) -> None:
        """Send ``lifespan.shutdown`` if startup was completed; wait ``seconds`` at most."""
        if self.task is None or self.task.cancelled():
            return
        if self.state is STARTED and not self.task.done():
            self.state = STOPPING
        self.leaving.set()
        done, _ = await asyncio.wait([self.task], timeout=seconds)
        if not done:
            self.context.log.error("%sApplication shutdown was not complete after %.1f s", self.which, seconds)
            await self.abandon()

    async def abandon(self) -> None:
        """End the application's task, whatever it is doing. It gets no shutdown event."""
        if self.task is not None:
            self.abandoned = True
            self.task.cancel()
            await asyncio.wait([self.task], timeout=1)

    async def _run(self) -> None:
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": ASGI_VERSION, "spec_version": LIFESPAN_SPEC_VERSION},
            "state": self.application.state,
        }
        try:
            await self.application.app(scope, self._receive, self._send)
            self._ended(None)
        except BaseException as exc:  # of any kind: startup would wait for ever, and nobody else would log it
            if passes_through(exc):
                raise
            if not self.abandoned or not caused_by_cancellation(exc):
                self._ended(exc)
        finally:
            self.answered.set()

    def _ended(self, exc: BaseException | None) -> None:
        """The application returned, or raised ``exc``."""
        log = self.context.log
        if self.state is STARTING:
            reason = "it returned" if exc is None else f"{type(exc).__name__}: {exc}"
            if self.mode == "on" or isinstance(exc, SystemExit | KeyboardInterrupt):
                self.message = f"startup was not completed ({reason})"
                if self.mode == "on":
                    self.message += ", and asgi_lifespan is 'on'"
                self.state = FAILED
                log.error("%sApplication startup failed", self.which, exc_info=exc)
                return
            self.state = UNSUPPORTED
            # An application that refuses the scope raises before it asks for anything. One that took the
            # startup event and raised then has most likely lost something that it needs.
            if exc is not None and self.asked:
                text = "%sApplication raised in lifespan startup; serving it all the same"
                log.warning(text, self.which, exc_info=exc)
            else:
                log.info("%sApplication does not support lifespan (%s)", self.which, reason)
        elif exc is not None and self.state is not FAILED:
            log.error("%sApplication raised in its lifespan", self.which, exc_info=exc)
        if self.state is STOPPING:
            self.state = STOPPED

    async def _receive(self) -> Message:
        """``lifespan.startup`` at once, then ``lifespan.shutdown`` when the worker leaves."""
        if not self.asked:
            self.asked = True
            return {"type": "lifespan.startup"}
        await self.leaving.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        state = self.state
        if state is STARTING and kind == "lifespan.startup.complete":
            self.state = STARTED
        elif state is STARTING and kind == "lifespan.startup.failed":
            self.message = _text(message)
            self.state = FAILED
        elif state is STOPPING and kind == "lifespan.shutdown.complete":
            self.state = STOPPED
        elif state is STOPPING and kind == "lifespan.shutdown.failed":
            reason = _text(message) or "no reason given"
            self.context.log.error("%sApplication shutdown failed: %s", self.which, reason)
            self.state = STOPPED
        else:
            raise UnexpectedMessage(kind, state, expected(LIFESPAN, state))
        self.answered.set()


def _text(message: Message) -> str:
    text = message.get("message", "")
    if not isinstance(text, str):
        raise InvalidMessage(f"message must be str, not {type(text).__name__}")
    return text


def _headed(message: str) -> str:
    """Of a traceback, which is what Starlette sends, the last line first: that is the one which says what is wrong."""
    lines = message.split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"{last}\n{message.rstrip()}" if lines[0].startswith("Traceback ") else message
