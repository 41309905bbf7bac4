"""Parts and inspection: what a worker makes of a Hybrid, and which part gets a request."""

from __future__ import annotations

from typing import Any

import pytest

from hybridworker import Hybrid, Interface, as_asgi, as_wsgi
from hybridworker.application.application import Application
from hybridworker.application.inspection import inspect, pair
from hybridworker.application.parts import Parts
from hybridworker.asgi import MOUNT
from hybridworker.cache import KNOWN_MAX, LIMIT
from hybridworker.config.settings import Settings
from hybridworker.errors import ConfigurationError
from hybridworker.wsgi.environ import request_environ
from tests.harness import Threaded, make_settings


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that is never called."""


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """A WSGI application that is never called."""
    raise AssertionError("called")


class ThreadedPart(Threaded):
    """A WSGI part, without its middleware."""

    def mount(self, scope: Any, outer: str, taken: bool) -> None:
        scope[MOUNT] = outer + self.part.prefix if taken and self.part else self.part and self.part.prefix


def parts(hybrid: Hybrid, **settings: Any) -> Parts:
    """The parts as a worker has them."""
    made: list[Application] = []
    configured = make_settings(**settings)
    for part, app, decision in inspect(hybrid, configured):
        kind = ThreadedPart if decision.interface is Interface.WSGI else Application
        made.append(kind(app, configured))
        made[-1].part = part
    return Parts.of(made, configured)


def scope(path: str, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"path": path, "raw_path": path.encode(), "root_path": "", "headers": list(headers)}


@pytest.mark.parametrize(
    ("settings", "path", "headers", "root_path", "whole"),
    [
        ({}, "/m/x", [], "/m", "/m/x"),
        ({"root_path": "/api"}, "/api/m/x", [], "/api/m", "/api/m/x"),
        ({"root_path": "/api"}, "/m/x", [], "/api/m", "/api/m/x"),  # a proxy has stripped it
        ({"root_path": "/api/"}, "/api/m", [], "/api/m", "/api/m"),
        ({"script_name": "/api"}, "/api/m/x", [], "/api/m", "/api/m/x"),
        ({}, "/out/m/x", [(b"script_name", b"/out")], "/out/m", "/out/m/x"),
        ({"root_path": "/api"}, "/m/x", [(b"script_name", b"/out")], "/out/m", "/out/m/x"),
        ({"root_path": "/a", "script_name": "/a/b"}, "/a/b/m", [], "/a/b/m", "/a/b/m"),
    ],
)
def test_a_mount_begins_with_its_root_path(
    settings: dict[str, Any], path: str, headers: list[tuple[bytes, bytes]], root_path: str, whole: str
) -> None:
    """The prefix of the deployment and that of the part are joined, and the path begins with both (ASGI HTTP 2.5)."""
    request = scope(path, *headers)
    found = parts(Hybrid(wsgi, mounts={"/m": asgi}), **settings).find(request, False, headers or None)
    assert found.part is not None and found.part.name == "/m"
    assert (request["root_path"], request["path"], request["raw_path"]) == (root_path, whole, whole.encode())
    assert request["hybridworker.part"] == "/m"


def test_a_prefix_that_was_dropped_is_not_believed() -> None:
    """The field came, and not from a proxy that is trusted."""
    request = scope("/out/m/x")
    served = parts(Hybrid(wsgi, mounts={"/m": asgi}))
    assert served.find(request, False, [(b"script_name", b"/out")]) is served.default


def test_a_route_sees_the_path_as_it_came() -> None:
    """It is matched below the prefix of the deployment all the same."""
    served = parts(Hybrid(wsgi, routes={"/r": asgi}), root_path="/api")
    for path in ("/api/r/x", "/r/x"):
        request = scope(path)
        assert served.find(request, False, None) is served.applications[1]
        assert (request["root_path"], request["path"]) == ("", path)
    assert served.find(scope("/apir"), False, None) is served.default


@pytest.mark.parametrize(
    ("settings", "path", "field", "script_name", "path_info"),
    [
        ({}, "/m/x", "", "/m", "/x"),
        ({}, "/%6d/%C3%A4%2Fy", "", "/m", "/ä/y"),
        ({}, "/m", "", "/m", ""),
        ({"script_name": "/api"}, "/api/m/x", "", "/api/m", "/x"),
        ({"root_path": "/a"}, "/a/m/m/x", "", "/a/m", "/m/x"),
        ({"root_path": "/m"}, "/m/m/x", "", "/m/m", "/x"),
        ({}, "/out/m/x", "/out", "/out/m", "/x"),
    ],
)
def test_a_wsgi_mount_divides_the_path(
    settings: dict[str, Any], path: str, field: str, script_name: str, path_info: str
) -> None:
    """SCRIPT_NAME grows, PATH_INFO shrinks, RAW_URI stays."""
    from hybridworker.connection.scope import http_scope, http_template
    from hybridworker.wsgi.environ import mount_environ

    headers = [(b"script_name", field.encode())] if field else []
    template = http_template("http", ("127.0.0.1", 1), ("127.0.0.1", 2), "")
    request = http_scope(template, "1.1", "GET", path.encode(), b"", path.encode(), headers)
    parts(Hybrid(asgi, mounts={"/m": wsgi}), **settings).find(request, False, headers or None)
    environ = request_environ(request, settings.get("script_name", ""))
    mount_environ(environ, request["raw_path"], request[MOUNT])
    shown = environ["PATH_INFO"].encode("latin-1").decode()
    assert (environ["SCRIPT_NAME"], shown, environ["RAW_URI"]) == (script_name, path_info, path)


def test_a_hook_that_changes_the_path_of_a_mount_is_obeyed() -> None:
    """What does not begin with the mount point is not divided."""
    from hybridworker.wsgi.environ import mount_environ

    environ = {"SCRIPT_NAME": "", "PATH_INFO": "/else"}
    mount_environ(environ, b"/else", "/m")
    assert environ == {"SCRIPT_NAME": "", "PATH_INFO": "/else"}


def test_what_nothing_claims_belongs_to_no_part() -> None:
    """The scope names none, and no WebSocket is taken."""
    served = parts(Hybrid(routes={"/r": asgi}))
    request = scope("/")
    assert served.find(request, True, None) is served.unclaimed is served.default
    assert "hybridworker.part" not in request
    assert not served.unclaimed.takes_websockets


def test_paths_that_are_remembered_are_bounded() -> None:
    """A client must not fill memory with paths; and a WebSocket is not taken for HTTP."""
    served = parts(Hybrid(wsgi, websocket=asgi, mounts={"/m": wsgi}))
    for number in range(LIMIT + 1):
        served.find(scope(f"/m/{number}"), False, None)
    served.find(scope("/m/" + "x" * KNOWN_MAX), False, None)
    assert len(served.known) == 1
    assert served.find(scope(f"/m/{LIMIT}"), True, None) is served.applications[1]
    assert served.find(scope(f"/m/{LIMIT}"), False, None) is served.applications[2]


# -- inspection


def kinds(app: Any, **settings: Any) -> list[tuple[str, str, str]]:
    return [
        (part.key if part else "", str(decision.interface), decision.reason)
        for part, _, decision in inspect(app, make_settings(**settings), "serve:app")
    ]


def test_each_part_is_what_it_looks_like_or_what_is_said_of_it() -> None:
    """By the rules for any application."""

    def unclear(*args: Any) -> None:
        raise AssertionError("called")

    assert kinds(Hybrid(wsgi, websocket=asgi, routes={"/a": as_asgi(unclear)}, mounts={"/w": as_wsgi(unclear)})) == [
        ("default", "WSGI", "it takes two parameters"),
        ("websocket", "ASGI 3", "it is a coroutine function"),
        ("routes['/a']", "ASGI 3", "as_asgi()"),
        ("mounts['/w']", "WSGI", "as_wsgi()"),
    ]
    (served,) = inspect(as_wsgi(asgi), make_settings())
    assert served.decision.interface is Interface.WSGI
    assert "as_wsgi(), but 'asgi' looks like ASGI 3" in served.decision.doubt


def test_a_part_that_is_guessed_is_to_be_said_in_the_code() -> None:
    """The variable for the interface is for a single application."""
    (served,) = inspect(Hybrid(lambda *args: None), make_settings())
    assert served.decision.interface is Interface.WSGI
    assert "say hybridworker.as_asgi(...) or hybridworker.as_wsgi(...) of it" in served.decision.doubt


def no_application() -> None:
    raise AssertionError("called")


class Site:
    """A class without brackets."""


@pytest.mark.parametrize(
    ("app", "settings", "line"),
    [
        (Hybrid(wsgi, routes={"/x": no_application}), {}, r"routes\['/x'\]: 'no_application' takes no .*brackets"),
        (Hybrid(Site), {}, "default: 'Site' takes no arguments"),
        (Hybrid(lambda a, b, c, d: None), {}, r"default: cannot tell .* say hybridworker\.as_asgi"),
        (Hybrid(wsgi), {"interface": "wsgi"}, r"INTERFACE=wsgi .*\.as_asgi\(part\) or hybridworker\.as_wsgi"),
        (pair(wsgi, wsgi, "p:a"), {"websocket": "p:a"}, "HYBRIDWORKER_WEBSOCKET=p:a is a WSGI application"),
        (pair(wsgi, no_application, "p:a"), {"websocket": "p:a"}, r"HYBRIDWORKER_WEBSOCKET=p:a: .*brackets: 'p:a\(\)'"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_named(app: Hybrid, settings: dict[str, Any], line: str) -> None:
    """One line with the key of the part."""
    with pytest.raises(ConfigurationError, match=line):
        inspect(app, make_settings(**settings))


def test_the_variable_for_the_interface_speaks_of_the_first_of_a_pair() -> None:
    """The second is found out about as ever."""

    def unclear(*args: Any) -> None:
        raise AssertionError("called")

    shown = kinds(pair(unclear, asgi, "p:a"), interface="wsgi", websocket="p:a")
    assert [(key, interface) for key, interface, _ in shown] == [("default", "WSGI"), ("websocket", "ASGI 3")]


@pytest.mark.parametrize(
    ("first", "second", "line"), [(Hybrid(wsgi), asgi, "beside a Hybrid"), (wsgi, Hybrid(wsgi), "is a Hybrid")]
)
def test_a_pair_is_of_two_plain_applications(first: Any, second: Any, line: str) -> None:
    """Whatever is a Hybrid is told so."""
    with pytest.raises(ConfigurationError, match=f"HYBRIDWORKER_WEBSOCKET=p:a {line}"):
        pair(first, second, "p:a")


def test_a_hybrid_inside_of_a_middleware_is_served_as_it_is_with_a_warning() -> None:
    """A WSGI middleware cannot call it at all."""
    inner = Hybrid(wsgi)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    def wsgi_middleware(environ: Any, start_response: Any) -> Any:
        return inner(environ, start_response)  # type: ignore[call-arg]

    (served,) = inspect(middleware, make_settings())
    assert served.part is None and "wrap the parts" in served.decision.doubt
    with pytest.raises(ConfigurationError, match="wrap the parts"):
        inspect(wsgi_middleware, make_settings())


def test_settings_have_the_variable() -> None:
    """It is empty where there is no second application."""
    settings: Settings = make_settings()
    assert settings.websocket == ""
