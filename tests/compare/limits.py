"""Deadlines, overload, and clients that are slow."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from .peers import OURS, WSGI
from .protocols import REFUSALS
from .registry import Answer, no, partly, row, yes
from .servers import Server, Subject

GROUP = "Overload and slow clients"

#: Seconds after which a request that hangs is taken to hang for ever.
HANGS = 6.0


@row("A request that hangs is answered 504 at its deadline", short="504 at a deadline")
def deadline(subject: Subject) -> Answer:
    """
    A call that never returns, with a deadline of 1 s, by each interface that is served. Where there is no such setting:
    with gunicorn's ``--timeout 2``, or with the server's own time-outs as they are.
    """
    seen = {}
    options = ["--timeout", "2"] if subject.gunicorn else []
    environ = {}
    if subject.name == OURS:
        options, environ = [], {"HYBRIDWORKER_REQUEST_TIMEOUT": "1"}
    for interface in subject.interfaces:
        with subject.start(interface, options=options, environ=environ, threads=2) as server:
            seen[interface.upper()] = _hanging(server)
    good = [name for name, text in seen.items() if text == "504"]
    if len(good) == len(seen):
        return yes()
    text = "; ".join(dict.fromkeys(text for text in seen.values() if text != "504"))
    return partly(f"{good[0]} only: {text}") if good else no(text)


def _hanging(server: Server) -> str:
    """What a client sees of a request that hangs."""
    with server.connect(HANGS) as client:
        client.start("/hang")
        try:
            return str(client.response().status)
        except TimeoutError:
            return f"no answer in {HANGS:g} s"
        except REFUSALS:
            return "the connection is cut"


@row("More requests than it can take are answered 503 at once", short="503 under overload")
def overload(subject: Subject) -> Answer:
    """
    Twelve requests of 2 s at once where a worker may have four in flight, by ASGI or, where it is not served, by WSGI:
    how many get a 503 before the four are done. Then one, beside six idle connections, which is no overload.
    """
    options = subject.pick(gunicorn=["--worker-connections", "4"], granian=["--backpressure", "4"])
    environ = {}
    if subject.name == OURS:
        options, environ = [], {"HYBRIDWORKER_REQUESTS_MAX": "4"}
    if subject.name == "uvicorn-worker":
        options = []
    uvicorn = {"limit_concurrency": 5}  # it counts the one that it refuses
    with subject.start(options=options, environ=environ, threads=4, uvicorn=uvicorn) as server:
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(lambda number: _status(server, "/slow?2"), range(12)))
        shed = sum(status == 503 and seconds < 1.8 for status, seconds in found)
        if not shed:
            slowest = max(seconds for _, seconds in found)
            return no(f"no 503; the last of twelve requests of 2 s ends after {slowest:.0f} s")
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(server.connect()).request("/")
            idle = _status(server, "/")[0]
    served = sum(status == 200 for status, _ in found)
    if idle != 200:
        return partly(f"{shed} of twelve get a 503; so does one beside six idle connections, which count as well")
    return yes(f"{served} served, {shed} answered 503")


def _status(server: Server, path: str) -> tuple[int, float]:
    """The status, 0 without one, and the seconds until it came."""
    begun = time.monotonic()
    try:
        status = server.request(path, patience=30).status
    except REFUSALS:
        status = 0
    return status, time.monotonic() - begun


@row("A WSGI call does not wait for a thread for ever")
def queue(subject: Subject) -> Answer:
    """One thread, busy for 4 s: a second request may wait for 1 s, and should then get a 503."""
    subject.needs(WSGI)
    environ = {"HYBRIDWORKER_QUEUE_TIMEOUT": "1"} if subject.name == OURS else {}
    with subject.start(WSGI, environ=environ, threads=1) as server, server.connect() as busy:
        busy.start("/slow?4")
        time.sleep(0.3)  # it is in its thread
        status, seconds = _status(server, "/")
    if status == 503:
        return yes(f"503 after {seconds:.1f} s")
    if seconds < 0.5:
        return yes("it starts another thread")
    return no(f"{status} after {seconds:.1f} s")


@row("A limit for the body of requests (413)")
def body_limit(subject: Subject) -> Answer:
    """A limit of 1 kB and a body of 100 kB, with Content-Length and chunked, by each interface that is served."""
    environ = {"HYBRIDWORKER_LIMIT_REQUEST_BODY": "1000"} if subject.name == OURS else {}
    seen: Counter[str] = Counter()
    for interface in subject.interfaces:
        options = []
        folder = subject.folder()
        if subject.name == "hypercorn":
            (folder / "hypercorn.toml").write_text("wsgi_max_body_size = 1000\n")
            options = ["--config", "hypercorn.toml"]
        with subject.start(interface, environ=environ, options=options, folder=folder) as server:
            for fields, body in (
                ("Content-Length: 100000\r\n", b"x" * 100_000),
                ("Transfer-Encoding: chunked\r\n", b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n"),
            ):
                seen[f"{_upload(server, fields, body)} by {interface.upper()}"] += 1
    if all(text.startswith("413") for text in seen):
        return yes()
    text = ", ".join(seen)
    if subject.name == "hypercorn" and any(text.startswith("400 by WSGI") for text in seen):
        return partly("for WSGI only, with a 400")
    return no(f"no setting for it: {text}")


def _upload(server: Server, fields: str, body: bytes) -> int:
    """The status that an upload gets, 0 where the connection is cut."""
    try:
        with server.connect() as client:
            client.start("/size", "POST", headers=fields)
            with contextlib.suppress(OSError):
                client.send(body)
            return client.response().status
    except REFUSALS:
        return 0


@row("Slow readers of responses hold no thread")
def slow_readers(subject: Subject) -> Answer:
    """Two threads, and four clients that ask for 4 MiB by WSGI and read nothing: is another request answered in 3 s?"""
    subject.needs(WSGI)
    with subject.start(WSGI, threads=2) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(server.socket(receive_buffer=4096))
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)  # the responses have begun
        return yes() if server.answers(patience=3) else no("two of them hold both threads")


@row("Slow senders of requests hold no thread")
def slow_senders(subject: Subject) -> Answer:
    """Two threads, and four clients that send half a head, then four that send half a body: the same question."""
    subject.needs(WSGI)
    seen = []
    for name, half in (
        ("heads", b"POST /size HTTP/1.1\r\nHost: localhost\r\n"),
        ("bodies", b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"),
    ):
        with subject.start(WSGI, threads=2) as server, contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(server.socket()).sendall(half)
            time.sleep(0.3)  # they have come
            if not server.answers(patience=3):
                seen.append(name)
    if not seen:
        return yes()
    text = f"slow {' and '.join(seen)} hold threads"
    return partly(text) if len(seen) == 1 else no(text)
