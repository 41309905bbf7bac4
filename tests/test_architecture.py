"""
The plan of the house, read from its imports.

Every module has a rank and imports only what ranks strictly lower, so that each can be
understood by reading downwards. A new module is added to the table below, on purpose.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridworker

PACKAGE = Path(hybridworker.__file__).parent

#: The modules of each rank, lowest first. ``__init__`` only re-exports, from the top.
LEVELS: tuple[set[str], ...] = (
    # the process: its signals, its end, and what it was given
    {"background", "exitcode", "foreignloops", "grace", "signals"},
    # words, states, and machines that know nothing of the rest
    {"asgi", "backlog", "environ", "errors", "kernel", "liveness", "states", "threads", "tls", "variables"},
    # values in, values out
    {"accesslog", "application", "flow", "handoff", "leaving", "pep3333", "response", "scope", "settings"},
    # what needs the settings, or several of these
    {"fleet", "forwarded", "frames", "handshake", "limits", "sendfile", "wsgi"},
    # what all connections share
    {"context", "filebody"},
    # the parts of a request, and what stands beside it
    {"head", "lifespan", "status", "websocket", "writer"},
    # one request
    {"cycle"},
    # one connection
    {"http11"},
    # all connections of a worker
    {"server", "watchdog"},
    # the process
    {"worker"},
    {"__init__"},
)
RANKS = {module: rank for rank, level in enumerate(LEVELS) for module in level}

#: The doors to gunicorn. Behind them nobody knows it.
DOORS = {"accesslog", "settings", "worker"}

MODULE_LINES = 500
FUNCTION_LINES = 60

#: What may be longer than a screen, each with its reason.
LONG_FUNCTIONS: dict[str, str] = {}


def modules() -> list[Path]:
    return sorted(PACKAGE.glob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, wherever the statement stands: ``.name`` for those of the package."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and node.module is None:  # from . import name
                yield from (f".{alias.name}" for alias in node.names)
            else:
                assert node.level <= 1, f"{path.name} imports from above the package"
                yield "." * node.level + (node.module or "")


each_module = pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)


def test_the_table_names_every_module_and_no_other() -> None:
    """The package is flat, and nothing is without a rank."""
    assert {path.stem for path in modules()} == set(RANKS)
    assert [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE] == []


@each_module
def test_imports_go_strictly_downwards(path: Path) -> None:
    """Those under ``TYPE_CHECKING`` and inside of functions count as well."""
    rank = RANKS[path.stem]
    for name in imported(path):
        assert name.split(".")[0] != "hybridworker", f"{path.name} imports {name} by its absolute name"
        if name.startswith("."):
            module = name[1:]
            assert RANKS[module] < rank, f"{path.stem} (rank {rank}) imports {module} (rank {RANKS[module]})"


@each_module
def test_only_the_doors_know_gunicorn(path: Path) -> None:
    """Worker, settings and accesslog."""
    if any(name.split(".")[0] == "gunicorn" for name in imported(path)):
        assert path.stem in DOORS


@each_module
def test_no_module_shadows_the_standard_library(path: Path) -> None:
    """gunicorn's own ``http`` has shown what comes of it."""
    assert path.stem not in sys.stdlib_module_names


@each_module
def test_a_module_has_a_docstring_and_a_bearable_length(path: Path) -> None:
    """One noun for each module."""
    assert ast.get_docstring(tree(path)), f"{path.name} has no docstring"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES, f"{path.name} has {lines} lines"


@each_module
def test_a_function_fits_a_screen(path: Path) -> None:
    """Or stands in the list, with the reason."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if f"{path.stem}.{node.name}" not in LONG_FUNCTIONS:
                assert lines <= FUNCTION_LINES, f"{path.stem}.{node.name} has {lines} lines"


@each_module
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """Public classes and functions have docstrings; protocols' methods and overridden callbacks need none."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.stem}.{node.name} has no docstring"


def test_the_public_names_of_the_package() -> None:
    """What may be imported from ``hybridworker``, and will stay."""
    assert set(hybridworker.__all__) == {"Worker", "__version__"}
    assert hybridworker.Worker.__module__ == "hybridworker.worker"
    assert hybridworker.__version__.count(".") == 2
    assert (PACKAGE / "py.typed").exists()


def test_importing_the_package_starts_nothing() -> None:
    """gunicorn imports it in the master: no loop, no thread, no signal handler."""
    program = (
        "import asyncio, signal, threading\n"
        "before = {number: signal.getsignal(number) for number in signal.valid_signals()}\n"
        "import hybridworker\n"
        "hybridworker.Worker\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert asyncio._get_running_loop() is None\n"
        "assert before == {number: signal.getsignal(number) for number in signal.valid_signals()}\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=PACKAGE.parent, timeout=60)
