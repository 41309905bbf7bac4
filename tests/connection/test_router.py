"""Router: which application answers a request."""

from __future__ import annotations

import asyncio
from typing import Any

from hybridworker.application.application import Endpoint
from hybridworker.application.directory import Part
from hybridworker.application.parts import Parts
from hybridworker.cache import KNOWN_MAX, LIMIT
from hybridworker.connection.context import WorkerContext
from hybridworker.connection.fields import RequestFields
from hybridworker.connection.peer import Peer
from hybridworker.connection.router import Router
from tests.fakes import FakeTransport
from tests.harness import HELLO, application, make_settings


def test_one_application_answers_everything() -> None:
    """Nobody has to look."""
    served = application(HELLO)
    router = Router(served)
    assert router.single is served
    assert router.applications == (served,)
    assert router.responses is served.responses


def test_an_endpoint_comes_before_the_application() -> None:
    """GET and HEAD of its path, and no other."""
    served = application(HELLO)
    endpoint = Endpoint(HELLO, make_settings())
    router = Router(served)
    router.answer_first({"/up": endpoint})
    assert router.single is None
    for method, path, found in (("GET", "/up", endpoint), ("HEAD", "/up", endpoint), ("PUT", "/up", served)):
        assert router.find({"method": method, "path": path}, False, None) is found
    assert router.find({"method": "GET", "path": "/"}, False, None) is served


def test_an_endpoint_comes_before_the_parts_but_takes_no_websocket() -> None:
    """One that an application takes; of its path as of any other."""
    settings = make_settings()
    made = [application(HELLO, is_wsgi=is_wsgi) for is_wsgi in (True, False)]
    made[0].part, made[1].part = Part("default", "default", HELLO), Part("routes['/r']", "/r", HELLO, "/r")
    parts = Parts.of(made, settings)
    router = Router(parts.default, parts)
    endpoint = Endpoint(HELLO, settings)
    router.answer_first({"/up": endpoint, "/r/up": endpoint})
    for method, path, websocket, found in (
        ("GET", "/up", False, endpoint), ("POST", "/up", False, made[0]), ("GET", "/", False, made[0]),
        ("GET", "/up", True, endpoint), ("GET", "/r/up", True, made[1]), ("GET", "/r", False, made[1]),
    ):  # fmt: skip
        scope = {"method": method, "path": path, "headers": []}
        assert router.find(scope, websocket, None) is found
        assert ("hybridworker.part" in scope) is (found is not endpoint)


def hybrid() -> Router:
    """A default, ``/r`` routed and ``/m`` mounted."""
    made = [application(HELLO) for _ in range(3)]
    made[0].part, made[1].part = Part("default", "default", HELLO), Part("routes['/r']", "/r", HELLO, "/r")
    made[2].part = Part("mounts['/m']", "/m", HELLO, "/m", mounted=True)
    parts = Parts.of(made, make_settings())
    return Router(parts.default, parts)


def find(router: Router, path: str, websocket: bool = False, *forwarded: tuple[bytes, bytes]) -> Any:
    """What answers a GET."""
    scope = {"method": "GET", "path": path, "headers": list(forwarded), "root_path": "", "raw_path": path.encode()}
    return router.find(scope, websocket, list(forwarded) or None)


def test_a_path_is_remembered_where_it_says_it_all() -> None:
    """No handshake, nothing below a prefix that a forwarder names, nothing mounted, and no path of an endpoint."""
    router = hybrid()
    router.answer_first({"/up": Endpoint(HELLO, make_settings())})
    for path, websocket, forwarded in (
        ("/w", True, ()), ("/out/r", False, [(b"script_name", b"/out")]), ("/m/x", False, ()), ("/up", False, ()),
        ("/" + "x" * KNOWN_MAX, False, ()), ("/r/y", False, ()), ("/z", False, ()),
    ):  # fmt: skip
        find(router, path, websocket, *forwarded)
    assert router.find({"method": "POST", "path": "/up", "headers": []}, False, None) is router.default
    default, routed, _ = router.applications
    assert router.known == {"/r/y": routed, "/z": default}


def test_paths_that_are_remembered_are_bounded() -> None:
    """A client must not fill memory with paths."""
    router = hybrid()
    for number in range(LIMIT + 1):
        find(router, f"/{number}")
    assert len(router.known) == 1


def test_where_one_application_serves_all_only_endpoints_are_looked_for() -> None:
    """And nothing is remembered of a client."""
    router = Router(application(HELLO))
    router.answer_first({"/up": Endpoint(HELLO, make_settings())})
    find(router, "/a")
    assert not router.known


def test_a_connection_may_name_a_prefix_for_some_of_its_requests() -> None:
    """What is known of a path without one is not what serves it below one."""

    async def main() -> None:
        made, settings = hybrid(), make_settings()
        loop = asyncio.get_running_loop()
        context = WorkerContext(application=made.default, parts=made.parts, settings=settings, loop=loop)
        default, routed, _ = made.applications
        fields = RequestFields(Peer(FakeTransport(), context), context.vocabulary.names)
        for prefix, found in ((b"", default), (b"/out", routed), (b"", default), (b"/else", default)):
            fields.begin()
            if prefix:
                fields.on_header(b"SCRIPT_NAME", prefix)
            scope = {"method": "GET", "path": "/out/r", "headers": fields.headers, "scheme": "http", "client": None}
            assert fields.complete(scope, context) is found
            assert found.part is not None and scope["hybridworker.part"] == found.part.name

    asyncio.run(main())
