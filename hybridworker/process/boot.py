"""
Boot: what a worker reads and says before it serves.

:func:`versions` is for the first line of the log. :func:`read_certificate` reads what each scope
tells of this server's certificate, :func:`identify` what tells when its files change.
:func:`explain_tls` names the setting with which no TLS context can be made. No loop, no thread.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import ssl
import sys

import httptools
import uvloop

from ..config.settings import Settings

Identity = list[tuple[int, ...] | None]


def versions(asgi_loop: str) -> str:
    """What the worker runs on, for bug reports: the loop, the parsers, Python."""
    try:  # not imported: that is up to the workers. And not `version()`, for which a parser of mails is loaded
        metadata = importlib.metadata.distribution("websockets").read_text("METADATA") or ""
        version = re.search(r"^Version: (.+)$", metadata, re.MULTILINE)
        websockets = f"websockets {version[1] if version else '?'}"
    except importlib.metadata.PackageNotFoundError:
        websockets = "no websockets"
    loop = "asyncio" if asgi_loop == "asyncio" else f"uvloop {uvloop.__version__}"  # type: ignore[attr-defined]
    return f"{loop}, httptools {httptools.__version__}, {websockets}, Python {sys.version.split()[0]}"


def read_certificate(path: str | None) -> str | None:
    """The PEM of the server's certificate; None where the ``ssl_context`` hook has it from somewhere else."""
    try:
        with open(path or "", encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def identify(settings: Settings) -> Identity:
    """What tells one state of the TLS files from another, symbolic links followed; None for one that is missing."""
    return [_identify(path) for path in (settings.certfile, settings.keyfile, settings.ca_certs) if path]


def _identify(path: str) -> tuple[int, ...] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def explain_tls(settings: Settings) -> str | None:
    """
    One line for the first of gunicorn's settings with which no TLS context can be made; None where all are good.

    Each is tried by itself, because OpenSSL's own error names neither a setting nor a file.
    """
    certfile, keyfile, ca_certs, ciphers = settings.certfile, settings.keyfile, settings.ca_certs, settings.ciphers
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    what, wanted = f"ca_certs={ca_certs!r}", "it holds the PEM certificates of those who sign the clients'"
    try:
        if ca_certs:
            context.load_verify_locations(ca_certs)
        what = f"certfile={certfile!r} keyfile={keyfile!r}"
        wanted = "certfile holds a PEM certificate chain, keyfile its key"
        if not certfile:
            raise ValueError("there is no certfile")
        # Where no password is given, OpenSSL would ask for that of an encrypted key, on the terminal.
        context.load_cert_chain(certfile, keyfile, password="")
        what, wanted = f"ciphers={ciphers!r}", "it is a list of the ciphers that `openssl ciphers` knows"
        if ciphers:
            context.set_ciphers(ciphers)
    except (OSError, ValueError) as exc:
        # Neither the place in CPython's source nor the form of its tuple helps the reader.
        reason = re.sub(r" \(_ssl\.c:\d+\)$|^\('|',\)$", "", str(exc))
        return f"{what} cannot be loaded ({reason}): {wanted}"
    return None
