"""
Identity: the id of the request that is served, for the code of the application and for its log lines.

:func:`request_id` and :class:`RequestIdFilter` are public. :mod:`.connection.requestids` takes or makes the id and puts
it into the scope, under :data:`REQUEST_ID`; what calls an application sets :data:`current` for that call. Any thread.

Invariant: this imports nothing, because applications that other servers run import it as well.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar

#: The key of a scope, and of an environ, under which the id stands; there is none where requests have no ids.
REQUEST_ID = "hybridworker.request_id"

current: ContextVar[str | None] = ContextVar(REQUEST_ID, default=None)


def request_id() -> str | None:
    """
    Return the id of the request that is served: 1 to 128 visible ASCII characters.

    It is a context variable, so it is known in the tasks of the request, in ``asyncio.to_thread`` and
    ``sync_to_async``, and in the thread of a WSGI call. None outside of a request, and where HYBRIDWORKER_REQUEST_ID
    is not set.
    """
    return current.get()


class RequestIdFilter(logging.Filter):
    """
    Gives each record the attribute ``request_id``, which is ``-`` outside of a request.

    For ``logconfig_dict``: ``"filters": {"request_id": {"()": "hybridworker.RequestIdFilter"}}``. It lets every record
    through. Invariant: it belongs on a handler. A filter of a logger does not see what its children log.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attribute."""
        record.request_id = current.get() or "-"
        return True
