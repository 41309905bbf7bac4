"""
How the application of a request ends, and what is said of it.

Whatever it raises is one line with its request, at the time at which it happens; the client
gets a 500, or sees that something is missing; the worker goes on. What the worker has ended
itself is no error.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.client import Client, Truncated
from tests.e2e.harness import Gunicorn, Servers

pytestmark = pytest.mark.e2e

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])

KINDS = ["unusual", "generator-exit", "exit", "interrupt", "cancelled"]
TASK_KINDS = [*KINDS, "cancelled-group", "cancelled-future", "itself", "group", "unwrapped"]

KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE = f"Connection: Upgrade\r\nUpgrade: websocket\r\n{KEY}"


def one_error(server: Gunicorn, line: str) -> None:
    """Wait for the line, which ends there, and see that nothing else was called an error since."""
    server.wait_log(rf"\[ERROR\] {re.escape(line)}$")
    errors = re.findall(r"\[ERROR\] (.*)", server.log())
    assert errors.count(line) == 1, errors


def errors(server: Gunicorn) -> list[str]:
    """Every error of the log, also what Python itself has to say."""
    return re.findall(r"\[(?:ERROR|CRITICAL)\] (.*)|(Exception ignored.*|.*never retrieved.*)", server.log())


# -- the application ends by itself


@LOOPS
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_whatever_is_raised_is_one_line_with_its_request(gunicorn: Servers, interface: str, loop: str) -> None:
    """Before the response a 500; amid its body the connection is cut; behind its end nobody sees it."""
    if interface == "asgi":
        server, kinds = gunicorn("ends:app", "--asgi-loop", loop, dirty=True), TASK_KINDS
    else:
        server, kinds = gunicorn("ends:wsgi_app", "--asgi-loop", loop, "--threads", "2", dirty=True), KINDS
    for kind in kinds:
        assert server.request(f"/{kind}/before").status == 500
        one_error(server, f"Error handling request GET /{kind}/before")
        with pytest.raises(Truncated):
            server.request(f"/{kind}/amid")
        one_error(server, f"Error handling request GET /{kind}/amid")
        with server.connect() as client:
            assert client.request(f"/{kind}/after").text == "abcd"
            one_error(server, f"Error handling request GET /{kind}/after")
            assert client.request("/hello/after").text == "abcd"
    assert server.log().count("Booting worker") == 1
    assert server.stop() == 0
    assert len(errors(server)) == 3 * len(kinds), server.log()


@LOOPS
def test_so_it_is_of_a_websocket(gunicorn: Servers, loop: str) -> None:
    """The handshake is answered with a 500, an open WebSocket closed with 1011."""
    pytest.importorskip("websockets", reason="the extra hybridworker[websockets] is not installed")
    server = gunicorn("ends:app", "--asgi-loop", loop, dirty=True)
    for kind in TASK_KINDS:
        with server.connect() as client:
            assert client.request(f"/{kind}/before", headers=UPGRADE).status == 500
        one_error(server, f"Error handling WebSocket /{kind}/before")
        with server.connect() as client:
            assert client.request(f"/{kind}/amid", headers=UPGRADE).status == 101
            assert client.exactly(4) == b"\x88\x02\x03\xf3"
        one_error(server, f"Error handling WebSocket /{kind}/amid")
    assert server.log().count("Booting worker") == 1
    assert server.stop() == 0
    assert len(errors(server)) == 2 * len(TASK_KINDS), server.log()


@pytest.mark.parametrize("kind", ["unusual", "generator-exit", "itself", "group"])
def test_a_lifespan_that_ends_in_startup_is_not_waited_for(gunicorn: Servers, kind: str) -> None:
    """As with any exception: the application is served without it."""
    server = gunicorn(f"ends:lifespan_that({kind!r}, 'startup')", dirty=True)
    server.wait_log(r"\[WARNING\] Application raised in lifespan startup; serving it all the same$")
    assert server.request("/hello/after").text == "abcd"
    assert server.stop() == 0
    assert errors(server) == []


@pytest.mark.parametrize("kind", ["unusual", "itself"])
def test_a_lifespan_that_ends_before_its_time_is_one_line(gunicorn: Servers, kind: str) -> None:
    """At the time at which it happens."""
    server = gunicorn(f"ends:lifespan_that({kind!r}, 'later')", dirty=True)
    server.wait_log("gate later reached")
    server.open("later")
    one_error(server, "Application raised in its lifespan")
    assert server.request("/hello/after").text == "abcd"
    assert server.stop() == 0
    assert len(errors(server)) == 1


HOOKS = """
import logging
from ends import Unusual, fail

def pre_request(worker, req):
    if req.path == "/hello/pre":
        raise Unusual

def post_request(worker, req, environ, resp):
    worker.log.info("post_request %s", req.path)
    if req.path == "/hello/post":
        raise SystemExit(7)

def access(record):
    if "/hello/access" in record.getMessage():
        fail("exit")
    return True

def post_worker_init(worker):
    logging.getLogger("gunicorn.access").addFilter(access)
"""


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_hooks_and_the_access_log_end_no_more_than_themselves(
    gunicorn: Servers, tmp_path: Path, interface: str
) -> None:
    """Whatever they raise: ``pre_request`` is a 500, the others come behind the response and harm nobody."""
    (tmp_path / "conf.py").write_text(HOOKS)
    app = "ends:app" if interface == "asgi" else "ends:wsgi_app"
    server = gunicorn(app, "-c", str(tmp_path / "conf.py"), "--access-logfile", "-", dirty=True)
    assert server.request("/hello/pre").status == 500
    one_error(server, "Error handling request GET /hello/pre")
    server.wait_log("post_request /hello/pre$")
    with server.connect() as client:
        assert client.request("/hello/post").text == "abcd"
        one_error(server, "Exception in post_request hook")
        assert client.request("/hello/access").text == "abcd"
        server.wait_log(r"\[ERROR\] Traceback")
        assert client.request("/hello/after").text == "abcd"
    assert server.log().count("Booting worker") == 1
    assert server.stop() == 0
    assert len(errors(server)) == 3, server.log()


# -- the worker ends it


#: What an application may make of its cancellation, without being at fault.
EXCUSED = ["nothing", "takes-back", "swallows", "chains", "groups", "shields", "in-timeout", "in-scopes", "again"]

#: Errors of its own, in its cleaning up.
# Before Python 3.11.3 asyncio.timeout() says nothing of a time-out amid a cancellation.
FAULTS = ["fails", "cleans-up-in-time"] if sys.version_info >= (3, 11, 3) else ["fails"]


@LOOPS
@pytest.mark.parametrize("leave", [Client.close, Client.reset])
def test_one_that_has_cancelled_itself_before_is_still_ended(
    gunicorn: Servers, leave: Callable[[Client], None], loop: str
) -> None:
    """``asgi_disconnect_grace_period`` after its client has left; once."""
    server = gunicorn("ends:app", "--asgi-loop", loop, "--asgi-disconnect-grace-period", "0")
    for count, (query, headers) in enumerate([("", ""), ("?handshake", UPGRADE), ("?open", UPGRADE)], 1):
        with server.connect() as client:
            client.start(f"/waits/again{query}", headers=headers)
            server.wait_log("^/waits/again waits$", count)
            leave(client)
            server.wait_log("^/waits/again ended$", count)
    assert server.stop() == 0
    assert server.log().count("/waits/again ended") == 3


#: Application, path, and what the client asks for beside it.
WAYS = [
    *(("ends:app", f"/waits/{kind}", "") for kind in EXCUSED),
    *(("ends:app", f"/waits/{kind}", UPGRADE) for kind in EXCUSED),
    *(("ends:app", f"/waits/{kind}?open", UPGRADE) for kind in EXCUSED),
]
FRAMEWORKS = [("ends:starlette_app", f"/{way}/{kind}", "") for kind in EXCUSED for way in ("waits", "streams")]


@contextmanager
def waiting(server: Gunicorn, ways: list[tuple[str, str, str]]) -> Iterator[list[Client]]:
    """A client for each of ``ways``, whose application waits to be cancelled."""
    with ExitStack() as stack:
        clients = []
        for count, (_, path, headers) in enumerate(ways, 1):
            client = stack.enter_context(server.connect())
            client.start(path, headers=headers)
            clients.append(client)
            server.wait_log(r"^/\w+/[a-z-]+ waits$", count)
        yield clients


def end(server: Gunicorn, reason: str, clients: list[Client]) -> None:
    """Have the worker cancel what waits: its client has left, or its time is up."""
    if reason == "cut":
        server.signal(signal.SIGTERM)
    else:
        for client in clients:
            client.reset()


@LOOPS
@pytest.mark.parametrize("reason", ["disconnect", "cut"])
@pytest.mark.parametrize("ways", [WAYS, FRAMEWORKS], ids=["bare", "starlette"])
def test_what_the_worker_has_cancelled_is_no_error(
    gunicorn: Servers, ways: list[tuple[str, str, str]], reason: str, loop: str
) -> None:
    """Whatever the application makes of it: a line of the level debug, when the client left or the time was up."""
    arguments = ["--asgi-loop", loop, "--log-level", "debug", "--asgi-disconnect-grace-period", "0"]
    server = gunicorn(ways[0][0], *arguments, "--graceful-timeout", "1")
    # One that returns may have nothing left to answer, and then there is nothing to say.
    said = r"\[DEBUG\] (?:Request cancelled: GET|WebSocket cancelled:) (\S+)(?<!swallows)(?<!swallows\?open)$"
    expected = sorted(path for _, path, _ in ways if "swallows" not in path)
    with waiting(server, ways) as clients:
        end(server, reason, clients)
        server.wait_log(said, len(expected))
        server.wait_log("swallowed$", len([path for _, path, _ in ways if "swallows" in path]))
    assert server.stop() == 0
    assert sorted(re.findall(said, server.log(), re.MULTILINE)) == expected


@pytest.mark.parametrize("reason", ["disconnect", "cut"])
def test_what_fails_while_it_cleans_up_is_one(gunicorn: Servers, reason: str) -> None:
    """An error of its own is logged with its request, although the worker has cancelled that."""
    ways = [("ends:app", f"/waits/{kind}{query}", "") for kind in FAULTS for query in ("", "?open")]
    ways = [(app, path, UPGRADE if "?" in path else "") for app, path, _ in ways]
    server = gunicorn("ends:app", "--asgi-disconnect-grace-period", "0", "--graceful-timeout", "1", dirty=True)
    with waiting(server, ways) as clients:
        end(server, reason, clients)
        for kind in FAULTS:
            one_error(server, f"Error handling request GET /waits/{kind}")
            one_error(server, f"Error handling WebSocket /waits/{kind}?open")
    assert server.stop() == 0
    assert len(errors(server)) == 2 * len(FAULTS), server.log()
