"""
Call context: the context (``contextvars``) of a call of the application, for what is logged of it elsewhere.

Filters and formatters of the user's find the id of a request in the current context. The loop
logs WSGI calls, which run in threads, and requests whose task is suspended, or over; it does so
in a copy of the context of the call. For WSGI the two sides share the scope:

    thread side    WSGIResponder.run puts the living context of the thread into the scope; when the response is
                   complete, or the call has failed, a copy takes its place
    loop side      variables_of returns a copy of whichever is there

Neither side takes a lock. Invariant: a thread puts a copy into the scope before its next call begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context
from typing import Any

#: The key of a scope under which a WSGI call leaves its variables.
VARIABLES = "hybridworker.variables"


def variables_of(scope: Mapping[str, Any], default: Context) -> Context:
    """
    Return a copy of the variables of the request of ``scope``, and of ``default`` where no thread has begun with it.

    A copy, because a context that is entered, here by a task or by a thread, cannot be entered again.
    """
    while True:
        variables: Context = scope.get(VARIABLES, default)
        copy = variables.copy()
        # If the scope names another one by now, the thread's may have had the variables of its next call.
        if scope.get(VARIABLES, default) is variables:
            return copy
