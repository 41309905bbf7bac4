"""The values of PEP 3333: what is taken from an application, what is refused, and with which words."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.http.wsgi import WSGIErrorsWrapper

from hybridworker.asgi import Message
from hybridworker.errors import ClientDisconnected, WSGIError
from hybridworker.wsgi import values as pep3333
from hybridworker.wsgi.values import (
    ErrorLog,
    FileWrapper,
    RequestBody,
    encode_fields,
    encode_status,
    iterate,
    length_field,
)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("200 OK", 200, None),
        ("404 Not Found", 404, None),
        ("200 Fine", 200, b"Fine"),
        ("299 Custom Reason", 299, b"Custom Reason"),
        ("299", 299, b""),
        ("200", 200, b""),
        ("200 ", 200, b""),
        ("200 caf\xe9\tand", 200, b"caf\xe9\tand"),
    ],
)
def test_s20_status_with_any_phrase_and_without(status: str, code: int, reason: bytes | None) -> None:
    """Any three digits are taken; the phrase is passed on where it is not the registered one."""
    for _ in range(2):  # once parsed, once from the cache
        assert encode_status(status) == (code, reason)


@pytest.mark.parametrize(
    "status", ["", "OK", "20 OK", "2000 X", "200OK", "200 a\r\nb", "200 \u20ac", b"200 OK", 200, None, []]
)
def test_status_that_is_none(status: Any) -> None:
    """What is not three digits and a phrase is refused, with the rule that it breaks."""
    with pytest.raises(WSGIError, match=r"is not a status like '200 OK' \(PEP 3333"):
        encode_status(status)


@pytest.mark.parametrize("status", ["101 Switching Protocols", "100 Continue", "103", "199 X", "099 X", "000"])
def test_status_that_ends_nothing(status: str) -> None:
    """An interim response is refused where it was asked for, each time, and not by the loop later."""
    for _ in range(2):
        with pytest.raises(WSGIError, match=r"is not the status of a final response, 200 or more \(RFC 9110 15\.2\)"):
            encode_status(status)


def test_s19_fields_are_latin1() -> None:
    """Values may hold every character of latin-1 that is no control; names keep their case."""
    fields, length = encode_fields([("X-Name", "caf\xe9\xa0\xad\tx"), ("x-name", "")])
    assert fields == [(b"X-Name", b"caf\xe9\xa0\xad\tx"), (b"x-name", b"")]
    assert length is None


@pytest.mark.parametrize(
    "value", ["a\r\nb", "a\nb", "a\rb", "\0", "\x7f", "\x85", "\u20ac", "\U0001f600", b"x", 1, None]
)
def test_s19_bad_value_is_refused_without_being_shown(value: Any) -> None:
    """Control characters, characters beyond latin-1 and other types are refused; the message has the name only."""
    if value == "\x85":  # obs-text, which RFC 9110 5.5 allows
        assert encode_fields([("X-Name", value)])[0] == [(b"X-Name", b"\x85")]
        return
    with pytest.raises(WSGIError, match=r"^the value of X-Name (is|has)[^€]*\(PEP 3333"):
        encode_fields([("X-Name", value)])


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\n", "\xe4", b"x", 1, None])
def test_s19_bad_name(name: Any) -> None:
    """A name is a token of RFC 9110."""
    for _ in range(2):
        with pytest.raises(WSGIError, match="is not a header name"):
            encode_fields([(name, "x")])


def test_s18_hop_by_hop_fields_are_dropped() -> None:
    """The server's business is left to the server; Connection goes on, because its "close" is obeyed."""
    dropped = "Keep-Alive Proxy-Authenticate Proxy-Authorization TE Trailers Transfer-Encoding UPGRADE Server date"
    for _ in range(2):
        fields, _length = encode_fields([*((name, "x") for name in dropped.split()), ("Connection", "close")])
        assert fields == [(b"Connection", b"close")]


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_content_length_is_read(name: str) -> None:
    """The announced length is recognised in any case, and optional whitespace around it is cut."""
    assert encode_fields([(name, " 12\t"), ("A", "b")]) == ([(b"Content-Length", b"12"), (b"A", b"b")], 12)


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.0", "0x1", "\xb2", "1 2"])
def test_content_length_that_is_no_number(value: str) -> None:
    """A length that the peers would understand differently is refused."""
    with pytest.raises(WSGIError, match="the value of Content-Length is not a number"):
        encode_fields([("Content-Length", value)])


def test_content_lengths_that_disagree() -> None:
    """Nobody could know where the body ends; one that merely repeats itself is sent once (RFC 9110 8.6)."""
    with pytest.raises(WSGIError, match=r"two content-length fields disagree \(RFC 9110 8\.6\)"):
        encode_fields([("Content-Length", "1"), ("A", "b"), ("content-length", "2")])
    fields, length = encode_fields([("Content-Length", "10"), ("A", "b"), ("content-length", " 010")])
    assert (fields, length) == ([(b"Content-Length", b"10"), (b"A", b"b")], 10)


def test_length_field() -> None:
    """The field that the server adds looks like one of an application's."""
    assert encode_fields([("content-length", "7")]) == ([length_field(7)], 7)


def test_caches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that invents names and statuses does not fill memory, and gets the right bytes."""
    monkeypatch.setattr(pep3333, "_CACHE_MAX", 0)
    monkeypatch.setattr(pep3333, "_names", {})
    monkeypatch.setattr(pep3333, "_statuses", {})
    assert encode_fields([("X-New", "1")])[0] == [(b"X-New", b"1")]
    assert encode_status("201 Created") == (201, None)
    assert not pep3333._names
    assert not pep3333._statuses


@pytest.mark.parametrize("returned", [None, 5, object()])
def test_what_is_not_iterable(returned: Any) -> None:
    """An application must return an iterable."""
    with pytest.raises(WSGIError, match=f"returned {type(returned).__name__}, not an iterable of bytes"):
        iterate(returned)


def test_what_is_iterable() -> None:
    """Sequences and iterators will do, as anywhere."""
    assert list(iterate((b"a",))) == list(iterate(iter([b"a"]))) == [b"a"]


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
