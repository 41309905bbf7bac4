"""Error pages: what stands in an answer that this worker makes itself."""

from __future__ import annotations

import pytest

from hybridworker.connection.errorpages import error_page, error_response


def test_an_error_page_names_its_status() -> None:
    """Small, complete, and without anything that came from the request."""
    assert b"<title>404 Not Found</title>" in error_page(404)
    assert b"<title>299 </title>" in error_page(299)


@pytest.mark.parametrize("with_body", [True, False])
def test_an_error_response_is_whole(with_body: bool) -> None:
    """Its length is that of the page, also when the page is left out for HEAD, and it ends the connection."""
    page = error_page(400)
    sent = error_response(400, b"Server: s\r\n", extra=b"A: b\r\n", body=with_body)
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 400 Bad Request",
        b"Content-Type: text/html; charset=utf-8",
        b"Content-Length: %d" % len(page),
        b"Server: s",
        b"Connection: close",
        b"A: b",
    ]
    assert rest == (page if with_body else b"")
