"""Persistence: whether connections outlive their responses, and for how long."""

from __future__ import annotations

import pytest

from hybridworker.connection.persistence import Persistence
from tests.harness import make_settings


@pytest.mark.parametrize(("keepalive", "kept"), [(5.0, True), (0.0, False)])
def test_leaving_ends_keep_alive(keepalive: float, kept: bool) -> None:
    """From then on every response ends its connection, and an idle one has the drain window."""
    persistence = Persistence(make_settings(keepalive=keepalive, drain_window=1.5))
    assert (persistence.draining, persistence.keep_alive, persistence.idle_time) == (False, kept, keepalive)
    persistence.end()
    assert (persistence.draining, persistence.keep_alive, persistence.idle_time) == (True, False, 1.5)
