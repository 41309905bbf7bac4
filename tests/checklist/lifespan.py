"""Chapter L, the lifespan (asgiref ``specs/lifespan.rst`` 2.0). Most statements start a server of their own."""

from __future__ import annotations

import asyncio
import signal
import threading
import time

from .app import VARIABLE
from .case import Case
from .core import seen_app
from .registry import NotDecidable
from .servers import Options, Server, Subject, wait_until

COMPLETE = {"type": "lifespan.startup.complete"}


async def held_lifespan(case: Case) -> None:
    """Let startup last until the statement says so."""
    case.note("event", await case.receive())
    await case.released()
    case.note("complete")
    await case.send(COMPLETE)
    case.note("event", await case.receive())
    await case.send({"type": "lifespan.shutdown.complete"})


async def place_app(case: Case) -> None:
    """Note where, and with what context, the application runs."""
    case.note("place", (id(asyncio.get_running_loop()), threading.get_ident()))
    case.note("variable", VARIABLE.get())
    await case.answer()


def l1_scope(subject: Subject) -> None:
    """The scope has type "lifespan", the versions, and an empty state."""
    scope = subject.server.lifespan.wait("scope")
    assert scope["type"] == "lifespan"
    assert scope["asgi"]["version"] == "3.0"
    assert scope["asgi"].get("spec_version") == "2.0", f"spec_version is {scope['asgi'].get('spec_version')}"
    assert scope.get("state") == {}


def l2_once_and_on_the_loop_of_the_requests(subject: Subject) -> None:
    """The lifespan runs once, on the loop and in the thread of the requests."""
    run, _ = subject.server.call(place_app)
    assert subject.server.lifespan.all("place") == run.all("place")


def l3_startup_comes_first(subject: Subject) -> None:
    """lifespan.startup is delivered before any connection is accepted."""
    lifespan = subject.server.lifespan
    assert lifespan.all("event")[0]["type"] == "lifespan.startup"
    with subject.start(lifespan=held_lifespan, wait=False) as server:
        server.lifespan.wait("event", 20)
        if server.accepts():  # the kernel may, for a socket that listens already
            with server.connect() as wire:
                run = wire.request(seen_app)
                server.lifespan.release()
                assert wire.answer().body == b"ok"
                assert run.wait("call")


def l4_no_request_before_startup_is_complete(subject: Subject) -> None:
    """No request is processed before startup is complete."""
    with subject.start(lifespan=held_lifespan, wait=False) as server:
        server.lifespan.wait("event", 20)
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            assert not called_early(server), "the application is called amid its startup"
        server.lifespan.release()
        wait_until(server.ready, "no request is answered after startup", 20)


def called_early(server: Server) -> bool:
    """Try a request amid the startup."""
    try:
        with server.connect() as wire:
            run = wire.request(seen_app)
            return not wire.silent() or bool(run.all("call"))
    except OSError:
        return False


async def l5_lifespan(case: Case) -> None:
    raise RuntimeError("no lifespan here")


def l5_an_application_without_lifespan(subject: Subject) -> None:
    """An exception before the first answer means that the application has no lifespan; the server goes on."""
    with subject.start(lifespan=l5_lifespan) as server:
        _, answer = server.call(seen_app)
        assert answer.body == b"ok"


async def l6_lifespan(case: Case) -> None:
    await case.receive()
    await case.send({"type": "lifespan.startup.failed", "message": "the database is away"})


def l6_failed_startup(subject: Subject) -> None:
    """After lifespan.startup.failed the message is logged and the server exits (gunicorn: with 3, so that it stops)."""
    with subject.start(lifespan=l6_lifespan, wait=False) as server:
        code = server.exit_code(20)
        assert code == 3 or not subject.gunicorn, f"it exits with {code}"
        assert "the database is away" in server.log(), "the message is not logged"


async def l7_lifespan(case: Case) -> None:
    await case.receive()
    await case.send({"type": "lifespan.startup.failed"})


def l7_the_message_is_optional(subject: Subject) -> None:
    """lifespan.startup.failed without a message ends the server just as well."""
    with subject.start(lifespan=l7_lifespan, wait=False) as server:
        code = server.exit_code(20)
        assert code == 3 or not subject.gunicorn, f"it exits with {code}"
        assert "KeyError" not in server.log()


async def slow_app(case: Case) -> None:
    """A request that is answered when the statement says so; its end goes among the notes of the lifespan."""
    case.note("begun")
    await case.released()
    await case.answer()
    Case(case.scope, case.receive, case.send, "lifespan").note("request ended")


def l8_shutdown_comes_last(subject: Subject) -> None:
    """lifespan.shutdown is delivered when accepting has stopped and the connections are closed."""
    with subject.start() as server:
        with server.connect() as wire:
            run = wire.request(slow_app)
            run.wait("begun")
            server.terminate()
            wait_until(lambda: not server.accepts(), "the server goes on accepting")
            assert len(server.lifespan.all("event")) == 1, "shutdown came amid a request"
            run.release()
            assert wire.answer().body == b"ok"
        server.exit_code(20)
        keys = server.lifespan.keys()
        assert "completed" in keys, "there was no shutdown"
        assert keys.index("request ended") < keys.index("completed")


async def l9_lifespan(case: Case) -> None:
    await case.receive()
    await case.send(COMPLETE)
    case.note("event", await case.receive())
    await case.released()
    await case.send({"type": "lifespan.shutdown.complete"})
    case.note("completed")


def l9_shutdown_is_waited_for(subject: Subject) -> None:
    """The server waits for lifespan.shutdown.complete."""
    with subject.start(lifespan=l9_lifespan) as server:
        server.terminate()
        assert server.lifespan.wait("event")["type"] == "lifespan.shutdown"
        assert server.process.poll() is None
        server.lifespan.release()
        server.lifespan.wait("completed")
        server.exit_code()


async def l10_lifespan(case: Case) -> None:
    await case.receive()
    await case.send(COMPLETE)
    await case.receive()
    await case.send({"type": "lifespan.shutdown.failed", "message": "the cache is lost"})


def l10_failed_shutdown(subject: Subject) -> None:
    """The message of lifespan.shutdown.failed is logged, and the server exits."""
    with subject.start(lifespan=l10_lifespan) as server:
        server.terminate()
        server.exit_code()
        assert "the cache is lost" in server.log(), "the message is not logged"


def l11_every_good_end_has_a_shutdown(subject: Subject) -> None:
    """lifespan.shutdown is delivered on SIGTERM and, where there are such, after max_requests and on a reload."""
    with subject.start() as server:
        server.terminate()
        server.exit_code()
        assert server.lifespan.all("completed"), "not on SIGTERM"
    if subject.gunicorn:
        with subject.start() as server:
            server.process.send_signal(signal.SIGHUP)
            server.lifespan.wait("completed", 20)
    try:
        limited = subject.start(Options(max_requests=2), wait=False)
        with limited as server:
            wait_until(lambda: (server.ready(), server.lifespan.all("completed"))[1], "not after max_requests", 20)
    except NotDecidable:
        pass


async def l12_lifespan(case: Case) -> None:
    case.note("event", await case.receive())
    case.note("event", await case.receive())


def l12_no_shutdown_without_startup(subject: Subject) -> None:
    """If startup was never completed there is no lifespan.shutdown."""
    with subject.start(lifespan=l12_lifespan, wait=False) as server:
        server.lifespan.wait("event", 20)
        server.terminate()
    events = [event["type"] for event in server.lifespan.all("event")]
    assert events.count("lifespan.shutdown") == 0, "it is delivered"


async def l13_lifespan(case: Case) -> None:
    await case.receive()
    await case.send(COMPLETE)


def l13_returning_after_startup(subject: Subject) -> None:
    """An application that returns after startup.complete is served and stops like any other."""
    with subject.start(lifespan=l13_lifespan) as server:
        _, answer = server.call(seen_app)
        assert answer.body == b"ok"
        server.terminate()
        code = server.exit_code()
        assert code in (0, -signal.SIGTERM), f"it exits with {code}"
        assert "Traceback" not in server.log()


def l14_context_variables_of_startup(subject: Subject) -> None:
    """A context variable that startup sets is seen in requests."""
    run, _ = subject.server.call(place_app)
    assert run.wait("variable") == "from startup", f"it is {run.wait('variable')!r}"


def l15_heartbeats_during_startup(subject: Subject) -> None:
    """A startup that lasts longer than gunicorn's timeout is not killed."""
    if not subject.gunicorn:
        raise NotDecidable("nobody watches the heart of this server")
    with subject.start(Options(timeout=2), held_lifespan, wait=False) as server:
        server.lifespan.wait("event", 20)
        begun = time.monotonic()
        while time.monotonic() - begun < 4:
            assert "TIMEOUT" not in server.log(), "it is killed"
            time.sleep(0.05)
        server.lifespan.release()
        wait_until(server.ready, "it does not answer after startup", 20)
        assert len(server.lifespan.all("event")) == 1


def l16_no_lifespan_for_wsgi(subject: Subject) -> None:
    """A WSGI application is called for requests only."""
    with subject.start(Options(app="wsgi")) as server:
        notes = (server.directory / "wsgi.notes").read_text().splitlines()
        assert notes
        assert set(notes) == {"('call', '/')"}
