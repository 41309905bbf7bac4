"""
forwarded.py alone: trust, special fields, X-Forwarded-For, the PROXY protocol.

gunicorn's own request parser is the oracle where both must agree.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
import socket
import struct
from typing import Any

import pytest
import uvloop
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from hybridworker.config.settings import Network, Settings
from hybridworker.connection.forwarded import FieldPolicy, ProxyHeader, client_from, is_special, trusts
from hybridworker.errors import ProtocolError
from tests.harness import HELLO, application

DEFAULTS = Settings.from_gunicorn(Config(), {})

PEER = ("127.0.0.1", 40000)
STRANGER = ("203.0.113.66", 40000)

# Every example is cheap; how long one takes on a busy machine proves nothing.
bounded = examples(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])


def configured(**changes: Any) -> Settings:
    """gunicorn's defaults, but for ``changes``."""
    return dataclasses.replace(DEFAULTS, **changes)


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def oracle(config: dict[str, Any], peer: object, data: bytes) -> Request | str:
    """What gunicorn's Python parser makes of the first request of a connection: the request, or its error's name."""
    cfg = Config()
    cfg.set("http_parser", "python")
    for name, value in config.items():
        cfg.set(name, value)
    try:
        return next(RequestParser(cfg, iter([data]), peer))
    except Exception as exc:  # its own errors, and ValueErrors that it does not expect
        return type(exc).__name__


# -- trusted peers


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (("10.1.2.3", 5), True),
        (("10.1.2.3", 5, 0, 0), True),
        (("11.1.2.3", 5), False),
        (("2001:db8::7", 5, 0, 0), True),
        (("2001:db9::7", 5, 0, 0), False),
        (("::ffff:10.1.2.3", 5, 0, 0), True),
        (("::ffff:11.1.2.3", 5, 0, 0), False),
        (("192.0.2.1", 5), True),
        (("192.0.2.2", 5), False),
        (("fe80::1%eth0", 5, 0, 2), True),
    ],
)
def test_a_peer_is_trusted_by_its_network(peer: object, expected: bool) -> None:
    """A peer is trusted if its address is in a configured network, an IPv4 one also when it is written as IPv6."""
    assert trusts(networks("10.0.0.0/8", "2001:db8::/32", "192.0.2.1", "fe80::/10"), peer) is expected


def test_a_mapped_network_holds_mapped_peers() -> None:
    """A network that is itself written as IPv4-mapped IPv6 matches the peers of a dual-stack listener."""
    assert trusts(networks("::ffff:10.0.0.0/104"), ("::ffff:10.1.2.3", 5, 0, 0))
    assert not trusts(networks("::ffff:10.0.0.0/104"), ("::ffff:11.1.2.3", 5, 0, 0))


@pytest.mark.parametrize("peer", ["", b"", "/run/proxy.sock", b"\0abstract"])
def test_a_unix_peer_is_trusted(peer: object) -> None:
    """The peer of a unix socket is trusted whatever the networks are."""
    assert trusts((), peer)


@pytest.mark.parametrize("peer", [PEER, STRANGER, "", None, ("nonsense", 1)])
def test_without_networks_everybody_is_trusted(peer: object) -> None:
    """``*`` trusts every peer."""
    assert trusts(None, peer)


@pytest.mark.parametrize(
    "peer", [None, (), ("",), ("nonsense", 1), ("127.0.0.1/8", 1), (2130706433, 1), (b"\x7f\0\0\1", 1), 7]
)
def test_a_malformed_peer_is_not_trusted(peer: object) -> None:
    """A peername that is no address of a known form is trusted by nobody; None is not a unix socket."""
    assert not trusts(networks("127.0.0.0/8", "::1"), peer)


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_peer_that_has_reset_its_connection_is_not_trusted(run: Any) -> None:
    """A TCP client that resets before it is accepted has no peername, and must not pass for a unix socket."""

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.peer = transport.get_extra_info("peername")
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(None)

    async def main() -> object:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            client.sendall(b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            accepted, _ = listener.accept()
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(Protocol, accepted)
        await asyncio.wait_for(protocol.lost, 20)
        transport.close()
        return protocol.peer

    assert not trusts(networks("192.0.2.0/24"), run(main()))


# -- special fields


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"x-forwarded-for", True),
        (b"x-forwarded-proto", True),
        (b"script_name", True),
        (b"_", True),
        (b"x-forwarded-host", False),
        (b"host", False),
    ],
)
def test_what_is_special(name: bytes, expected: bool) -> None:
    """Special are X-Forwarded-For, the secure scheme headers, and names with underscores."""
    assert is_special(name, DEFAULTS) is expected


@pytest.mark.parametrize("trusted", [True, False])
def test_s5_names_with_underscores_are_dropped_by_default(trusted: bool) -> None:
    """header_map is ``drop`` by default: the field never was there."""
    assert FieldPolicy(DEFAULTS, trusted).keeps(b"x_under") is False


@pytest.mark.parametrize("trusted", [True, False])
def test_s5_names_with_underscores_can_be_refused(trusted: bool) -> None:
    """header_map ``refuse`` answers 400."""
    policy = FieldPolicy(configured(header_map="refuse"), trusted)
    with pytest.raises(ProtocolError) as caught:
        policy.keeps(b"x_under")
    assert caught.value.status == 400


def test_s5_names_with_underscores_can_be_kept() -> None:
    """header_map ``dangerous`` keeps them, also from a peer that is not trusted."""
    assert FieldPolicy(configured(header_map="dangerous"), False).keeps(b"x_under")


@pytest.mark.parametrize("header_map", ["drop", "refuse", "dangerous"])
def test_forwarder_headers_pass_from_a_trusted_peer(header_map: str) -> None:
    """A name in forwarder_headers bypasses header_map, if the peer is trusted."""
    policy = FieldPolicy(configured(header_map=header_map), True)
    assert policy.keeps(b"script_name")
    everything = configured(header_map=header_map, forwarder_headers=frozenset([b"*"]))
    assert FieldPolicy(everything, True).keeps(b"x_under")


def test_forwarder_headers_do_not_pass_from_a_stranger() -> None:
    """From a peer that is not trusted even ``*`` lets nothing through."""
    for names in (frozenset([b"script_name"]), frozenset([b"*"])):
        policy = FieldPolicy(configured(forwarder_headers=names), False)
        assert not policy.keeps(b"script_name")


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"x-forwarded-proto"])
def test_names_without_underscores_stay(name: bytes) -> None:
    """header_map says nothing about other names: the application sees the fields that were used."""
    assert FieldPolicy(configured(header_map="refuse"), False).keeps(name)


# -- the scheme


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], None),
        ([(b"x-forwarded-for", b"192.0.2.1")], None),
        ([(b"x-forwarded-proto", b"https")], "https"),
        ([(b"x-forwarded-proto", b"http")], "http"),
        ([(b"x-forwarded-proto", b"HTTPS")], "http"),
        ([(b"x-forwarded-proto", b"https, http")], "http"),
        ([(b"x-forwarded-proto", b"")], "http"),
        ([(b"x-forwarded-protocol", b"ssl"), (b"x-forwarded-ssl", b"on")], "https"),
        ([(b"x-forwarded-ssl", b"off"), (b"x-forwarded-proto", b"wss")], "http"),
    ],
)
def test_h4_the_scheme_is_what_a_trusted_peer_says(
    scheme: str, fields: list[tuple[bytes, bytes]], expected: str | None
) -> None:
    """The listed value means https, any other http; without a scheme header the connection's own scheme stays."""
    policy = FieldPolicy(DEFAULTS, True)
    assert policy.resolve(fields, scheme, PEER, False) == (expected or scheme, PEER)


@pytest.mark.parametrize(
    "fields",
    [
        [(b"x-forwarded-proto", b"https"), (b"x-forwarded-ssl", b"off")],
        [(b"x-forwarded-proto", b"http"), (b"x-forwarded-proto", b"https")],
        [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"::1"), (b"x-forwarded-protocol", b"SSL")],
    ],
)
def test_contradictory_scheme_headers_are_refused(fields: list[tuple[bytes, bytes]]) -> None:
    """Two scheme headers that disagree are 400 from a trusted peer, and mere fields from any other."""
    with pytest.raises(ProtocolError) as caught:
        FieldPolicy(DEFAULTS, True).resolve(fields, "http", PEER, False)
    assert caught.value.status == 400
    assert FieldPolicy(DEFAULTS, False).resolve(fields, "http", PEER, False) == ("http", PEER)


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "X-Forwarded-Proto",
                    "x-forwarded-protocol",
                    "X-FORWARDED-SSL",
                    "X_Scheme",
                    "X-Forwarded-For",
                    "Script_Name",
                    "PATH_INFO",
                    "X_Under",
                    "Accept",
                ]
            ),
            st.sampled_from(["https", "http", "on", "ssl", "HTTPS", "", "192.0.2.1", "a, b"]),
        ),
        max_size=4,
    ),
    peer=st.sampled_from([PEER, STRANGER, ""]),
    header_map=st.sampled_from(["drop", "refuse", "dangerous"]),
    forwarder_headers=st.sampled_from(["SCRIPT_NAME,PATH_INFO", "*", "X_UNDER", ""]),
)
@bounded
def test_fields_are_treated_as_gunicorn_treats_them(
    fields: list[tuple[str, str]], peer: object, header_map: str, forwarder_headers: str
) -> None:
    """Which fields stay, what the scheme is, and what is refused: the same as in gunicorn's own workers."""
    config = {
        "header_map": header_map,
        "forwarder_headers": forwarder_headers,
        "secure_scheme_headers": {
            "X-FORWARDED-PROTO": "https",
            "X-FORWARDED-PROTOCOL": "ssl",
            "X-FORWARDED-SSL": "on",
            "X_SCHEME": "https",
        },
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    theirs = oracle(config, peer, f"GET / HTTP/1.1\r\n{head}\r\n".encode())

    cfg = Config()
    for name, value in config.items():
        cfg.set(name, value)
    settings = Settings.from_gunicorn(cfg, {})
    policy = FieldPolicy(settings, trusts(settings.forwarded_networks, peer))
    kept, special = [], []
    try:
        for name, value in fields:
            lowered = name.lower().encode()
            if is_special(lowered, settings):
                special.append((lowered, value.encode()))
                if not policy.keeps(lowered):
                    continue
            kept.append((name.upper(), value))
        scheme, _ = policy.resolve(special, "http", PEER, False)
    except ProtocolError as exc:
        assert exc.status == 400
        assert theirs in ("InvalidHeaderName", "InvalidSchemeHeaders")
    else:
        assert not isinstance(theirs, str), theirs
        assert (theirs.headers, theirs.scheme) == (kept, scheme)


# -- the client address


TRUSTED = networks("10.0.0.0/8", "2001:db8:f::/48")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # One address, in all its forms.
        ([b"192.0.2.1"], ("192.0.2.1", 0)),
        ([b"192.0.2.1:8080"], ("192.0.2.1", 8080)),
        ([b"192.0.2.1:65535"], ("192.0.2.1", 65535)),
        ([b"2001:db8::1"], ("2001:db8::1", 0)),
        ([b"2001:DB8:0::0001"], ("2001:db8::1", 0)),
        ([b"[2001:db8::1]"], ("2001:db8::1", 0)),
        ([b"[2001:db8::1]:8080"], ("2001:db8::1", 8080)),
        ([b"::ffff:192.0.2.1"], ("192.0.2.1", 0)),
        (
            [b"[1111:2222:3333:4444:5555:6666:111.111.111.111]:65535"],
            ("1111:2222:3333:4444:5555:6666:6f6f:6f6f", 65535),
        ),
        ([b" \t192.0.2.1\t "], ("192.0.2.1", 0)),
        # The right-most untrusted one, over all lines.
        ([b"192.0.2.9, 192.0.2.1"], ("192.0.2.1", 0)),
        ([b"192.0.2.9, 192.0.2.1,10.0.0.2 , 10.0.0.1:99"], ("192.0.2.1", 0)),
        ([b"192.0.2.9", b"192.0.2.1", b"10.0.0.2,10.0.0.1"], ("192.0.2.1", 0)),
        ([b"192.0.2.1, 2001:db8:f::5, ::ffff:10.0.0.1"], ("192.0.2.1", 0)),
        # All are trusted: the one where the line begins.
        ([b"10.0.0.3, 10.0.0.2"], ("10.0.0.3", 0)),
        # Empty entries and lines.
        ([b",, 192.0.2.1, ,10.0.0.1,"], ("192.0.2.1", 0)),
        ([b"192.0.2.1", b"", b" , "], ("192.0.2.1", 0)),
        ([b""], None),
        ([b" , ,"], None),
        ([], None),
        # What is no address ends the walk; what is left of it is nobody's word.
        ([b"192.0.2.1, unknown"], None),
        ([b"192.0.2.1, unknown, 10.0.0.1:7"], ("10.0.0.1", 7)),
        ([b"192.0.2.1", b"_hidden", b"10.0.0.1"], ("10.0.0.1", 0)),
    ],
)
def test_the_client_is_the_right_most_untrusted_address(values: list[bytes], expected: tuple[str, int] | None) -> None:
    """The walk goes from right to left over all lines and ends at the first address that is no trusted proxy."""
    assert client_from(values, configured(forwarded_networks=TRUSTED)) == expected


@pytest.mark.parametrize(
    "junk",
    [
        b"unknown",
        b"_SEVKISEK",
        b"localhost",
        b"unix:",
        b"192.0.2.1:",
        b"192.0.2.1:http",
        b"192.0.2.1:65536",
        b"192.0.2.1:-1",
        b"192.0.2.1:000080",
        b"192.0.2.256",
        b"192.0.2",
        b"192.0.2.01",
        b"3221225985",
        b"192.0.2.1 192.0.2.2",
        b"192.0.2.1/32",
        b"[2001:db8::1",
        b"2001:db8::1]",
        b"[2001:db8::1]8080",
        b"[2001:db8::1]:",
        b"2001:db8::g",
        b"fe80::1%eth0",
        b"fe80::1%<script>",
        b'"192.0.2.1"',
        b"for=192.0.2.1",
        b"192.0.2.1\xa0",
        "\u0661.1.1.1".encode(),
        b"\xff",
        b"1" * 54,
    ],
)
def test_junk_is_never_the_client(junk: bytes) -> None:
    """Whatever is no address, or an address with a bad port, leaves the connection's client alone."""
    settings = configured(forwarded_networks=TRUSTED)
    assert client_from([junk], settings) is None
    assert client_from([b"192.0.2.9, " + junk + b", 10.0.0.1"], settings) == ("10.0.0.1", 0)
    policy = FieldPolicy(settings, True)
    assert policy.resolve([(b"x-forwarded-for", junk)], "http", PEER, True) == ("http", PEER)


def test_with_a_star_the_left_end_is_the_client() -> None:
    """``forwarded_allow_ips = *`` trusts every entry, so the walk ends where the line begins, or at junk."""
    settings = configured(forwarded_networks=None)
    assert client_from([b"192.0.2.9, 192.0.2.1", b"10.0.0.1"], settings) == ("192.0.2.9", 0)
    assert client_from([b"unknown, 192.0.2.1, 10.0.0.1"], settings) == ("192.0.2.1", 0)


def test_a_chain_is_not_followed_for_ever() -> None:
    """Only the hundred right-most entries are looked at, empty ones among them; the last one reached is the client."""
    settings = configured(forwarded_networks=TRUSTED)
    assert client_from([b"192.0.2.1" + b",10.0.0.1" * 99], settings) == ("192.0.2.1", 0)
    assert client_from([b"192.0.2.1", b"10.0.0.2" + b",10.0.0.1" * 99], settings) == ("10.0.0.2", 0)
    assert client_from([b"192.0.2.1" + b"," * 100], settings) is None


@given(st.lists(st.binary(max_size=40) | st.ip_addresses().map(lambda address: str(address).encode()), max_size=6))
@example([b"1,2", b":1"])
@bounded
def test_the_client_is_always_an_address(values: list[bytes]) -> None:
    """Whatever bytes come, the result is a canonical address with a legal port, or nothing."""
    for trusted in (None, TRUSTED):
        client = client_from(values, configured(forwarded_networks=trusted))
        if client is not None:
            host, port = client
            assert str(ipaddress.ip_address(host)) == host
            assert 0 <= port <= 65535


@given(
    client=st.ip_addresses(),
    hops=st.lists(st.ip_addresses(network="10.0.0.0/8"), max_size=4),
    forged=st.lists(st.text("0123456789abcdef.:,[]%_ ", max_size=20), max_size=3),
    cut=st.integers(0, 8),
)
@bounded
def test_a_client_cannot_forge_its_address(client: Any, hops: list[Any], forged: list[str], cut: int) -> None:
    """What stands left of the address that the first trusted proxy saw changes nothing, however the lines are cut."""
    assume(client not in TRUSTED[0] and client not in TRUSTED[1])
    assume(client.version == 4 or client.ipv4_mapped is None)
    entries = [*forged, str(client), *(str(hop) for hop in hops)]
    lines = [", ".join(part).encode() for part in (entries[:cut], entries[cut:])]
    assert client_from(lines, configured(forwarded_networks=TRUSTED)) == (str(client), 0)


@pytest.mark.parametrize(
    ("mode", "is_wsgi", "trusted", "expected"),
    [
        ("auto", False, True, True),
        ("auto", True, True, False),
        ("on", False, True, True),
        ("on", True, True, True),
        ("off", False, True, False),
        ("off", True, True, False),
        ("auto", False, False, False),
        ("on", True, False, False),
    ],
)
def test_when_the_client_is_read_from_the_field(mode: str, is_wsgi: bool, trusted: bool, expected: bool) -> None:
    """``auto`` reads X-Forwarded-For for ASGI and not for WSGI; nothing makes a stranger's word count."""
    settings = configured(forwarded_client=mode)
    reads = application(HELLO, settings, is_wsgi=is_wsgi).forwarded_client
    scheme, client = FieldPolicy(settings, trusted).resolve([(b"x-forwarded-for", b"192.0.2.1")], "http", PEER, reads)
    assert (scheme, client) == ("http", ("192.0.2.1", 0) if expected else PEER)


def test_the_client_of_a_unix_peer() -> None:
    """Behind a unix socket the connection has no client; the field gives one, or leaves it so."""
    policy = FieldPolicy(DEFAULTS, trusts(DEFAULTS.forwarded_networks, ""))
    assert policy.resolve([(b"x-forwarded-for", b"192.0.2.1")], "http", None, True) == ("http", ("192.0.2.1", 0))
    assert policy.resolve([(b"x-forwarded-for", b"unknown")], "http", None, True) == ("http", None)


@pytest.mark.parametrize(
    ("announced", "expected"), [(("198.51.100.7", 1), ("198.51.100.7", 1)), (("127.0.0.1", 1), ("192.0.2.1", 0))]
)
def test_an_announced_client_must_be_trusted_as_well(announced: tuple[str, int], expected: tuple[str, int]) -> None:
    """Behind a PROXY header the field comes from the announced client, and counts only if that is a trusted proxy."""
    policy = FieldPolicy(DEFAULTS, True, announced=announced)
    fields = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https")]
    assert policy.resolve(fields, "http", announced, True) == ("https", expected)


# -- the PROXY protocol


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"GET /path HTTP/1.1\r\nHost: example\r\n\r\n"


def v2(command: int, kind: int, block: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block) if length is None else length) + block


IPV4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.2") + struct.pack("!HH", 56324, 443)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 0, 65535)
)
UNIX = b"/run/client.sock".ljust(108, b"\0") + b"/run/server.sock".ljust(108, b"\0")
TLV = b"\x02\x00\x07example" + b"\x04\x00\x00"

Outcome = tuple[Any, ...]

NOBODY: Outcome = (None, None, {})
OVER_IPV4 = (
    ("192.0.2.1", 56324),
    ("198.51.100.2", 443),
    {"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "198.51.100.2", "PROXY_PORT": "443"},
)
OVER_IPV6 = (
    ("2001:db8::1", 0),
    ("2001:db8::2", 65535),
    {"PROXY_PROTOCOL": "TCP6", "PROXY_ADDR": "2001:db8::2", "PROXY_PORT": "65535"},
)

LONGEST = b"PROXY UNKNOWN " + b"f" * 39 + b" " + b"f" * 39 + b" 65535 65535\r\n"
assert len(LONGEST) == 107

#: header -> client, proxy and environ; all of them are accepted.
ACCEPTED = {
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n": OVER_IPV4,
    b"PROXY TCP6 2001:db8::1 2001:db8::2 0 65535\r\n": OVER_IPV6,
    b"PROXY TCP6 2001:DB8:0::1 2001:db8::0:2 0 65535\r\n": OVER_IPV6,
    b"PROXY UNKNOWN\r\n": NOBODY,
    b"PROXY UNKNOWN 192.0.2.1 198.51.100.2 56324 443\r\n": NOBODY,
    b"PROXY UNKNOWN \xff\r whatever\r\n": NOBODY,
    LONGEST: NOBODY,
    v2(0x21, 0x11, IPV4): OVER_IPV4,
    v2(0x21, 0x11, IPV4 + TLV): OVER_IPV4,
    v2(0x21, 0x11, IPV4 + b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n" + b"\0" * 3000): OVER_IPV4,
    v2(0x21, 0x21, IPV6): OVER_IPV6,
    v2(0x21, 0x21, IPV6 + TLV): OVER_IPV6,
    v2(0x21, 0x00, b""): NOBODY,
    v2(0x21, 0x00, TLV): NOBODY,
    v2(0x21, 0x01, IPV4): NOBODY,
    v2(0x20, 0x00, b""): NOBODY,
    v2(0x20, 0x11, IPV4): NOBODY,
    v2(0x20, 0x31, UNIX): NOBODY,
    v2(0x20, 0xFF, TLV): NOBODY,
}

#: headers of an allowed peer that are answered 400.
MALFORMED = [
    b"PROXY \r\n",
    b"PROXY \n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY UNKNOWN\n",
    b"PROXY UNKNOWN a\nb\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\r\n",
    b"PROXY tcp4 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP5 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.256 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1\0 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.\xb9 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 +443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 -1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 4_3\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 000443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 \xb2 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 \r\n",
    LONGEST[:-2] + b" \r\n",
    b"PROXY " + b"a" * 200,
    v2(0x11, 0x11, IPV4),
    v2(0x31, 0x11, IPV4),
    v2(0x01, 0x11, IPV4),
    v2(0x22, 0x11, IPV4),
    v2(0x21, 0x11, IPV4[:-1]),
    v2(0x21, 0x21, IPV6[:-1]),
    v2(0x21, 0x11, b""),
    v2(0x21, 0x12, IPV4),
    v2(0x21, 0x22, IPV6),
    v2(0x21, 0x02, b""),
    v2(0x21, 0x10, IPV4),
    v2(0x21, 0x31, UNIX),
    v2(0x21, 0x41, UNIX),
]

#: what is no header, and so is HTTP (for better or worse).
PLAIN = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\n\r\n",
    b"PROPFIND / HTTP/1.1\r\n\r\n",
    b"PROXY\t",
    b"PROXYING / HTTP/1.1\r\n\r\n",
    b"proxy TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
    b" PROXY UNKNOWN\r\n",
    b"\r\nGET / HTTP/1.1\r\n\r\n",
    b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"\r\n\r\n\0\r\nQUIT\r\n",
    b"\x16\x03\x01",
    b"\0",
]


def outcome(segments: list[bytes], mode: str = "auto", peer: object = PEER) -> Outcome:
    """What the header says when it comes in these segments; the bytes behind it are joined again."""
    header = ProxyHeader(configured(proxy_protocol=mode), peer)
    for number, segment in enumerate(segments, 1):
        try:
            rest = header.feed(segment)
        except ProtocolError as exc:
            return (exc.status,)
        if rest is not None:
            joined = rest + b"".join(segments[number:])
            return (joined, header.found, header.client, header.proxy, header.environ)
    return ("incomplete",)


@pytest.mark.parametrize("rest", [REST, b""])
@pytest.mark.parametrize(("header", "expected"), ACCEPTED.items())
def test_accepted_headers(header: bytes, expected: Outcome, rest: bytes) -> None:
    """A well-formed header gives both addresses, or nobody's, and the bytes behind it untouched."""
    assert outcome([header + rest]) == (rest, True, *expected)


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed_headers(header: bytes) -> None:
    """A header that breaks the specification, or announces what is no TCP connection, is 400."""
    assert outcome([header + REST]) == (400,)


@pytest.mark.parametrize("data", PLAIN)
@pytest.mark.parametrize("mode", ["off", "v1", "v2", "auto"])
def test_the_header_is_optional(data: bytes, mode: str) -> None:
    """Bytes that begin no header are HTTP and come back whole, also from peers that may not send one."""
    assert outcome([data], mode, STRANGER) == (data, False, *NOBODY)


@pytest.mark.parametrize("header", [*ACCEPTED, *MALFORMED])
def test_modes(header: bytes) -> None:
    """A version that is not enabled is not looked for; what speaks it is left to the HTTP parser."""
    version, other = ("v1", "v2") if header[:1] == b"P" else ("v2", "v1")
    assert outcome([header + REST], version) == outcome([header + REST], "auto")
    assert outcome([header + REST], other) == (header + REST, False, *NOBODY)
    assert outcome([header + REST], "off") == (header + REST, False, *NOBODY)


@pytest.mark.parametrize("header", [*ACCEPTED, *MALFORMED])
@pytest.mark.parametrize(
    ("peer", "allowed"),
    [(PEER, True), (("::ffff:127.0.0.1", 1, 0, 0), True), ("", True), (STRANGER, False), (None, False)],
)
def test_who_may_send_a_header(header: bytes, peer: object, allowed: bool) -> None:
    """A header is 403 from a peer that proxy_allow_ips does not name, right or wrong; unix peers may send it."""
    assert outcome([header + REST], peer=peer) == (outcome([header + REST]) if allowed else (403,))


@pytest.mark.parametrize("data", [*(header + REST for header in (*ACCEPTED, *MALFORMED)), *PLAIN])
def test_the_outcome_does_not_depend_on_segments(data: bytes) -> None:
    """Cut at any position, or fed byte by byte, the bytes mean the same."""
    expected = outcome([data])
    short = data[:200] + data[-40:]
    for cut in range(len(short) + 1) if len(short) >= len(data) else (1, 12, 16, 28, len(data) - len(REST)):
        assert outcome([data[:cut], data[cut:]]) == expected
    assert outcome([data[at : at + 1] for at in range(len(data))]) == expected


mutations = st.builds(
    lambda data, at, new, dropped: data[: at % len(data)] + new + data[at % len(data) + dropped :],
    st.sampled_from([header + REST for header in (*ACCEPTED, *MALFORMED)] + PLAIN),
    st.integers(0, 200),
    st.binary(max_size=3) | st.sampled_from([b" ", b"\r\n", b"1", b"PROXY "]),
    st.integers(0, 3),
)


@given(
    data=mutations | st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: SIGNATURE + tail),
    cuts=st.lists(st.integers(0, 250), max_size=6),
    mode=st.sampled_from(["v1", "v2", "auto"]),
    peer=st.sampled_from([PEER, STRANGER]),
)
@bounded
def test_any_bytes_in_any_segments(data: bytes, cuts: list[int], mode: str, peer: object) -> None:
    """No bytes make the parser raise anything but ProtocolError, or mean two things in two segmentations."""
    expected = outcome([data], mode, peer)
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    segments = [data[start:end] for start, end in itertools.pairwise(at)]
    assert outcome(segments, mode, peer) == expected
    assert outcome([data[i : i + 1] for i in range(len(data))], mode, peer) == (expected if data else ("incomplete",))


@pytest.mark.parametrize(
    ("data", "decided"),
    [
        (b"G", 1),
        (b"POST", 2),
        (b"PRI * HTTP/2.0", 3),
        (b"\r\nGET", 3),
        (b"\r\n\r\nGET", 5),
        (b"PROXY\t", 6),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", 45),
        (b"PROXY TCP4 x\r\n", 14),
        (b"PROXY TCP4 x\n", 13),
        (b"PROXY " + b"a" * 120, 107),
        (v2(0x21, 0x11, IPV4), 28),
        (v2(0x21, 0x11, IPV4 + TLV), 28 + len(TLV)),
        (v2(0x20, 0x00, TLV), 16 + len(TLV)),
        (v2(0x11, 0x11, b"", 65535), 16),
        (v2(0x21, 0x31, b"", 65535), 16),
        (v2(0x21, 0x11, b"", 11), 16),
    ],
)
def test_the_answer_comes_with_the_byte_that_decides(data: bytes, decided: int) -> None:
    """The parser waits for no byte more than it needs: a request is never kept waiting by a header it has not got."""
    waiting = [outcome([data[:size]]) == ("incomplete",) for size in range(len(data) + 1)]
    assert waiting.index(False, 1) == decided


def test_a_stranger_is_refused_as_soon_as_the_header_shows() -> None:
    """Nothing behind the signature is waited for, or looked at, if the peer may not send a header."""
    assert outcome([b"PROXY "], peer=STRANGER) == (403,)
    assert outcome([SIGNATURE], peer=STRANGER) == (403,)
    assert outcome([b"PROXY"], peer=STRANGER) == outcome([SIGNATURE[:-1]], peer=STRANGER) == ("incomplete",)


def test_the_parser_keeps_no_bytes() -> None:
    """After the header nothing of the request is held for the life of the connection."""
    header = ProxyHeader(configured(proxy_protocol="auto"), PEER)
    assert header.feed(v2(0x21, 0x11, IPV4 + TLV) + REST) == REST
    assert not header.buffer


def test_headers_that_gunicorn_takes_differently() -> None:
    """gunicorn's parser refuses UNKNOWN and the plain UNSPEC; the specification says to take both."""
    for header in (b"PROXY UNKNOWN\r\n", v2(0x21, 0x00, b"")):
        assert outcome([header + REST]) == (REST, True, *NOBODY)
        assert isinstance(oracle({"proxy_protocol": "auto"}, PEER, header + REST), str)


@given(
    data=mutations,
    mode=st.sampled_from(["off", "v1", "v2", "auto"]),
    peer=st.sampled_from([PEER, STRANGER, ""]),
)
@bounded
def test_what_we_accept_gunicorn_accepts(data: bytes, mode: str, peer: object) -> None:
    """A header that names addresses here names the same in gunicorn; one that is forbidden there is so here."""
    assume(len(data) >= 12)  # for fewer bytes gunicorn does not look
    ours = outcome([data], mode, peer)
    theirs = oracle({"proxy_protocol": mode}, peer, data)
    assert (ours == (403,)) == (theirs == "ForbiddenProxyRequest")
    if ours[0] in (400, 403, "incomplete") or not ours[1] or ours[2] is None:
        return
    (client, client_port), (proxy, proxy_port), environ = ours[2:]
    assume(ours[0] == REST)  # gunicorn tells of the header only if the request behind it is good
    assert isinstance(theirs, Request)
    info = theirs.proxy_protocol_info
    assert ipaddress.ip_address(info["client_addr"]) == ipaddress.ip_address(client)
    assert ipaddress.ip_address(info["proxy_addr"]) == ipaddress.ip_address(proxy)
    assert (info["client_port"], info["proxy_port"]) == (client_port, proxy_port)
    assert info["proxy_protocol"] == environ["PROXY_PROTOCOL"]


@given(
    source=st.ip_addresses(),
    destination=st.ip_addresses(),
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
)
@bounded
def test_both_versions_say_the_same(source: Any, destination: Any, ports: tuple[int, int]) -> None:
    """The same connection is announced alike in text and in binary, and as gunicorn reads it."""
    assume(source.version == destination.version)
    text = f"PROXY TCP{source.version} {source} {destination} {ports[0]} {ports[1]}\r\n".encode() + REST
    kind = 0x11 if source.version == 4 else 0x21
    binary = v2(0x21, kind, source.packed + destination.packed + struct.pack("!HH", *ports)) + REST
    assert outcome([text]) == outcome([binary])
    theirs = oracle({"proxy_protocol": "v2"}, PEER, binary)
    assert isinstance(theirs, Request)
    assert outcome([binary])[2] == (
        theirs.proxy_protocol_info["client_addr"],
        theirs.proxy_protocol_info["client_port"],
    )
