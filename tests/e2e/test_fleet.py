"""
Workers that know of each other: shares, turns, and one answer for the whole group.

What a worker does is read from its metrics, as an operator would read it.
"""

from __future__ import annotations

import collections
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.e2e.client import Client
from tests.e2e.harness import APPS, Gunicorn, Servers, wait_gone
from tests.process.test_endpoints import Family, parse, value

pytestmark = pytest.mark.e2e

METRICS = {"HYBRIDWORKER_METRICS_PATH": "/metrics"}
HEALTH = {"HYBRIDWORKER_HEALTH_PATH": "/health"}

#: No connection ends by itself.
KEPT = ("--keep-alive", "300", "--graceful-timeout", "60")


def metrics(client: Client) -> dict[str, Family]:
    """What a worker says of the group."""
    return parse(client.request("/metrics").text)


def states(families: dict[str, Family]) -> dict[str, str]:
    """Pid -> state of every living worker."""
    samples = families["hybridworker_worker_info"].samples
    return {dict(labels)["pid"]: dict(labels)["state"] for _, labels in samples}


def ask(server: Gunicorn) -> dict[str, Family]:
    """The metrics, on a connection of their own."""
    return parse(server.request("/metrics").text)


def wait_metrics(server: Gunicorn, condition: Callable[[dict[str, Family]], bool], what: str) -> dict[str, Family]:
    """Wait until ``condition`` holds for the metrics, which are at most a second old."""
    return server.wait_for(lambda: families if condition(families := ask(server)) else None, what)


def wait_states(server: Gunicorn, workers: int) -> dict[str, str]:
    """Wait until there are so many workers, and all of them are ready; returns their states."""
    families = wait_metrics(
        server,
        lambda families: list(states(families).values()) == ["ready"] * workers,
        f"{workers} workers to be ready",
    )
    return states(families)


@contextmanager
def clients(server: Gunicorn, count: int) -> Iterator[list[Client]]:
    """Connections that stay open."""
    with ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


@contextmanager
def one_of_each(server: Gunicorn, workers: int) -> Iterator[dict[str, Client]]:
    """A connection to every worker, by its pid."""
    with ExitStack() as stack:
        found: dict[str, Client] = {}

        def complete() -> bool:
            client = stack.enter_context(server.connect())
            found.setdefault(client.request("/pid").text, client)
            return len(found) == workers

        server.wait_for(complete, "a connection to each worker")
        yield found


# -- a fair share


@pytest.mark.parametrize("workers", [2, 4])
def test_a_burst_of_kept_alive_connections_is_shared_fairly(gunicorn: Servers, workers: int) -> None:
    """64 of them: the largest share is the smallest and two at most, where the kernel alone gives 63 and 1."""
    server = gunicorn("asgi:app", *KEPT, env=METRICS, workers=workers)
    wait_states(server, workers)

    def fair() -> bool:
        # On a machine that is busy with something else a worker may get no time at all for a while.
        with clients(server, 64) as connections:
            for client in connections:
                client.start("/pid")
            shares = collections.Counter(client.response().text for client in connections)
        seen.append(sorted(shares.values()))
        return len(shares) == workers and max(shares.values()) - min(shares.values()) <= 2

    seen: list[list[int]] = []
    assert any(fair() for _ in range(3)), seen


def test_a_blocked_sibling_delays_no_new_connection(gunicorn: Servers) -> None:
    """Whoever else is there takes them all, however much it carries already."""
    server = gunicorn("asgi:app", *KEPT, "--timeout", "0", env=METRICS, workers=2)
    wait_states(server, 2)
    with clients(server, 20) as connections:
        pids = [client.request("/pid").text for client in connections]
        blocked = connections[0]
        blocked.start("/block-loop/held")
        server.wait_log("gate held reached")
        for client, pid in zip(connections, pids, strict=True):
            if pid == pids[0] and client is not blocked:
                client.close()  # so that the blocked one would be the one to take the next
        for _ in range(50):
            assert server.request("/pid").text not in ("", pids[0])
        server.open("held")
        assert blocked.response().text == "the loop was blocked"


def test_workers_that_come_and_go_share_too(gunicorn: Servers) -> None:
    """TTIN: the first was alone until then. TTOU: nobody waits for the one that left."""
    server = gunicorn("asgi:app", *KEPT, env=METRICS)
    (oldest,) = wait_states(server, 1)
    server.signal(signal.SIGTTIN)
    wait_states(server, 2)
    with clients(server, 16) as connections:
        assert len({client.request("/pid").text for client in connections}) == 2
    server.signal(signal.SIGTTOU)
    assert oldest not in wait_states(server, 1)


def test_a_worker_that_was_killed_is_replaced_in_its_slot(gunicorn: Servers) -> None:
    """What it had counted stays, what it carried does not."""
    server = gunicorn("asgi:app", *KEPT, env=METRICS, workers=2, dirty=True)
    pids = wait_states(server, 2)
    for _ in range(10):
        assert server.request("/status/404").status == 404
    wait_metrics(server, lambda families: value(families, "hybridworker_requests_total", status="4xx") == 10, "10")
    killed = min(pids)
    server.signal(signal.SIGKILL, int(killed))
    server.wait_workers(lambda found: int(killed) not in found and len(found) == 2, "another worker")
    assert killed not in wait_states(server, 2)
    families = ask(server)
    assert value(families, "hybridworker_requests_total", status="4xx") == 10
    assert {slot for _, labels in families["hybridworker_worker_requests_total"].samples for slot in labels[:1]} == {
        ("slot", "0"),
        ("slot", "1"),
    }


# -- handing over, and taking turns


def test_the_old_workers_serve_while_the_new_ones_import(gunicorn: Servers) -> None:
    """HUP: they go on accepting until a new one is ready, and leave then, with nothing to be seen from outside."""
    server = gunicorn("slow_import:app", *KEPT, env={**METRICS, **HEALTH}, workers=2)
    old = set(wait_states(server, 2))
    server.open("slow")
    server.signal(signal.SIGHUP)
    server.wait_log("gate import reached", 2)
    wait_metrics(
        server,
        lambda families: sorted(states(families).values()) == ["booting", "booting", "retiring", "retiring"],
        "both to be told",
    )
    for _ in range(20):
        assert server.request("/pid").text in old
        assert server.request("/health").status == 200
    server.open("import")
    new = wait_states(server, 2)
    assert not old & set(new)
    assert server.request("/pid").text in new


def test_a_blocked_worker_that_is_told_to_go_relieves_nobody(gunicorn: Servers) -> None:
    """It accepts, as far as anybody can see, but was told to go as well, and cannot say so."""
    server = gunicorn("slow_import:app", *KEPT, "--timeout", "0", env=METRICS, workers=2)
    wait_states(server, 2)
    with one_of_each(server, 2) as connections:
        older, younger = sorted(connections, key=int)
        connections[younger].start("/block-loop/held")
        server.wait_log("gate held reached")
        server.open("slow")
        server.signal(signal.SIGHUP)
        server.wait_log("gate import reached", 2)
        wait_metrics(server, lambda families: states(families)[older] == "retiring", "the older to be told")
        name = "hybridworker_requests_total"
        for _ in range(2):  # from one tick of the older to the next at least
            before = value(ask(server), name, status="2xx")
            for _ in range(20):
                assert server.request("/pid").text == older
            wait_metrics(server, lambda families, before=before: value(families, name, status="2xx") > before, "a tick")  # type: ignore[misc]
        server.open("import")
        server.wait_log("startup in", 4)
        server.open("held")
        assert connections[younger].response().text == "the loop was blocked"
    assert not {older, younger} & set(wait_states(server, 2))


def test_a_worker_that_is_told_to_go_while_it_imports_is_not_waited_for(gunicorn: Servers) -> None:
    """TERM to the whole group in the middle of a reload: the old workers leave, though the new ones never got ready."""
    server = gunicorn("slow_import:app", *KEPT, env=METRICS, workers=2)
    old = wait_states(server, 2)
    server.open("slow")
    server.signal(signal.SIGHUP)
    server.wait_log("gate import reached", 2)
    importing = set(server.worker_pids()) - {int(pid) for pid in old}
    for pid in importing:
        server.signal(signal.SIGTERM, pid)
    server.wait_workers(lambda pids: not {int(pid) for pid in old} & set(pids), "the old workers to leave")
    server.open("import")


def test_one_worker_recycles_at_a_time(gunicorn: Servers) -> None:
    """Four with the same ``max_requests`` and no jitter wish it at once: never are two of them away."""
    server = gunicorn("asgi:app", "--max-requests", "10", env=METRICS, workers=4)
    first = wait_states(server, 4)
    seen: set[str] = set()

    def replaced() -> bool:
        """Ask all of them for more than they want to answer, and look how many are there."""
        for _ in range(8):
            assert server.request("/pid").status == 200
        now = states(ask(server))
        seen.update(now)
        accepting = [state for state in now.values() if state in ("ready", "wishing")]
        assert len(accepting) >= 3, now
        return len(seen - set(first)) >= 3

    server.wait_for(replaced, "three workers to be replaced")
    away = re.findall(r"^(startup|shutdown) in \d+", server.log(), re.MULTILINE)[4:]
    assert away[: len(away) // 2 * 2] == ["shutdown", "startup"] * (len(away) // 2)


# -- metrics


def test_any_worker_answers_for_the_group_and_a_reload_takes_nothing_away(gunicorn: Servers) -> None:
    """Counters never fall, not even while the new workers boot."""
    server = gunicorn("asgi:app", *KEPT, env=METRICS, workers=2)
    wait_states(server, 2)
    with one_of_each(server, 2) as connections:
        for client in connections.values():
            for _ in range(5):
                assert client.request("/status/404").status == 404
        for pid, client in connections.items():
            server.wait_for(
                lambda client=client: value(metrics(client), "hybridworker_requests_total", status="4xx") == 10,  # type: ignore[misc]
                f"{pid} to count the answers of both",
            )
            families = metrics(client)
            assert value(families, "hybridworker_workers") == 2
            assert value(families, "hybridworker_connections") >= 2
            assert value(families, "hybridworker_worker_resident_memory_bytes", slot="0") > 10**6
    old = set(states(ask(server)))
    server.signal(signal.SIGHUP)

    def renewed() -> bool:
        families = ask(server)
        assert value(families, "hybridworker_requests_total", status="4xx") == 10
        return list(states(families).values()) == ["ready"] * 2 and not old & set(states(families))

    server.wait_for(renewed, "both to be replaced")
    assert value(ask(server), "hybridworker_recycles_total", reason="term") == 2


def test_the_time_in_the_queue_and_the_threads_are_measured(gunicorn: Servers) -> None:
    """One thread and two calls: the second has waited."""
    server = gunicorn("wsgi:app", *KEPT, "--threads", "1", env=METRICS)
    with server.connect() as first, server.connect() as second:
        first.start("/at-gate/first")
        server.wait_log("gate first reached")
        second.start("/pid")
        families = wait_metrics(
            server, lambda families: value(families, "hybridworker_calls_queued") == 1, "a call to wait"
        )
        assert value(families, "hybridworker_threads_busy") == 1
        assert value(families, "hybridworker_worker_threads") == 1
        server.open("first")
        assert first.response().status == second.response().status == 200
    name = "hybridworker_queue_seconds"
    families = wait_metrics(server, lambda families: families[name].samples[f"{name}_count", ()] == 2, "two calls")
    assert families[name].samples[f"{name}_sum", ()] > 0.001


def test_a_second_master_has_a_group_of_its_own(gunicorn: Servers) -> None:
    """USR2: the workers of either know nothing of the other's, and all of them serve."""
    server = gunicorn("asgi:app", *KEPT, env=METRICS)
    wait_states(server, 1)
    server.signal(signal.SIGUSR2)
    master = int(server.wait_log(r"Listening at: \S+ \((\d+)\)$", 2)[1])
    server.wait_log("startup in", 2)
    with one_of_each(server, 2) as connections:
        for pid, client in connections.items():
            assert states(metrics(client)) == {pid: "ready"}
    server.signal(signal.SIGTERM, master)
    wait_gone(master)


# -- where there is no board


def test_without_shared_memory_every_worker_serves_alone(gunicorn: Servers) -> None:
    """One warning, from the master."""
    server = gunicorn("asgi:app", *KEPT, "--config", str(APPS / "no_memory.conf.py"), env=METRICS, workers=2)
    server.wait_log("startup in", 2)
    with one_of_each(server, 2) as connections:
        for client in connections.values():
            assert value(metrics(client), "hybridworker_workers") == 1
    assert server.log().count("There is no shared memory") == 1
    server.signal(signal.SIGHUP)
    server.wait_log("startup in", 4)
    assert server.request("/pid").status == 200
    assert server.log().count("There is no shared memory") == 1


def test_a_worker_too_many_sees_the_others(gunicorn: Servers) -> None:
    """The log says so, and its metrics are those of the group and its own; the others do not know of it."""
    server = gunicorn("asgi:app", *KEPT, "--config", str(APPS / "one_slot.conf.py"), env=METRICS, workers=2)
    server.wait_log("startup in", 2)
    server.wait_log("There are too many workers: the others do not know of the last ones")
    with one_of_each(server, 2) as connections:
        (known,), (*both,) = sorted((states(metrics(client)) for client in connections.values()), key=len)
        assert {known, *both} == set(connections)
        assert known in both
    server.signal(signal.SIGTTIN)
    server.wait_log("startup in", 3)
    assert server.log().count("There are too many workers") == 1


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_probes_are_in_no_counter_of_requests(gunicorn: Servers, app: str) -> None:
    """Neither health, whose 503s of a drain would raise an alarm, nor the metrics themselves; nor in the summary."""
    server = gunicorn(app, *KEPT, env={**METRICS, **HEALTH})
    for _ in range(5):
        assert server.request("/health").status == 200
    assert server.request("/").status == 200
    families = wait_metrics(
        server, lambda families: value(families, "hybridworker_requests_total", status="2xx") >= 1, "a request"
    )
    # The tick of the one request came after the answers that would have been counted before it.
    assert value(families, "hybridworker_requests_total", status="2xx") == 1
    assert server.stop() == 0
    assert "Served 1 request: " in server.log()


# -- health


def test_health_is_neither_logged_nor_counted(gunicorn: Servers) -> None:
    """However often a balancer asks."""
    server = gunicorn("asgi:app", "--max-requests", "3", "--access-logfile", "-", env=HEALTH)
    (worker,) = server.worker_pids()
    for _ in range(10):
        assert server.request("/health").text == "ok\n"
    with server.connect() as client:
        assert client.request("/pid").text == client.request("/pid").text == str(worker)
    server.wait_log('"GET /pid HTTP/1.1" 200', 2)
    assert "/health" not in server.log()
    assert "Autorestarting" not in server.log()


def test_a_full_worker_is_unhealthy(gunicorn: Servers) -> None:
    """``worker_connections`` counts the connection that asks."""
    server = gunicorn("asgi:app", *KEPT, "--worker-connections", "2", env=HEALTH)
    with server.connect() as client:
        server.wait_for(lambda: client.request("/health").status == 200, "room")
        with server.connect() as other:
            assert other.request("/pid").status == 200
            assert client.request("/health").text == "worker_connections is reached\n"
        server.wait_for(lambda: client.request("/health").status == 200, "room again")


def test_a_queue_that_stands_still_is_unhealthy(gunicorn: Servers) -> None:
    """All threads are taken and nothing moves; the loop answers all the same."""
    server = gunicorn("wsgi:app", *KEPT, "--threads", "1", env=HEALTH)
    with server.connect() as first, server.connect() as second:
        first.start("/at-gate/stuck")
        server.wait_log("gate stuck reached")
        second.start("/pid")
        server.wait_for(lambda: server.request("/health").status == 503, "the queue to stand still")
        assert server.request("/health").text == "the queue of WSGI calls does not move\n"
        server.open("stuck")
        assert first.response().status == second.response().status == 200
        assert server.request("/health").status == 200


@pytest.mark.parametrize("app", ["asgi:app", "wsgi:app"])
def test_the_drain_delay_keeps_accepting_with_health_503(gunicorn: Servers, app: str) -> None:
    """Balancers notice, and whoever comes meanwhile is served as ever."""
    env = {**HEALTH, "HYBRIDWORKER_DRAIN_DELAY": "30"}
    server = gunicorn(app, *KEPT, env=env)
    (worker,) = server.worker_pids()
    assert server.request("/health").status == 200
    server.signal(signal.SIGTERM, worker)
    server.wait_for(lambda: server.request("/health").status == 503, "health to say so")
    assert server.request("/health").text == "draining\n"
    with server.connect() as client:
        for _ in range(3):
            response = client.request("/pid")
            assert (response.text, response.header("Connection")) == (str(worker), None)
        assert server.stop(signal.SIGQUIT) == 0


def test_the_whole_group_says_that_it_leaves(gunicorn: Servers) -> None:
    """TERM to the master with two workers: neither counts on the other."""
    env = {**HEALTH, "HYBRIDWORKER_DRAIN_DELAY": "30"}
    server = gunicorn("asgi:app", *KEPT, env=env, workers=2)
    with one_of_each(server, 2) as connections:
        server.signal(signal.SIGTERM)
        for pid, client in connections.items():
            server.wait_for(lambda client=client: client.request("/health").status == 503, f"{pid} to say so")  # type: ignore[misc]
        for pid in connections:
            server.signal(signal.SIGQUIT, int(pid))
        assert server.wait() == 0


def test_the_drain_delay_ends_by_itself(gunicorn: Servers) -> None:
    """It is a part of the drain, and the summary tells how long it was."""
    server = gunicorn("asgi:app", "--graceful-timeout", "60", env={"HYBRIDWORKER_DRAIN_DELAY": "1"})
    assert server.request("/pid").status == 200
    assert server.stop() == 0
    server.wait_log(r"Served \d+ requests?: .* [1-9]\d*\.\d s to hand over")


def test_the_drain_delay_is_skipped_where_no_balancer_looks(gunicorn: Servers) -> None:
    """On unix sockets only, and by a worker that recycles itself; the log tells the phases."""
    env = {"HYBRIDWORKER_DRAIN_DELAY": "25"}
    options = ("--graceful-timeout", "60", "--max-requests", "1")
    server = gunicorn("asgi:app", *options, "--bind", "unix:socket", env=env, ready=False)
    server.wait_log("startup in")
    with server.connect(f"unix:{server.directory}/socket") as client:
        assert client.request("/pid").status == 200
    tcp = gunicorn("asgi:app", *options, env=env)
    assert tcp.request("/pid").status == 200
    tcp.wait_log(r"Served \d+ requests?: .* 0\.\d s to hand over")
    server.wait_log(r"Served \d+ requests?: .* 0\.\d s to hand over")
    server.wait_log("startup in", 2)
    assert server.stop() == 0
    server.wait_log(r"Served \d+ requests?: .* 0\.\d s to hand over", 2)
    assert tcp.stop(signal.SIGQUIT) == 0
