"""
Statements and their verdicts.

:func:`statements` collects the functions named after an identifier (``h21_...``) from the
chapters, in order. :func:`judge` runs one.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .servers import Subject

CHAPTERS = (
    "core",
    "http_scope",
    "http_request",
    "http_response",
    "websocket_scope",
    "websocket_events",
    "lifespan",
    "extensions",
    "extensions_files",
    "extensions_tls",
)

_NAME = re.compile(r"([chwlx]\d+)_\w+")


class NotDecidable(Exception):
    """From outside, with what this server can be told, nobody can know."""


class NotOffered(Exception):
    """The server does not announce an optional extension, as the specification allows."""


class Verdict(enum.Enum):
    """What a statement says of a server. The value is the sign in the table."""

    PASSED = "yes"
    FAILED = "no"
    NOT_OFFERED = "-"
    NOT_DECIDABLE = "?"


@dataclass(frozen=True, slots=True)
class Statement:
    """One rule: its identifier, the sentence that says it, and the function that decides it."""

    identifier: str
    sentence: str
    check: Callable[[Subject], None]


def statements() -> Iterator[Statement]:
    """Every statement, in the order of the checklist."""
    for chapter in CHAPTERS:
        module = importlib.import_module(f"{__package__}.{chapter}")
        for name, check in vars(module).items():
            match = _NAME.fullmatch(name)
            # The coroutines are the applications.
            if match and check.__module__ == module.__name__ and not inspect.iscoroutinefunction(check):
                yield Statement(match[1].upper(), " ".join(check.__doc__.split()), check)


def judge(statement: Statement, subject: Subject) -> tuple[Verdict, str]:
    """Run one statement; returns the verdict and, unless it passed, why."""
    try:
        statement.check(subject)
    except NotOffered as exc:
        return Verdict.NOT_OFFERED, str(exc)
    except NotDecidable as exc:
        return Verdict.NOT_DECIDABLE, str(exc)
    except Exception as exc:  # a connection cut amid a message is an observation as good as a wrong value
        return Verdict.FAILED, reason(exc)
    return Verdict.PASSED, ""


def reason(exc: Exception) -> str:
    """One line that says what failed: the message, or the assertion as it is written."""
    text = str(exc) or traceback.extract_tb(exc.__traceback__)[-1].line or ""
    return f"{type(exc).__name__}: {text}".splitlines()[0][:200]
