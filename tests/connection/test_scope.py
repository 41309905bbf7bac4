"""Scopes: targets, paths, addresses."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker.connection.scope import (
    decode_path,
    http_scope,
    http_template,
    normal_address,
    split_target,
    websocket_scope,
)
from hybridworker.errors import ProtocolError


@pytest.mark.parametrize(
    ("method", "target", "path", "query", "authority"),
    [
        (b"GET", b"/", b"/", b"", None),
        (b"GET", b"/a/b?c=d?e", b"/a/b", b"c=d?e", None),
        (b"GET", b"//a/b", b"//a/b", b"", None),
        (b"GET", b"/http://evil/", b"/http://evil/", b"", None),
        (b"OPTIONS", b"*", b"*", b"", None),
        (b"GET", b"http://x/p/q?r", b"/p/q", b"r", b"x"),
        (b"GET", b"HTTPS://x:80", b"/", b"", b"x:80"),
        (b"GET", b"http://x?a=/b", b"/", b"a=/b", b"x"),
        (b"GET", b"http://[::1]:80/", b"/", b"", b"[::1]:80"),
    ],
)
def test_h5_h7_h8_h9_targets(method: bytes, target: bytes, path: bytes, query: bytes, authority: bytes | None) -> None:
    """RFC 9112 3.2: the forms of a target, each with a plain path."""
    assert split_target(method, target) == (path, query, authority)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"GET", b"*", 400),
        (b"GET", b"x:80", 400),
        (b"GET", b"a/b", 400),
        (b"GET", b"?a", 400),
        (b"GET", b"/#a", 400),
        (b"GET", b"http://x/#a", 400),
        (b"GET", b"http:///p", 400),
        (b"GET", b"http://user@x/p", 400),
        (b"GET", b"ftp://x/p", 400),
        (b"CONNECT", b"x:80", 501),
        (b"CONNECT", b"/", 501),
    ],
)
def test_h9_targets_that_are_refused(method: bytes, target: bytes, status: int) -> None:
    """Whatever is none of the four forms, or not ours to serve."""
    with pytest.raises(ProtocolError) as info:
        split_target(method, target)
    assert info.value.status == status


def test_h6_a_path_that_is_not_utf8_is_replaced() -> None:
    """``raw_path`` keeps the bytes."""
    assert decode_path(b"/a%20b/%C3%A9/%FF") == "/a b/é/�"


@pytest.mark.parametrize(
    ("address", "server", "normal"),
    [
        (("127.0.0.1", 80), False, ("127.0.0.1", 80)),
        (("::1", 80, 0, 0), False, ("::1", 80)),
        (("fe80::1%eth0", 80, 0, 2), True, ("fe80::1", 80)),
        ("", False, None),
        ("/run/x.sock", True, ("/run/x.sock", None)),
        (b"\0name", True, ("\0name", None)),
        ("", True, None),
        (None, False, None),
    ],
)
def test_h16_h17_h18_addresses(address: Any, server: bool, normal: Any) -> None:
    """Host and port, without the parts of IPv6 that mean something on one machine only; a unix socket by its path."""
    assert normal_address(address, server) == normal


def scope(**changes: Any) -> Any:
    template = http_template("http", ("c", 1), ("s", 2), "/root")
    made = http_scope(template, "1.1", "GET", b"/a%20b", b"q", b"/a%20b?q", [(b"a", b"b")])
    made.update(changes)
    return made


def test_h1_to_h20_an_http_scope() -> None:
    """Every key of the specification, and one of our own for the access log."""
    made = scope()
    assert made.pop("extensions").keys() == {
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.zerocopysend",
    }
    assert made == {
        "type": "http",
        "state": None,  # the application has one
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"q",
        "root_path": "/root",
        "headers": [(b"a", b"b")],
        "client": ("c", 1),
        "server": ("s", 2),
        "hybridworker.target": b"/a%20b?q",
    }


def test_w1_w3_a_websocket_scope() -> None:
    """The method goes, the subprotocols of all lines come, in order and stripped."""
    headers = [(b"sec-websocket-protocol", b"a, b"), (b"sec-websocket-protocol", b" c ,, "), (b"x", b"d")]
    made = websocket_scope(scope(headers=headers))
    assert made["type"] == "websocket"
    assert made["scheme"] == "ws"
    assert made["subprotocols"] == ["a", "b", "c"]
    assert "method" not in made
    assert made["extensions"] == {"websocket.http.response": {}}
    made = websocket_scope(scope(scheme="https", extensions={"tls": {"server_cert": None}}))
    assert made["scheme"] == "wss"
    assert made["extensions"] == {"websocket.http.response": {}, "tls": {"server_cert": None}}
    assert made["subprotocols"] == []
