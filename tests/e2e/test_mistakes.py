"""
Every mistake that a user can make ends in one line that says what to do.

The last word of the log before gunicorn's own epilogue is looked at: no traceback of ours
above it, and the name, the value or the path that is wrong in it. What gunicorn itself
refuses before this worker is asked is here as well, so that a change shows.
"""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest
import trustme

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


@pytest.mark.parametrize("uri", ["shop.py", "./shop.py"])
def test_a_file_name_for_a_module(gunicorn: Servers, tmp_path: Path, uri: str) -> None:
    """``shop.py`` instead of ``shop:app``: the line has the name that the file gives to it."""
    (tmp_path / "shop.py").write_text("app = print\n")
    line = error_line(gunicorn(uri, "--chdir", str(tmp_path), ready=False, dirty=True), 3)
    assert line == f"{uri}: that is a file and no module; did you mean shop:app?"


@pytest.mark.parametrize(
    ("uri", "end"),
    [
        ("wsgi.app", "there is no module 'wsgi.app'; did you mean wsgi:app?"),
        ("forms:asgi_object()", "'asgi_object' cannot be called so: if it is the application, write forms:asgi_object"),
    ],
)
def test_a_dot_for_the_colon_and_brackets_behind_an_object(gunicorn: Servers, uri: str, end: str) -> None:
    """The line has what was meant."""
    assert error_line(gunicorn(uri, ready=False, dirty=True), 3) == f"{uri}: {end}"


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


# -- what the application is


@pytest.mark.parametrize("interface", ["auto", "wsgi"])
def test_a_factory_without_its_brackets(gunicorn: Servers, interface: str) -> None:
    """Also where the interface was said: it would answer 500 to everything. The line says how to name it."""
    env = {"HYBRIDWORKER_INTERFACE": interface}
    line = error_line(gunicorn("forms:factory", env=env, ready=False, dirty=True), 3)
    assert line == (
        "forms:factory: 'factory' takes no arguments:"
        " if it makes the application, name it with brackets: 'forms:factory()'"
    )


def test_a_coroutine_function_that_lacks_a_parameter(gunicorn: Servers) -> None:
    """The line shows what an application looks like."""
    line = error_line(gunicorn("forms:asgi_without_send", ready=False, dirty=True), 3)
    assert line == (
        "forms:asgi_without_send: 'asgi_without_send' is a coroutine function of two parameters, which is neither"
        " ASGI nor WSGI: an ASGI application is app(scope, receive, send)"
    )


@pytest.mark.parametrize(
    ("uri", "interface", "warning"),
    [
        ("forms:make_app", "auto", r"'make_app' looks like a factory by its name, .*: 'forms:make_app\(\.\.\.\)'"),
        ("forms:asgi_object", "wsgi", r"HYBRIDWORKER_INTERFACE=wsgi, but '_AsgiObject' looks like ASGI 3 \(.*"),
        ("forms:wsgi_function", "asgi", r"HYBRIDWORKER_INTERFACE=asgi, but 'wsgi_function' looks like WSGI \(.*"),
    ],
)
def test_what_is_most_likely_wrong_is_one_warning(gunicorn: Servers, uri: str, interface: str, warning: str) -> None:
    """At the boot; what was said is done."""
    server = gunicorn(uri, env={"HYBRIDWORKER_INTERFACE": interface})
    server.wait_log(rf"\[WARNING\] {uri}: {warning}$")
    assert server.log().count("[WARNING]") == 1


@pytest.mark.parametrize(
    ("worker", "line"),
    [
        ("hybridworker.Workr", "Error: hybridworker has no worker class 'Workr': use -k hybridworker.Worker"),
        ("hybridworker.worker", "Error: hybridworker has no worker class 'worker': use -k hybridworker.Worker"),
    ],
)
def test_a_worker_class_that_is_misspelt(gunicorn: Servers, worker: str, line: str) -> None:
    """gunicorn prints the line and ends."""
    server = gunicorn("wsgi:app", worker=worker, ready=False, dirty=True)
    assert server.wait() == 1
    assert server.log().strip().splitlines() == [line]


# -- settings and variables


def test_an_interface_that_does_not_exist(gunicorn: Servers) -> None:
    """The values that there are."""
    server = gunicorn("wsgi:app", env={"HYBRIDWORKER_INTERFACE": "uwsgi"}, ready=False, dirty=True)
    assert error_line(server, 3) == "HYBRIDWORKER_INTERFACE='uwsgi' must be auto, asgi, asgi2 or wsgi"


def test_a_signature_that_does_not_tell(gunicorn: Servers) -> None:
    """The variable that decides."""
    line = error_line(gunicorn("forms:undecided", ready=False, dirty=True), 3)
    assert line.startswith("forms:undecided: ")
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


def test_a_protocol_that_would_misread_requests(gunicorn: Servers) -> None:
    """It stops the boot, and says what there is."""
    line = error_line(gunicorn("wsgi:app", "--protocol", "fastcgi", ready=False, dirty=True), 3)
    assert line == "protocol='fastcgi' must be http or uwsgi"


# -- what the machine lacks


def test_a_certificate_that_is_not_there(gunicorn: Servers) -> None:
    """gunicorn looks before it asks any worker: its last line names the file."""
    options = ("--certfile", "/no/such/cert.pem", "--keyfile", "/no/such/key.pem")
    server = gunicorn("wsgi:app", *options, ready=False, dirty=True)
    assert server.wait() == 1
    assert server.log().splitlines()[-1].endswith('certfile "/no/such/cert.pem" does not exist')


@pytest.mark.parametrize("kind", ["nonsense", "folder", "keyfile alone"])
def test_a_certificate_that_is_none(gunicorn: Servers, tmp_path: Path, kind: str) -> None:
    """What each of the two files is to hold; OpenSSL only says "PEM lib"."""
    file = tmp_path / "server.pem"
    if kind == "folder":
        file.mkdir()
    else:
        file.write_text("nonsense\n")
    options = ("--keyfile", str(file)) if kind == "keyfile alone" else ("--certfile", str(file))
    line = error_line(gunicorn("wsgi:app", *options, ready=False, dirty=True), 3)
    shown = f"certfile=None keyfile='{file}'" if kind == "keyfile alone" else f"certfile='{file}' keyfile=None"
    assert line.startswith(f"{shown} cannot be loaded (")
    assert line.endswith("): certfile holds a PEM certificate chain, keyfile its key")


def test_an_error_of_the_ssl_context_hook_keeps_its_traceback(gunicorn: Servers, tmp_path: Path) -> None:
    """It is the user's code: nothing is wrong with the settings."""
    authority = trustme.CA()
    file = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(file)
    config = tmp_path / "conf.py"
    config.write_text("def ssl_context(config, default):\n    raise ValueError('the vault is closed')\n")
    server = gunicorn("wsgi:app", "--certfile", str(file), "--config", str(config), ready=False, dirty=True)
    assert server.wait() == 3
    assert "Traceback" in server.log()
    assert "ValueError: the vault is closed" in server.log()
    assert "cannot be loaded" not in server.log()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the peak is known")
def test_a_limit_of_memory_that_is_too_low(gunicorn: Servers) -> None:
    """Every worker would be replaced at once; the line has both numbers."""
    server = gunicorn("wsgi:app", env={"HYBRIDWORKER_MAX_RSS": "2"})
    server.wait_log(
        r"\[WARNING\] HYBRIDWORKER_MAX_RSS=2 is less than the \d+ MiB of a worker that has served nothing yet"
    )


def test_a_startup_that_fails_with_a_traceback(gunicorn: Servers) -> None:
    """As Starlette reports it; the line itself says what is wrong."""
    line = error_line_above_a_traceback(gunicorn("lifespans:failed_with_traceback", ready=False, dirty=True))
    assert line == "Application startup failed: LookupError: the database is not there"


def error_line_above_a_traceback(server: Gunicorn) -> str:
    """The first error of a failed boot."""
    assert server.wait() == 3, server.log()
    match = re.search(r"\[ERROR\] (.*)\nTraceback", server.log())
    assert match is not None, server.log()
    return match[1]


def test_a_port_that_is_in_use(gunicorn: Servers) -> None:
    """gunicorn tries for a while, in the master; every line names the address, and the exit code is gunicorn's own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
        server = gunicorn("wsgi:app", "--bind", bind, ready=False, dirty=True)
        assert server.wait() == 1
    host, _, port = bind.partition(":")
    lines = re.findall(r"\[ERROR\] (.*)", server.log())
    assert lines[0].startswith(f"Connection in use: ('{host}', {port})")
    assert lines[-1] == f"Can't connect to ('{host}', {port})"
    assert "Booting worker" not in server.log()


# -- what another program is set up to send

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PROXY_V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x7f\0\0\1" * 2 + b"\x10\0\x20\0"
PROXY_OFF = "a PROXY header, and proxy_protocol is off"
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (PROXY_V1 + REQUEST, PROXY_OFF),
        (PROXY_V1, PROXY_OFF),
        (PROXY_V2 + REQUEST, PROXY_OFF),
        (HTTP2, "HTTP/2 is not served (let the proxy speak HTTP/1.1)"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", "a TLS handshake on a port without certfile"),
        (b"\x16\x03\x01\x02\0\r\n\r\n", "a TLS handshake on a port without certfile"),
    ],
    ids=["proxy v1", "proxy v1 alone", "proxy v2", "http/2", "tls", "tls with an empty line"],
)
def test_what_a_proxy_is_set_up_to_send_is_named(gunicorn: Servers, sent: bytes, reason: str) -> None:
    """And refused; the log names the setting, on either side, that does not fit."""
    server = gunicorn("wsgi:app")
    with server.connect() as client:
        client.send(sent)
        assert client.response().status == 400
        assert client.at_end()
    server.wait_log(re.escape(f"[WARNING] Invalid request from ip=127.0.0.1: {reason}") + "$")
    assert server.log().count("Invalid request") == 1


# -- what is said when nothing is wrong


def test_the_master_says_what_it_runs_on_and_the_workers_what_they_serve(gunicorn: Servers) -> None:
    """Once, for bug reports; the interface, and what goes with it, is found by each worker."""
    server = gunicorn("wsgi:app", "--threads", "3", workers=2)
    (line,) = re.findall(r"\[INFO\] (hybridworker .*)", server.log())
    assert re.fullmatch(
        r"hybridworker \d+\.\d+\.\d+: uvloop \d+\.\d+\.\d+, httptools \d+\.\d+\.\d+,"
        r" (websockets \d+\.\d\S*|no websockets), Python 3\.\d+\.\d+\S*",
        line,
    )
    server.wait_log(r"Serving WSGI application wsgi:app \(.*\), threads=3$", 2)
    assert "[WARNING]" not in server.log()


def test_threads_are_not_named_where_they_do_nothing(gunicorn: Servers) -> None:
    """For an ASGI application."""
    server = gunicorn("asgi:app", "--threads", "3")
    server.wait_log(r"Serving ASGI 3 application asgi:app \(.*\)$")
    assert "threads" not in server.log()


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
