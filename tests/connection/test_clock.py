"""Clock: the time of the last tick, and the response fields that follow it."""

from __future__ import annotations

import pytest

from hybridworker.connection.clock import Clock


def test_a_tick_moves_the_clock_and_the_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a second is enough for both. Both are there before the first tick."""
    clock = Clock(b"mine", 3.0, exact=False)
    assert clock.now == 3.0
    assert clock.fields.startswith(b"Server: mine\r\nDate: ")
    monkeypatch.setattr("time.time", lambda: 784111777.0)
    clock.tick(12.5)
    assert clock.now == 12.5
    assert clock.fields == b"Server: mine\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
