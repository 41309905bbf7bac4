"""What the tests of the log share: gunicorn's logger, parser and environ, and requests by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gunicorn import glogging
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.parser import RequestParser

from hybridworker.log.access import access_writer

REQUESTS = {
    "plain": b"GET /a/b?x=1&y=%20 HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8\r\nReferer: http://e/\r\n\r\n",
    "bare": b"GET / HTTP/1.0\r\n\r\n",
    "quotes": b'POST /"q"?"=" HTTP/1.1\r\nHost: e\r\nUser-Agent: a "b" \\"\r\nReferer: "\r\nX-A: "x"\r\n\r\n',
    "encoded": b"GET /caf%C3%A9/%ff%0A?%C3%A9 HTTP/1.1\r\nHost: e\r\nUser-Agent: caf\xe9\r\n\r\n",
    "user": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Basic am\xc3\xb6\r\nAuthorization: Bearer x\r\n\r\n",
    "basic": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: bASIC YWwiYWRkaW46c2VzYW1l\r\n\r\n",
    "bearer": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer abc\r\n\r\n",
    "not base64": b"GET / HTTP/1.1\r\nHost: e\r\nAuthorization: Basic a\r\n\r\n",
    "repeated": b"GET / HTTP/1.1\r\nHost: e\r\nX-A: 1\r\nUser-Agent: -\r\nX-A: 2\r\nUser-Agent: b\r\n\r\n",
    "underscores": b"GET / HTTP/1.1\r\nHost: e\r\nUser_Agent: a\r\nX_Under: b\r\nUser-Agent: c\r\n\r\n",
}
CLIENTS: dict[str, Any] = {"ipv4": ("192.0.2.7", 40000), "ipv6": ("2001:db8::7", 40000), "unix": ""}

#: Attributes of a request that hooks use.
VIEWED = ["method", "scheme", "uri", "path", "query", "fragment", "headers", "version", "peer_addr", "remote_addr"]


class Exchange:
    """What the worker hands to the log."""

    def __init__(
        self, scope: Any, status: int = 200, reason: bytes | None = None, headers: Any = (), sent: int | None = 0
    ) -> None:
        self.scope = scope
        self.status = status
        self.reason = reason
        self.headers = list(headers)
        self.sent = sent
        self.started_at = 0.0


def scope_of(request: bytes, client: Any = CLIENTS["ipv4"], **changes: Any) -> dict[str, Any]:
    """The scope of a request, by hand."""
    line, *fields = request.split(b"\r\n\r\n")[0].split(b"\r\n")
    method, target, protocol = line.split(b" ")
    raw_path, _, query = target.partition(b"?")
    pairs = [field.split(b": ", 1) for field in fields]
    return {
        "type": "http",
        "http_version": protocol[5:].decode(),
        "method": method.decode(),
        "scheme": "http",
        "path": raw_path.decode(),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in pairs],
        "client": client or None,
        "server": ("127.0.0.1", 8000),
        "hybridworker.target": target,
    } | changes


def of_gunicorn(request: bytes, client: Any, cfg: Config) -> tuple[Any, Any, dict[str, Any]]:
    """Request, response and environ as gunicorn's threaded worker makes them."""
    req = next(RequestParser(cfg, iter([request]), client))
    resp, environ = wsgi.create(req, None, client, ("127.0.0.1", 8000), cfg)
    return req, resp, environ


class Bench:
    """A gunicorn logger that writes to files, and its configuration."""

    def __init__(self, tmp_path: Path) -> None:
        self.cfg = Config()
        self.access = tmp_path / "access.log"
        self.errors = tmp_path / "error.log"
        self.set(accesslog=str(self.access), errorlog=str(self.errors), header_map="dangerous")

    def set(self, **settings: Any) -> None:
        for name, value in settings.items():
            self.cfg.set(name, value)

    def logger(self, kind: type[Any] = glogging.Logger, **settings: Any) -> Any:
        self.set(**settings)
        log = kind(self.cfg)
        for handler in list(log.access_log.handlers):
            if not hasattr(handler, "_gunicorn"):  # pytest's own, which raises what other handlers report
                log.access_log.removeHandler(handler)
        return log

    def writer(self, kind: type[Any] = glogging.Logger, **settings: Any) -> Callable[[Any], None]:
        writer = access_writer(self.logger(kind, **settings), self.cfg)
        assert writer is not None
        return writer

    def lines(self) -> list[str]:
        return self.access.read_text(encoding="utf-8").splitlines()


class Unusual(BaseException):
    """No Exception."""


#: Out of a hook or a logger all of them are errors of its own.
OF_ANY_KIND = pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Unusual])


def raises(kind: type[BaseException]) -> Callable[..., Any]:
    """A function, with the parameters that both hooks are called with, that raises."""

    def fail(worker: Any, req: Any) -> None:
        raise kind("too late")

    return fail
