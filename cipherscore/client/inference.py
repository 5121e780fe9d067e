"""Write a first schema for a table nobody has described yet.  The owner reads and corrects it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cipherscore.client.sources import sniff_delimiter
from cipherscore.errors import DataError, SchemaError
from cipherscore.schema import Binning, Field, Schema, Target

SAMPLE_ROWS = 200_000
"""Rows looked at; categories that only occur later are refused at encryption and named then."""
MAX_CATEGORIES = 256
MAX_NUMERIC_CODES = 2
"""A numeric column with at most this many distinct values is taken for a category."""
ABSENT_TEXTS = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")


def infer_schema(
    path: Path, target: str, *, bad: str = "", name: str = "", bins: int = 4
) -> tuple[Schema, list[str]]:
    """Infer a schema from a table's first rows.

    Args:
        path: CSV with a header (comma, semicolon, tab or bar), or Parquet.
        target: The good/bad column; it must have exactly two values.
        bad: Its value for bad credit; default the rarer one.
        name: Schema name; default made from the file's name.
        bins: Most bins of a numeric field; they are cut by a decision tree on training rows.

    Returns:
        The schema, and remarks on what was decided for the owner to check.

    Raises:
        DataError: The table cannot be read.
        SchemaError: The target is missing or has not two values, or no field is left.
    """
    table = _read(path)
    if target not in table.schema.names:
        raise SchemaError(
            f"{path}: no column {target!r}; columns: {', '.join(table.schema.names)[:300]}"
        )
    remarks: list[str] = []
    goal = _target(table.column(target), target, bad, remarks)
    fields = []
    for column in table.schema.names:
        if column != target:
            field = _field(column, table.column(column), bins, remarks)
            fields += [field] if field else []
    if not fields:
        raise SchemaError(f"{path}: no usable field; see the remarks")
    label = (
        name or re.sub(r"[^a-z0-9]+", "-", path.name.split(".")[0].lower()).strip("-") or "table"
    )
    return Schema(label, tuple(fields), goal, title=f"inferred from {path.name}"), remarks


def _read(path: Path) -> pa.Table:
    """Read the first rows, all columns as text."""
    try:
        if path.suffix == ".parquet":
            batches = pq.ParquetFile(path).iter_batches(SAMPLE_ROWS)
            table = pa.Table.from_batches([next(batches)])
        else:
            delimiter = sniff_delimiter(path)
            parse = pacsv.ParseOptions(delimiter=delimiter)
            header = next(iter(pacsv.open_csv(path, parse_options=parse))).schema.names
            texts = pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            )
            reader = pacsv.open_csv(path, parse_options=parse, convert_options=texts)
            parts, rows = [], 0
            for batch in reader:
                parts.append(batch)
                rows += len(batch)
                if rows >= SAMPLE_ROWS:
                    break
            table = pa.Table.from_batches(parts)
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DataError(f"{path}: cannot be read as a table ({type(error).__name__})") from None
    columns = [column.combine_chunks().cast(pa.string()) for column in table.columns]
    trimmed = [pc.utf8_trim_whitespace(column) for column in columns]
    return pa.table(dict(zip(table.schema.names, trimmed, strict=True)))


def _target(column: pa.ChunkedArray, name: str, bad: str, remarks: list[str]) -> Target:
    counts = sorted(
        (entry["counts"], entry["values"]) for entry in pc.value_counts(column).to_pylist()
    )
    if len(counts) != 2 or any(value in (None, *ABSENT_TEXTS) for _, value in counts):
        raise SchemaError(
            f"target {name!r} has {len(counts)} values; exactly two, never absent, are supported"
        )
    values = [value for _, value in counts]
    if bad and bad not in values:
        raise SchemaError(f"target {name!r} has the values {values}, not {bad!r}")
    chosen = bad or values[0]
    if not bad:
        remarks.append(
            f"target {name!r}: {chosen!r} is the rarer value and taken as bad; --bad sets it"
        )
    remarks.append(
        "costs: calling a bad applicant good and the reverse cost the same; edit [target]"
    )
    good = values[1] if chosen == values[0] else values[0]
    return Target(name, good, chosen)


def _field(name: str, column: pa.ChunkedArray, bins: int, remarks: list[str]) -> Field | None:
    absent = pc.is_in(column, value_set=pa.array(ABSENT_TEXTS))
    present = column.filter(pc.invert(pc.or_(absent, column.is_null())))
    distinct = pc.unique(present)
    missing = len(present) < len(column)
    seen = sorted({v for v in pc.unique(column.filter(absent)).to_pylist() if v})
    common = {"missing": "level", "missing_values": tuple(seen)} if missing else {}
    if len(distinct) < 2:
        remarks.append(f"field {name!r} dropped: it has {len(distinct)} distinct value(s)")
        return None
    numeric = _numbers(distinct)
    if numeric is not None and len(distinct) > MAX_NUMERIC_CODES:
        if len(distinct) == len(column) and np.all(numeric == np.round(numeric)):
            remarks.append(f"field {name!r} dropped: a different whole number in each row, an id")
            return None
        return Field(name, "numeric", binning=Binning("tree", bins), **common)  # type: ignore[arg-type]
    if len(distinct) > MAX_CATEGORIES:
        remarks.append(
            f"field {name!r} dropped: {len(distinct)} different texts (at most {MAX_CATEGORIES})"
        )
        return None
    categories = dict.fromkeys(sorted(distinct.to_pylist()), "")
    return Field(name, "categorical", categories=categories, **common)  # type: ignore[arg-type]


def _numbers(distinct: pa.Array) -> np.ndarray | None:
    """Return the values as float64, or nothing when one is no finite number."""
    try:
        values = np.asarray(pc.cast(distinct, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None
    return values if np.isfinite(values).all() else None
