"""
Worker: gunicorn's calls turned into one asyncio program and an exit code.

gunicorn constructs the worker in the master, forks, and calls ``init_process``, which
loads the application and calls :meth:`Worker.run`. There a loop is made, the
application's lifespan is started, a :class:`~.server.Server` serves until somebody says
stop, and the process leaves through the arbiter's own ``finally``, so that gunicorn's
hooks run. One periodic task, :meth:`Worker._beat`, is the heartbeat and the clock of
everything below. The rule one could break by accident: ``__init__`` and
``check_config`` run in the master, where there must be no loop, thread or signal handler.

What each signal does stands here, in the ``handle_...`` methods: TERM is graceful and may come
again; QUIT and INT leave at once; USR1 reopens the logs; USR2 writes a report of what the worker
does; ABRT comes from the arbiter when the heartbeat stopped. When they run is said in :mod:`.signals`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import uvloop
from gunicorn import SERVER_SOFTWARE
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker as BaseWorker

from .application.application import Application, WSGIApplication
from .application.detect import Decision, Interface, advice, detect, single_callable
from .config.settings import Settings, check
from .connection.context import WorkerContext
from .connection.tls import explain, read_certificate
from .errors import ConfigurationError, LifespanFailed, WorkerExit
from .group.scoreboard import AGE, PID, REASONS, RECYCLED, STARTED, Group, Scoreboard, Slot, WorkerState, set_state
from .group.share import Share
from .group.succession import Succession
from .log.access import access_writer
from .log.hooks import RequestHooks
from .process.background import describe, end_tasks, sentence, wait_for_jobs
from .process.endpoints import Status, counted, versions
from .process.exit import leave_without_threads
from .process.exitcode import exit_code
from .process.foreignloops import ForeignLoops
from .process.grace import Grace
from .process.lifespan import Lifespan
from .process.server import Server
from .process.signals import Signals
from .process.watchdog import Watchdog, beat, resident, warn_of_size, warn_of_slow_calls
from .states import ServerState
from .wsgi.middleware import WSGIMiddleware
from .wsgi.streams import ErrorLog
from .wsgi.threads import ThreadPool, patched

#: Seconds between two looks at every timeout, and at whether a younger worker is ready.
TICK, HAND_OVER_TICK = 1.0, 0.05

#: File descriptors that an event loop needs, at least.
LOOP_FDS = 12


class Worker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    """
    The worker class: ``gunicorn -k hybridworker.Worker module:app``.

    Serves whatever application gunicorn loaded, ASGI 3, ASGI 2 or WSGI. May be subclassed.
    """

    settings: Settings
    decision: Decision
    context: WorkerContext
    server: Server
    signals: Signals
    slot: Slot | None = None  #: our row of the scoreboard
    reason = "term"  #: why the worker leaves
    accepting = False  #: the worker has begun to accept, so that its boot can no longer fail
    _alive = True
    loop: asyncio.AbstractEventLoop | None = None
    exit_code: int | None = None  #: set by QUIT, INT and ABRT: the loop is left without awaiting anything

    #: How many requests have begun, for the hooks. gunicorn sets its attribute of this name to 0.
    nr = property(lambda self: self.context.served if hasattr(self, "context") else 0, lambda self, value: None)

    # -- in the master

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by the arbiter: refuse what cannot work, and warn once of what is not obeyed."""
        try:
            if (line := patched("threading", "queue")) is not None:
                raise ConfigurationError(line)
            warnings = check(cfg)
        except ConfigurationError as exc:
            log.error("%s", exc)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        # The package imports this module, not the other way round.
        log.info("hybridworker %s: %s", sys.modules[__package__].__version__, versions(cfg.asgi_loop))
        for warning in warnings:
            log.warning("%s", warning)

    def __init__(self, *args: Any) -> None:
        """Called by the arbiter before the fork: the place in the group is taken where nobody else takes one."""
        super().__init__(*args)
        self.scoreboard = Scoreboard.of_master(self.log.warning, self.cfg.workers)
        self.slot = None if self.scoreboard is None else self.scoreboard.claim(self.age, self.log.warning)

    @property
    def pid(self) -> int | str:
        """Set by the arbiter on both sides of the fork, so no slot is without the pid of its worker for long."""
        return self._pid

    @pid.setter
    def pid(self, pid: int | str) -> None:
        self._pid = pid
        if self.slot is not None and isinstance(pid, int):
            self.slot[PID] = pid

    @property
    def alive(self) -> bool:
        """Whether the worker has not begun to leave. Set to False, by a hook or a thread, it leaves gracefully."""
        return self._alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        if alive or not self._alive:
            return  # gunicorn sets it to True when it makes the worker; one that leaves cannot be kept
        self._alive = False
        if self.exit_code is not None:
            return  # QUIT, INT or ABRT: nothing is graceful
        self.reason = "reload" if threading.current_thread() is self.reloader else "hook"
        if hasattr(self, "context"):
            self.context.leave()  # with the response at hand
            self.signals.call(self.shut_down, self.reason)

    # -- from fork to run

    def init_process(self) -> None:
        """Called after the fork; returns, or raises SystemExit, when the worker is done."""
        code = 0
        self._refuse_patches()  # of a hook
        self.watchdog = Watchdog(self.log)
        self.watchdog.start()
        try:
            super().init_process()
        except AppImportError:
            code = Arbiter.APP_LOAD_ERROR
            raise
        except BaseException as exc:
            booting = not self.accepting and self.alive and self.exit_code is None
            code, logged = exit_code(exc, self.log, booted=self.booted, booting=booting, told=self.exit_code)
            if not logged:
                raise
            raise SystemExit(code) from None
        finally:
            self.watchdog.stop()
            leave_without_threads(code)

    def load_wsgi(self) -> None:
        """Load the application, decide what it is, and prepare whatever may fail: errors here stop the arbiter."""
        uri = getattr(self.app, "app_uri", None)
        try:
            super().load_wsgi()
        except RuntimeError:
            self._refuse_patches()  # the locks of the import itself may have been exchanged
            raise
        except (ImportError, AppImportError) as exc:
            if (line := advice(uri, exc)) is None:
                raise  # something inside of the application: its traceback tells
            self._fail(line, Arbiter.WORKER_BOOT_ERROR if isinstance(exc, ImportError) else Arbiter.APP_LOAD_ERROR)
        name = uri or repr(self.wsgi)
        try:
            self.settings = Settings.from_gunicorn(self.cfg)
            self.decision = decision = detect(self.wsgi, self.settings.interface, uri)
        except ConfigurationError as exc:
            self._fail(f"{name}: {exc}")
        # In load_wsgi and not in run: an error before `booted` ends the arbiter instead of starting the next worker.
        self.tls = self._ssl_context() if self.settings.is_ssl else None
        threads = f", threads={self.settings.threads}" if decision.interface is Interface.WSGI else ""
        self.log.info("Serving %s application %s (%s)%s", decision.interface, name, decision.reason, threads)
        if decision.doubt:
            self.log.warning("%s: %s", name, decision.doubt)

    def _fail(self, line: str, code: int = Arbiter.WORKER_BOOT_ERROR) -> NoReturn:
        """End the boot, and gunicorn, with one line."""
        self.log.error("%s", line)
        sys.exit(code)

    def _refuse_patches(self) -> None:
        """End the boot if gevent or eventlet has taken the threads away."""
        if (line := patched("threading")) is not None:
            self._fail(line)
        if (line := patched("queue")) is not None:  # some applications can do without it
            self.log.warning("%s", line)

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context: ssl.SSLContext = ssl_context(self.cfg)
        except (OSError, TypeError, ValueError):
            if (line := explain(self.cfg)) is None:
                raise  # something inside of the ssl_context hook: its traceback tells
            self._fail(line)
        context.set_alpn_protocols(["http/1.1"])  # gunicorn may have offered h2, which is not served here
        return context

    # -- the program

    def run(self) -> None:
        """Serve until told to stop. Raises SystemExit with gunicorn's code for a failed boot."""
        self._refuse_patches()  # of the application
        new_loop: Callable[[], asyncio.AbstractEventLoop] = (
            asyncio.new_event_loop if self.settings.asgi_loop == "asyncio" else uvloop.new_event_loop
        )
        # Where there are too few, uvloop does not raise: it aborts.
        for fd in [os.dup(self.PIPE[0]) for _ in range(LOOP_FDS)]:
            os.close(fd)
        self.foreign = ForeignLoops()
        self.loop = loop = new_loop()
        asyncio.set_event_loop(loop)
        loop.set_exception_handler(self._loop_error)
        self.stop = asyncio.Event()
        self.wish: str | None = None  #: why it would like to be replaced
        self.grace = Grace(self.settings.graceful_timeout, self.settings.timeout, self.settings.reload)
        try:
            loop.run_until_complete(self._main(loop))
        except LifespanFailed as exc:
            self.log.error("Application startup failed: %s", exc)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
        except (SystemExit, RuntimeError):  # RuntimeError: the loop was stopped
            if self.exit_code is None:
                raise
            # QUIT, INT or ABRT: nothing is awaited any more, and the tasks left behind are no news.
            loop.set_exception_handler(lambda loop, context: None)
            if hasattr(self, "server"):
                self.server.hang_up()
            sys.exit(self.exit_code)
        asyncio.set_event_loop(None)
        loop.close()
        self.signals.keep_term()

    async def _main(self, loop: asyncio.AbstractEventLoop) -> None:
        self.context = self._new_context(loop)
        group, share = self._join_group()
        self.server = Server(self.context, self.sockets, self.tls, share)
        self.status = Status(self.context, group, self.pool, lambda: self.server.saturated)
        self.context.endpoints = self.status.endpoints()
        self._attach(loop)
        beating = loop.create_task(self._beat(loop))
        lifespan: Lifespan | None = None
        try:
            is_asgi = self.decision.interface is not Interface.WSGI
            if self.alive and is_asgi and self.settings.asgi_lifespan != "off":  # not if told to go while it imported
                lifespan = Lifespan(self.context, self.context.application, self.settings.asgi_lifespan)
                await lifespan.start(self.stop)
                self.signals.keep_term()
            # What the application made while loading stays: no collection need ever look at it again.
            gc.collect()
            gc.freeze()
            loop.call_later(TICK, self.foreign.warn, self.log)
            warn_of_size(self.context)
            self.watchdog.watch(self.context, self.pool)
            if self.alive:
                self.server.start()
                self.accepting = True
                set_state(self.context.slot, WorkerState.READY)
                await self.stop.wait()
            await self._leave(loop, lifespan)
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            self.status.publish(0.0, resident())

    def _application(self) -> Application:
        """What gunicorn loaded, as this worker serves it."""
        settings = self.settings
        hooks = RequestHooks.from_gunicorn(self.cfg, self, self.log)
        self.pool: ThreadPool | None = None
        if self.decision.interface is not Interface.WSGI:
            return Application(single_callable(self.wsgi, self.decision.interface), settings, hooks)
        self.pool = ThreadPool(settings.threads, timed=bool(settings.metrics_path))
        errors = ErrorLog(logging.getLogger("gunicorn.error"), to_stderr=self.cfg.errorlog == "-")
        middleware = WSGIMiddleware(
            self.wsgi, settings, self.pool, errors=errors, server_software=SERVER_SOFTWARE, hooks=hooks
        )
        return WSGIApplication(middleware, settings)

    def _new_context(self, loop: asyncio.AbstractEventLoop) -> WorkerContext:
        return WorkerContext(
            application=self._application(),
            settings=self.settings,
            loop=loop,
            log=self.log,
            server_cert=read_certificate(self.cfg.certfile) if self.tls else None,
            access=access_writer(self.log, self.cfg),
            max_requests=self.max_requests,
            recycle=lambda: self._recycle("max_requests"),
            slot=self.slot,
        )

    def _join_group(self) -> tuple[Group | None, Share | None]:
        """Take our place among the siblings; without a scoreboard the worker knows of none."""
        slot = self.context.slot
        slot[STARTED] = int(time.time())
        self.succession: Succession | None = None
        if self.scoreboard is None:
            return None, None
        slot[PID], slot[AGE] = os.getpid(), self.age  # there already where the slot is one of the scoreboard's
        group = Group(self.scoreboard, slot)
        self.succession = Succession(group, self.settings)
        return group, Share(group, self.settings, None if self.pool is None else self.pool.size)

    async def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        """The heartbeat, the watch over the parent, and the clock: the one periodic task of the worker."""
        # `self.timeout` is half of gunicorn's timeout, and 0 where that is off.
        pause = min(TICK, self.timeout / 2) if self.timeout else TICK
        due = loop.time() + TICK
        late = 0.0
        while True:
            beat(self.notify, self.context)
            if os.getppid() != self.ppid and not self.stop.is_set():
                self.log.info("Parent changed, shutting down: %s", self)
                self.shut_down()
            now = loop.time()
            if now >= due:
                due = now + TICK
                try:
                    self._tick(now, late)
                except Exception:  # whatever it is, the heartbeat goes on
                    self.log.exception("Exception in the tick")
                late = 0.0
            await asyncio.sleep(pause)
            late = max(late, loop.time() - now - pause)

    def _tick(self, now: float, late: float) -> None:
        """Once a second. ``late`` is how late the loop was since the last time, at most, in seconds."""
        self.signals.keep_term()
        self.server.tick(now)
        warn_of_slow_calls(self.context, self.pool)
        limit, used = self.settings.max_rss, resident()
        self.status.publish(late, used)
        if limit and self.wish is None and self.alive and used > limit:
            self.log.info("Autorestarting worker: it uses %d MiB, HYBRIDWORKER_MAX_RSS is %d.", used, limit)
            self._recycle("max_rss")
        if (
            self.wish is not None
            and self.alive
            and (self.succession is None or self.succession.may_go(time.monotonic()))
        ):
            self.shut_down(self.wish)

    async def _leave(self, loop: asyncio.AbstractEventLoop, lifespan: Lifespan | None) -> None:
        """Finish what was begun, let the application shut down, and wait for what it does in the background."""
        context, grace = self.context, self.grace
        await asyncio.sleep(0)  # the request that was the reason begins in this turn, and is one in flight
        begun, before = loop.time(), context.served - len(context.cycles)
        grace.begin(begun, self.reason)
        if lifespan is not None:
            grace.keep_for_shutdown()
        if self.reason == "term" and self.server.state is ServerState.SERVING and not self.settings.reload:
            await self._hand_over(loop)
        handed_over = loop.time()
        cut = await self.server.drain(grace.requests, grace.stream)
        drained = loop.time()
        if cut:
            self.log.warning("%s", counted("Graceful timeout: %d requests were not finished", cut))
        if lifespan is not None:
            await lifespan.shutdown(max(0.1, grace.end(drained) - drained))
        until = grace.background(drained)
        if left := await end_tasks(loop, until) + await wait_for_jobs(loop, until):
            self.log.warning("Background work was cut: %s", sentence(left))
        finished = max(0, context.served - before - cut)
        line = counted("Served %d requests: %d finished while leaving, %d cut;", context.served, finished, cut)
        took = (handed_over - begun, drained - handed_over, loop.time() - drained)
        self.log.info("%s %.1f s to hand over, %.1f s to drain, %.1f s to shut down", line, *took)

    async def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Told to go, go on accepting until a younger worker does, if one is coming, and for the drain delay."""
        begun, succession = loop.time(), self.succession
        if succession is not None:
            succession.told_to_go()
            while (
                loop.time() < begun + self.settings.graceful_timeout / 2
                and succession.successor() is WorkerState.BOOTING
            ):
                await asyncio.sleep(HAND_OVER_TICK)
        set_state(self.context.slot, WorkerState.DRAINING)
        if self.server.is_tcp:
            await asyncio.sleep(begun + self.settings.drain_delay - loop.time())

    # -- reasons to stop

    def shut_down(self, reason: str = "term") -> None:
        """Begin to leave gracefully. May be called again."""
        if self.alive or not self.stop.is_set():
            self.reason = reason
            self.context.slot[RECYCLED + REASONS.index(reason)] += 1
            set_state(self.context.slot, WorkerState.RETIRING if reason == "term" else WorkerState.RECYCLING)
        if reason != "term":
            self.context.leave()  # with the response at hand
        self._alive = False
        self.grace.begin(self.context.loop.time(), reason)
        self.server.hurry(self.grace.requests)
        self.stop.set()

    def _recycle(self, reason: str) -> None:
        """
        This worker is to be replaced, by its own count.

        Of several that want it, one goes at a time: see :meth:`Succession.may_go`. One that is
        alone goes at once.
        """
        if not self.alive:
            return  # it is leaving as it is
        if reason == "max_requests":
            self.log.info("Autorestarting worker after current request.")
        if self.succession is None or self.succession.single():
            self.shut_down(reason)
        elif self.wish is None:
            self.wish = reason
            set_state(self.context.slot, WorkerState.WISHING)

    # -- signals

    def init_signals(self) -> None:
        """Called after the fork, before the application is loaded."""
        super().init_signals()
        signal.signal(signal.SIGUSR2, self.handle_usr2)
        signal.siginterrupt(signal.SIGUSR2, False)
        self.signals = Signals(self.log, self.PIPE[1])
        self.signals.defer(signal.SIGTERM, self.handle_exit)
        self.signals.defer(signal.SIGUSR1, self.handle_usr1)
        self.signals.settle()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """TERM: leave gracefully. Before there is a loop, the siblings are told not to wait for this worker."""
        if hasattr(self, "server"):
            self.shut_down()
            return
        super().handle_exit(sig, frame)
        self.reason = "term"
        if self.slot is not None:
            set_state(self.slot, WorkerState.DRAINING)

    def handle_usr2(self, sig: int, frame: FrameType | None) -> None:
        """Write to the error log what the worker does. (gunicorn leaves this signal deadly.)"""
        self.watchdog.status()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at once. Ctrl-C sends INT, and the master then QUIT: the second finds the first at work."""
        if self.exit_code is None:
            self._exit(0, frame, lambda: super(Worker, self).handle_quit(sig, frame), "worker_int")

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """The arbiter missed the heartbeat: write what holds the worker up, then leave with exit code 1."""
        self.watchdog.abort(frame, getattr(self.log, "error_log", None))
        self._exit(1, frame, lambda: super(Worker, self).handle_abort(sig, frame), "worker_abort")

    def _exit(self, code: int, frame: FrameType | None, handler: Callable[[], None], hook: str) -> None:
        """
        Call gunicorn's ``handler`` and raise WorkerExit, out of ``frame``, which was interrupted.

        Some swallow it, so the loop is stopped as well. A weak reference's callback also prints it: not raised there.
        """
        self.exit_code = code
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        try:
            handler()
        except SystemExit:
            pass  # raised below
        except Exception:  # it would end the interrupted request, or vanish in the loop
            self.log.exception("Exception in %s hook", hook)
            self.exit_code = 1
        if frame is None or self.loop is None or frame.f_globals.get("__name__") not in ("weakref", "_weakrefset"):
            raise WorkerExit(self.exit_code)

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop know of signals, and of a hook that came before there was one."""
        self.signals.attach(loop)
        # What is written to the pipe wakes the loop up: Python does it for each signal, gunicorn's reloader once.
        loop.add_reader(self.PIPE[0], os.read, self.PIPE[0], 4096)
        if not self.alive and self.reason != "term":
            self.shut_down(self.reason)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception that nobody awaited belongs into gunicorn's error log, not into asyncio's logger."""
        exception = context.get("exception")
        if self.exit_code is None or not isinstance(exception, SystemExit):  # that one is `_exit`'s, amid a callback
            task = context.get("task") or context.get("future")
            which = f" ({describe(task)})" if isinstance(task, asyncio.Task) else ""
            self.log.error("%s%s", context.get("message"), which, exc_info=exception)


def setup() -> None:
    """Called by gunicorn for what it takes for a worker class, here this module: ``-k hybridworker.worker``."""
    raise RuntimeError("hybridworker.worker is a module: use -k hybridworker.Worker")
