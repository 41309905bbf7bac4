"""
Share: does a connection belong to this worker, or to a sibling that carries less?

All workers of a group accept from the same sockets, and the kernel wakes all of them for each
connection. :class:`~.server.Server` asks the :class:`Share` before it accepts, and waits for
a moment when the answer is that a sibling should have it. What the siblings carry is read
from the scoreboard. Event loop side only.

Invariant: a connection is offered to siblings, never reserved for one. A sibling that does
not accept costs the others a few milliseconds, and then one a second.
"""

from __future__ import annotations

from ..config.settings import Settings
from .scoreboard import ACCEPTING, AGE, CONNECTIONS, IN_FLIGHT, STATE, TAKEN, THREADED, UPGRADED, Group, Slot

#: How much more than a sibling a worker carries when it offers connections to that sibling. With a lead of 1, every
#: second short-lived connection would be offered, and each offer costs a millisecond.
LEAD = 2

#: After so many offers of which it took none, a sibling counts as blocked. The count is halved when it takes one. To
#: forget it then made half as many offers again for short-lived connections, which cost 9 % of CPU time. Each sibling
#: has its own count, because one for all does not do: with one of four workers blocked, 300 connections waited for
#: 150 ms in all instead of 23 to 50, and the three others got shares that were 74 connections apart instead of 2.
OFFERS_MAX = 8


class Share:
    """
    What a fair share is for one worker.

    The load of a worker is its connections and its requests in flight. ``threads`` is how
    many calls a WSGI worker runs at once, None for an ASGI application. ``mixed`` says that not
    all requests need a thread: an open stream of an ASGI part occupies none.
    """

    __slots__ = ("calls", "group", "offers", "settings", "threads")

    def __init__(self, group: Group, settings: Settings, threads: int | None = None, mixed: bool = False) -> None:
        self.group = group
        self.settings = settings
        self.threads = threads
        self.calls = THREADED if mixed else IN_FLIGHT  #: the cell that says how many calls need a thread
        #: age of a sibling -> how many connections it had accepted at the last offer, and the count of its offers
        self.offers: dict[int, tuple[int, int]] = {}

    def tick(self) -> None:
        """Once a second: a blocked sibling gets one more offer."""
        self.offers = {
            age: (taken, OFFERS_MAX - 1) for age, (taken, count) in self.offers.items() if count == OFFERS_MAX
        }

    def crowded(self, fresh: bool = False) -> bool:
        """
        Whether a sibling carries less than this worker, and could take a connection.

        ``fresh`` says that this worker has just accepted connections whose requests may not
        have come in yet. They are not in flight and would make it look less loaded than it
        is, so it is enough then if it leads by its connections alone. Without this, a burst
        of 40 requests of 0.3 s over two workers was split 16 to 24.
        """
        slot = self.group.slot
        if slot[CONNECTIONS] + slot[IN_FLIGHT] < LEAD and not self.full:
            return False  # the commonest case
        for sibling in self.group.siblings:
            if self._comes_first(sibling, fresh):
                return True
        return False

    def offer(self, fresh: bool = False) -> bool:
        """Offer a connection to the siblings that :meth:`crowded` is about. Returns whether there are any."""
        lighter = [sibling for sibling in self.group.siblings if self._comes_first(sibling, fresh)]
        for sibling in lighter:
            age, taken = sibling[AGE], sibling[TAKEN]
            before, count = self.offers.get(age, (taken, 0))
            self.offers[age] = taken, (count if taken == before else count // 2) + 1
        return bool(lighter)

    def has_room(self) -> bool:
        """Whether a sibling accepts, and has room for a connection and for a request."""
        return any(self._accepts(sibling) for sibling in self.group.siblings)

    @property
    def full(self) -> bool:
        """Whether this worker has as many requests as ``HYBRIDWORKER_REQUESTS_MAX`` allows."""
        return not self._has_room(self.group.slot)

    def _has_room(self, slot: Slot) -> bool:
        return slot[IN_FLIGHT] - slot[UPGRADED] < self.settings.requests_max

    def _accepts(self, sibling: Slot) -> bool:
        room = sibling[CONNECTIONS] < self.settings.worker_connections and self._has_room(sibling)
        return room and sibling[STATE] in ACCEPTING

    def _comes_first(self, sibling: Slot, fresh: bool) -> bool:
        """Whether ``sibling`` carries less than this worker, and would serve a connection as soon."""
        slot = self.group.slot
        lead = slot[CONNECTIONS] - sibling[CONNECTIONS]
        full = not self._has_room(slot)
        if lead + slot[IN_FLIGHT] - sibling[IN_FLIGHT] < LEAD and not (fresh and lead >= LEAD) and not full:
            return False
        if not self._accepts(sibling) or self.offers.get(sibling[AGE]) == (sibling[TAKEN], OFFERS_MAX):
            return False
        if full:
            return True  # a request would be turned away here
        # Idle connections need no thread, so a sibling with few connections may still have calls that wait for one,
        # while this worker has a thread to spare. Connections that are fresh may need it, though: a burst of 40 calls
        # of 0.1 s over two workers of 8 threads was split 9 to 31 without that.
        return self.threads is None or fresh or not slot[self.calls] < self.threads < sibling[self.calls]
