"""Chapter H, first part: the scope of a request (asgiref ``specs/www.rst`` 2.5, "HTTP Connection Scope")."""

from __future__ import annotations

import socket
from typing import Any

from .case import Case
from .registry import NotDecidable
from .servers import Options, Subject
from .wire import Fields, Truncated

#: The request before this one, kept to see whether a scope comes twice.
previous: list[Any] = []


async def scope_app(case: Case) -> None:
    """Note the scope and answer."""
    case.note("scope", case.scope)
    case.note("again", any(case.scope is scope for scope in previous))
    previous.append(case.scope)
    await case.answer()


def scope_of(subject: Subject, target: str = "/", headers: Fields = (), **more: Any) -> dict[str, Any]:
    """The scope that a request gives."""
    run, _ = subject.server.call(scope_app, target=target, headers=headers, **more)
    scope: dict[str, Any] = run.wait("scope")
    return scope


def h1_one_scope_per_request(subject: Subject) -> None:
    """The type is "http", and each request has a scope of its own."""
    with subject.server.connect() as wire:
        runs = []
        for _ in range(2):
            runs.append(wire.request(scope_app))
            wire.answer()
    assert [run.wait("scope")["type"] for run in runs] == ["http", "http"]
    assert [run.wait("again") for run in runs] == [False, False]


def h2_http_version(subject: Subject) -> None:
    """http_version is "1.0" or "1.1", as the request has it."""
    for version in ("1.0", "1.1"):
        found = scope_of(subject, version=version)["http_version"]
        assert found == version, f"it is {found!r} for {version}"


def h3_method_is_upper_case(subject: Subject) -> None:
    """method is the request's, in upper case."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        assert scope_of(subject, method=method)["method"] == method


def h4_scheme(subject: Subject) -> None:
    """scheme is "http" without TLS and "https" with it."""
    assert scope_of(subject)["scheme"] == "http"
    with subject.start(Options(certificates=subject.certificates)) as server:
        run, _ = server.call(scope_app)
        assert run.wait("scope")["scheme"] == "https"


def h5_path_is_decoded_and_not_prefixed(subject: Subject) -> None:
    """path is percent-decoded UTF-8 without the query, as received, never prefixed with root_path."""
    assert scope_of(subject, "/caf%C3%A9/a%2Fb%20c?x=%20/")["path"] == "/café/a/b c"
    with subject.start(Options(root_path="/prefix")) as server:
        run, _ = server.call(scope_app, target="/prefix/page")
        assert run.wait("scope")["path"] == "/prefix/page"


def h6_path_that_is_not_utf_8(subject: Subject) -> None:
    """A path of bytes that are not UTF-8 is replaced or refused, and nothing breaks."""
    with subject.server.connect() as wire:
        run = wire.request(scope_app, target="/%ff%fe")
        if wire.answer().status != 400:
            assert isinstance(run.wait("scope")["path"], str)
    assert scope_of(subject)["path"] == "/"


def h7_raw_path_is_untouched(subject: Subject) -> None:
    """raw_path is the path as it came, in bytes, without the query."""
    assert scope_of(subject, "/caf%C3%A9/a%2fb;p?x=1")["raw_path"] == b"/caf%C3%A9/a%2fb;p"


def h8_query_string(subject: Subject) -> None:
    """query_string is what follows the first question mark, in bytes, still encoded; empty without one."""
    for target, expected in (("/a?x=%41?y&z", b"x=%41?y&z"), ("/a", b""), ("/a?", b"")):
        assert scope_of(subject, target)["query_string"] == expected


def h9_forms_of_the_target(subject: Subject) -> None:
    """An absolute-form target gives a plain path; the other forms are handled or refused."""
    scope = scope_of(subject, "http://checklist/p/q?x")
    assert (scope["path"], scope["query_string"]) == ("/p/q", b"x"), f"path is {scope['path']!r}"
    for method, target in (("OPTIONS", "*"), ("CONNECT", "checklist:80"), ("GET", "checklist:80")):
        with subject.server.connect() as wire:
            run = wire.request(scope_app, method, target)
            try:
                answer = wire.answer(method)
            except (ConnectionError, Truncated):  # refused without a word
                continue
            if answer.status < 400:
                assert (method, run.wait("scope")["path"]) in (("OPTIONS", "*"), ("OPTIONS", "")), f"{method} {target}"


def h10_root_path(subject: Subject) -> None:
    """root_path is a str, empty unless it is configured."""
    assert scope_of(subject)["root_path"] == ""
    with subject.start(Options(root_path="/prefix")) as server:
        run, _ = server.call(scope_app, target="/prefix/page")
        assert run.wait("scope")["root_path"] == "/prefix"


def fields_of(scope: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """The fields of a scope but for the checklist's own."""
    return [(name, value) for name, value in scope["headers"] if name.lower() not in (b"host", b"x-case")]


def h11_headers_are_pairs_of_bytes(subject: Subject) -> None:
    """headers are pairs of byte strings."""
    headers = scope_of(subject, headers=[(b"X-A", b"1")])["headers"]
    assert len(headers) == 3
    for pair in headers:
        assert len(pair) == 2
        assert all(isinstance(item, bytes) for item in pair)


def h12_names_are_in_lower_case(subject: Subject) -> None:
    """Names of headers are in lower case (should)."""
    assert fields_of(scope_of(subject, headers=[(b"X-MiXed", b"Value")])) == [(b"x-mixed", b"Value")]


def h13_order_is_kept(subject: Subject) -> None:
    """Headers keep their order, repeated ones too."""
    sent = [(b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"), (b"x-0", b"4")]
    assert [tuple(pair) for pair in fields_of(scope_of(subject, headers=sent))] == sent


def h14_repeated_headers_stay_apart(subject: Subject) -> None:
    """Two Cookie headers, like any other two of one name, arrive as two."""
    sent = [(b"cookie", b"a=1"), (b"x-a", b"1"), (b"cookie", b"b=2"), (b"x-a", b"1")]
    assert sorted(tuple(pair) for pair in fields_of(scope_of(subject, headers=sent))) == sorted(sent)


def h15_values_are_kept(subject: Subject) -> None:
    """Values arrive byte by byte, but for the white space around them."""
    sent = [(b"x-a", b"caf\xe9 \xff\x80"), (b"x-b", b"a  b\tc"), (b"x-c", b"  around \t ")]
    assert [value for _, value in fields_of(scope_of(subject, headers=sent))] == [
        b"caf\xe9 \xff\x80",
        b"a  b\tc",
        b"around",
    ]


def over_unix(subject: Subject) -> tuple[dict[str, Any], str]:
    """The scope of a request over a unix socket, and the socket's path."""
    path = str(subject.directory / "s")
    with subject.start(Options(address=path)) as server:
        run, _ = server.call(scope_app)
        return run.wait("scope"), path


def h16_client(subject: Subject) -> None:
    """client is the peer's host and port, and None or missing over a unix socket."""
    with subject.server.connect() as wire:
        run = wire.request(scope_app)
        wire.answer()
        client = run.wait("scope")["client"]
        assert list(client) == list(wire.sock.getsockname()), f"client is {client!r}"
    scope, _ = over_unix(subject)
    assert scope.get("client") is None, f"client is {scope['client']!r} over a unix socket"


def h17_ipv6_client(subject: Subject) -> None:
    """The client of an IPv6 connection has no more parts than host and port."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        raise NotDecidable("there is no IPv6 here") from None
    with subject.start(Options(address=("::1", 0))) as server, server.connect() as wire:
        run = wire.request(scope_app)
        wire.answer()
        client = run.wait("scope")["client"]
        assert list(client) == list(wire.sock.getsockname()[:2]), f"client is {client!r}"


def h18_server(subject: Subject) -> None:
    """server is the host and port of our side, or the path of a unix socket and None."""
    address = scope_of(subject)["server"]
    assert list(address) == list(subject.server.address), f"server is {address!r}"
    scope, path = over_unix(subject)
    assert list(scope["server"]) == [path, None], f"server is {scope['server']!r} over a unix socket"


async def h19_app(case: Case) -> None:
    case.note("state", case.scope.get("state"))
    if "state" in case.scope:
        case.scope["state"]["own"] = "of one request"
        case.scope["state"]["shared"].append("item")
    if case.scope["type"] == "websocket":
        await case.receive()
        await case.send({"type": "websocket.close"})
    else:
        await case.answer()


def h19_state_is_a_shallow_copy(subject: Subject) -> None:
    """state is a shallow copy of the lifespan's: new keys are not shared, objects in it are."""
    first, second = (subject.server.call(h19_app)[0].wait("state") for _ in range(2))
    assert first is not None, "there is no state"
    assert (first["text"], second["text"]) == ("from startup", "from startup")
    assert "own" not in second
    assert len(second["shared"]) == len(first["shared"]) + 1


def h20_no_tls_extension_without_tls(subject: Subject) -> None:
    """A plain connection has no tls extension."""
    assert "tls" not in (scope_of(subject).get("extensions") or {})
