"""Check a raw table against its schema, cell by cell, and write it out in plain CSV."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from cipherscore.client.sources import RawTable
from cipherscore.client.tables import column_of, labels, level_indices, numbers
from cipherscore.errors import DataError, RecordError
from cipherscore.files import atomic_path
from cipherscore.schema import Field, Schema


def check_table(table: RawTable, schema: Schema) -> int:
    """Check every cell; return the number of rows.

    Raises:
        DataError: A column is missing, or the table has no row.
        RecordError: A value is not allowed; names field and row.
    """
    rows = 0
    for batch in table.batches():
        try:
            for field in schema.fields:
                _check_column(column_of(batch, field.name), field)
            labels(batch, schema.target)
        except RecordError as error:
            raise error.shifted(rows) from None
        rows += len(batch)
    if not rows:
        raise DataError(f"{table.name} has no row")
    return rows


def write_csv(table: RawTable, schema: Schema, out: Path) -> None:
    """Write the table's fields and target as CSV with a header, readable by its owner only."""
    names = [*schema.by_name, schema.target.name]
    with (
        atomic_path(out, 0o600) as temporary,
        pacsv.CSVWriter(temporary, pa.schema([(name, pa.string()) for name in names])) as writer,
    ):
        for batch in table.batches():
            columns = [column_of(batch, name).cast(pa.string()) for name in names]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, names))


def _check_column(column: pa.Array, field: Field) -> None:
    """Check one column; a numeric field without bins yet is checked against its range."""
    if field.fitted:
        level_indices(column, field)
        return
    low, high = field.valid_range or (float("-inf"), float("inf"))
    values = numbers(column, field)
    suspects = ~((values >= low) & (values <= high))
    for row in suspects.nonzero()[0]:
        field.check_number(column[int(row)].as_py(), int(row))
