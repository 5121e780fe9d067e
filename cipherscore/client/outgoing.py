"""Requests: raw records and tables, encrypted, as messages small enough for the wire."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cipherscore.client.records import RecordCodec
from cipherscore.client.wire import BYTE_DICTIONARY
from cipherscore.errors import ConfigurationError, DataError, EmptyBatch
from cipherscore.proto.v1 import cipherscore_pb2 as pb

REQUEST_BYTES = 3 << 20
"""Largest request made, safely below gRPC's default message limit of 4 MiB."""

Record = Mapping[str, object]


def score_requests(
    codec: RecordCodec, rows: Any, batch_rows: int, reasons: int = 0
) -> list[pb.ScoreRequest]:
    """Encrypt ``rows`` into as many requests as needed.

    All rows are checked before the first request exists, so that none is sent if one is wrong.

    Args:
        codec: Encrypts.
        rows: Records, or an Arrow table or batch, or a pandas DataFrame.
        batch_rows: Most rows of a request; fewer where the schema has very many fields.
        reasons: How many reasons to ask for, for each row.

    Raises:
        EmptyBatch: There is no row.
        DataError: A row is wrong, or ``rows`` is nothing that has rows.
        ConfigurationError: A table is given and pyarrow is not installed.
    """
    step = rows_per_request(codec, batch_rows)
    table = as_arrow(rows)
    chunks = _record_tables(codec, rows, step) if table is None else _slices(codec, table, step)
    requests = [
        pb.ScoreRequest(key_id=codec.key_id, table=chunk, reasons=reasons) for chunk in chunks
    ]
    if not requests:
        raise EmptyBatch("there is no record to score")
    return requests


def generate_request(
    codec: RecordCodec, count: int, bad_credit: bool | None, seed: int | None
) -> pb.GenerateRequest:
    """Return the request for ``count`` synthetic rows.

    Raises:
        ConfigurationError: ``count`` or ``seed`` is outside its range.
    """
    if not 0 < count < 1 << 32:
        raise ConfigurationError(f"the number of rows must be 1 to 2**32 - 1, not {count!r}")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise ConfigurationError(f"the seed must be 0 to 2**64 - 1, not {seed!r}")
    credit_class = pb.CREDIT_CLASS_UNSPECIFIED
    if bad_credit is not None:
        credit_class = pb.CREDIT_CLASS_BAD if bad_credit else pb.CREDIT_CLASS_GOOD
    return pb.GenerateRequest(
        key_id=codec.key_id, count=count, credit_class=credit_class, seed=seed
    )


def token_rows(table: pb.TokenTable) -> Iterator[dict[str, bytes]]:
    """Yield a table's rows as field name to token."""
    widths = {
        column.field: 1 if len(column.dictionary) <= BYTE_DICTIONARY else 2
        for column in table.columns
    }
    for row in range(table.rows):
        cells = {}
        for column in table.columns:
            width = widths[column.field]
            at = int.from_bytes(column.indices[row * width : (row + 1) * width], "little")
            cells[column.field] = column.dictionary[at]
        yield cells


def rows_per_request(codec: RecordCodec, limit: int) -> int:
    """Return `limit`, or fewer where that many rows could make more than `REQUEST_BYTES`."""
    columns = [(len(column), max(map(len, column))) for column in codec.levels.values()]
    rows = limit
    while rows > 1:
        largest = sum(2 * rows + min(rows, tokens) * (length + 4) for tokens, length in columns)
        if largest <= REQUEST_BYTES:
            break
        rows //= 2
    return rows


def _record_tables(codec: RecordCodec, records: Any, step: int) -> Iterator[pb.TokenTable]:
    if isinstance(records, (str, bytes, Mapping)) or not isinstance(records, Iterable):
        raise DataError("give a list of records, a DataFrame or an Arrow table")
    records = records if isinstance(records, Sequence) else list(records)
    names = [f.name for f in codec.schema.fields]
    for start in range(0, len(records), step):
        columns: list[list[bytes]] = [[] for _ in names]
        for row, record in enumerate(records[start : start + step], start):
            if not isinstance(record, Mapping):
                raise DataError(f"record {row} is no mapping of field names to values")
            for column, token in zip(columns, codec.encode(record, row).values(), strict=True):
                column.append(token)
        yield pb.TokenTable(
            rows=len(columns[0]),
            columns=[token_column(n, tokens) for n, tokens in zip(names, columns, strict=True)],
        )


def token_column(name: str, tokens: list[bytes]) -> pb.TokenColumn:
    """Return a column of a request; its dictionary is sorted and tells nothing of their order."""
    dictionary = sorted(set(tokens))
    position = {token: index for index, token in enumerate(dictionary)}
    indices = [position[token] for token in tokens]
    if len(dictionary) <= BYTE_DICTIONARY:
        packed = bytes(indices)
    else:
        wide = array("H", indices)
        if sys.byteorder == "big":
            wide.byteswap()
        packed = wide.tobytes()
    return pb.TokenColumn(field=name, dictionary=dictionary, indices=packed)


def as_arrow(rows: Any) -> Any:
    """Return ``rows`` as an Arrow table or batch, or None if they are plain records."""
    package = type(rows).__module__.partition(".")[0]
    if package not in ("pandas", "pyarrow") and not hasattr(rows, "__arrow_c_stream__"):
        return None
    try:
        import pyarrow as pa  # noqa: PLC0415  (record lists need no table package)
    except ImportError:
        raise ConfigurationError(
            "scoring a table needs pyarrow: install cipherscore[tables], or give a list of records"
        ) from None
    try:
        if isinstance(rows, (pa.Table, pa.RecordBatch)):
            return rows
        if package == "pandas":
            return pa.Table.from_pandas(rows, preserve_index=False)
        return pa.table(rows)
    except (pa.ArrowException, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the table cannot be read: {type(error).__name__}: {error}") from None


def _slices(codec: RecordCodec, table: Any, step: int) -> Iterator[pb.TokenTable]:
    """Encrypt a whole table, then cut it; each request holds only the tokens that it uses."""
    if not table.num_rows:
        return
    import numpy as np  # noqa: PLC0415

    from cipherscore.client.tables import encode_batch  # noqa: PLC0415

    encoded = encode_batch(table, codec)
    for start in range(0, table.num_rows, step):
        columns = []
        for name, column in encoded.items():
            indices = np.asarray(column.indices[start : start + step])
            used = np.flatnonzero(np.bincount(indices, minlength=len(column.dictionary)))
            position = np.zeros(len(column.dictionary), "<u2")
            position[used] = np.arange(len(used))
            width = "u1" if len(used) <= BYTE_DICTIONARY else "<u2"
            columns.append(
                pb.TokenColumn(
                    field=name,
                    dictionary=[column.dictionary[index] for index in used],
                    indices=position[indices].astype(width).tobytes(),
                )
            )
        yield pb.TokenTable(rows=min(step, table.num_rows - start), columns=columns)
