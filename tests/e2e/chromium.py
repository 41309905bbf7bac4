"""
A headless Chromium for the end-to-end tests, driven over the DevTools protocol.

:class:`Chromium` is one browser with a profile of its own, :class:`Page` one of its
windows. The protocol is JSON over a WebSocket; a command has a number, and its answer has
the same. The rule one could break by accident: events come between the answers and are
dropped, so a test asks the page for what it shows until it shows it (:meth:`Page.wait_for`).
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from tests.e2e.harness import DEADLINE, processes, wait_gone
from tests.e2e.programs import Program, found

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


class Chromium:
    """One browser, with an empty folder as its home. Skips the test where it is not installed."""

    def __init__(self, *flags: str) -> None:
        program = found("chromium")
        self.home = tempfile.TemporaryDirectory(prefix="hw-chromium-")
        self.folder = Path(self.home.name)
        argv = ["env", f"HOME={self.folder}", program, *FLAGS, *flags, f"--user-data-dir={self.folder}/profile"]
        self.program = Program([*argv, "--remote-debugging-port=0", "about:blank"], self.folder / "log", 0)
        self.number = 0

    def __enter__(self) -> Self:
        try:
            self.program.wait_log(r"DevTools listening on ws://\S+\n")
            match = re.search(r"DevTools listening on (ws://\S+)", self.program.log())
            assert match is not None
            self.socket = connect(match[1], proxy=None, open_timeout=DEADLINE, max_size=None).__enter__()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.socket.__exit__(kind, exc, tb)
        finally:
            self._end()

    def _end(self) -> None:
        self.program.close()
        for pid in self._helpers():  # the handlers of crashes have left the group, and end after the others
            wait_gone(pid)
        self.home.cleanup()

    def _helpers(self) -> list[int]:
        """The processes that work in our folder."""
        helpers = []
        for pid in processes():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue  # it ended while we looked
            if bytes(self.folder) in command:
                helpers.append(pid)
        return helpers

    def command(self, method: str, parameters: dict[str, object], session: str | None = None) -> dict[str, Any]:
        """One command of the DevTools protocol; returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message if session is None else {**message, "sessionId": session}))
        while True:
            answer = json.loads(self.socket.recv(DEADLINE))
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, url: str) -> Page:
        """A window of its own with a page."""
        target = self.command("Target.createTarget", {"url": url})["targetId"]
        session = self.command("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self, session)


class Page:
    """One window."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self.browser = browser
        self.session = session

    def command(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command to this window."""
        return self.browser.command(method, parameters, self.session)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait_for(self, expression: str, value: object) -> None:
        """Wait until an expression has a value."""
        deadline = time.monotonic() + DEADLINE
        while (seen := self.evaluate(expression)) != value:
            assert time.monotonic() < deadline, f"{expression} is {seen!r}, not {value!r}"
            time.sleep(0.01)

    def type(self, text: str) -> None:
        """Type into the element that has the focus, and press Enter."""
        self.command("Input.insertText", text=text)
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        self.command("Input.dispatchKeyEvent", type="keyDown", **key)
        self.command("Input.dispatchKeyEvent", type="keyUp", **key)
