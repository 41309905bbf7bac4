"""
RunningCall and LostCall: what reports are told of a call in a thread.

:mod:`.threads` runs calls, and threads are lent to ASGI applications as well. A module of its own, so that a worker
without a WSGI application need not load the threads for it.
"""

from __future__ import annotations

from types import FrameType
from typing import NamedTuple

#: How the names of threads begin that are lent to ASGI applications.
LENT = "lent-"


class RunningCall(NamedTuple):
    """One call in a thread."""

    thread: int  #: ``threading.get_ident()`` of its thread
    label: str
    started: float  #: ``time.monotonic()``


class LostCall(NamedTuple):
    """A call that goes on in its thread although its time is up."""

    thread: str  #: the name of its thread
    label: str
    age: float  #: seconds for which the thread has run it
    frame: FrameType | None
