"""A configuration in which the board has room for one worker."""

from hybridworker.fleet import Board

Board.__init__.__defaults__ = (1,)
