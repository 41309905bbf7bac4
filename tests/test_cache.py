"""The policy of the caches, and that each of them keeps to it."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker import cache
from hybridworker.cache import remember
from hybridworker.connection import forwarded, response
from hybridworker.wsgi import environ, validation


def test_a_cache_that_is_full_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later is remembered all the same."""
    monkeypatch.setattr(cache, "LIMIT", 2)
    table: dict[str, int] = {}
    sizes = []
    for number, key in enumerate("abcde"):
        assert remember(table, key, number) == number
        sizes.append(len(table))
    assert sizes == [1, 2, 1, 2, 1]
    assert table == {"e": 4}


@pytest.mark.parametrize(
    ("module", "name", "fill"),
    [
        (environ, "_keys", lambda number: environ._key(b"x-%d" % number)),
        (validation, "_fields", lambda number: validation.encode_fields([("X", f"{number}")])),
        (validation, "_names", lambda number: validation.encode_fields([(f"X-{number}", "")])),
        (validation, "statuses", lambda number: validation.encode_status(f"200 {number}")),
        (response.LINES, "known", lambda number: response.encode_fields([(b"x", b"%d" % number)])),
        (forwarded, "_hops", lambda number: forwarded._hop(b"192.0.2.%d" % number)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_cache_is_bounded(module: Any, name: str, fill: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And holds what came last."""
    table: dict[Any, Any] = {}
    monkeypatch.setattr(cache, "LIMIT", 3)
    monkeypatch.setattr(module, name, table)
    sizes = []
    for number in range(7):
        fill(number)
        sizes.append(len(table))
    assert sizes == [1, 2, 3, 1, 2, 3, 1]
