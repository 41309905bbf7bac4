"""
Handlers: which one runs, where, and what a child has of them.

Each case in an interpreter of its own, for handlers and functions at fork belong to the process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PRELUDE = """
import asyncio, os, signal, sys, threading
import uvloop
from hybridworker.process.signals import Signals
TERM, USR1, QUIT = signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT

class Log:
    def info(self, message, *args, **more): print("info", message % args)
    def warning(self, message, *args, **more): print("warning", message % args)
    def error(self, message, *args, exc_info=None): print("error", message % args, repr(exc_info))

pipe = os.pipe()
for fd in pipe: os.set_blocking(fd, False)
signal.set_wakeup_fd(pipe[1])
signals = Signals(Log())
handler = lambda number, frame: print("ours", signal.Signals(number).name, "in a frame" if frame else "on the loop")
quit = lambda number, frame: print("quit")
signals.defer(TERM, handler)
signals.defer(USR1, handler)
signal.signal(QUIT, quit)
signals.settle(pipe)
theirs = lambda number, frame: print("theirs")

def send(number): os.kill(os.getpid(), number)

def status(act):
    # Of a child that does what is to be done.
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        act()
        sys.stdout.flush()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print("child", code)

def on_a_loop(main):
    async def attached():
        signals.attach(asyncio.get_running_loop())
        asyncio.get_running_loop().add_reader(pipe[0], os.read, pipe[0], 4096)
        await main()
        await asyncio.sleep(0.05)
    loop = (uvloop if sys.argv[1] == "uvloop" else asyncio).new_event_loop()
    loop.run_until_complete(attached())
    return loop
"""


def printed(program: str, loop: str = "uvloop") -> list[str]:
    """The lines that ``program`` prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program, loop],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])


def test_a_term_before_the_loop_is_found_whatever_handler_it_had() -> None:
    """Once: the pipe is read. Another signal is none, and where there is no pipe there is no signal."""
    program = """
print(Signals(Log()).missed_term(), signals.missed_term())
signal.signal(TERM, theirs)
send(USR1); print(signals.missed_term())
send(TERM); print(signals.missed_term(), signals.missed_term())
"""
    assert printed(program) == ["False False", "ours SIGUSR1 in a frame", "False", "theirs", "True False"]


def test_without_a_loop_a_handler_runs_at_once() -> None:
    """As gunicorn's do, while the application is imported."""
    assert printed("send(TERM); send(USR1); send(QUIT)") == [
        "ours SIGTERM in a frame",
        "ours SIGUSR1 in a frame",
        "quit",
    ]


@LOOPS
def test_with_a_loop_it_runs_there(loop: str) -> None:
    """It may wait for what the loop does."""
    program = "async def main(): send(TERM); send(USR1); send(QUIT); print('sent')\non_a_loop(main)"
    assert printed(program, loop) == ["quit", "sent", "ours SIGTERM on the loop", "ours SIGUSR1 on the loop"]


@LOOPS
def test_a_loop_that_waits_wakes_up(loop: str) -> None:
    """The signal comes while nothing is due."""
    program = """
async def main():
    done = asyncio.Event()
    signals._ours[TERM].handler = lambda number, frame: done.set()
    threading.Timer(0.1, send, [TERM]).start()
    async with asyncio.timeout(30):
        await done.wait()
    print("woken")
on_a_loop(main)
"""
    assert printed(program, loop) == ["woken"]


def test_a_loop_of_the_import_takes_no_descriptor_away() -> None:
    """asyncio clears it when a loop with handlers of its own is closed. (uvloop does not need it.)"""
    program = """
async def application(): asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, print)
asyncio.run(application())
async def main(): pass
on_a_loop(main)
print(signal.set_wakeup_fd(-1) == pipe[1])
"""
    assert printed(program, "asyncio") == ["True"]


@LOOPS
def test_nothing_happens_when_the_loop_is_closed(loop: str) -> None:
    """The worker has left; neither the default nor an error cuts what is still to be done."""
    program = (
        "async def main(): pass\non_a_loop(main).close()\nsignals.keep_term()\nsend(TERM); send(USR1)\nprint('over')"
    )
    assert printed(program, loop) == ["over"]


@LOOPS
def test_a_handler_of_the_application_is_called_first(loop: str) -> None:
    """From ``signal.signal`` or the loop, before ``attach`` or later."""
    program = """
signal.signal(TERM, theirs)
async def main():
    send(TERM)
    await asyncio.sleep(0.05)
    signal.signal(TERM, lambda number, frame: print("later"))
    signals.keep_term()
    send(TERM)
    await asyncio.sleep(0.05)
    asyncio.get_running_loop().add_signal_handler(TERM, print, "the loop's")
    signals.keep_term()
    signals.keep_term()
    send(TERM)
on_a_loop(main)
"""
    lines = printed(program, loop)
    assert lines[:4] == ["theirs", "ours SIGTERM on the loop", "later", "ours SIGTERM on the loop"]
    assert sorted(lines[4:]) == ["ours SIGTERM on the loop", "the loop's"]


@LOOPS
def test_closing_the_loop_does_not_unsettle_term(loop: str) -> None:
    """asyncio takes a handler that was given to the loop back to the default: one look, no warning."""
    program = """
async def main():
    asyncio.get_running_loop().add_signal_handler(TERM, print, "the loop's")
    signals.keep_term()
on_a_loop(main).close()
signals.keep_term()
send(TERM)
print("alive")
"""
    assert printed(program, loop) == ["alive"]


def test_a_handler_that_calls_the_one_before_is_no_circle() -> None:
    """It calls what it found, and that was ours."""
    program = """
before = signal.getsignal(TERM)
signal.signal(TERM, lambda number, frame: (print("theirs"), before(number, frame)))
async def main(): send(TERM)
on_a_loop(main)
"""
    assert printed(program) == ["theirs", "ours SIGTERM on the loop", "ours SIGTERM on the loop"]


def test_one_that_was_there_for_a_while_is_forgotten() -> None:
    """Somebody else's handler is put back where ours was."""
    program = """
async def main():
    before = signal.signal(TERM, theirs)
    signals.keep_term()
    signal.signal(TERM, before)
    signals.keep_term()
    send(TERM)
on_a_loop(main)
"""
    assert printed(program) == ["ours SIGTERM on the loop"]


@pytest.mark.parametrize("disposition", ["SIG_IGN", "SIG_DFL"])
def test_to_be_deaf_is_not_obeyed(disposition: str) -> None:
    """One warning, however often it is tried."""
    program = f"""
async def main():
    for _ in range(2):
        signal.signal(TERM, signal.{disposition})
        signals.keep_term()
    send(TERM)
on_a_loop(main)
"""
    warning, line = printed(program)
    assert warning.startswith(f"warning The application has set SIGTERM to {disposition}, which is not obeyed")
    assert line == "ours SIGTERM on the loop"


@pytest.mark.parametrize(
    ("exception", "line"),
    [
        ("ValueError('x')", "error Exception in the application's SIGTERM handler ValueError('x')"),
        ("KeyboardInterrupt()", "error Exception in the application's SIGTERM handler KeyboardInterrupt()"),
        ("SystemExit(3)", "info The application's SIGTERM handler raised SystemExit(3)"),
    ],
)
@pytest.mark.parametrize("closed", [False, True])
def test_what_a_handler_raises_is_logged(exception: str, line: str, closed: bool) -> None:
    """By the loop, as long as there is one."""
    program = f"""
def theirs(number, frame): raise {exception}
signal.signal(TERM, theirs)
async def main():
    if not {closed}: send(TERM)
loop = on_a_loop(main)
if {closed}:
    loop.close()
    send(TERM)
"""
    assert printed(program) == ([line] if closed else [line, "ours SIGTERM on the loop"])


def test_calls_from_other_threads() -> None:
    """``call`` tells whether there is a loop."""
    program = """
print(signals.call(print, "never"))
async def main():
    thread = threading.Thread(target=lambda: print(signals.call(print, "called")))
    thread.start()
    thread.join()
loop = on_a_loop(main)
loop.close()
print(signals.call(print, "never"))
"""
    assert printed(program) == ["False", "True", "called", "False"]


# -- children


@LOOPS
def test_a_child_has_the_defaults_and_no_descriptor(loop: str) -> None:
    """Of the handlers that are ours; its signals are not those of the parent."""
    program = """
async def main():
    status(lambda: print(signal.getsignal(TERM).name, signal.getsignal(QUIT).name, signal.set_wakeup_fd(-1)))
    status(lambda: send(TERM))
    status(lambda: send(QUIT))
    print(signal.getsignal(QUIT) is quit, signal.getsignal(TERM) is signals._ours[TERM])
on_a_loop(main)
"""
    assert printed(program, loop) == ["SIG_DFL SIG_DFL -1", "child 0", "child -15", "child -3", "True True"]


def test_a_child_of_a_thread() -> None:
    """WSGI calls run in threads; the one that forks is the child's main thread."""
    program = """
thread = threading.Thread(target=status, args=[lambda: send(TERM)])
thread.start()
thread.join()
"""
    assert printed(program) == ["child -15"]


@LOOPS
def test_a_child_keeps_the_handlers_of_the_application(loop: str) -> None:
    """But one that a loop stands for does nothing there."""
    program = """
signal.signal(TERM, theirs)
async def main():
    status(lambda: send(TERM))
    asyncio.get_running_loop().add_signal_handler(TERM, print, "the loop's")
    signals.keep_term()
    status(lambda: send(TERM))
on_a_loop(main)
"""
    assert printed(program, loop) == ["theirs", "child 0", "child -15"]


def test_a_handler_that_calls_the_one_before_ends_the_child() -> None:
    """The one before is ours, and stands for the default there."""
    program = """
before = signal.getsignal(TERM)
signal.signal(TERM, lambda number, frame: (print("theirs", flush=True), before(number, frame)))
status(lambda: send(TERM))
"""
    assert printed(program) == ["theirs", "child -15"]


def test_a_signal_to_a_child_that_has_just_begun_is_not_lost() -> None:
    """It waits until the handlers are reset."""
    program = """
import multiprocessing
fork = multiprocessing.get_context("fork")
codes = set()
for _ in range(50):
    child = fork.Process(target=signal.pause)
    child.start()
    child.terminate()
    child.join(20)
    codes.add(child.exitcode)
    child.kill()
print(codes, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""
    assert printed(program) == ["{-15} set()"]
