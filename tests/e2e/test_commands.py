"""``python -m hybridworker``: the commands, as they are called, and ``top`` in a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.harness import APPS, DEADLINE, ROOT, Gunicorn, Servers

pytestmark = pytest.mark.e2e

METRICS = {"HYBRIDWORKER_METRICS_PATH": "/metrics"}


def environment(**more: str) -> dict[str, str]:
    """That of the tests, with the package and the applications on the path."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GUNICORN_", "HYBRIDWORKER_"))}
    return {**own, "PYTHONPATH": os.pathsep.join([str(ROOT), str(APPS)]), **more}


def call(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    argv = [sys.executable, "-W", "error", "-m", "hybridworker", *arguments]
    env = environment(**(env or {}))
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=DEADLINE)


# -- what there is


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_it_says_what_there_is(arguments: list[str], tmp_path: Path) -> None:
    """Each command, and how the worker itself is started."""
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 0
    for text in ("gunicorn -k hybridworker.Worker", "top URL", "check MODULE:APP", "settings"):
        assert text in done.stdout
    assert done.stderr == ""


def test_an_unknown_command(tmp_path: Path) -> None:
    """One line names those that there are."""
    done = call("tops", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "python -m hybridworker: there is no command 'tops': top, check, settings\n"


@pytest.mark.parametrize("command", ["top", "check", "settings"])
def test_each_command_has_help(command: str, tmp_path: Path) -> None:
    """By its own name."""
    done = call(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: python -m hybridworker {command} ")


# -- check


@pytest.mark.parametrize(
    ("app", "arguments", "code", "line"),
    [
        ("asgi:app", [], 0, r"^Serving ASGI 3 application asgi:app \(it is a coroutine function\)$"),
        ("wsgi:app", ["--threads", "4"], 0, r"^Serving WSGI application wsgi:app \(.*\), threads=4$"),
        ("wsgi:app", ["--http-protocols", "h1"], 0, r"^It would boot\. "),
        ("wsgi:nothing", [], 4, r"^error: wsgi:nothing: Failed to find attribute 'nothing' in 'wsgi'"),
        ("nowhere:app", [], 3, r"^error: nowhere:app: there is no module 'nowhere' in "),
        ("raises_on_import:app", [], 3, r"^error: "),
        ("wsgi:app", ["--env", "HYBRIDWORKER_SLOW_LOP=1"], 3, r"did you mean HYBRIDWORKER_SLOW_LOOP\?$"),
        ("wsgi:app", ["--certfile", "log", "--keyfile", "log"], 3, r"^error: certfile='log' .* cannot be loaded"),
    ],
)  # fmt: skip
def test_check_is_as_a_boot(
    app: str, arguments: list[str], code: int, line: str, gunicorn: Servers, tmp_path: Path
) -> None:
    """The exit code is that of a boot, and so is the line that says why."""
    (tmp_path / "log").touch()  # no certificate; a server has a file of that name as well
    done = call("check", app, "-k", "hybridworker.Worker", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout
    assert len(done.stdout.splitlines()) < 24 or code
    if code:
        server = gunicorn(app, *arguments, ready=False, dirty=True)
        assert server.wait() == code
        reason = re.search(line, done.stdout, re.MULTILINE)
        assert reason is not None
        assert reason[0].removeprefix("error: ").partition(" in ")[0] in server.log()


@pytest.mark.parametrize(
    ("app", "arguments", "code", "line"),
    [
        ("raises_on_import:app", ["--preload"], 1, r"^error: The application cannot be loaded, and preload_app "),
        ("wsgi:nothing", ["--preload"], 1, r"^gunicorn\.errors\.AppImportError: "),
        ("wsgi:app", ["--certfile", "nowhere"], 1, r"^error: certfile 'nowhere' does not exist$"),
        ("wsgi:app", ["-k", "nowhere"], 1, r"^error: worker_class='nowhere' cannot be loaded: class uri 'nowhere' "),
        ("wsgi:app", ["-k", "hybridworker.Wroker"], 1, r"^error: .* has no worker class 'Wroker': use -k "),
    ],
)  # fmt: skip
def test_check_knows_what_ends_the_master(
    app: str, arguments: list[str], code: int, line: str, gunicorn: Servers, tmp_path: Path
) -> None:
    """It never says that a boot would succeed which gunicorn does not even begin."""
    done = call("check", app, "-k", "hybridworker.Worker", *arguments, cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.endswith(f"gunicorn would end with exit code {code}\n")
    server = gunicorn(app, *arguments, ready=False, dirty=True)
    assert server.wait() == code


def test_check_names_what_has_no_effect_and_what_it_was_made_for(tmp_path: Path) -> None:
    """The warnings of a boot; and which worker the configuration names."""
    (tmp_path / "g.py").write_text("suppress_ragged_eofs = False\nworker_class = 'gthread'\nbind = 'unix:x'\n")
    done = call("check", "wsgi:app", "-c", "g.py", cwd=tmp_path)
    assert done.returncode == 0
    assert "warning: suppress_ragged_eofs=False has no effect with this worker" in done.stdout
    assert "warning: worker_class is 'gthread' here" in done.stdout
    assert "at unix:x (nothing is bound now)" in done.stdout
    assert not (tmp_path / "x").exists()


def test_check_binds_nothing(gunicorn: Servers, tmp_path: Path) -> None:
    """It works beside the gunicorn that has the port."""
    server = gunicorn("wsgi:app")
    done = call("check", "wsgi:app", "--bind", f"127.0.0.1:{server.port}", cwd=tmp_path)
    assert done.returncode == 0
    assert server.request("/").status == 200


def test_check_ends_although_a_thread_does_not(tmp_path: Path) -> None:
    """An application that starts threads at import does not hold it up."""
    (tmp_path / "app.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\ndef app(environ, start): ...\n"
    )
    assert call("check", "app:app", cwd=tmp_path).returncode == 0


# -- settings


def test_settings_are_those_in_force(tmp_path: Path) -> None:
    """From the file, gunicorn's variable, the options and the environment."""
    (tmp_path / "g.py").write_text("threads = 3\nraw_env = ['HYBRIDWORKER_SLOW_LOOP=2']\n")
    env = {"GUNICORN_CMD_ARGS": "--workers 5", "HYBRIDWORKER_HEALTH_PATH": "/up"}
    done = call("settings", "-c", "g.py", "--keep-alive", "75", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        r"\* threads = 3 +# size of the pool",
        r"\* workers = 5 +# ",
        r"\* keepalive = 75 +# ",
        r"  timeout = 30 +# ",
        r"\* HYBRIDWORKER_SLOW_LOOP = 2 s +# ",
        r"\* HYBRIDWORKER_HEALTH_PATH = /up +# ",
    ):
        assert re.search(f"^{line}", done.stdout, re.MULTILINE), line


def test_settings_that_no_worker_boots_with(tmp_path: Path) -> None:
    """They are shown all the same, and what is wrong with them."""
    done = call("settings", cwd=tmp_path, env={"HYBRIDWORKER_SLOW_LOOP": "soon"})
    assert done.returncode == 3
    assert "HYBRIDWORKER_SLOW_LOOP = soon" in done.stdout
    assert done.stderr.endswith("settings: HYBRIDWORKER_SLOW_LOOP='soon' must be a number of seconds such as 15 or"
                                " 0.5, or 0 for off\n")  # fmt: skip


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """``| head`` is no error."""
    command = f"{sys.executable} -m hybridworker settings | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment(), capture_output=True, timeout=DEADLINE)
    assert (done.stderr, len(done.stdout.splitlines())) == (b"", 1)


# -- top


class Terminal:
    """``top`` in a terminal of its own: what it draws, its keys, and the modes it leaves."""

    def __init__(self, url: str, columns: int = 160, lines: int = 24) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hybridworker", "top", url],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment(TERM="xterm"),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.output = ""

    def resize(self, columns: int, lines: int) -> None:
        """The window has another size from now on."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def screens(self) -> list[str]:
        """What was drawn so far, screen by screen, without the commands for the terminal."""
        return [re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", screen) for screen in self.output.split("\x1b[H")[1:]]

    def wait_screen(self, pattern: str, after: int = 0) -> str:
        """Wait for a whole screen, behind the first ``after``, in which the pattern is."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for screen in self.screens()[after:-1]:
                if re.search(pattern, screen, re.MULTILINE):
                    return screen
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.output!r}"
            assert self.process.poll() is None, self.output
            self._read(0.1)

    def _read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.output += os.read(self.master, 65536).decode()

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.master, keys.encode())

    def wait(self) -> int:
        """Wait for its end, reading what it draws; returns the exit code."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output
            self._read(0.05)
        self._read(0)
        return self.process.returncode

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(request: pytest.FixtureRequest) -> Iterator[type[Terminal]]:
    """Terminals that are closed with the test."""
    made: list[Terminal] = []

    class Closed(Terminal):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)

    yield Closed
    for one in made:
        one.close()


def served(gunicorn: Servers, *args: str, workers: int = 2) -> Gunicorn:
    """A server with metrics that has answered, so that it can be looked at and ended."""
    server = gunicorn("wsgi:app", "--threads", "4", *args, env=METRICS, workers=workers)
    if server.url.startswith("http"):
        assert server.request("/").status == 200
    return server


def rows(screen: str) -> list[str]:
    """The lines of workers."""
    return [line for line in screen.splitlines() if re.match(r" *\d+ +\d+ +\w+", line)]


@pytest.mark.parametrize("leave", ["q", "\x03", signal.SIGTERM], ids=["q", "ctrl-c", "term"])
def test_top_draws_and_leaves_the_terminal_clean(
    gunicorn: Servers, terminal: type[Terminal], leave: str | signal.Signals
) -> None:
    """A row per worker, once a second; then the screen, the cursor and the modes are as before."""
    server = served(gunicorn)
    screen = terminal(f"{server.url}/metrics")
    drawn = screen.wait_screen(r"^ *all +\d+\.\d +0\.0 ")
    assert "2 workers" in drawn
    assert {line.split()[1] for line in rows(drawn)} == {str(pid) for pid in server.worker_pids()}
    assert all(line.split()[2] == "ready" for line in rows(drawn))
    if isinstance(leave, str):
        screen.press(leave)
    else:
        screen.process.send_signal(leave)
    assert screen.wait() == 0
    assert screen.output.startswith("\x1b[?1049h\x1b[?25l")
    assert screen.output.endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(screen.slave) == screen.before
    assert "Traceback" not in screen.output


def test_top_survives_a_group_that_restarts(gunicorn: Servers, terminal: type[Terminal]) -> None:
    """By HUP, and by a whole new gunicorn on the same port."""
    server = served(gunicorn)
    screen = terminal(f"{server.url}/metrics")
    screen.wait_screen(r"^ *all +\d+\.\d")
    old = server.worker_pids()
    server.signal(signal.SIGHUP)
    server.wait_workers(lambda pids: len(pids) == 2 and not set(pids) & set(old), "two new workers")
    new = server.worker_pids()
    gone = "|".join(map(str, old))  # a screen may have caught both generations
    screen.wait_screen(
        rf"\A(?!(?s:.*)\b({gone})\b)(?s:.*){new[0]} +ready(?s:.*){new[1]} +ready(?s:.*)^ *all.* term\r?$"
    )
    port = server.port
    assert server.stop() == 0
    screen.wait_screen(r"Connection refused; trying again")
    again = served(gunicorn, "--bind", f"127.0.0.1:{port}", workers=1)
    (pid,) = again.worker_pids()
    seen = len(screen.screens())
    drawn = screen.wait_screen(rf"{pid} +ready", seen)
    assert "1 worker" in drawn and "trying again" not in drawn
    screen.press("q")
    assert screen.wait() == 0


def test_top_fits_the_window(gunicorn: Servers, terminal: type[Terminal]) -> None:
    """Nothing wraps and nothing scrolls, also when the window becomes smaller."""
    server = served(gunicorn, workers=4)
    screen = terminal(f"{server.url}/metrics", 160, 24)
    screen.wait_screen("4 workers")
    screen.resize(40, 5)
    drawn = screen.wait_screen("lines more", len(screen.screens()))
    lines = drawn.splitlines()
    assert len(lines) == 5
    assert max(len(line) for line in lines) <= 40
    assert lines[-1] == "... and 4 lines more"


def test_top_once_counts_what_happens(gunicorn: Servers) -> None:
    """For scripts and reports: rates, quantiles and errors of one second, over a unix socket."""
    bind = f"unix:{gunicorn.folder() / 's'}"
    server = gunicorn("logged:wsgi", "--threads", "4", "--bind", bind, env=METRICS, dirty=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "hybridworker", "top", "--once", f"{bind}:/metrics"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with server.connect() as client:
        while process.poll() is None:
            assert client.request("/ok").status == 200
            assert server.request("/raises").status == 500
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    (row,) = rows(printed)
    cells = row.split()
    requests, errors = float(cells[4]), float(cells[5])
    assert 0 < errors < requests
    assert cells[6].endswith("ms") and cells[7].endswith("s")
    assert "\x1b" not in printed


def test_top_of_what_is_no_metrics_page(gunicorn: Servers, tmp_path: Path) -> None:
    """One line says how to make it one."""
    server = gunicorn("wsgi:app", dirty=True)
    done = call("top", f"{server.url}/nothing", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "HYBRIDWORKER_METRICS_PATH=/nothing makes it one" in done.stderr


def test_top_needs_the_standard_library_alone(tmp_path: Path) -> None:
    """It can be copied to where neither gunicorn nor uvloop is."""
    program = (
        "import sys\n"
        "from hybridworker.__main__ import main\n"
        "code = main(['top', '--once', 'unix:/nowhere:/metrics'])\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)\n"
        "assert foreign <= {'hybridworker', '__main__', 'sitecustomize', 'usercustomize'}, foreign\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 1, done.stderr
    assert "No such file or directory" in done.stderr
