"""
Vocabulary: the field names and request lines that clients have sent, and what they mean to this worker.

One for a worker, filled by the heads of both versions of HTTP and bounded by :mod:`.cache`. Event loop side only.
"""

from __future__ import annotations

#: Method, target, path (None where the target has another form than most), query, and version of HTTP.
Request = tuple[str, bytes, bytes | None, bytes, str]


class Vocabulary:
    """Memories of each, because HTTP/1.1 and HTTP/2 ask for different things."""

    __slots__ = ("fields", "names", "requests", "sections")

    def __init__(self) -> None:
        #: field name as received -> its lower-case form and what it means to :mod:`.fields`
        self.names: dict[bytes, tuple[bytes, int]] = {}
        self.requests: dict[bytes, Request] = {}  #: request line of HTTP/1.1, found valid -> its parts
        self.sections: dict[bytes, int] = {}  #: field name of HTTP/2 -> what it means to :mod:`.http2.head`
        self.fields: dict[tuple[bytes, bytes], int] = {}  #: field of HTTP/2, found valid -> what it means
