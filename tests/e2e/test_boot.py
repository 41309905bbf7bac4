"""
From the command line to a serving worker: which interface, which loop, which exit code.

Issue words: detection names what it decided and why, never runs the application, and
stops the boot where the signature decides nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from signal import SIGINT, SIGQUIT, SIGTERM, SIGUSR1, Signals

import pytest

from tests.e2e.harness import APPS, Servers

pytestmark = pytest.mark.e2e

FORMS = [
    ("asgi_function", "ASGI 3"),
    ("asgi_object", "ASGI 3"),
    ("asgi_method", "ASGI 3"),
    ("asgi_partial", "ASGI 3"),
    ("asgi_decorated", "ASGI 3"),
    ("asgi_three_parameters", "ASGI 3"),
    ("asgi2_function", "ASGI 2"),
    ("asgi2_class", "ASGI 2"),
    ("wsgi_function", "WSGI"),
    ("wsgi_class", "WSGI"),
    ("wsgi_object", "WSGI"),
    ("wsgi_partial", "WSGI"),
    ("wsgi_decorated", "WSGI"),
    ("wsgi_forwarded", "WSGI"),
    ("wsgi_validated", "WSGI"),
    ("asgi_forwarded", "ASGI 3"),
    ("asgi_middleware", "ASGI 3"),
    ("asgi_any_arguments", "ASGI 3"),
]


@pytest.mark.parametrize(("form", "interface"), FORMS)
def test_c5_each_form_of_an_application_is_served(gunicorn: Servers, form: str, interface: str) -> None:
    """One boot line names the interface and the application, and the application answers."""
    server = gunicorn(f"forms:{form}")
    assert server.request().text == form
    assert len(re.findall(rf"Serving {interface} application forms:{form}\b", server.log())) == 1
    assert "to find out what it is" not in server.log()


def test_a_factory_is_called_by_gunicorn_and_its_result_looked_at(gunicorn: Servers) -> None:
    """``module:factory()`` is gunicorn's own notation."""
    server = gunicorn("forms:factory()")
    assert server.request().text == "wsgi_object"
    assert server.log().count("the factory was called") == 1


def test_a_signature_that_says_nothing_stops_the_boot(gunicorn: Servers) -> None:
    """Exit code 3, and one clear line that names the override; the application was not called to find out."""
    server = gunicorn("forms:undecided", ready=False, dirty=True)
    assert server.wait() == 3
    assert "HYBRIDWORKER_INTERFACE" in server.log()
    assert "to find out what it is" not in server.log()
    assert "Traceback" not in server.log()


def test_a_callable_of_any_arguments_is_wsgi_with_a_warning(gunicorn: Servers) -> None:
    """As under gunicorn's own workers; the line names the override, and comes once."""
    server = gunicorn("forms:unclear")
    assert server.request().text == "wsgi_function"
    server.wait_log(r"\[WARNING\] forms:unclear: 'unclear' takes any arguments .* set HYBRIDWORKER_INTERFACE=wsgi")
    assert server.log().count("[WARNING]") == 1


@pytest.mark.parametrize("how", ["environment", "raw_env"])
def test_the_override_decides_where_the_signature_does_not(gunicorn: Servers, how: str) -> None:
    """``HYBRIDWORKER_INTERFACE`` may come from the environment or from gunicorn's own ``--env``."""
    if how == "environment":
        server = gunicorn("forms:unclear", env={"HYBRIDWORKER_INTERFACE": "wsgi"})
    else:
        server = gunicorn("forms:unclear", "--env", "HYBRIDWORKER_INTERFACE=wsgi")
    assert server.request().text == "wsgi_function"
    assert re.search(r"Serving WSGI application forms:unclear.*HYBRIDWORKER_INTERFACE", server.log())


def test_an_override_that_does_not_exist_stops_the_boot(gunicorn: Servers) -> None:
    """The line says which values there are."""
    server = gunicorn("wsgi:app", env={"HYBRIDWORKER_INTERFACE": "wsgl"}, ready=False, dirty=True)
    assert server.wait() != 0
    assert re.search(r"HYBRIDWORKER_INTERFACE.*asgi.*wsgi", server.log())


def test_a_variable_that_is_misspelt_stops_the_boot_and_is_corrected(gunicorn: Servers) -> None:
    """A variable of ours that nobody reads is an error that suggests the nearest one."""
    server = gunicorn("wsgi:app", env={"HYBRIDWORKER_INTERFCE": "wsgi"}, ready=False, dirty=True)
    assert server.wait() != 0
    assert re.search(r"HYBRIDWORKER_INTERFCE.*HYBRIDWORKER_INTERFACE\b", server.log())


def test_an_application_that_raises_on_import_ends_gunicorn_with_3(gunicorn: Servers) -> None:
    """gunicorn's own exit code for a worker that cannot boot; no respawn loop."""
    server = gunicorn("raises_on_import:app", ready=False, dirty=True)
    assert server.wait() == 3
    assert "this module cannot be imported" in server.log()
    assert server.log().count("Booting worker") == 1


@pytest.mark.parametrize("app", ["no_such_module:app", "wsgi:no_such_attribute", "forms:not_callable"])
def test_an_application_that_is_not_there_ends_gunicorn(gunicorn: Servers, app: str) -> None:
    """Exit code 3 for a module and 4 for an attribute, as with gunicorn's workers; no respawn loop."""
    server = gunicorn(app, ready=False, dirty=True)
    assert server.wait() == (3 if app.startswith("no_such_module") else 4)
    assert server.log().count("Booting worker") == 1


@pytest.mark.parametrize("app", ["raises_on_import:app", "no_such_module:app", "wsgi:no_such_attribute"])
def test_exit_codes_are_those_of_gunicorns_own_worker(gunicorn: Servers, app: str) -> None:
    """Whoever supervises gunicorn sees no difference."""
    codes = [gunicorn(app, worker=name, ready=False, dirty=True).wait() for name in ("hybridworker.Worker", "gthread")]
    assert codes[0] == codes[1]


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_preload_imports_once_in_the_master(gunicorn: Servers, interface: str) -> None:
    """The decision is the same as without, and no worker imports again."""
    server = gunicorn(f"imported:{interface}", "--preload", workers=2)
    imported, served = map(int, server.request().text.split())
    assert imported == server.pid
    assert served in server.worker_pids()
    assert server.log().count("imported in") == 1
    assert f"Serving {'ASGI 3' if interface == 'asgi' else 'WSGI'} application" in server.log()


def test_without_preload_each_worker_imports(gunicorn: Servers) -> None:
    """As with every worker of gunicorn."""
    server = gunicorn("imported:asgi", workers=2)
    server.wait_log("imported in", 2)
    imported, served = map(int, server.request().text.split())
    assert imported == served


def test_preload_of_an_application_that_raises_ends_gunicorn(gunicorn: Servers) -> None:
    """In the master, before any worker."""
    server = gunicorn("raises_on_import:app", "--preload", ready=False, dirty=True)
    assert server.wait() != 0
    assert "Booting worker" not in server.log()


@pytest.mark.parametrize(("option", "module"), [("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")])
def test_asgi_loop_is_obeyed(gunicorn: Servers, option: str, module: str) -> None:
    """The loop of requests is the one that was asked for, and it runs in the main thread."""
    server = gunicorn("asgi:app", "--asgi-loop", option)
    loop, thread = server.request("/loop").text.split(maxsplit=1)
    assert loop.split(".")[0] == module
    assert thread == "MainThread"


def test_gunicorns_error_page_is_served_as_wsgi_whatever_the_override_says(gunicorn: Servers, tmp_path: Path) -> None:
    """With ``--reload`` a syntax error is a page in the browser."""
    (tmp_path / "broken.py").write_text("def app(:\n")
    server = gunicorn(
        "broken:app",
        "--reload",
        "--reload-engine",
        "poll",
        "--pythonpath",
        str(tmp_path),
        env={"HYBRIDWORKER_INTERFACE": "asgi"},
        dirty=True,
    )
    response = server.request()
    assert response.status == 500
    assert "SyntaxError" in response.text


@pytest.mark.parametrize("option", ["--threads", "--keep-alive", "--worker-connections"])
def test_options_of_gunicorn_do_not_disturb_the_boot(gunicorn: Servers, option: str) -> None:
    """Nothing but information is printed for settings that are obeyed."""
    server = gunicorn("wsgi:app", option, "5")
    assert server.request().status == 200
    assert "[WARNING]" not in server.log()


def test_a_certificate_that_is_missing_ends_gunicorn(gunicorn: Servers) -> None:
    """gunicorn looks for the file before any worker is made; its last line names it."""
    server = gunicorn(
        "wsgi:app", "--certfile", "/nowhere/server.pem", "--keyfile", "/nowhere/server.pem", ready=False, dirty=True
    )
    assert server.wait() == 1
    assert "/nowhere/server.pem" in server.log()
    assert "Booting worker" not in server.log()


def test_a_setting_that_would_misread_requests_ends_gunicorn(gunicorn: Servers) -> None:
    """A ``protocol`` that is none: one line that says what there is, no traceback, no worker."""
    server = gunicorn("wsgi:app", "--protocol", "fastcgi", ready=False, dirty=True)
    assert server.wait() != 0
    assert re.search(r"\[ERROR\] protocol='fastcgi' must be http or uwsgi$", server.log(), re.MULTILINE)
    assert "Traceback" not in server.log()
    assert "Booting worker" not in server.log()


def test_a_setting_without_effect_is_one_warning(gunicorn: Servers, tmp_path: Path) -> None:
    """In the master, once, whatever the number of workers; and the server serves."""
    (tmp_path / "conf.py").write_text("suppress_ragged_eofs = False\n")
    server = gunicorn("wsgi:app", "-c", str(tmp_path / "conf.py"), workers=2)
    assert server.request().status == 200
    warnings = [line for line in server.log().splitlines() if "[WARNING]" in line]
    assert len(warnings) == 1
    assert "suppress_ragged_eofs=False has no effect with this worker" in warnings[0]


def test_a_worker_that_dies_is_replaced(gunicorn: Servers) -> None:
    """The arbiter's business; the new worker serves as the old one did."""
    server = gunicorn("asgi:app", dirty=True)
    first = server.worker_pids()
    server.signal(9, first[0])
    server.wait_log("Booting worker with pid", 2)
    server.wait_workers(lambda pids: len(pids) == 1 and pids != first, "another worker")
    assert server.request("/pid").text == str(server.worker_pids()[0])


@pytest.mark.parametrize(
    ("number", "method"), [(SIGTERM, "handle_exit"), (SIGQUIT, "handle_quit"), (SIGINT, "handle_quit")]
)
@pytest.mark.parametrize("how", ["dotted path", "class"])
def test_what_a_subclass_overrides_is_called(
    gunicorn: Servers, tmp_path: Path, how: str, number: Signals, method: str
) -> None:
    """At the boot and by each signal, whether gunicorn was given the name of the class or the class itself."""
    config = tmp_path / "conf.py"
    if how == "class":
        config.write_text("from subclass import Subclass\nworker_class = Subclass\n")
    else:
        config.write_text('worker_class = "subclass.Subclass"\n')
    argv = ["--config", str(config), "--bind", "127.0.0.1:0", "--no-control-socket", "forms:asgi_function"]
    server = gunicorn.command(argv, APPS)
    (worker,) = server.worker_pids()
    server.wait_log("subclass load_wsgi asgi_function")
    assert server.log().index("subclass init_process") < server.log().index("subclass load_wsgi")
    assert server.request().text == "asgi_function"
    server.signal(SIGUSR1, worker)
    server.wait_log(f"subclass handle_usr1 {int(SIGUSR1)}$")
    server.signal(number, worker)
    server.wait_log(f"subclass {method} {int(number)}$")
    server.wait_workers(lambda pids: len(pids) == 1 and worker not in pids, "another worker")
    assert server.log().count("subclass handle_exit") == (number is SIGTERM)
    if number is SIGTERM:
        server.wait_log("Served 1 request: ")


def test_what_a_subclass_says_to_uvicorn_is_a_warning(gunicorn: Servers, tmp_path: Path) -> None:
    """Once, and it names the place where the answer stands. One thread for WSGI is named as well."""
    (tmp_path / "gunicorn.conf.py").write_text(
        "import hybridworker\n"
        "class Tuned(hybridworker.Worker):\n"
        "    CONFIG_KWARGS = {'loop': 'uvloop'}\n"
        "worker_class = Tuned\n"
    )
    config = str(tmp_path / "gunicorn.conf.py")
    argv = ["--config", config, "--bind", "127.0.0.1:0", "--no-control-socket", "forms:wsgi_function"]
    server = gunicorn.command(argv, APPS)
    assert server.request().status == 200
    line = r"\[WARNING\] Tuned\.CONFIG_KWARGS has no effect: section Switching of the README says what replaces it$"
    server.wait_log(line, 1)
    server.wait_log(r"\[INFO\] WSGI requests are served one after another, because --threads is 1$", 1)


def test_the_package_has_no_other_names() -> None:
    """Whoever asks for one gets an AttributeError, as from every module; only gunicorn's loader is told more."""
    program = (
        "import hybridworker, importlib\n"
        "assert not hasattr(hybridworker, 'Workr')\n"
        "assert getattr(hybridworker, 'Workr', None) is None\n"
        "assert importlib.import_module('hybridworker.worker') is hybridworker.worker\n"
        "try:\n"
        "    from hybridworker import Workr\n"
        "except ImportError as exc:\n"
        "    assert 'Workr' in str(exc)\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=APPS.parents[2], timeout=60)
