"""The ASGI application of ``asgi.py``, whose import waits at a gate once the test has opened ``slow``."""

import os
from pathlib import Path

import gate
from asgi import app

__all__ = ["app"]

if Path(os.environ["GATES"], "slow").exists():
    gate.block("import")
