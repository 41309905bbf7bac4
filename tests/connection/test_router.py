"""Router: which application answers a request."""

from __future__ import annotations

from hybridworker.application.application import Endpoint
from hybridworker.application.directory import Part
from hybridworker.application.parts import Parts
from hybridworker.connection.router import Router
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
