"""
Ending: how the worker ends a streaming response, one whose length is not known, because the worker leaves or the client
seems to be gone.

    end_stream      the worker wants it to end: for the application it is as if the client had gone
    send_end        what the application still sends: the last part of the body, or nothing
    close_stream    nothing more is expected: the last chunk, or a cut
    give_up         the client has ended its side a while ago

In any version of HTTP; :mod:`.cycle` has the rest of the response, and :mod:`..process.streams` decides
when. Event loop side only. Invariant: no client takes a part for the whole.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..application.application import Application
from ..asgi import Headers, Message
from ..errors import ClientDisconnected
from ..states import ResponseState
from .flow import Flow

WAITING, STARTED, BODY = ResponseState.WAITING, ResponseState.STARTED, ResponseState.BODY
TRAILERS, ENDING, ABORTED = ResponseState.TRAILERS, ResponseState.ENDING, ResponseState.ABORTED


class Response(Protocol):
    """What is needed of a :class:`~.cycle.RequestResponseCycle`, where each member is explained."""

    application: Application
    chunks: list[bytes]
    delivered: bool
    headers: Headers
    state: ResponseState
    trailers: bool

    @property
    def flow(self) -> Flow: ...
    @property
    def progress(self) -> int: ...
    @property
    def streaming(self) -> bool: ...
    def body(self, body: Any, more: bool) -> None: ...
    def end_of_input(self) -> None: ...
    def _take(self) -> bytes: ...
    def _cut(self) -> None: ...
    def cancel(self) -> None: ...
    def abort(self) -> None: ...


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


def give_up(response: Response, before: int) -> None:
    """
    The grace period is over: end the application, unless it is answering a half-closed peer.

    ``before`` is the progress that there was when the peer ended its side. A response that
    has made none since waits for something to say, perhaps for ever, and perhaps to nobody;
    one that is on its way finds out by itself whether there is anybody.
    """
    state = response.state
    if state is ABORTED:
        response.cancel()
    elif state is WAITING or state is STARTED:
        if not response.application.threaded:  # a thread cannot be cancelled: it may as well answer
            response.cancel()
    elif (state is BODY or state is TRAILERS) and response.progress == before and not response.flow.unsent():
        response.cancel()
        response.abort()
