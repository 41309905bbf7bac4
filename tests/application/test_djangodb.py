"""What is seen of Django's connections; a real Django is in the end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.application.djangodb import Connections


class Cursor:
    """Django's wrapper of a driver's cursor, which may tell whether it is closed."""

    def __init__(self, **cursor: Any) -> None:
        self.cursor = SimpleNamespace(**cursor)


class Connection:
    """As much of ``BaseDatabaseWrapper`` as is looked at."""

    def __init__(self) -> None:
        self.in_atomic_block, self.autocommit = False, True
        self.connection: object | None = object()
        self.settings_dict = {"AUTOCOMMIT": True}
        self.execute_wrappers: list[Any] = ["that of a block around"]
        self.closed = False

    def execute(self, cursor: Cursor) -> Any:
        return self.execute_wrappers[0](lambda *args: args, "sql", (1,), False, {"cursor": cursor, "connection": self})

    def close(self) -> None:
        self.closed = True
        raise RuntimeError("the server has gone")


def test_a_connection_is_known_once() -> None:
    """It is told of whenever it is made again; a block that was entered before takes its own wrapper away."""
    connections, connection = Connections(), Connection()
    for _ in range(3):
        connections.add(connection)
    assert connections.connections == [connection]
    assert len(connection.execute_wrappers) == 2 and connection.execute_wrappers[-1] == "that of a block around"


def test_a_transaction_is_open() -> None:
    """One of ``atomic()``, or one without autocommit; not where there is no connection."""
    connections, connection = Connections(), Connection()
    assert not connections.in_use()
    connections.add(connection)
    assert not connections.in_use()
    connection.in_atomic_block = True
    assert connections.in_use()
    connection.in_atomic_block, connection.autocommit = False, False
    assert connections.in_use()
    connection.connection = None
    assert not connections.in_use()


def test_a_cursor_is_open() -> None:
    """While it is alive, and, where it can tell, not closed. The statement passes through as it is."""
    connections, connection = Connections(), Connection()
    connections.add(connection)
    cursor = Cursor()
    context = {"cursor": cursor, "connection": connection}
    assert connection.execute(cursor) == ("sql", (1,), False, context)
    del context
    assert connections.in_use()
    del cursor
    assert not connections.in_use()
    other = Cursor(closed=False)
    connection.execute(other)
    assert connections.in_use()
    other.cursor.closed = True
    assert not connections.in_use()


@pytest.mark.parametrize("reading", [False, True])
def test_the_connections_are_closed_with_their_thread(reading: bool) -> None:
    """Whatever comes of it; not one from which a task still reads."""
    connections, connection = Connections(), Connection()
    connections.add(connection)
    cursor = Cursor()
    connection.execute(cursor)
    if not reading:
        del cursor
    connections.close()
    assert connection.closed is not reading


def test_a_real_django(tmp_path: Path) -> None:
    """Only connections of threads that have a list of them are known."""
    pytest.importorskip("django")
    program = """
        import sys
        import threading
        from django.conf import settings
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}})
        import django.db
        from hybridworker.application import djangodb

        class Thread(threading.Thread):
            connections = djangodb.Connections()
            def run(self):
                with django.db.connection.execute_wrapper(lambda execute, *args: execute(*args)):
                    cursor = django.db.connection.cursor()
                    cursor.execute("SELECT 1")
                assert self.connections.in_use()
                assert len(django.db.connection.execute_wrappers) == 1
                cursor.close()
                del cursor
                assert not self.connections.in_use()
                with django.db.transaction.atomic():
                    assert self.connections.in_use()
                assert not self.connections.in_use()
                self.connections.close()
                assert django.db.connection.connection is None
                self.passed = True

        djangodb.watch()
        djangodb.watch()
        django.db.connection.ensure_connection()
        django.db.connection.close()
        thread = Thread()
        thread.start()
        thread.join()
        assert thread.passed and len(Thread.connections.connections) == 1
    """
    path = str(tmp_path / "database")
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), path], check=True, timeout=60)
