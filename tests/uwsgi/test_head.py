"""The variables of a packet as the scope of a request, and what they are checked for."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker.asgi import Scope
from hybridworker.config.settings import networks
from hybridworker.uwsgi.protocol import UWSGIProtocol
from hybridworker.wsgi.environ import request_environ
from tests.harness import Recorder, wire
from tests.uwsgi.packets import NGINX, block, framed, get, packet, websocket

TRUSTED = {"forwarded_networks": networks(["127.0.0.1", "192.0.2.0/24"])}


def scope_of(data: bytes, **options: Any) -> Scope:
    """The scope that the application sees."""
    app = Recorder()
    with wire(app, speaks=UWSGIProtocol, **options) as w:
        sent = w.feed(data)
        assert sent.startswith(b"HTTP/1.1 204 "), (sent, w.log.lines)
        return app.scopes[0]


def refusal(data: bytes, **options: Any) -> tuple[int, str]:
    """The status of the refusal, and its line in the log. The connection ends, and the application is not called."""
    app = Recorder()
    with wire(app, speaks=UWSGIProtocol, **options) as w:
        sent = w.feed(data)
        assert not app.scopes
        assert w.transport.closing or w.transport.eof
        [line] = w.log.at("warning")
        return int(sent.split(b" ", 2)[1]), line.removeprefix("Invalid request from ip=127.0.0.1: ")


def test_what_nginx_sends() -> None:
    """The scope is that of the same request by HTTP/1.1, without what such a client cannot take."""
    scope = scope_of(packet(HTTP_X_ONE="1", HTTP_ACCEPT="*/*", CONTENT_TYPE="text/plain"))
    assert scope["type"] == "http"
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert (scope["scheme"], scope["client"]) == ("http", ("203.0.113.9", 51234))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=d")
    assert (scope["root_path"], scope["server"]) == ("", ("127.0.0.1", 8000))
    assert dict(scope["headers"]) == {
        b"host": b"example.org",
        b"x-one": b"1",
        b"accept": b"*/*",
        b"content-type": b"text/plain",
    }
    assert set(scope["extensions"]) == {"http.response.pathsend", "http.response.zerocopysend"}
    assert scope["hybridworker.target"] == b"/a%20b?c=d"


@pytest.mark.parametrize(
    ("changes", "path", "raw_path", "query"),
    [
        # The proxy has normalised the path, or rewritten it: what it says counts.
        ({"REQUEST_URI": "/x/../%61?q", "PATH_INFO": "/a", "QUERY_STRING": "q"}, "/a", b"/a", b"q"),
        ({"REQUEST_URI": "/old?q", "PATH_INFO": "/new path", "QUERY_STRING": "r"}, "/new path", b"/new%20path", b"r"),
        ({"REQUEST_URI": "/%C3%A9", "PATH_INFO": "/\xc3\xa9", "QUERY_STRING": ""}, "/é", b"/%C3%A9", b""),
        ({"REQUEST_URI": "/\xc3\xa9?\xe9", "PATH_INFO": "/\xc3\xa9", "QUERY_STRING": "\xe9"}, "/é", b"/%C3%A9", b"%E9"),
        ({"REQUEST_URI": "/\xff", "PATH_INFO": "/\xff", "QUERY_STRING": ""}, "/\ufffd", b"/%FF", b""),
        # What decodes to a percent sign is not decoded again.
        ({"REQUEST_URI": "/%2541", "PATH_INFO": "/%41", "QUERY_STRING": ""}, "/%41", b"/%2541", b""),
        # Proxies that say less.
        ({"REQUEST_URI": None, "PATH_INFO": "/a b", "QUERY_STRING": "c=d"}, "/a b", b"/a%20b", b"c=d"),
        ({"REQUEST_URI": "/a%20b?c", "PATH_INFO": None, "QUERY_STRING": None}, "/a b", b"/a%20b", b"c"),
        ({"REQUEST_URI": None, "PATH_INFO": None, "QUERY_STRING": None}, "/", b"/", b""),
        ({"REQUEST_URI": None, "PATH_INFO": "", "QUERY_STRING": None}, "/", b"/", b""),
        ({"REQUEST_URI": "http://other.example/a?b", "PATH_INFO": "/a", "QUERY_STRING": "b"}, "/a", b"/a", b"b"),
    ],
)
def test_the_path(changes: dict[str, str | None], path: str, raw_path: bytes, query: bytes) -> None:
    """``raw_path`` decodes to what PATH_INFO says, so that WSGI and ASGI see the same."""
    scope = scope_of(packet(**changes))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)
    if changes["PATH_INFO"]:
        assert request_environ(scope)["PATH_INFO"] == changes["PATH_INFO"]


def test_the_asterisk_of_options() -> None:
    """It is no path, and its own target."""
    scope = scope_of(packet(REQUEST_METHOD="OPTIONS", REQUEST_URI="*", PATH_INFO="*", QUERY_STRING=""))
    assert scope["path"] == "*"


@pytest.mark.parametrize(
    ("mount", "path_info", "path"),
    [
        ("/app", "/x", "/app/x"),  # as CGI has it, and Apache
        ("/app", "/app/x", "/app/x"),  # as nginx has it, whose PATH_INFO is the whole path
        ("/app/", "", "/app"),
        ("/app", "/app", "/app"),
        ("/app", "/apple", "/app/apple"),
        ("/", "/x", "/x"),
    ],
)
def test_script_name(mount: str, path_info: str, path: str) -> None:
    """It is the mount point, for ASGI and for WSGI; the path stays whole."""
    scope = scope_of(packet(SCRIPT_NAME=mount, PATH_INFO=path_info, REQUEST_URI=path, QUERY_STRING=""))
    root = mount.rstrip("/")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == (root, path, path.encode())
    environ = request_environ(scope)
    assert environ["SCRIPT_NAME"] == root
    assert environ["PATH_INFO"] == path.removeprefix(root)


@pytest.mark.parametrize(
    ("changes", "scheme"),
    [
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "TRUE", "REQUEST_SCHEME": "http"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({"REQUEST_SCHEME": None, "wsgi.url_scheme": "https"}, "https"),
        ({"REQUEST_SCHEME": "javascript"}, "http"),
        ({"REQUEST_SCHEME": None}, "http"),
    ],
)
def test_the_scheme(changes: dict[str, str | None], scheme: str) -> None:
    """By HTTPS, else by what names it."""
    assert scope_of(packet(**changes))["scheme"] == scheme


@pytest.mark.parametrize(
    ("address", "port", "client"),
    [
        ("2001:db8::7", "443", ("2001:db8::7", 443)),
        ("::ffff:192.0.2.1", "1", ("192.0.2.1", 1)),
        ("203.0.113.9", "", ("203.0.113.9", 0)),
        ("203.0.113.9", "99999", ("203.0.113.9", 0)),
        ("unix:", "", ("127.0.0.1", 40000)),  # nginx listens on a unix socket: the peer is all that is known
        ("", "", ("127.0.0.1", 40000)),
        (None, None, ("127.0.0.1", 40000)),
    ],
)
def test_the_client(address: str | None, port: str | None, client: tuple[str, int]) -> None:
    """REMOTE_ADDR and REMOTE_PORT, where they name one."""
    assert scope_of(packet(REMOTE_ADDR=address, REMOTE_PORT=port))["client"] == client


FORGED = {"HTTP_X_FORWARDED_FOR": "198.51.100.1", "HTTP_X_FORWARDED_PROTO": "https"}


@pytest.mark.parametrize(
    ("address", "settings", "client", "scheme"),
    [
        ("203.0.113.9", TRUSTED, "203.0.113.9", "http"),  # nginx passes on what any client writes
        ("192.0.2.1", TRUSTED, "198.51.100.1", "https"),  # the client of nginx is a proxy that is trusted itself
        (None, TRUSTED, "198.51.100.1", "https"),
        ("192.0.2.1", {"forwarded_networks": ()}, "192.0.2.1", "http"),
        ("203.0.113.9", {"forwarded_networks": None}, "198.51.100.1", "https"),
    ],
)
def test_forwarded_fields(address: str | None, settings: dict[str, Any], client: str, scheme: str) -> None:
    """They are believed where the peer is trusted, and so is the client that it names."""
    secure = {"secure_scheme_headers": {b"x-forwarded-proto": b"https"}}
    scope = scope_of(packet(REMOTE_ADDR=address, **FORGED), **settings, **secure)
    assert (scope["client"][0], scope["scheme"]) == (client, scheme)
    assert (b"x-forwarded-for", b"198.51.100.1") in scope["headers"]


def test_an_id_that_the_proxy_names() -> None:
    """By the trust in the peer, as over HTTP."""
    data = packet(HTTP_X_REQUEST_ID="from-nginx")
    for trusted in (True, False):
        settings = {"request_id": b"x-request-id", "forwarded_networks": networks(["127.0.0.1"] if trusted else [])}
        found = dict(scope_of(data, **settings)["headers"])[b"x-request-id"]
        assert (found == b"from-nginx") is trusted


def test_fields_of_the_hop_before() -> None:
    """The proxy has read chunks and answered an expectation: neither is left for the application."""
    scope = scope_of(packet(HTTP_TRANSFER_ENCODING="chunked", HTTP_EXPECT="100-continue", HTTP_TE="trailers"))
    assert [name for name, _ in scope["headers"]] == [b"te", b"host"]


def test_fields_that_have_variables_of_their_own() -> None:
    """nginx sends them twice; what CGI says counts."""
    twice = {"CONTENT_TYPE": "text/plain", "HTTP_CONTENT_TYPE": "text/html", "HTTP_CONTENT_LENGTH": "7"}
    scope = scope_of(packet(CONTENT_LENGTH="0", **twice))
    assert [value for name, value in scope["headers"] if name.startswith(b"content-")] == [b"text/plain", b"0"]


def test_repeats() -> None:
    """A field may have several lines; of a variable, and of a field that comes once, the last one counts."""
    pairs = [*NGINX.items(), ("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2"), ("HTTP_HOST", "last.example")]
    scope = scope_of(framed(block([*pairs, ("PATH_INFO", "/last"), ("CONTENT_LENGTH", "")])))
    assert scope["path"] == "/last"
    assert [value for name, value in scope["headers"] if name in (b"cookie", b"host")] == [
        b"a=1",
        b"b=2",
        b"last.example",
    ]


def test_a_method_is_held_to_the_rules_of_http() -> None:
    """Any token in capitals, and lower case where it is permitted and folded."""
    assert scope_of(packet(REQUEST_METHOD="FOOBAR"))["method"] == "FOOBAR"
    permitted = {"permit_unconventional_http_method": True, "casefold_http_method": True}
    assert scope_of(packet(REQUEST_METHOD="get"), **permitted)["method"] == "GET"


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (framed(b""), 400, "no REQUEST_METHOD in a uwsgi packet (nginx: include uwsgi_params)"),
        (framed(b"\x01\0A"), 400, "a variable does not end within its uwsgi packet"),
        (packet(REQUEST_METHOD="get"), 400, "the method is none (RFC 9110 9.1), or one that is not permitted"),
        (packet(REQUEST_METHOD="GET /"), 400, "the method is none (RFC 9110 9.1), or one that is not permitted"),
        (packet(REQUEST_METHOD="CONNECT"), 501, "CONNECT is for proxies (RFC 9110 9.3.6)"),
        (packet(REQUEST_URI="/#a"), 400, "a fragment in the request target (RFC 9112 3.2)"),
        (packet(REQUEST_URI="a"), 400, "the request target has none of the four forms (RFC 9112 3.2)"),
        (packet(PATH_INFO="a"), 400, "PATH_INFO, or SCRIPT_NAME, does not begin with a slash"),
        (packet(SCRIPT_NAME="a"), 400, "PATH_INFO, or SCRIPT_NAME, does not begin with a slash"),
        (packet(CONTENT_LENGTH="-1"), 400, "malformed CONTENT_LENGTH (RFC 9110 8.6)"),
        (packet(CONTENT_LENGTH="1 "), 400, "malformed CONTENT_LENGTH (RFC 9110 8.6)"),
        (packet(CONTENT_LENGTH="9" * 19), 400, "malformed CONTENT_LENGTH (RFC 9110 8.6)"),
        (packet(HTTP_HOST="a b"), 400, "malformed Host (RFC 9112 3.2)"),
        (packet(HTTP_A="b\r\nc"), 400, "a field value with a control character (RFC 9110 5.5)"),
        (packet(HTTP_A="b\0"), 400, "a field value with a control character (RFC 9110 5.5)"),
        (packet(**{"HTTP_A B": "c"}), 400, "malformed field name (RFC 9110 5.1)"),
        (packet(HTTP_="c"), 400, "malformed field name (RFC 9110 5.1)"),
    ],
)
def test_bad_packets(data: bytes, status: int, reason: str) -> None:
    """Each is refused with one line."""
    assert refusal(data) == (status, reason)


def test_two_lengths() -> None:
    """The same one twice is a slip of a configuration; two are no request."""
    pairs = [(name, value) for name, value in NGINX.items() if name != "CONTENT_LENGTH"] + [("CONTENT_LENGTH", "0")]
    scope_of(framed(block([*pairs, ("CONTENT_LENGTH", "0")])))
    assert refusal(framed(block([*pairs, ("CONTENT_LENGTH", "1")])))[1] == "CONTENT_LENGTH twice, and not the same"


@pytest.mark.parametrize(
    ("settings", "fits", "data", "status", "name"),
    [
        ({"limit_request_line": 31}, get("/" + "a" * 17), get("/" + "a" * 18), 414, "limit_request_line"),
        ({"limit_request_fields": 2}, get("/", HTTP_A="1"), get("/", HTTP_A="1", HTTP_B="2"), 431, "fields"),
        ({"limit_request_field_size": 40}, get("/", HTTP_A="x" * 35), get("/", HTTP_A="x" * 36), 431, "field_size"),
    ],
)
def test_the_limits_of_a_head(settings: dict[str, Any], fits: bytes, data: bytes, status: int, name: str) -> None:
    """They are counted on what the request would be by HTTP/1.1."""
    scope_of(fits, **settings)
    refused, reason = refusal(data, **settings)
    assert refused == status
    assert reason.endswith(name)


def test_the_length_of_a_body_has_its_limit() -> None:
    """Before a byte of it has come."""
    assert refusal(packet(CONTENT_LENGTH="11"), limit_request_body=10)[0] == 413


def test_a_refused_request_has_its_line_in_the_access_log() -> None:
    """With method and target, where they are known by then."""
    lines: list[Any] = []
    for data in (get("/long", HTTP_A="\0"), framed(b"")):
        with wire(Recorder(), speaks=UWSGIProtocol, access=lines.append) as w:
            w.feed(data)
    [refused] = lines
    assert (refused.scope["method"], refused.scope["hybridworker.target"], refused.status) == ("GET", b"/long", 400)


def test_a_websocket_handshake_is_found_among_the_fields() -> None:
    """Both Connection and Upgrade name it."""
    app = Recorder()
    with wire(app, speaks=UWSGIProtocol) as w:
        w.feed(get("/", HTTP_UPGRADE="websocket", HTTP_CONNECTION="close"))
        assert app.scopes[0]["type"] == "http"
        assert not w.protocol.head.websocket
    with wire(app, speaks=UWSGIProtocol, is_wsgi=True) as w:
        w.protocol.head.read(websocket("/")[4:])
        assert w.protocol.head.websocket
