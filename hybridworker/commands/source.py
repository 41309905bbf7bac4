"""
Source: where ``top`` gets a metrics page from, by HTTP over TCP, TLS or a unix socket.

Synchronous, on the standard library alone. Whatever goes wrong is a :class:`Unavailable` with one line, because a group
that restarts is no error. Invariant: one page is one connection, so that each goes to whichever worker takes it.
"""

from __future__ import annotations

import http.client
import re
import socket
import time
from urllib.parse import urlsplit

from .samples import Page, read, workers

#: Seconds that a worker may take to answer.
TIMEOUT = 2.0

#: Bytes of the longest page that is read.
PAGE_MAX = 32 * 1024 * 1024

PATH = "/metrics"


class Unavailable(Exception):
    """
    The page could not be had; the message says why. ``mistaken`` means that trying again will not help, because the URL
    or HYBRIDWORKER_METRICS_PATH is wrong: something answered with a status below 500, and it was no metrics page.
    """

    def __init__(self, reason: str, *, mistaken: bool = False) -> None:
        super().__init__(reason)
        self.mistaken = mistaken


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Source:
    """
    One metrics page.

    ``url`` is ``http://HOST:PORT/PATH``, with https as well, or ``unix:SOCKET:PATH``; without a path it is
    ``/metrics``. Raises ValueError for what is no such thing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        if url.startswith("unix:"):
            address, colon, path = url.removeprefix("unix:").removeprefix("//").rpartition(":/")
            self.address, self.path = (address, "/" + path) if colon else (path, PATH)
            if not self.address:
                raise ValueError(url)
            return
        if "://" not in url:
            url = "http://" + url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]+", parts.hostname):
            raise ValueError(url)
        self.host, self.port, self.scheme = parts.hostname, parts.port, parts.scheme
        self.address = ""
        self.path = parts.path if parts.path not in ("", "/") else PATH
        if parts.query:
            self.path += f"?{parts.query}"

    def _connection(self) -> http.client.HTTPConnection:
        if self.address:
            return UnixConnection(self.address, TIMEOUT)
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=TIMEOUT)

    def page(self) -> Page:
        """Get the page. Raises :class:`Unavailable`."""
        connection = self._connection()
        try:
            connection.request("GET", self.path, headers={"Connection": "close"})
            response = connection.getresponse()
            text = response.read(PAGE_MAX).decode("utf-8", "replace")
        except TimeoutError:
            raise Unavailable(f"no answer within {TIMEOUT:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc).strip() or type(exc).__name__
            raise Unavailable(reason) from None
        finally:
            connection.close()
        page = workers(read(text), time.monotonic())
        if response.status != 200 or page is None:
            what = f"answered {response.status}" if response.status != 200 else "is no metrics page of hybridworker"
            reason = f"{self.path} {what}: HYBRIDWORKER_METRICS_PATH={self.path.partition('?')[0]} makes it one"
            raise Unavailable(reason, mistaken=response.status < 500)
        return page
