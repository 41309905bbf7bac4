"""
Inventory: every setting of gunicorn and every variable of ours, with the value in force.

Pure, but for the environment that it is given. :mod:`.gunicornsettings` and :mod:`.variables` have the remarks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .gunicornsettings import SETTINGS, Fate, is_changed
from .variables import PREFIX, VARIABLES

#: Groups of settings, in the order printed, and what stands above them.
HEADINGS = {
    Fate.OBEYED: "Settings of gunicorn that this worker obeys",
    Fate.GUNICORN: "Settings that are gunicorn's own, and work unchanged",
    Fate.REFUSED: "Settings that have no effect with this worker",
}


class Entry(NamedTuple):
    """One setting: its value as one line of text, whether it is another than the default, and its remark."""

    name: str
    value: str
    changed: bool
    remark: str


def inventory(cfg: Any, environ: Mapping[str, str]) -> Iterator[tuple[str, list[Entry]]]:
    """Headings and what stands under each, for gunicorn's ``cfg`` and the variables in ``environ``."""
    for fate, heading in HEADINGS.items():
        names = [name for name, row in SETTINGS.items() if row.fate is fate and name in cfg.settings]
        yield heading, [_setting(cfg, name, SETTINGS[name].remark) for name in names]
    unknown = sorted(set(cfg.settings) - set(SETTINGS))
    if unknown:
        yield "Settings of a newer gunicorn", [_setting(cfg, name, "not known to this version") for name in unknown]
    yield "Variables of hybridworker", [_variable(name, environ) for name in VARIABLES]


def _setting(cfg: Any, name: str, remark: str) -> Entry:
    value = cfg.settings[name].get()
    if name == "raw_env":  # passwords and keys are given so, and what is printed here goes into reports
        value = [item if item.startswith(PREFIX) else item.partition("=")[0] + "=..." for item in value]
    return Entry(name, shown(value), is_changed(cfg, name), remark)


def _variable(name: str, environ: Mapping[str, str]) -> Entry:
    variable = VARIABLES[name]
    text = environ.get(name, "").strip()
    value = text or variable.default
    unit = f" {variable.unit}" if variable.unit and value else ""
    return Entry(name, ascii(value)[1:-1] + unit if value else "off", bool(text), variable.remark)


def shown(value: object) -> str:
    """A value as one line; of a function, its name."""
    if callable(value):
        return f"{getattr(value, '__qualname__', type(value).__qualname__)}()"
    return " ".join(repr(value).split())
