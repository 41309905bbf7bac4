"""
RequestHead: one head of HTTP/2, its pseudo fields and fields checked (RFC 9113 8.2, 8.3).

What holds in any version of HTTP is in :mod:`..connection.fields` and :mod:`..connection.peer`. No transport, no
loop. The sibling of :mod:`..http11.head`.

Invariant: everything is checked before the application is called.
"""

from __future__ import annotations

import re
from typing import Any

from ..application.parts import Unclaimed
from ..asgi import Headers, Scope
from ..cache import remember
from ..connection.context import WorkerContext
from ..connection.fields import (
    EXPECT,
    HOST,
    LENGTH,
    MEANINGS,
    POLICY,
    SINGLE,
    TE,
    TRANSFER,
    UPGRADE,
    RequestFields,
    check_host,
    classify,
    hosts,
)
from ..connection.method import is_permitted, seen_as
from ..connection.peer import Peer
from ..connection.response import CONTROLS, TOKEN
from ..connection.scope import decode_path, http_scope
from ..errors import ProtocolError

#: What a field means here only, beside the meanings of :mod:`..connection.fields`.
COOKIE = 1 << 16

#: What a field says that is to be read anew each time.
_OF_ONE_REQUEST = LENGTH | EXPECT

#: RFC 9113 8.3.1, and RFC 8441 4.
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})

#: Fields of a connection of HTTP/1.1, beside those with a meaning of their own (RFC 9113 8.2.2).
_OF_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection"})

#: What a path and its query may consist of: visible characters, and no fragment (RFC 9113 8.3.1, RFC 3986 3.3).
_VISIBLE = bytes(byte for byte in range(0x21, 0x7F) if byte != 0x23)

#: Those that need no look.
_METHODS = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"PATCH", b"OPTIONS"})

_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*")
_SCHEMES = {b"http": "http", b"https": "https"}
_DEFAULT_PORTS = {"http": b":80", "https": b":443"}

#: What no value holds (RFC 9113 8.2.1, RFC 9110 5.5).
_FORBIDDEN = CONTROLS + b"\r\n"

#: Bytes of the longest value that is remembered as valid.
_REMEMBERED = 128

#: At most so many digits are a length.
_DIGITS = 18

_NOT_SERVED = "a protocol that is not served (RFC 8441 4)"

#: Fields that no trailer may be, as gunicorn has it (RFC 9110 6.5.1).
_NO_TRAILERS = frozenset(b"authorization content-length host te trailer transfer-encoding".split())


class RequestHead:
    """
    One head at a time, by :meth:`read`.

    A :class:`~.errors.ProtocolError` with the status 400 means a malformed request, whose stream is reset with
    PROTOCOL_ERROR (RFC 9113 8.1.1). Any other status (414, 417, 431, 501) is answered.
    """

    __slots__ = (
        "application", "context", "ended", "expects_continue", "fields", "known", "length", "method", "path", "path_at",
        "peer", "section", "websocket",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, peer: Peer) -> None:
        self.context = context
        self.peer = peer
        self.fields = RequestFields(peer, context.vocabulary.names)
        self.application = context.router.default  #: what answers the request
        self.ended = False
        self.length: int | None = None  #: of the body, where Content-Length gives it: ``expected`` of the stream
        self.websocket = False  #: it is an extended CONNECT to one (RFC 8441 4), and its scope still one of HTTP
        self.method = self.path = b""
        self.expects_continue = False  #: the client waits for a 100
        self.section: Headers | None = None  #: the last one that was read anew
        self.path_at = 0  #: where ``:path`` is in it
        #: what the scopes say that were made of it, if it has come twice; another path changes nothing else
        self.known: dict[str, Any] | None = None

    def read(self, section: Headers, ended: bool, oversized: bool = False) -> Scope:
        """
        The scope of the request with the field section ``section``; it has no body if it is ``ended``.

        ``oversized``: more of the section was dropped. Raises :class:`~.errors.ProtocolError`.
        """
        self.ended = ended
        known = self.known
        if known is not None and (section is self.section or (self._differs_in_path(section) and not oversized)):
            scope = same_scope(known)
            self.path = section[self.path_at][1]
            if section is not self.section:
                _set_target(scope, self.path)
            self.fields.headers = scope["headers"]
        else:
            scope = self._read_anew(section, oversized)
        self.application = self.fields.complete(scope, self.context, self.websocket)
        if self.websocket and not self.application.takes_websockets:
            if isinstance(self.application, Unclaimed):
                raise ProtocolError("no part claims the path", 404, logged=True)
            raise ProtocolError(_NOT_SERVED, 501)
        return scope

    def refused(self) -> Scope | None:
        """What is known of a request that :meth:`read` refused, for the access log; None without method or path."""
        if not is_permitted(self.method, self.context.settings):
            return None
        if not self.path or self.path.translate(None, _VISIBLE):
            return None
        ids = self.context.ids
        self.fields.headers = self.fields.unidentified(ids)
        scope = self._raw_scope()
        if ids is not None:
            self.fields.identify(scope, ids)
        return scope

    # -- the pieces of it

    def _differs_in_path(self, section: Headers) -> bool:
        """Whether it is the last section but for the path, at most, and that one is valid."""
        at, last = self.path_at, self.section
        if last is None or len(section) != len(last) or section[at][0] != b":path":
            return False
        path = section[at][1]
        return (
            section[at + 1 :] == last[at + 1 :]
            and section[:at] == last[:at]
            and path[:1] == b"/"
            and len(path) <= self.context.settings.limit_request_line
            and not path.translate(None, _VISIBLE)
        )

    def _read_anew(self, section: Headers, oversized: bool) -> dict[str, Any]:
        """The scope of a section that :attr:`known` does not cover; it will when the section comes again."""
        repeated = self._differs_in_path(section)
        self.section = self.known = None
        scope = self._read(section, oversized)
        if repeated and not self.fields.seen & _OF_ONE_REQUEST and not self.websocket:
            self.known = same_scope(scope)
        if self.path[:1] == b"/":
            self.section = section
        return scope

    def _read(self, section: Headers, oversized: bool) -> dict[str, Any]:
        """The scope of what was not seen before, but for what the application and the peer say."""
        self.method = self.path = b""  # of the last request nothing is left
        self.fields.begin()
        pseudo = _pseudo_fields(section)
        self.method, self.path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if self.path:
            self.path_at = list(pseudo).index(b":path")
        self._take(section[len(pseudo) :], pseudo.get(b":authority"))
        if oversized:
            raise ProtocolError("the fields exceed http2_max_header_list_size", 431)
        self._check_target(pseudo)
        self.expects_continue = self.fields.expects_continue() and not self.ended
        scope = self._raw_scope()
        scheme = pseudo[b":scheme"]
        said = _SCHEMES.get(scheme)
        if said != scope["scheme"]:  # RFC 9113 8.3.1: it may be the work of a proxy
            said = _SCHEMES.get(scheme.lower())
            if said is not None and self.peer.judge().trusted:
                scope["scheme"] = said
        scope["extensions"]["http.response.trailers"] = {}
        return scope

    def _take(self, section: Headers, authority: bytes | None) -> None:
        """The fields that are no pseudo fields, and ``:authority`` as the Host that it is (RFC 9113 8.3.1)."""
        fields, known = self.fields, self.context.vocabulary.fields
        headers = fields.headers
        if authority is not None:
            headers.append((b"host", authority))
            if authority not in hosts:
                self._check_size(headers[0])
        seen = 0
        host: bytes | None = None
        cookies: list[bytes] = []
        for field in section:
            meaning = known.get(field)
            if meaning is None:
                meaning = self._meet(field)
            if meaning:
                name, value = field
                if meaning & seen & SINGLE:
                    raise ProtocolError(f"repeated {name.decode('ascii')} (RFC 9110 5.3)")
                seen |= meaning
                if meaning == COOKIE:  # RFC 9113 8.2.3: clients split it
                    cookies.append(value)
                    if len(cookies) > 1:
                        continue
                    at = len(headers)
                elif meaning == HOST:
                    host = value
                    continue
                elif meaning == POLICY:
                    if not fields.judge(name, value):
                        continue
                elif meaning == LENGTH:
                    if not value.isdigit() or len(value) > _DIGITS:
                        raise ProtocolError("malformed Content-Length (RFC 9110 8.6)")
                    fields.length = int(value)
                elif meaning == TE and value.lower() != b"trailers":
                    raise ProtocolError("TE other than trailers (RFC 9113 8.2.2)")
            headers.append(field)
        fields.seen = seen
        if len(cookies) > 1:
            headers[at] = (b"cookie", b"; ".join(cookie for cookie in cookies if cookie))
            self._check_size(headers[at])
        if len(headers) > self.context.settings.limit_request_fields:
            raise ProtocolError("there are more fields than limit_request_fields", 431)
        if authority is None and host is not None:
            headers.insert(0, (b"host", host))
        elif host is not None and host != authority:
            self._check_same(host, authority or b"")
        self.length = fields.length if seen & LENGTH else None
        if self.ended and fields.length:
            raise ProtocolError("a Content-Length, and no body (RFC 9113 8.1.1)")

    def _meet(self, field: tuple[bytes, bytes]) -> int:
        """The meaning of a field that was not seen before, or was long. Raises :class:`~.errors.ProtocolError`."""
        name, value = field
        names = self.context.vocabulary.sections
        meaning = names.get(name)
        if meaning is None:
            meaning = remember(names, name, self._classify(name))
        self._check_size(field)
        _check_value(value)
        if len(value) <= _REMEMBERED:
            remember(self.context.vocabulary.fields, field, meaning)
        return meaning

    def _classify(self, name: bytes) -> int:
        """The meaning of a field name. Raises :class:`~.errors.ProtocolError` for one that no request may have."""
        if TOKEN.fullmatch(name) is None:
            if name[:1] == b":":
                raise ProtocolError("a pseudo field behind a field (RFC 9113 8.3)")
            raise ProtocolError("malformed field name (RFC 9113 8.2.1)")
        lowered, meaning = classify(name, self.peer.settings)
        if lowered != name:
            raise ProtocolError("a field name in upper case (RFC 9113 8.2.1)")
        if meaning & (TRANSFER | UPGRADE) or name in _OF_THE_CONNECTION:
            raise ProtocolError(f"{name.decode('ascii')} in HTTP/2 (RFC 9113 8.2.2)")
        return COOKIE if name == b"cookie" else meaning

    def _check_size(self, field: tuple[bytes, bytes]) -> None:
        """limit_request_field_size, as for a line of HTTP/1.1: gunicorn counts two bytes more."""
        if len(field[0]) + len(field[1]) + 2 > self.context.settings.limit_request_field_size:
            raise ProtocolError("a field exceeds limit_request_field_size", 431)

    def _check_same(self, host: bytes, authority: bytes) -> None:
        """Host may come beside ``:authority`` if it is the same (RFC 9113 8.3.1)."""
        port = _DEFAULT_PORTS[self.peer.template["scheme"]]
        if host.lower().removesuffix(port) != authority.lower().removesuffix(port):
            raise ProtocolError("Host and :authority differ (RFC 9113 8.3.1)")

    def _check_target(self, pseudo: dict[bytes, bytes]) -> None:
        """Method, target and Host (RFC 9113 8.3.1, 8.5, RFC 8441 4)."""
        method, path, headers = self.method, self.path, self.fields.headers
        self.websocket = False
        if (
            # As most are: the same as below, in one step.
            method in _METHODS
            and path[:1] == b"/"
            and len(path) <= self.context.settings.limit_request_line
            and not path.translate(None, _VISIBLE)
            and pseudo.get(b":scheme") in _SCHEMES
            and b":protocol" not in pseudo
            and headers
            and headers[0][1] in hosts
            and headers[0][0] == b"host"
        ):
            return
        if method not in _METHODS:
            self.method = method = seen_as(method, self.context.settings)
        protocol = pseudo.get(b":protocol")
        if method == b"CONNECT":
            if protocol is None:
                if path or b":scheme" in pseudo or not pseudo.get(b":authority"):
                    raise ProtocolError("malformed CONNECT (RFC 9113 8.5)")
                raise ProtocolError("CONNECT is for proxies (RFC 9110 9.3.6)", 501)
            if protocol != b"websocket":
                raise ProtocolError(_NOT_SERVED, 501)
            self.websocket = True
        elif protocol is not None:
            raise ProtocolError(":protocol without CONNECT (RFC 8441 4)")
        if len(path) > self.context.settings.limit_request_line:
            raise ProtocolError("the path exceeds limit_request_line", 414)
        if path.translate(None, _VISIBLE) or (path[:1] != b"/" and not (path == b"*" and method == b"OPTIONS")):
            raise ProtocolError("no path, or a malformed one (RFC 9113 8.3.1)")
        if (scheme := pseudo.get(b":scheme", b"")) not in _SCHEMES and not _SCHEME.fullmatch(scheme):
            raise ProtocolError("no scheme, or a malformed one (RFC 9113 8.3.1)")
        if not headers or headers[0][0] != b"host" or not headers[0][1]:
            raise ProtocolError("neither :authority nor Host (RFC 9113 8.3.1)")
        if headers[0][1] not in hosts:
            check_host(headers[0][1])

    def _raw_scope(self) -> dict[str, Any]:
        scope = http_scope(
            self.peer.template, "2", self.method.decode("ascii"), b"", b"", self.path, self.fields.headers
        )
        _set_target(scope, self.path)
        return scope


def same_scope(scope: dict[str, Any]) -> dict[str, Any]:
    """Another scope that says the same, in dictionaries and lists of its own, before :meth:`RequestFields.complete`."""
    same = scope.copy()
    same["asgi"] = scope["asgi"].copy()
    same["headers"] = scope["headers"].copy()
    same["extensions"] = {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
        "http.response.trailers": {},
    }
    return same


def _set_target(scope: dict[str, Any], target: bytes) -> None:
    """Put the target of a request into its scope."""
    path, query = target, b""
    if 63 in target:
        path, _, query = target.partition(b"?")
    scope["path"] = path.decode("ascii") if 37 not in path else decode_path(path)
    scope["raw_path"] = path
    scope["query_string"] = query
    scope["hybridworker.target"] = target


def _pseudo_fields(section: Headers) -> dict[bytes, bytes]:
    """The pseudo fields, which come first, once each (RFC 9113 8.3). Raises :class:`~.errors.ProtocolError`."""
    count = 0
    for name, _ in section:
        if name not in _PSEUDO:
            if name[:1] == b":":
                raise ProtocolError("an unknown pseudo field (RFC 9113 8.3)")
            break
        count += 1
    pseudo = dict(section[:count])
    if len(pseudo) != count:
        raise ProtocolError("a repeated pseudo field (RFC 9113 8.3)")
    return pseudo


def _check_value(value: bytes) -> None:
    """Raise :class:`~.errors.ProtocolError` unless the value of a field is valid (RFC 9113 8.2.1)."""
    if len(value.translate(None, _FORBIDDEN)) != len(value) or value.strip(b" \t") != value:
        raise ProtocolError("a field value with a control character, or space around it (RFC 9113 8.2.1)")


def check_trailers(section: Headers) -> str | None:
    """What is wrong with the trailers of a request, in words (RFC 9113 8.1, 8.2); None if nothing is."""
    for name, _ in section:
        if name[:1] == b":":
            return "a pseudo field in trailers (RFC 9113 8.1)"
        if TOKEN.fullmatch(name) is None or name != name.lower():
            return "malformed name of a trailer (RFC 9113 8.2.1)"
        if name in _OF_THE_CONNECTION or MEANINGS.get(name, 0) & (TRANSFER | UPGRADE):
            return "a field of a connection in trailers (RFC 9113 8.2.2)"
        if name in _NO_TRAILERS:
            return "a field that cannot be a trailer (RFC 9110 6.5.1)"
    try:
        for _, value in section:
            _check_value(value)
    except ProtocolError as exc:
        return str(exc)
    return None
