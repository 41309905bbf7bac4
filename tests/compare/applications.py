"""What is served, and what applications are offered."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .clients import WebSocket
from .peers import ASGI, OURS, WSGI
from .protocols import echo_of_websocket
from .registry import Answer, no, partly, row, yes
from .servers import Server, Subject

GROUP = "Applications"


@row("WSGI and ASGI applications side by side in one process", short="WSGI and ASGI in one process")
def hybrid(subject: Subject) -> Answer:
    """
    A page by WSGI, another one by ASGI with its lifespan, and a WebSocket, on one port and by one process; two WSGI
    calls of 0.5 s at once. An adapter inside of the application is no property of a server.
    """
    apps = {OURS: ["side_by_side:app"], "hypercorn": ["with_hypercorn:natural", "with_hypercorn:app"]}
    remark = ""
    for app in apps.get(subject.name, ()):
        try:
            with subject.start(ASGI, app=f"tests.compare.apps.{app}", threads=2, boot=12) as server:
                if wrong := _side_by_side(server):
                    return no(wrong)
                return partly(remark) if remark else yes()
        except (TimeoutError, ChildProcessError):
            remark = "its DispatcherMiddleware starts only where the WSGI part has a lifespan of one's own making"
    return no(remark or "it serves one application")


def _side_by_side(server: Server) -> str:
    """What is wrong; empty where nothing is."""
    if (state := server.request("/state").body) != b"startup":
        return f"the ASGI part has no lifespan: {state!r}"
    pid = server.request("/pid").text
    with WebSocket(server) as client:
        if client.ask("pid") != pid:
            return "two processes answer"
    begun = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda number: server.request("/slow?0.5"), range(2)))
    return "" if time.monotonic() - begun < 0.95 else "the WSGI part runs one call at a time"


@row("WebSockets in WSGI applications (Flask-Sock, Flask-SocketIO)")
def websocket_in_wsgi(subject: Subject) -> Answer:
    """Flask-Sock's handler sends a message back."""
    subject.needs(WSGI)
    with subject.start(WSGI, app="tests.compare.apps.with_flask:app", threads=4) as server:
        return echo_of_websocket(server)


@row("Django by ASGI keeps its database connections (CONN_MAX_AGE)", short="Django by ASGI keeps database connections")
def django_connections(subject: Subject) -> Answer:
    """60 requests of 4 clients to a synchronous view with a query: how many connections are opened."""
    subject.needs(ASGI)
    with subject.start(ASGI, app="tests.compare.apps.with_django:app", threads=4) as server:
        lock = threading.Lock()
        done: list[int] = []

        def ask(number: int) -> None:
            status = server.request("/").status
            with lock:
                done.append(status)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(60)))
        opened = int(server.request("/opened").body)
    assert done == [200] * 60, f"answers {done}"
    text = f"{opened} connections for 60 requests"
    return yes(text) if opened <= 8 else no(text)


@row("What lifespan startup made reaches requests (``state``)")
def lifespan_state(subject: Subject) -> Answer:
    """A value that startup has put into ``scope["state"]``."""
    subject.needs(ASGI)
    with subject.start(ASGI) as server:
        body = server.request("/state").body
    return yes() if body == b"startup" else no("the state is not there")


@row("Files by name (``http.response.pathsend``)")
def pathsend(subject: Subject) -> Answer:
    """The application names a file, as Starlette's FileResponse does, and the server sends it."""
    subject.needs(ASGI)
    with subject.start(ASGI) as server:
        body = server.request("/path").body
    if body == (Path(__file__).parent / "apps" / "asgi.py").read_bytes():
        return yes()
    return no("the extension is not announced" if body == b"not announced" else "another body comes")


@row("Static files without an application")
def static_files(subject: Subject) -> Answer:
    """A file of a folder that the server is told of."""
    if subject.name != "granian":
        return no("no setting for it")
    folder = subject.folder()
    (folder / "logo.svg").write_text("<svg/>")
    with subject.start(options=["--static-path-mount", str(folder)]) as server:
        body = server.request("/static/logo.svg").body
    return yes() if body == b"<svg/>" else no("another body comes")
