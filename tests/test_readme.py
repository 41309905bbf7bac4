"""
README.rst says what the code says.

The table of variables is that of ``variables.py``, word for word, and so are the names in a line of JSON; the commands
exist; the names of the examples are those of the folder. ``python -m tests.test_readme`` prints the table as the README
should have it.
"""

from __future__ import annotations

import csv
import io
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from gunicorn.config import Config

from hybridworker.config.atoms import NAMES
from hybridworker.config.gunicornsettings import SETTINGS, Fate
from hybridworker.config.settings import Settings
from hybridworker.config.variables import VARIABLES

ROOT = Path(__file__).resolve().parents[1]

#: More would not be read. What is not for everybody is printed by ``python -m hybridworker settings``.
LINES = 650


def readme() -> str:
    return (ROOT / "README.rst").read_text(encoding="utf-8")


def table(rows: Iterable[Sequence[str]], widths: str) -> str:
    """A ``csv-table`` of reStructuredText, whose first row is the header."""
    lines = [".. csv-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    lines.extend("   " + ", ".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows)
    return "\n".join(lines) + "\n"


def variables_table() -> str:
    """Our own variables."""
    rows = (
        (f"``{name}``", f"{variable.default} {variable.unit}".strip() or "off", variable.kind.allowed, variable.remark)
        for name, variable in VARIABLES.items()
    )
    return table([("Variable", "Default", "Allowed", "Meaning"), *rows], "28 8 24 40")


def test_it_is_short_enough_to_be_read() -> None:
    """A page that one scrolls through, not a book."""
    assert len(readme().splitlines()) < LINES


def test_the_names_in_a_line_of_json() -> None:
    """Every atom of the access log has its name, in a table."""
    table = readme().partition("The atoms and their names:")[2].partition(".. csv-table::\n\n")[2].partition("\n\n")[0]
    cells = [cell for row in csv.reader(io.StringIO(table), skipinitialspace=True) for cell in row if cell]
    pairs = zip(cells[::2], cells[1::2], strict=True)
    assert [*pairs] == [(f"``{atom}``", name) for atom, (name, _) in NAMES.items()]


def test_the_settings_of_gunicorn_that_are_not_possible() -> None:
    """Each of them is named where the README says what differs."""
    section = readme().partition("\ngunicorn's settings\n")[2].partition("\nDetection\n")[0]
    possible, _, rest = section.partition("* Not possible: ")
    assert possible
    refused = {name for name, row in SETTINGS.items() if row.fate is Fate.REFUSED}
    assert set(re.findall(r"``([a-z_0-9]+)``", rest.partition(". Without effect")[0])) == refused


def test_the_variables() -> None:
    """Every variable has its row, and no other is mentioned."""
    assert variables_table() in readme()
    mentioned = set(re.findall(r"HYBRIDWORKER_[A-Z_]+[A-Z]", readme()))
    assert mentioned == set(VARIABLES)


def test_the_limits_and_security_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are those of a worker for which nothing is configured."""
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    heading = "Limits and security defaults"
    section = " ".join(readme().partition(f"\n{heading}\n")[2].partition("\nTroubleshooting\n")[0].split())
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
    sys.stdout.write(variables_table())
