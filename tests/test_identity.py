"""identity: what applications import, and from where."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import hybridworker
from hybridworker.identity import current

ROOT = Path(__file__).resolve().parents[1]


def test_the_id_is_that_of_the_context() -> None:
    """None outside."""
    assert hybridworker.request_id() is None
    token = current.set("abc")
    assert hybridworker.request_id() == "abc"
    current.reset(token)
    assert hybridworker.request_id() is None


def test_the_filter_names_the_request() -> None:
    """As an attribute of each record."""
    record = logging.makeLogRecord({})
    token = current.set("abc")
    assert hybridworker.RequestIdFilter().filter(record)
    current.reset(token)
    assert vars(record)["request_id"] == "abc"


def test_importing_them_loads_nothing_else() -> None:
    """An application that another server runs needs neither gunicorn nor uvloop for them."""
    program = (
        "import sys\n"
        "from hybridworker import RequestIdFilter, request_id\n"
        "assert request_id() is None\n"
        "loaded = {'gunicorn', 'uvloop', 'httptools', 'asgiref'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=ROOT, timeout=60)
