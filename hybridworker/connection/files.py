"""
Response bodies that are files: ``http.response.pathsend`` and ``http.response.zerocopysend``.

:func:`open_part` opens and checks the file of such a message, in any version of HTTP. A cycle
frames it, and :mod:`.sendfile` moves its bytes. A small file is read at once. Event loop side only.

Source: asgiref ``docs/extensions.rst``, "Path Send" and "Zero Copy Send".
"""

from __future__ import annotations

import os

from ..asgi import Message
from ..errors import InvalidMessage, ResponseError
from .sendfile import File, FilePart, open_file, open_path


async def open_part(message: Message) -> tuple[FilePart, bool]:
    """
    Open the file of a ``pathsend`` or ``zerocopysend`` message; returns it, and whether more of the body follows.

    Raises OSError or :class:`~.errors.InvalidMessage`.
    """
    return await (_path(message) if message["type"] == "http.response.pathsend" else _descriptor(message))


def check_length(remaining: int | None, count: int, more: bool) -> None:
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
