"""Read the first rows of a table nobody has described yet, all columns as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cipherscore.client.dialect import (
    column_names,
    first_row,
    is_utf8,
    numbered,
    read_texts,
    sniff_delimiter,
)
from cipherscore.client.sources import PARQUET_ENDINGS
from cipherscore.errors import DataError
from cipherscore.schema import Source

SAMPLE_ROWS = 500_000
SAMPLE_CELLS = 20_000_000
"""Most rows and cells looked at; they bound memory.  Categories that only occur later are refused
at encryption and named then, or fall to the others."""

_COMMA_NUMBER = r"^[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?$"
_POINT_NUMBER = r"^[+-]?[0-9]*\.[0-9]+([eE][+-]?[0-9]+)?$"
_WHOLE_NUMBER = r"^[+-]?[0-9]+$"


@dataclass(frozen=True)
class Sample:
    """The first rows of a table.

    Args:
        columns: Texts without blanks around them by column name, of equal length; null where the
            file has no value.
        complete: Whether these are all rows.
        source: How the file is written, for the schema.
        remarks: What was decided, for the owner to check.
    """

    columns: dict[str, pa.Array]
    complete: bool
    source: Source
    remarks: list[str]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values())))


def read_sample(
    path: Path, *, header: bool = True, progress: Callable[[int], None] = lambda _: None
) -> Sample:
    """Read the first rows of a CSV or Parquet file.

    Text is taken for UTF-8, else for Latin-1; numbers are taken to have a decimal comma where
    columns only make sense so.

    Raises:
        DataError: It cannot be read as a table, or has no row.
    """
    try:
        if path.suffix.lower() in PARQUET_ENDINGS:
            return _read_parquet(path, progress)
        delimiter = sniff_delimiter(path)
        source = Source()
        try:
            return _read_text(path, delimiter, source, header=header, progress=progress)
        except (pa.ArrowInvalid, UnicodeError):
            if is_utf8(path):
                raise
        source = replace(source, encoding="latin-1")
        return _read_text(path, delimiter, source, header=header, progress=progress)
    except (pa.ArrowException, OSError, UnicodeError, StopIteration) as error:
        raise DataError(
            f"{path}: cannot be read as a table ({type(error).__name__}); it must be text with "
            "a header (or --no-header) and rows of equal length, or Parquet, and have a row"
        ) from None


def _read_parquet(path: Path, progress: Callable[[int], None]) -> Sample:
    with pq.ParquetFile(path) as file:
        names = column_names(file.schema_arrow.names)
        batches = (batch.rename_columns(names) for batch in file.iter_batches(1 << 17))
        table, complete = _first_rows(batches, names, progress)
    return Sample(_columns(table), complete, Source(), [])


def _read_text(
    path: Path, delimiter: str, source: Source, *, header: bool, progress: Callable[[int], None]
) -> Sample:
    first = first_row(path, delimiter, source.encoding)
    names = column_names(first) if header else numbered(len(first))
    batches = read_texts(
        path, delimiter, names, first=first if header else None, encoding=source.encoding
    )
    table, complete = _first_rows(batches, names, progress)
    columns = _columns(table)
    remarks = []
    if source.encoding != "utf-8":
        remarks.append("the file is not UTF-8; it is read as Latin-1")
    if not header:
        source = replace(source, header=False, columns=tuple(names))
        remarks.append(f"the file has no header; its columns are called c1 to c{len(names)}")
    elif len(first) > 1 and sum(_spells_number(cell) for cell in first) * 2 > len(first):
        remarks.append("line one looks like data, not like a header; --no-header reads it as data")
    if delimiter != "," and _has_decimal_commas(columns):
        source = replace(source, decimal=",")
        remarks.append("numbers are written with a decimal comma")
    return Sample(columns, complete, source, remarks)


def _first_rows(
    batches: Iterator[pa.RecordBatch], names: list[str], progress: Callable[[int], None]
) -> tuple[pa.Table, bool]:
    """Return the first rows, and whether they are all.

    Raises:
        StopIteration: There is none.
    """
    most = min(SAMPLE_ROWS, max(1, SAMPLE_CELLS // len(names)))
    parts, rows, complete = [], 0, True
    for batch in batches:
        if rows >= most:
            complete = complete and not len(batch)
            break
        parts.append(batch.slice(0, most - rows))
        complete = len(batch) <= most - rows
        rows += len(parts[-1])
        progress(rows)
    if not rows:
        raise StopIteration
    return pa.Table.from_batches(parts), complete


def _columns(table: pa.Table) -> dict[str, pa.Array]:
    return {
        name: pc.utf8_trim_whitespace(_texts(column))
        for name, column in zip(table.schema.names, table.columns, strict=True)
    }


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return values as the texts that `Field.level_of` takes for the same: 1.0 as ``1``."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # more text than one array holds
        whole = pa.concat_arrays(whole.chunks)
    if pa.types.is_string(whole.type) or pa.types.is_large_string(whole.type):
        return whole.cast(pa.string())
    if pa.types.is_timestamp(whole.type):  # nanoseconds have no Python value
        whole = whole.cast(pa.timestamp("us"), safe=False)
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode()
    values = [
        None if value is None else str(value).removesuffix(".0")
        for value in whole.dictionary.to_pylist()
    ]
    return pa.array(values, pa.string()).take(whole.indices)


def _has_decimal_commas(columns: dict[str, pa.Array]) -> bool:
    """Return whether some column holds numbers with commas, and none holds numbers with points."""
    comma = False
    for column in columns.values():
        present = pc.drop_null(column).filter(pc.greater(pc.binary_length(pc.drop_null(column)), 0))
        whole = pc.match_substring_regex(present, _WHOLE_NUMBER)
        odd = pc.unique(present.filter(pc.invert(whole)))
        if not len(odd):
            continue
        if pc.all(pc.match_substring_regex(odd, _POINT_NUMBER)).as_py():
            return False
        comma |= pc.mean(pc.match_substring_regex(odd, _COMMA_NUMBER).cast(pa.int8())).as_py() > 0.9
    return comma


def _spells_number(cell: str) -> bool:
    return bool(pc.match_substring_regex(cell.strip(), r"^[+-]?[0-9]+([.,][0-9]+)?$").as_py())
