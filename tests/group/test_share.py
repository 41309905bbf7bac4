"""Share: to whom a connection belongs, and which siblings are counted on."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker.group.scoreboard import (
    AGE,
    CELLS,
    CONNECTIONS,
    IN_FLIGHT,
    STATE,
    TAKEN,
    THREADED,
    UPGRADED,
    Group,
    Slot,
    WorkerState,
)
from hybridworker.group.share import LEAD, OFFERS_MAX, Share
from tests.harness import make_settings
from tests.slots import group


def shares(*states: WorkerState, **settings: Any) -> tuple[Share, list[Slot]]:
    """That of the first worker of a group in these states, and the slots of all of them."""
    here, slots = group(*states)
    return Share(here, make_settings(workers=len(slots), **settings)), slots


@pytest.mark.parametrize(
    ("own", "siblings", "crowded"),
    [
        (0, [0], False),
        (LEAD - 1, [0], False),
        (LEAD, [0], True),
        (LEAD, [1], False),
        (5, [9, 5], False),
        (5, [9, 5 - LEAD], True),
        (5, [], False),
    ],
)
def test_a_worker_is_crowded_when_it_leads_by_two(own: int, siblings: list[int], crowded: bool) -> None:
    """So that the largest share is the smallest and two at most."""
    share, slots = shares(*[WorkerState.READY] * (1 + len(siblings)))
    for slot, load in zip(slots, [own, *siblings], strict=True):
        slot[CONNECTIONS] = load
    assert share.crowded() is crowded


def test_the_load_is_connections_and_requests_in_flight() -> None:
    """An idle connection may ask at any time, one that asks costs something now."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS] = 4
    slots[1][CONNECTIONS], slots[1][IN_FLIGHT] = 1, 1
    assert share.crowded()
    slots[1][IN_FLIGHT] = 2
    assert not share.crowded()


def test_connections_count_by_themselves_while_their_requests_have_not_come() -> None:
    """Each would look half as heavy as one that is served."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS] = 5 + LEAD
    slots[1][CONNECTIONS] = slots[1][IN_FLIGHT] = 5
    assert not share.crowded()
    assert share.crowded(fresh=True)
    assert not share.offer()
    assert share.offer(fresh=True)
    share.threads = 4  # all of its own seem free, and none of the sibling's
    assert share.crowded(fresh=True)
    slots[1][CONNECTIONS] += 1
    assert not share.crowded(fresh=True)


@pytest.mark.parametrize(
    ("threads", "own", "other", "crowded"),
    [(4, 0, 4, True), (4, 0, 5, False), (4, 3, 5, False), (4, 4, 5, True), (4, 0, 0, True), (None, 0, 5, True)],
)
def test_a_connection_is_not_offered_to_calls_that_wait_for_a_thread(
    threads: int | None, own: int, other: int, crowded: bool
) -> None:
    """While this worker has a thread to spare: idle connections are no load for it."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    share.threads = threads
    slots[0][CONNECTIONS], slots[0][IN_FLIGHT], slots[1][IN_FLIGHT] = 20, own, other
    assert share.crowded() is crowded


@pytest.mark.parametrize("state", WorkerState)
def test_only_a_sibling_that_accepts_is_given_way_to(state: WorkerState) -> None:
    """Whoever boots or leaves takes no connections, or not for long."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS] = LEAD
    slots[1][STATE] = state
    assert share.crowded() is (state in (WorkerState.READY, WorkerState.WISHING))
    assert share.has_room() is (state in (WorkerState.READY, WorkerState.WISHING))


def test_a_sibling_that_is_full_is_not_given_way_to() -> None:
    """``worker_connections`` is the same for all."""
    share, slots = shares(WorkerState.READY, WorkerState.READY, worker_connections=2)
    slots[0][CONNECTIONS] = 9
    slots[1][CONNECTIONS] = 1
    assert share.crowded()
    assert share.has_room()
    slots[1][CONNECTIONS] = 2
    assert not share.crowded()
    assert not share.has_room()


def test_a_worker_that_the_scoreboard_has_no_room_for_gives_way_too() -> None:
    """It sees the others, though they do not see it."""
    known, _ = group(WorkerState.READY, WorkerState.READY)
    own = [0] * CELLS
    own[AGE], own[CONNECTIONS] = 3, 5
    assert Share(Group(known.scoreboard, own), make_settings()).crowded()


# -- siblings that are blocked


def offers(share: Share) -> int:
    """How many offers there are before the worker takes a connection itself."""
    for count in range(2 * OFFERS_MAX):
        if not share.offer():
            return count
    raise AssertionError("there is no end to it")


def blocked(*states: WorkerState) -> tuple[Share, list[Slot]]:
    """A group whose first worker carries more than the others, which have taken nothing for long enough."""
    share, slots = shares(WorkerState.READY, *states)
    slots[0][CONNECTIONS] = 5
    assert offers(share) == OFFERS_MAX
    assert not share.crowded()
    return share, slots


def test_a_sibling_that_takes_nothing_soon_counts_no_more() -> None:
    """Whatever becomes of what it carries: it answers, and connections end, but those that wait go on waiting."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS] = 5 + OFFERS_MAX
    for load in range(OFFERS_MAX):
        slots[1][CONNECTIONS] = OFFERS_MAX - load
        assert share.offer()
    assert not share.offer()


def test_a_sibling_that_takes_what_is_offered_goes_on_being_counted_on() -> None:
    """One of three that it could have is enough."""
    share, slots = shares(WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS] = 5
    for _ in range(20):
        for _ in range(3):
            assert share.offer()
        slots[1][TAKEN] += 1


def test_a_blocked_sibling_that_takes_something_counts_again() -> None:
    """At once, with half of the patience."""
    share, slots = blocked(WorkerState.READY)
    slots[1][TAKEN] += 1
    assert offers(share) == OFFERS_MAX // 2


def test_a_blocked_sibling_gets_one_offer_at_every_tick() -> None:
    """One that is not blocked begins anew."""
    share, slots = blocked(WorkerState.READY, WorkerState.READY)
    slots[2][TAKEN] += 1
    assert share.offer()
    slots[2][CONNECTIONS] = 5
    for _ in range(2):
        share.tick()
        assert offers(share) == 1
    slots[2][CONNECTIONS] = 0
    assert offers(share) == OFFERS_MAX


def test_only_siblings_that_carry_less_are_blamed() -> None:
    """Nothing was offered to the others."""
    share, slots = shares(WorkerState.READY, WorkerState.READY, WorkerState.READY)
    slots[0][CONNECTIONS], slots[1][CONNECTIONS] = 5, 6
    assert offers(share) == OFFERS_MAX
    slots[1][CONNECTIONS] = 0
    assert offers(share) == OFFERS_MAX


def test_open_streams_of_a_hybrid_occupy_no_thread() -> None:
    """A sibling with many streams has threads to spare, and one with many calls has not."""
    here, slots = group(WorkerState.READY, WorkerState.READY)
    share = Share(here, make_settings(workers=2), threads=4, mixed=True)
    slots[0][CONNECTIONS], slots[0][IN_FLIGHT] = 16, 2
    slots[1][CONNECTIONS], slots[1][IN_FLIGHT] = 8, 8  # streams: it could take a call at once
    assert share.crowded()
    slots[1][THREADED] = 8  # calls: the next one would wait there, and not here
    assert not share.crowded()
    slots[0][THREADED] = 4
    assert share.crowded()


def test_a_worker_that_is_full_of_requests_leaves_connections_to_others() -> None:
    """However few it carries; not to one that is full as well, nor to one that is blocked."""
    share, slots = shares(WorkerState.READY, WorkerState.READY, requests_max=1)
    slots[1][CONNECTIONS] = 9
    slots[0][IN_FLIGHT] = 1
    assert share.full
    assert share.crowded()
    for _ in range(OFFERS_MAX):
        assert share.offer()
    assert not share.offer()
    slots[1][TAKEN] += 1
    assert share.offer()
    slots[1][IN_FLIGHT] = 1
    assert not share.crowded()
    assert not share.has_room()
    slots[1][UPGRADED] = slots[0][UPGRADED] = 1  # WebSockets are no requests
    assert share.has_room()
    assert not share.full
