"""uvicorn's worker with some ``CONFIG_KWARGS``, which is how its users set what gunicorn has no setting for."""

from __future__ import annotations

import json
import os
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):  # type: ignore[misc, unused-ignore]  # not every environment has it
    """As ``COMPARE_CONFIG_KWARGS`` says."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        **json.loads(os.environ["COMPARE_CONFIG_KWARGS"]),
    }
