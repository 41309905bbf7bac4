"""Directory: which part of a Hybrid serves a path, by whole segments; and the prefix of the whole deployment."""

from __future__ import annotations

import pytest

from hybridworker.application.directory import Directory, Part, enter_mount, normal_prefix, outer_prefix


def directory(*names: str, wsgi: str = "") -> Directory[str]:
    """The parts of these names; those in ``wsgi`` take no WebSocket."""
    entries = [(Part(name, name, None, name if name.startswith("/") else ""), name) for name in names]
    return Directory(entries, lambda name: name not in wsgi.split())


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "default"),
        ("/ws", "/ws"),
        ("/ws/", "/ws"),
        ("/ws/x", "/ws"),
        ("/wsx", "default"),
        ("/WS", "default"),
        ("/ws/chat", "/ws/chat"),
        ("/ws/chat/1", "/ws/chat"),
        ("/ws/chats", "/ws"),
        ("//ws", "default"),
        ("/../ws", "default"),
        ("/x/ws", "default"),
        ("/a/b/c", "/a/b"),
        ("/a", "default"),
        ("/a/bc", "default"),
        ("*", "default"),
        ("", "default"),
    ],
)
def test_a_prefix_claims_whole_segments_and_the_longest_wins(path: str, found: str) -> None:
    """Nothing of a path is normalised."""
    assert directory("default", "/ws", "/ws/chat", "/a/b").find(path) == found


def test_without_a_default_nothing_serves_the_rest() -> None:
    """Neither HTTP nor WebSocket."""
    parts = directory("/ws")
    assert (parts.find("/"), parts.find_for_websocket("/x"), parts.find_for_websocket("/ws")) == (None, None, "/ws")


@pytest.mark.parametrize(
    ("names", "wsgi", "path", "found"),
    [
        ("default websocket /a /a/b", "/a/b", "/a/b/c", "/a"),  # the longest that takes WebSockets
        ("default websocket /a", "/a", "/a/x", "websocket"),  # then websocket=
        ("default /a /a/b", "/a /a/b", "/a/b", "/a/b"),  # then the longest of all
        ("default /a", "/a", "/x", "default"),  # then the default
        ("default websocket", "default", "/x", "websocket"),
    ],
)
def test_a_websocket_goes_to_what_takes_it(names: str, wsgi: str, path: str, found: str) -> None:
    """ASGI by path, else by type, else as HTTP."""
    assert directory(*names.split(), wsgi=wsgi).find_for_websocket(path) == found


@pytest.mark.parametrize(
    ("text", "prefix"), [("", ""), ("/", ""), ("/api", "/api"), ("api/", "/api"), ("/a%20b/", "/a b"), ("/a/b", "/a/b")]
)
def test_a_configured_prefix_has_one_form(text: str, prefix: str) -> None:
    """Whatever slashes it was written with."""
    assert normal_prefix(text) == prefix


def test_the_prefix_of_the_deployment_is_taken_off_by_whole_segments() -> None:
    """The first that fits; an empty one fits nothing."""
    assert outer_prefix("/api/ws", ["", "/api"]) == ("/api", "/ws")
    assert outer_prefix("/api", ["/api"]) == ("/api", "")
    assert outer_prefix("/apix", ["/api"]) is None
    assert outer_prefix("/a/b/c", ["/a/b", "/a"]) == ("/a/b", "/c")


@pytest.mark.parametrize("stripped", [False, True])
def test_a_mount_point_begins_the_path(stripped: bool) -> None:
    """What a proxy has stripped is put before it, encoded as in RFC 3986 3.3 where it is raw."""
    below, raw = "/m/x", b"/m/x"
    scope = (
        {"path": below, "raw_path": raw} if stripped else {"path": f"/ä b@c{below}", "raw_path": b"/%C3%A4%20b@c" + raw}
    )
    enter_mount(scope, "/ä b@c", "/m", stripped=stripped)
    assert scope == {"root_path": "/ä b@c/m", "path": "/ä b@c/m/x", "raw_path": b"/%C3%A4%20b@c/m/x"}
