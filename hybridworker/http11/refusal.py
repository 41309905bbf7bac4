"""
Refusal: the answer to a request that cannot be served, and what the logs say of it.

For an error of the head or of the body that no application has seen. Event loop side only.
"""

from __future__ import annotations

from ..asgi import Headers, Scope, id_mark
from ..connection.context import WorkerContext
from ..connection.peer import Peer
from ..connection.requestids import variables
from ..connection.response import encode_fields, error_response
from ..errors import ProtocolError
from ..log.access import Refused
from ..websocket.handshake import REFUSAL_FIELDS


def refuse(
    context: WorkerContext, peer: Peer, error: ProtocolError, known: Scope | None, *, answer: bool, body: bool
) -> bytes:
    """
    Log why a request is refused, and return the error page, with or without its ``body``.

    ``known`` is what is known of the request. With ``answer`` False nothing is counted and there is no page: the
    request has begun, and its cycle answers.
    """
    client = peer.address[0] if isinstance(peer.address, tuple) else "unix socket"
    apart = context.application.context.copy()  # here may be the task of the request before it
    headers: Headers = []
    mark, ids = "", context.ids
    if ids is not None:
        scope = known or ids.of_nothing()
        apart, headers, mark = variables(apart, scope), ids.fields(scope), id_mark(scope)
    if not error.logged:
        apart.run(context.log.warning, "Invalid request from ip=%s: %s%s", client, error, mark)
    if not answer:
        return b""
    context.responses[error.status // 100] += 1
    if context.access is not None and known is not None:
        apart.run(context.access, Refused(known, error.status, context.now, headers))
    extra = encode_fields(headers)[0] + REFUSAL_FIELDS.get(error.status, b"")
    return error_response(error.status, context.fields, extra, body)
