"""
Packets of the uwsgi protocol: where one ends, and the variables in it.

    byte 0       modifier1, the kind of the packet: 0 is a request
    bytes 1, 2   size of the variables, little endian
    byte 3       modifier2, which says nothing of a request
    then         the variables, each as name and value, each of these behind its size in two bytes, little endian

The body of the request follows, and is as long as CONTENT_LENGTH says. Source: "The uwsgi (lowercase!) Protocol" in
the documentation of uWSGI. Pure: no transport, no loop.

Invariant: the outcome depends on the bytes alone, never on how they were cut into segments. So nothing is said of a
packet before its four bytes have come.
"""

from __future__ import annotations

from ..config.settings import Settings
from ..errors import ProtocolError
from ..http11.scanner import TLS_HANDSHAKE

#: Bytes before the variables.
HEADER = 4

#: Variables of one packet, at most: as many as gunicorn takes.
VARIABLES_MAX = 1000

#: How a PROXY header of either version begins.
_PROXY = (b"PROX", b"\r\n\r\n")


def packet_size(data: bytes | bytearray, settings: Settings) -> int | None:
    """
    Bytes of the packet that ``data`` begins with; None while its header has not come.

    Raises :class:`~.errors.ProtocolError` for what is no request.
    """
    if len(data) < HEADER:
        return None
    if data[0]:
        raise _unknown(bytes(data[:HEADER]), settings)
    return HEADER + int.from_bytes(data[1:3], "little")


def _unknown(header: bytes, settings: Settings) -> ProtocolError:
    """What begins with ``header``, and so perhaps what is set wrongly."""
    if header.startswith(_PROXY):
        return ProtocolError(f"a PROXY header, and proxy_protocol is {settings.proxy_protocol}")
    if header[0] == TLS_HANDSHAKE and header[1] == 3 and not settings.is_ssl:
        return ProtocolError("a TLS handshake on a port without certfile")
    if header[:3].isalpha() and header[:3].isupper():  # no modifier1 in use is followed by such a size
        return ProtocolError("HTTP, and protocol is uwsgi (uwsgi_pass, not proxy_pass, in nginx)")
    return ProtocolError(f"a uwsgi packet with modifier1 {header[0]}, which is not served", 501)


def variables(block: bytes) -> list[tuple[bytes, bytes]]:
    """The variables of a packet, in order. Raises :class:`~.errors.ProtocolError`."""
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(block):
        if len(found) == VARIABLES_MAX:
            raise ProtocolError(f"there are more than {VARIABLES_MAX} variables in a uwsgi packet", 431)
        name, at = _string(block, at)
        value, at = _string(block, at)
        found.append((name, value))
    return found


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """The name or value at ``at``, and where what follows it begins."""
    start = at + 2
    end = start + int.from_bytes(block[at:start], "little")
    if end > len(block):
        raise ProtocolError("a variable does not end within its uwsgi packet")
    return block[start:end], end
