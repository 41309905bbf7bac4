"""The views, with gunicorn's own request and response as the oracle."""

from __future__ import annotations

from typing import Any

import gunicorn
import pytest

from hybridworker.log.views import RequestView, ResponseView
from tests.log.bench import CLIENTS, REQUESTS, VIEWED, Bench, Exchange, of_gunicorn, scope_of


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS.keys())
@pytest.mark.parametrize("request_bytes", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_view_shows_what_gunicorns_request_shows(request_bytes: bytes, client: Any, bench: Bench) -> None:
    """Each attribute that hooks use equals that of gunicorn's own request object."""
    req, _, _ = of_gunicorn(request_bytes, client, bench.cfg)
    view = RequestView(scope_of(request_bytes, client))
    for name in [*VIEWED, "trailers", "proxy_protocol_info"]:
        assert getattr(view, name) == getattr(req, name), name
    assert view.body is None


def test_the_view_shows_a_proxy_header(bench: Bench) -> None:
    """The addresses of the PROXY protocol are those that gunicorn's request object has."""
    bench.set(proxy_protocol="v1", proxy_allow_ips="*")
    request = REQUESTS["plain"]
    req, _, _ = of_gunicorn(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n" + request, ("10.0.0.1", 5), bench.cfg)
    proxy = {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "192.0.2.1", "PROXY_PORT": "443"}
    view = RequestView(scope_of(request, **{"hybridworker.proxy": proxy}))
    assert view.proxy_protocol_info == req.proxy_protocol_info


@pytest.mark.parametrize(
    ("status", "reason", "shown", "length"),
    [
        (200, None, "200 OK", 5),
        (299, b"Own", "299 Own", 5),
        (299, None, "299", 5),
        (204, None, "204 No Content", None),
        (None, None, None, 5),
    ],
)
def test_the_response_is_shown(status: Any, reason: bytes | None, shown: str | None, length: int | None) -> None:
    """The phrase is the application's or the registered one; a 204 has no length."""
    view = ResponseView(Exchange({}, status, reason, [(b"Content-length", b"5"), (b"x-a", b"\xe9")], 5))
    assert (view.status, view.status_code, view.sent, view.version) == (shown, status, 5, gunicorn.SERVER)
    assert view.response_length == length
    assert view.headers == [("Content-length", "5")] * (length is not None) + [("x-a", "é")]
