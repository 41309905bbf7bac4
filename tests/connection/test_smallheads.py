"""SmallHeads: which heads of HTTP/1.1 cannot exceed a limit."""

from __future__ import annotations

import pytest

from hybridworker.connection.smallheads import SmallHeads
from tests.harness import make_settings


@pytest.mark.parametrize("sizes", [(300, 400, 500), (500, 300, 400), (400, 500, 300)])
def test_a_small_head_is_below_every_limit(sizes: tuple[int, int, int]) -> None:
    """The least of the three limits in bytes, and a request line and an empty line more than fields."""
    names = ("limit_request_line", "limit_request_field_size", "max_head_size")
    limits = SmallHeads(make_settings(limit_request_fields=5, **dict(zip(names, sizes, strict=True))))
    assert (limits.small, limits.lines, limits.short) == (300, 7, 20)


def test_every_head_is_scanned_where_heads_are_rewritten() -> None:
    """No size is small enough."""
    assert SmallHeads(make_settings(strip_header_spaces=True)).small == 0
