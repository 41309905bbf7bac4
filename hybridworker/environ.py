"""
CGI keys from a scope: the part of a WSGI environ that the request alone decides.

:mod:`.wsgi` adds the ``wsgi.*`` keys to it, :mod:`.accesslog` gives it to gunicorn's
logger. A pure function; either side of the thread border. Equal to what gunicorn's
threaded worker gives, key by key, but for this:

* Cookie fields are joined with ``"; "`` (RFC 6265 5.4), other repeated fields with ``","``;
* ``SERVER_PORT`` is never empty (PEP 3333, "environ Variables"), and an IPv6 literal in
  the Host field is not taken apart at its first colon;
* a ``SCRIPT_NAME`` that ends inside a path segment (``/api`` for ``/apix``) does not match;
* the address is the one that the connection came in on, also where the listener is
  bound to ``0.0.0.0``.

The rule one could break by accident: ``PATH_INFO`` comes from ``raw_path``, never from
``path``, in which bytes that are not UTF-8 are already lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

#: Field name -> environ key. Bounded, because clients choose the names.
_keys: dict[bytes, str] = {}
_KEYS_MAX = 1024

_DEFAULT_PORTS = {"https": "443", "wss": "443"}


def request_environ(scope: Mapping[str, Any], script_name: str = "") -> dict[str, Any]:
    """
    The CGI and ``HTTP_*`` keys of ``scope`` (http or websocket), all of them ``str``.

    ``script_name`` is the mount point, unless a forwarder names one in a ``SCRIPT_NAME``
    field. The key ``SCRIPT_NAME`` is absent where the path does not begin with it:
    whoever serves such a request must refuse it. Source: PEP 3333, RFC 3875 4.1.
    """
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "RAW_URI": scope["hybridworker.target"].decode("latin-1"),
        "SERVER_PROTOCOL": "HTTP/" + scope["http_version"],
    }
    repeated: dict[str, list[str]] | None = None
    for name, value in scope["headers"]:
        key = _keys.get(name)
        if key is None:
            key = _key(name)
        if key in environ:
            if repeated is None:
                repeated = {}
            repeated.setdefault(key, [environ[key]]).append(value.decode("latin-1"))
            if name == b"script_name":
                script_name = value.decode("latin-1")
            continue
        environ[key] = value.decode("latin-1")
        if name == b"script_name":
            script_name = environ[key]
    if repeated is not None:
        # Once, at the end: joining field by field would copy the growing value each time.
        for key, values in repeated.items():
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    client = scope["client"]
    if client is None:
        environ["REMOTE_ADDR"] = ""  # a unix socket: nobody to name, and no port
    else:
        environ["REMOTE_ADDR"] = client[0]
        environ["REMOTE_PORT"] = str(client[1])
    server = scope["server"]
    if server is not None and server[1] is not None:
        environ["SERVER_NAME"] = server[0]
        environ["SERVER_PORT"] = str(server[1])
    else:
        _name_server(environ, server, scope["scheme"])
    _split_path(environ, scope["raw_path"], script_name)
    if "hybridworker.proxy" in scope:
        environ.update(scope["hybridworker.proxy"])
    return environ


def _key(name: bytes) -> str:
    text = name.decode("latin-1").upper().replace("-", "_")
    key = text if text in ("CONTENT_TYPE", "CONTENT_LENGTH") and b"_" not in name else "HTTP_" + text
    if len(_keys) >= _KEYS_MAX:
        _keys.clear()
    _keys[name] = key
    return key


def _name_server(environ: dict[str, Any], server: tuple[str, None] | None, scheme: str) -> None:
    # RFC 3875 knows no unix sockets; what the client called the server is the best there is.
    host = environ.get("HTTP_HOST", "")
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, ""
    environ["SERVER_NAME"] = name or (server[0] if server is not None else "localhost")
    environ["SERVER_PORT"] = port or _DEFAULT_PORTS.get(scheme, "80")


def _split_path(environ: dict[str, Any], raw_path: bytes, script_name: str) -> None:
    # As gunicorn does it: the mount point is compared and cut before percent-decoding.
    path = raw_path
    if script_name:
        prefix = script_name.encode("latin-1", "replace")
        rest = raw_path[len(prefix) :]
        if raw_path.startswith(prefix) and (rest[:1] in (b"/", b"") or prefix.endswith(b"/")):
            path = rest
            environ["SCRIPT_NAME"] = script_name
    else:
        environ["SCRIPT_NAME"] = ""
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
