"""
Boot: what a worker reads and says before it serves.

:func:`versions` is for the first line of the log. :func:`read_certificate` reads what each scope
tells of this server's certificate. :func:`explain_tls` names the setting with which no TLS
context can be made. No loop, no thread.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import ssl

import httptools
import uvloop

from ..config.settings import Settings


def versions(asgi_loop: str) -> str:
    """What the worker runs on, for bug reports: the loop, the parsers, Python."""
    try:
        websockets = f"websockets {importlib.metadata.version('websockets')}"  # not imported: that is up to the workers
    except importlib.metadata.PackageNotFoundError:
        websockets = "no websockets"
    loop = "asyncio" if asgi_loop == "asyncio" else f"uvloop {uvloop.__version__}"  # type: ignore[attr-defined]
    return f"{loop}, httptools {httptools.__version__}, {websockets}, Python {platform.python_version()}"


def read_certificate(path: str | None) -> str | None:
    """The PEM of the server's certificate; None where the ``ssl_context`` hook has it from somewhere else."""
    try:
        with open(path or "", encoding="ascii") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


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
