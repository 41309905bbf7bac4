"""The vocabulary of ASGI."""

from __future__ import annotations

from hybridworker.asgi import logged_target


def test_a_log_shows_the_target_as_received() -> None:
    """What is not printable ASCII is escaped: a hook of the user's may have put it there."""
    every = bytes(range(256))
    printable = bytes(range(32, 127)).decode()
    shown = logged_target({"hybridworker.target": b"/caf%C3%A9%0A?x=1%0d" + every})
    assert shown.startswith("/caf%C3%A9%0A?x=1%0d\\x00\\x01")
    assert printable in shown
    assert shown.isprintable()
    assert shown.isascii()
    assert len(shown.splitlines()) == 1
