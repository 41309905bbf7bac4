"""
A field section as bytes: HPACK (RFC 7541).

* :class:`Decoder` - the field sections of one peer, with the dynamic table that they share
* :func:`encode_field` - one field of a response. It uses no dynamic table. So it depends on no connection, and
  its result may be cached

Pure: no transport, no loop. The ``hpack`` package, which comes with ``h2``, lends its tables of the Huffman code and
of the static fields, which are data. Its own codec takes 10 times as long.

Invariant: every section is decoded to its end, also one that is too large, because only then the table agrees with
that of the peer.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable

from ..asgi import Headers
from ..errors import HPACKError, HTTP2Error
from .wire import ENHANCE_YOUR_CALM

#: How many blocks of a connection are remembered, and the size of the largest.
KNOWN, KNOWN_SIZE = 8, 128

#: SETTINGS_HEADER_TABLE_SIZE while nothing else is announced (RFC 9113 6.5.2), as this worker does not.
TABLE_SIZE = 4096

#: What a field counts beside its bytes, in the table and in a list (RFC 7541 4.1, RFC 9113 6.5.2).
OVERHEAD = 32

#: A section that decodes to more than so many times the limit is a bomb, and no mistake.
BOMB = 4

#: To be sent before the next field when the peer's table gets smaller (RFC 7541 4.2): we use none of it.
SIZE_UPDATE = b"\x20"

_Known: TypeAlias = dict[bytes, tuple[Headers, int]]

#: A field in a table, and its size (RFC 7541 4.1), which is asked for whenever the field is used.
_Entry = tuple[tuple[bytes, bytes], int]

#: The static table (RFC 7541 A), from 1.
_STATIC: tuple[_Entry, ...] = tuple(
    ((name, value), len(name) + len(value) + OVERHEAD) for name, value in ((b"", b""), *HeaderTable.STATIC_TABLE)
)
_DYNAMIC = len(_STATIC)  #: the index of the newest field of the dynamic table
_FIRST_DYNAMIC = 0x80 | _DYNAMIC  #: the byte that names it

# -- Huffman (RFC 7541 5.2 and B)

_EOS = 256

_Node = list["int | None"]


def _make_tree() -> list[_Node]:
    """The code as a binary tree: a node is its two branches, the numbers of other nodes or ``~symbol``."""
    tree: list[_Node] = [[None, None]]
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = 0
        for place in range(length - 1, 0, -1):
            bit = code >> place & 1
            following = tree[node][bit]
            if following is None:
                following = len(tree)
                tree.append([None, None])
                tree[node][bit] = following
            node = following
        tree[node][code & 1] = ~symbol
    return tree


def _make_ends(tree: list[_Node]) -> frozenset[int]:
    """The nodes in which a string may end: behind a symbol, or up to seven bits into EOS (RFC 7541 5.2)."""
    ends, node = {0}, 0
    for _ in range(7):
        following = tree[node][1]
        assert following is not None and following > 0
        node = following
        ends.add(node)
    return frozenset(ends)


#: What a byte leads to: the steps from there, the symbols that end in it, and the node.
_Step: TypeAlias = "tuple[_Row, bytes, int]"
#: The steps of the 256 bytes at one node of the tree, made when they are first needed.
_Row: TypeAlias = "list[_Step | None]"

_tree = _make_tree()
_ends = _make_ends(_tree)
_rows: list[_Row] = [[None] * 256 for _ in _tree]  #: by node

#: Where EOS leads, and no byte leads out of.
_BROKEN: _Row = []
_BROKEN += [(_BROKEN, b"", -1)] * 256


def _make_steps(data: bytes) -> None:
    """Make the steps of this string that were not made before."""
    node = 0
    for byte in data:
        if node < 0:
            break
        step = _rows[node][byte]
        if step is None:
            step = _rows[node][byte] = _step(node, byte)
        node = step[2]


def _step(node: int, byte: int) -> _Step:
    symbols = bytearray()
    for place in range(7, -1, -1):
        following = _tree[node][byte >> place & 1]
        assert following is not None
        node = following
        if node < 0:
            if node == ~_EOS:
                return _BROKEN, b"", -1
            symbols.append(~node)
            node = 0
    return _rows[node], bytes(symbols), node


def huffman_decode(data: bytes) -> bytes:
    """The text of a Huffman-coded string. Raises :class:`~.errors.HPACKError`."""
    while True:
        step: Any = (_rows[0], b"", 0)
        try:
            text = b"".join([(step := step[0][byte])[1] for byte in data])
        except TypeError:  # a step that is not there
            _make_steps(data)
            continue
        if step[2] not in _ends:
            wrong = "EOS in" if step[2] < 0 else "the padding of"
            raise HPACKError(f"{wrong} a Huffman-coded string (RFC 7541 5.2)")
        return text


def huffman_encode(text: bytes) -> bytes:
    """``text`` Huffman-coded."""
    bits = length = 0
    for byte in text:
        size = REQUEST_CODES_LENGTH[byte]
        bits = bits << size | REQUEST_CODES[byte]
        length += size
    padding = -length & 7
    return (bits << padding | (1 << padding) - 1).to_bytes((length + padding) // 8, "big")


# -- decoding


class Decoder:
    """
    The field sections of one peer, in the order in which they came.

    ``limit`` bounds the size of a decoded section: name, value and 32 for each field (RFC 9113 6.5.2).
    ``size`` is the size of the section that was decoded last, also of what was dropped.

    A block that leaves the table as it was means the same as long as the table stays so. A client that repeats a
    request repeats its block: such blocks are remembered, and their sections are the same object each time. One that
    asks for another path repeats what follows it.
    """

    __slots__ = ("capacity", "changes", "held", "known", "limit", "size", "table", "tails")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.table: list[_Entry] = []  #: the dynamic table, the newest field LAST
        self.held = 0  #: the size of the table (RFC 7541 4.1)
        self.capacity = TABLE_SIZE  #: the most that the peer lets it grow to
        self.size = 0
        self.changes = 0  #: how often the table was changed
        self.known: _Known = {}  #: block -> its fields and their size, for this table
        self.tails: _Known = {}  #: the same for what stands behind the last field that is no part of a table

    @property
    def oversized(self) -> bool:
        """Whether the last section was larger than the limit, and its rest was dropped."""
        return self.size > self.limit

    def decode(self, block: bytes) -> Headers:
        """
        The fields of a section, in order: those within the limit.

        Raises :class:`~.errors.HPACKError`, and :class:`~.errors.HTTP2Error` for a bomb. After either nothing more can
        be decoded.
        """
        known = self.known.get(block)
        if known is not None:
            fields, self.size = known
            return fields
        fields = []
        at, end, size, limit = 0, len(block), 0, self.limit
        table, changes, behind = self.table, self.changes, (0, 0, 0)
        try:
            if end and block[0] & 0xE0 == 0x20:
                at = self._resize(block)
            while at < end:
                first = block[at]
                at += 1
                if first > 0x80:  # 6.1: a field of a table
                    if first < _FIRST_DYNAMIC:
                        field, need = _STATIC[first & 0x7F]
                    elif first < 0xFF:
                        field, need = table[_FIRST_DYNAMIC - 1 - first]
                    else:
                        index, at = _integer(block, at, 0x7F)
                        field, need = table[_DYNAMIC - 1 - index]
                elif first == 0x80:
                    raise HPACKError("index 0 (RFC 7541 6.1)")
                else:
                    field, need, at = self._literal(block, at, first)
                size += need
                if size <= limit:
                    fields.append(field)
                elif size > BOMB * limit:
                    raise HTTP2Error(ENHANCE_YOUR_CALM, "a field section of several times the limit")
                if first < 0x20 and end - at <= KNOWN_SIZE:  # for most clients that is :path
                    tail = self.tails.get(block[at:])
                    if tail is not None and size + tail[1] <= limit:
                        fields += tail[0]
                        size += tail[1]
                        break
                    behind = at, size, len(fields)
        except IndexError:
            raise HPACKError("an index beyond the table, or a truncated section (RFC 7541 2.3.3)") from None
        self.size = size
        if changes != self.changes:
            self.known.clear()
            self.tails.clear()
        elif size <= limit:
            if end <= KNOWN_SIZE:
                _keep(self.known, block, fields, size)
            start, before, count = behind
            if start < at == end and start:
                _keep(self.tails, block[start:], fields[count:], size - before)
        return fields

    def _literal(self, block: bytes, at: int, first: int) -> tuple[tuple[bytes, bytes], int, int]:
        """
        A field that is given by its value, and may join the table (RFC 7541 6.2), its size, and where it ends.

        ``at`` is behind ``first``.
        """
        if first > 0x3F:
            index, mask = first & 0x3F, 0x3F
        elif first < 0x20:  # without indexing, or never indexed, which matters to who passes fields on
            index, mask = first & 0x0F, 0x0F
        else:
            raise HPACKError("a table size update behind a field (RFC 7541 4.2)")
        if index == mask:
            index, at = _integer(block, at, mask)
        if not index:
            name, at = _string(block, at)
        elif index < _DYNAMIC:
            name = _STATIC[index][0][0]
        else:
            name = self.table[_DYNAMIC - 1 - index][0][0]
        value, at = _string(block, at)
        field = name, value
        need = len(name) + len(value) + OVERHEAD
        if mask == 0x3F:
            self.changes += 1
            if self.held + need > self.capacity:
                self._evict(need)
            if need <= self.capacity:  # a larger one empties the table, and is no error (RFC 7541 4.4)
                self.table.append((field, need))
                self.held += need
        return field, need, at

    def _resize(self, block: bytes) -> int:
        """Obey the size updates at the start of a section (RFC 7541 4.2, 6.3); returns where the fields begin."""
        at = updates = 0
        while at < len(block) and block[at] & 0xE0 == 0x20:
            updates += 1
            capacity = block[at] & 0x1F
            at += 1
            if capacity == 0x1F:
                capacity, at = _integer(block, at, capacity)
            if capacity > TABLE_SIZE or updates > 2:
                raise HPACKError("a table size update beyond SETTINGS, or the third (RFC 7541 4.2)")
            self.capacity = capacity
            self.changes += 1
            self._evict(0)
        return at

    def _evict(self, need: int) -> None:
        """Make room for a field of the size ``need`` (RFC 7541 4.4)."""
        table, room, count = self.table, self.capacity - need, 0
        for _, size in table:
            if self.held <= room:
                break
            self.held -= size
            count += 1
        del table[:count]


def _keep(known: _Known, block: bytes, fields: Headers, size: int) -> None:
    if len(known) >= KNOWN:
        known.clear()
    known[block] = fields, size


def _integer(block: bytes, at: int, number: int) -> tuple[int, int]:
    """What follows a prefix that is full, and where it ends (RFC 7541 5.1): five bytes at most."""
    for shift in range(0, 35, 7):
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise HPACKError("an integer of more than five bytes (RFC 7541 5.1)")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string literal and where it ends (RFC 7541 5.2)."""
    first = block[at]
    at += 1
    length = first & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, length)
    stop = at + length
    text = block[at:stop]
    if len(text) != length:
        raise HPACKError("a truncated string (RFC 7541 5.2)")
    return (huffman_decode(text) if first > 0x7F else text), stop


# -- encoding

_FIELDS = {field: index for index, (field, _) in enumerate(_STATIC) if index}
_NAMES = {name: index for (name, _), index in reversed(_FIELDS.items())}


def encode_field(name: bytes, value: bytes) -> bytes:
    """The representation of one field, without indexing (RFC 7541 6.1 and 6.2.2). ``name`` is in lower case."""
    index = _FIELDS.get((name, value))
    if index is not None:
        return bytes((0x80 | index,))
    index = _NAMES.get(name)
    if index is not None:
        return _prefixed(index, 4, 0) + _text(value)
    return b"\0" + _text(name) + _text(value)


def _prefixed(number: int, bits: int, first: int) -> bytes:
    """An integer (RFC 7541 5.1) behind the bits ``first``."""
    mask = (1 << bits) - 1
    if number < mask:
        return bytes((first | number,))
    out = bytearray((first | mask,))
    number -= mask
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(text: bytes) -> bytes:
    """A string literal: coded when that is shorter, and the text not so long that it takes more than it saves."""
    if len(text) <= 128:
        coded = huffman_encode(text)
        if len(coded) < len(text):
            return _prefixed(len(coded), 7, 0x80) + coded
    return _prefixed(len(text), 7, 0) + text
