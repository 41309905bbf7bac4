"""Chapter X, second part: files, by descriptor and by path (asgiref ``docs/extensions.rst``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .case import Case, body, length, start
from .core import usable
from .extensions import offered, require
from .servers import Options, Subject

#: What the file holds: small enough to be read at once, or large enough not to be.
SMALL = bytes(range(256)) * 4
LARGE = SMALL * 1024

ZERO_COPY, PATH_SEND = "http.response.zerocopysend", "http.response.pathsend"


def file_of(case: Case, content: bytes) -> Path:
    """A file in the directory of notes."""
    path = case.directory / f"{case.token}.{len(content)}"
    path.write_bytes(content)
    return path


def copy(file: Any, more: bool = False, **options: int) -> dict[str, Any]:
    return {"type": ZERO_COPY, "file": file, "more_body": more, **options}


def path_send(path: object) -> dict[str, Any]:
    return {"type": PATH_SEND, "path": str(path)}


# -- http.response.zerocopysend


async def x4_app(case: Case) -> None:
    case.note("extensions", case.scope.get("extensions"))
    with file_of(case, LARGE).open("rb") as file:
        await case.send(start(200, length(len(LARGE))))
        await case.send(copy(file))


def x4_zero_copy_is_usable_where_announced(subject: Subject) -> None:
    """Zero copy send is announced only where it works, under TLS too."""
    require(subject, ZERO_COPY)
    _, answer = subject.server.call(x4_app)
    assert answer.body == LARGE
    with subject.start(Options(certificates=subject.certificates)) as server:
        if ZERO_COPY in offered(server):
            _, answer = server.call(x4_app)
            assert answer.body == LARGE


async def x5_app(case: Case) -> None:
    with file_of(case, SMALL).open("rb") as file:
        await case.send(start(200))
        for options in ({}, {"offset": 1000}, {"offset": 5, "count": 7}, {"offset": 0, "count": 0}):
            file.seek(1)
            await case.send(copy(file, more=True, **options))
        file.seek(1020)
        await case.send(copy(file))


def x5_offset_and_count(subject: Subject) -> None:
    """Zero copy starts at offset, or where the file stands, and takes count bytes, or all up to the end."""
    require(subject, ZERO_COPY)
    _, answer = subject.server.call(x5_app)
    assert answer.body == SMALL[1:] + SMALL[1000:] + SMALL[5:12] + SMALL[1020:]


async def x6_app(case: Case) -> None:
    with file_of(case, LARGE).open("rb") as file:
        await case.send(start(200, length(len(LARGE) * 2 + 6)))
        await case.send(body(b"one", more=True))
        await case.send(copy(file, more=True, offset=0))
        await case.send(body(b"two", more=True))
        await case.send(copy(file, more=True, offset=0))
        await case.send(body())


def x6_mixed_with_bodies(subject: Subject) -> None:
    """Zero copy and ordinary bodies mix, in order, as often as wanted."""
    require(subject, ZERO_COPY)
    with subject.server.connect() as wire:
        wire.request(x6_app)
        assert wire.answer().body == b"one" + LARGE + b"two" + LARGE
        assert usable(wire)


async def x7_app(case: Case) -> None:
    with file_of(case, SMALL).open("rb") as file:
        await case.send(start(200, length(len(SMALL))))
        await case.send(copy(file, offset=0))
        file.seek(0)
        case.note("content", file.read())


def x7_the_file_stays_the_applications(subject: Subject) -> None:
    """The server does not close the file, and leaves it usable."""
    require(subject, ZERO_COPY)
    run, answer = subject.server.call(x7_app)
    assert answer.body == SMALL
    assert run.wait("content") == SMALL


async def x8_app(case: Case) -> None:
    with file_of(case, LARGE).open("rb") as file:
        await case.send(start())
        await case.send(copy(file, more=True, offset=0, count=1000))
        await case.send(copy(file, more=True, offset=0))
        await case.send(body())


def x8_a_part_is_a_chunk(subject: Subject) -> None:
    """With chunked framing each zero copy part is one chunk."""
    require(subject, ZERO_COPY)
    with subject.server.connect() as wire:
        wire.request(x8_app)
        answer = wire.answer()
        assert answer.chunks == [LARGE[:1000], LARGE], f"chunks of {[len(chunk) for chunk in answer.chunks]} bytes"
        assert usable(wire)


# -- http.response.pathsend


async def x9_app(case: Case) -> None:
    path = file_of(case, SMALL)
    await case.send(start(200, length(len(SMALL))))
    case.note("relative", await case.refused(path_send("relative")))
    await case.send(path_send(path))
    await case.refused(body(b"late"))


async def x9_mixed_app(case: Case) -> None:
    path = file_of(case, SMALL)
    await case.send(start(200, length(len(SMALL) + 3)))
    await case.send(body(b"one", more=True))
    case.note("mixed", await case.refused(path_send(path)))
    await case.send(body(SMALL))


def x9_path_send_is_a_whole_body(subject: Subject) -> None:
    """Path send takes an absolute path, once, as the whole body; mixed with ordinary bodies it raises."""
    require(subject, PATH_SEND)
    with subject.server.connect() as wire:
        run = wire.request(x9_app)
        assert wire.answer().body == SMALL
        assert usable(wire)
        assert run.wait("relative"), "a relative path is taken"
    run, answer = subject.server.call(x9_mixed_app)
    assert run.wait("mixed"), "it is taken after a body"
    assert answer.body == b"one" + SMALL


async def x10_app(case: Case) -> None:
    path = file_of(case, LARGE)
    await case.send(start(200, [(b"content-length", b"%d" % len(LARGE)), (b"x-a", b"1")]))
    await case.send(path_send(path))


async def x10_chunked_app(case: Case) -> None:
    path = file_of(case, LARGE)
    await case.send(start())
    await case.send(path_send(path))


def x10_path_send_adds_no_headers(subject: Subject) -> None:
    """Path send sets no headers; the application's Content-Length is kept."""
    require(subject, PATH_SEND)
    _, answer = subject.server.call(x10_app)
    assert (answer.one(b"content-length"), answer.one(b"x-a")) == (b"%d" % len(LARGE), b"1")
    assert answer.body == LARGE
    _, answer = subject.server.call(x10_chunked_app)
    assert answer.body == LARGE
    for name in (b"content-type", b"last-modified", b"etag"):
        assert answer.all(name) == [], name


async def x11_app(case: Case) -> None:
    await case.send(start(200, length(5)))
    await case.send(path_send(case.directory / "missing"))


def x11_missing_file(subject: Subject) -> None:
    """A missing file before the head is written is a 500 (should), afterwards a cut connection; it is logged."""
    require(subject, PATH_SEND)
    with subject.server.connect() as wire:
        run = wire.request(x11_app)
        assert wire.answer().status == 500
        assert run.ended() is not None
    subject.server.wait_for_log("missing")


def x12_head_sends_no_file(subject: Subject) -> None:
    """The answer to HEAD has the headers of path send and no body."""
    require(subject, PATH_SEND)
    with subject.server.connect() as wire:
        wire.request(x10_app, "HEAD")
        answer = wire.answer("HEAD")
        assert answer.one(b"content-length") == b"%d" % len(LARGE)
        assert usable(wire)
