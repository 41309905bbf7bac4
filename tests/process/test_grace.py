"""Grace: which deadline holds for which reason to leave."""

from __future__ import annotations

import math

import pytest

from hybridworker.group.scoreboard import REASONS
from hybridworker.process.grace import EXIT_MAX, RELOAD_MAX, SHUTDOWN_MAX, TOLD, Grace

OWN = [reason for reason in REASONS if reason not in TOLD] + ["a later one"]


def begun(reason: str, graceful: float = 30.0, timeout: float = 60.0, **options: bool) -> Grace:
    """A worker that began to leave at 1000."""
    grace = Grace(graceful, timeout, **options)
    grace.begin(1000.0, reason)
    return grace


@pytest.mark.parametrize("reason", sorted(TOLD))
def test_one_that_was_told_to_go_has_the_graceful_timeout_for_everything(reason: str) -> None:
    """Streams too, and less a margin for leaving the process."""
    grace = begun(reason)
    assert grace.told
    assert grace.requests == 1030 - EXIT_MAX
    assert grace.stream == math.inf
    assert grace.end(1001.0) == grace.background(1001.0) == 1030 - EXIT_MAX


def test_lifespan_shutdown_has_its_part_of_it() -> None:
    """The requests end so much earlier."""
    grace = begun("term")
    grace.keep_for_shutdown()
    assert grace.requests == 1030 - EXIT_MAX - SHUTDOWN_MAX
    assert grace.end(1020.0) == 1030 - EXIT_MAX


@pytest.mark.parametrize("reason", OWN)
def test_one_that_leaves_by_itself_finishes_its_requests(reason: str) -> None:
    """``graceful_timeout`` and ``timeout``; a stream has the first, and what comes afterwards has it again."""
    grace = begun(reason)
    grace.keep_for_shutdown()
    assert not grace.told
    assert grace.requests == 1090
    assert grace.stream == 30
    assert grace.end(1080.0) == grace.background(1080.0) == 1110 - EXIT_MAX


def test_without_a_timeout_they_have_no_end() -> None:
    """As without it nothing ends a call while the worker serves."""
    assert begun("max_requests", timeout=0.0).requests == math.inf


def test_told_to_go_meanwhile_it_has_the_graceful_timeout_from_then_on() -> None:
    """But no more than it had; and being told again changes nothing."""
    grace = begun("max_requests")
    grace.begin(1010.0, "term")
    assert grace.told
    assert grace.requests == 1040 - EXIT_MAX
    grace.begin(1020.0, "term")
    assert grace.requests == 1040 - EXIT_MAX
    late = begun("max_requests")
    late.begin(1080.0, "term")
    assert late.requests == 1090
    assert late.end(1090.0) == 1110 - EXIT_MAX


def test_a_reason_of_its_own_gives_no_time_to_one_that_was_told() -> None:
    """The first that hurries it counts."""
    grace = begun("term")
    grace.begin(1001.0, "max_requests")
    assert grace.requests == 1030 - EXIT_MAX


@pytest.mark.parametrize("reason", ["reload", "term", "max_requests"])
def test_with_reload_background_work_has_a_second(reason: str) -> None:
    """For whatever reason it leaves: somebody waits for the restart."""
    grace = begun(reason, reload=True)
    assert grace.background(1005.0) == 1005 + RELOAD_MAX
    assert begun("term", graceful=0.5, reload=True).background(1000.0) == 1000.45


def test_a_graceful_timeout_of_nothing() -> None:
    """Everything is over at once."""
    grace = begun("term", graceful=0.0)
    grace.keep_for_shutdown()
    assert grace.requests == grace.end(1000.0) == 1000
