"""
Certificates: the files of TLS are looked at again, and a context made of them takes the place of the old one.

gunicorn's threaded worker loads the files for each connection, so that certificates may be renewed
under it. Here the tick looks once a minute whether ``certfile``, ``keyfile`` or ``ca_certs`` has
changed, and USR1 has it look at once. New handshakes have the new context; connections that are there
stay as they are. Event loop side.

Invariant: a context that is in use is never changed. To load a chain into it whose key does not
fit leaves it broken, and an authority that was taken away would still be trusted.
"""

from __future__ import annotations

import datetime
import math
import ssl
from collections.abc import Callable

from ..connection.context import WorkerContext
from ..errors import BootFailed
from .boot import Identity, explain_tls, identify, read_certificate
from .server import Server

#: Seconds between two looks at the files.
INTERVAL = 60.0

#: From so many days before the end of the certificate on, a warning a day.
NOTICE = 7

DAY = 86400.0


class Certificates:
    """
    The TLS files of one worker.

    ``build()`` makes a context as at boot, from files that are known to be good. ``seen`` is what
    :func:`~.boot.identify` said before the first one was made: they may have changed since.
    """

    __slots__ = ("build", "context", "due", "expires", "seen", "server", "warn_at")

    def __init__(
        self, context: WorkerContext, server: Server, build: Callable[[], ssl.SSLContext], seen: Identity
    ) -> None:
        self.context = context
        self.server = server
        self.build = build
        self.seen = seen
        self.expires = expiry(context.server_cert)
        self.due = self.warn_at = context.loop.time()  #: of the next look, and of the next warning

    def tick(self, now: float) -> None:
        """Look at the files once a minute. ``now`` is loop time."""
        if now >= self.due:
            self.due = now + INTERVAL
            self.look()
        if self.expires is not None and now >= self.warn_at:
            self.warn_at = now + DAY
            self._warn_of_the_end(self.expires)

    def look(self) -> None:
        """Take a new context if a file has changed and all of them can be loaded. Never asks for a password."""
        seen = identify(self.context.settings)
        if seen == self.seen:
            return
        self.seen = seen  # so that what cannot be loaded is said once for each change
        settings, log = self.context.settings, self.context.log
        reason = explain_tls(settings)
        if reason is None:
            try:
                context = self.build()
            except (BootFailed, OSError, ValueError) as exc:  # changed once more, just now
                reason = str(exc)
        if reason is not None:
            log.warning("The TLS files have changed, and the old ones stay in use: %s", reason)
            return
        self.server.renew(context)
        self.context.server_cert = read_certificate(settings.certfile)
        self.expires = expiry(self.context.server_cert)
        self.warn_at = self.context.loop.time()
        end = "" if self.expires is None else f", which is valid until {self.expires:%Y-%m-%d %H:%M} UTC"
        log.info("The TLS files have changed: new connections get the certificate in %s%s", settings.certfile, end)

    def _warn_of_the_end(self, expires: datetime.datetime) -> None:
        left = (expires - datetime.datetime.now(datetime.UTC)).total_seconds() / DAY
        if left > NOTICE:
            return
        path = self.context.settings.certfile
        if left < 0:
            self.context.log.warning("The certificate in %s has expired on %s", path, f"{expires:%Y-%m-%d %H:%M} UTC")
        else:
            line = "The certificate in %s expires on %s, in %d day(s): renew it"
            self.context.log.warning(line, path, f"{expires:%Y-%m-%d %H:%M} UTC", math.ceil(left))


# -- the end of a certificate


def expiry(pem: str | None) -> datetime.datetime | None:
    """
    When the first certificate in ``pem`` ends; None where that cannot be read.

    Source: RFC 5280 4.1: ``Validity`` is behind the version, the serial number, the signature
    algorithm and the issuer. Its times are those of RFC 5280 4.1.2.5, always in UTC.
    """
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    try:
        text = (pem or "").partition(begin)[2].partition(end)[0]
        der = ssl.PEM_cert_to_DER_cert(f"{begin}{text}{end}\n")
        _, certificate, _ = _element(der)
        _, fields, _ = _element(certificate)
        tag, _, rest = _element(fields)
        if tag != 0xA0:  # no version: it is the serial number
            rest = fields
        for _ in range(3):
            _, _, rest = _element(rest)
        _, validity, _ = _element(rest)
        _, _, rest = _element(validity)
        tag, moment, _ = _element(rest)
        form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"  # UTCTime, else GeneralizedTime
        return datetime.datetime.strptime(moment.decode("ascii"), form).replace(tzinfo=datetime.UTC)
    except (ValueError, IndexError):  # whatever it is, OpenSSL has taken it
        return None


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The tag and the content of the first element of ``der`` (ITU-T X.690 8.1), and what follows it."""
    size, start = der[1], 2
    if size & 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + size], der[start + size :]
