"""Reloads, replacements, and the end."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from .clients import CLOSE, WebSocket
from .load import Load
from .peers import ASGI, OURS, WSGI
from .protocols import REFUSALS
from .registry import Answer, NotAsked, no, partly, row, yes
from .servers import Server, Subject, within

GROUP = "Restarts"

#: Seconds that the import of a site takes, and that a client may wait at most for "nothing was held up".
IMPORT, PROMPT = 2.0, 1.0

#: Seconds that a stream is watched after TERM.
STREAMS = 12.0

SITE = """
import time
time.sleep({seconds})
from tests.compare.apps.{interface} import app, HANDLERS
{version}
"""

VERSIONS = {
    ASGI: """
from tests.compare.apps.asgi import answer
async def version(scope, receive, send, query):
    await answer(send, b"{}")
HANDLERS["/version"] = version
""",
    WSGI: 'HANDLERS["/version"] = lambda environ, query: b"{}"\n',
}


def deploy(folder: Path, interface: str, version: str, seconds: float = IMPORT) -> None:
    """Write the code of a site; ``broken`` is code that cannot be imported."""
    if version == "broken":
        (folder / "compare_site.py").write_text("import nowhere_to_be_found\n")
        return
    text = SITE.format(seconds=seconds, interface=interface, version=VERSIONS[interface].format(version))
    (folder / "compare_site.py").write_text(text)


def versions(server: Server, number: int = 12) -> set[str]:
    """Which versions answer now."""
    found = set()
    for _ in range(number):
        try:
            found.add(server.request("/version", patience=5).text)
        except REFUSALS as exc:
            found.add(type(exc).__name__)
    return found


@row("A reload (HUP) loses no request and holds none up", short="A reload loses and delays no request")
def reload(subject: Subject) -> Answer:
    """Two workers under load, whose import takes 2 s; three times new code and HUP, until only the new one answers."""
    interface, folder = subject.interfaces[0], subject.folder()
    deploy(folder, interface, "one")
    with subject.start(app="compare_site:app", folder=folder, workers=2, threads=4) as server:
        within(15, lambda: len(server.workers()) == 2)
        with Load(server.port) as load:
            load.go_on(200)
            done = all(_replaced(server, folder, version) for version in ("two", "three", "four"))
            if server.process.poll() is None:
                load.go_on(200)
        if server.process.poll() is not None:
            return no(f"it ends: {load}")
    if not done:
        return no(f"the new version does not come: {load}")
    if len(load.lost) * 1000 >= load.count:
        return no(str(load))
    return yes(str(load)) if load.longest < PROMPT and not load.lost else partly(str(load))


def _replaced(server: Server, folder: Path, version: str) -> bool:
    """Deploy and reload; whether the old workers are gone in time, and only this version answers."""
    old = server.workers()
    deploy(folder, server.want.interface, version)
    server.signal(signal.SIGHUP)

    def over() -> bool:
        return server.process.poll() is not None or not old & set(server.processes())

    return within(40, over, 0.1) and server.process.poll() is None and versions(server) == {version}


@row("A reload with broken code: the old workers go on", short="A broken deploy harms nobody")
def broken_deploy(subject: Subject) -> Answer:
    """Two workers under load; code that cannot be imported, HUP; ten seconds later, mended code and another HUP."""
    interface, folder = subject.interfaces[0], subject.folder()
    deploy(folder, interface, "one", 0)
    with subject.start(app="compare_site:app", folder=folder, workers=2, threads=4) as server:
        within(15, lambda: len(server.workers()) == 2)
        with Load(server.port) as load:
            load.go_on(100)
            deploy(folder, interface, "broken")
            server.signal(signal.SIGHUP)
            if within(10, lambda: server.process.poll() is not None or len(load.lost) > 100, 0.1):
                server.exit_code(5)
            else:
                deploy(folder, interface, "two", 0)
                server.signal(signal.SIGHUP)
                within(20, lambda: versions(server) == {"two"}, 0.3)
        if server.process.poll() is not None:
            return no("the server ends: all is down")
        if load.lost:
            return no(str(load))
        mended = versions(server) == {"two"}
    return yes(str(load)) if mended else partly("mended code is not loaded")


@row("``max_requests`` loses no request", short="max_requests loses no request")
def max_requests(subject: Subject) -> Answer:
    """Two workers that are replaced after 200 requests each, under load, until ten have been."""
    if subject.name == "granian":
        raise NotAsked("no such setting; it has --workers-lifetime and --workers-max-rss")
    options = ["--max-requests", "200"]
    with subject.start(options=options, workers=2, threads=4) as server:
        with Load(server.port, "/pid") as load:
            replaced = within(60, lambda: len(load.bodies) >= 12 or server.process.poll() is not None)
        if server.process.poll() is not None:
            return no(f"the server ends: {load}")
    text = f"{load}, {max(0, len(load.bodies) - 2)} replacements"
    if load.lost:
        return no(text)
    return yes(text) if replaced else partly(text)


@row("A worker that has grown too large is replaced without a loss")
def memory_limit(subject: Subject) -> Answer:
    """A limit of 200 MiB, and requests that each keep 10 MiB for ever, under load."""
    if subject.name not in (OURS, "granian"):
        return no("no setting for it")
    options = ["--workers-max-rss", "200", "--rss-sample-interval", "1"] if subject.name == "granian" else []
    environ = {"HYBRIDWORKER_MAX_RSS": "200"} if subject.name == OURS else {}
    with subject.start(options=options, environ=environ, workers=2, threads=4) as server:
        old = within(10, lambda: len(found := server.workers()) == 2 and found)
        with Load(server.port) as load:
            for _ in range(60):
                try:
                    if int(server.request("/grow?10", patience=20).body) not in old:
                        break
                except REFUSALS as exc:
                    load.lost.append(str(exc))
                time.sleep(0.1)
            replaced = within(20, lambda: server.workers() - old, 0.2)
            load.go_on(200)
    if not replaced:
        return no("no worker is replaced")
    return yes(str(load)) if not load.lost else no(str(load))


@row("Open streams (SSE) end in good order before the graceful timeout", short="Open streams end in time at TERM")
def streams(subject: Subject) -> Answer:
    """
    A stream of server-sent events and a request of 4 s, a graceful timeout of 8 s, and TERM: the stream ends with its
    last chunk, earlier than the timeout, and the request is answered.
    """
    subject.needs(ASGI)
    environ = {"HYBRIDWORKER_STREAM_DRAIN": "1"} if subject.name == OURS else {}
    with subject.start(ASGI, environ=environ, graceful=8) as server:
        with server.connect(20) as stream, server.connect(20) as slow:
            stream.start("/stream")
            stream.head()
            slow.start("/slow?4")
            time.sleep(0.5)  # it has begun
            begun = time.monotonic()
            server.signal(signal.SIGTERM)
            try:
                while (open_still := time.monotonic() < begun + STREAMS) and stream.chunk():
                    pass
                order = "goes on" if open_still is False else "ends with its last chunk"
            except REFUSALS:
                order = "is cut"
            seconds = time.monotonic() - begun
            try:
                served = slow.response().body == b"slow"
            except REFUSALS:
                served = False
    text = f"the stream {order} after {seconds:.1f} s" + ("" if served else ", and the request is lost")
    if order != "ends with its last chunk":
        return no(text)
    return yes(text) if served and seconds < 7 else partly(text)


@row("WebSockets are closed with a code when the worker leaves")
def websocket_close(subject: Subject) -> Answer:
    """An open WebSocket and TERM: a close frame with 1001 or 1012 comes, so that clients connect again."""
    subject.needs(ASGI)
    with subject.start(ASGI, graceful=5) as server, WebSocket(server, patience=15) as client:
        assert client.ask("hello") == "hello"
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        try:
            opcode, payload = client.next()
        except TimeoutError:
            return no(f"it is open still after {time.monotonic() - begun:.0f} s")
        except REFUSALS:
            return no(f"the connection is cut after {time.monotonic() - begun:.1f} s")
        seconds = time.monotonic() - begun
    code = int.from_bytes(payload[:2], "big")
    text = f"{code} after {seconds:.1f} s"
    return yes(text) if opcode == CLOSE and code in (1001, 1012) else no(text)


@row("A worker with a process pool leaves, and takes it along")
def process_pool(subject: Subject) -> Answer:
    """The application has used a ProcessPoolExecutor, by each interface; TERM, with a graceful timeout of 5 s."""
    seen = []
    for interface in subject.interfaces:
        folder, options = subject.folder(), []
        if subject.name == "hypercorn":  # its workers may have no children otherwise
            (folder / "hypercorn.toml").write_text("daemon = false\n")
            options = ["--config", "hypercorn.toml"]
        with subject.start(interface, graceful=5, threads=2, folder=folder, options=options) as server:
            assert int(server.request("/pool").body), "the pool works"
            begun = time.monotonic()
            server.signal(signal.SIGTERM)
            ended = server.exit_code(10) is not None
            seconds = time.monotonic() - begun
            left = within(3, lambda: not server.processes()) or len(server.processes())
            if not ended:
                seen.append(f"{interface.upper()}: it does not end in 10 s")
            elif left is not True:
                seen.append(f"{interface.upper()}: {left} processes are left behind")
            elif seconds > 6:
                seen.append(f"{interface.upper()}: it takes {seconds:.0f} s")
    return no("; ".join(seen)) if seen else yes()
