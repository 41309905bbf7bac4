"""One worker of the group leads, whatever becomes of it, and each has a number of its own."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.harness import DEADLINE, ROOT, Gunicorn, Servers, wait_gone

pytestmark = pytest.mark.e2e


def jobs(server: Gunicorn) -> list[int]:
    """The pids of those that have done the job, in the order of time."""
    path = server.gates / "jobs"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = [line.split() for line in lines if line.count(" ") == 1 and line.rpartition(".")[1]]
    return [int(pid) for pid, _ in sorted(pairs, key=lambda pair: float(pair[1]))]


def leaders(server: Gunicorn) -> list[int]:
    """Who has led, one after another; nobody twice, which would be two at a time."""
    found = [pid for pid, _ in itertools.groupby(jobs(server))]
    assert len(found) == len(set(found)), found
    return found


def wait_leader(server: Gunicorn, *others: int) -> int:
    """Wait until somebody leads who is none of ``others``."""
    return server.wait_for(lambda: next(iter(set(jobs(server)[-1:]) - set(others)), None), "another leader")


def test_one_of_them_leads_through_a_reload(gunicorn: Servers) -> None:
    """The old one until it leaves, then a new one; each has a slot of its own all the while."""
    server = gunicorn("leader:app", workers=4)
    first = wait_leader(server)
    old = set(server.worker_pids())
    server.signal(signal.SIGHUP)
    server.wait_workers(lambda now: len(now) == 4 and not old & set(now), "all to be replaced")
    second = wait_leader(server, *old)
    assert leaders(server)[0] == first
    assert leaders(server)[-1] == second
    assert "at import: False" in server.log()
    assert "at import: True" not in server.log()
    assert "at startup: True" not in server.log()
    assert server.stop() == 0
    assert "at shutdown: True" not in server.log()
    assert "at shutdown: False True" in server.log()


def test_a_leader_that_is_killed_is_followed(gunicorn: Servers) -> None:
    """The kernel gives the lock up; so it is with a worker that is told to go alone."""
    server = gunicorn("leader:app", workers=2, dirty=True)
    first = wait_leader(server)
    server.signal(signal.SIGKILL, first)
    second = wait_leader(server, first)
    server.wait_workers(lambda now: len(now) == 2 and first not in now, "another worker")
    server.signal(signal.SIGTERM, second)
    third = wait_leader(server, first, second)
    assert leaders(server) == [first, second, third]


def test_a_single_worker_and_one_more_and_one_less(gunicorn: Servers) -> None:
    """TTOU sends the oldest away, which leads."""
    server = gunicorn("leader:app")
    first = wait_leader(server)
    server.signal(signal.SIGTTIN)
    server.wait_log("at startup", 2)
    server.wait_for(lambda: len(jobs(server)) > 20, "the job to be done again")
    assert leaders(server) == [first]
    server.signal(signal.SIGTTOU)
    second = wait_leader(server, first)
    assert leaders(server) == [first, second]


def test_an_upgrade_leads_when_the_old_master_has_gone(gunicorn: Servers) -> None:
    """USR2: not while its workers are there, nor while it is there alone."""
    server = gunicorn("leader:app", workers=2)
    first = wait_leader(server)
    old = set(server.worker_pids())
    server.signal(signal.SIGUSR2)
    master = int(server.wait_log(r"Listening at: \S+ \((\d+)\)$", 2)[1])
    server.wait_log("at startup", 4)
    before = len(jobs(server))
    server.wait_for(lambda: len(jobs(server)) > before + 300, "three seconds to pass")
    assert leaders(server) == [first]
    assert server.stop() == 0
    new = _wait_for_another(server, old)
    assert new not in old
    assert leaders(server)[-1] == new
    server.signal(signal.SIGTERM, master)
    wait_gone(master)


def _wait_for_another(server: Gunicorn, old: set[int]) -> int:
    """As :func:`wait_leader`, of a server whose first master has ended."""
    deadline = time.monotonic() + DEADLINE
    while not (found := set(jobs(server)[-1:]) - old):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.05)
    return found.pop()


def test_neither_the_master_nor_a_child_leads(gunicorn: Servers) -> None:
    """With ``--preload`` the import is the master's; a child that the leader forks is no worker."""
    server = gunicorn("leader:app", "--preload")
    wait_leader(server)
    server.wait_log("at import: False None False")
    assert json.loads(server.request("/child").text) == [False, None, False]
    pid, leads, number = json.loads(server.request("/").text)
    assert (pid, leads, number) == (server.worker_pids()[0], True, 0)


@pytest.mark.parametrize("workers", [2, 4])
def test_slots_are_small_and_unique(gunicorn: Servers, workers: int) -> None:
    """From 0 on, and the next worker takes the one of a worker that has ended."""
    server = gunicorn("leader:app", workers=workers, dirty=True)
    server.wait_log("at startup", workers)

    def numbers() -> dict[int, int]:
        found: dict[int, int] = {}

        def complete() -> bool:
            pid, _, number = json.loads(server.request("/").text)
            found[pid] = number
            return set(found) >= set(server.worker_pids())

        server.wait_for(complete, "every worker to answer")
        return {pid: found[pid] for pid in server.worker_pids()}

    first = numbers()
    assert sorted(first.values()) == list(range(workers))
    killed = max(first)
    server.signal(signal.SIGKILL, killed)
    server.wait_workers(lambda now: len(now) == workers and killed not in now, "another worker")
    assert sorted(numbers().values()) == list(range(workers))


def test_outside_of_a_worker(tmp_path: Path) -> None:
    """Alone, nobody can know better, and nothing of a server is imported."""
    program = (
        "import sys\n"
        "from hybridworker import is_leaving, leading, slot\n"
        "assert (leading(), slot(), is_leaving()) == (True, None, False)\n"
        "assert not {'gunicorn', 'uvloop', 'httptools'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)
