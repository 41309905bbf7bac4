"""
Response bodies that are files: ``http.response.pathsend`` and ``http.response.zerocopysend``.

:meth:`RequestResponseCycle.send` hands these two messages over to :func:`send_file`,
which opens, checks and frames the file; :mod:`.sendfile` moves its bytes. A small file
is read and becomes an ordinary body. Event loop side only. The rule one could break by
accident: from the moment the file is opened the response is in state FILE, in which no
message is legal, because a byte that another task writes meanwhile would end up amid
the file.

Source: asgiref ``docs/extensions.rst``, "Path Send" and "Zero Copy Send".
"""

from __future__ import annotations

import os
from typing import Protocol

from ..asgi import Message
from ..config.settings import Settings
from ..errors import ClientDisconnected, InvalidMessage, ResponseError
from ..states import ResponseState
from .flow import FlowControl
from .response import LAST_CHUNK
from .sendfile import File, FilePart, open_file, open_path, send_some, write

FILE = ResponseState.FILE


class FileResponse(Protocol):
    """What is needed of a response: how it is framed, and how it takes an ordinary body."""

    flow: FlowControl
    state: ResponseState
    head: bytes  #: the head while it is held back, then empty
    remaining: int | None  #: bytes left of the announced Content-Length
    chunked: bool
    bodiless: bool
    trailers: bool
    sent: int

    def body(self, body: bytes, more: bool) -> None:
        """Take a part of the body: check it, frame it, write it, move to the next state."""

    def body_sent(self, more: bool) -> None:
        """A part of the body is out: move to the next state."""

    def disconnect(self) -> None:
        """The connection is gone."""


async def send_file(response: FileResponse, message: Message, settings: Settings) -> None:
    """
    Send the file of a ``pathsend`` or ``zerocopysend`` message as a part of the body.

    What is wrong with the file shows before anything is written (a missing file is still
    a clean 500). Raises OSError, :class:`~.errors.InvalidMessage`,
    :class:`~.errors.ResponseError` or :class:`~.errors.ClientDisconnected`.
    """
    whole = message["type"] == "http.response.pathsend"
    state, response.state = response.state, FILE
    part = None
    try:
        part, more = await (_path(message) if whole else _descriptor(message))
        if response.state is not FILE:
            raise ClientDisconnected("the client disconnected")
        if whole and response.remaining is not None:
            # The file may have grown since the application looked at it; what it announced is what is sent.
            part.count = min(part.count, response.remaining)
        small = response.bodiless or part.data is not None
        if not small:
            _check_length(response, part.count, more)
    except BaseException:
        if part is not None:
            part.close()
        if response.state is FILE:
            response.state = state
        raise
    try:
        if small:
            response.state = state
            response.body(b"" if part.data is None else part.data[: part.count], more)
        else:
            await _send(response, part, more, settings)
    finally:
        part.close()


async def _path(message: Message) -> tuple[FilePart, bool]:
    path = message.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise InvalidMessage(f"path must be an absolute path (str), not {path!r}")
    return await open_path(path), False


async def _descriptor(message: Message) -> tuple[FilePart, bool]:
    offset, count = message.get("offset"), message.get("count")
    for number in (offset, count):
        if number is not None and (type(number) is not int or number < 0):
            raise InvalidMessage(f"offset and count must be int and not negative, not {number!r}")
    if "file" not in message:
        raise InvalidMessage("zerocopysend needs a file")
    file: File | int = message["file"]
    part = await open_file(file, offset, count)
    if offset is None:
        # As if the file had been read: the next part goes on where this one ends.
        try:
            _seek(file, part.offset + part.count)
        except BaseException:
            part.close()
            raise
    return part, bool(message.get("more_body", False))


def _seek(file: File | int, position: int) -> None:
    if isinstance(file, int):
        os.lseek(file, position, os.SEEK_SET)
    else:
        file.seek(position)


def _check_length(response: FileResponse, count: int, more: bool) -> None:
    remaining = response.remaining
    if remaining is not None and (count > remaining or (not more and count < remaining)):
        raise ResponseError(
            f"the file has {'more' if count > remaining else 'fewer'} bytes than the Content-Length:"
            f" {count} where {remaining} remain"
        )


async def _send(response: FileResponse, part: FilePart, more: bool, settings: Settings) -> None:
    """
    Write the framing and the bytes of ``part``.

    An error leaves the response in state FILE, from which nothing leads but the end: what
    the client has is a piece of a file.
    """
    flow = response.flow
    announced = part.count
    head, response.head = response.head, b""
    if response.chunked:
        head += b"%x\r\n" % announced
    try:
        write(flow, head)
        while size := await send_some(flow, part, write_timeout=settings.write_timeout, direct=settings.sendfile):
            response.sent += size
        if part.count:
            raise ResponseError(
                f"the file became shorter while it was sent: {part.count} of {announced} bytes are missing"
            )
        if response.chunked:
            write(flow, b"\r\n" if more or response.trailers else b"\r\n" + LAST_CHUNK)
    except ClientDisconnected:
        # Found out here: the transport need not notice by itself, or ever.
        flow.abort()
        response.disconnect()
        raise
    if response.remaining is not None:
        response.remaining -= announced
    response.body_sent(more)
