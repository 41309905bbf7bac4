"""A Hybrid under gunicorn: paths, kinds, lifespans, boots that fail, and what is seen of the parts."""

from __future__ import annotations

import asyncio
import importlib
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import APPS, Gunicorn, Servers
from tests.process.test_endpoints import parse

pytestmark = pytest.mark.e2e

HOST = "Host: x\r\n"
APP = "hybrids:app"


def said(server: Gunicorn, path: str, headers: str = "") -> list[str]:
    """What the part that serves ``path`` was given."""
    response = server.request(path, headers=headers)
    assert response.status == 200
    return response.text.split("|")


def websocket(server: Gunicorn, path: str, headers: dict[str, str] | None = None) -> list[str]:
    """The first message of a WebSocket."""
    sync = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    uri = f"ws://127.0.0.1:{server.port}{path}"
    with sync.connect(uri, proxy=None, additional_headers=headers) as socket:
        text: str = socket.recv()
        return text.split("|")


@pytest.fixture(scope="module")
def site(shared_gunicorn: Servers) -> Gunicorn:
    """The Hybrid of all kinds."""
    form = "%(r)s %(s)s [%({hybridworker.part}e)s]"
    return shared_gunicorn(APP, "--threads", "4", "--access-logfile", "-", "--access-logformat", form)


# -- where requests go


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "wsgi||/|/|127.0.0.1|default"),
        ("/wsx", "wsgi||/wsx|/wsx|127.0.0.1|default"),
        ("/../ws", "wsgi||/../ws|/../ws|127.0.0.1|default"),
        ("/ws", "room||/ws|/ws|127.0.0.1|room|/ws"),
        ("/%77s/x", "room||/ws/x|/%77s/x|127.0.0.1|room|/ws"),
        ("/ws/pages/1", "wsgi||/ws/pages/1|/ws/pages/1|127.0.0.1|/ws/pages"),
        ("/events/1", "everywhere||/events/1|/events/1|127.0.0.1|everywhere|/events"),
        ("/mcp", "tools|/mcp|/mcp|/mcp|127.0.0.1|tools|/mcp"),
        ("/mcp/a%20b", "tools|/mcp|/mcp/a b|/mcp/a%20b|127.0.0.1|tools|/mcp"),
        ("/shop/a%2Fb", "wsgi|/shop|/a/b|/shop/a%2Fb|127.0.0.1|/shop"),
    ],
)
def test_each_path_reaches_its_part(site: Gunicorn, path: str, shown: str) -> None:
    """With its mount point, its state and its name."""
    assert "|".join(said(site, path)).startswith(shown)
    name = shown.split("|")[-1]
    site.wait_log(re.escape(f"GET {path} HTTP/1.1 200 [{name}]"))


def test_websockets_go_by_path_and_by_type(site: Gunicorn) -> None:
    """The longest ASGI prefix, else ``websocket=``: a longer WSGI one does not take them."""
    assert websocket(site, "/ws/pages/1")[:2] == ["room", ""]
    assert websocket(site, "/anything")[0] == "everywhere"
    assert websocket(site, "/shop/x")[0] == "everywhere"
    assert websocket(site, "/mcp/x")[:3] == ["tools", "/mcp", "/mcp/x"]


def test_a_wsgi_part_takes_the_websockets_that_no_asgi_part_does(gunicorn: Servers) -> None:
    """It has ``gunicorn.socket``, mounted or not, and in handshakes only; a shorter ASGI prefix comes first."""
    form = "%(r)s %(s)s [%({hybridworker.part}e)s]"
    server = gunicorn("hybrid_sockets:app", "--threads", "4", "--access-logfile", "-", "--access-logformat", form)
    for path, part in ("/peer", "default"), ("/flask/peer", "/flask"):
        assert websocket(server, path) == ["127.0.0.1 http 127.0.0.1"]
        server.wait_log(re.escape(f"GET {path} HTTP/1.1 101 [{part}]"))
    assert websocket(server, "/room/flask/peer")[0] == "room"
    for path in ("/", "/flask/"):
        assert server.request(path).text == "False"


def test_the_part_for_websockets_comes_before_wsgi_parts(gunicorn: Servers) -> None:
    """So none of these has a socket, also where its prefix is the longest."""
    server = gunicorn("hybrid_sockets:beside", "--threads", "4")
    for path in ("/peer", "/flask/peer"):
        assert websocket(server, path)[0] == "everywhere"


def test_what_nothing_claims_is_not_found(gunicorn: Servers) -> None:
    """HTTP and WebSocket; it is in the access log."""
    server = gunicorn("hybrids:headless", "--access-logfile", "-")
    assert server.request("/x").status == 404
    handshake = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with server.connect() as client:
        assert client.request("/x", headers=handshake + "Connection: Upgrade\r\n").status == 404
    assert said(server, "/ws")[0] == "room"
    server.wait_log(r'"GET /x HTTP/1.1" 404', 2)


def test_one_connection_serves_all_kinds_pipelined_or_not(site: Gunicorn) -> None:
    """Responses keep their order, bodies their part."""
    paths = ["/a", "/ws/a", "/shop/a", "/mcp/a", "/nothing", "/events/a"]
    kinds = ["wsgi", "room", "wsgi", "tools", "wsgi", "everywhere"]
    with site.connect() as client:
        assert [client.request(path, "POST", b"x" * 10).text.split("|")[0] for path in paths] == kinds
        client.send("".join(f"POST {path} HTTP/1.1\r\n{HOST}Content-Length: 3\r\n\r\nabc" for path in paths))
        bodies = [client.response().text.split("|") for _ in paths]
        assert [body[0] for body in bodies] == kinds
        assert all("3" in body[-2:] for body in bodies)


def test_a_body_is_asked_for_as_each_kind_asks(site: Gunicorn) -> None:
    """100-continue goes out when the part reads."""
    for path, kind in (("/", "wsgi"), ("/ws", "room")):
        with site.connect() as client:
            client.send(f"POST {path} HTTP/1.1\r\n{HOST}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
            assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
            client.send(b"abc")
            assert client.response().text.startswith(kind)


def test_the_client_is_named_as_each_kind_knows_it(site: Gunicorn) -> None:
    """X-Forwarded-For of a trusted proxy is for ASGI parts, also where the default is WSGI."""
    field = "X-Forwarded-For: 192.0.2.7\r\n"
    assert said(site, "/", field)[4] == "127.0.0.1"
    assert said(site, "/ws", field)[4] == "192.0.2.7"
    assert websocket(site, "/x", {"X-Forwarded-For": "192.0.2.7"})[-1] == "192.0.2.7"


def test_a_client_that_leaves_ends_the_stream_of_an_asgi_part(site: Gunicorn) -> None:
    """The kind of the part decides, not that of the default."""
    with site.connect() as client:
        client.start("/events/stream")
        assert client.head()[0] == 200
        assert client.chunk() == b"open"
    site.wait_log("stream ends")


@pytest.mark.parametrize(
    ("args", "env", "field"),
    [
        (["--root-path", "/api"], {"SCRIPT_NAME": "/api"}, ""),
        ([], {}, "SCRIPT_NAME: /api\r\n"),
    ],
)
def test_the_prefix_of_the_deployment_comes_first(
    gunicorn: Servers, args: list[str], env: dict[str, str], field: str
) -> None:
    """It is taken off for matching, and joined with that of a mount."""
    server = gunicorn(APP, *args, env=env)
    assert said(server, "/api/shop/x", field)[1:3] == ["/api/shop", "/x"]
    assert said(server, "/api/mcp/x", field)[1:4] == ["/api/mcp", "/api/mcp/x", "/api/mcp/x"]
    assert said(server, "/mcp/x", field)[1:4] == ["/api/mcp", "/api/mcp/x", "/api/mcp/x"]
    assert said(server, "/api/ws/x", field)[2] == "/api/ws/x"
    assert said(server, "/api/x", field)[1:3] == ["/api", "/x"]


# -- boots


def test_the_boot_names_each_part(site: Gunicorn) -> None:
    """Key, kind and reason."""
    coroutine = r"its __call__ is a coroutine function"
    site.wait_log(r"Serving WSGI application hybrids:app, default \(it takes two parameters\), threads=4$")
    site.wait_log(rf"Serving ASGI 3 application hybrids:app, websocket \({coroutine}\)$")
    site.wait_log(rf"Serving ASGI 3 application hybrids:app, routes\['/ws'\] \({coroutine}\)$")
    site.wait_log(rf"Serving ASGI 3 application hybrids:app, mounts\['/mcp'\] \({coroutine}\)$")


def test_lifespans_start_in_order_and_stop_in_reverse(gunicorn: Servers) -> None:
    """One for each object."""
    server = gunicorn(APP)
    assert said(server, "/ws")[0] == "room"
    assert server.stop() == 0
    told = re.findall(r"^(\w+) (starts|stops)$", server.log(), re.MULTILINE)
    names = ["everywhere", "room", "tools"]
    assert told == [(name, "starts") for name in names] + [(name, "stops") for name in reversed(names)]


def test_a_startup_that_fails_stops_the_others_and_ends_the_boot(gunicorn: Servers) -> None:
    """Exit code 3, with the name of the part; those behind it never start."""
    server = gunicorn("hybrids:failing", ready=False, dirty=True)
    assert server.wait() == 3
    assert re.findall(r"^(\w+) (starts|stops)$", server.log(), re.MULTILINE) == [
        ("first", "starts"), ("second", "starts"), ("first", "stops"),
    ]  # fmt: skip
    assert "Application startup failed: routes['/b']: no database" in server.log()


@pytest.mark.parametrize(
    ("app", "options", "line"),
    [
        ("hybrids:factory", {}, r"hybrids:factory: mounts\['/x'\]: .* takes no arguments: .*brackets"),
        ("hybrid_bad_prefix:serve", {}, r"bad_prefix:serve: Hybrid: routes\['ws'\]: a prefix begins with a slash"),
        ("hybrid_bad_twice:serve", {}, r"Hybrid: mounts\['/a'\] and routes\['/a'\] claim the same paths"),
        ("hybrid_bad_nested:serve", {}, r"Hybrid: websocket is a Hybrid: a Hybrid may not contain another one"),
        (APP, {"HYBRIDWORKER_INTERFACE": "wsgi"}, r"hybrids:app: HYBRIDWORKER_INTERFACE=wsgi .*as_asgi\(part\)"),
        (APP, {"HYBRIDWORKER_WEBSOCKET": "hybrids:room"}, r"HYBRIDWORKER_WEBSOCKET=hybrids:room beside a Hybrid"),
        ("hybrids:show", {"HYBRIDWORKER_WEBSOCKET": "hybrids:show"}, r"WEBSOCKET=hybrids:show is a WSGI application"),
        ("hybrids:show", {"HYBRIDWORKER_WEBSOCKET": "nosuch:app"}, r"WEBSOCKET=nosuch:app: there is no module"),
        ("hybrids:show", {"HYBRIDWORKER_WEBSOCKET": "hybrids:make_sockets"}, r"brackets: 'hybrids:make_sockets\(\)'"),
        ("hybrids:show", {"HYBRIDWORKER_WEBSOCKET": "a b"}, r"WEBSOCKET='a b' must be an application such"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_ends_the_boot_with_a_line(
    gunicorn: Servers, app: str, options: dict[str, str], line: str
) -> None:
    """Exit code 3, without a traceback."""
    server = gunicorn(app, env=options, ready=False, dirty=True)
    assert server.wait() == 3
    assert re.search(line, server.log()), server.log()
    assert "Traceback" not in server.log()


def test_under_preload_a_hybrid_that_cannot_be_made_is_one_line(gunicorn: Servers) -> None:
    """The master loads it: then it is gunicorn's exit code, and its word before the line."""
    server = gunicorn("hybrid_bad_twice:serve", "--preload", ready=False, dirty=True)
    assert server.wait() == 1
    assert "Error: Hybrid: mounts['/a'] and routes['/a'] claim the same paths" in server.log()
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("preload", [False, True])
def test_a_name_that_is_not_there_is_a_wrong_name(gunicorn: Servers, preload: bool) -> None:
    """Exit code 4, as for the first application, and what was meant."""
    args = ["--preload"] if preload else []
    server = gunicorn("hybrids:show", *args, env={"HYBRIDWORKER_WEBSOCKET": "hybrids:rom"}, ready=False, dirty=True)
    assert server.wait() == 4
    assert re.search(r"WEBSOCKET=hybrids:rom: Failed to find attribute .*; did you mean hybrids:room\?", server.log())
    assert "Traceback" not in server.log()


def test_under_preload_a_module_that_raises_ends_the_master(gunicorn: Servers) -> None:
    """Exit code 3, our line, and the traceback of the module."""
    env = {"HYBRIDWORKER_WEBSOCKET": "raises_on_import:app"}
    server = gunicorn("hybrids:show", "--preload", env=env, ready=False, dirty=True)
    assert server.wait() == 3
    assert "HYBRIDWORKER_WEBSOCKET=raises_on_import:app cannot be loaded" in server.log()
    assert "raises_on_import.py" in server.log()


@pytest.mark.parametrize("args", [[], ["--preload"]])
def test_the_variable_pairs_two_applications(gunicorn: Servers, args: list[str]) -> None:
    """Pages by the first, WebSockets by the second, which a factory makes; also after a HUP."""
    server = gunicorn("hybrids:show", *args, "--env", "HYBRIDWORKER_WEBSOCKET=hybrids:make_sockets()")
    assert said(server, "/x")[0] == "wsgi"
    assert websocket(server, "/x")[0] == "made"
    server.wait_log(r"Serving WSGI application hybrids:show, default \(")
    server.wait_log(r"Serving ASGI 3 application hybrids:make_sockets\(\), websocket \(")
    server.signal(signal.SIGHUP)
    server.wait_log(r"^made starts$", 2)
    server.wait_log(r"Worker exiting")
    assert websocket(server, "/x")[0] == "made"


def test_a_syntax_error_in_the_second_is_shown_under_reload(gunicorn: Servers, tmp_path: Path) -> None:
    """As for the first: a page that says so, until the file is mended."""
    module = tmp_path / "sockets_draft.py"
    module.write_text("def app(:\n")
    env = {"HYBRIDWORKER_WEBSOCKET": "sockets_draft:app"}
    server = gunicorn("hybrids:show", "--reload", "--pythonpath", str(tmp_path), env=env, dirty=True)
    assert server.request("/").status == 500
    module.write_text("from hybrids import room as app\n")
    server.wait_log(r"Serving ASGI 3 application sockets_draft:app, websocket")
    server.wait_log(r"^room starts$")
    assert said(server, "/x")[0] == "wsgi"


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["workers", "preload"])
@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(7)"])
def test_a_second_module_that_fails_is_named(
    gunicorn: Servers, tmp_path: Path, code: str, options: tuple[str, ...]
) -> None:
    """The traceback alone would not say why that module is imported."""
    (tmp_path / "sockets_broken.py").write_text(f"{code}\n")
    env = {"HYBRIDWORKER_WEBSOCKET": "sockets_broken:app"}
    server = gunicorn("hybrids:show", "--pythonpath", str(tmp_path), *options, env=env, dirty=True, ready=False)
    assert server.wait() == 3
    assert "[ERROR] HYBRIDWORKER_WEBSOCKET=sockets_broken:app cannot be loaded" in server.log()


def test_a_wrapped_hybrid_is_plain_asgi_with_one_warning(gunicorn: Servers) -> None:
    """Its WSGI parts run through asgiref's adapter."""
    server = gunicorn("hybrids:wrapped")
    server.wait_log(
        r"\[WARNING\] hybrids:wrapped: a middleware wraps a Hybrid, .* wrap the parts of the Hybrid instead$"
    )
    assert server.request("/x").text == "pages"
    assert websocket(server, "/ws")[0] == "room"
    assert server.log().count("wraps a Hybrid") == 1


# -- what is seen of the parts


def metrics(server: Gunicorn) -> Any:
    return parse(server.request("/metrics").text)


def served(server: Gunicorn, part: str, status: str = "2xx") -> float:
    """Responses of a part."""
    labels = (("part", part), ("status", status))
    value: float = metrics(server)["hybridworker_requests_total"].samples.get(
        ("hybridworker_requests_total", labels), 0
    )
    return value


def test_the_metrics_name_the_parts_also_after_a_reload_with_others(gunicorn: Servers, tmp_path: Path) -> None:
    """A counter is never shown under the name of another part, and no sum falls."""
    module = tmp_path / "deployed.py"
    module.write_text("from hybrids import app\n")
    server = gunicorn("deployed:app", "--pythonpath", str(tmp_path), env={"HYBRIDWORKER_METRICS_PATH": "/metrics"})
    for path in ("/", "/", "/shop/1", "/mcp/1", "/events"):
        said(server, path)
    server.wait_for(lambda: served(server, "default") == 2, "the counts of the first worker")
    assert [served(server, part) for part in ("/shop", "/mcp", "/events", "/ws")] == [1, 1, 1, 0]
    page = metrics(server)
    waited = page["hybridworker_queue_seconds"].samples["hybridworker_queue_seconds_count", (("part", "default"),)]
    assert waited == 2
    assert ("hybridworker_calls_queued", (("part", "/shop"),)) in page["hybridworker_calls_queued"].samples
    module.write_text("from hybrids import renamed as app\n")
    server.signal(signal.SIGHUP)
    server.wait_log(r"Serving ASGI 3 application deployed:app, default")
    server.wait_log(r"Worker exiting")
    assert said(server, "/x")[0] == "room"
    assert said(server, "/new")[0] == "wsgi"
    server.wait_for(lambda: served(server, "/new") == 1, "the counts of the second worker")
    assert [served(server, part) for part in ("default", "/shop", "/mcp", "/events")] == [3, 1, 1, 1]


def test_more_than_sixteen_parts_are_counted_together(gunicorn: Servers) -> None:
    """The rest has the name ``other``; what no part claims is of none."""
    server = gunicorn("hybrids:many", env={"HYBRIDWORKER_METRICS_PATH": "/metrics"})
    for number in range(20):
        said(server, f"/r{number}")
    server.wait_for(lambda: served(server, "other") == 5, "the counts")
    assert [served(server, f"/r{number}") for number in (0, 14, 15)] == [1, 1, 0]
    with server.connect() as client:
        client.send("GET / HTTP/1.1\r\n\r\n")
        assert client.response().status == 400
    server.wait_for(lambda: served(server, "none", "4xx") == 1, "the refusal")


def test_without_a_hybrid_nothing_has_the_label(gunicorn: Servers) -> None:
    """Dashboards go on."""
    server = gunicorn("hybrids:show", env={"HYBRIDWORKER_METRICS_PATH": "/metrics"})
    assert server.request("/").status == 200
    assert "part=" not in server.request("/metrics").text


def test_reports_name_the_part(gunicorn: Servers) -> None:
    """The table of USR2, and the report of a loop that is held."""
    server = gunicorn(APP, "--threads", "2", env={"HYBRIDWORKER_SLOW_LOOP": "0.3"}, dirty=True)
    (worker,) = server.worker_pids()
    with server.connect() as waiting, server.connect() as stream:
        waiting.start("/shop/wait")
        stream.start("/events/stream")
        assert stream.head()[0] == 200
        server.wait_log("wsgi")
        server.signal(signal.SIGUSR2, worker)
        server.wait_log(r"^  GET /shop/wait, part /shop, \d+\.\d s, in thread hybridworker-wsgi-\d$")
        server.wait_log(r"^  GET /events/stream, part /events, \d+\.\d s, in the loop")
        server.open("wsgi")
        assert waiting.response().text.startswith("wsgi|/shop")
    assert said(server, "/mcp/hold")[0] == "tools"
    server.wait_log(r"The event loop is held for more than \d+\.\d+ s by GET /mcp/hold, part /mcp$")


# -- elsewhere


@pytest.mark.parametrize("worker", ["uvicorn_worker.UvicornWorker", "asgi"])
def test_the_way_back_is_the_worker_class(gunicorn: Servers, worker: str) -> None:
    """Other workers serve the same module, by its ASGI side."""
    if worker != "asgi":
        pytest.importorskip("uvicorn_worker", reason="it is not installed")
    server = gunicorn("hybrids:headed", worker=worker, dirty=True)
    assert server.request("/x").text.startswith("wsgi||/x")
    assert server.request("/shop/x").text.startswith("wsgi|/shop|/x")
    assert server.request("/ws/x").text == "room||/ws/x"
    assert server.request("/nothing/x").status == 200


def test_test_clients_serve_it() -> None:
    """Starlette's, with lifespan and WebSocket, and httpx's."""
    client = pytest.importorskip("starlette.testclient", reason="the extra [examples] is not installed")
    httpx = pytest.importorskip("httpx")
    sys.path.insert(0, str(APPS))
    try:
        headed = importlib.import_module("hybrids").headed
    finally:
        sys.path.remove(str(APPS))
    with client.TestClient(headed) as test:
        assert test.get("/shop/x").text.startswith("wsgi|/shop|/x")
        assert test.get("/ws/x").text == "room||/ws/x"
        with test.websocket_connect("/anything") as socket:
            assert socket.receive_text() == "room"

    async def get() -> str:
        transport = httpx.ASGITransport(app=headed)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as test:
            text: str = (await test.get("/shop/x")).text
            return text

    assert asyncio.run(get()).startswith("wsgi|/shop|/x")
