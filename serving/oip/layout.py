"""How the rows of one vocabulary lie in a BYTES tensor, and the quick ways between both.

In a raw BYTES tensor each element follows its length, four little-endian bytes.  All tokens of a
field are equally long, so a row has a fixed size, and a token sits at a fixed place in it.
"""

from __future__ import annotations

import struct
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem

import numpy as np

from cipherscore.tokens import HEADER_LENGTH, to_text
from cipherscore.vocabulary import Vocabulary

PREFIX = struct.Struct("<I")
"""Length of a BYTES element."""

_KEY_BYTES = 8
_BLOCK_ROWS = 512
"""Rows compared at a time: what one block needs stays in the processor's cache."""

_FEW = 24
"""Rows up to which dictionary look-ups beat numpy's cost per call."""


@dataclass(frozen=True)
class _Column:
    """One field.  A record is a token after its length.

    Attributes:
        name: Name of the field in the record dtype.
        key: Where in a row the eight bytes of a token lie that tell the vocabulary's tokens apart:
            they are from its synthetic IV.
        keys: Those bytes of all tokens as numbers, sorted, uint64 [tokens].
        order: Vocabulary index of each of ``keys``, int32 [tokens].
        records: All records in vocabulary order, void [tokens].
    """

    name: str
    key: int
    keys: np.ndarray
    order: np.ndarray
    records: np.ndarray


class Layout:
    """The records of one vocabulary.

    Args:
        vocabulary: It; not kept.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        records = [
            [PREFIX.pack(len(token)) + token for token in column]
            for column in vocabulary.tokens.values()
        ]
        self._fields = len(records)
        self.sizes = np.array(vocabulary.sizes)
        """Tokens of each field, int [fields]."""
        self._ranges = tuple(map(range, vocabulary.sizes))
        self._integers = struct.Struct(f"<{len(records)}i")
        self.known: Mapping[str, Mapping[bytes | str, int]] = {
            field: {
                written: index
                for index, token in enumerate(column)
                for written in (token, to_text(token))
            }
            for field, column in vocabulary.tokens.items()
        }
        """Field name to index of a token, as bytes or text."""
        self._packed: tuple[Mapping[bytes, bytes], ...] = tuple(
            {record: index.to_bytes(4, "little") for index, record in enumerate(column)}
            for column in records
        )
        widths = [len(column[0]) for column in records]
        even = all(
            len(record) == width
            for column, width in zip(records, widths, strict=True)
            for record in column
        )
        self.row_bytes = sum(widths) if even else 0
        """Bytes of a row; 0 if the tokens of a field differ in length and rows in size."""
        self._row = struct.Struct("".join(f"{width}s" for width in widths))
        self._columns = _columns(records, widths) if even else ()
        self._dtype = np.dtype([(column.name, column.records.dtype) for column in self._columns])
        self._records = records
        self._local = threading.local()

    def indices(self, content: bytes, rows: int) -> bytes | np.ndarray | None:
        """Return the vocabulary indices of the rows in a raw tensor; see `serving.tables.Payload`.

        None means that something is not as usual: a token is unknown, or a length is wrong.
        """
        if not self.row_bytes or len(content) != rows * self.row_bytes:
            return None
        if rows <= _FEW or not self._columns:
            packed = self._packed
            try:
                if rows == 1:
                    return b"".join(map(getitem, packed, self._row.unpack(content)))
                return b"".join(
                    [
                        index
                        for row in self._row.iter_unpack(content)
                        for index in map(getitem, packed, row)
                    ]
                )
            except KeyError:
                return None
        found = np.empty((rows, self._fields), dtype=np.int32)
        for start in range(0, rows, _BLOCK_ROWS):
            if not self._translate(content, start, found[start : start + _BLOCK_ROWS]):
                return None
        return found

    def _translate(self, content: bytes, start: int, found: np.ndarray) -> bool:
        """Write the indices of rows from ``start`` on to ``found``; return whether all are known.

        Eight bytes of a token pick the candidate; that the whole token, and its length before it,
        is the candidate's shows when the rows are written anew from the indices.
        """
        rows, first = len(found), start * self.row_bytes
        size = rows * self.row_bytes
        written = self._scratch()[:size]
        again = written.view(self._dtype)
        for position, column in enumerate(self._columns):
            keys: np.ndarray = np.ndarray(
                (rows,), np.dtype("<u8"), content, first + column.key, (self.row_bytes,)
            )
            index = column.order.take(column.keys.searchsorted(keys), mode="clip")
            found[:, position] = index
            again[column.name] = column.records.take(index)
        kind = np.dtype(np.uint8 if size % 8 else np.uint64)
        sent: np.ndarray = np.frombuffer(content, kind, size // kind.itemsize, first)
        return bool((written.view(kind) == sent).all())

    def _scratch(self) -> np.ndarray:
        """Return this thread's place for the bytes of a block of rows, uint8.

        A new one each time would take longer than what is done with it: the system gives memory
        and takes it back page by page.
        """
        found: np.ndarray | None = getattr(self._local, "rows", None)
        if found is None:
            found = self._local.rows = np.empty(_BLOCK_ROWS * self.row_bytes, dtype=np.uint8)
        return found

    def within(self, content: bytes) -> bool:
        """Return whether one row of int32 indices, as bytes, is within the vocabulary."""
        return all(map(range.__contains__, self._ranges, self._integers.unpack(content)))

    def tensor(self, indices: np.ndarray) -> bytes:
        """Return the raw BYTES tensor of rows given as int32 [rows, fields], all valid."""
        if not self._columns:
            return b"".join(
                [
                    column[index]
                    for row in indices.tolist()
                    for column, index in zip(self._records, row, strict=True)
                ]
            )
        rows = np.empty(len(indices), dtype=self._dtype)
        for position, column in enumerate(self._columns):
            rows[column.name] = column.records.take(indices[:, position])
        return rows.tobytes()


def _columns(records: Sequence[Sequence[bytes]], widths: Sequence[int]) -> tuple[_Column, ...]:
    """Return the columns for numpy; none if eight bytes do not tell a field's tokens apart."""
    columns = []
    place = 0
    for position, (column, width) in enumerate(zip(records, widths, strict=True)):
        skipped = PREFIX.size + HEADER_LENGTH
        if width < skipped + _KEY_BYTES:
            return ()
        joined = np.frombuffer(b"".join(column), dtype=f"V{width}")
        keys = np.array(
            [int.from_bytes(record[skipped : skipped + _KEY_BYTES], "little") for record in column],
            dtype=np.uint64,
        )
        order = keys.argsort().astype(np.int32)
        keys = keys[order]
        if (keys[1:] == keys[:-1]).any():
            return ()
        columns.append(_Column(f"f{position}", place + skipped, keys, order, joined))
        place += width
    return tuple(columns)


def cells(content: bytes) -> Iterator[bytes | None]:
    """Yield the elements of a raw BYTES tensor; None, and the end, where it is cut off."""
    position, end = 0, len(content)
    while position < end:
        if position + PREFIX.size > end:
            yield None
            return
        (length,) = PREFIX.unpack_from(content, position)
        position += PREFIX.size + length
        if position > end:
            yield None
            return
        yield content[position - length : position]


_layouts: dict[int, Layout] = {}


def layout_of(vocabulary: Vocabulary) -> Layout:
    """Return the layout of ``vocabulary``, made once and dropped with it."""
    layout = _layouts.get(id(vocabulary))
    if layout is None:
        layout = _layouts[id(vocabulary)] = Layout(vocabulary)
        weakref.finalize(vocabulary, _layouts.pop, id(vocabulary), None)
    return layout
