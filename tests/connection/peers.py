"""Peers, settings of trust, and gunicorn's own request parser as the oracle where both must agree."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from hypothesis import HealthCheck
from hypothesis import settings as examples

from hybridworker.config.settings import Network, Settings

DEFAULTS = Settings.from_gunicorn(Config(), {})

PEER = ("127.0.0.1", 40000)
STRANGER = ("203.0.113.66", 40000)

# Every example is cheap; how long one takes on a busy machine proves nothing.
bounded = examples(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def configured(**changes: Any) -> Settings:
    """gunicorn's defaults, but for ``changes``."""
    return dataclasses.replace(DEFAULTS, **changes)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def oracle(config: dict[str, Any], peer: object, data: bytes) -> Request | str:
    """What gunicorn's Python parser makes of the first request of a connection: the request, or its error's name."""
    cfg = Config()
    cfg.set("http_parser", "python")
    for name, value in config.items():
        cfg.set(name, value)
    try:
        return next(RequestParser(cfg, iter([data]), peer))
    except Exception as exc:  # its own errors, and ValueErrors that it does not expect
        return type(exc).__name__
