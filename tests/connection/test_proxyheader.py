"""The PROXY protocol, with gunicorn's own parser as the oracle where both must agree."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from typing import Any

import pytest
from gunicorn.http.message import Request
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridworker.connection.proxyheader import ProxyHeader
from hybridworker.errors import ProtocolError
from tests.connection.peers import PEER, STRANGER, bounded, configured, oracle

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
