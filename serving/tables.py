"""What both transports turn a request's rows into: per field, distinct tokens and indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from cipherscore.errors import (
    SHOWN_LENGTH,
    ExtraField,
    InvalidRequest,
    MalformedToken,
    MissingField,
    TokenFormatError,
)
from cipherscore.proto.v1 import cipherscore_pb2
from cipherscore.tokens import from_text

MAX_DICTIONARY = 65_536
"""Distinct tokens one column may bring; two bytes index them."""

_NARROW = 256


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

    def columns(self, fields: Sequence[str]) -> Sequence[Column]:
        """Return one column per field of ``fields``, in that order, each with `rows` indices.

        Raises:
            RequestError: A field is missing, extra or sent twice, or a column is malformed.
        """


class ProtoTable:
    """A `TokenTable` message; its index bytes are used in place, never copied."""

    def __init__(self, table: cipherscore_pb2.TokenTable) -> None:
        self._table = table

    @property
    def rows(self) -> int:
        """See `Table`."""
        return self._table.rows

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


class RecordTable:
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
    """Return a caller's text fit for a message and a gRPC header: short, printable ASCII."""
    if name.isascii() and name.isprintable() and len(name) <= SHOWN_LENGTH:
        return name
    return ascii(name[:SHOWN_LENGTH])[1:-1]
