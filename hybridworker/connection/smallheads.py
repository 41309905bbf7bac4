"""
SmallHeads: a quick test that a head of HTTP/1.1 is too small to break any limit.

No limit is enforced here. A head that passes the test goes straight to the parser. Any other goes through
:class:`~.http11.scanner.HeadScanner`, which counts and measures its lines. (:mod:`..http2.head` and
:mod:`..uwsgi.head` have their own checks.) One for a worker.
"""

from __future__ import annotations

from ..config.settings import Settings


class SmallHeads:
    """
    A head needs no scanner if all of it comes in one piece, it has at most ``small`` bytes, and it has either at most
    ``lines`` lines or at most ``short`` bytes (too few for more lines than that). ``small`` is 0 where settings permit
    heads that the parser would not take as they come: then every head is scanned, and parsed only when all of it is
    there.
    """

    __slots__ = ("lines", "short", "small")

    def __init__(self, settings: Settings) -> None:
        longest = min(settings.limit_request_line, settings.limit_request_field_size, settings.max_head_size)
        self.small = 0 if settings.rewrites_heads else longest
        self.lines = settings.limit_request_fields + 2
        self.short = 4 * settings.limit_request_fields  #: cannot be more lines: `a:` and CRLF are one
