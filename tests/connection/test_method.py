"""``method.py``: what is a method, what gunicorn takes of them, and what its settings change."""

from __future__ import annotations

import pytest

from hybridworker.connection.method import is_permitted, seen_as
from hybridworker.errors import ProtocolError
from tests.harness import make_settings


@pytest.mark.parametrize("method", [b"GET", b"M-SEARCH", b"X1!", b"A" * 20])
def test_conventional_methods_stay_as_they_are(method: bytes) -> None:
    """Whatever the settings say."""
    assert seen_as(method, make_settings()) == method
    assert seen_as(method, make_settings(casefold_http_method=True)) == method


@pytest.mark.parametrize("method", [b"AB", b"A" * 21, b"get", b"Foo", b"FO#"])
def test_other_tokens_need_a_permission(method: bytes) -> None:
    """Casefolding permits nothing by itself."""
    with pytest.raises(ProtocolError, match=r"RFC 9110 9\.1"):
        seen_as(method, make_settings(casefold_http_method=True))
    permission = {"permit_unconventional_http_method": True}
    assert seen_as(method, make_settings(**permission)) == method
    assert seen_as(method, make_settings(casefold_http_method=True, **permission)) == method.upper()


@pytest.mark.parametrize("method", [b"", b"A B", b"A(B", b"A\x80", b"GET\r\n"])
def test_what_is_no_token_is_never_permitted(method: bytes) -> None:
    """RFC 9110 5.6.2."""
    assert not is_permitted(method, make_settings(permit_unconventional_http_method=True))
