"""The table of gunicorn's settings."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from gunicorn.config import KNOWN_SETTINGS

from hybridworker.config import gunicornsettings
from hybridworker.config.gunicornsettings import SETTINGS, Fate
from hybridworker.config.settings import Settings, check
from tests.config.configured import MIB, NEW, config, refusal


def test_every_setting_of_gunicorn_has_a_row() -> None:
    """A new gunicorn's new setting must be thought about."""
    known = {setting.name for setting in KNOWN_SETTINGS}
    assert known - SETTINGS.keys() == set()
    assert SETTINGS.keys() - known <= NEW


def test_no_setting_has_two_rows() -> None:
    """The table is made from groups; a name in two of them would hide one."""
    names = [name for remarks in gunicornsettings._REMARKS.values() for group in remarks for name in group.split()]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert all(row.remark for row in SETTINGS.values())


def test_every_setting_read_is_obeyed() -> None:
    """A field that has the name of a setting belongs to one that is obeyed; only ``workers`` is gunicorn's as well."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    for name in fields & SETTINGS.keys() - {"workers"}:
        assert SETTINGS[name].fate is Fate.OBEYED, name


def test_defaults_give_no_warning() -> None:
    """A boot without configuration is quiet."""
    assert check(config(), {}) == []


WARNED: list[tuple[str, object, object]] = [
    ("suppress_ragged_eofs", False, False),
]


@pytest.mark.parametrize(("name", "value", "shown"), WARNED)
def test_a_refused_setting_is_one_warning(name: str, value: object, shown: object) -> None:
    """A value other than the default warns, with the reason of the table; the default, set explicitly, does not."""
    remark = SETTINGS[name].remark
    assert check(config(**{name: value}), {}) == [f"{name}={shown!r} has no effect with this worker: {remark}"]
    default = next(setting for setting in KNOWN_SETTINGS if setting.name == name).default
    assert check(config(**{name: default}), {}) == []


def test_every_refused_setting_warns() -> None:
    """The cases above are all refused settings there are."""
    assert {name for name, row in SETTINGS.items() if row.fate is Fate.REFUSED} == {name for name, _, _ in WARNED}


def test_settings_of_others_do_not_warn() -> None:
    """What gunicorn does by itself, and what is obeyed, may have any value."""
    assert check(config(http_parser="python", tmp_upload_dir="/tmp", timeout=1, threads=4, backlog=1), {}) == []


@pytest.mark.parametrize("name", ["fastcgi", "HTTP", ""])
def test_a_protocol_that_would_be_misread_stops_the_boot(name: str) -> None:
    """gunicorn would take it for HTTP. The line says what there is."""
    assert refusal({}, protocol=name) == f"protocol={name!r} must be http or uwsgi"


def test_an_older_gunicorn_may_lack_a_setting() -> None:
    """What is not there neither warns nor fails, and has the default of a newer gunicorn."""
    older = config()
    for name in NEW:
        older.settings.pop(name, None)
    assert check(older, {}) == []
    assert Settings.from_gunicorn(older, {}).websocket_max_message_size == 16 * MIB
