"""``liveness.py``: when to ping a peer, and when to give it up; no loop, no clock."""

from __future__ import annotations

import math

from hybridworker.websocket.liveness import LATE, Liveness, Verdict

ALIVE, PING, DEAD = Verdict.ALIVE, Verdict.PING, Verdict.DEAD


def ticks(peer: Liveness, *times: float, paused: bool = False) -> list[Verdict]:
    return [peer.tick(time, paused) for time in times]


def test_w13_a_peer_is_pinged_at_every_interval() -> None:
    """Whether it talks or not."""
    peer = Liveness(3, 100)
    asked = []
    for second in range(101, 113):
        peer.heard = True
        asked.append(peer.tick(second, False))
    assert asked == [ALIVE, ALIVE, PING] * 4


def test_w13_a_peer_that_answers_nothing_is_dead() -> None:
    """When it has been silent for an interval after the ping."""
    peer = Liveness(3, 100)
    assert ticks(peer, 101, 102, 103, 104, 105, 106) == [ALIVE, ALIVE, PING, ALIVE, ALIVE, DEAD]


def test_any_byte_is_an_answer() -> None:
    """At the last moment, too; the next ping is another question."""
    peer = Liveness(3, 100)
    ticks(peer, 101, 102, 103, 104, 105)
    peer.heard = True
    assert ticks(peer, 106, 107, 108, 109) == [PING, ALIVE, ALIVE, DEAD]


def test_a_stalled_loop_does_not_blame_the_peer() -> None:
    """A late tick runs before what came meanwhile is read; only the ticks after it count."""
    peer = Liveness(3, 100)
    assert ticks(peer, 101, 102, 103) == [ALIVE, ALIVE, PING]
    assert ticks(peer, 103 + LATE) == [ALIVE]
    assert ticks(peer, 203) == [PING]
    assert ticks(peer, 204, 205) == [ALIVE, ALIVE]
    assert ticks(peer, 206) == [DEAD]


def test_a_pause_of_reading_does_not_blame_the_peer() -> None:
    """What it says waits in the kernel; only the time after the pause counts."""
    peer = Liveness(3, 100)
    assert ticks(peer, *range(101, 110), paused=True) == [ALIVE, ALIVE, PING] * 3
    assert ticks(peer, 110, 111, 112) == [ALIVE, ALIVE, DEAD]


def test_no_pings() -> None:
    """``HYBRIDWORKER_WS_PING_INTERVAL`` 0."""
    assert set(ticks(Liveness(math.inf, 0), *range(1, 1000))) == {ALIVE}
