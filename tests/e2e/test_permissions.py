"""Methods of any name, and gunicorn's settings that permit what a request ought not to hold."""

from __future__ import annotations

import json

import pytest

from tests.e2e.harness import Servers

pytestmark = pytest.mark.e2e


def test_a_method_of_any_name(gunicorn: Servers) -> None:
    """It reaches the application and the access log; one that gunicorn refuses is refused."""
    server = gunicorn("wsgi:app", "--access-logfile", "-")
    with server.connect() as client:
        for method in "FOOBAR", "GET", "X-1.2!":
            assert json.loads(client.request("/environ/", method).body)["REQUEST_METHOD"] == method
    assert server.request(method="FOObar").status == 400
    server.wait_log(r'"FOOBAR /environ/ HTTP/1.1" 200')
    server.wait_log(r'"FOObar / HTTP/1.1" 400')


def test_what_is_permitted(gunicorn: Servers) -> None:
    """All of it at once, and nothing of it is a warning."""
    options = (
        "--permit-unconventional-http-method",
        "--casefold-http-method",
        "--permit-unconventional-http-version",
        "--permit-obsolete-folding",
        "--strip-header-spaces",
    )
    server = gunicorn("wsgi:app", *options)
    with server.connect() as client:
        client.send("foo# /environ/ HTTP/2.3\r\nHost \t: x\r\nX-Long: one\r\n  two\r\n\r\n")
        environ = json.loads(client.response().body)
    assert environ["REQUEST_METHOD"] == "FOO#"
    assert environ["SERVER_PROTOCOL"] == "HTTP/2.3"
    assert environ["HTTP_X_LONG"] == "one two"
    assert environ["HTTP_HOST"] == "x"
    assert "[WARNING]" not in server.log()
