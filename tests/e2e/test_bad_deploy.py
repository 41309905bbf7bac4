"""
A reload with code that cannot be loaded, or cannot start, harms nobody.

The old workers go on, under load, and the next reload with good code replaces them all.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import APPS, ROOT, Gunicorn, Servers, wait_gone
from tests.e2e.programs import Programs, free_port
from tests.e2e.test_recycling import Load

pytestmark = pytest.mark.e2e

ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        {startup}
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        return await send({{"type": "lifespan.shutdown.complete"}})
    body = b"{version}"
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}})
    await send({{"type": "http.response.body", "body": body}})
"""

WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len("{version}")))])
    return [b"{version}"]
"""

FAILED = '\n        return await send({{"type": "lifespan.startup.failed", "message": "no database"}})'


class Site:
    """A site whose code is a file, and how it is deployed."""

    def __init__(
        self, gunicorn: Servers, folder: Path, workers: int, *args: str, code: str = ASGI, bind: str | None = None
    ) -> None:
        self.bind = bind
        self.code, self.folder, self.workers = code, folder, workers
        self.config = folder / "conf.py"
        self.config.write_text("")
        self.write("one")
        options = ("--config", str(self.config), "--pythonpath", str(folder), *args)
        environment = {"PYTHONDONTWRITEBYTECODE": "1"}  # two versions may be written within one second
        self.server: Gunicorn = gunicorn(
            "site_code:app",
            *options,
            workers=workers,
            dirty=True,
            ready=bind is None,
            env={**environment, "HYBRIDWORKER_HEALTH_PATH": "/h", "HYBRIDWORKER_METRICS_PATH": "/metrics"},
        )
        self.server.wait_log("Serving ", workers)
        # All of them: a worker that is told to go leaves when a younger one comes, be it told to go as well.
        self.server.wait_for(self.all_accept, "all workers to accept")
        self.answers("one")

    def all_accept(self) -> bool:
        """Whether nobody boots any more."""
        with self.server.connect(self.bind) as client:
            metrics = client.request("/metrics", headers="Connection: close\r\n").text
        return metrics.count('state="ready"') == self.workers

    def write(self, version: str, startup: str = "", before: str = "") -> None:
        """Deploy a version."""
        text = before + self.code.replace("{startup}", startup or "pass").format(version=version)
        (self.folder / "site_code.py").write_text(text)

    def answers(self, version: str) -> None:
        """Wait until this version answers."""
        self.server.wait_for(lambda: self.ask() == version, f"version {version} to answer")

    def ask(self) -> str:
        """One answer."""
        with self.server.connect(self.bind) as client:
            return client.request(headers="Connection: close\r\n").text

    def reload(self) -> None:
        self.server.signal(signal.SIGHUP)

    def wait_only(self, pids: set[int]) -> None:
        """Wait until these are all the workers."""
        self.server.wait_workers(lambda now: set(now) == pids, f"the workers to be {pids}")

    def mend(self, old: set[int]) -> None:
        """Deploy good code: it replaces everybody."""
        self.config.write_text("")
        self.write("two")
        self.reload()
        self.server.wait_workers(lambda now: len(now) == self.workers and not old & set(now), "all to be replaced")
        self.answers("two")


BREAKAGES: dict[str, tuple[str, Callable[[Site], None]]] = {
    "syntax": (r"SyntaxError: .*", lambda site: site.write("bad", before="def (:\n")),
    "import": (
        r"ModuleNotFoundError: No module named 'nowhere'",
        lambda site: site.write("bad", before="import nowhere\n"),
    ),
    "attribute": (r"site_code:app: Failed to find attribute 'app' in 'site_code'.*", lambda site: _without_app(site)),
    "exit": (r"sys\.exit\(1\)", lambda site: site.write("bad", before="import sys\nsys.exit(1)\n")),
    "startup": (r"Application startup failed: no database", lambda site: site.write("bad", startup=FAILED)),
    "variable": (
        r".*HYBRIDWORKER_MAX_RSS='much' must be a whole number of MiB, or 0 for off",
        lambda site: _wrong_variable(site),
    ),
}


def _without_app(site: Site) -> None:
    (site.folder / "site_code.py").write_text("application = None\n")


def _wrong_variable(site: Site) -> None:
    site.config.write_text('raw_env = ["HYBRIDWORKER_MAX_RSS=much"]\n')


def refused(site: Site, reason: str) -> None:
    """Deploy again, and wait until the old workers have seen that nothing comes of it."""
    site.reload()
    line = rf"\[ERROR\] This worker cannot boot \((?:AppImportError: )?{reason}\): the old workers go on; mend it and"
    site.server.wait_log(line, site.workers)
    site.server.wait_log("This worker goes on, because those that were to replace it could not boot", site.workers)


@pytest.mark.parametrize(
    ("breakage", "workers"),
    [*((breakage, 2) for breakage in BREAKAGES), ("syntax", 1), ("startup", 1), ("import", 4), ("startup", 4)],
)
def test_a_bad_deploy_loses_no_request(gunicorn: Servers, tmp_path: Path, breakage: str, workers: int) -> None:
    """Under load: nothing is refused or lost, the same workers go on, and good code replaces all of them."""
    site = Site(gunicorn, tmp_path, workers)
    old = set(site.server.worker_pids())
    reason, deploy = BREAKAGES[breakage]
    with Load(site.server.port) as load:
        deploy(site)
        refused(site, reason)
        site.wait_only(old)
        before = load.count
        site.server.wait_for(lambda: load.count > before + 50, "the load to go on")
        assert site.server.request("/h").status == 200
        site.mend(old)
    assert load.lost == []
    assert {answer.rpartition(" ")[2] for answer in load.answers} == {"200"}
    assert site.server.stop() == 0


def test_wsgi_and_a_second_bad_deploy(gunicorn: Servers, tmp_path: Path) -> None:
    """The rules are the same for both interfaces, and for every attempt."""
    site = Site(gunicorn, tmp_path, 2, "--threads", "2", code=WSGI)
    old = set(site.server.worker_pids())
    with Load(site.server.port) as load:
        BREAKAGES["import"][1](site)
        for attempt in (1, 2):
            site.reload()
            site.server.wait_log("This worker goes on", 2 * attempt)
            site.wait_only(old)
        site.mend(old)
    assert load.lost == []


@pytest.mark.parametrize("deploys", [("", "import nowhere\n"), ("import nowhere\n", "")], ids=["good bad", "bad good"])
def test_a_second_deploy_amid_the_boots_of_the_first(
    gunicorn: Servers, tmp_path: Path, deploys: tuple[str, str]
) -> None:
    """Nothing is lost, whichever of them is bad, and the next good one replaces everybody."""
    site = Site(gunicorn, tmp_path, 4)
    old = set(site.server.worker_pids())
    with Load(site.server.port) as load:
        for number, before in enumerate(deploys, 1):
            site.write("good", before=before)
            site.reload()
            site.server.wait_log("Handling signal: hup", number)
        if deploys[1]:
            site.server.wait_log("This worker goes on")
        else:
            site.server.wait_workers(lambda now: len(now) == 4 and not old & set(now), "all to be replaced")
            site.answers("good")
        site.mend(set(site.server.worker_pids()))
    assert load.lost == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_real_stop_amid_a_bad_deploy(gunicorn: Servers, tmp_path: Path, number: signal.Signals) -> None:
    """The master and its workers end as ever, although the old ones had been told to go before, and stayed."""
    site = Site(gunicorn, tmp_path, 2, "--graceful-timeout", "35")
    site.write("bad", before="import nowhere\n")
    site.reload()
    site.server.wait_log("This worker cannot boot")
    begun = time.monotonic()
    assert site.server.stop(number) == 0
    assert time.monotonic() - begun < 20  # of 35 that a worker has which does not notice


def test_a_worker_that_dies_with_bad_code_on_the_disk_is_tried_again(gunicorn: Servers, tmp_path: Path) -> None:
    """While the others serve, again and again; when the code is mended, it comes by itself."""
    site = Site(gunicorn, tmp_path, 2)
    first, second = site.server.worker_pids()
    with Load(site.server.port, b"/") as load:
        site.write("bad", before="import nowhere\n")
        # TERM and not KILL, so that no request of the load is lost with it.
        site.server.signal(signal.SIGTERM, first)
        site.server.wait_log("This worker cannot boot", 3)
        assert second in site.server.worker_pids()
        site.write("one")
        site.server.wait_for(lambda: site.server.log().count("Serving ") == 3, "the third worker to serve")
    assert load.lost == []
    assert re.search(r"exited with code 255", site.server.log())
    assert site.server.stop() == 0


def test_nobody_recycles_while_nobody_can_boot(gunicorn: Servers, tmp_path: Path) -> None:
    """A worker that is alone and has had its requests waits for better code, instead of leaving nobody."""
    site = Site(gunicorn, tmp_path, 1, "--max-requests", "40")
    old = set(site.server.worker_pids())
    site.write("bad", before="import nowhere\n")
    site.reload()
    site.server.wait_log("This worker goes on")
    for _ in range(60):
        assert site.server.request().text == "one"
    site.server.wait_log("This worker is not replaced yet, because its replacement could not boot")
    site.wait_only(old)
    site.mend(old)


def test_the_old_workers_wait_for_a_boot_that_takes_long(gunicorn: Servers, tmp_path: Path) -> None:
    """Longer than their graceful timeout: nobody is refused, and nobody waits."""
    site = Site(gunicorn, tmp_path, 2, "--graceful-timeout", "2")
    old = set(site.server.worker_pids())
    with Load(site.server.port) as load:
        site.write("two", before="import gate\ngate.block('import')\n")
        site.reload()
        site.server.wait_log("gate import reached", 2)
        site.server.wait_log(r"Handling signal: hup")
        begun = time.monotonic()
        site.server.wait_for(lambda: time.monotonic() > begun + 4, "twice the graceful timeout")
        assert old <= set(site.server.worker_pids())
        site.server.open("import")
        site.server.wait_workers(lambda now: len(now) == 2 and not old & set(now), "all to be replaced")
        site.answers("two")
    assert load.lost == []


def test_a_crash_amid_the_import(gunicorn: Servers, tmp_path: Path) -> None:
    """The process ends without a word of Python's: the old workers go on as well."""
    site = Site(gunicorn, tmp_path, 2)
    old = set(site.server.worker_pids())
    with Load(site.server.port) as load:
        site.write("bad", before="import os\nos.kill(os.getpid(), 9)\n")
        site.reload()
        site.server.wait_log("This worker goes on", 2)
        site.wait_only(old)
        site.mend(old)
    assert load.lost == []


def test_a_worker_that_finds_no_application_ends_nobody_when_it_was_told_to_go(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amid its import, of a gunicorn without ``module:application``: the others go on."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(APPS)]))
    monkeypatch.setenv("GATES", str(tmp_path))
    program = programs([sys.executable, str(APPS / "embedded.py"), str(port := free_port()), str(tmp_path)], port)
    program.wait_for(lambda: program.log().count("Serving ") == 2, "both to have loaded it")
    with program.connect() as client:
        assert client.request(headers="Connection: close\r\n").text == "ok"
    (tmp_path / "bad").touch()
    program.process.send_signal(signal.SIGHUP)
    gates = r"gate load(\d+) reached"
    program.wait_for(lambda: len(re.findall(gates, program.log())) == 2, "two workers to import")
    pid, other = re.findall(gates, program.log())
    os.kill(int(pid), signal.SIGTERM)
    (tmp_path / f"load{pid}").touch()
    wait_gone(int(pid))
    program.wait_log(rf"Worker \(pid:{pid}\) exited with code 255")
    with program.connect() as client:
        assert client.request(headers="Connection: close\r\n").text == "ok"
    (tmp_path / f"load{other}").touch()


def test_a_bad_deploy_with_sockets_of_each_worker(gunicorn: Servers, tmp_path: Path) -> None:
    """``--reuse-port``: no connection waits at a worker that could not boot."""
    with socket.socket() as reserved:  # bound and not listening, so that nobody else gets the port
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        site = Site(gunicorn, tmp_path, 2, "--reuse-port", "--bind", address, bind=address)
        site.server.wait_log("Serving ", 2)
        old = set(site.server.worker_pids())
        site.write("bad", before="import nowhere\n")
        site.reload()
        site.server.wait_log("This worker goes on", 2)
        for _ in range(100):
            assert site.ask() == "one"
        site.wait_only(old)
        assert site.server.stop() == 0


def test_the_first_boot_fails_as_ever(gunicorn: Servers, tmp_path: Path) -> None:
    """With one worker that serves already, and with none."""
    (tmp_path / "second.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "if Path(os.environ['GATES'], 'served').exists(): raise LookupError('only the first')\n"
        "Path(os.environ['GATES'], 'served').touch()\nfrom asgi import app\n"
    )
    server = gunicorn("second:app", "--pythonpath", str(tmp_path), workers=2, ready=False, dirty=True)
    assert server.wait() == 3
    assert "cannot boot" not in server.log()


def test_a_smaller_group_after_a_bad_deploy(gunicorn: Servers, tmp_path: Path) -> None:
    """TTOU still sends the oldest away, and only that one."""
    site = Site(gunicorn, tmp_path, 2)
    oldest = int(re.findall(r"Booting worker with pid: (\d+)", site.server.log())[0])
    old = set(site.server.worker_pids())
    site.write("bad", before="import nowhere\n")
    site.reload()
    site.server.wait_log("This worker goes on", 2)
    site.wait_only(old)
    site.server.signal(signal.SIGTTOU)
    site.wait_only(old - {oldest})
    site.answers("one")
