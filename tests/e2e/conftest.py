"""
The fixtures that start gunicorn: one server for a test, or one for a whole file; and one for other programs.

Those two give a :class:`~tests.e2e.harness.Servers`; see there for what can be asked for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Servers, servers
from tests.e2e.parting import Authority
from tests.e2e.programs import Programs


@pytest.fixture
def gunicorn() -> Iterator[Servers]:
    """Starts servers that end with the test."""
    yield from _servers()


@pytest.fixture(scope="module")
def shared_gunicorn() -> Iterator[Servers]:
    """Starts servers that end with the last test of the file."""
    yield from _servers()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Starts programs that end with the test."""
    factory = Programs(tmp_path)
    try:
        yield factory
    finally:
        factory.close()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for servers, and clients that trust it."""
    return Authority(tmp_path_factory.mktemp("authority"))


def _servers() -> Iterator[Servers]:
    # Not tmp_path: the path of a unix socket must stay below about 100 bytes.
    with tempfile.TemporaryDirectory(prefix="hw-") as root:
        with servers(lambda: Path(tempfile.mkdtemp(dir=root))) as factory:
            yield factory


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what gunicorn printed when a test fails, and do not complain about it a second time."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Servers):
                for server in value.started:
                    report.sections.append(("gunicorn", server.log()))
                    server.dirty = True
    return report
