"""
CommonEnvirons: the part of a WSGI environ that a request has in common with others.

Most of it is the same for all requests of an application. The rest depends on how the server was reached.
:mod:`.environ` adds what a request alone decides, to a copy. Thread side. Source: PEP 3333, "environ Variables".
"""

from __future__ import annotations

from typing import Any

from ..asgi import PART
from ..cache import remember
from ..config.settings import Settings
from .environ import server_environ
from .streams import ErrorStream, FileWrapper

#: ``server``, ``scheme`` and ``http_version`` of a scope.
Kind = tuple[tuple[str, int | None] | None, str, str]

#: The keys that each environ has: a copy of a dictionary that knows them need not grow.
_KEYS = "REQUEST_METHOD QUERY_STRING RAW_URI REMOTE_ADDR PATH_INFO wsgi.input wsgi.early_hints".split()

#: Keys that are put into each common part and taken out again. A dictionary keeps the room, and so do its copies:
#: without it, each of them had to grow for the fields of its request, which was 1 % of a hello.
_ROOM = dict.fromkeys(map(str, range(6)))


class CommonEnvirons(dict[Kind, dict[str, Any]]):
    """
    What requests of one application have in common, by their kind. A cache: what is missing is made.

    Invariant: an environ is a copy. ``errors`` is ``wsgi.errors`` of all of them, and ``part`` the name of the
    application in a Hybrid.
    """

    def __init__(self, settings: Settings, errors: ErrorStream, server_software: str, part: str) -> None:
        super().__init__()
        self.constant: dict[str, Any] = {
            **dict.fromkeys(_KEYS),
            "SERVER_SOFTWARE": server_software,
            "wsgi.version": (1, 0),
            "wsgi.errors": errors,
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": settings.workers > 1,
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if part:
            self.constant[PART] = part

    def __missing__(self, kind: Kind) -> dict[str, Any]:
        server, scheme, version = kind
        common = {**self.constant, **server_environ(server, version), "wsgi.url_scheme": scheme, **_ROOM}
        for key in _ROOM:
            del common[key]
        if version == "2":
            common["SERVER_PROTOCOL"] = "HTTP/2.0"  # as gunicorn has it
        return remember(self, kind, common)
