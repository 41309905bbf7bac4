"""
Which methods a request may have, in any version of HTTP.

A method is a token, and its case matters (RFC 9110 9.1). gunicorn takes fewer unless a setting permits the rest. Pure.
"""

from __future__ import annotations

import re

from ..config.settings import Settings
from ..errors import ProtocolError
from .response import TOKEN

#: What gunicorn takes of tokens by default.
_CONVENTIONAL = re.compile(rb"[!$%&'*+\-.^_`|~0-9A-Z]{3,20}")


def is_permitted(method: bytes, settings: Settings) -> bool:
    """Whether a request may have this method: ``permit_unconventional_http_method``."""
    allowed = TOKEN if settings.permit_unconventional_http_method else _CONVENTIONAL
    return allowed.fullmatch(method) is not None


def seen_as(method: bytes, settings: Settings) -> bytes:
    """
    The method as the application is to see it: ``casefold_http_method``.

    Raises :class:`~.errors.ProtocolError` for one that is not permitted.
    """
    if not is_permitted(method, settings):
        raise ProtocolError("the method is none (RFC 9110 9.1), or one that is not permitted")
    return method.upper() if settings.casefold_http_method else method
