"""
Every mistake that a user can make ends in one line that says what to do.

The last word of the log before gunicorn's own epilogue is looked at: no traceback of ours
above it, and the name, the value or the path that is wrong in it. What gunicorn itself
refuses before this worker is asked is here as well, so that a change shows.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.e2e.harness import Gunicorn, Servers

pytestmark = pytest.mark.e2e


def error_line(server: Gunicorn, code: int) -> str:
    """The one line with which a boot failed: the only error that is not gunicorn's report of the exit."""
    assert server.wait() == code, server.log()
    log = server.log()
    assert "Traceback" not in log
    epilogue = r"Worker \(pid:\d+\) exited|Shutting down: Master|Reason: "
    lines = [line for line in re.findall(r"\[ERROR\] (.*)", log) if not re.match(epilogue, line)]
    assert len(lines) == 1, log
    assert log.count("Booting worker") <= 1
    return str(lines[0])


# -- the application's path


def test_a_module_that_is_not_there(gunicorn: Servers) -> None:
    """The line names the folder that was looked in, and the option that names another one."""
    server = gunicorn("no_such_module:app", ready=False, dirty=True)
    line = error_line(server, 3)
    assert line.startswith("no_such_module:app: there is no module 'no_such_module' in ")
    assert str(server.directory.resolve()) in line
    assert "--chdir" in line


def test_a_package_without_the_module(gunicorn: Servers) -> None:
    """The part that is missing is named."""
    line = error_line(gunicorn("json.no_such_part:app", ready=False, dirty=True), 3)
    assert "there is no module 'json.no_such_part'" in line


def test_a_file_name_for_a_module(gunicorn: Servers, tmp_path: Path) -> None:
    """``app.py`` instead of ``app:app``: gunicorn knows what was meant."""
    (tmp_path / "site.py").write_text("")
    line = error_line(gunicorn("site.py", "--chdir", str(tmp_path), ready=False, dirty=True), 3)
    assert "did you mean 'site:application'?" in line


@pytest.mark.parametrize(
    ("uri", "meant"),
    [("wsgi:ap", "wsgi:app"), ("wsgi", "wsgi:app"), ("forms:asgi_functoin", "forms:asgi_function")],
)
def test_a_variable_that_is_misspelt(gunicorn: Servers, uri: str, meant: str) -> None:
    """The line has the nearest name of the module; exit code 4, as gunicorn's."""
    line = error_line(gunicorn(uri, ready=False, dirty=True), 4)
    assert line.startswith(f"{uri}: Failed to find attribute")
    assert line.endswith(f"did you mean {meant}?")


def test_something_that_is_no_application(gunicorn: Servers) -> None:
    """It is there, but cannot be called."""
    line = error_line(gunicorn("forms:not_callable", ready=False, dirty=True), 4)
    assert line.startswith("forms:not_callable: Application object must be callable")


def test_a_module_that_the_application_misses_is_another_mistake(gunicorn: Servers, tmp_path: Path) -> None:
    """The traceback stays, because it says who imports what is missing."""
    (tmp_path / "needy.py").write_text("import no_such_dependency\n")
    server = gunicorn("needy:app", "--chdir", str(tmp_path), ready=False, dirty=True)
    assert server.wait() == 3
    assert "needy.py" in server.log()
    assert "ModuleNotFoundError: No module named 'no_such_dependency'" in server.log()
    assert "there is no module" not in server.log()


# -- settings and variables


def test_an_interface_that_does_not_exist(gunicorn: Servers) -> None:
    """The values that there are."""
    server = gunicorn("wsgi:app", env={"HYBRIDWORKER_INTERFACE": "uwsgi"}, ready=False, dirty=True)
    assert error_line(server, 3) == "HYBRIDWORKER_INTERFACE='uwsgi' must be auto, asgi, asgi2 or wsgi"


def test_a_signature_that_does_not_tell(gunicorn: Servers) -> None:
    """The variable that decides."""
    line = error_line(gunicorn("forms:unclear", ready=False, dirty=True), 3)
    assert line.startswith("forms:unclear: ")
    assert line.endswith("set HYBRIDWORKER_INTERFACE=asgi, asgi2 or wsgi")


def test_a_variable_of_ours_that_is_misspelt(gunicorn: Servers) -> None:
    """The nearest one."""
    server = gunicorn("wsgi:app", "--env", "HYBRIDWORKER_HEALTHPATH=/health", ready=False, dirty=True)
    line = error_line(server, 3)
    assert line == "HYBRIDWORKER_HEALTHPATH is not a variable of hybridworker; did you mean HYBRIDWORKER_HEALTH_PATH?"


def test_a_drain_delay_that_does_not_fit(gunicorn: Servers) -> None:
    """The other setting, and what to do with it."""
    env = {"HYBRIDWORKER_DRAIN_DELAY": "20"}
    line = error_line(gunicorn("wsgi:app", env=env, ready=False, dirty=True), 3)
    assert line.startswith("HYBRIDWORKER_DRAIN_DELAY=20 is more than half of graceful_timeout")
    assert line.endswith("raise graceful_timeout")


def test_a_setting_that_would_misread_requests(gunicorn: Servers) -> None:
    """It stops the boot, and says what to do instead."""
    line = error_line(gunicorn("wsgi:app", "--protocol", "uwsgi", ready=False, dirty=True), 3)
    assert "use proxy_pass" in line


def test_a_setting_without_effect_is_one_warning(gunicorn: Servers) -> None:
    """From the master alone, however many workers there are, and the service runs."""
    server = gunicorn("wsgi:app", "--casefold-http-method", workers=2)
    assert server.request().status == 200
    (warning,) = re.findall(r"\[WARNING\] (.*)", server.log())
    assert warning.startswith("casefold_http_method=True has no effect with this worker: ")


# -- what the machine lacks


def test_a_certificate_that_is_not_there(gunicorn: Servers) -> None:
    """gunicorn looks before it asks any worker: its last line names the file."""
    options = ("--certfile", "/no/such/cert.pem", "--keyfile", "/no/such/key.pem")
    server = gunicorn("wsgi:app", *options, ready=False, dirty=True)
    assert server.wait() == 1
    assert server.log().splitlines()[-1].endswith('certfile "/no/such/cert.pem" does not exist')


def test_a_port_that_is_in_use(gunicorn: Servers) -> None:
    """gunicorn tries for a while; every line names the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        server = gunicorn("wsgi:app", "--bind", bind, ready=False, dirty=True)
        assert server.wait() == 1
    host, _, port = bind.partition(":")
    lines = re.findall(r"\[ERROR\] (.*)", server.log())
    assert lines[0].startswith(f"Connection in use: ('{host}', {port})")
    assert lines[-1] == f"Can't connect to ('{host}', {port})"
    assert "Booting worker" not in server.log()


# -- what is said when nothing is wrong


def test_the_master_says_what_it_runs_on_and_the_workers_what_they_serve(gunicorn: Servers) -> None:
    """Once, for bug reports; the interface is found by each worker."""
    server = gunicorn("wsgi:app", "--threads", "3", workers=2)
    (line,) = re.findall(r"\[INFO\] (hybridworker .*)", server.log())
    assert re.fullmatch(
        r"hybridworker \d+\.\d+\.\d+: uvloop \d+\.\d+\.\d+, httptools \d+\.\d+\.\d+, Python 3\.\d+\.\d+\S*;"
        r" a WSGI application gets threads=3 in each worker",
        line,
    )
    server.wait_log(r"Serving WSGI application wsgi:app", 2)
    assert "[WARNING]" not in server.log()


def test_the_other_loop_is_named(gunicorn: Servers) -> None:
    """The boot line follows ``asgi_loop``."""
    assert re.search(r"hybridworker \S+ asyncio, ", gunicorn("asgi:app", "--asgi-loop", "asyncio").log())


DISTANT = "127.0.0.1,192.0.2.1"


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (("--forwarded-allow-ips", DISTANT), 1),
        (("--forwarded-allow-ips", "*"), 1),
        (("--proxy-protocol", "v2", "--proxy-allow-from", DISTANT), 1),
        (("--proxy-allow-from", DISTANT), 0),
        (("--forwarded-allow-ips", DISTANT, "--keep-alive", "75"), 0),
        (("--forwarded-allow-ips", "127.0.0.1,::1"), 0),
    ],
    ids=["one", "any", "proxy", "no-proxy-protocol", "longer", "loopback"],
)
def test_a_short_keepalive_behind_a_balancer_is_one_warning(
    gunicorn: Servers, options: tuple[str, ...], warnings: int
) -> None:
    """Where a proxy on another machine is trusted and keepalive is gunicorn's default; once, in the master."""
    server = gunicorn("wsgi:app", *options, workers=2)
    assert server.request().status in (200, 400)  # 400: a trusted proxy, and no PROXY header
    found = re.findall(r"\[WARNING\] keepalive=2 s is gunicorn's default .* to 75 for instance", server.log())
    assert len(found) == warnings
