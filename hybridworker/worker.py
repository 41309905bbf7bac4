"""
Worker: gunicorn's calls in, an exit code out.

gunicorn constructs the worker in the master, forks, and calls ``init_process``, which
loads the application and calls :meth:`Worker.run`. That makes the loop and runs one
:class:`~.process.program.Program` in it. The process is left through the arbiter's own
``finally``, so that gunicorn's hooks run. Invariant: ``check_config`` and ``__init__`` run in
the master, where there must be no loop, thread or signal handler.

What each signal does stands in the ``handle_...`` methods: TERM is graceful and may come
again; QUIT and INT leave at once; USR1 reopens the logs; USR2 writes a report of what the worker
does; ABRT comes from the arbiter when the heartbeat has stopped. :mod:`.process.signals` says when
they run.

A subclass may use and override what the README names, and what gunicorn documents of its own
worker. Everything else has an underscore.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, NoReturn

import uvloop
from gunicorn import SERVER_SOFTWARE
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError
from gunicorn.sock import ssl_context
from gunicorn.util import import_app
from gunicorn.workers.base import Worker as BaseWorker

from .application.assembly import assemble
from .application.detect import Decision, Interface, advice
from .application.inspection import VARIABLE, Served, inspect, pair
from .application.lending import make_lender
from .config.gunicornsettings import is_changed
from .config.settings import Settings, check
from .connection.context import WorkerContext
from .errors import BootFailed, ConfigurationError, LifespanFailed, WorkerExit
from .group.leadership import Leadership
from .group.scoreboard import AGE, FAILURES, PID, STARTED, Group, Scoreboard, Slot, WorkerState, set_state
from .group.share import Share
from .group.succession import Succession
from .log.access import access_writer
from .log.hooks import RequestHooks
from .process import bootretry
from .process.boot import explain_tls, identify, read_certificate, versions
from .process.exit import BOOT_ERROR, FAILED, LOAD_ERROR, exit_code, leave_without_threads
from .process.leftovers import describe
from .process.memory import set_aside
from .process.patches import patched
from .process.program import Program
from .process.server import Server
from .process.signals import Signals
from .process.watchdog import Watchdog
from .standing import here
from .states import ProgramState

#: File descriptors that an event loop needs, at least.
LOOP_FDS = 12


class Worker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    """
    The worker class: ``gunicorn -k hybridworker.Worker module:app``.

    Serves whatever application gunicorn loaded, ASGI 3, ASGI 2 or WSGI. May be subclassed.
    """

    decision: Decision  #: what the application is, or that it is a Hybrid; known after ``load_wsgi``
    program: Program | None = None  #: known once there is a loop
    app: Any  #: gunicorn's own: what loads the application

    _settings: Settings
    _served: list[Served]  #: what the application consists of
    _signals: Signals
    _scoreboard: Scoreboard | None = None  #: that of the master
    _slot: Slot | None = None  #: this worker's row of it
    _loop: asyncio.AbstractEventLoop | None = None
    _asked: str | None = None  #: why the worker is to leave, if a hook, the reloader or an early TERM has asked for it
    _exit_code: int | None = None  #: set by QUIT, INT and ABRT: the loop is left without awaiting anything

    #: How many requests have begun, for the hooks. gunicorn sets its attribute of this name to 0.
    nr = property(lambda self: self.program.context.quota.served if self.program else 0, lambda self, value: None)

    # -- in the master

    @classmethod
    def setup(cls) -> None:
        """Called by gunicorn when it takes this class, before it loads any application: here is no other server."""
        here.is_of_gunicorn = True

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
        if getattr(cls, "CONFIG_KWARGS", None):  # of a subclass that was written for uvicorn's worker
            text = "%s.CONFIG_KWARGS has no effect: section Switching of the README says what replaces it"
            log.warning(text, cls.__qualname__)
        if cfg.preload_app and (uri := Settings.from_gunicorn(cfg).websocket):
            # gunicorn has loaded the first application by now. In __init__ a failure would end the master of a HUP.
            try:
                Pair.preloaded[uri] = import_app(uri)
            except (Exception, SystemExit) as exc:
                line = advice(uri, exc) if isinstance(exc, ImportError | AppImportError) else None
                log.error("%s=%s", VARIABLE, line or f"{uri} cannot be loaded", exc_info=line is None)
                sys.exit(Arbiter.APP_LOAD_ERROR if isinstance(exc, AppImportError) else Arbiter.WORKER_BOOT_ERROR)

    def __init__(self, *args: Any) -> None:
        """Called by the arbiter before the fork: only the master takes places in the group."""
        super().__init__(*args)
        self._scoreboard = Scoreboard.of_master(self.log.warning, self.cfg.workers)
        self._slot = None if self._scoreboard is None else self._scoreboard.claim(self._age, self.log.warning)
        self._leadership = Leadership.of_master(self.cfg.worker_tmp_dir, self.log.warning)
        # The fork comes next. A first collection takes 10 ms and finds next to nothing; later ones are cheap.
        set_aside(collect=self.cfg.preload_app or gc.get_freeze_count() > 0)

    @property
    def age(self) -> float:
        """The number of this worker; for the master its rank, by which that chooses whom to send away."""
        if self._scoreboard is None or self._pid == os.getpid():
            return self._age
        return self._scoreboard.rank(self._slot, self._age)

    @age.setter
    def age(self, age: int) -> None:
        self._age = age

    @property
    def pid(self) -> int | str:
        """Set by the arbiter on both sides of the fork, so no slot is without the pid of its worker for long."""
        return self._pid

    @pid.setter
    def pid(self, pid: int | str) -> None:
        self._pid = pid
        if self._slot is not None and isinstance(pid, int):
            self._slot[PID] = pid

    @property
    def alive(self) -> bool:
        """Whether the worker has not begun to leave. Set to False, by a hook or a thread, it leaves gracefully."""
        return self._asked is None and (self.program is None or self.program.staying)

    @alive.setter
    def alive(self, alive: bool) -> None:
        if alive or not self.alive:
            return  # gunicorn sets it to True when it makes the worker; one that leaves cannot be kept
        self._asked = "reload" if threading.current_thread() is self.reloader else "hook"
        if self.program is not None and self._exit_code is None:  # after QUIT, INT or ABRT nothing is graceful
            self.program.context.persistence.end()  # with the response at hand
            self._signals.call(self.program.leave, self._asked)

    # -- from fork to run

    def init_process(self) -> None:
        """Called after the fork; returns, or raises SystemExit, when the worker is done."""
        code = 0
        here.enter(None if self._scoreboard is None else self._scoreboard.number(self._slot))
        self._signals = Signals(self.log)
        self._refuse_patches()  # of a hook
        self._watchdog = Watchdog(self.log)
        self._watchdog.start()
        try:
            super().init_process()
        except BaseException as exc:
            missing = isinstance(exc, AppImportError)
            if not missing:
                self._take_missed_term()
            starting = self.program is None or self.program.state is ProgramState.STARTING
            booting = starting and self.alive and self._exit_code is None
            code, logged = exit_code(exc, self.log, booted=self.booted, booting=booting, told=self._exit_code)
            code = LOAD_ERROR if missing and booting else code  # one that was told to go ends nobody else
            if booting and code in (BOOT_ERROR, LOAD_ERROR) and self._others_serve():
                code, logged = self._retry(exc, logged), True
            if not logged:
                raise
            raise SystemExit(code) from None
        finally:
            self._watchdog.stop()
            leave_without_threads(code)

    def _others_serve(self) -> bool:
        """Whether the boot of this worker may fail: others serve, and it is not the first boot of its master."""
        board, cfg = self._scoreboard, self.cfg
        if board is None or self._age <= board.workers or cfg.reload or cfg.preload_app:
            return False
        return board.others_serve(self._age)

    def _retry(self, exc: BaseException, logged: bool) -> int:
        """Say why the boot has failed, and wait; returns the exit code with which the master may try again."""
        if not logged and not isinstance(exc, SystemExit):
            self.log.error("Exception in worker process", exc_info=exc)
        line = "This worker cannot boot (%s): the old workers go on; mend it and send HUP again"
        self.log.error(line, bootretry.reason(exc))
        slot, board = self._slot, self._scoreboard
        failures = 1
        if slot is not None and board is not None:
            slot[FAILURES] += 1
            failures = slot[FAILURES]
            board.broken[0] = 1
            set_state(slot, WorkerState.FAILED)
        for listener in self.sockets:
            listener.sock.close()  # with reuse_port no connection may wait at this worker
        self._watchdog.stop()
        told = bootretry.wait(bootretry.delay(failures), self.notify, self._show_draining, self.ppid)
        return 0 if told else FAILED

    def load_wsgi(self) -> None:
        """Load the application, decide what it is, and prepare whatever may fail: errors here stop the arbiter."""
        uri = getattr(self.app, "app_uri", None)
        try:
            self._settings = Settings.from_gunicorn(self.cfg)
            self._load(uri)
            name = uri or repr(self.wsgi)
            self._served = inspect(self.wsgi, self._settings, uri)
        except ConfigurationError as exc:
            self._fail(f"{uri or 'The application'}: {exc}")
        self.decision = (
            self._served[0].decision if self._served[0].part is None else Decision(Interface.HYBRID, repr(self.wsgi))
        )
        # In load_wsgi and not in run: an error before `booted` ends the arbiter instead of starting the next worker.
        self._tls_files = identify(self._settings)  # before they are read
        self._tls = self._ssl_context() if self._settings.is_ssl else None
        for part, _, decision in self._served:
            paired = part is not None and part.name == "websocket" and self._settings.websocket
            title = name if part is None else f"{paired or name}, {part.key}"
            threads = f", threads={self._settings.threads}" if decision.interface is Interface.WSGI else ""
            self.log.info("Serving %s application %s (%s)%s", decision.interface, title, decision.reason, threads)
            if decision.doubt:
                self.log.warning("%s: %s", title, decision.doubt)
        if self._settings.threads == 1 and any(decision.interface is Interface.WSGI for *_, decision in self._served):
            self.log.info("WSGI requests are served one after another, because --threads is 1")

    def _load(self, uri: str | None) -> None:
        """Have gunicorn load the application, and in the same place the one of HYBRIDWORKER_WEBSOCKET."""
        app: Any = self.app
        loader = Pair(app, self._settings.websocket)
        if self._settings.websocket:
            self.app = loader  # for what gunicorn's method does about a SyntaxError under --reload
        try:
            super().load_wsgi()
        except ConfigurationError:
            raise
        except RuntimeError:
            self._refuse_patches()  # the locks of the import itself may have been exchanged
            raise
        except (ImportError, AppImportError, TypeError, AttributeError) as exc:
            if (line := advice(loader.uri if loader.second else uri, exc)) is None:
                raise  # something inside of the application: its traceback tells
            line = f"{VARIABLE}={line}" if loader.second else line
            self._fail(line, Arbiter.APP_LOAD_ERROR if isinstance(exc, AppImportError) else Arbiter.WORKER_BOOT_ERROR)
        except (Exception, SystemExit):
            if loader.second:
                self.log.error("%s=%s cannot be loaded", VARIABLE, loader.uri)  # the arbiter says why
            raise
        finally:
            self.app = app

    def _fail(self, line: str, code: int = Arbiter.WORKER_BOOT_ERROR) -> NoReturn:
        """End the boot, and gunicorn, with one line."""
        self.log.error("%s", line)
        raise BootFailed(line, code)

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
            if (line := explain_tls(self._settings)) is None:
                raise  # something inside of the ssl_context hook: its traceback tells
            self._fail(line)
        # gunicorn offers nothing where only HTTP/1.1 is to be spoken.
        context.set_alpn_protocols(list(self._settings.alpn))
        return context

    # -- the program

    def run(self) -> None:
        """Serve until told to stop. Raises SystemExit with gunicorn's code for a failed boot."""
        self._refuse_patches()  # of the application
        new_loop: Callable[[], asyncio.AbstractEventLoop] = (
            asyncio.new_event_loop if self._settings.asgi_loop == "asyncio" else uvloop.new_event_loop
        )
        # Where there are too few, uvloop does not raise: it aborts.
        for fd in [os.dup(self.PIPE[0]) for _ in range(LOOP_FDS)]:
            os.close(fd)
        self._loop = loop = new_loop()
        loop.set_exception_handler(self._loop_error)
        try:
            self.program = program = self._new_program(loop)
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._run(program))
        except LifespanFailed as exc:
            self._fail(f"Application startup failed: {exc}")
        except (SystemExit, RuntimeError):  # RuntimeError: the loop was stopped
            if self._exit_code is None:
                raise
            # QUIT, INT or ABRT: nothing is awaited any more, and the tasks left behind are no news.
            loop.set_exception_handler(lambda loop, context: None)
            if self.program is not None:
                self.program.server.hang_up()
            sys.exit(self._exit_code)
        asyncio.set_event_loop(None)
        loop.close()
        self._signals.keep_term()

    async def _run(self, program: Program) -> None:
        """Let the loop know of signals, and of those that came before there was a program; then run the program."""
        self._signals.attach(program.context.loop)
        self._take_missed_term()
        # What is written to the pipe wakes the loop up: Python does it for each signal, gunicorn's reloader once.
        program.context.loop.add_reader(self.PIPE[0], os.read, self.PIPE[0], 4096)
        if self._asked is not None:
            program.leave(self._asked)
        await program.run()

    def _new_program(self, loop: asyncio.AbstractEventLoop) -> Program:
        settings, served, pool, lender, parts = self._settings, self._served, None, None, None
        hybrid = served[0].part is not None
        # Here and below: what few applications need is loaded by their workers alone.
        if any(application.is_wsgi for application in served):
            from .wsgi.threads import ThreadPool

            timed = bool(settings.metrics_path)
            pool = ThreadPool(settings.threads, loop, timed=timed, lanes=len(served), patience=settings.queue_timeout)
        if not all(application.is_wsgi for application in served):
            lender = make_lender(settings, loop, self.log, bounded=not hybrid)
        hooks = RequestHooks.from_gunicorn(self.cfg, self, self.log)
        applications = assemble(served, settings, pool, lender, hooks, SERVER_SOFTWARE)
        if hybrid:
            from .application.parts import Parts

            parts = Parts.of(applications, settings, hooks)
        context = WorkerContext(
            application=applications[0] if parts is None else parts.default,
            parts=parts,
            settings=settings,
            loop=loop,
            log=self.log,
            server_cert=read_certificate(settings.certfile) if self._tls else None,
            access=access_writer(self.log, self.cfg, settings),
            max_requests=self.max_requests,
            slot=self._slot,
            lender=lender,
        )
        succession = share = None
        if (group := self._join_group(context.slot)) is not None:
            succession = Succession(group, settings)
            share = Share(group, settings, None if pool is None else pool.size, parts is not None)
        server = Server(context, self.sockets, self._tls, share)
        program = Program(self, server, pool, succession, self._signals, self._watchdog)
        program.leadership = self._leadership
        if self._tls is not None and not is_changed(self.cfg, "ssl_context"):  # the hook may do as it likes
            from .process.certificates import Certificates

            program.certificates = Certificates(context, server, self._ssl_context, self._tls_files)
        return program

    def _join_group(self, slot: Slot) -> Group | None:
        """Take our place among the siblings; without a scoreboard the worker knows of none."""
        slot[STARTED] = int(time.time())
        if self._scoreboard is None:
            return None
        slot[PID], slot[AGE] = os.getpid(), self._age  # there already where the slot is one of the scoreboard's
        return Group(self._scoreboard, slot)

    # -- signals

    def init_signals(self) -> None:
        """Called after the fork, before the application is loaded."""
        super().init_signals()
        signal.signal(signal.SIGUSR2, self.handle_usr2)
        signal.siginterrupt(signal.SIGUSR2, False)
        self._signals.defer(signal.SIGTERM, self.handle_exit)
        self._signals.defer(signal.SIGUSR1, self.handle_usr1)
        self._signals.settle(self.PIPE)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """TERM: leave gracefully. Before there is a program, the siblings are told not to wait for this worker."""
        if self.program is not None:
            self.program.leave()
            return
        self._asked = "term"
        self._show_draining()

    def _show_draining(self) -> None:
        """Tell the siblings not to wait for this worker, which has no program to do it."""
        if self._slot is not None:
            set_state(self._slot, WorkerState.DRAINING)

    def _take_missed_term(self) -> None:
        """Obey a TERM that came amid the import, where only the application's handler saw it."""
        if self._asked is None and self._signals.missed_term():
            self._asked = "term"

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """Reopen the logs, and look at the TLS files."""
        super().handle_usr1(sig, frame)
        if self.program is not None and self.program.certificates is not None:
            self.program.certificates.look()

    def handle_usr2(self, sig: int, frame: FrameType | None) -> None:
        """Write to the error log what the worker does. (gunicorn leaves this signal deadly.)"""
        self._watchdog.status()

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Leave at once. Ctrl-C sends INT, and the master then QUIT: the second finds the first at work."""
        if self._exit_code is None:
            self._exit(0, frame, lambda: super(Worker, self).handle_quit(sig, frame), "worker_int")

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """The arbiter missed the heartbeat: write what holds the worker up, then leave with exit code 1."""
        self._watchdog.abort(frame, getattr(self.log, "error_log", None))
        self._exit(1, frame, lambda: super(Worker, self).handle_abort(sig, frame), "worker_abort")

    def _exit(self, code: int, frame: FrameType | None, handler: Callable[[], None], hook: str) -> None:
        """
        Call gunicorn's ``handler`` and raise WorkerExit out of ``frame``, which was interrupted.

        The interrupted code may swallow SystemExit, so the loop is stopped too. In the callback of a
        weak reference Python would only print it, so it is not raised there.
        """
        self._exit_code = code
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
        try:
            handler()
        except SystemExit:
            pass  # raised below
        except Exception:  # it would end the interrupted request, or vanish in the loop
            self.log.exception("Exception in %s hook", hook)
            self._exit_code = 1
        if frame is None or self._loop is None or frame.f_globals.get("__name__") not in ("weakref", "_weakrefset"):
            raise WorkerExit(self._exit_code)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Write an exception that was never awaited to gunicorn's error log, and not to asyncio's logger."""
        exception = context.get("exception")
        if self._exit_code is None or not isinstance(exception, SystemExit):  # that one is `_exit`'s, amid a callback
            task = context.get("task") or context.get("future")
            which = f" ({describe(task)})" if isinstance(task, asyncio.Task) else ""
            self.log.error("%s%s", context.get("message"), which, exc_info=exception)


class Pair:
    """
    Gunicorn's application object, where HYBRIDWORKER_WEBSOCKET names a second application.

    :meth:`wsgi` loads both, and is where gunicorn loads one.
    """

    preloaded: ClassVar[dict[str, Any]] = {}  #: by the master, with --preload

    def __init__(self, app: Any, uri: str) -> None:
        self.app: Any = app
        self.uri = uri
        self.second = False  #: the first is there, and the second is being loaded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.app, name)

    def wsgi(self) -> Any:
        """Both, as a Hybrid."""
        first = self.app.wsgi()
        self.second = True
        second = self.preloaded[self.uri] if self.uri in self.preloaded else import_app(self.uri)
        return pair(first, second, self.uri)


def is_load_error(exc: BaseException) -> bool:
    """Whether gunicorn has not found the application; the arbiter has an exit code of its own for that."""
    return isinstance(exc, AppImportError)
