"""Packets of uwsgi: where they end, and what is none."""

from __future__ import annotations

import pytest

from hybridworker.errors import ProtocolError
from hybridworker.uwsgi.packet import VARIABLES_MAX, packet_size, variables
from tests.harness import make_settings
from tests.uwsgi.packets import block, framed

SETTINGS = make_settings(protocol="uwsgi")


def test_the_size_of_a_packet() -> None:
    """Known when its four bytes have come; modifier2 says nothing."""
    assert [packet_size(b"\0\x05\x01\x09"[:size], SETTINGS) for size in range(4)] == [None] * 4
    assert packet_size(b"\0\x05\x01\x09", SETTINGS) == 4 + 0x105
    assert packet_size(bytearray(b"\0\0\0\0more"), SETTINGS) == 4


@pytest.mark.parametrize(
    ("header", "status", "reason"),
    [
        (b"\x05\0\0\0", 501, "a uwsgi packet with modifier1 5, which is not served"),
        (b"\xff\xff\xff\xff", 501, "a uwsgi packet with modifier1 255, which is not served"),
        (b"GET ", 400, "HTTP, and protocol is uwsgi"),
        (b"PRI ", 400, "HTTP, and protocol is uwsgi"),
        (b"\x16\x03\x01\x02", 400, "a TLS handshake on a port without certfile"),
        (b"PROX", 400, "a PROXY header, and proxy_protocol is off"),
        (b"\r\n\r\n", 400, "a PROXY header, and proxy_protocol is off"),
    ],
)
def test_what_is_no_request(header: bytes, status: int, reason: str) -> None:
    """It is named, as far as four bytes tell, and nothing is said before they have come."""
    assert packet_size(header[:3], SETTINGS) is None
    with pytest.raises(ProtocolError, match=reason) as caught:
        packet_size(header, SETTINGS)
    assert caught.value.status == status


def test_variables_keep_their_order_and_their_repeats() -> None:
    """Empty names and values are strings like others."""
    pairs = [("A", "1"), ("", ""), ("A", "2"), ("B", "x" * 70)]
    assert variables(block(pairs)) == [(name.encode(), value.encode()) for name, value in pairs]
    assert variables(b"") == []


def test_a_cut_packet() -> None:
    """Wherever it is cut amid a variable, that is an error; at the end of one it is a shorter packet."""
    data = block([("NAME", "value"), ("OTHER", "another")])
    whole = {0, len(block([("NAME", "value")])), len(data)}
    for size in range(len(data) + 1):
        if size in whole:
            variables(data[:size])
        else:
            with pytest.raises(ProtocolError, match="does not end within its uwsgi packet"):
                variables(data[:size])


def test_the_number_of_variables_has_a_limit() -> None:
    """As many as gunicorn takes."""
    assert len(variables(block([("A", "")] * VARIABLES_MAX))) == VARIABLES_MAX
    with pytest.raises(ProtocolError, match="more than 1000 variables") as caught:
        variables(block([("A", "")] * (VARIABLES_MAX + 1)))
    assert caught.value.status == 431


def test_the_largest_packet() -> None:
    """Its size has sixteen bits."""
    data = framed(block([("A", "x" * (65535 - 5))]))
    assert packet_size(data, SETTINGS) == len(data) == 4 + 65535
    assert len(variables(data[4:])[0][1]) == 65530
