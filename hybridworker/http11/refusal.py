"""
Refusal: the answer of HTTP/1.1 to a request that cannot be served.

What the logs say of it is for :mod:`..connection.refusal`. Event loop side only.
"""

from __future__ import annotations

from ..asgi import Scope
from ..connection.context import WorkerContext
from ..connection.errorpages import REFUSAL_FIELDS, error_response
from ..connection.peer import Peer
from ..connection.refusal import note_refusal
from ..connection.response import encode_fields
from ..errors import ProtocolError


def refuse(
    context: WorkerContext, peer: Peer, error: ProtocolError, known: Scope | None, *, answer: bool, body: bool
) -> bytes:
    """
    Log why a request is refused, and return the error page, with or without its ``body``.

    ``known`` is what is known of the request. With ``answer`` False nothing is counted and there is no page: the
    request has begun, and its cycle answers.
    """
    headers = note_refusal(context, peer, error, known, answer=answer)
    if not answer:
        return b""
    extra = encode_fields(headers)[0] + REFUSAL_FIELDS.get(error.status, b"")
    return error_response(error.status, context.clock.fields, extra, body)
