"""
Threads that are lent to Django under ASGI, with a real database.

What a page sees must be the same with lending and without it, and that is asked of both. What differs is
how many threads and connections there are.
"""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import Gunicorn, Servers

pytest.importorskip("django", reason="the extra hybridworker[examples] is not installed")
pytestmark = pytest.mark.e2e

ROWS = 60

Start = Callable[..., Gunicorn]
Begin = Callable[[Gunicorn, str], Client]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Sends a request, whose answer is read later."""
    with ExitStack() as clients:

        def begin(server: Gunicorn, path: str) -> Client:
            client = clients.enter_context(server.connect())
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return client

        yield begin


@pytest.fixture
def start(gunicorn: Servers) -> Start:
    """Starts the project; ``env`` are further variables."""

    def start(*args: str, mode: str = "auto", env: dict[str, str] | None = None, **options: Any) -> Gunicorn:
        variables = {"HYBRIDWORKER_LEND_THREADS": mode, "HYBRIDWORKER_METRICS_PATH": "/metrics", **(env or {})}
        # Without lending Django's connections are never closed, and from Python 3.13 on sqlite3 complains of it.
        dirty = options.pop("dirty", False) or mode == "off"
        return gunicorn("django_lent:asgi", *args, env=variables, dirty=dirty, **options)

    return start


BOTH = pytest.mark.parametrize("mode", ["on", "off"])


def sample(server: Gunicorn, name: str) -> float | None:
    """The value of a metric without labels, as of the last second; None where there is no such metric."""
    found = re.search(rf"^hybridworker_{name} (\S+)$", server.request("/metrics").text, re.M)
    return None if found is None else float(found[1])


# -- what is lent


def test_threads_and_connections_outlive_the_requests(start: Start) -> None:
    """The same thread serves one request after the other, with the connection that it has."""
    server = start()
    server.wait_log(r"Threads are lent to synchronous code of the ASGI application, as many as are needed$")
    for _ in range(5):
        assert server.request("/query").text == str(ROWS)
    # The end of a call comes after its response: the next request may find its thread still out.
    name, lent, connections = json.loads(server.request("/threads").text).values()
    assert name in lent and connections <= len(lent) <= 2


def test_off_is_asgiref_alone(start: Start) -> None:
    """A thread and a connection for each request, and no word of it."""
    server = start(mode="off")
    for _ in range(5):
        assert server.request("/query").text == str(ROWS)
    assert '"lent": [], "connections": 5}' in server.request("/threads").text
    assert "Threads are lent" not in server.log()
    assert sample(server, "threads_lent") is None


def test_no_more_threads_than_there_may_be(start: Start, begin: Begin) -> None:
    """Calls in excess wait, each gets its answer, and the metrics show both."""
    server = start("--threads", "2")
    server.wait_log(r"Threads are lent to synchronous code of the ASGI application, at most 2 at once$")
    held = [begin(server, f"/query-blocks/{name}") for name in "ab"]
    server.wait_log(r"gate \w reached", 2)
    queued = begin(server, "/query")
    server.wait_for(lambda: sample(server, "lent_calls_queued") == 1, "the call to queue, or to be served beyond")
    server.wait_for(lambda: sample(server, "threads_lent") == 2, "two threads to be lent")
    for name in "ab":
        server.open(name)
    assert [client.response().text for client in (*held, queued)] == [str(ROWS)] * 3
    server.wait_for(lambda: sample(server, "threads_lent") == 0, "the threads to come back")
    with ThreadPoolExecutor(12) as clients:
        assert {page.text for page in clients.map(server.request, ["/query"] * 60)} == {str(ROWS)}
    assert sample(server, "lent_queue_seconds_count") is not None


def test_calls_that_wait_for_each_other_do_not_lock(start: Start) -> None:
    """Each of as many calls as there are threads needs one more: the others get theirs beyond the bound."""
    server = start("--threads", "2")
    with ThreadPoolExecutor(2) as clients:
        pages = list(clients.map(server.request, ["/ask-another"] * 2))
    assert [page.text for page in pages] == [f"the other said {ROWS}"] * 2
    server.wait_log(r"\[WARNING\] A call has waited 1 s for a lent thread and gets one beyond the 2 of --threads")
    beyond = server.wait_for(lambda: sample(server, "lent_beyond_total"), "the count of threads beyond the bound")
    assert 1 <= beyond <= 2
    assert server.log().count("beyond the 2 of --threads") == 1
    server.wait_for(lambda: server.request("/threads").text.count("lent-") <= 3, "the surplus thread to end")


def test_a_stream_holds_no_thread(start: Start, begin: Begin) -> None:
    """Behind a synchronous middleware that has asked the database, more streams are open than threads may be."""
    server = start("--threads", "2", env={"SYNC_MIDDLEWARE": "1"})
    streams = []
    for _ in range(6):
        stream = begin(server, "/events/open")
        stream.until(b"first\n")
        streams.append(stream)
    server.wait_log("gate open reached", 6)
    assert server.request("/query").text == str(ROWS)
    server.wait_for(lambda: sample(server, "threads_lent") == 0, "the threads to come back")
    assert sample(server, "lent_beyond_total") == 0
    server.open("open")
    assert all(b"last\n" in stream.rest() for stream in streams)


@pytest.mark.parametrize("age", ["0", "600"])
def test_a_stream_that_reads_from_the_database_keeps_its_thread(start: Start, begin: Begin, age: str) -> None:
    """Nobody else gets its connection, which would be closed under its cursor; afterwards it goes back."""
    server = start("--threads", "8", env={"CONN_MAX_AGE": age})
    stream = begin(server, "/export/go")
    server.wait_log("gate go reached")
    for _ in range(20):
        assert server.request("/query").text == str(ROWS)
    server.open("go")
    body = stream.response().text
    assert body == "".join(f"row {number}\n" for number in range(ROWS))
    server.wait_for(lambda: sample(server, "threads_lent") == 0, "the thread to come back")


def test_an_abandoned_transaction_harms_nobody(start: Start) -> None:
    """Its thread ends with its call, and the connection, so the database is not locked and shows nothing of it."""
    server = start("--threads", "4")
    assert server.request("/abandon").text == str(ROWS + 1)
    for _ in range(4):
        assert server.request("/query").text == str(ROWS)
        assert server.request("/rolled-back").text == f"{ROWS} False"


# -- what is the same with and without


@BOTH
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_a_page_sees(start: Start, mode: str, loop: str) -> None:
    """One thread for each call, variables that go in and out and not to the next call, transactions, exceptions."""
    server = start("--threads", "3", "--asgi-loop", loop, mode=mode, dirty=True)
    fresh = '[["unset", "unset"], ["changed", "changed"], ["own", "own"]]'
    with ThreadPoolExecutor(4) as clients:
        for _ in range(3):
            assert {page.text for page in clients.map(server.request, ["/same-thread"] * 8)} == {"[true, true, true]"}
            assert {page.text for page in clients.map(server.request, ["/variables"] * 8)} == {fresh}
            assert server.request("/rolled-back").text == f"{ROWS} False"
            assert server.request("/raises").status == 500
    server.open("go")
    streams = [server.request(f"/{path}/go").text for path in ("events", "export")]
    assert streams == ["first\nlast\n", "".join(f"row {number}\n" for number in range(ROWS))]


@BOTH
def test_a_task_that_outlives_its_request(start: Start, mode: str) -> None:
    """It has one thread for all of its synchronous code, also when others are busy."""
    server = start("--threads", "2", mode=mode)
    assert server.request("/late/one").text == "begun"
    assert server.request("/late/two").text == "begun"
    # What begins before the end of the call is in the thread of the call, and what follows is not.
    server.wait_for(lambda: sample(server, "requests_in_flight") == 0, "the end of both calls")
    server.open("one")
    server.open("two")
    assert server.request("/result/one").text == "True"
    assert server.request("/result/two").text == "True"
    assert server.request("/query").text == str(ROWS)


@BOTH
def test_a_client_that_leaves(start: Start, begin: Begin, mode: str) -> None:
    """The view is cancelled while its synchronous code runs; the thread serves others when that is done."""
    server = start("--threads", "2", mode=mode)
    with begin(server, "/cancelled/gone"):
        server.wait_log("gate gone reached")
    server.wait_log("gone was cancelled")
    assert server.request("/query").text == str(ROWS)
    server.open("gone")
    for _ in range(3):
        assert server.request("/query").text == str(ROWS)


@BOTH
def test_connections_that_do_not_persist(start: Start, mode: str) -> None:
    """With ``CONN_MAX_AGE=0`` each request makes one of its own."""
    server = start("--threads", "2", mode=mode, env={"CONN_MAX_AGE": "0"})
    for _ in range(5):
        assert server.request("/query").text == str(ROWS)
    assert '"connections": 5}' in server.request("/threads").text


# -- leaving, and what is reported


@BOTH
def test_the_worker_waits_for_synchronous_code(start: Start, begin: Begin, mode: str) -> None:
    """A request amid its synchronous code is finished before the worker leaves."""
    server = start("--graceful-timeout", "60", mode=mode)
    client = begin(server, "/query-blocks/leave")
    server.wait_log("gate leave reached")
    server.signal(signal.SIGTERM)
    server.wait_log("Handling signal: term")
    server.open("leave")
    assert client.response().text == str(ROWS)
    assert server.wait() == 0
    server.wait_log("1 finished while leaving, 0 cut")
    assert "Background work was cut" not in server.log()


def test_work_that_is_cut_is_named(start: Start, begin: Begin) -> None:
    """A thread that is still in synchronous code when the time is up."""
    server = start("--graceful-timeout", "2", dirty=True)  # Django leaves a task behind whose exception nobody sees
    with begin(server, "/query-blocks/never"):
        server.wait_log("gate never reached")
        server.signal(signal.SIGTERM)
        line = server.wait_log(r"\[WARNING\] Background work was cut: (.*)$")[1]
        assert line.startswith("thread lent-0 in block (gate.py:")
        assert server.wait() == 0


def test_the_report_names_the_thread(start: Start, begin: Begin) -> None:
    """USR2 says which request is in which thread, and shows none that is idle."""
    server = start()
    clients = [begin(server, f"/query-blocks/{name}") for name in "ab"]
    server.wait_log(r"gate \w reached", 2)
    server.open("a")
    assert clients[0].response().text == str(ROWS)
    server.signal(signal.SIGUSR2, server.worker_pids()[0])
    lent = server.wait_log(r"  GET /query-blocks/b, [\d.]+ s, in thread (lent-\d)$")[1]
    server.wait_log(rf"^Thread {lent}: GET /query-blocks/b$")
    server.wait_log(r"^    rows = Row\.objects\.count\(\)|^    gate\.block\(name\)")
    assert len(re.findall("^Thread lent-", server.log(), re.M)) == 1
    server.open("b")
    assert clients[1].response().text == str(ROWS)


def test_load_from_many_sides(start: Start) -> None:
    """Pages, streams and exceptions at once: every answer is whole, and no thread is lost."""
    server = start("--threads", "4", env={"SYNC_MIDDLEWARE": "1"}, dirty=True)
    server.open("go")
    paths = ["/query", "/events/go", "/export/go", "/raises", "/same-thread", "/rolled-back", "/variables"] * 12
    barrier = threading.Barrier(8)

    def client(number: int) -> list[int]:
        barrier.wait()
        return [server.request(path).status for path in paths[number::8]]

    with ThreadPoolExecutor(8) as clients:
        statuses = [status for answers in clients.map(client, range(8)) for status in answers]
    assert sorted(set(statuses)) == [200, 500] and statuses.count(500) == 12
    server.wait_for(lambda: sample(server, "threads_lent") == 0, "the threads to come back")
    assert server.request("/threads").text.count("lent-") <= 1 + 5
