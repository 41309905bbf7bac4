"""The chat of the examples in a real browser: two windows that talk, and the end of the worker."""

from __future__ import annotations

import signal

import pytest

from tests.e2e.harness import ROOT, Servers

pytest.importorskip("websockets", reason="the extra hybridworker[websockets] is not installed")

from tests.e2e.chromium import Chromium

pytestmark = pytest.mark.e2e

STATE = "document.querySelector('#state')?.textContent"
MESSAGES = "[...document.querySelectorAll('#messages li')].map(item => item.textContent)"
FOCUS = "document.querySelector('#text').focus()"


def test_the_chat_in_chromium(gunicorn: Servers) -> None:
    """
    What is typed in one window is shown in both, as text and in order, whatever its size.

    The browser negotiates compression by itself; when the worker leaves it is told 1012,
    and closes as it should, so that the worker does not wait.
    """
    server = gunicorn("websocket_chat:app", "--chdir", str(ROOT / "examples"), "--graceful-timeout", "300")
    with Chromium() as browser:
        pages = [browser.open(f"{server.url}/") for _ in range(2)]
        for page in pages:
            page.wait_for(STATE, "connected")
            assert page.evaluate("socket.extensions").startswith("permessage-deflate")
            page.evaluate(FOCUS)
        long = "a long message, " * 5000
        said = ["hello", "<b>h\u00e9llo</b> \u2713", long]
        for number, text in enumerate(said):
            pages[number % 2].type(text)
            for page in pages:
                page.wait_for(MESSAGES, said[: number + 1])
        server.signal(signal.SIGTERM)
        for page in pages:
            page.wait_for(STATE, "closed: 1012 ")
        assert server.wait() == 0
