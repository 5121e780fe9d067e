"""What both transports turn a request's rows into: per field, distinct tokens and indices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from cipherscore.errors import (
    ExtraField,
    InvalidRequest,
    MalformedToken,
    MissingField,
    TokenFormatError,
    UnknownToken,
    WrongKey,
)
from cipherscore.proto.v1 import cipherscore_pb2
from cipherscore.tokens import MIN_LENGTH, from_text, key_id_of
from cipherscore.vocabulary import UNSEEN, Vocabulary

MAX_DICTIONARY = 65_536
"""Distinct tokens one column may bring; two bytes index them."""

Payload: TypeAlias = "bytes | np.ndarray"
"""Vocabulary indices of some rows, row-major [rows, fields]: little-endian int32 bytes or int32."""

_NARROW = 256
_WRONG = 255
_NO_INDEX = bytes([_WRONG])
"""A byte that is no index of a field with at most `_WRONG` tokens."""
_TOKEN_TEXT = MIN_LENGTH * 4 // 3
"""Length of the shortest token as text."""


class Column(NamedTuple):
    """One field of a batch: distinct tokens and, per row, the position of its token [rows]."""

    field: str
    dictionary: Sequence[bytes]
    indices: np.ndarray


class Table(Protocol):
    """A batch of encrypted rows, whatever it came in."""

    @property
    def rows(self) -> int:
        """Number of rows the request says it holds."""

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """Return the vocabulary indices of the rows.

        Raises:
            RequestError: A field is missing, extra or sent twice, or a token is refused.
        """


class ColumnTable(ABC):
    """A batch that comes, or is best taken, column by column."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """See `Table`."""

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `Table`."""
        columns = self.columns(vocabulary.fields)
        indices = np.empty((self.rows, len(columns)), dtype=np.int32)
        for position, column in enumerate(columns):
            indices[:, position] = _translation(column, vocabulary)[column.indices]
        return indices

    @abstractmethod
    def columns(self, fields: Sequence[str]) -> Sequence[Column]:
        """Return one column per field of ``fields``, in that order, each with `rows` indices.

        Raises:
            RequestError: A field is missing, extra or sent twice, or a column is malformed.
        """


class ProtoTable(ColumnTable):
    """A `TokenTable` message; its index bytes are used in place, never copied."""

    def __init__(self, table: cipherscore_pb2.TokenTable) -> None:
        self._table = table

    @property
    def rows(self) -> int:
        """See `Table`."""
        return self._table.rows

    def indices(self, vocabulary: Vocabulary) -> Payload:
        """See `Table`."""
        payload = self._only_row(vocabulary) if self.rows == 1 else self._narrow(vocabulary)
        # What is unusual, or wrong, takes the long way, which says what is wrong.
        return super().indices(vocabulary) if payload is None else payload

    def _narrow(self, vocabulary: Vocabulary) -> np.ndarray | None:
        """Return the rows' indices where all of them fit one byte; None where anything is unusual.

        Positions become indices by one table per column, all of a column's bytes at once.
        """
        known, rows = vocabulary.index, self.rows
        translated = {}
        for column in self._table.columns:
            codes = known.get(column.field)
            if codes is None or len(codes) > _WRONG or len(column.indices) != rows:
                return None
            try:
                table = bytes([codes[token] for token in column.dictionary])
            except KeyError:
                return None
            if len(table) > _NARROW:
                return None
            found = column.indices.translate(table.ljust(_NARROW, _NO_INDEX))
            if _NO_INDEX in found:
                return None
            translated[column.field] = found
        if len(translated) != len(known) or len(self._table.columns) != len(known):
            return None
        joined = b"".join([translated[field] for field in known])
        columns: np.ndarray = np.frombuffer(joined, dtype=np.uint8).reshape(len(known), rows)
        return columns.T.astype(np.int32, order="C")

    def _only_row(self, vocabulary: Vocabulary) -> bytes | None:
        """Return the one row's indices, or None where anything is unusual."""
        cells = {}
        for column in self._table.columns:
            if len(column.dictionary) != 1 or column.indices != b"\0":
                return None
            cells[column.field] = column.dictionary[0]
        packed = vocabulary.packed
        if len(self._table.columns) != len(packed):
            return None
        try:
            return b"".join([known[cells[field]] for field, known in packed.items()])
        except KeyError:
            return None

    def columns(self, fields: Sequence[str]) -> Sequence[Column]:
        """See `Table`."""
        found = {column.field: column for column in self._table.columns}
        check_fields(found, fields)
        if len(found) != len(self._table.columns):
            names = [column.field for column in self._table.columns]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidRequest(f"column {twice!r} was sent twice", field=twice)
        return [self._column(found[field]) for field in fields]

    def _column(self, column: cipherscore_pb2.TokenColumn) -> Column:
        name, size = column.field, len(column.dictionary)
        if size > MAX_DICTIONARY:
            raise InvalidRequest(
                f"column {name!r} has {size} dictionary entries; at most {MAX_DICTIONARY}",
                field=name,
            )
        width = 1 if size <= _NARROW else 2
        if len(column.indices) != self.rows * width:
            raise InvalidRequest(
                f"column {name!r} has {len(column.indices)} bytes of indices; {self.rows} rows "
                f"of {width} byte each make {self.rows * width}",
                field=name,
            )
        kind = np.dtype(np.uint8 if width == 1 else "<u2")
        indices: np.ndarray = np.frombuffer(column.indices, dtype=kind)
        top = int(indices.max())
        if top >= size:
            raise InvalidRequest(
                f"column {name!r} has index {top} but only {size} dictionary entries",
                field=name,
                row=int(np.argmax(indices)),
            )
        return Column(name, column.dictionary, indices)


class RecordTable(ColumnTable):
    """JSON records: one object per row, field name to token text."""

    def __init__(self, records: Sequence[Mapping[str, str]]) -> None:
        self._records = records

    @property
    def rows(self) -> int:
        """See `Table`."""
        return len(self._records)

    def columns(self, fields: Sequence[str]) -> Sequence[Column]:
        """See `Table`."""
        expected = frozenset(fields)
        for row, record in enumerate(self._records):
            if record.keys() != expected:
                check_fields(record, fields, row)
        return [self._column(field) for field in fields]

    def _column(self, field: str) -> Column:
        positions: dict[str, int] = {}
        indices = np.fromiter(
            (positions.setdefault(record[field], len(positions)) for record in self._records),
            dtype=np.int32,
            count=len(self._records),
        )
        try:
            dictionary = [from_text(text) for text in positions]
        except TokenFormatError as error:
            position = next(i for i, text in enumerate(positions) if not _is_token(text))
            row = int(np.argmax(indices == position))
            raise MalformedToken(str(error), field=field, row=row) from error
        return Column(field, dictionary, indices)


def _is_token(text: str) -> bool:
    try:
        from_text(text)
    except TokenFormatError:
        return False
    return True


def _translation(column: Column, vocabulary: Vocabulary) -> np.ndarray:
    """Return int32 [dictionary]: the model's index of each of the column's tokens."""
    found = vocabulary.encode(column.field, column.dictionary)
    if UNSEEN in found:
        position = found.index(UNSEEN)
        rows = np.flatnonzero(column.indices == position)
        row = int(rows[0]) if len(rows) else None
        raise refusal(vocabulary, column.field, column.dictionary[position], row)
    return np.array(found, dtype=np.int32)


def refusal(
    vocabulary: Vocabulary, field: str, token: bytes, row: int | None
) -> MalformedToken | WrongKey | UnknownToken:
    """Return what is wrong with a token that is not in ``vocabulary``, without showing it."""
    try:
        key_id = key_id_of(token)
    except TokenFormatError as error:
        return MalformedToken(str(error), field=field, row=row)
    if key_id != vocabulary.key_id:
        return WrongKey(f"field {field!r} holds a token of another key", field=field, row=row)
    return UnknownToken(
        f"field {field!r} holds a token the model never saw in training", field=field, row=row
    )


def check_fields(
    given: Mapping[str, object], fields: Sequence[str], row: int | None = None
) -> None:
    """Refuse a row or table whose fields are not exactly ``fields``.

    Raises:
        MissingField: The first absent field in model order.
        ExtraField: The first unknown field by name.
    """
    where = "" if row is None else f"record {row}: "
    for field in fields:
        if field not in given:
            raise MissingField(f"{where}field {field!r} is missing", field=field, row=row)
    extra = sorted(given.keys() - set(fields))
    if extra:
        name = printable(extra[0])
        raise ExtraField(f"{where}the model has no field {name!r}", field=name, row=row)


def printable(name: str) -> str:
    """Return a caller's text fit for a message, a header and a log: short, printable ASCII.

    One as long as a token's text is not repeated: it may be one, put where it does not belong.
    """
    if len(name) >= _TOKEN_TEXT:
        return "(a long name)"
    return name if name.isascii() and name.isprintable() else ascii(name)[1:-1]
