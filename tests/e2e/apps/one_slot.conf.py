"""A configuration in which the scoreboard has room for one worker."""

from hybridworker.group import scoreboard

scoreboard.SLOTS, scoreboard.SLOTS_EACH = 1, 0
