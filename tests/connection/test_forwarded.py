"""Trust, special fields and X-Forwarded-For, with gunicorn's own parser as the oracle where both must agree."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from typing import Any

import pytest
import uvloop
from gunicorn.config import Config
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hybridworker.config.settings import Settings
from hybridworker.connection.forwarded import FieldPolicy, client_from, is_special, seconds_since, trusts
from hybridworker.errors import ProtocolError
from tests.connection.peers import DEFAULTS, PEER, STRANGER, bounded, configured, networks, oracle
from tests.harness import HELLO, application, make_settings

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


# -- X-Request-Start

NOW = 1_764_000_000.0


@pytest.mark.parametrize(
    ("value", "waited"),
    [
        (b"t=1763999990.000", 10.0),
        (b"1763999990", 10.0),
        (b"1763999990000", 10.0),
        (b"t=1763999990000000", 10.0),
        (b"1763996400", 3600.0),
        (b"1763996399", 0.0),
        (b"t=1764000001", 0.0),
        (b"1764000001000", 0.0),
        (b"", 0.0),
        (b"t=", 0.0),
        (b"-10", 0.0),
        (b"1e9", 0.0),
        (b"1763999990, 1763999990", 0.0),
        (b"9" * 18, 0.0),
        ("\u0661".encode(), 0.0),
    ],
)
def test_when_a_request_began(value: bytes, waited: float) -> None:
    """In three units; what is no time, in the future or more than an hour ago says nothing."""
    assert seconds_since(value, NOW) == waited


def test_who_says_when_a_request_began() -> None:
    """A trusted peer, once; and only where somebody asks."""
    settings = make_settings(queue_timeout=5.0)
    assert is_special(b"x-request-start", settings)
    assert not is_special(b"x-request-start", make_settings())
    field = (b"x-request-start", b"1763999990")
    trusted = FieldPolicy(settings, True)
    assert trusted.keeps(b"x-request-start")
    assert trusted.waited([(b"x-forwarded-for", b"192.0.2.1"), field], NOW) == 10.0
    assert trusted.waited([field, field], NOW) == 0.0
    assert trusted.waited([], NOW) == 0.0
    assert FieldPolicy(settings, False).waited([field], NOW) == 0.0


def test_what_was_resolved_before_holds_for_the_same_question_only() -> None:
    """Fields, scheme, client and application each change the answer."""
    policy = FieldPolicy(DEFAULTS, True)
    fields = [(b"x-forwarded-for", b"192.0.2.1")]
    for _ in range(2):
        assert policy.resolve(list(fields), "http", PEER, True) == ("http", ("192.0.2.1", 0))
        assert policy.resolve(list(fields), "http", PEER, False) == ("http", PEER)
        assert policy.resolve(list(fields), "https", PEER, True) == ("https", ("192.0.2.1", 0))
        assert policy.resolve([(b"x-forwarded-for", b"192.0.2.2")], "http", PEER, True) == ("http", ("192.0.2.2", 0))
        assert policy.resolve([], "http", None, True) == ("http", None)
