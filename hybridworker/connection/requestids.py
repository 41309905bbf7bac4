"""
RequestIds: the id of each request, taken from a trusted proxy or made.

:mod:`.fields` has it put into the scope when the head is complete; :class:`.cycle.RequestResponseCycle` and
:class:`..websocket.protocol.WebSocketProtocol` have it put into the response, in any version of HTTP. A worker without
HYBRIDWORKER_REQUEST_ID has no object of this class. Event loop side only.

Invariant: the id of a request never changes, and no request has the field twice, under whatever spelling.

Source of the format of traceparent: W3C Trace Context, 3.2.
"""

from __future__ import annotations

import contextvars
import os
import random
import re

from ..asgi import Headers, Message, Scope
from ..identity import REQUEST_ID, current
from .response import field_list

_ID = re.compile(rb"[!-~]{1,128}")

_TRACE = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")

TRACEPARENT = b"traceparent"


class RequestIds:
    """
    What becomes of the field ``name``, which is in lower case.

    ``traceparent`` is only read: the ids are those of traces, and a request without one has none.
    """

    __slots__ = ("generator", "name", "traces")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.traces = name == TRACEPARENT
        # Not the one of the module `random`, which applications seed. Made after the fork, or workers would repeat ids.
        self.generator = random.Random(os.urandom(32))

    def make(self) -> bytes:
        """A new id: 32 hexadecimal digits."""
        return b"%032x" % self.generator.getrandbits(128)

    def identify(self, scope: Scope, special: Headers, trusted: bool) -> None:
        """
        Give the request of ``scope`` its id.

        ``special`` are the fields that were held back, as received; ``trusted`` says that the peer may name the id.
        """
        if self.traces:
            if (trace := _trace(scope["headers"])) is not None:
                scope[REQUEST_ID] = trace
            return
        received = [value for name, value in special if name == self.name] if trusted else []
        value = received[0] if len(received) == 1 and _ID.fullmatch(received[0]) else self.make()
        scope["headers"].append((self.name, value))
        scope[REQUEST_ID] = value.decode("ascii")

    def of_nothing(self) -> Scope:
        """What is known of a request whose line cannot be read: its id."""
        scope: Scope = {"headers": []}
        self.identify(scope, [], False)
        return scope

    def fields(self, scope: Scope) -> Headers:
        """The fields of a response that the server makes itself."""
        return [] if self.traces else [(self.name, scope[REQUEST_ID].encode("ascii"))]

    def respond(self, message: Message, scope: Scope) -> Message:
        """
        The head of a response with the id, unless the application has set the field.

        The message stays as it is, because an application may send it again. Raises
        :class:`~.errors.InvalidMessage`.
        """
        if self.traces:
            return message
        headers = field_list(message)
        if not any(isinstance(name, bytes) and name.lower() == self.name for name, _ in headers):
            headers += self.fields(scope)
        return {**message, "headers": headers}


def identified(ids: RequestIds | None, message: Message, scope: Scope) -> Message:
    """The head of an answer of the application's, with the id of the request where there are ``ids``."""
    return message if ids is None else ids.respond(message, scope)


def variables(context: contextvars.Context, scope: Scope) -> contextvars.Context:
    """A copy of ``context`` in which the id of the request is known."""
    copy = context.copy()
    copy.run(current.set, scope.get(REQUEST_ID))
    return copy


def _trace(headers: Headers) -> str | None:
    """The trace id of the one traceparent field. Two of them, or one that is malformed, name none."""
    values = [value for name, value in headers if name == TRACEPARENT]
    match = _TRACE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None or (match[1] == b"00" and match[3] is not None):  # version 00 has no more than four parts
        return None
    return match[2].decode("ascii")
