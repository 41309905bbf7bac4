"""
HeadLimits: which heads of HTTP/1.1 cannot exceed a limit, whatever is in them.

Such a head goes to the parser as it came, without the scanner that counts its lines. One for a worker.
"""

from __future__ import annotations

from ..config.settings import Settings


class HeadLimits:
    """
    A head of at most ``small`` bytes that comes in one piece exceeds no limit if it has at most ``lines`` lines, or
    ``short`` bytes. ``small`` is 0 where each head is scanned, and parsed when it is whole.
    """

    __slots__ = ("lines", "short", "small")

    def __init__(self, settings: Settings) -> None:
        longest = min(settings.limit_request_line, settings.limit_request_field_size, settings.max_head_size)
        self.small = 0 if settings.rewrites_heads else longest
        self.lines = settings.limit_request_fields + 2
        self.short = 4 * settings.limit_request_fields  #: cannot be more lines: `a:` and CRLF are one
