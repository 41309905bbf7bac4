"""Inventory: every setting and variable once, with the value in force."""

from __future__ import annotations

from typing import Any

from gunicorn.config import Config

from hybridworker.config.gunicornsettings import SETTINGS, Fate
from hybridworker.config.inventory import Entry, inventory
from hybridworker.config.variables import VARIABLES
from tests.config.configured import config


def entries(cfg: Any, environ: dict[str, str] | None = None) -> dict[str, Entry]:
    """By name."""
    found = [entry for _, group in inventory(cfg, environ or {}) for entry in group]
    assert len({entry.name for entry in found}) == len(found)
    return {entry.name: entry for entry in found}


def test_everything_is_there() -> None:
    """Each setting of this gunicorn, and each variable."""
    assert set(entries(Config())) == set(Config().settings) | set(VARIABLES)


def test_what_is_changed_is_marked() -> None:
    """With the value in force, and the remark of the reference."""
    found = entries(config(threads=8), {"HYBRIDWORKER_HEALTH_PATH": " /health "})
    assert found["threads"] == Entry("threads", "8", True, SETTINGS["threads"].remark)
    assert not found["timeout"].changed
    path = VARIABLES["HYBRIDWORKER_HEALTH_PATH"]
    assert found["HYBRIDWORKER_HEALTH_PATH"] == Entry("HYBRIDWORKER_HEALTH_PATH", "/health", True, path.remark)
    assert found["HYBRIDWORKER_HEADER_TIMEOUT"].value == "15 s"
    assert found["HYBRIDWORKER_METRICS_PATH"].value == "off"


def test_a_value_is_one_line() -> None:
    """A hook is its name."""

    def post_fork(server: Any, worker: Any) -> None: ...

    found = entries(config(post_fork=post_fork, access_log_format="a\nb"), {"HYBRIDWORKER_INTERFACE": "a\x1b\nsgi"})
    assert found["post_fork"].value.endswith("post_fork()")
    assert found["access_log_format"].value == r"'a\nb'"
    assert found["HYBRIDWORKER_INTERFACE"].value == r"a\x1b\nsgi"


def test_secrets_of_the_environment_are_not_shown() -> None:
    """What is printed goes into reports."""
    found = entries(config(raw_env=["SECRET_KEY=abc", "HYBRIDWORKER_SLOW_LOOP=2"]))
    assert found["raw_env"].value == "['SECRET_KEY=...', 'HYBRIDWORKER_SLOW_LOOP=2']"


def test_a_setting_of_a_newer_gunicorn_is_shown_as_such() -> None:
    """It is not left out."""
    cfg = Config()
    cfg.settings["brand_new"] = cfg.settings["threads"]
    *_, (heading, unknown), _ = inventory(cfg, {})
    assert heading == "Settings of a newer gunicorn"
    assert [entry.name for entry in unknown] == ["brand_new"]


def test_each_fate_has_a_heading() -> None:
    """In the order of the README."""
    headings = [heading for heading, _ in inventory(Config(), {})]
    assert len(headings) == len(Fate) + 1
