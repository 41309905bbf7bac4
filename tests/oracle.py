"""gunicorn as an oracle: which one the tests compare this worker with."""

from __future__ import annotations

import gunicorn
import pytest

#: For what is compared with gunicorn's own parsers, workers and messages.
of_gunicorn_27 = pytest.mark.skipif(
    gunicorn.version_info < (27,),
    reason=f"gunicorn {gunicorn.__version__} is served, but what is compared here is what gunicorn 27 does",
)
