"""
Refusal: a request that cannot be served, as the logs and the counts see it, in any version of HTTP.

This logs and counts the requests that the worker itself refuses with an error because of their head or body (400, 408,
413, 431 ...), and that no application has seen. :mod:`..http11.refusal` and :mod:`..http2.protocol` write the answer,
a page of :mod:`.errorpages`. A valid request that is turned away with a 503 and Retry-After is for :mod:`.admission`.
Event loop side only.
"""

from __future__ import annotations

from time import monotonic

from ..asgi import Headers, Scope, id_mark
from ..errors import ProtocolError
from ..log.access import Refused
from .context import WorkerContext
from .peer import Peer
from .requestids import variables
from .scope import address_name


def note_refusal(
    context: WorkerContext, peer: Peer, error: ProtocolError, known: Scope | None, *, answer: bool
) -> Headers:
    """
    Log why a request is refused, and return the fields that its answer has beside those of an error page.

    ``known`` is what is known of the request. With ``answer`` False nothing is counted: there is none, or the
    request has begun, and its cycle answers.
    """
    client = address_name(peer.address)
    apart = context.router.default.context.copy()  # here may be the task of the request before it
    headers: Headers = []
    mark, ids = "", context.ids
    if ids is not None:
        scope = known or ids.of_nothing()
        apart, headers, mark = variables(apart, scope), ids.fields(scope), id_mark(scope)
    if not error.logged:
        apart.run(context.log.warning, "Invalid request from ip=%s: %s%s", client, error, mark)
    if answer:
        context.router.responses[error.status // 100] += 1
        if context.access is not None and known is not None:
            apart.run(context.access, Refused(known, error.status, monotonic(), headers))
    return headers
