"""
Ending: a response without a known end comes to one, because its worker leaves.

    end_stream      the worker wants it to end: for the application it is as if the client had gone
    send_end        what the application still sends: the last part of the body, or nothing
    close_stream    nothing more is expected: the last chunk, or a cut

In any version of HTTP; :mod:`.cycle` has the rest of the response, and :mod:`..process.streams` decides
when. Event loop side only. Invariant: no client takes a part for the whole.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..asgi import Headers, Message
from ..errors import ClientDisconnected
from ..states import ResponseState

STARTED, BODY, ENDING = ResponseState.STARTED, ResponseState.BODY, ResponseState.ENDING
ABORTED = ResponseState.ABORTED


class Response(Protocol):
    """What is needed of a :class:`~.cycle.RequestResponseCycle`, where each member is explained."""

    chunks: list[bytes]
    delivered: bool
    headers: Headers
    state: ResponseState
    trailers: bool

    @property
    def streaming(self) -> bool: ...
    def body(self, body: Any, more: bool) -> None: ...
    def end_of_input(self) -> None: ...
    def _take(self) -> bytes: ...
    def _cut(self) -> None: ...


def streams_events(response: Response) -> bool:
    """
    Whether a response without a length consists of server-sent events, whose clients ask again after any end.

    Source: HTML Living Standard 9.2.6: an event that is not complete at the end is dropped.
    """
    return any(
        name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
        for name, value in response.headers
    )


def end_stream(response: Response) -> bool:
    """Have a response end that has begun and whose end is not known. Returns whether it is one."""
    if (response.state is not BODY and response.state is not STARTED) or not response.streaming:
        return False
    response.state = ENDING
    if response.chunks:
        response._take()  # of the request nothing more is wanted
    response.delivered = True
    response.end_of_input()
    return True


def send_end(response: Response, kind: str, message: Message) -> None:
    """Take the last part of a body that was to end. Raises ClientDisconnected for anything else."""
    if kind != "http.response.body" or message.get("more_body", False):
        raise ClientDisconnected("the worker is leaving")
    response.state = BODY
    response.body(message.get("body", b""), False)


def close_stream(response: Response) -> None:
    """
    End a response that was to end: give server-sent events their last chunk, cut others.

    Of any other body nobody can tell whether it is whole, unless the application has ended it.
    """
    if response.state is not ENDING:
        return
    if not streams_events(response):
        response._cut()
        return
    response.state, response.trailers = BODY, False
    response.body(b"", False)
    response.state = ABORTED  # whatever the application sends now is too late
