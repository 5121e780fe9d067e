"""Write a first schema for a table nobody has described yet.  The owner reads and corrects it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from cipherscore.client.sources import PARQUET_ENDINGS, sniff_delimiter
from cipherscore.errors import DataError, SchemaError, shorten
from cipherscore.field import MAX_LEVEL_LENGTH
from cipherscore.schema import MAX_NAME_LENGTH, Binning, Field, Schema, Target

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
        if not column:
            remarks.append("a column without a name is dropped")
        elif column != target:
            field = _field(column, table.column(column), bins, remarks)
            fields += [field] if field else []
    if not fields:
        raise SchemaError(f"{path}: no usable field; see the remarks")
    stem = re.sub(r"[^a-z0-9]+", "-", path.name.split(".")[0].lower())
    label = name or stem[:MAX_NAME_LENGTH].strip("-") or "table"
    return Schema(label, tuple(fields), goal, title=f"inferred from {path.name}"), remarks


def _read(path: Path) -> pa.Table:
    """Read the first rows, all columns as text, names and texts without blanks around them."""
    try:
        if path.suffix.lower() in PARQUET_ENDINGS:
            with pq.ParquetFile(path) as file:
                table = pa.Table.from_batches([next(file.iter_batches(SAMPLE_ROWS))])
        else:
            table = _read_texts(path)
    except (pa.ArrowException, OSError, StopIteration) as error:
        raise DataError(
            f"{path}: cannot be read as a table ({type(error).__name__}); it must be UTF-8 text "
            "with a header and rows of equal length, or Parquet, and have a row"
        ) from None
    names = [name.strip() for name in table.schema.names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: column {shorten(twice[0])} occurs twice; rename one")
    columns = [pc.utf8_trim_whitespace(_texts(column)) for column in table.columns]
    return pa.table(dict(zip(names, columns, strict=True)))


def _read_texts(path: Path) -> pa.Table:
    parse = pacsv.ParseOptions(delimiter=sniff_delimiter(path))
    header = pacsv.open_csv(path, parse_options=parse).schema.names
    texts = pacsv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
    )
    parts, rows = [], 0
    for batch in pacsv.open_csv(path, parse_options=parse, convert_options=texts):
        parts.append(batch)
        rows += len(batch)
        if rows >= SAMPLE_ROWS:
            break
    if not rows:
        raise StopIteration
    return pa.Table.from_batches(parts)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    """Return values as the texts that `Field.level_of` takes for the same: 1.0 as ``1``."""
    whole = column.combine_chunks()
    if pa.types.is_string(whole.type) or pa.types.is_large_string(whole.type):
        return whole.cast(pa.string())
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode()
    values = [
        None if value is None else str(value).removesuffix(".0")
        for value in whole.dictionary.to_pylist()
    ]
    return pa.array(values, pa.string()).take(whole.indices)


def _target(column: pa.ChunkedArray, name: str, bad: str, remarks: list[str]) -> Target:
    counts = sorted(
        ((entry["counts"], entry["values"]) for entry in pc.value_counts(column).to_pylist()),
        key=lambda pair: (pair[0], pair[1] or ""),
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
        if len(distinct) == len(column) and _is_id(name, numeric):
            remarks.append(f"field {name!r} dropped: a different whole number in each row, an id")
            return None
        return Field(name, "numeric", binning=Binning("tree", bins), **common)  # type: ignore[arg-type]
    if len(distinct) > MAX_CATEGORIES:
        remarks.append(
            f"field {name!r} dropped: {len(distinct)} different texts (at most {MAX_CATEGORIES})"
        )
        return None
    longest = max(len(text.encode()) for text in distinct.to_pylist())
    if longest > MAX_LEVEL_LENGTH:
        remarks.append(
            f"field {name!r} dropped: a text of {longest} bytes (at most {MAX_LEVEL_LENGTH})"
        )
        return None
    categories = dict.fromkeys(sorted(distinct.to_pylist()), "")
    return Field(name, "categorical", categories=categories, **common)  # type: ignore[arg-type]


def _is_id(name: str, values: np.ndarray) -> bool:
    """Return whether distinct ``values`` in the order of rows look like numbers of the rows.

    An amount can differ in each row too; an id also rises from row to row, or is called one.
    """
    rising = bool(np.all(np.diff(values) > 0))
    called = name.lower().endswith("id")
    return bool(np.all(values == np.round(values))) and (rising or called)


def _numbers(distinct: pa.Array) -> np.ndarray | None:
    """Return the values as float64, or nothing when one is no finite number."""
    try:
        values = np.asarray(pc.cast(distinct, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        return None
    return values if np.isfinite(values).all() else None
