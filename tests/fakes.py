"""Stand-ins for what surrounds the code under test: a transport, a log, a clock that can be moved."""

from __future__ import annotations

import asyncio
from typing import Any


class FakeTransport(asyncio.Transport):
    """
    A transport that records every write.

    ``writes`` holds one entry per ``write`` or ``writelines`` call. ``unsent`` is what
    :meth:`get_write_buffer_size` answers; a test sets it to play a slow client.
    """

    def __init__(
        self,
        peername: Any = ("127.0.0.1", 40000),
        sockname: Any = ("127.0.0.1", 8000),
        ssl_object: Any = None,
    ) -> None:
        super().__init__()
        self.info: dict[str, Any] = {"peername": peername, "sockname": sockname}
        if ssl_object is not None:
            self.info["ssl_object"] = ssl_object
        self.writes: list[bytes] = []
        self.unsent = 0
        self.closing = False
        self.aborted = False
        self.eof = False
        self.reading = True
        self.protocol: Any = None

    @property
    def sent(self) -> bytes:
        """All bytes written so far."""
        return b"".join(self.writes)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.info.get(name, default)

    def write(self, data: Any) -> None:
        if self.eof:
            raise RuntimeError("Cannot call write() after write_eof()")  # as both loops do
        if not self.closing:
            self.writes.append(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(bytes(data) for data in list_of_data))

    def can_write_eof(self) -> bool:
        return "ssl_object" not in self.info

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class FakeLog:
    """A logger that keeps ``(level, message)`` pairs in ``lines``."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def _keep(self, level: str, msg: object, args: tuple[Any, ...]) -> None:
        self.lines.append((level, str(msg) % args if args else str(msg)))

    def debug(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._keep("debug", msg, args)

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._keep("info", msg, args)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._keep("warning", msg, args)

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._keep("error", msg, args)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self._keep("exception", msg, args)

    def at(self, level: str) -> list[str]:
        """The messages of one level."""
        return [message for kept, message in self.lines if kept == level]


class FakeCall:
    """What a pool asks of a call that has no time-out. ``dropped`` and ``expired`` say what it was told."""

    delay = 0.0
    abandoned = False
    dropped = False
    expired = False

    def drop(self) -> None:
        self.dropped = True

    def expire(self) -> None:
        self.expired = True
