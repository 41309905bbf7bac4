"""
WebSockets over HTTP/2 (RFC 8441): what is tested over HTTP/1.1, through a bridge; and what is its own.

The imported tests run here with ``shared``, a server behind the bridge.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

pytest.importorskip("h2", reason="the extra is not installed")
pytest.importorskip("websockets", reason="the extra is not installed")

from websockets.exceptions import InvalidStatus

from tests.e2e.bridge import Bridge
from tests.e2e.chromium import Chromium
from tests.e2e.harness import Servers
from tests.e2e.http2client import HTTP2Client
from tests.e2e.test_websocket import (  # noqa: F401  # tests that are collected here as well
    client,
    frame,
    test_a_flood_of_tiny_messages_is_answered_to_the_last,
    test_compression_on_the_wire,
    test_frames_right_behind_the_handshake,
    test_messages_keep_their_order,
    test_w10_echo,
    test_w11_fragments,
    test_w15_w20_the_application_closes,
    test_w16_the_client_closes,
    test_w22_the_application_returns,
    test_w23_bad_input_gets_its_code_and_no_traceback,
)

pytestmark = pytest.mark.e2e

CLEARTEXT = ("--http-protocols", "h2,h1", "--http2-cleartext", "prior-knowledge")
CONNECT = [(":protocol", "websocket"), ("sec-websocket-version", "13")]


@pytest.fixture(scope="module")
def shared(shared_gunicorn: Servers) -> Iterator[Bridge]:
    """A server behind the bridge."""
    with Bridge(shared_gunicorn("sockets:app", *CLEARTEXT)) as bridge:
        yield bridge


def connect(client: HTTP2Client, path: str) -> int:
    """Open a WebSocket; returns its stream."""
    stream = client.start(path, "CONNECT", CONNECT, end=False)
    client.wait(lambda: client.answers[stream].status or client.answers[stream].over)
    return stream


def test_the_scope_is_that_of_a_websocket(shared: Bridge) -> None:
    """With the version of HTTP; the acceptance is a 200 with the application's fields."""
    with client(shared, "/scope") as there:  # type: ignore[arg-type]
        scope = json.loads(there.recv())
    assert (scope["type"], scope["http_version"], scope["scheme"]) == ("websocket", "2", "ws")
    assert "method" not in scope


@pytest.mark.parametrize("path", ["/denies", "/denies/length"])
def test_a_denial_is_a_response(shared: Bridge, path: str) -> None:
    """Of the application's, on its stream; the connection goes on."""
    with HTTP2Client.to(shared.server) as there:
        answer = there.answers[connect(there, path)]
        there.wait(lambda: answer.over)
        assert (answer.status, answer.text, answer["x-reason"]) == (429, "come later.\n", "full")
        assert there.request("/").status == 200
    with pytest.raises(InvalidStatus) as caught, client(shared, path):  # type: ignore[arg-type]
        pass
    assert caught.value.response.status_code == 429


def test_a_bad_handshake_is_refused_on_its_stream(shared: Bridge) -> None:
    """Another version, and another protocol (RFC 8441 4); WSGI announces nothing."""
    with HTTP2Client.to(shared.server) as there:
        bad = [(":protocol", "websocket"), ("sec-websocket-version", "12")]
        assert there.finish(there.start("/echo", "CONNECT", bad, end=False)).status == 400
        assert there.finish(there.start("/echo", "CONNECT", [(":protocol", "ftp")], end=False)).status == 501
        assert there.request("/").status == 200


def test_wsgi_announces_no_websocket(gunicorn: Servers) -> None:
    """And answers an extended CONNECT with a 501."""
    server = gunicorn("wsgi:app", *CLEARTEXT)
    with HTTP2Client.to(server) as there:
        assert there.request("/").status == 200
        assert not there.h2.remote_settings.enable_connect_protocol
        assert there.finish(there.start("/", "CONNECT", CONNECT, end=False)).status == 501


def test_a_reset_is_a_disconnect(gunicorn: Servers) -> None:
    """1006 for the application; requests on the connection go on."""
    server = gunicorn("sockets:app", *CLEARTEXT, "--access-logfile", "-")
    with HTTP2Client.to(server) as there:
        stream = connect(there, "/echo")
        there.send(stream, frame(0x81, b"hi"))
        there.wait(lambda: there.answers[stream].body == b"\x81\x02hi")
        there.h2.reset_stream(stream, 8)
        there.flush()
        server.wait_log(r"disconnected 1006")
        assert there.request("/").status == 200
        server.wait_log(r'"GET /echo HTTP/2" 200')


def test_term_says_1012_on_the_stream(gunicorn: Servers) -> None:
    """As over HTTP/1.1, between the two GOAWAYs; the worker does not wait for more."""
    server = gunicorn("sockets:app", *CLEARTEXT, "--graceful-timeout", "300", "--timeout", "300")
    with HTTP2Client.to(server) as there:
        stream = connect(there, "/echo")
        server.signal(signal.SIGTERM)
        there.wait(lambda: there.answers[stream].body)
        assert there.answers[stream].body[2:4] == b"\x03\xf4"
        there.send(stream, frame(0x88, b"\x03\xf4"), end=True)
        there.wait_closed()
    assert [last for last, _ in there.goaways] == [2**31 - 1, stream]
    assert server.wait() == 0


def test_a_browser_opens_it_on_the_connection_of_its_page(gunicorn: Servers, tmp_path: Path) -> None:
    """Chromium, over TLS: fetches and a wss on one connection of HTTP/2."""
    authority = trustme.CA()
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    pem = str(tmp_path / "server.pem")
    server = gunicorn("sockets:app", "--certfile", pem, "--keyfile", pem, "--http-protocols", "h2,h1")
    with Chromium("--ignore-certificate-errors") as browser:
        page = browser.open(f"https://localhost:{server.port}/")
        page.wait_for("location.protocol + document.readyState", "https:complete")
        page.evaluate(
            "window.got = ''; fetch('/').then(answer => answer.text()).then(text => window.fetched = text);"
            f"window.ws = new WebSocket('wss://localhost:{server.port}/scope');"
            "ws.onmessage = event => { window.got = JSON.parse(event.data).http_version }; 0"
        )
        page.wait_for("window.got", "2")
        page.wait_for("performance.getEntriesByType('resource')[0]?.nextHopProtocol", "h2")
