"""A configuration in which the board has room for one worker."""

from hybridworker import fleet

fleet.SLOTS, fleet.SLOTS_EACH = 1, 0
