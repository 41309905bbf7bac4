"""CommonEnvirons: what environs have in common, by how the server was reached."""

from __future__ import annotations

import sys

import pytest

from hybridworker import cache
from hybridworker.wsgi.commonenviron import CommonEnvirons
from hybridworker.wsgi.environ import request_environ
from tests.wsgicall import make_scope, make_settings


def made(part: str = "") -> CommonEnvirons:
    """Of an application with gunicorn's defaults."""
    return CommonEnvirons(make_settings(), sys.stderr, "server/1", part)


@pytest.mark.parametrize(("version", "protocol"), [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")])
def test_what_follows_from_the_connection(version: str, protocol: str) -> None:
    """Address, scheme and version are in, beside what is the same for all."""
    common = made()[("192.0.2.1", 8443), "https", version]
    assert common["SERVER_NAME"] == "192.0.2.1"
    assert common["SERVER_PORT"] == "8443"
    assert common["SERVER_PROTOCOL"] == protocol
    assert common["wsgi.url_scheme"] == "https"
    assert common["SERVER_SOFTWARE"] == "server/1"


def test_kinds_are_told_apart_and_remembered() -> None:
    """Another scheme is another dictionary, the same kind the same one."""
    environs = made()
    plain, encrypted = environs[None, "http", "1.1"], environs[None, "https", "1.1"]
    assert (plain["wsgi.url_scheme"], encrypted["wsgi.url_scheme"]) == ("http", "https")
    assert environs[None, "http", "1.1"] is plain


def test_the_part_of_a_hybrid() -> None:
    """Its name is in each environ, and no name where there are no parts."""
    assert made("shop")[None, "http", "1.1"]["hybridworker.part"] == "shop"
    assert "hybridworker.part" not in made()[None, "http", "1.1"]


@pytest.mark.parametrize("part", ["", "shop"])
def test_copy_has_room_for_the_fields_of_a_request(part: str) -> None:
    """It need not grow for each request, and shows nothing of that room."""
    common = made(part)[("192.0.2.1", 8000), "http", "1.1"]
    fields = [(b"x-%d" % number, b"") for number in range(8)]
    environ = request_environ(make_scope(headers=fields), "", common)
    assert sys.getsizeof(environ) == sys.getsizeof(common.copy())
    assert all(key.isupper() or "." in key for key in common)


def test_kinds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forwarder may name many schemes."""
    monkeypatch.setattr(cache, "LIMIT", 2)
    environs = made()
    sizes = []
    for number in range(4):
        _ = environs[("a", number), "http", "1.1"]
        sizes.append(len(environs))
    assert sizes == [1, 2, 1, 2]
