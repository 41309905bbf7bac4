"""Chapter X, third part: the TLS extension (asgiref ``specs/tls.rst`` 0.2)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from .extensions import extensions_app, offered
from .registry import NotOffered
from .servers import Options, Server, Subject


def tls_of(server: Server, certificate: bool = False) -> dict[str, Any]:
    """The tls extension of a request."""
    with server.connect(certificate) as wire:
        run = wire.request(extensions_app)
        wire.answer()
    extensions: dict[str, Any] = run.wait("extensions") or {}
    if "tls" not in extensions:
        raise NotOffered("tls")
    found: dict[str, Any] = extensions["tls"]
    return found


def x23_tls_on_tls_connections_only(subject: Subject) -> None:
    """The tls extension is there on TLS connections, HTTP and WebSocket, and only there."""
    assert "tls" not in offered(subject.server)
    with subject.start(Options(certificates=subject.certificates)) as server:
        tls_of(server)
        with server.websocket() as ws:
            run = ws.ask(extensions_app)
            ws.answer()
            assert "tls" in run.wait("extensions")


def x24_the_mandatory_keys(subject: Subject) -> None:
    """server_cert (PEM or None), tls_version and cipher_suite (numbers of the wire or None) are all there."""
    with subject.start(Options(certificates=subject.certificates)) as server:
        tls = tls_of(server)
    for key in ("server_cert", "tls_version", "cipher_suite"):
        assert key in tls, f"{key} is missing"
    assert tls["tls_version"] in (0x0304, None)
    assert tls["cipher_suite"] in (0x1301, 0x1302, 0x1303, None)
    if tls["server_cert"] is not None:
        expected = ssl.PEM_cert_to_DER_cert(Path(subject.certificates.certificate).read_text())
        assert ssl.PEM_cert_to_DER_cert(tls["server_cert"]) == expected


def x25_the_clients_certificate(subject: Subject) -> None:
    """client_cert_chain is of PEM texts, client_cert_name is in the form of RFC 4514, client_cert_error None."""
    with subject.start(Options(certificates=subject.certificates, verify=True)) as server:
        if "tls" not in with_certificate(server):
            raise NotOffered("tls")
        tls = with_certificate(server)["tls"]
    assert tls["client_cert_error"] is None
    assert all(isinstance(pem, str) and "BEGIN CERTIFICATE" in pem for pem in tls["client_cert_chain"])
    assert len(tls["client_cert_chain"]) >= 1
    assert tls["client_cert_name"].startswith("CN=Someone,"), tls["client_cert_name"]
    assert "O=Example\\, Inc." in tls["client_cert_name"], tls["client_cert_name"]


def with_certificate(server: Server) -> dict[str, Any]:
    """The extensions that a client with a certificate sees."""
    with server.connect(certificate=True) as wire:
        run = wire.request(extensions_app)
        wire.answer()
    return run.wait("extensions") or {}


def x26_the_name_is_that_of_the_first_certificate(subject: Subject) -> None:
    """The first certificate of the chain is the client's own; without one there is neither chain nor name."""
    with subject.start(Options(certificates=subject.certificates, verify=True)) as server:
        tls = tls_of(server, certificate=True)
        own = Path(subject.certificates.client).read_text()
        first = ssl.PEM_cert_to_DER_cert(next(iter(tls["client_cert_chain"])))
        at = own.index("-----BEGIN CERTIFICATE-----")
        end = own.index("-----END CERTIFICATE-----", at) + len("-----END CERTIFICATE-----\n")
        assert ssl.PEM_cert_to_DER_cert(own[at:end]) == first
        tls = tls_of(server)
        assert list(tls.get("client_cert_chain", ())) == []
        assert tls.get("client_cert_name") is None
