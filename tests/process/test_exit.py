"""With which code a worker ends, for each kind of exception, and who says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gunicorn.arbiter import Arbiter

from hybridworker.process.exit import BOOT_ERROR, FAILED, LOAD_ERROR, exit_code
from tests.fakes import FakeLog


def ended(exc: BaseException, **state: Any) -> tuple[int, bool, list[str]]:
    """The code, whether it was logged here, and the lines."""
    log = FakeLog()
    state = {"booted": True, "booting": False, "told": None, **state}
    return *exit_code(exc, log, **state), log.at("error")


def test_the_codes_are_those_of_gunicorn() -> None:
    """The arbiter ends on these two."""
    assert (BOOT_ERROR, LOAD_ERROR) == (Arbiter.WORKER_BOOT_ERROR, Arbiter.APP_LOAD_ERROR)


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (7, 7), ("text", 1)])
def test_system_exit_of_a_worker_that_serves(status: Any, code: int) -> None:
    """It goes on as it is."""
    assert ended(SystemExit(status)) == (code, False, [])


@pytest.mark.parametrize("status", [3, 4])
def test_system_exit_that_names_the_failure_of_the_boot(status: int) -> None:
    """gunicorn's own codes."""
    assert ended(SystemExit(status), booting=True, booted=False) == (status, False, [])


@pytest.mark.parametrize("status", [3, 4])
def test_system_exit_of_a_worker_that_serves_is_no_failure_of_a_boot(status: int) -> None:
    """With these codes the master would end all of gunicorn."""
    line = f"The application ended the worker: sys.exit({status})"
    assert ended(SystemExit(status)) == (FAILED, True, [line])


@pytest.mark.parametrize("booted", [False, True])
@pytest.mark.parametrize("status", [None, 0, 1, 255, "text"])
def test_system_exit_before_the_worker_accepts(booted: bool, status: Any) -> None:
    """A failed boot."""
    line = f"The application ended the worker before it could serve: sys.exit({status!r})"
    assert ended(SystemExit(status), booting=True, booted=booted) == (3, True, [line])


@pytest.mark.parametrize(("booted", "code"), [(False, 3), (True, FAILED)])
def test_an_exception_that_the_arbiter_logs(booted: bool, code: int) -> None:
    """It has the code ready, too."""
    assert ended(ValueError("x"), booted=booted, booting=not booted) == (code, False, [])


def test_an_exception_amid_the_import_of_a_worker_that_was_told_to_go() -> None:
    """The arbiter would take it for a failed boot, and end all of gunicorn."""
    line = "The worker was ended by ValueError"
    assert ended(ValueError("x"), booted=False, booting=False) == (FAILED, True, [line])


@pytest.mark.parametrize("exc", [ValueError("why"), OSError(24, "Too many open files")])
def test_an_exception_between_gunicorns_boot_and_the_first_connection(exc: Exception) -> None:
    """The arbiter would take it for the end of a worker that has served."""
    code, logged, lines = ended(exc, booting=True)
    assert (code, logged) == (3, True)
    assert lines == [f"The worker could not start: {type(exc).__name__}: {exc}"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseException])
@pytest.mark.parametrize(("booting", "told", "code"), [(True, None, 3), (False, None, 255), (False, 0, 0)])
def test_what_is_no_exception_is_logged_here(
    kind: type[BaseException], booting: bool, told: int | None, code: int
) -> None:
    """The arbiter would not catch it, or take it for its own."""
    got, logged, (line,) = ended(kind(), booting=booting, told=told)
    assert (got, logged) == (code, True)
    assert kind.__name__ in line
