"""Packets of uwsgi, as a proxy sends them."""

from __future__ import annotations

import struct
from collections.abc import Iterable

#: What nginx says of ``GET /a%20b?c=d`` by its file ``uwsgi_params``; an empty value is a field that did not come.
NGINX = {
    "QUERY_STRING": "c=d",
    "REQUEST_METHOD": "GET",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "",
    "REQUEST_URI": "/a%20b?c=d",
    "PATH_INFO": "/a b",
    "DOCUMENT_ROOT": "/usr/share/nginx/html",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "REQUEST_SCHEME": "http",
    "REMOTE_ADDR": "203.0.113.9",
    "REMOTE_PORT": "51234",
    "SERVER_PORT": "80",
    "SERVER_NAME": "_",
    "HTTP_HOST": "example.org",
}


def block(pairs: Iterable[tuple[str | bytes, str | bytes]]) -> bytes:
    """The variables of a packet."""
    data = b""
    for pair in pairs:
        for text in pair:
            raw = text.encode("latin-1") if isinstance(text, str) else text
            data += struct.pack("<H", len(raw)) + raw
    return data


def framed(variables: bytes, modifier1: int = 0, modifier2: int = 0) -> bytes:
    """A packet with these variables."""
    return struct.pack("<BHB", modifier1, len(variables), modifier2) + variables


def packet(**changes: str | None) -> bytes:
    """What nginx sends, with changes; None takes a variable away."""
    said = {**NGINX, **changes}
    return framed(block((name, value) for name, value in said.items() if value is not None))


def get(path: str, **changes: str | None) -> bytes:
    """A packet that asks for ``path``, which has no percent-encoding, and no query."""
    return packet(REQUEST_URI=path, PATH_INFO=path, QUERY_STRING="", **changes)


def post(body: bytes, path: str = "/", **changes: str | None) -> bytes:
    """A packet with its body."""
    return get(path, REQUEST_METHOD="POST", CONTENT_LENGTH=str(len(body)), **changes) + body


def websocket(path: str) -> bytes:
    """A packet with a WebSocket handshake."""
    return get(
        path,
        HTTP_CONNECTION="Upgrade",
        HTTP_UPGRADE="websocket",
        HTTP_SEC_WEBSOCKET_VERSION="13",
        HTTP_SEC_WEBSOCKET_KEY="AAAAAAAAAAAAAAAAAAAAAA==",
    )
