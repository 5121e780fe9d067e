"""HPACK (RFC 7541): decoding with a memory of header blocks, encoding without a table."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeAlias, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from serving.http2.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from serving.http2.limits import HEADER_BLOCK_BYTES, KNOWN_BLOCK_BYTES, KNOWN_BLOCKS

Fields: TypeAlias = "list[tuple[bytes, bytes]]"
_Meaning = TypeVar("_Meaning")

NO_TABLE: Final = b"\x20"
"""Start of every block sent: a dynamic table of size zero.

The blocks use no table, so they never change; a client that lowers SETTINGS_HEADER_TABLE_SIZE must
be told that its wish is heeded (RFC 7541, section 4.2), and this tells all of them, each time.
"""
_LONG: Final = 127
_INDEXED: Final = 0x80
"""First byte above which it is an index; this very one is the index zero, which is none."""
_INDEXING: Final = 0x20
"""First byte from which on the table is resized or gets a new entry."""
_FIRST_DYNAMIC: Final = len(HeaderTable.STATIC_TABLE) + 1
_ENTRY_OVERHEAD: Final = 32


class _Table(HeaderTable):
    """A dynamic table that counts its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def add(self, name: bytes, value: bytes) -> None:
        self.changes += 1
        super().add(name, value)

    @property
    def maxsize(self) -> int:
        return self._maxsize

    @maxsize.setter
    def maxsize(self, newmax: int) -> None:
        self.changes += 1
        # A property is not inherited in part; this calls the setter of the base.
        HeaderTable.maxsize.fset(self, newmax)  # type: ignore[attr-defined]


class HeaderReader(Generic[_Meaning]):
    """Decodes the header blocks of one connection.

    What a block says depends on its bytes and the dynamic table alone.  So a block that left the
    table as it was means the same again until the table changes: its meaning is remembered by its
    bytes, and everything is forgotten at the next change.  Clients send nearly all their requests
    this way, as indices into the table and literals that are not to be indexed.

    Args:
        interpret: Turns header fields into what is remembered.
    """

    def __init__(self, interpret: Callable[[Fields], _Meaning]) -> None:
        self._interpret = interpret
        self._table = _Table()
        self._decoder = Decoder(max_header_list_size=HEADER_BLOCK_BYTES)
        self._decoder.header_table = self._table
        self.known: dict[bytes, _Meaning] = {}
        """Meaning of blocks as of now.  Look here first, then call `read`."""

    def read(self, block: bytes) -> _Meaning:
        """Return the meaning of ``block``, and remember it if that is right.

        Raises:
            ConnectionFault: It is no header block, or unpacks to more than `HEADER_BLOCK_BYTES`.
        """
        before = self._table.changes
        meaning = self._interpret(self.fields(block))
        if self._table.changes == before and len(block) <= KNOWN_BLOCK_BYTES:
            if len(self.known) >= KNOWN_BLOCKS:
                self.known.clear()
            self.known[block] = meaning
        return meaning

    def fields(self, block: bytes) -> Fields:
        """Return the header fields of ``block``, in their order.

        Raises:
            ConnectionFault: As in `read`.
        """
        plain = self._plain(block)
        if plain is not None:
            return plain
        before = self._table.changes
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "too many header fields") from error
        except HPACKError as error:
            raise ConnectionFault(COMPRESSION_ERROR, "malformed header block") from error
        finally:
            if self._table.changes != before:
                self.known.clear()

    def _plain(self, block: bytes) -> Fields | None:
        """Return the fields of a block of indices and plain literals that are not to be indexed.

        This is how gRPC's C core sends what is new in each call, such as a request's id.  Such a
        block leaves the table as it is.  Anything else, and all that is wrong, is for `Decoder`.
        """
        fields: Fields = []
        entries = self._table.dynamic_entries
        at, end, size = 0, len(block), 0
        try:
            while at < end:
                first = block[at]
                at += 1
                if first > _INDEXED:
                    name, value = _entry(first & 0x7F, entries)
                elif first >= _INDEXING:  # 0x80 too
                    return None
                else:
                    nibble = first & 0x0F
                    if nibble == 0x0F:
                        return None
                    if nibble:
                        name = _entry(nibble, entries)[0]
                    else:
                        stop, at = _extent(block, at)
                        name, at = block[at:stop], stop
                    stop, at = _extent(block, at)
                    value, at = block[at:stop], stop
                size += len(name) + len(value) + _ENTRY_OVERHEAD
                fields.append((name, value))
        except IndexError:
            return None
        return fields if at == end and size <= HEADER_BLOCK_BYTES else None


def _entry(index: int, entries: deque[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """Return a field by an index that is no longer than its prefix, else raise IndexError."""
    if index < _FIRST_DYNAMIC:
        return HeaderTable.STATIC_TABLE[index - 1]
    if index == _LONG:
        raise IndexError
    return entries[index - _FIRST_DYNAMIC]


def _extent(block: bytes, at: int) -> tuple[int, int]:
    """Return where a string without Huffman coding stops and starts, else raise IndexError."""
    size = block[at]
    at += 1
    if size < _LONG:
        return at + size, at
    low, high = block[at], block[at + 1]
    if size > _LONG or low < 0x80 or high >= 0x80:
        raise IndexError  # Huffman coding, or a length of one or of more than two further bytes
    return at + 2 + _LONG + (low & 0x7F) + (high << 7), at + 2


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return a header block of literals that no table remembers, but for `NO_TABLE` first.

    Args:
        fields: Names in lower case and values, ASCII.
    """
    parts = [NO_TABLE]
    for name, value in fields:
        parts += (b"\x00", _text(name), _text(value))
    return b"".join(parts)


def _text(text: str) -> bytes:
    """Return a string literal (RFC 7541, section 5.2) without Huffman coding."""
    content = text.encode("ascii")
    size = len(content)
    if size < _LONG:
        return bytes((size,)) + content
    prefix = bytearray((_LONG,))
    size -= _LONG
    while size > _LONG:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + content
