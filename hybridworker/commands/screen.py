"""
Screen: a terminal in the hands of a program that redraws it.

:class:`Screen` is a context manager. On entering it takes the alternate screen, hides the cursor and turns off echo; on
leaving, by whatever way, everything is as it was. Synchronous, on the standard library alone.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _TO_END_OF_LINE, _TO_END = "\x1b[H", "\x1b[K", "\x1b[J"


class Screen:
    """The terminal of this process: its standard input, for keys, and its standard output."""

    def __init__(self) -> None:
        self.modes: list[Any] | None = None
        self.keyed = sys.stdin is not None and sys.stdin.isatty()
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self.handlers[number] = signal.signal(number, _interrupt)
        if self.keyed:
            self.modes = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        self._write(_ENTER)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self._write(_LEAVE)
        except OSError:
            pass  # the terminal is gone, and has nothing to be restored
        if self.modes is not None:
            try:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self.modes)
            except termios.error:
                pass  # the same
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        try:
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            columns, lines = 80, 24
        return columns or 80, lines or 24

    def show(self, lines: Sequence[str]) -> None:
        """Draw ``lines``; what does not fit is left out, and said to be."""
        columns, height = self.size()
        if len(lines) > height:
            lines = [*lines[: height - 1], f"... and {len(lines) - height + 1} lines more"]
        self._write(_HOME + "\n".join(line[:columns] + _TO_END_OF_LINE for line in lines) + _TO_END)

    def key(self, seconds: float) -> str:
        """Wait for a key, no longer than that; returns it, or nothing."""
        if not self.keyed:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode("latin-1") if ready else ""

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Leave as with Ctrl-C, so that the terminal is restored."""
    raise KeyboardInterrupt
