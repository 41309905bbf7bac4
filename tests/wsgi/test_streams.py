"""The streams of PEP 3333, as an application uses them."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.http.wsgi import WSGIErrorsWrapper

from hybridworker.asgi import Message
from hybridworker.errors import ClientDisconnected
from hybridworker.wsgi.streams import ErrorLog, FileWrapper, RequestBody


def body_of(*parts: bytes | None, first: Message | None = None) -> io.BufferedReader:
    """A body that comes in ``parts``; None is a client that leaves."""

    def messages() -> Iterator[Message]:
        for number, part in enumerate(parts, 1):
            if part is None:
                yield {"type": "http.disconnect"}
            else:
                yield {"type": "http.request", "body": part, "more_body": number < len(parts)}

    return io.BufferedReader(RequestBody(messages().__next__, first), 8)


def test_s7_body_is_read_as_a_file() -> None:
    """read, readline, readlines and iteration work over the borders of messages, and end at its end."""
    parts = (b"one\ntw", b"", b"o\n", b"three\nfour and more\n", b"five")
    text = b"".join(parts)
    assert body_of(*parts).read() == text
    assert body_of(*parts).readlines() == text.splitlines(keepends=True)
    assert list(body_of(*parts)) == text.splitlines(keepends=True)
    body = body_of(*parts)
    assert body.read(5) == b"one\nt"
    assert body.readline(1) == b"w"
    assert body.readline() == b"o\n"
    assert body.read(8) == b"three\nfo"
    assert body.read() == b"ur and more\nfive"
    assert body.read() == body.read(1) == body.readline() == b""
    assert body.readable()


def test_s7_read_of_a_number_waits_for_all_of_it() -> None:
    """read(n) returns n bytes unless the body ends before."""
    body = body_of(b"ab", b"c", b"d" * 100, b"e")
    assert body.read(50) == b"abc" + b"d" * 47
    assert body.read(1000) == b"d" * 53 + b"e"


def test_body_begins_with_a_message_that_has_come() -> None:
    """A message that was received already is the first part."""
    first = {"type": "http.request", "body": b"ab", "more_body": True}
    assert body_of(b"cd", first=first).read() == b"abcd"
    assert body_of(first={"type": "http.request"}).read() == b""


@pytest.mark.parametrize("how", ["read", "readline", "readlines"])
def test_body_that_is_cut_is_an_error(how: str) -> None:
    """A client that leaves before the end is an OSError, and never a shorter body."""
    body = body_of(b"ab", None)
    with pytest.raises(ClientDisconnected, match="before its request was complete"):
        getattr(body, how)()


class Watched(logging.FileHandler):
    """A handler that tells when somebody is about to write to it."""

    def __init__(self, path: Path, *, delay: bool = False) -> None:
        super().__init__(path, encoding="utf-8", delay=delay)
        self.asked = threading.Event()

    def acquire(self) -> None:
        self.asked.set()
        super().acquire()

    def reopen(self) -> None:
        """As gunicorn does on USR1."""
        self.close()
        self.stream = self._open()


class Log:
    """A logger that writes to two places, and the stream that writes where the logger does."""

    def __init__(self, path: Path, *, to_stderr: bool = False, delay: bool = False) -> None:
        self.file = Watched(path, delay=delay)
        self.memory = io.StringIO()
        self.logger = logging.Logger("errors")
        for handler in (self.file, logging.StreamHandler(self.memory), logging.NullHandler()):
            self.logger.addHandler(handler)
        self.stream = ErrorLog(self.logger, to_stderr=to_stderr)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "errors"


@pytest.fixture
def open_log(path: Path) -> Iterator[Callable[..., Log]]:
    """Make a :class:`Log` into ``path``; it is closed after the test."""
    logs: list[Log] = []

    def make(**options: bool) -> Log:
        logs.append(Log(path, **options))
        return logs[-1]

    yield make
    for log in logs:
        log.file.close()


def test_s8_errors_go_to_every_stream_of_the_log(path: Path, open_log: Callable[..., Log]) -> None:
    """At once, with all the methods of PEP 3333, and with what print() needs."""
    log = open_log()
    assert log.stream.write("one\n") == 4
    log.stream.writelines(["two\n", "three\n"])
    print("caf\xe9", file=log.stream)
    log.stream.flush()
    assert path.read_text("utf-8") == log.memory.getvalue() == "one\ntwo\nthree\ncaf\xe9\n"
    assert log.stream.writable()


@pytest.mark.parametrize("to_stderr", [False, True])
def test_errors_go_where_gunicorns_wrapper_writes(
    path: Path,
    open_log: Callable[..., Log],
    to_stderr: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """For a log to a file; and for one to stderr, where the first handler stands for the stderr of now."""
    log = open_log(to_stderr=to_stderr)
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "handlers", log.logger.handlers)
    WSGIErrorsWrapper(SimpleNamespace(errorlog="-" if to_stderr else str(path))).write("said\n")
    seen = [path.read_text(), log.memory.getvalue(), capsys.readouterr().err]
    assert seen == (["", "said\n", "said\n"] if to_stderr else ["said\n", "said\n", ""])
    log.stream.write("said\n")
    assert [path.read_text(), log.memory.getvalue(), capsys.readouterr().err] == [
        seen[0] * 2,
        seen[1] * 2,
        seen[2],  # what was captured is taken away each time
    ]


def test_errors_follow_a_log_that_is_reopened(path: Path, open_log: Callable[..., Log]) -> None:
    """USR1 closes the stream of before, also amid a call; the next write goes into the new one."""
    log = open_log()
    log.stream.write("before\n")
    old = path.rename(path.with_name("old"))
    log.file.reopen()
    log.stream.write("after\n")
    assert (old.read_text(), path.read_text()) == ("before\n", "after\n")


def test_errors_wait_while_a_log_is_being_reopened(path: Path, open_log: Callable[..., Log]) -> None:
    """A write between the closing and the opening is not lost, and no error."""
    log = open_log()
    thread = threading.Thread(target=log.stream.write, args=("amid\n",))
    assert log.file.lock is not None
    with log.file.lock:
        log.file.close()
        log.file.asked.clear()  # closing asks as well, before Python 3.13
        thread.start()
        assert log.file.asked.wait(20)
        log.file.stream = log.file._open()
    thread.join()
    assert path.read_text() == "amid\n"


def test_errors_open_a_log_that_waits_for_its_first_record(path: Path, open_log: Callable[..., Log]) -> None:
    """A handler with delay=True, of a --log-config, has no stream before."""
    open_log(delay=True).stream.write("first\n")
    assert path.read_text() == "first\n"


def test_errors_outlive_an_application_that_closes_them(path: Path, open_log: Callable[..., Log]) -> None:
    """One stream serves all requests, so that nobody can close it for the others."""
    log = open_log()
    log.stream.close()
    with log.stream:
        pass
    assert not log.stream.closed
    log.stream.write("still\n")
    log.stream.flush()
    assert path.read_text() == "still\n"


def test_errors_that_the_log_cannot_encode(path: Path, open_log: Callable[..., Log]) -> None:
    """What is no character is written as an escape; what is no text is refused."""
    log = open_log()
    log.stream.write("a\udcff\xe9\n")
    assert path.read_text("utf-8") == "a\\udcff\xe9\n"
    with pytest.raises(TypeError, match=r"wsgi\.errors takes str, not bytes"):
        log.stream.write(b"x")  # type: ignore[arg-type]


class Source(io.BytesIO):
    closed_by: str = ""

    def close(self) -> None:
        self.closed_by = "wrapper"
        super().close()


def test_s21_file_wrapper_reads_and_closes() -> None:
    """A file-like object is read in blocks, and closed by the wrapper's close()."""
    source = Source(b"abcdefg")
    wrapper = FileWrapper(source, 3)
    assert list(wrapper) == [b"abc", b"def", b"g"]
    assert list(wrapper) == []
    wrapper.close()
    assert source.closed_by == "wrapper"


def test_file_wrapper_without_close() -> None:
    """What has no close() gives the wrapper none."""

    class Reader:
        def read(self, size: int) -> bytes:
            return b""

    assert not hasattr(FileWrapper(Reader()), "close")
