"""Check a raw table against its schema, cell by cell, and write it out in plain CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from cipherscore.client.sources import RawTable
from cipherscore.client.tables import column_of, field_column, labels, level_indices, numbers
from cipherscore.errors import DataError, RecordError
from cipherscore.files import atomic_path
from cipherscore.schema import MISSING_LEVEL, Field, Schema


def check_table(
    table: RawTable, schema: Schema, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Check every cell; return the number of rows.  ``progress`` is told the rows done so far.

    Raises:
        DataError: A column is missing, or the table has no row.
        RecordError: A value is not allowed; names field and row.
    """
    rows = 0
    for batch in table.batches():
        try:
            for field in schema.inputs:
                _check_column(field_column(batch, field), field)
            labels(batch, schema.target)
            if schema.group:
                column_of(batch, schema.group)
        except RecordError as error:
            raise error.shifted(rows) from None
        rows += len(batch)
        progress(rows)
    if not rows:
        raise DataError(f"{table.name} has no row")
    return rows


def write_csv(table: RawTable, schema: Schema, out: Path) -> None:
    """Write the table's columns that are read as CSV with a header, readable by its owner only."""
    names = list(schema.raw_names)
    with (
        atomic_path(out, 0o600) as temporary,
        pacsv.CSVWriter(temporary, pa.schema([(name, pa.string()) for name in names])) as writer,
    ):
        for batch in table.batches():
            columns = [column_of(batch, name).cast(pa.string()) for name in names]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, names))


def _check_column(column: pa.Array, field: Field) -> None:
    """Check one column; a numeric field without bins yet is checked against its range.

    A field whose categories are chosen later takes any text; absent values are still looked at.
    """
    if field.kind == "categorical" and not field.fitted:
        field = replace(field, categories={MISSING_LEVEL * 2: ""})
    if field.fitted:
        level_indices(column, field)
        return
    low, high = field.valid_range or (float("-inf"), float("inf"))
    values = numbers(column, field)
    suspects = ~((values >= low) & (values <= high))
    for row in suspects.nonzero()[0]:
        field.check_number(column[int(row)].as_py(), int(row))
