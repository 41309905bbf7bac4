"""
Signals: which handler runs for which signal, in the worker and in the processes that it forks.

gunicorn installs plain handlers before the application is loaded. This module replaces those of
TERM and USR1 by two that pass their work on to the event loop, once there is one. Each is installed
once, so a handler that the application installs later, at import or in a hook, stays:

    TERM               the application's handler is called first, then the worker leaves gracefully
    QUIT, INT, ABRT    run in the main thread at once, also while the loop is blocked
    USR1, USR2         the logs are reopened; the report is written

A handler that C code has installed (``faulthandler.register``) stays as well, and is not seen here.
Only TERM is installed again: see :meth:`Signals.keep_term`. :mod:`.worker` says what each signal
does. Main thread, but for :meth:`Signals.call`. Invariant: the worker gives the loop no signal
handlers. The loop would replace those of the application, and set them to the default when it is closed.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

#: Signals that gunicorn or :mod:`.worker` has a handler for.
HANDLED = (
    signal.SIGTERM, signal.SIGQUIT, signal.SIGINT, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH
)  # fmt: skip

Handler = Callable[[int, FrameType | None], object]


class Deferred:
    """
    A handler that passes its signal on to the loop. Without a loop it acts at once.

    ``theirs`` is the application's handler, which is called before.
    """

    __slots__ = ("handler", "signals", "theirs")

    def __init__(self, signals: Signals, handler: Handler, theirs: Handler | None = None) -> None:
        self.signals = signals
        self.handler = handler
        self.theirs = theirs

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signals.forked:  # in a child the application's handler has called the handler before its own
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if self.theirs is not None:
            try:
                self.theirs(number, frame)
            except BaseException as exc:  # SystemExit too: the requests in flight are finished first
                self._raised(number, exc)
        if self.signals.loop is None:
            self.handler(number, frame)
        else:
            self.signals.call(self.handler, number, None)

    def _raised(self, number: int, exc: BaseException) -> None:
        """Have the loop log ``exc``: this frame may have interrupted a write to the same log."""
        name = signal.Signals(number).name
        if isinstance(exc, SystemExit):
            log = partial(self.signals.log.info, "The application's %s handler raised SystemExit(%s)", name, exc.code)
        else:
            log = partial(self.signals.log.error, "Exception in the application's %s handler", name, exc_info=exc)
        if not self.signals.call(log):
            log()


class Signals:
    """
    The handlers of one worker process.

    Python writes each signal to a pipe, ``wakeup``, so that a waiting loop wakes up.
    (uvloop has a descriptor of its own while it runs.)
    """

    def __init__(self, log: Any) -> None:
        self.log = log
        self.reader = self.wakeup = -1  #: the ends of the pipe, which do not block
        self.loop: asyncio.AbstractEventLoop | None = None
        self.forked = False  #: this process is a child of the worker
        self._ours: dict[int, object] = {}  #: signal -> the handler that was installed before the application came
        self._term: Deferred | None = None  #: the handler of TERM, as of the last look
        self._context = contextvars.copy_context()  #: for calls, instead of that of an interrupted request
        self._warned = False
        self._mask = threading.local()  #: ``held``: the signals that the forking thread had blocked before

    def defer(self, number: int, handler: Handler) -> None:
        """Let the loop call ``handler`` for this signal, with None as the frame."""
        self._install(number, Deferred(self, handler))

    def settle(self, pipe: tuple[int, int]) -> None:
        """The handlers of now are the worker's, later ones the application's. To be called once in a process."""
        self.reader, self.wakeup = pipe
        self._ours = {number: signal.getsignal(number) for number in HANDLED}
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._in_child)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there is a loop."""
        self.loop = loop
        # A loop that the application closed during its import has taken the descriptor away; uvloop has its own.
        if (current := signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)) != -1:
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self.keep_term()

    def missed_term(self) -> bool:
        """
        Whether TERM has come before the loop. It may have found a handler of the application, and no other.

        An application that is still being imported may have installed one that is not ours yet,
        and that returns, or raises SystemExit. To be called before the loop reads the pipe.
        """
        try:
            return signal.SIGTERM in os.read(self.reader, 4096)
        except OSError:  # there is nothing in it, or no pipe yet
            return False

    def call(self, function: Callable[..., object], *args: Any) -> bool:
        """Have the loop call ``function``, from any thread and any handler. Returns whether there is a loop."""
        if self.loop is None or self.loop.is_closed():
            return False
        with suppress(RuntimeError):  # another thread has just closed it: the worker has left
            self.loop.call_soon_threadsafe(partial(function, *args), context=self._context)
            return True
        return False

    def keep_term(self) -> None:
        """
        Make sure that TERM ends the worker, also when the application has a handler of its own.

        The application's function is called first, whether it was given to ``signal.signal`` or
        to ``loop.add_signal_handler``. If the application ignores TERM, the operator could not
        stop the worker; if it wants the default, every request would be cut. Neither is obeyed.
        """
        ours, current = self._ours.get(signal.SIGTERM), signal.getsignal(signal.SIGTERM)
        if current is self._term or not isinstance(ours, Deferred):
            return
        if isinstance(current, Deferred):
            self._term = current  # it is back, after a handler that did not stay
            return
        self._term = Deferred(self, ours.handler, current if callable(current) else None)
        self._install(signal.SIGTERM, self._term)
        # A loop of asyncio that is closed sets the handlers that the application gave it to the default.
        closed = self.loop is not None and self.loop.is_closed()
        if not callable(current) and not closed and not self._warned:
            self._warned = True
            self.log.warning(
                "The application has set SIGTERM to %s, which is not obeyed: this worker leaves gracefully on SIGTERM",
                getattr(current, "name", current),
            )

    def _install(self, number: int, handler: Deferred) -> None:
        signal.signal(number, handler)
        signal.siginterrupt(number, False)  # as gunicorn does: system calls go on

    def _hold(self) -> None:
        """Before a fork: block signals, so that the child loses none that comes before its handlers are set."""
        self._mask.held = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.held)

    def _in_child(self) -> None:
        """
        Let a child that the application forks obey signals as any process does.

        ``Process.terminate()`` and ``Pool.__exit__`` send TERM and wait for the child to end. The
        child gives up the descriptor: the parent would take its signals for the parent's own.
        """
        self.forked = True
        signal.set_wakeup_fd(-1)
        for number, ours in self._ours.items():
            current = signal.getsignal(number)
            if current == ours:
                signal.signal(number, signal.SIG_DFL)
            elif isinstance(current, Deferred):
                theirs = current.theirs
                signal.signal(number, signal.SIG_DFL if theirs is None or _of_a_loop(theirs) else theirs)
        self._release()


def _of_a_loop(handler: Handler) -> bool:
    """Whether ``handler`` belongs to a loop, which does not run in a child."""
    return (getattr(handler, "__module__", None) or "").partition(".")[0] in ("asyncio", "uvloop")
