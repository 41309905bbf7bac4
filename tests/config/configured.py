"""Settings of a configuration and an environment, for the tests of each module."""

from __future__ import annotations

from typing import Any

import gunicorn
import pytest
from gunicorn.config import Config

from hybridworker.config.settings import Settings, check
from hybridworker.errors import ConfigurationError

MIB = 1024 * 1024
#: Settings that came with a gunicorn newer than the oldest supported one.
NEW = {"http2_cleartext", "websocket_max_message_size"}


def config(**values: Any) -> Any:
    """gunicorn's configuration with some settings. Skips the test where this gunicorn is too old to have one."""
    cfg = Config()
    for name, value in values.items():
        if name in NEW and name not in cfg.settings:
            pytest.skip(f"gunicorn {gunicorn.__version__} has no {name}")
        cfg.set(name, value)
    return cfg


def read(environ: dict[str, str] | None = None, **values: Any) -> Settings:
    """The settings of a worker with these of gunicorn's, in this environment alone."""
    return Settings.from_gunicorn(config(**values), environ or {})


def refusal(environ: dict[str, str] | None = None, **values: Any) -> str:
    """The one line with which a configuration is refused, by the master and by a worker alike."""
    with pytest.raises(ConfigurationError) as by_worker:
        read(environ, **values)
    with pytest.raises(ConfigurationError) as by_master:
        check(config(**values), environ or {})
    assert str(by_master.value) == str(by_worker.value)
    assert "\n" not in str(by_worker.value)
    return str(by_worker.value)
