"""``hpack.py``: field sections as bytes (RFC 7541), with the ``hpack`` package as the oracle."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("h2", reason="the extra is not installed")

import hpack as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridworker.asgi import Headers
from hybridworker.errors import HPACKError, HTTP2Error
from hybridworker.http2 import hpack
from hybridworker.http2.hpack import OVERHEAD, TABLE_SIZE, Decoder, encode_field, huffman_decode, huffman_encode
from tests.processor import at_most

LIMIT = 65536


def decoder(limit: int = LIMIT, capacity: int = TABLE_SIZE) -> Decoder:
    made = Decoder(limit)
    made.capacity = capacity
    return made


def contents(made: Decoder) -> Headers:
    """The dynamic table as RFC 7541 prints it, the newest field first."""
    return [field for field, _ in reversed(made.table)]


def integer(number: int, prefix: int, first: int = 0) -> bytes:
    """An integer, by another algorithm than the one under test (RFC 7541 5.1)."""
    full = 2**prefix - 1
    if number < full:
        return bytes([first | number])
    number -= full
    digits = [first | full]
    while number >= 128:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def literal(name: bytes, value: bytes, first: int = 0x40) -> bytes:
    """A field with a new name, not Huffman-coded; the default joins the table (RFC 7541 6.2.1)."""
    return bytes([first]) + integer(len(name), 7) + name + integer(len(value), 7) + value


# -- RFC 7541 appendix C


@pytest.mark.parametrize(
    ("number", "prefix", "coded"), [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a")], ids=["C.1.1", "C.1.2", "C.1.3"]
)
def test_rfc7541_c1_integers(number: int, prefix: int, coded: str) -> None:
    """Both directions."""
    data = bytes.fromhex(coded)
    assert hpack._prefixed(number, prefix, 0) == data
    if len(data) > 1:
        assert hpack._integer(data, 1, 2**prefix - 1) == (number, len(data))


@pytest.mark.parametrize(
    ("coded", "field", "table"),
    [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", (b"custom-key", b"custom-header"), True),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),
        ("100870617373776f726406736563726574", (b"password", b"secret"), False),
        ("82", (b":method", b"GET"), False),
    ],
    ids=["C.2.1", "C.2.2", "C.2.3", "C.2.4"],
)
def test_rfc7541_c2_fields(coded: str, field: tuple[bytes, bytes], table: bool) -> None:
    """The four representations."""
    made = decoder()
    assert made.decode(bytes.fromhex(coded)) == [field]
    assert contents(made) == ([field] if table else [])
    assert made.held == (55 if table else 0)


GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
GET_2 = [*GET, (b"cache-control", b"no-cache")]
GET_3 = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
REQUEST_TABLES = [
    ([(b":authority", b"www.example.com")], 57),
    ([(b"cache-control", b"no-cache"), (b":authority", b"www.example.com")], 110),
    ([(b"custom-key", b"custom-value"), (b"cache-control", b"no-cache"), (b":authority", b"www.example.com")], 164),
]

DATE_1, DATE_2 = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
LOCATION = (b"location", b"https://www.example.com")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
PRIVATE, FOUND, SWITCH = (b"cache-control", b"private"), (b":status", b"302"), (b":status", b"307")
GZIP = (b"content-encoding", b"gzip")
RESPONSES = [
    [FOUND, PRIVATE, (b"date", DATE_1), LOCATION],
    [SWITCH, PRIVATE, (b"date", DATE_1), LOCATION],
    [(b":status", b"200"), PRIVATE, (b"date", DATE_2), LOCATION, GZIP, COOKIE],
]
RESPONSE_TABLES = [
    ([LOCATION, (b"date", DATE_1), PRIVATE, FOUND], 222),
    ([SWITCH, LOCATION, (b"date", DATE_1), PRIVATE], 222),
    ([COOKIE, GZIP, (b"date", DATE_2)], 215),
]

SEQUENCES = {
    "C.3": (
        TABLE_SIZE,
        [GET, GET_2, GET_3],
        REQUEST_TABLES,
        [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
    ),
    "C.4": (
        TABLE_SIZE,
        [GET, GET_2, GET_3],
        REQUEST_TABLES,
        [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    ),
    "C.5": (
        256,
        RESPONSES,
        RESPONSE_TABLES,
        [
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            "4803333037c1c0bf",
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d"
            "4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b20766572"
            "73696f6e3d31",
        ],
    ),
    "C.6": (
        256,
        RESPONSES,
        RESPONSE_TABLES,
        [
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdf"
            "cd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        ],
    ),
}


@pytest.mark.parametrize("section", SEQUENCES)
def test_rfc7541_c3_to_c6_sequences(section: str) -> None:
    """Three messages on one connection each, with the dynamic table and its size after each of them."""
    capacity, messages, tables, blocks = SEQUENCES[section]
    made = decoder(capacity=capacity)
    for fields, (table, size), coded in zip(messages, tables, blocks, strict=True):
        assert made.decode(bytes.fromhex(coded)) == fields
        assert (contents(made), made.held) == (table, size)


@pytest.mark.parametrize("text", [b"www.example.com", b"no-cache", b"custom-key", b"custom-value", b"302", b"private"])
def test_rfc7541_c4_and_c6_huffman(text: bytes) -> None:
    """The strings of the examples in both directions."""
    coded = {
        b"www.example.com": "f1e3c2e5f23a6ba0ab90f4ff",
        b"no-cache": "a8eb10649cbf",
        b"custom-key": "25a849e95ba97d7f",
        b"custom-value": "25a849e95bb8e8b4bf",
        b"302": "6402",
        b"private": "aec3771a4b",
    }[text]
    assert huffman_encode(text).hex() == coded
    assert huffman_decode(bytes.fromhex(coded)) == text


# -- against the oracle

NAMES = st.one_of(
    st.sampled_from([name for (name, _), _ in hpack._STATIC[1:]]),
    st.binary(min_size=1, max_size=20),
)
VALUES = st.one_of(st.binary(max_size=60), st.text("abcdefghijklmnopqrstuvwxyz0123456789-/=;. ").map(str.encode))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@settings(deadline=None, max_examples=200, derandomize=True, database=None)
@given(st.lists(st.tuples(FIELDS, st.booleans(), st.none() | st.integers(0, TABLE_SIZE), st.booleans()), max_size=8))
def test_what_the_oracle_encodes_is_decoded(sections: list[tuple[Headers, bool, int | None, bool]]) -> None:
    """Whole connections: sections with and without Huffman, sensitive fields, table sizes that change."""
    theirs, ours = oracle.Encoder(), decoder()
    for fields, huffman, size, sensitive in sections:
        if size is not None:
            theirs.header_table_size = size
        block = theirs.encode([(*field, sensitive) for field in fields], huffman=huffman)
        assert ours.decode(block) == fields
        assert ours.size == sum(len(name) + len(value) + OVERHEAD for name, value in fields)
        if fields or size is not None:
            assert contents(ours) == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(FIELDS)
def test_what_is_encoded_the_oracle_decodes(fields: Headers) -> None:
    """And nothing of it enters a table, so that its decoder needs none."""
    theirs = oracle.Decoder()
    assert theirs.decode(b"".join(encode_field(*field) for field in fields), raw=True) == fields
    assert not theirs.header_table.dynamic_entries


@settings(deadline=None, max_examples=500, derandomize=True, database=None)
@given(st.binary(max_size=200))
def test_noise_is_an_error_for_both_or_for_none(block: bytes) -> None:
    """Random bytes: the same fields or an error, and no other exception."""
    theirs = oracle.Decoder(max_header_list_size=LIMIT)
    try:
        expected: Headers | None = [(bytes(name), bytes(value)) for name, value in theirs.decode(block, raw=True)]
    except oracle.HPACKError:
        expected = None
    try:
        fields: Headers | None = decoder().decode(block)
    except (HPACKError, HTTP2Error):
        fields = None
    if expected is not None and fields is None:  # what only we refuse: a third size update, integers without end
        assert block[0] & 0xE0 == 0x20 or b"\xff" in block or b"\x80" in block
    else:
        assert fields == expected


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.binary(max_size=100))
def test_huffman_there_and_back(text: bytes) -> None:
    """As long as the oracle's, and the same when it comes back, byte by byte or with 14,000 steps known."""
    coded = huffman_encode(text)
    encoder = oracle.huffman.HuffmanEncoder(
        oracle.huffman_constants.REQUEST_CODES, oracle.huffman_constants.REQUEST_CODES_LENGTH
    )
    assert coded == encoder.encode(text)
    assert huffman_decode(coded) == text


@settings(deadline=None, max_examples=500, derandomize=True, database=None)
@given(st.binary(max_size=30))
def test_huffman_noise(coded: bytes) -> None:
    """What the oracle refuses is refused: EOS, padding of 8 bits or of zeros (RFC 7541 5.2)."""
    try:
        expected: bytes | None = oracle.huffman_table.decode_huffman(coded)
    except oracle.HPACKDecodingError:
        expected = None
    try:
        text: bytes | None = huffman_decode(coded)
    except HPACKError:
        text = None
    assert text == expected


# -- rule by rule


@pytest.mark.parametrize("coded", [b"\x80", b"\xff\x80\x00", b"\xbe", b"\x7f\x20\x01a"], ids=bytes.hex)
def test_rfc7541_2_3_3_an_index_beyond_the_tables(coded: bytes) -> None:
    """Index 0, and those of an empty dynamic table."""
    with pytest.raises(HPACKError):
        decoder().decode(coded)


@pytest.mark.parametrize("coded", [b"\xff\x80\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\xff\xff\x01"], ids=bytes.hex)
def test_rfc7541_5_1_an_integer_without_end(coded: bytes) -> None:
    """More than five bytes are refused, zeros included."""
    with pytest.raises(HPACKError, match=r"5\.1"):
        decoder().decode(coded)


def test_rfc7541_5_1_an_integer_with_zeros() -> None:
    """Within five bytes they are legal."""
    assert decoder().decode(b"\x00\x01a\x7f\x81\x00" + b"v" * 128) == [(b"a", b"v" * 128)]


@pytest.mark.parametrize("block", [literal(b"abc", b"defg"), b"\x82\x40\x01a\x85\xf1\xe3\xc2\xe5\xf2"], ids=bytes.hex)
def test_rfc7541_5_2_a_section_that_is_cut(block: bytes) -> None:
    """At every byte but the border of a field: no field, no exception of another kind."""
    for size in range(1, len(block)):
        if block[:size] == b"\x82":
            continue
        with pytest.raises(HPACKError):
            decoder().decode(block[:size])


@pytest.mark.parametrize(
    "coded",
    [b"\xff\xff\xff\xff", b"\xff", b"\x1f\xff", b"\x00", b"\x1e"],
    ids=["EOS", "eight bits", "a symbol and eight", "zeros", "a zero"],
)
def test_rfc7541_5_2_huffman_padding(coded: bytes) -> None:
    """At most seven bits of EOS."""
    with pytest.raises(HPACKError, match=r"5\.2"):
        decoder().decode(b"\x00\x01a" + integer(len(coded), 7, 0x80) + coded)


def test_rfc7541_4_2_a_size_update_comes_first() -> None:
    """Behind a field it is an error, before it two are legal."""
    assert decoder().decode(b"\x20\x3f\xe1\x1f\x82") == [(b":method", b"GET")]
    with pytest.raises(HPACKError, match=r"4\.2"):
        decoder().decode(b"\x82\x20")
    with pytest.raises(HPACKError, match=r"4\.2"):
        decoder().decode(b"\x20\x20\x20\x82")


def test_rfc7541_6_3_a_size_beyond_settings() -> None:
    """4,096 are announced, as the default."""
    assert decoder().decode(integer(4096, 5, 0x20)) == []
    with pytest.raises(HPACKError, match=r"4\.2"):
        decoder().decode(integer(4097, 5, 0x20))


def test_rfc7541_4_3_a_smaller_table_evicts() -> None:
    """The oldest fields go; with 0 all of them."""
    made = decoder()
    made.decode(literal(b"a", b"1") + literal(b"b", b"2"))
    assert made.held == 68
    made.decode(integer(34, 5, 0x20))
    assert (contents(made), made.held) == ([(b"b", b"2")], 34)
    made.decode(b"\x20")
    assert (contents(made), made.held) == ([], 0)
    made.decode(literal(b"c", b"3"))
    assert made.held == 0


def test_rfc7541_4_4_a_field_larger_than_the_table() -> None:
    """It empties the table, and is no error."""
    made = decoder()
    made.decode(literal(b"a", b"1"))
    big = (b"b", bytes(TABLE_SIZE))
    assert made.decode(literal(*big)) == [big]
    assert (contents(made), made.held) == ([], 0)


def test_rfc7541_4_4_a_name_that_is_evicted_by_its_own_field() -> None:
    """The name is read before its entry goes."""
    made = decoder(capacity=100)
    made.decode(literal(b"name", b"1" * 60))
    assert made.decode(b"\x7e\x3c" + b"2" * 60) == [(b"name", b"2" * 60)]
    assert contents(made) == [(b"name", b"2" * 60)]


def test_rfc9113_6_5_2_a_list_beyond_the_limit_keeps_the_table_right() -> None:
    """What is beyond the limit is decoded and dropped: the next section of the peer finds its fields."""
    theirs, ours = oracle.Encoder(), decoder(limit=200)
    long = [(b"a%d" % number, b"v" * 40) for number in range(8)]
    fields = ours.decode(theirs.encode(long))
    assert ours.oversized
    assert fields == long[: len(fields)]
    assert 0 < len(fields) < len(long)
    assert ours.size == sum(len(name) + len(value) + OVERHEAD for name, value in long)
    assert ours.decode(theirs.encode([(b"a7", b"v" * 40)])) == [(b"a7", b"v" * 40)]
    assert not ours.oversized


def test_a_field_beyond_the_limit_ends_the_list() -> None:
    """A short one behind it is not let in: the list is what it would have been without the rest."""
    ours = decoder(limit=100)
    fields = ours.decode(literal(b"a", b"1", 0) + literal(b"b", b"2" * 99, 0) + literal(b"c", b"3", 0))
    assert fields == [(b"a", b"1")]
    assert ours.oversized


def test_a_bomb_ends_the_connection() -> None:
    """4 KB in the table, named 16,000 times in one block: not more than four times the limit is decoded."""
    made = decoder()
    made.decode(literal(b"a", b"b" * 4000))
    with at_most(0.05), pytest.raises(HTTP2Error, match="several times the limit") as caught:
        made.decode(b"\xbe" * 16384)
    assert caught.value.code == 11


def test_what_follows_another_path_is_remembered() -> None:
    """As ``nghttp2`` writes it: a new path, which joins no table, then the fields of the table as before."""
    made = decoder()
    made.decode(literal(b"x-a", b"1") + literal(b"x-b", b"2"))
    for path in (b"/1", b"/2", b"/3"):
        block = b"\x82" + literal(b":path", path, 0) + b"\x86\xbf\xbe"
        assert made.decode(block) == [
            (b":method", b"GET"), (b":path", path), (b":scheme", b"http"), (b"x-a", b"1"), (b"x-b", b"2"),
        ]  # fmt: skip
        assert made.size == 42 + 37 + len(path) + 43 + 36 + 36
        assert list(made.tails) == [b"\x86\xbf\xbe"]
    made.decode(literal(b"x-c", b"3"))  # now the same bytes name others
    assert made.decode(b"\x82" + literal(b":path", b"/4", 0) + b"\x86\xbf\xbe")[3:] == [(b"x-b", b"2"), (b"x-c", b"3")]


def test_what_is_remembered_exceeds_no_limit() -> None:
    """A tail that was within the limit is cut behind a longer path, as if it had not been remembered."""
    made = decoder(limit=150)
    tail = b"\x82\x86"
    assert len(made.decode(literal(b":path", b"/", 0) + tail)) == 3
    assert tail in made.tails
    assert made.decode(literal(b":path", b"/" * 60, 0) + tail) == [(b":path", b"/" * 60), (b":method", b"GET")]
    assert made.oversized
    assert made.size == 97 + 42 + 43


def test_what_is_remembered_of_a_table_is_bounded() -> None:
    """A client cannot fill memory with blocks, nor have each end of a long one looked up."""
    made = decoder(limit=1_000_000)
    made.decode(literal(b"x", b"y"))
    for number in range(200):
        made.decode(literal(b":path", b"/%d" % number, 0) + b"\xbe" * (number + 1))
    assert len(made.tails) <= hpack.KNOWN
    assert max(map(len, made.tails)) <= hpack.KNOWN_SIZE
    with at_most(0.2):
        made.decode(literal(b"", b"", 0) * 30_000 + b"\x82")


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([(b":method", b"GET"), (b"x-a", b"1"), (b"x-b", b"2")]), max_size=6),
            st.sampled_from([b"/", b"/a", b"/bb"]),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_what_is_remembered_agrees_with_the_oracle(requests: list[tuple[Headers, bytes, bool]]) -> None:
    """Any row of sections, with paths that are indexed or not."""
    theirs, ours, second = oracle.Encoder(), decoder(limit=300), oracle.Decoder()
    for fields, path, sensitive in requests:
        block = theirs.encode([(b":scheme", b"http", False), (b":path", path, sensitive), *fields])
        expected = second.decode(block, raw=True)
        size = 0
        kept = []
        for name, value in expected:
            size += len(name) + len(value) + OVERHEAD
            if size <= 300:
                kept.append((bytes(name), bytes(value)))
        assert ours.decode(block) == kept
        assert ours.size == size


def test_the_steps_of_huffman_are_bounded() -> None:
    """Whatever is decoded: 257 states and 256 bytes."""
    generator = random.Random(7541)
    for _ in range(2000):
        text = generator.randbytes(30)
        assert huffman_decode(huffman_encode(text)) == text
    assert len(hpack._rows) == len(hpack._tree) == 256
    assert {len(row) for row in hpack._rows} == {256}


# -- encoding


@pytest.mark.parametrize(
    ("name", "value", "coded"),
    [
        (b":status", b"200", "88"),
        (b":status", b"201", "08" + "82" + "1003"),
        (b"content-type", b"\x00", "0f10" + "0100"),
        (b"x", b"", "00" + "0178" + "00"),
    ],
)
def test_a_field_is_encoded_without_indexing(name: bytes, value: bytes, coded: str) -> None:
    """An index, a name with an index, a new name; Huffman only where it is shorter (RFC 7541 6.1, 6.2.2)."""
    assert encode_field(name, value).hex() == coded


def test_a_long_value_is_sent_as_it_is() -> None:
    """Coding takes longer than linear time, and saves little: a cookie of 4 KB, say."""
    assert encode_field(b"x", b"a" * 300).endswith(integer(300, 7) + b"a" * 300)
