"""
README.rst says what the code says.

The tables of settings and of variables are those of ``settings.py``, word for word; the
commands exist; the names of the examples are those of the folder. ``python -m
tests.test_readme`` prints the tables as the README should have them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from gunicorn.config import Config

from hybridworker.config.atoms import NAMES
from hybridworker.config.reference import SETTINGS, Fate
from hybridworker.config.settings import Settings
from hybridworker.config.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[1]

#: Heading above the table of each fate, in the README's order.
HEADINGS = {
    Fate.OBEYED: "Obeyed by this worker",
    Fate.GUNICORN: "gunicorn's own, unchanged",
    Fate.REFUSED: "Not possible with this worker",
}


def readme() -> str:
    return (ROOT / "README.rst").read_text(encoding="utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], widths: str) -> str:
    """A ``list-table`` of reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in [header, *rows]:
        for number, cell in enumerate(row):
            lines.append(f"   {'* -' if number == 0 else '  -'} {cell}".rstrip())
    return "\n".join(lines) + "\n"


def names(group: Iterable[str]) -> str:
    return ", ".join(f"``{name}``" for name in group)


def settings_table(fate: Fate) -> str:
    """gunicorn's settings of one fate; those that share a remark stand in one row."""
    remarks: dict[str, list[str]] = {}
    for name, row in SETTINGS.items():
        if row.fate is fate:
            remarks.setdefault(row.remark, []).append(name)
    return table(("Setting", "Remark"), ((names(group), remark) for remark, group in remarks.items()), "30 70")


def variables_table() -> str:
    """Our own variables."""
    rows = (
        (f"``{name}``", f"{variable.default} {variable.unit}".strip() or "off", variable.kind.allowed, variable.remark)
        for name, variable in VARIABLES.items()
    )
    return table(("Variable", "Default", "Allowed", "Meaning"), rows, "28 8 24 40")


def atoms_table() -> str:
    """What the atoms of the access log are called in a line of JSON."""
    rows = [(f"``{atom}``", f"``{name}``", meaning) for atom, (name, meaning) in NAMES.items()]
    return table(("Atom", "Name", "Value"), rows, "12 18 70")


def test_the_names_in_a_line_of_json() -> None:
    """Every atom has its row."""
    assert atoms_table() in readme()


@pytest.mark.parametrize("fate", Fate, ids=lambda fate: fate.name)
def test_the_settings_of_gunicorn(fate: Fate) -> None:
    """Every setting has its row under the right heading."""
    heading = HEADINGS[fate]
    assert f"{heading}\n{'~' * len(heading)}\n" in readme()
    assert settings_table(fate) in readme().partition(f"\n{heading}\n")[2]


def test_the_variables() -> None:
    """Every variable has its row, and no other is mentioned."""
    assert variables_table() in readme()
    mentioned = set(re.findall(r"HYBRIDWORKER_[A-Z_]+[A-Z]", readme()))
    assert mentioned == set(VARIABLES)


def test_the_limits_and_security_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of a worker for which nothing is configured."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    heading = "Limits and security defaults"
    section = " ".join(readme().partition(f"\n{heading}\n")[2].partition("\nMeasured\n")[0].split())
    settings = Settings.from_gunicorn(Config(), {})
    for text in (
        f"Complete within {settings.header_timeout:g} s",
        f"{settings.limit_request_line} bytes at most",
        f"at most {settings.limit_request_fields} fields of {settings.limit_request_field_size} bytes",
        f"stalls for {settings.body_timeout:g} s",
        f"takes no byte for {settings.write_timeout:g} s",
        f"{settings.worker_connections} in each worker",
        f"may be idle for {settings.keepalive:g} s",
        f"{(settings.websocket_max_message_size or 0) >> 20} MiB at most",
        f"one in {settings.ws_ping_interval:g} s",
    ):
        assert text in section
    assert [str(network) for network in settings.forwarded_networks or ()] == ["127.0.0.1/32", "::1/128"]
    assert (settings.proxy_protocol, settings.header_map) == ("off", "drop")


def test_every_target_of_make_is_there() -> None:
    """What the README calls by ``make`` exists, and ``make help`` lists it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == listed
    assert set(re.findall(r"(?:``|^    )make ([a-z-]+)", readme(), re.MULTILINE)) <= listed


def test_every_example_is_named() -> None:
    """The list of examples is complete."""
    examples = {path.name for path in (ROOT / "examples").iterdir() if path.name != "__pycache__"}
    for name in examples:
        assert f"``{name}``" in readme(), f"{name} is not in the README"


def test_the_lowest_gunicorn_is_stated() -> None:
    """The README and pyproject.toml agree on it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (lowest,) = [
        requirement.partition(">=")[2]
        for requirement in project["dependencies"]
        if requirement.startswith("gunicorn>=")
    ]
    assert f"gunicorn {lowest} or later" in readme()
    assert f"Python {project['requires-python'].removeprefix('>=')} or later" in readme()


if __name__ == "__main__":
    for fate, heading in HEADINGS.items():
        sys.stdout.write(f"{heading}\n{'~' * len(heading)}\n\n{settings_table(fate)}\n")
    sys.stdout.write(variables_table())
    sys.stdout.write(f"\n{atoms_table()}")
