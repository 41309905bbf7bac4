"""Leadership: one process has the lock, and what it does when the descriptor is not its own any more."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hybridworker.group.leadership import Leadership
from hybridworker.standing import Standing


@pytest.fixture
def leadership() -> Iterator[Leadership]:
    made = Leadership()
    yield made
    os.close(made.fd)


def other_gets_it(leadership: Leadership) -> bool:
    """Whether another process gets the lock now."""
    program = (
        "import fcntl, sys\n"
        "try: fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError: sys.exit(1)\n"
    )
    argv = [sys.executable, "-c", program, str(leadership.fd)]
    return subprocess.run(argv, pass_fds=[leadership.fd], timeout=60).returncode == 0


def test_one_process_leads(leadership: Leadership) -> None:
    """As long as it likes, however often it asks; then another one may."""
    here = Standing()
    assert other_gets_it(leadership)
    for _ in range(3):
        leadership.seek(here)
        assert here.leads
    assert not other_gets_it(leadership)
    leadership.give_up(here)
    assert not here.leads
    assert other_gets_it(leadership)
    leadership.give_up(here)


def test_a_lock_that_another_one_has(leadership: Leadership, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody leads here; any other error is one."""
    here = Standing()

    def fails(number: int) -> None:
        def lockf(fd: int, how: int) -> None:
            raise OSError(number, "no")

        monkeypatch.setattr(fcntl, "lockf", lockf)

    for number in (errno.EAGAIN, errno.EACCES):
        fails(number)
        leadership.seek(here)
        assert not here.leads
    fails(errno.ENOLCK)
    with pytest.raises(OSError, match="no"):
        leadership.seek(here)


@pytest.mark.parametrize("reused", [False, True])
def test_a_descriptor_that_the_application_has_closed(reused: bool) -> None:
    """The lock went with it. Another file under that number is left alone."""
    here, leadership = Standing(), Leadership()
    leadership.seek(here)
    os.close(leadership.fd)
    if reused:
        other = os.open(os.devnull, os.O_RDWR)
        if other != leadership.fd:
            os.dup2(other, leadership.fd)
            os.close(other)
    leadership.give_up(here)
    leadership.seek(here)
    assert not here.leads
    if reused:
        os.close(leadership.fd)


def test_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Where there are no files in memory, it is in the folder of gunicorn's heartbeats."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    made = Leadership(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []
    assert not os.get_inheritable(made.fd)
    here = Standing()
    made.seek(here)
    assert here.leads
    os.close(made.fd)


def test_a_master_has_one_and_warns_once_where_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody leads."""
    monkeypatch.setattr(Leadership, "_of_master", (0, None))
    lines: list[str] = []
    warn = lambda line, *args: lines.append(line % args)  # noqa: E731
    first = Leadership.of_master(None, warn)
    assert first is not None and Leadership.of_master(None, warn) is first
    os.close(first.fd)
    monkeypatch.setattr(Leadership, "_of_master", (0, None))
    monkeypatch.delattr(os, "memfd_create", raising=False)
    for _ in range(2):
        assert Leadership.of_master("/nowhere/at/all", warn) is None
    (line,) = lines
    assert line.startswith("There is no file to lock (")
