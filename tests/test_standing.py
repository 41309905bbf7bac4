"""Standing: what is true of a worker, of its children, of a master, and of any other process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridworker
from hybridworker import is_leaving, leading, slot, standing
from hybridworker.standing import Standing


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    """This process as it was before it became anything."""
    fresh = Standing()
    monkeypatch.setattr(standing, "here", fresh)
    yield fresh


def answers() -> tuple[bool, int | None, bool]:
    return leading(), slot(), is_leaving()


def test_any_process(here: Standing) -> None:
    """It does what must be done, since nobody can know better."""
    assert answers() == (True, None, False)


def test_a_master(here: Standing) -> None:
    """It has workers for that."""
    here.is_of_gunicorn = True
    assert answers() == (False, None, False)


def test_a_worker(here: Standing) -> None:
    """It leads when it is told so, and nothing is left of the master's."""
    here.is_of_gunicorn = here.leads = here.is_leaving = True
    here.enter(3)
    assert answers() == (False, 3, False)
    here.leads = here.is_leaving = True
    assert answers() == (True, 3, True)


def test_a_child_of_a_worker(here: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no worker, whatever the one is that has forked it."""
    here.is_of_gunicorn = True
    here.enter(3)
    here.leads = here.is_leaving = True
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    assert answers() == (False, None, False)


def test_the_module_imports_nothing_of_a_server() -> None:
    """A job that runs elsewhere pays nothing for the question."""
    program = (
        "import sys; before = set(sys.modules)\n"
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('standing', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "assert module.leading()\n"
        "assert not {name.partition('.')[0] for name in sys.modules} & {'gunicorn', 'uvloop', 'asyncio', 'httptools'}\n"
    )
    path = Path(hybridworker.__file__).with_name("standing.py")
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=60)
