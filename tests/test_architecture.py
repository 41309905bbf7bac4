"""
The plan of the house, read from its source.

The package consists of wings, which are its folders. A wing imports only from wings below it, and a module of a wing
only from modules below it in the table. So each can be understood by reading downwards. A new module is added to the
table on purpose. The other rules of the plan are checked here as well, with their exceptions and the reasons.
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

#: The wings, highest first. Each consists of levels, highest first; ``""`` is the package itself, in pieces.
WINGS: tuple[tuple[str, tuple[set[str], ...]], ...] = (
    ("", ({"__init__", "__main__"},)),
    ("commands", ({"check", "settings", "top"}, {"source"}, {"samples", "screen"})),
    ("", ({"worker"},)),
    (
        "process",
        (
            {"program"},
            {"certificates", "lifespans"},
            {"endpoints", "lifespan", "memory", "server", "slowrequests", "watchdog"},
            {"negotiation", "report"},
            {"boot", "bootretry", "exit", "foreignloops", "grace", "leftovers", "listener", "signals", "streams"},
            {"patches"},
        ),
    ),
    ("uwsgi", ({"protocol"}, {"head"}, {"packet"})),
    ("http11", ({"protocol"}, {"connection"}, {"carrier"}, {"cycle", "refusal"}, {"head"}, {"rewriting"}, {"scanner"})),
    (
        "http2",
        (
            {"protocol"},
            {"cycle", "tunnel"},
            {"outbox"},
            {"framereader", "stream"},
            {"budget", "head", "history", "owner", "partial", "response"},
            {"hpack"},
            {"wire"},
        ),
    ),
    ("websocket", ({"protocol"}, {"frames", "inbox"}, {"deflate", "handshake", "liveness"})),
    (
        "connection",
        (
            {"cycle", "fields", "method", "refusal", "requesttimeouts"},
            {"files", "peer"},
            {"context", "proxyheader", "sendfile"},
            {"admission", "clock", "router"},
            {"ending", "forwarded", "pace", "requestids", "scope", "tls", "turn"},
            {"errorpages", "persistence", "quota", "smallheads", "vocabulary"},
            {"flow", "response"},
            {"accepted", "kernel", "waiters"},
        ),
    ),
    (
        "application",
        (
            {"assembly", "parts"},
            {"application", "inspection"},
            {"hybrid"},
            {"dispatcher"},
            {"detect", "directory", "lending"},
            {"lentthreads", "wrappers"},
            {"djangodb"},
        ),
    ),
    ("log", ({"access", "hooks"}, {"jsonline"}, {"skip", "views"})),
    ("group", ({"share", "succession"}, {"leadership", "scoreboard"}, {"durations", "ledger"})),
    (
        "wsgi",
        (
            {"middleware"},
            {"responder"},
            {"clientsocket", "commonenviron", "handoff", "threads", "validation"},
            {"callrecords", "environ", "spool", "streams", "waits"},
        ),
    ),
    ("config", ({"commandline", "inventory", "settings"}, {"gunicornsettings", "variables"}, {"atoms"})),
    ("", ({"asgi", "cache", "callcontext", "errors", "standing", "states"}, {"identity"})),
)

#: Module -> its rank: the place of its wing, then its level there. Lower numbers are higher in the house.
RANKS = {
    f"{wing}.{module}" if wing else module: (place, level)
    for place, (wing, levels) in enumerate(WINGS)
    for level, modules in enumerate(levels)
    for module in modules
}

#: The doors to gunicorn. Behind them nobody knows it, and nobody reads its ``cfg``.
DOORS = {"worker", "log", "config"}

#: Who writes to a transport: what speaks a protocol, and files. All else gives its bytes to one of these.
WRITERS = {
    "connection.flow",
    "connection.sendfile",
    "http11.carrier",
    "http11.cycle",
    "http11.connection",
    "http2.outbox",
    "websocket.handshake",
    "websocket.protocol",
}

MODULE_LINES = 500
FUNCTION_LINES = 60
ATTRIBUTES = 20
SET_IN_CONSTRUCTOR = 16
PARAMETERS = 6

#: What may be longer than a screen, each with its reason.
LONG_FUNCTIONS: dict[str, str] = {}

FOR_EACH_REQUEST = "one is made for each request, and a second object beside it costs 2 % of a hello"

#: Classes with more attributes than one keeps in mind, each with its reason.
MANY_ATTRIBUTES = {
    "config.settings.Settings": "a table of values",
    "connection.cycle.RequestResponseCycle": FOR_EACH_REQUEST,
    "http11.cycle.HTTP11Cycle": FOR_EACH_REQUEST,
    "http2.cycle.HTTP2Cycle": FOR_EACH_REQUEST,
    "wsgi.handoff.Handoff": FOR_EACH_REQUEST,
    "wsgi.responder.WSGIResponder": FOR_EACH_REQUEST,
}

#: Constructors that set more than one reads at a glance, each with its reason.
LONG_CONSTRUCTORS = {
    "connection.context.WorkerContext": "what all connections share is named in one place",
    "connection.cycle.RequestResponseCycle": FOR_EACH_REQUEST,
    "process.program.Program": "what runs in the loop is named in one place",
    "process.server.Server": "counters and sets that begin empty",
    "websocket.protocol.WebSocketProtocol": "the beginning of a state that many callbacks share",
    "wsgi.handoff.Handoff": FOR_EACH_REQUEST,
    "wsgi.threads.ThreadPool": "queues and sets that begin empty",
}

#: Functions with more parameters than one tells apart at the call, each with its reason.
MANY_PARAMETERS = {
    "connection.context.WorkerContext.__init__": "by keyword only",
    "connection.scope.http_scope": "the keys of a scope, in order",
    "wsgi.middleware.WSGIMiddleware.__init__": "by keyword only",
}

#: Classes with one subclass in the package, each with its reason.
ONE_SUBCLASS = {
    "ConfigurationError": "an exception",
    "WSGIApplication": "gunicorn's",
}


def modules() -> list[Path]:
    """Every module of the package, but for the ``__init__`` of each wing, which only says what the wing is."""
    return sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__" or path.parent == PACKAGE)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, wherever the statement stands: those of the package behind a dot."""
    wing = list(path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1 + len(wing), f"{path.name} imports from above the package"
            parent = [*wing[: len(wing) - node.level + 1], *([node.module] if node.module else [])]
            if ".".join(parent) in RANKS:
                yield "." + ".".join(parent)
            else:  # from . import name
                yield from ("." + ".".join([*parent, alias.name]) for alias in node.names)


def is_a_door(path: Path) -> bool:
    return name_of(path).split(".")[0] in DOORS


each_module = pytest.mark.parametrize("path", modules(), ids=name_of)


def test_the_table_names_every_module_and_no_other() -> None:
    """Nothing is without a rank, and a wing has no wings."""
    assert {name_of(path) for path in modules()} == set(RANKS)


def test_a_wing_says_what_it_is() -> None:
    """In one docstring, and its ``__init__`` holds nothing else."""
    for wing in {wing for wing, _ in WINGS if wing}:
        init = tree(PACKAGE / wing / "__init__.py")
        assert ast.get_docstring(init), f"{wing} does not say what it is"
        assert len(init.body) == 1, f"{wing}/__init__.py holds code"


@each_module
def test_imports_go_strictly_downwards(path: Path) -> None:
    """To a lower wing, or to a lower level of the same one; those inside of functions count as well."""
    module = name_of(path)
    for name in imported(path):
        assert name.split(".")[0] != "hybridworker", f"{module} imports {name} by its absolute name"
        if name.startswith("."):
            assert RANKS[name[1:]] > RANKS[module], f"{module} {RANKS[module]} imports {name[1:]} {RANKS[name[1:]]}"


@each_module
def test_only_the_doors_know_gunicorn(path: Path) -> None:
    """Worker, settings and the access log."""
    if any(name.split(".")[0] == "gunicorn" for name in imported(path)):
        assert is_a_door(path)


@each_module
def test_only_the_doors_read_the_configuration(path: Path) -> None:
    """Everybody else gets :class:`Settings`."""
    reads = any(
        isinstance(node, ast.Attribute) and (getattr(node.value, "id", "") or getattr(node.value, "attr", "")) == "cfg"
        for node in ast.walk(tree(path))
    )
    assert not reads or is_a_door(path)


def test_few_modules_write_to_a_transport() -> None:
    """What was given to ``send()`` leaves at once, so nobody may write beside those who know what is due."""
    writes = {"write", "writelines", "write_eof"}
    found = {
        name_of(path)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and node.attr in writes
        if "transport" in {getattr(node.value, "id", ""), getattr(node.value, "attr", "")}
    }
    assert found == WRITERS


@each_module
def test_no_module_shadows_the_standard_library(path: Path) -> None:
    """gunicorn's own ``http`` has shown what comes of it."""
    assert path.stem not in sys.stdlib_module_names
    assert path.parent.name not in sys.stdlib_module_names


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
            if f"{name_of(path)}.{node.name}" not in LONG_FUNCTIONS:
                assert lines <= FUNCTION_LINES, f"{path.stem}.{node.name} has {lines} lines"


class Shape:
    """What a class consists of, read from its source."""

    def __init__(self, name: str, node: ast.ClassDef) -> None:
        self.name = name
        self.bases = [getattr(base, "id", getattr(base, "attr", "")) for base in node.bases]
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
        self.attributes = {attribute for method in methods for attribute in set_on_self(method)}
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                self.attributes.add(item.target.id)
            elif isinstance(item, ast.Assign) and getattr(item.targets[0], "id", "") == "__slots__":
                self.attributes |= {str(part.value) for part in ast.walk(item.value) if isinstance(part, ast.Constant)}
        self.constructed = {
            attribute for method in methods if method.name == "__init__" for attribute in set_on_self(method)
        }

    def all_attributes(self, shapes: dict[str, Shape]) -> set[str]:
        """Its own and those of its bases in the package."""
        return self.attributes.union(*(shapes[base].all_attributes(shapes) for base in self.bases if base in shapes))


def set_on_self(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and getattr(node.value, "id", "") == "self"
        ):
            yield node.attr


def classes() -> dict[str, Shape]:
    """Every class of the package by its name, but for descriptions of others."""
    return {
        node.name: Shape(f"{name_of(path)}.{node.name}", node)
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and "Protocol" not in {getattr(base, "id", "") for base in node.bases}
    }


def test_a_class_can_be_kept_in_mind() -> None:
    """Or stands in the list, with the reason. What its bases in the package have counts as its own."""
    shapes = classes()
    many = {shape.name for shape in shapes.values() if len(shape.all_attributes(shapes)) > ATTRIBUTES}
    assert many == set(MANY_ATTRIBUTES)


def test_a_constructor_is_read_at_a_glance() -> None:
    """Or stands in the list, with the reason."""
    long = {shape.name for shape in classes().values() if len(shape.constructed) > SET_IN_CONSTRUCTOR}
    assert long == set(LONG_CONSTRUCTORS)


def test_a_call_is_understood_without_the_signature() -> None:
    """Or the function stands in the list, with the reason."""
    many = set()
    for path in modules():
        for owner in ast.walk(tree(path)):
            for node in getattr(owner, "body", []) if isinstance(owner, ast.Module | ast.ClassDef) else []:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    if sum(parameter.arg not in ("self", "cls") for parameter in taken) > PARAMETERS:
                        prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
                        many.add(f"{name_of(path)}.{prefix}{node.name}")
    assert many == set(MANY_PARAMETERS)


def test_a_class_is_a_base_of_several() -> None:
    """In the package or in its tests; halves of one thing are no bases. Or it stands in the list, with the reason."""
    subclasses: dict[str, list[Path]] = {name: [] for name in classes()}
    for path in [*modules(), *Path(__file__).parent.rglob("*.py")]:
        for node in ast.walk(tree(path)):
            for base in node.bases if isinstance(node, ast.ClassDef) else []:
                subclasses.get(getattr(base, "id", getattr(base, "attr", "")), []).append(path)
    halves = {name for name, paths in subclasses.items() if len(paths) == 1 and paths[0].is_relative_to(PACKAGE)}
    assert halves == set(ONE_SUBCLASS)


@each_module
def test_what_is_public_says_what_it_is(path: Path) -> None:
    """Public classes and functions have docstrings; protocols' methods and overridden callbacks need none."""
    for node in tree(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.stem}.{node.name} has no docstring"


def test_the_public_names_of_the_package() -> None:
    """What may be imported from ``hybridworker``, and will stay."""
    assert set(hybridworker.__all__) == {
        "Decision", "Hybrid", "Interface", "RequestIdFilter", "Worker", "__version__", "as_asgi", "as_wsgi",
        "is_leaving", "leading", "request_id", "slot",
    }  # fmt: skip
    assert hybridworker.Worker.__module__ == "hybridworker.worker"
    assert hybridworker.__version__.count(".") == 2
    assert (PACKAGE / "py.typed").exists()
    wings_and_modules = {part for module in RANKS for part in module.split(".")}
    assert set(hybridworker.__all__).isdisjoint(wings_and_modules)


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
