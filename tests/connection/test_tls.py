"""tls.py: what the TLS extension says of a connection, from real handshakes without a socket."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trustme
from cryptography import x509

from hybridworker.connection.tls import distinguished_name, tls_environ, tls_extension

AUTHORITY = trustme.CA()
INTERMEDIATE = AUTHORITY.create_child_ca()
SERVER = AUTHORITY.issue_cert("localhost")
CLIENT = INTERMEDIATE.issue_cert(
    "someone@example.org", common_name="Some, One", organization_name="Ex+ample", organization_unit_name=" #unit "
)


def contexts(verify: ssl.VerifyMode) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that treats client certificates as ``verify`` says, and a client that trusts it."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    SERVER.configure_cert(server)
    AUTHORITY.configure_trust(server)
    AUTHORITY.configure_trust(client)
    server.verify_mode = verify
    return server, client


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory; returns the server's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(4):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ours.version() is not None
    return ours


def test_x24_all_keys_are_always_present() -> None:
    """A connection without a client certificate has every key, empty or None."""
    found = tls_extension(handshake(*contexts(ssl.CERT_NONE)), None)
    assert set(found) == {
        "server_cert",
        "client_cert_chain",
        "client_cert_name",
        "client_cert_error",
        "tls_version",
        "cipher_suite",
    }


def test_x24_version_and_suite_are_the_numbers_of_the_wire() -> None:
    """TLS 1.3 is 0x0304, and a suite has the number that IANA gave it."""
    server, client = contexts(ssl.CERT_NONE)
    found = tls_extension(handshake(server, client), None)
    assert found["tls_version"] == 0x0304
    assert found["cipher_suite"] in (0x1301, 0x1302, 0x1303)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", 0xC02B),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", 0xC02C),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xCCA9),
    ],
)
def test_x24_suites_of_tls_1_2(name: str, number: int) -> None:
    """The older names of OpenSSL are found as well."""
    server, client = contexts(ssl.CERT_NONE)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(name)
    found = tls_extension(handshake(server, client), None)
    assert found["tls_version"] == 0x0303
    assert found["cipher_suite"] == number


def test_x24_the_server_certificate_is_handed_through() -> None:
    """server_cert is the PEM text that was given, or None."""
    pem = SERVER.cert_chain_pems[0].bytes().decode()
    ours = handshake(*contexts(ssl.CERT_NONE))
    assert tls_extension(ours, pem)["server_cert"] == pem
    assert tls_extension(ours, None)["server_cert"] is None


@pytest.mark.parametrize("verify", [ssl.CERT_NONE, ssl.CERT_OPTIONAL], ids=["none", "optional"])
def test_x26_without_a_client_certificate(verify: ssl.VerifyMode) -> None:
    """No certificate: an empty chain, no name, no error."""
    found = tls_extension(handshake(*contexts(verify)), None)
    assert list(found["client_cert_chain"]) == []
    assert found["client_cert_name"] is None
    assert found["client_cert_error"] is None


def test_x26_a_certificate_that_nobody_asked_for_is_not_told() -> None:
    """A server that does not verify says nothing of a certificate."""
    server, client = contexts(ssl.CERT_NONE)
    CLIENT.configure_cert(client)
    assert tls_extension(handshake(server, client), None)["client_cert_chain"] == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_x25_the_chain_is_what_the_client_sent(version: ssl.TLSVersion) -> None:
    """The client's own certificate comes first, then what it sent along; the name is that of the first."""
    server, client = contexts(ssl.CERT_REQUIRED)
    client.maximum_version = version
    CLIENT.configure_cert(client)
    found = tls_extension(handshake(server, client), None)
    sent = [x509.load_pem_x509_certificate(pem.bytes()) for pem in CLIENT.cert_chain_pems]
    chain = [x509.load_pem_x509_certificate(pem.encode()) for pem in found["client_cert_chain"]]
    assert len(sent) > 1
    assert chain == sent
    assert found["client_cert_name"] == chain[0].subject.rfc4514_string()
    assert found["client_cert_error"] is None


def test_cipher_and_version_before_the_handshake() -> None:
    """What is not known is None."""
    ours = contexts(ssl.CERT_NONE)[0].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)

    class Unfinished:
        context = ours.context

        def getpeercert(self) -> None:
            return None

        def version(self) -> None:
            return None

        def cipher(self) -> None:
            return None

    unfinished: Any = Unfinished()
    found = tls_extension(unfinished, None)
    assert found["tls_version"] is None
    assert found["cipher_suite"] is None


def rdn(*pairs: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return pairs


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ((), ""),
        # The examples of RFC 4514 4.
        (
            (rdn(("domainComponent", "net")), rdn(("domainComponent", "example")), rdn(("userId", "jsmith"))),
            "UID=jsmith,DC=example,DC=net",
        ),
        (
            (rdn(("domainComponent", "net")), rdn(("organizationalUnitName", "Sales"), ("commonName", "J.  Smith"))),
            "OU=Sales+CN=J.  Smith,DC=net",
        ),
        ((rdn(("commonName", 'James "Jim" Smith, III')),), 'CN=James \\"Jim\\" Smith\\, III'),
        ((rdn(("commonName", "Before\rAfter")),), "CN=Before\\0dAfter"),
        ((rdn(("1.3.6.1.4.1.1466.0", "\x02Hi")),), "1.3.6.1.4.1.1466.0=#0c03024869"),
        ((rdn(("commonName", "Lučić")),), "CN=Lučić"),
        # The escapes of RFC 4514 2.4.
        ((rdn(("commonName", " x ")),), "CN=\\ x\\ "),
        ((rdn(("commonName", " ")),), "CN=\\ "),
        ((rdn(("commonName", "  ")),), "CN=\\ \\ "),
        ((rdn(("commonName", "#x#")),), "CN=\\#x#"),
        ((rdn(("commonName", "a+b;c<d>e\\f=g\0")),), "CN=a\\+b\\;c\\<d\\>e\\\\f=g\\00"),
        ((rdn(("commonName", "")),), "CN="),
        ((rdn(("countryName", "CH"), ("stateOrProvinceName", "VD")),), "C=CH+ST=VD"),
        ((rdn(("emailAddress", "a@b.example")),), "emailAddress=a@b.example"),
    ],
)
def test_x25_the_name_is_written_as_rfc_4514_wants(subject: Any, expected: str) -> None:
    """Reversed order, short attribute names, escapes."""
    assert distinguished_name(subject) == expected


def test_a_long_value_of_a_nameless_type() -> None:
    """Lengths of 128 and more take the long form of BER."""
    assert distinguished_name((rdn(("1.2.3", "x" * 200)),)) == "1.2.3=#0c81c8" + "78" * 200


# -- WSGI


def environ_of(ssl_object: ssl.SSLObject) -> dict[str, str]:
    return tls_environ(ssl_object, tls_extension(ssl_object, None))


def test_the_environ_has_the_names_of_mod_ssl() -> None:
    """And its values; of a client without a certificate nothing is said but that."""
    server, client = contexts(ssl.CERT_OPTIONAL)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = handshake(server, client)
    cipher = ours.cipher()
    assert cipher is not None
    assert environ_of(ours) == {
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.2",
        "SSL_CIPHER": cipher[0],
        "SSL_CLIENT_VERIFY": "NONE",
    }


def test_the_environ_names_a_client_that_was_verified() -> None:
    """Its certificate in PEM, and its name as in RFC 4514."""
    server, client = contexts(ssl.CERT_REQUIRED)
    CLIENT.configure_cert(client)
    found = environ_of(handshake(server, client))
    assert found["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert found["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----\n")
    assert found["SSL_CLIENT_CERT"].count("-----BEGIN") == 1
    assert "CN=Some\\, One" in found["SSL_CLIENT_S_DN"]


def test_a_name_is_a_string_of_bytes() -> None:
    """As all that PEP 3333 puts into an environ."""
    server, client = contexts(ssl.CERT_REQUIRED)
    AUTHORITY.issue_cert("someone@example.org", common_name="Zoë").configure_cert(client)
    found = environ_of(handshake(server, client))
    assert "CN=Zoë" in found["SSL_CLIENT_S_DN"].encode("latin-1").decode("utf-8")
