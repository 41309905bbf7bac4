"""Frameworks as parts of a Hybrid: the URLs that they make lead back to them, with and without a deployment prefix."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.e2e.harness import APPS, Gunicorn, Servers

for framework in ("channels", "django", "fastapi", "flask"):
    pytest.importorskip(framework, reason="the extra [examples] is not installed")

pytestmark = pytest.mark.e2e

APP = "hybrid_frameworks:app"
KINDS = ["ms", "mf", "ml", "md", "ma", "rs", "rf", "rl", "rd", "ra"]
FILE = (APPS / "gate.py").read_bytes()


@pytest.fixture(scope="module")
def site(shared_gunicorn: Servers) -> Gunicorn:
    """All frameworks, mounted and routed, at the root."""
    return shared_gunicorn(APP, "--threads", "2")


@pytest.fixture(scope="module")
def below(shared_gunicorn: Servers) -> Gunicorn:
    """The same, whose deployment has a prefix that the proxy leaves in the path."""
    return shared_gunicorn(APP, "--threads", "2", "--root-path", "/api", env={"SCRIPT_NAME": "/api"})


def follow(server: Gunicorn, outer: str, part: str) -> None:
    """Look at a page, and at what it links to."""
    page = server.request(f"{outer}/{part}/where/")
    assert page.status == 200, page.text
    where, static = page.text.split()
    assert where == f"http://localhost{outer}/{part}/where/"
    assert static == f"http://localhost{outer}/{part}/static/gate.py"
    assert server.request(urlsplit(where).path).text == page.text
    assert server.request(urlsplit(static).path).body == FILE
    redirect = server.request(f"{outer}/{part}/where")
    assert redirect.status in (301, 302, 307, 308)
    location = redirect.header("location") or ""
    assert location.removeprefix("http://localhost") == f"{outer}/{part}/where/"


@pytest.mark.parametrize("part", KINDS)
def test_what_a_part_links_to_is_there(site: Gunicorn, part: str) -> None:
    """URLs, redirects to a slash, and static files."""
    follow(site, "", part)


@pytest.mark.parametrize("part", KINDS)
def test_what_a_part_links_to_is_there_below_a_prefix(below: Gunicorn, part: str) -> None:
    """The prefix of the deployment comes before that of a mount."""
    follow(below, "/api", part)


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/mc/room/a", "/mc /mc/room/a {'name': 'a'}"),
        ("/rc/room/a", " /rc/room/a {'name': 'a'}"),
    ],
)
def test_channels_routes_below_its_mount_point(site: Gunicorn, path: str, seen: str) -> None:
    """And sees the whole path where it is routed."""
    sync = pytest.importorskip("websockets.sync.client", reason="the extra [websockets] is not installed")
    with sync.connect(f"ws://127.0.0.1:{site.port}{path}", proxy=None) as socket:
        assert socket.recv() == seen


def test_mcp_has_its_lifespan_and_its_tools(gunicorn: Servers) -> None:
    """FastMCP does not serve without its lifespan, which a mount in another framework does not run."""
    fastmcp = pytest.importorskip("fastmcp", reason="it is large, so no extra has it")
    server = gunicorn(APP, env={"WITH_MCP": "1"}, dirty=True)

    async def add(path: str) -> object:
        async with fastmcp.Client(f"http://127.0.0.1:{server.port}{path}") as client:
            return (await client.call_tool("add", {"a": 2, "b": 3})).data

    assert asyncio.run(add("/mm/mcp")) == 5
    assert asyncio.run(add("/rm/mcp")) == 5
