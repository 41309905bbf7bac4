"""
Rows, and what they find.

:func:`rows` collects the functions that :func:`row` marks, group by group. Invariant: a "no" is what a row has
observed and says with :func:`no`; whatever else goes wrong is :attr:`Sign.UNKNOWN`, and no statement on a server.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .servers import Subject

#: The modules of the groups, in the order of the table.
GROUPS = ("protocols", "applications", "limits", "restarts", "watching", "proxies")


class Sign(enum.Enum):
    """What a row says of a server. The value stands in the table."""

    YES = "yes"
    NO = "no"
    PARTLY = "partly"
    NOT_ASKED = "-"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Answer:
    """A sign, and in a few words what was seen."""

    sign: Sign
    detail: str = ""


class NotAsked(Exception):
    """The question makes no sense for this server; the argument says why."""


def yes(detail: str = "") -> Answer:
    """It does."""
    return Answer(Sign.YES, detail)


def no(detail: str) -> Answer:
    """It does not, and this was seen instead."""
    return Answer(Sign.NO, detail)


def partly(detail: str) -> Answer:
    """It does some of it."""
    return Answer(Sign.PARTLY, detail)


Trial = Callable[["Subject"], Answer]


@dataclass(frozen=True, slots=True)
class Row:
    """One question: ``short`` is its title in the README, for the few that stand there."""

    name: str
    title: str
    how: str
    group: str
    trial: Trial
    short: str = ""


_TITLES: dict[Trial, tuple[str, str]] = {}


def row(title: str, short: str = "") -> Callable[[Trial], Trial]:
    """Mark a function as a row with this title."""

    def mark(trial: Trial) -> Trial:
        _TITLES[trial] = title, short
        return trial

    return mark


def rows() -> list[Row]:
    """Every row, in the order of the table."""
    found = []
    for name in GROUPS:
        module = importlib.import_module(f"{__package__}.{name}")
        for trial in vars(module).values():
            if inspect.isfunction(trial) and trial in _TITLES and trial.__module__ == module.__name__:
                title, short = _TITLES[trial]
                how = " ".join((trial.__doc__ or "").split())
                found.append(Row(trial.__name__.replace("_", "-"), title, how, module.GROUP, trial, short))
    return found


def chosen(names: Iterable[str]) -> list[Row]:
    """The rows of these names, or all where there are none; ValueError for a name that no row has."""
    every = rows()
    wanted = set(names)
    if unknown := wanted - {row.name for row in every}:
        raise ValueError(f"no row {', '.join(sorted(unknown))}; python -m tests.compare list shows them")
    return [row for row in every if not wanted or row.name in wanted]


def judge(row: Row, subject: Subject) -> Answer:
    """Try a row."""
    try:
        return row.trial(subject)
    except NotAsked as exc:
        return Answer(Sign.NOT_ASKED, str(exc))
    except Exception as exc:
        place = traceback.extract_tb(exc.__traceback__)[-1]
        text = str(exc) or place.line or ""
        return Answer(Sign.UNKNOWN, f"{type(exc).__name__}: {text}".splitlines()[0][:300])
