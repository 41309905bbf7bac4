"""
RequestHead: one request of uwsgi, its variables as the scope that HTTP/1.1 would make of it.

The proxy has parsed the request already: ``HTTP_*`` variables are its fields, the others say what CGI says
(RFC 3875 4.1). What holds in any version of HTTP is in :mod:`..connection.fields` and :mod:`..connection.peer`. No
transport, no loop. The sibling of :mod:`..http11.head`.

A peer in ``uwsgi_allow_ips`` is believed what the variables say: REMOTE_ADDR, HTTPS and REQUEST_SCHEME, SCRIPT_NAME.
Fields are believed as those of HTTP, by ``forwarded_allow_ips``. But nginx passes X-Forwarded-For and the
``secure_scheme_headers`` on as its client has written them, unless it is told otherwise. So for these REMOTE_ADDR must
be a trusted proxy as well.

Invariant: everything is checked before the application is called. Of a variable that comes twice the last one counts,
as in gunicorn; a field may have several lines.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote_to_bytes

from ..asgi import Headers, Scope
from ..cache import remember
from ..connection.context import WorkerContext
from ..connection.fields import HOST, UPGRADE, RequestFields, check_host, hosts
from ..connection.forwarded import SCRIPT_NAME, client_of, trusts
from ..connection.method import seen_as
from ..connection.peer import Peer
from ..connection.response import CONTROLS, TOKEN
from ..connection.scope import http_scope, split_target
from ..errors import ProtocolError
from ..states import RequestState
from .packet import variables

BODY, DONE = RequestState.BODY, RequestState.DONE

#: What no value of a field holds (RFC 9110 5.5).
_FORBIDDEN = CONTROLS + b"\r\n"

#: Fields that were between the client and the proxy: it has read the body, and answered what the client expects. And
#: those that have variables of their own; nginx sends both.
_LEFT_OUT = frozenset({b"transfer-encoding", b"expect", b"content-length", b"content-type"})

#: Variables that are a field which may come once, and its name.
_SINGLE = {b"HTTP_HOST": b"host", b"CONTENT_TYPE": b"content-type", b"CONTENT_LENGTH": b"content-length"}

#: At most so many digits are a length.
_DIGITS = 18

#: What may stand in a path as it is (RFC 3986 3.3).
_PATH_SAFE = "/!$&'()*+,;=:@~"

#: Bytes that no target of HTTP holds.
_INVISIBLE = re.compile(rb"[^\x21-\x7e]")

#: Values of HTTPS that mean yes.
_ON = frozenset({b"on", b"1", b"true"})

#: ``HTTP_*`` variable -> name of its field, found valid.
_names: dict[bytes, bytes] = {}


class RequestHead:
    """One request at a time, by :meth:`read`; :meth:`begin` starts the next."""

    __slots__ = (
        "application", "context", "fields", "length", "method", "path", "peer", "query", "request", "target",
        "websocket",
    )  # fmt: skip

    #: A proxy takes what follows the head for the body, whatever frames it, until its length or the connection ends;
    #: and a 1xx for the response.
    http10 = True

    def __init__(self, context: WorkerContext, peer: Peer) -> None:
        self.context = context
        self.peer = peer
        self.fields = RequestFields(peer, context.vocabulary.names)
        self.application = context.router.default  #: what answers the request
        self.request = RequestState.HEADERS
        self.length = 0  #: bytes of the body that have not come
        self.websocket = False  #: it is a handshake
        self.method = self.path = self.query = self.target = b""

    def begin(self, data: bytes) -> None:
        """A new request is about to come."""
        self.fields.begin()
        self.method = self.target = b""

    @property
    def bodiless(self) -> bool:
        """Whether no answer to the request has a body, as far as its method is known."""
        return self.method == b"HEAD"

    def read(self, block: bytes) -> Scope:
        """
        The scope of the request with these variables; ``length`` and ``request`` say whether it has a body.

        Raises :class:`~.errors.ProtocolError`.
        """
        fields, settings = self.fields, self.context.settings
        self.begin(b"")
        said, lines = _divide(variables(block))
        self._read_target(said)
        if len(lines) > settings.limit_request_fields:
            raise ProtocolError("there are more fields than limit_request_fields", 431)
        for name, value in lines:
            if len(name) + len(value) + 4 > settings.limit_request_field_size:  # as `name: value` with its CRLF
                raise ProtocolError("a field exceeds limit_request_field_size", 431)
            if len(value.translate(None, _FORBIDDEN)) != len(value):
                raise ProtocolError("a field value with a control character (RFC 9110 5.5)")
            fields.on_header(name, value.strip(b" \t"))
        if fields.seen & HOST and fields.host not in hosts:
            check_host(fields.host)
        scope = self._scope()
        self._believe(scope, said)
        self.websocket = (
            fields.seen & UPGRADE != 0
            and fields.lists(b"upgrade", b"websocket")
            and fields.lists(b"connection", b"upgrade")
        )
        self.application = fields.complete(scope, self.context, self.websocket)
        self.length = fields.length
        self.request = BODY if fields.length else DONE
        del scope["extensions"]["http.response.early_hint"]
        return scope

    def refused(self) -> Scope | None:
        """What is known of a request that is refused, for the access log; None without method and target."""
        if not self.target:
            return None
        ids = self.context.ids
        self.fields.headers = self.fields.unidentified(ids)
        scope = self._scope()
        if ids is not None:
            self.fields.identify(scope, ids)
        return scope

    def says_close(self) -> bool:
        """Whether ``close`` is among the Connection options. A proxy that passes on its client's says so needlessly."""
        return self.fields.lists(b"connection", b"close")

    # -- the pieces of it

    def _read_target(self, said: dict[bytes, bytes]) -> None:
        """
        Method and target.

        ``path`` is that of REQUEST_URI where it is the one that PATH_INFO names. A proxy may have normalised the path,
        or rewritten it: then it is PATH_INFO, percent-encoded.
        """
        settings = self.context.settings
        if not (method := said.get(b"REQUEST_METHOD", b"")):
            raise ProtocolError("no REQUEST_METHOD in a uwsgi packet (nginx: include uwsgi_params)")
        self.method = seen_as(method, settings)
        target = _visible(said.get(b"REQUEST_URI", b""))
        path, query, _ = split_target(self.method, target or b"/")
        if b"PATH_INFO" in said:
            path = _path(path, said[b"PATH_INFO"], _mount(said))
        self.path, self.query = path, _visible(said.get(b"QUERY_STRING", query))
        if not target:
            target = b"%b?%b" % (path, self.query) if self.query else path
        if len(method) + len(target) + len("  HTTP/1.1") > settings.limit_request_line:
            raise ProtocolError("the request line would exceed limit_request_line", 414)
        self.target = target

    def _scope(self) -> Scope:
        method = self.method.decode("ascii")
        return http_scope(self.peer.template, "1.1", method, self.path, self.query, self.target, self.fields.headers)

    def _believe(self, scope: Scope, said: dict[bytes, bytes]) -> None:
        """Put into ``scope`` what the proxy says of its client, and what it does not vouch for out of the fields."""
        fields, settings = self.fields, self.context.settings
        if said.get(b"HTTPS", b"").lower() in _ON:
            scope["scheme"] = "https"
        elif (scheme := said.get(b"REQUEST_SCHEME") or said.get(b"wsgi.url_scheme")) in (b"http", b"https"):
            scope["scheme"] = scheme.decode("ascii")
        client = client_of(said.get(b"REMOTE_ADDR", b""), said.get(b"REMOTE_PORT", b""))
        if client is not None:
            scope["client"] = client
            if fields.special is not None and not trusts(settings.forwarded_networks, client):
                secure = settings.secure_scheme_headers
                fields.special = [f for f in fields.special if f[0] != b"x-forwarded-for" and f[0] not in secure]
        if mount := _mount(said):
            scope["root_path"] = mount.decode("utf-8", "replace")
            self.peer.prefixed = True
            field = (SCRIPT_NAME, _quoted(mount))  # as a forwarder names it by HTTP
            fields.headers.append(field)
            fields.special = [*(fields.special or ()), field]


def _divide(pairs: list[tuple[bytes, bytes]]) -> tuple[dict[bytes, bytes], Headers]:
    """The variables by their names, and the fields, in order. Raises :class:`~.errors.ProtocolError`."""
    said: dict[bytes, bytes] = {}
    lines: Headers = []
    for variable, value in pairs:
        if variable[:5] != b"HTTP_" or variable in _SINGLE:
            if variable == b"CONTENT_LENGTH" and said.get(variable, value) != value:
                raise ProtocolError("CONTENT_LENGTH twice, and not the same")
            said[variable] = value
        elif (name := _names.get(variable) or _name(variable)) not in _LEFT_OUT:
            lines.append((name, value))
    for variable, name in _SINGLE.items():
        if value := said.get(variable, b""):  # nginx sends an empty one where there is no such field
            if variable == b"CONTENT_LENGTH" and (not value.isdigit() or len(value) > _DIGITS):
                raise ProtocolError("malformed CONTENT_LENGTH (RFC 9110 8.6)")
            lines.append((name, value))
    return said, lines


def _name(variable: bytes) -> bytes:
    """The name of the field that an ``HTTP_*`` variable holds. Raises :class:`~.errors.ProtocolError`."""
    name = variable[5:].replace(b"_", b"-").lower()
    if TOKEN.fullmatch(name) is None:
        raise ProtocolError("malformed field name (RFC 9110 5.1)")
    return remember(_names, variable, name)


def _mount(said: dict[bytes, bytes]) -> bytes:
    """SCRIPT_NAME, without a slash at its end."""
    return said.get(b"SCRIPT_NAME", b"").rstrip(b"/")


def _path(raw: bytes, path_info: bytes, mount: bytes) -> bytes:
    """
    The whole path, percent-encoded: ``raw`` if it is the same.

    In CGI ``path_info`` is what follows ``mount``; nginx names the whole path there. Raises
    :class:`~.errors.ProtocolError`.
    """
    path = path_info
    if mount and path != mount and not path.startswith(mount + b"/"):
        path = mount + path
    if not path:
        path = b"/"
    if path[:1] != b"/" and path != raw:  # the asterisk of OPTIONS is both
        raise ProtocolError("PATH_INFO, or SCRIPT_NAME, does not begin with a slash")
    if unquote_to_bytes(raw) == path and raw.startswith(_quoted(mount)):
        return raw
    return _quoted(path)


def _quoted(path: bytes) -> bytes:
    return quote(path, safe=_PATH_SAFE).encode("ascii")


def _visible(target: bytes) -> bytes:
    """``target`` with whatever HTTP would not have let through percent-encoded."""
    return _INVISIBLE.sub(lambda match: b"%%%02X" % match[0][0], target)
