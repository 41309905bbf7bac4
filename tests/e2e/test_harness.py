"""The harness itself, shown with a worker of gunicorn's own: what it promises to the other tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.client import Truncated
from tests.e2e.harness import ROOT, Servers, processes, servers, wait_gone

pytestmark = pytest.mark.e2e


def test_a_server_is_ready_when_the_factory_returns(gunicorn: Servers) -> None:
    """A request is answered, by one of as many workers as were asked for, and TERM ends with 0."""
    server = gunicorn("wsgi:app", "--threads", "4", worker="gthread", workers=2)
    response = server.request()
    assert (response.status, response.text) == (200, "Hello from WSGI")
    assert len(server.worker_pids()) == 2
    assert int(server.request("/pid").text) in server.worker_pids()
    answered: set[int] = set()

    def all_have_answered() -> bool:
        answered.add(int(server.request("/pid").text))
        return answered == set(server.worker_pids())

    server.wait_for(all_have_answered, "both workers to answer")  # a gthread that boots may miss TERM
    assert server.stop() == 0
    assert server.worker_pids() == []


def test_a_unix_socket_is_an_address(gunicorn: Servers, tmp_path: Path) -> None:
    """A server that is bound to a path is reached by it."""
    server = gunicorn("wsgi:app", "--bind", f"unix:{tmp_path}/s", worker="gthread")
    assert server.request().text == "Hello from WSGI"


def test_an_application_waits_at_its_gate(gunicorn: Servers) -> None:
    """A test decides when a request goes on."""
    server = gunicorn("wsgi:app", worker="gthread")
    with server.connect() as client:
        client.start("/head-then-gate/one")
        assert client.head()[0] == 200
        assert client.chunk() == b"first "
        server.wait_log("gate one reached")
        server.open("one")
        assert client.chunk() == b"last"


def test_an_error_in_the_log_fails_a_test_that_does_not_expect_it(tmp_path: Path) -> None:
    """Unless the server was declared dirty, a traceback does not pass unseen."""
    with pytest.raises(AssertionError, match="is in the log"), servers(lambda: tmp_path) as gunicorn:
        assert gunicorn("wsgi:app", worker="gthread").request("/raises").status == 500


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    """Workers whose master was killed are found, killed, and reported."""
    with pytest.raises(AssertionError, match="left behind"), servers(lambda: tmp_path) as gunicorn:
        server = gunicorn("wsgi:app", worker="gthread", workers=2)
        workers = server.worker_pids()
        os.kill(workers[0], signal.SIGSTOP)  # so that it cannot leave by itself when its parent is gone
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
    assert not [pid for pid in workers if pid in processes() and processes()[pid].alive]


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_a_server_does_not_outlive_tests_that_are_killed(tmp_path: Path) -> None:
    """No fixture ends it then."""
    program = (
        "import signal, sys\n"
        "from pathlib import Path\n"
        "from tests.e2e.harness import Servers\n"
        "server = Servers(lambda: Path(sys.argv[1]))('wsgi:app', worker='gthread')\n"
        "print(server.pid, *server.worker_pids(), flush=True)\n"
        "signal.pause()\n"
    )
    argv = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        pids = [int(pid) for pid in tests.stdout.readline().split()]
        tests.kill()
    assert len(pids) == 2
    for pid in pids:
        wait_gone(pid)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The assertion carries the log."""
    with pytest.raises(AssertionError, match="this module cannot be imported"):
        with servers(lambda: tmp_path) as gunicorn:
            gunicorn("raises_on_import:app", worker="gthread", dirty=True).request()


def test_a_response_that_is_cut_is_an_error(gunicorn: Servers) -> None:
    """The client never takes a truncated body for a whole one."""
    server = gunicorn("wsgi:app", worker="gthread", dirty=True)
    with server.connect() as client, pytest.raises(Truncated):
        client.request("/raises-after-body")
