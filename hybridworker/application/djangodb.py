"""
Django's database connections in a lent thread: what is still open there.

A connection belongs to its thread, and the thread goes from one call of the application to the
next. It may do so only while no transaction and no cursor of the last call is open on its
connections: see :class:`~.lentthreads.Lender`. Django tells of each connection that it makes by
its signal ``connection_created``, and of each statement by ``execute_wrappers`` (documented as
"Database instrumentation"). So nothing of Django is replaced, and where Django is not loaded
nothing happens here.

Invariant: :meth:`Connections.in_use` only reads attributes. The loop asks it, and Django lets no
other thread than its own use a connection.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any


class Connections:
    """The connections that Django has made in one thread, and the cursors that are alive there."""

    __slots__ = ("connections", "cursors")

    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.cursors: weakref.WeakSet[Any] = weakref.WeakSet()

    def add(self, connection: Any) -> None:
        """Know of ``connection``, a ``BaseDatabaseWrapper``. It is made again whenever it was closed."""
        if not any(known is connection for known in self.connections):
            self.connections.append(connection)
            # In front: execute_wrapper(), which may have been entered already, takes the last one away at its end.
            connection.execute_wrappers.insert(0, self._execute)

    def _execute(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self.cursors.add(context["cursor"])
        return execute(sql, params, many, context)

    def in_use(self) -> bool:
        """
        Whether a transaction or a cursor is open.

        A cursor of sqlite3 does not tell whether it was closed, and counts as long as it is alive.
        """
        return any(map(_in_transaction, self.connections)) or self._read()

    def _read(self) -> bool:
        return bool(self.cursors) and any(not getattr(c.cursor, "closed", False) for c in list(self.cursors))

    def close(self) -> None:
        """The thread ends: close the connections, unless a task still reads from one. Thread side."""
        if not self._read():
            for connection in self.connections:
                with contextlib.suppress(Exception):  # it is broken, and nobody will use it again
                    connection.close()


def _in_transaction(connection: Any) -> bool:
    if connection.in_atomic_block:
        return True
    return connection.connection is not None and connection.autocommit != connection.settings_dict["AUTOCOMMIT"]


def watch() -> None:
    """Have Django tell of the connections that it makes from now on. May be called again."""
    if "django.db" in sys.modules:
        signals = importlib.import_module("django.db.backends.signals")
        signals.connection_created.connect(_created, dispatch_uid=__name__)


def _created(connection: Any, **_: Any) -> None:
    connections = getattr(threading.current_thread(), "connections", None)
    if isinstance(connections, Connections):
        connections.add(connection)
