"""request_environ: the CGI keys, compared with what gunicorn's own WSGI code makes of the same request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from gunicorn.config import Config
from gunicorn.http import wsgi

from hybridworker import cache
from hybridworker.wsgi import environ
from hybridworker.wsgi.environ import request_environ, server_environ
from tests.wsgicall import make_scope


def gunicorn_environ(scope: Any, monkeypatch: pytest.MonkeyPatch, script_name: str = "") -> dict[str, Any]:
    """What gunicorn's threaded worker gives an application for the request of ``scope``."""
    monkeypatch.setenv("SCRIPT_NAME", script_name)
    target = scope["hybridworker.target"].decode("latin-1")
    parts = urlsplit("//x" + target) if target.startswith("/") else urlsplit(target)
    proxy = scope.get("hybridworker.proxy")
    client = scope["client"]
    info = proxy and {
        "proxy_protocol": proxy["PROXY_PROTOCOL"],
        "client_addr": client[0],
        "client_port": client[1],
        "proxy_addr": proxy["PROXY_ADDR"],
        "proxy_port": proxy["PROXY_PORT"],
    }
    request = SimpleNamespace(
        method=scope["method"],
        query=parts.query,
        uri=target,
        path=parts.path,
        version=tuple(int(number) for number in scope["http_version"].split(".")),
        headers=[(name.decode().upper(), value.decode("latin-1")) for name, value in scope["headers"]],
        scheme=scope["scheme"],
        proxy_protocol_info=info,
        _expected_100_continue=False,
        body=None,
    )
    server = scope["server"] if scope["server"][1] is not None else scope["server"][0]
    _, result = wsgi.create(request, None, client or "", server, Config())
    return {key: value for key, value in result.items() if "." not in key and key != "SERVER_SOFTWARE"}


UNIX: dict[str, Any] = {"client": None, "server": ("/run/app.sock", None)}

SAME: dict[str, Any] = {
    "tcp": make_scope(b"/a/b?x=1&y=%20"),
    "no headers": make_scope(b"/", headers=[], http_version="1.0"),
    "ipv6": make_scope(client=("::1", 40000), server=("::1", 8000)),
    "percent": make_scope(b"/caf%C3%A9/%FF/%2F/a+b"),
    "double slash": make_scope(b"//a//b"),
    "absolute form": {**make_scope(b"/p/q?r"), "hybridworker.target": b"http://example.org/p/q?r"},
    "asterisk": make_scope(b"*", method="OPTIONS"),
    "content": make_scope(
        method="POST", headers=[(b"content-type", b"text/plain"), (b"content-length", b"5"), (b"x-a", b"1")]
    ),
    "repeated": make_scope(headers=[(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-a", b"")]),
    "latin-1": make_scope(headers=[(b"x-a", b"caf\xe9 \xff")]),
    "chunked": make_scope(method="POST", headers=[(b"transfer-encoding", b"chunked")]),
    "unix": make_scope(**UNIX),
    "unix with a port": make_scope(headers=[(b"host", b"example.org:8080")], **UNIX),
    "unix https": make_scope(scheme="https", **UNIX),
    "proxy": {
        **make_scope(client=("192.0.2.1", 5000)),
        "hybridworker.proxy": {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "192.0.2.2", "PROXY_PORT": "80"},
    },
    "proxy on unix": {
        **make_scope(client=("192.0.2.1", 5000), server=("/run/app.sock", None)),
        "hybridworker.proxy": {"PROXY_PROTOCOL": "TCP6", "PROXY_ADDR": "::1", "PROXY_PORT": "80"},
    },
    "script name of a forwarder": make_scope(b"/api/x", headers=[(b"host", b"x"), (b"script_name", b"/api")]),
    "script name that is the path": make_scope(b"/api", headers=[(b"script_name", b"/api")]),
    "script name with a slash": make_scope(b"/api/x", headers=[(b"script_name", b"/api/")]),
    "empty script name of a forwarder": make_scope(b"/x", headers=[(b"script_name", b"")]),
}


@pytest.mark.parametrize("name", SAME)
def test_environ_is_that_of_gunicorn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys and values are those of gunicorn's threaded worker (S2, S3, S6)."""
    assert request_environ(SAME[name]) == gunicorn_environ(SAME[name], monkeypatch)


@pytest.mark.parametrize("path", [b"/mount/a", b"/mount", b"/mount/%2F"])
def test_mount_point_of_the_settings(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix goes from PATH_INFO to SCRIPT_NAME, before percent-decoding."""
    scope = make_scope(path)
    assert request_environ(scope, "/mount") == gunicorn_environ(scope, monkeypatch, "/mount")


def test_forwarder_wins_over_the_settings() -> None:
    """A SCRIPT_NAME field from a trusted forwarder takes the place of the configured mount point."""
    scope = make_scope(b"/b/x", headers=[(b"script_name", b"/b")])
    result = request_environ(scope, "/a")
    assert (result["SCRIPT_NAME"], result["PATH_INFO"], result["HTTP_SCRIPT_NAME"]) == ("/b", "/x", "/b")


def test_last_script_name_wins() -> None:
    """Of several SCRIPT_NAME fields the last one counts, as in gunicorn."""
    scope = make_scope(b"/b/x", headers=[(b"script_name", b"/a"), (b"script_name", b"/b")])
    assert request_environ(scope)["SCRIPT_NAME"] == "/b"


def test_script_name_with_a_hyphen_is_an_ordinary_field() -> None:
    """Only the name with an underscore passed the header policy; Script-Name is anybody's."""
    result = request_environ(make_scope(b"/evil/x", headers=[(b"script-name", b"/evil")]))
    assert (result["SCRIPT_NAME"], result["PATH_INFO"]) == ("", "/evil/x")


@pytest.mark.parametrize("path", [b"/", b"/other/x", b"/mounted"])
def test_path_outside_of_the_mount_point(path: bytes) -> None:
    """A path that is not below the mount point has no SCRIPT_NAME, and is whole."""
    result = request_environ(make_scope(path), "/mount")
    assert "SCRIPT_NAME" not in result
    assert result["PATH_INFO"] == path.decode()


def test_s1_all_values_are_latin1_str() -> None:
    """The environ is a dict of str that encode to latin-1."""
    result = request_environ(make_scope(b"/%e2%82%ac?q", headers=[(b"x-a", bytes(range(128, 256)))]))
    assert type(result) is dict
    for value in result.values():
        assert type(value) is str
        value.encode("latin-1")


def test_s3_content_headers_without_prefix() -> None:
    """CONTENT_TYPE and CONTENT_LENGTH have no HTTP_ form, and are absent when they were not sent."""
    result = request_environ(make_scope(headers=[(b"content-type", b"a/b"), (b"content-length", b"0")]))
    assert (result["CONTENT_TYPE"], result["CONTENT_LENGTH"]) == ("a/b", "0")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & result.keys()
    assert not {"CONTENT_TYPE", "CONTENT_LENGTH"} & request_environ(make_scope()).keys()


def test_content_headers_with_underscores_are_ordinary_fields() -> None:
    """A field that the policy let through with its underscore cannot pose as the length of the body."""
    result = request_environ(make_scope(headers=[(b"content_length", b"9")]))
    assert "CONTENT_LENGTH" not in result
    assert result["HTTP_CONTENT_LENGTH"] == "9"


def test_s4_cookies_are_joined_with_a_semicolon() -> None:
    """Cookie fields are joined as a cookie parser expects it, others with a comma."""
    headers = [(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"), (b"x-a", b"2"), (b"cookie", b"c=3")]
    result = request_environ(make_scope(headers=headers))
    assert result["HTTP_COOKIE"] == "a=1; b=2; c=3"
    assert result["HTTP_X_A"] == "1,2"


def test_s6_every_byte_of_the_path_is_kept() -> None:
    """PATH_INFO holds the decoded bytes of the target as latin-1, also what is not UTF-8."""
    raw = "".join(f"%{byte:02X}" for byte in range(256)).encode()
    assert request_environ(make_scope(b"/" + raw))["PATH_INFO"].encode("latin-1") == b"/" + bytes(range(256))


@pytest.mark.parametrize(
    ("headers", "scheme", "name", "port"),
    [
        ([(b"host", b"[::1]:8080")], "http", "[::1]", "8080"),
        ([(b"host", b"[::1]")], "http", "[::1]", "80"),
        ([(b"host", b"example.org:")], "https", "example.org", "443"),
        ([], "http", "/run/app.sock", "80"),
        ([], "https", "/run/app.sock", "443"),
        ([(b"host", b"example.org")], "wss", "example.org", "443"),
    ],
)
def test_s2_server_of_a_unix_socket(headers: Any, scheme: str, name: str, port: str) -> None:
    """Where gunicorn leaves SERVER_PORT empty, or cuts an IPv6 literal, PEP 3333 is followed."""
    result = request_environ(make_scope(headers=headers, scheme=scheme, **UNIX))
    assert (result["SERVER_NAME"], result["SERVER_PORT"]) == (name, port)


def test_no_server_address() -> None:
    """ASGI allows a scope without a server; PEP 3333 wants a name all the same."""
    result = request_environ(make_scope(headers=[], server=None))
    assert (result["SERVER_NAME"], result["SERVER_PORT"]) == ("localhost", "80")


def test_websocket_scope_is_a_get() -> None:
    """The scope of a WebSocket has no method; its handshake was a GET."""
    scope = make_scope(type="websocket", scheme="ws")
    del scope["method"]
    assert request_environ(scope)["REQUEST_METHOD"] == "GET"


def test_base_is_completed_and_not_changed() -> None:
    """A given dictionary is copied, and its values give way to those of the request."""
    base = {"REQUEST_METHOD": None, "wsgi.version": (1, 0), **server_environ(None, "1.1")}
    before = base.copy()
    result = request_environ(make_scope(), "", base)
    assert result["wsgi.version"] == (1, 0)
    assert result["REQUEST_METHOD"] == "GET"
    assert base == before


def test_names_of_clients_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of field names is bounded, and goes on to be right when it is full."""
    monkeypatch.setattr(cache, "LIMIT", 3)
    headers = [(b"x-%d" % number, b"%d" % number) for number in range(10)]
    for _ in range(2):
        result = request_environ(make_scope(headers=headers))
        assert {f"HTTP_X_{number}": str(number) for number in range(10)}.items() <= result.items()
        assert len(environ._keys) <= 3
