"""The request hooks, as gunicorn's configuration has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.errors import WorkerExit
from hybridworker.log.hooks import RequestHooks
from tests.fakes import FakeLog
from tests.log.bench import OF_ANY_KIND, REQUESTS, VIEWED, Bench, Exchange, raises, scope_of

WORKER = SimpleNamespace(log=FakeLog())


def hooks_of(bench: Bench, log: Any = None, **settings: Any) -> RequestHooks:
    bench.set(**settings)
    hooks = RequestHooks.from_gunicorn(bench.cfg, WORKER, log or bench.logger())
    assert hooks is not None
    return hooks


def test_default_hooks_cost_nothing(bench: Bench) -> None:
    """When both hooks are gunicorn's own and would do nothing, there are none."""
    assert RequestHooks.from_gunicorn(bench.cfg, WORKER, bench.logger()) is None


def test_at_debug_level_the_default_hook_logs_the_request(bench: Bench) -> None:
    """gunicorn's own pre_request names method and path in the debug log."""
    log = bench.logger(loglevel="debug")
    hooks = RequestHooks.from_gunicorn(bench.cfg, SimpleNamespace(log=log), log)
    assert hooks is not None
    hooks.before(scope_of(REQUESTS["plain"]))
    assert bench.errors.read_text().endswith("[DEBUG] GET /a/b\n")


def test_a_logger_of_another_kind_decides_about_the_default_hook(bench: Bench) -> None:
    """A logger without gunicorn's ``error_log`` may want the debug line."""
    hooks = hooks_of(bench, log=FakeLog())
    hooks.before(scope_of(REQUESTS["plain"]))
    assert WORKER.log.at("debug")[-1] == "GET /a/b"


def test_pre_request_alone(bench: Bench) -> None:
    """Only the hook that is set is called."""
    calls: list[Any] = []
    hooks = hooks_of(bench, pre_request=lambda worker, req: calls.append((worker, req)))
    view = hooks.before(scope_of(REQUESTS["plain"]))
    hooks.after(view, {}, None)
    assert calls == [(WORKER, view)]
    assert hooks.post is None


@pytest.mark.parametrize(
    ("hook", "arity"),
    [
        (lambda *calls: lambda worker, req: calls[0](worker, req), 2),
        (lambda *calls: lambda worker, req, environ: calls[0](worker, req, environ), 3),
        (lambda *calls: lambda worker, req, environ, resp: calls[0](worker, req, environ, resp), 4),
    ],
)
def test_post_request_takes_from_two_to_four_arguments(hook: Any, arity: int, bench: Bench) -> None:
    """A hook gets as many of worker, request, environ and response as it has parameters."""
    calls: list[Any] = []
    hooks = hooks_of(bench, post_request=hook(lambda *args: calls.append(args)))
    scope, environ = scope_of(REQUESTS["plain"]), {"a": 1}
    view = hooks.before(scope)
    hooks.after(view, environ, Exchange(scope, 404))
    (call,) = calls
    assert call[:3] == (WORKER, view, environ)[:arity]
    assert [response.status for response in call[3:]] == ["404 Not Found"] * (arity == 4)
    assert hooks.pre is None


def test_post_request_gets_an_environ_where_nobody_has_one(bench: Bench) -> None:
    """For an ASGI application the environ is what a WSGI application would have been given."""
    environs: list[Any] = []
    hooks = hooks_of(bench, post_request=lambda worker, req, environ, resp: environs.append(environ))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), None, None)
    assert environs[0]["REQUEST_METHOD"] == "GET"
    assert environs[0]["wsgi.url_scheme"] == "http"


def test_what_one_hook_notes_the_other_finds(bench: Bench) -> None:
    """A hook may keep things of its own on the request."""
    found: list[Any] = []

    def pre(worker: Any, req: Any) -> None:
        req.mark = "x"

    hooks = hooks_of(bench, pre_request=pre, post_request=lambda worker, req: found.append(req.mark))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert found == ["x"]


def test_an_exception_of_pre_request_goes_on_after_post_request(bench: Bench) -> None:
    """It means a 500; post_request is called all the same, and once, without environ and response."""
    calls: list[Any] = []

    def fail(worker: Any, req: Any) -> None:
        raise ValueError("not today")

    hooks = hooks_of(bench, pre_request=fail, post_request=lambda worker, req, env, resp: calls.append((env, resp)))
    with pytest.raises(ValueError, match="not today"):
        hooks.before(scope_of(REQUESTS["plain"]))
    hooks.after(None, {}, Exchange({}))
    assert calls == [({}, None)]


@OF_ANY_KIND
def test_an_exception_of_post_request_is_logged(bench: Bench, kind: type[BaseException]) -> None:
    """It is swallowed: the response is out."""
    hooks = hooks_of(bench, post_request=raises(kind))
    hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert "Exception in post_request hook\nTraceback" in bench.errors.read_text()


@OF_ANY_KIND
def test_whatever_pre_request_raises_post_request_is_called(bench: Bench, kind: type[BaseException]) -> None:
    """As under gunicorn's own workers."""
    calls: list[Any] = []
    hooks = hooks_of(bench, pre_request=raises(kind), post_request=lambda worker, req, env, resp: calls.append(resp))
    with pytest.raises(kind):
        hooks.before(scope_of(REQUESTS["plain"]))
    assert calls == [None]


def test_the_exit_of_the_process_passes_through_a_hook(bench: Bench) -> None:
    """It interrupts whatever runs, and is no error of that."""
    hooks = hooks_of(bench, post_request=raises(WorkerExit))
    with pytest.raises(WorkerExit):
        hooks.after(hooks.before(scope_of(REQUESTS["plain"])), {}, None)
    assert bench.errors.read_text() == ""


def change_everything(worker: Any, req: Any) -> None:
    req.method = "PUT"
    req.scheme = "https"
    req.uri = "/x%20y?z"
    req.path = "/x%20y"
    req.query = "z"
    req.headers.append(("X-ADDED", "é"))


def test_the_application_gets_what_pre_request_made_of_the_request(bench: Bench) -> None:
    """Whatever a hook changes, gunicorn makes the environ from; so does the scope."""
    scope = scope_of(REQUESTS["plain"])
    before = list(scope["headers"])
    hooks_of(bench, pre_request=change_everything).before(scope)
    assert scope["method"] == "PUT"
    assert scope["scheme"] == "https"
    assert scope["hybridworker.target"] == b"/x%20y?z"
    assert (scope["raw_path"], scope["path"], scope["query_string"]) == (b"/x%20y", "/x y", b"z")
    assert scope["headers"] == [*before, (b"x-added", b"\xe9")]


def test_a_hook_that_only_looks_changes_nothing(bench: Bench) -> None:
    """The scope is left as it is, its own list of headers included."""
    scope = scope_of(REQUESTS["plain"])
    before, headers = dict(scope), scope["headers"]
    hooks_of(bench, pre_request=lambda worker, req: [getattr(req, name) for name in VIEWED]).before(scope)
    assert scope == before
    assert scope["headers"] is headers


def test_a_change_that_cannot_be_taken_over_is_an_exception_of_the_hook(bench: Bench) -> None:
    """What is no header never reaches the application."""
    hooks = hooks_of(bench, pre_request=lambda worker, req: req.headers.append(("X", "€")))
    with pytest.raises(UnicodeEncodeError):
        hooks.before(scope_of(REQUESTS["plain"]))
