"""
Who is at the other end of an encrypted connection: the ASGI TLS extension, and what WSGI is told.

:func:`tls_extension` and :func:`tls_environ` are called once per connection, by :mod:`.peer`,
when the handshake is over. Pure: an ``ssl`` object in, plain values out. Invariant: a
client certificate that was not verified is no certificate, so nothing is told of one that
OpenSSL did not accept.

Source: asgiref ``specs/tls.rst`` 0.2; RFC 4514 for the name; mod_ssl, "Environment Variables".
"""

from __future__ import annotations

import ssl
from typing import Any

#: Protocol versions as they stand in the handshake (RFC 8446 4.2.1).
_VERSIONS = {"SSLv3": 0x0300, "TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

#: OpenSSL's name of a cipher suite -> its number at IANA. As many as OpenSSL knows, whatever clients do.
_suites: dict[str, int] = {}

#: OpenSSL's long name of an attribute -> its name in RFC 4514 3, or in IANA's registry of LDAP descriptors.
#: Names that are the same in both (``serialNumber``, ``title``, ``emailAddress`` ...) are not listed.
_ATTRIBUTES = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
    "surname": "SN",
}

#: RFC 4514 2.4: these are preceded by a backslash; control characters are written in hexadecimal.
_ESCAPES = {code: f"\\{code:02x}" for code in (*range(32), 127)} | str.maketrans({c: "\\" + c for c in '"+,;<>\\'})


def tls_extension(ssl_object: ssl.SSLObject, server_cert: str | None) -> dict[str, Any]:
    """
    The ``tls`` entry of a scope's extensions, all its keys always present.

    ``server_cert`` is the server's certificate in PEM, or None where it is not known.
    ``client_cert_error`` is always None: a certificate that fails to verify ends the handshake.
    """
    chain: list[str] = []
    name: str | None = None
    certificate = ssl_object.getpeercert()
    if certificate:  # None: the client sent none; empty: it was not verified
        chain = _chain(ssl_object)
        name = distinguished_name(certificate.get("subject", ()))
    return {
        "server_cert": server_cert,
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(ssl_object.version() or ""),
        "cipher_suite": _cipher_suite(ssl_object),
    }


def tls_environ(ssl_object: ssl.SSLObject, extension: dict[str, Any]) -> dict[str, str]:
    """
    What an environ says of TLS, under the names and with the values of mod_ssl.

    ``extension`` is that of the same connection. ``SSL_CLIENT_CERT`` and ``SSL_CLIENT_S_DN`` are there
    only where the client has a certificate; ``SSL_CLIENT_VERIFY`` is then ``SUCCESS``, else ``NONE``.
    """
    cipher = ssl_object.cipher()
    environ = {
        "HTTPS": "on",
        "SSL_PROTOCOL": ssl_object.version() or "",
        "SSL_CIPHER": "" if cipher is None else cipher[0],
        "SSL_CLIENT_VERIFY": "NONE",
    }
    if extension["client_cert_chain"]:
        environ["SSL_CLIENT_VERIFY"] = "SUCCESS"
        environ["SSL_CLIENT_CERT"] = extension["client_cert_chain"][0]
        # PEP 3333, "Unicode Issues": each character stands for a byte, here of UTF-8.
        environ["SSL_CLIENT_S_DN"] = (extension["client_cert_name"] or "").encode("utf-8").decode("latin-1")
    return environ


def distinguished_name(subject: Any) -> str:
    """
    A subject, as ``getpeercert()`` gives it, in the string form of RFC 4514.

    The most specific part comes first there and last in the certificate.
    """
    return ",".join("+".join(_attribute(key, value) for key, value in part) for part in reversed(subject))


def _attribute(key: str, value: str) -> str:
    if key[:1].isdigit():
        # A type without a name: its value is the BER encoding in hexadecimal (RFC 4514 2.4). ``ssl`` has
        # decoded the value and does not say from what; UTF8String can hold them all.
        data = value.encode()
        return f"{key}=#0c{_ber_length(len(data)).hex()}{data.hex()}"
    text = value.translate(_ESCAPES)
    if text[:1] in (" ", "#"):
        text = "\\" + text
    if text[-1:] == " " and text != "\\ ":
        text = text[:-1] + "\\ "
    return f"{_ATTRIBUTES.get(key, key)}={text}"


def _ber_length(size: int) -> bytes:
    if size < 128:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def _chain(ssl_object: ssl.SSLObject) -> list[str]:
    """The certificates that the client sent, its own first, in PEM."""
    own = ssl_object.getpeercert(binary_form=True)
    if own is None:
        return []
    first = ssl.DER_cert_to_PEM_cert(own)
    if hasattr(ssl_object, "get_unverified_chain"):
        sent = [ssl.DER_cert_to_PEM_cert(der) for der in ssl_object.get_unverified_chain()]
    else:  # before Python 3.13 only inside
        inner: Any = ssl_object
        sent = [certificate.public_bytes() for certificate in inner._sslobj.get_unverified_chain()]
    return [first, *(certificate for certificate in sent if certificate != first)]


def _cipher_suite(ssl_object: ssl.SSLObject) -> int | None:
    cipher = ssl_object.cipher()
    if cipher is None:
        return None
    name = cipher[0]
    if name not in _suites:
        # OpenSSL's ids carry its protocol family in the upper half.
        _suites.update({suite["name"]: suite["id"] & 0xFFFF for suite in ssl_object.context.get_ciphers()})
    return _suites.get(name)
