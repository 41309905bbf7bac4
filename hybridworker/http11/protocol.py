"""
HTTPProtocol: the bytes of HTTP/1.1, where one request ends and the next begins.

It cuts the bytes of the peer into messages, has them parsed by httptools, and hands a scope to a
:class:`~.cycle.HTTP11Cycle` when the head of a request is complete. It never sees an ASGI message;
the cycle never sees the parser. The order of requests, and the life of the connection, are those of every
:class:`~.connection.RequestConnection`.

    data_received -> _head -> parser -> on_header, on_headers_complete -> cycle
                  -> _body -> parser -> on_body, on_message_complete --> cycle

Event loop side only. States: ``states.CONNECTION``.

Invariant: the parser gets exactly one head, or bytes of one body, at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httptools

from ..connection.fields import UPGRADE
from ..errors import ProtocolError
from ..wsgi.streams import WHOLE_BODY_MAX
from .connection import ACTIVE, BODY, DONE, HEADERS, HELD, IDLE, NEVER, UPGRADED, RequestConnection
from .cycle import HTTP11Cycle
from .head import MORE, RequestHead
from .rewriting import pose, unknown_method
from .scanner import HeadScanner, body_parser, misdirected

if TYPE_CHECKING:
    from .connection import Successor


class HTTPProtocol(RequestConnection):
    """A connection that speaks HTTP/1.1."""

    __slots__ = ("foreign", "on_header", "parser", "scanner", "upgraded")

    head: RequestHead

    upgraded: Successor | None  #: what takes the connection over, once the parser has stopped

    # -- called by the transport

    def _made(self) -> None:
        self.foreign = False  #: the parser knows one body only
        self.scanner: HeadScanner | None = None
        self.head = RequestHead(self.context, self.peer)
        self.on_header = self.head.fields.on_header  # the parser looks its callbacks up once
        self.parser: Any = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.parser = None  # breaks the reference cycle between parser and protocol
        super().connection_lost(exc)

    # -- called by the cycle

    def drainable(self) -> bool:
        return self.head.chunks is None and super().drainable()

    # -- cutting bytes into messages

    def _parse(self, data: bytes) -> None:
        head, limits = self.head, self.context.small_heads
        try:
            if self.peer.proxy is not None:
                data = self.peer.strip_proxy_header(self.peer.proxy, data)
            while data:
                request = head.request
                if request is HEADERS:
                    if self.foreign and self.scanner is None:
                        self.parser, self.foreign = httptools.HttpRequestParser(self), False
                    size = data.find(b"\r\n\r\n") + 4
                    if (
                        3 < size <= limits.small
                        and self.scanner is None
                        and data[0] > 13  # an empty line, or a part of one, is for the scanner
                        and (size <= limits.short or data.count(b"\n", 0, size) <= limits.lines)
                    ):
                        head.data = data  # its fields have begun with the connection, or behind the last request
                        whole = size == len(data)
                        rest = b"" if whole else data[size:]
                        try:
                            self.parser.feed_data(data if whole else data[:size])
                            data = rest
                        except httptools.HttpParserUpgrade:
                            data = self._upgrade(rest)
                        except httptools.HttpParserError as exc:
                            if not unknown_method(exc):
                                raise
                            self.parser = httptools.HttpRequestParser(self)  # again, by way of the scanner
                            self.scanner = HeadScanner(self.context.settings)
                            head.begin(b"")
                    else:
                        data = self._scan_head(data)
                elif request is BODY:
                    data = self._body(data)
                else:
                    self.hold(data)
                    break
                if self.state is not ACTIVE:
                    return
        except ProtocolError as exc:
            self.refuse(exc)
        except httptools.HttpParserCallbackError as exc:
            if not isinstance(exc.__context__, ProtocolError):
                raise
            self.refuse(exc.__context__)
        except httptools.HttpParserError as exc:
            self.refuse(ProtocolError(misdirected(self.head.data, self.context.settings) or str(exc)))
        else:
            self.begin()  # the parser has had all there was, so a response may end in here

    def _scan_head(self, data: bytes) -> bytes:
        """Parse as much of one head as has come, line by line; returns the bytes behind it."""
        scanner = self.scanner
        begun = scanner is not None and not scanner.blank
        if scanner is None:
            self.scanner = scanner = HeadScanner(self.context.settings)
            self.head.begin(b"")
        lines, rest = scanner.feed(data)
        if scanner.complete:
            self.scanner = None
        elif scanner.blank and scanner.error is None:
            self.state = IDLE  # as before, until the same deadline: an empty line is no request (RFC 9112 2.2)
        elif not begun:
            self.head_begins()
        if lines:
            self.head.data += lines
            if self.context.settings.rewrites_heads:
                lines = self.head.rewrite() if scanner.complete else b""
            rest = self._feed(lines, rest)
        if scanner.error is not None:
            raise scanner.error
        return rest

    def _feed(self, lines: bytes, rest: bytes) -> bytes:
        """Parse ``lines`` of a head, whatever its method; returns the bytes behind it."""
        while True:
            try:
                self.parser.feed_data(lines)
                return rest
            except httptools.HttpParserUpgrade:
                return self._upgrade(rest)
            except httptools.HttpParserError as exc:
                if not unknown_method(exc):
                    raise
            self.parser, lines = pose(self, lines, self.context.settings)
            self.foreign = True

    def _body(self, data: bytes) -> bytes:
        """Parse bytes of the body; returns those behind it."""
        head = self.head
        chunks = head.chunks
        if chunks is None:
            size = head.length
            head.length = max(0, size - len(data))
            self.parser.feed_data(data if len(data) <= size else data[:size])
            rest = data[size:]
        else:
            piece, rest = chunks.feed(data)
            if piece:
                self.parser.feed_data(piece)
            if self.state is not ACTIVE:
                return b""  # the body was too long
            if chunks.error is not None:
                raise chunks.error
            if chunks.complete and head.request is BODY:
                raise ProtocolError("malformed chunked body (RFC 9112 7.1)")
        if head.request is BODY:
            self.deadline = self.loop.time() + self.context.settings.body_timeout
        elif self.cycle is None:
            self.pending = rest
            self._next()
            return b""
        return rest

    # -- called by the parser

    def on_headers_complete(self) -> None:
        parser, head = self.parser, self.head
        seen = head.fields.seen
        handshake = seen & UPGRADE != 0 and parser.should_upgrade() and head.fields.lists(b"upgrade", b"websocket")
        scope = head.read(parser.get_method(), handshake)
        self.persistent = parser.should_keep_alive() and not (head.http10 and head.says_close())
        self.deadline = NEVER
        expect_continue = takes_trailers = False
        if seen & MORE:
            expect_continue, takes_trailers = head.expects_continue(), head.takes_trailers(scope)
        if handshake and not head.http10:
            self.upgraded = self.successor(scope, parser.get_method())
            if self.upgraded is not None:
                self.state = UPGRADED
                return
        application = head.application
        self.cycle = cycle = HTTP11Cycle(self, application, scope)
        if expect_continue or takes_trailers:
            cycle.expect_continue, cycle.takes_trailers = expect_continue, takes_trailers
        if application.counted:
            quota = self.context.quota
            quota.served += 1  # `count()`, whose call would be 2 % of a hello
            if quota.served == quota.limit:
                quota.used_up()
        if application.threaded and head.request is BODY and not expect_continue:
            if head.chunks is None and head.length <= WHOLE_BODY_MAX:
                cycle.call_state = HELD
                self.body_wanted()

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            self.cycle.feed(body)

    def on_message_complete(self) -> None:
        if self.head.request is DONE or self.parser.should_upgrade():
            return
        self.head.request = DONE
        self.deadline = NEVER
        if self.cycle is not None:
            self.cycle.feed_eof()

    # -- what is not a plain request

    def _upgrade(self, rest: bytes) -> bytes:
        """The parser has stopped: hand the connection over, or go on; returns the bytes that are ours to parse."""
        if self.state is not UPGRADED or self.upgraded is None:
            self._keep_framing()
            return rest
        self.parser = None
        self.hand_over(self.upgraded, rest)
        return b""

    def _keep_framing(self) -> None:
        """Go on after an ignored upgrade: the parser takes the message for complete, so another reads its body."""
        self.parser = body_parser(self.on_body, self.on_message_complete, self.head.chunks is None, self.head.length)
        self.foreign = True
