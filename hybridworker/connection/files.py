"""
Response bodies that are files: ``http.response.pathsend`` and ``http.response.zerocopysend``.

:func:`send_file` opens and checks the file of such a message, in any version of HTTP. A cycle
frames it, and :mod:`.sendfile` moves its bytes. A small file is read at once. Event loop side only.

Source: asgiref ``docs/extensions.rst``, "Path Send" and "Zero Copy Send".
"""

from __future__ import annotations

import os
from typing import Any, Protocol

from ..asgi import Message
from ..errors import ClientDisconnected, InvalidMessage, ResponseError
from ..states import ResponseState
from .sendfile import File, FilePart, open_file, open_path

FILE = ResponseState.FILE


class Response(Protocol):
    """What is needed of a :class:`~.cycle.RequestResponseCycle`, where each member is explained."""

    bodiless: bool
    remaining: int | None
    state: ResponseState

    def body(self, body: Any, more: bool) -> None: ...
    async def send_part(self, part: FilePart, more: bool) -> None: ...


async def send_file(response: Response, message: Message) -> None:
    """
    Send the file of a ``pathsend`` or ``zerocopysend`` message as a part of the body.

    What is wrong with the file shows before anything is written (a missing file is still
    a clean 500). Raises OSError, :class:`~.errors.InvalidMessage`,
    :class:`~.errors.ResponseError` or :class:`~.errors.ClientDisconnected`.

    Invariant: from the moment the file is opened the response is in state FILE, in which no
    message is legal. A byte that another task wrote meanwhile would end up amid the file.
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
            _check_length(response.remaining, part.count, more)
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
            await response.send_part(part, more)
    finally:
        part.close()


def became_shorter(part: FilePart, announced: int) -> ResponseError:
    """The error of a file that ends before the ``announced`` bytes of ``part`` were sent."""
    return ResponseError(f"the file became shorter while it was sent: {part.count} of {announced} bytes are missing")


def _check_length(remaining: int | None, count: int, more: bool) -> None:
    """Raise :class:`~.errors.ResponseError` where ``count`` bytes contradict the ``remaining`` Content-Length."""
    if remaining is not None and (count > remaining or (not more and count < remaining)):
        raise ResponseError(
            f"the file has {'more' if count > remaining else 'fewer'} bytes than the Content-Length:"
            f" {count} where {remaining} remain"
        )


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
