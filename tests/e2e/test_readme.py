"""What README.rst says of whole gunicorns and no other test looks at."""

from __future__ import annotations

import os
import re
import textwrap
import time
from pathlib import Path

import pytest

from tests.e2e.harness import APPS, ROOT, Servers

pytestmark = pytest.mark.e2e


def code(heading: str) -> str:
    """The example of code under a heading of the README."""
    _, _, section = (ROOT / "README.rst").read_text(encoding="utf-8").partition(f"\n{heading}\n")
    block = re.search(r"::\n\n((?:    .*\n|\n)+)", section)
    assert block is not None
    return textwrap.dedent(block[1])


@pytest.mark.parametrize("how", ["-k", "config"])
def test_a_subclass(gunicorn: Servers, tmp_path: Path, how: str) -> None:
    """The one of the README, by its path and by the configuration file."""
    source = code("Subclassing")
    if how == "-k":
        package = tmp_path / "my_package"
        package.mkdir()
        (package / "workers.py").write_text(source)
        path = os.pathsep.join([str(ROOT), str(APPS), str(tmp_path)])
        server = gunicorn("asgi:app", worker="my_package.workers.Worker", env={"PYTHONPATH": path})
    else:
        config = tmp_path / "gunicorn.conf.py"
        config.write_text(f'{source}\nworker_class = Worker\nbind = "127.0.0.1:0"\ncontrol_socket_disable = True\n')
        server = gunicorn.command(["-c", str(config), "asgi:app"], tmp_path)
    server.wait_log(rf"ASGI 3 in process {server.worker_pids()[0]}$")
    assert server.request("/pid").text == str(server.worker_pids()[0])


@pytest.mark.parametrize("option", ["--preload", "--check-config"])
def test_where_the_master_loads_the_application_the_error_is_gunicorns(gunicorn: Servers, option: str) -> None:
    """A traceback and exit code 1, not a line of ours."""
    server = gunicorn("no_such_module:app", option, ready=False, dirty=True)
    assert server.wait() == 1
    assert server.log().rstrip().endswith("ModuleNotFoundError: No module named 'no_such_module'")


def test_check_config_does_not_look_at_variables(gunicorn: Servers) -> None:
    """It ends well, whatever they say."""
    server = gunicorn("asgi:app", "--check-config", env={"HYBRIDWORKER_NO_SUCH": "1"}, ready=False)
    assert server.wait() == 0


def test_a_full_worker_closes_the_longest_idle_connection(gunicorn: Servers) -> None:
    """``worker_connections``: the newcomer has its answer within about two seconds."""
    server = gunicorn("asgi:app", "--worker-connections", "2", "--keep-alive", "60")
    with server.connect() as oldest, server.connect() as other:
        for client in (oldest, *[other] * 50):  # so many that the loop's clock, of milliseconds, goes on
            assert client.request("/pid").status == 200
        begun = time.monotonic()
        assert server.request("/pid").status == 200
        assert time.monotonic() - begun < 10  # and not the 60 s of the keep-alive
        assert oldest.at_end()
        assert other.request("/pid").status == 200
