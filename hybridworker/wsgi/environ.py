"""
CGI keys from a scope: the part of a WSGI environ that the request alone decides.

:mod:`.commonenviron` and :mod:`.responder` add the ``wsgi.*`` keys, :mod:`..log.views` shows it to hooks and
loggers. A pure function, called by the loop and by threads. Every key has the value that
gunicorn's threaded worker gives it, with these exceptions:

* Cookie fields are joined with ``"; "`` (RFC 6265 5.4), other repeated fields with ``","``;
* ``SERVER_PORT`` is never empty (PEP 3333, "environ Variables"), and an IPv6 literal in
  the Host field is not taken apart at its first colon;
* a ``SCRIPT_NAME`` that ends inside a path segment (``/api`` for ``/apix``) does not match;
* the address is the one that the connection came in on, also where the listener is
  bound to ``0.0.0.0``.

Invariant: ``PATH_INFO`` comes from ``raw_path``, never from ``path``, in which bytes that are
not UTF-8 are already lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from ..cache import remember
from ..identity import REQUEST_ID

#: Field name -> environ key.
_keys: dict[bytes, str] = {}

#: As a number: ``b"%" in path`` raises and clears an exception, and takes five times as long.
PERCENT = ord("%")

_DEFAULT_PORTS = {"https": "443", "wss": "443"}


def request_environ(
    scope: Mapping[str, Any], script_name: str = "", base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """
    The CGI and ``HTTP_*`` keys of ``scope`` (http or websocket), all of them ``str``.

    A copy of ``base`` is completed, which has the keys of :func:`server_environ`; the request's values replace
    those of ``base`` (a dictionary that has the keys already need not grow). ``script_name`` is the mount point,
    unless a forwarder names one in a ``SCRIPT_NAME`` field. Where the path does not begin
    with the mount point there is no key ``SCRIPT_NAME``, and the caller must refuse the request.
    Source: PEP 3333, "environ Variables"; RFC 3875 4.1.
    """
    environ = server_environ(scope["server"], scope["http_version"]) if base is None else base.copy()
    environ["REQUEST_METHOD"] = scope["method"] if "method" in scope else "GET"
    query = scope["query_string"]
    environ["QUERY_STRING"] = query.decode("latin-1") if query else ""
    environ["RAW_URI"] = scope["hybridworker.target"].decode("latin-1")
    repeated: dict[str, list[str]] | None = None
    known = _keys.get
    for name, value in scope["headers"]:
        key = known(name)
        if key is None:
            key = _key(name)
        if key not in environ:
            environ[key] = value.decode("latin-1")
        else:
            if repeated is None:
                repeated = {}
            repeated.setdefault(key, [environ[key]]).append(value.decode("latin-1"))
    if repeated is not None:
        # Joined once, at the end: joining field by field would copy the growing value each time.
        for key, values in repeated.items():
            environ[key] = ("; " if key == "HTTP_COOKIE" else ",").join(values)
    client = scope["client"]
    if client is None:
        environ["REMOTE_ADDR"] = ""  # a unix socket: the client has no address and no port
    else:
        environ["REMOTE_ADDR"], port = client
        environ["REMOTE_PORT"] = str(port)
    if not environ["SERVER_PORT"]:
        _name_server(environ, scope["scheme"])
    if "HTTP_SCRIPT_NAME" in environ:
        script_name = _forwarded_script_name(scope, script_name)
    path = scope["raw_path"]
    if script_name:
        path = _below(environ, path, script_name)
    else:
        environ["SCRIPT_NAME"] = ""
    environ["PATH_INFO"] = (unquote_to_bytes(path) if PERCENT in path else path).decode("latin-1")
    if REQUEST_ID in scope:
        environ[REQUEST_ID] = scope[REQUEST_ID]
    if "hybridworker.proxy" in scope:
        environ.update(scope["hybridworker.proxy"])
    return environ


def server_environ(server: tuple[str, int | None] | None, version: str) -> dict[str, Any]:
    """The keys that follow from ``server`` and ``http_version``. No port is an empty string, until Host is known."""
    name, port = server or ("localhost", None)
    return {
        "SERVER_NAME": name,
        "SERVER_PORT": "" if port is None else str(port),
        "SERVER_PROTOCOL": "HTTP/" + version,
    }


def encrypted_environ(
    scope: Mapping[str, Any], script_name: str = "", base: dict[str, Any] | None = None
) -> dict[str, Any]:
    """:func:`request_environ` of a worker that serves TLS, with what mod_ssl would say of the connection."""
    environ = request_environ(scope, script_name, base)
    environ.update(scope.get("hybridworker.tls", {}))
    return environ


def _key(name: bytes) -> str:
    text = name.decode("latin-1").upper().replace("-", "_")
    key = text if name in (b"content-type", b"content-length") else "HTTP_" + text
    return remember(_keys, name, key)


def _below(environ: dict[str, Any], path: bytes, script_name: str) -> bytes:
    """The part of ``path`` below the mount point, which is compared before percent-decoding, as in gunicorn."""
    prefix = script_name.encode("latin-1", "replace")
    rest = path[len(prefix) :]
    if not path.startswith(prefix) or (rest[:1] not in (b"", b"/") and not prefix.endswith(b"/")):
        return path
    environ["SCRIPT_NAME"] = script_name
    return rest


def mount_environ(environ: dict[str, Any], raw_path: bytes, mount: str) -> None:
    """
    Move the mount point of a part, which is percent-decoded, from ``PATH_INFO`` to ``SCRIPT_NAME``.

    ``RAW_URI`` stays. Nothing changes where the path does not begin with it, because a hook has changed the path.
    Source: PEP 3333, "environ Variables".
    """
    path, prefix = unquote_to_bytes(raw_path), mount.encode("utf-8")
    if path.startswith(prefix + b"/") or path == prefix:
        environ["SCRIPT_NAME"] = prefix.decode("latin-1")
        environ["PATH_INFO"] = path[len(prefix) :].decode("latin-1")


def _forwarded_script_name(scope: Mapping[str, Any], script_name: str) -> str:
    # Only a trusted forwarder gets a name with an underscore through; any client can send Script-Name.
    for name, value in scope["headers"]:
        if name == b"script_name":
            script_name = value.decode("latin-1")
    return script_name


def _name_server(environ: dict[str, Any], scheme: str) -> None:
    # RFC 3875 knows no unix sockets: the best name is the one by which the client called the server.
    host = environ.get("HTTP_HOST", "")
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        name, port = host, ""
    if name:
        environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port or _DEFAULT_PORTS.get(scheme, "80")
