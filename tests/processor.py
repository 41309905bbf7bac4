"""Bounds of processor time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """
    Fail where the block takes more processor time than that.

    Without the tracer, where the coverage is measured: that takes most of the time.
    """
    tracer = sys.gettrace()
    sys.settrace(None)
    started = time.process_time()
    try:
        yield
    finally:
        spent = time.process_time() - started
        sys.settrace(tracer)
    assert spent < seconds
