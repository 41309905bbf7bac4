"""
ASGI connection scopes, from what the parser and the transport know.

Pure functions. Event loop side.

Invariant: every scope, and every dictionary inside it, is made anew for its request, so that
no middleware can leak a change into the next one (checklist C14). Only the values of ``state``
are shared, as the specification wants.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from ..asgi import ASGI_VERSION, HTTP_SPEC_VERSION, WEBSOCKET_SPEC_VERSION, Headers, Scope
from ..errors import ProtocolError

Address = tuple[str, int] | tuple[str, None] | None

#: The keys of an HTTP scope, in the order of the specification.
_HTTP: dict[str, Any] = dict.fromkeys(
    (
        "type",
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "client",
        "server",
        "state",
        "extensions",
        "hybridworker.target",
    )
)
_HTTP["type"] = "http"


def split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes | None]:
    """
    Split a request target into ``(raw_path, query_string, authority)``.

    The four forms of RFC 9112 3.2: origin-form; absolute-form, whose authority
    replaces the Host field; authority-form, which only CONNECT may use, which this
    server does not implement; asterisk-form, which only OPTIONS may use. A fragment never
    belongs into a target. Raises :class:`~.errors.ProtocolError`.
    """
    if method == b"CONNECT":
        raise ProtocolError("CONNECT is for proxies (RFC 9110 9.3.6)", 501)
    if b"#" in target:
        raise ProtocolError("a fragment in the request target (RFC 9112 3.2)")
    if target[:1] == b"/":
        path, _, query = target.partition(b"?")
        return path, query, None
    if target == b"*":
        if method != b"OPTIONS":
            raise ProtocolError("asterisk-form is for OPTIONS only (RFC 9112 3.2.4)")
        return target, b"", None
    if b"://" not in target:
        raise ProtocolError("the request target has none of the four forms (RFC 9112 3.2)")
    scheme, _, rest = target.partition(b"://")
    if scheme.lower() not in (b"http", b"https"):
        raise ProtocolError("the absolute-form target is not an http URL (RFC 9110 4.2)")
    hierarchy, _, query = rest.partition(b"?")
    authority, slash, path = hierarchy.partition(b"/")
    if not authority or authority[:1] == b":" or b"@" in authority:
        raise ProtocolError("the absolute-form target has no host, or user information (RFC 9110 4.2.1, 4.2.4)")
    return slash + path or b"/", query, authority


def decode_path(raw_path: bytes) -> str:
    """
    ``path``: percent-decoded, then UTF-8.

    Bytes that are not UTF-8 become U+FFFD; ``raw_path`` keeps them (checklist H5, H6).
    """
    return unquote_to_bytes(raw_path).decode("utf-8", "replace")


def address_name(address: object) -> str:
    """What the log calls a client at this end of a socket."""
    return str(address[0]) if isinstance(address, tuple) else "unix socket"


def normal_address(address: object, server: bool = False) -> Address:
    """
    A socket address as scopes show it.

    ``(host, port)``, without the zone, flow and scope of IPv6; for a unix socket
    ``(path, None)`` on the server's side and None on the client's, which has no name.
    """
    if isinstance(address, tuple):
        if len(address) == 2:
            return address  # of IPv4
        host, port = address[:2]
        return host.partition("%")[0], port
    if not server:
        return None
    path = address.decode("utf-8", "surrogateescape") if isinstance(address, bytes) else address
    return (path, None) if isinstance(path, str) and path else None


def http_template(scheme: str, client: Address, server: Address, root_path: str) -> dict[str, Any]:
    """
    What the scopes of all requests of one connection have in common (ASGI HTTP 2.5, "HTTP Connection Scope").

    Copying it and filling in the rest takes half as long as building each scope anew.
    """
    template = _HTTP.copy()
    template["scheme"] = scheme
    template["client"] = client
    template["server"] = server
    template["root_path"] = root_path
    return template


def http_scope(
    template: dict[str, Any],
    http_version: str,
    method: str,
    raw_path: bytes,
    query_string: bytes,
    target: bytes,
    headers: Headers,
) -> dict[str, Any]:
    """The scope of a request on the connection of ``template``, but for ``state``. ``target`` is for the logs."""
    scope = template.copy()
    scope["asgi"] = {"version": ASGI_VERSION, "spec_version": HTTP_SPEC_VERSION}
    scope["http_version"] = http_version
    scope["method"] = method
    scope["path"] = raw_path.decode("ascii") if 37 not in raw_path else decode_path(raw_path)
    scope["raw_path"] = raw_path
    scope["query_string"] = query_string
    scope["headers"] = headers
    scope["extensions"] = {
        "http.response.early_hint": {},
        "http.response.pathsend": {},
        "http.response.zerocopysend": {},
    }
    scope["hybridworker.target"] = target
    return scope


def websocket_scope(scope: Scope) -> Scope:
    """Turn the HTTP scope of a handshake into a WebSocket scope (ASGI WebSocket 2.5)."""
    offers = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
    names = [offer.strip() for value in offers for offer in value.decode("latin-1").split(",")]
    scope["type"] = "websocket"
    scope["asgi"]["spec_version"] = WEBSOCKET_SPEC_VERSION
    scope["scheme"] = "wss" if scope["scheme"] in ("https", "wss") else "ws"
    scope["subprotocols"] = [name for name in names if name]
    tls = scope["extensions"].get("tls")
    scope["extensions"] = {"websocket.http.response": {}} | ({} if tls is None else {"tls": tls})
    del scope["method"]
    return scope
