"""The checklist against hybridworker: one test per statement, and a failure is a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .registry import NotDecidable, Statement, statements
from .servers import Subject

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """hybridworker under gunicorn, started when the first statement needs it."""
    directory: Path = tmp_path_factory.mktemp("checklist")
    with Subject("hybridworker", directory) as subject:
        yield subject


def _test(statement: Statement) -> Callable[[Subject], None]:
    def test(subject: Subject) -> None:
        try:
            statement.check(subject)  # an extension that is not announced is a failure too
        except NotDecidable as exc:
            pytest.skip(str(exc))

    test.__doc__ = statement.sentence
    return test


for _statement in statements():
    globals()[f"test_{_statement.check.__name__}"] = _test(_statement)
