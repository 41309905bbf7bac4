"""The extra ``http2``: what of the package there is without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hybridworker


def test_without_the_extra_everything_else_can_be_imported() -> None:
    """gunicorn refuses ``http_protocols`` with h2 then; a worker that does not speak it needs no part of it."""
    program = (
        "import sys\n"
        "sys.modules['h2'] = sys.modules['hpack'] = sys.modules['hyperframe'] = None\n"
        "import hybridworker.worker, hybridworker.process.program, hybridworker.process.server\n"
        "assert not any(name.startswith('hybridworker.http2.') for name in sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, cwd=Path(hybridworker.__file__).parent.parent
    )


def test_of_the_extra_only_the_tables_of_hpack_are_imported() -> None:
    """Neither the h2 package nor the codec of hpack runs in a worker."""
    program = (
        "import sys\n"
        "import hybridworker.process.negotiation\n"
        "assert 'h2' not in sys.modules\n"
        "from hybridworker.http2 import hpack\n"
        "assert hpack.Decoder.__module__ == 'hybridworker.http2.hpack'\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, cwd=Path(hybridworker.__file__).parent.parent
    )
